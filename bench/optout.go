package main

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/lockstep-sync/lockstep"
)

const (
	// lanePause is the time between two runs of the consent lane.
	lanePause = time.Second
	// optOutsPerLoad is how many opt-outs fall into one load.
	optOutsPerLoad = 20
	// lookEvery is the pause between two looks at the people who opted out, and
	// lookAgain that for those who were blocked already and must stay so.
	lookEvery = 20 * time.Millisecond
	lookAgain = 200 * time.Millisecond
	// optOutPatience is when an opt-out counts as lost.
	optOutPatience = 5 * time.Minute
	// perLoaded guesses the length of the very first load.
	perLoaded = 25 * time.Microsecond
)

// optOut is one trial: a person in an address book says no on one side, while a load
// runs, and is watched on the other.
type optOut struct {
	who      known
	platform bool // said there
	made     time.Time
	blocked  time.Time // zero: not yet, or not any more
	looked   time.Time
	early    bool // made in the CRM before the first load brought the person; not measured, only watched
	returns  int  // how often the person was blocked and then was not
	counts   bool // made before the load had ended
	after    bool // blocked only after the load had ended
}

func (o *optOut) String() string {
	side := "in the CRM"
	if o.platform {
		side = "on the platform"
	}
	return fmt.Sprintf("the opt-out that contact %s made %s", o.who.id, side)
}

// optOutTrials are opt-outs during loads of one running pair.
type optOutTrials struct {
	t    *twins
	p    *product
	lane *consentLane
	dice *rand.Rand
	ids  []known

	all     []*optOut
	taken   map[string]bool
	early   int // opt-outs of people whom the first load had not brought
	refused int // contacts that the platform did not take because they had opted out meanwhile
	loads   int
	length  time.Duration // of the last load
}

// latencies are the times from opt-out to block of one side's trials, in order.
func (s *optOutTrials) latencies(platform bool) (seconds []float64) {
	for _, o := range s.all {
		if o.counts && o.platform == platform {
			seconds = append(seconds, o.blocked.Sub(o.made).Seconds())
		}
	}
	slices.Sort(seconds)
	return seconds
}

func (s *optOutTrials) number(which func(*optOut) bool) (n int) {
	for _, o := range s.all {
		if o.counts && which(o) {
			n++
		}
	}
	return n
}

// crossed is how many of those who opted out early were brought all the same, by an
// import on its way, and taken out again, and how long after the opt-out the last was.
func (s *optOutTrials) crossed() (n int, longest float64) {
	for _, o := range s.all {
		if o.early && o.returns > 0 {
			n++
			longest = max(longest, o.blocked.Sub(o.made).Seconds())
		}
	}
	return n, longest
}

func anyOptOut(*optOut) bool { return true }

// percentile of sorted values, by the nearest rank.
func percentile(v []float64, p float64) float64 {
	if len(v) == 0 {
		return math.NaN()
	}
	return v[max(0, int(math.Ceil(p*float64(len(v))))-1)]
}

// optOutsInLoads measures how long an opt-out on one side needs to block the other while
// a load runs.
func (b *bench) optOutsInLoads() error {
	var text strings.Builder
	fmt.Fprintf(&text, `Opt-outs are made in turns on the two twins, at random moments while a load runs, by random people who are in the list's address book at that moment:
on the platform by unsubscribing from all mail, in the CRM by ticking donotbulkemail. The other twin is then asked itself every %v, and each time counts from before the opt-out's own call.
Blocked is, in the CRM, a contact that says donotbulkemail (nobody shares an address here), and on the platform a contact in no address book under the policy list_removal.
Who is blocked is looked at until the load has ended, and an opt-out that was blocked and came back counts until it was blocked for good.
The first load is one of new systems, the others follow a change of every contact in the CRM; each must write all of them.
In the first load some people besides opt out in the CRM whom it has not brought yet. They are not measured, as they are blocked already, but watched: an import on its way may still bring them, and then they have to go at once.
The consent lane's runs are asked for by the benchmark, one after the other with %v between them besides those that its schedules begin.
After each load everybody who had opted out by then was found opted out on both sides where the policy says so and in no address book, nobody else was closed in the CRM, and the consent ledger verified.`, lookEvery, lanePause)
	text.WriteString("\n")
	each, missed := perLoaded, 0 // the time a contact took in the last load, and the size that missed a target
	for _, c := range []struct {
		contacts, trials int
		target, stretch  float64
	}{
		{b.contacts, b.optOuts, 10, 3},
		{b.large, max(2, b.optOuts/10), 60, 60},
	} {
		s, err := b.optOutFigure(c.contacts, c.trials, each, "")
		if err != nil {
			return err
		}
		each = s.length / time.Duration(c.contacts)
		n := thousands(c.contacts)
		for _, platform := range []bool{true, false} {
			what := "opt-out on the platform to closed in the CRM"
			if !platform {
				what = "opt-out in the CRM to out of the address books"
			}
			v := s.latencies(platform)
			r := result{
				id: "PF-10", what: fmt.Sprintf("%s while %s contacts are loaded: p99", what, n), unit: "s", values: []float64{percentile(v, 0.99)}, target: c.target, stretch: c.stretch,
				note: fmt.Sprintf("p50 %s s, max %s s; opt-outs: %d, loads: %d", format(percentile(v, 0.5)), format(percentile(v, 1)), len(v), s.loads),
			}
			if b.add(r); !r.met(r.target) {
				missed = c.contacts
			}
		}
		crossed, longest := s.crossed()
		fmt.Fprintf(&text, "\n- %s contacts: opt-outs: %d, loads: %d, the last of which took %.1f s. Blocked only after their load had ended: %d; blocked, come back and blocked again: %d; opted out before they came: %d, of whom %d came and were taken out, at most %s s after the opt-out; refused by the platform because the import left before the opt-out was known: %d. Runs of the consent lane: %d, median %s s, longest %s s.",
			n, s.number(anyOptOut), s.loads, s.length.Seconds(), s.number(func(o *optOut) bool { return o.after }), s.number(func(o *optOut) bool { return o.returns > 0 }), s.early, crossed, format(longest), s.refused,
			len(s.lane.took), format(median(s.lane.took)), format(slices.Max(s.lane.took)))
	}
	b.note("PF-10", "%s", text.String())
	if missed == 0 {
		return nil
	}
	return b.optOutProfile(missed, each)
}

// optOutFigure makes opt-outs in as many loads of new systems as it takes. each is
// about how long a load takes for one contact. profile, when set, is the file that gets
// a profile of the processor time from the beginning of the first load on.
func (b *bench) optOutFigure(contacts, trials int, each time.Duration, profile string) (s *optOutTrials, err error) {
	say("%d opt-outs while %d contacts are loaded", trials, contacts)
	t, err := b.startTwins(twinsConfig{Contacts: contacts})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, t.stop()) }()
	s = &optOutTrials{t: t, dice: rand.New(rand.NewPCG(1, uint64(contacts))), taken: map[string]bool{}, length: time.Duration(contacts) * each}
	if s.ids, err = t.everybody(); err != nil {
		return nil, err
	}
	p, err := b.startProduct(t, dynamicList, profile != "")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, p.stop()) }()
	if err := p.installTables(); err != nil {
		return nil, err
	}
	// Every contact is about to change, which a guard stops unless it was announced.
	if err := p.api(http.MethodPatch, "/accounts/"+p.account, map[string]any{"bulk_until": time.Now().Add(24 * time.Hour)}, nil); err != nil {
		return nil, err
	}
	// The lane's first run notes who was opted out before; there is nobody.
	if _, err := p.exchangeConsent(); err != nil {
		return nil, err
	}
	lane := p.startLane()
	defer func() { err = errors.Join(err, lane.end()) }()
	s.p, s.lane = p, lane
	if profile != "" {
		taken := make(chan error, 1)
		seconds := 3 + contacts/50_000
		go func() { taken <- profiler{p.pprof}.fetch(fmt.Sprintf("profile?seconds=%d", seconds), profile) }()
		defer func() { err = errors.Join(err, <-taken) }()
		time.Sleep(100 * time.Millisecond) // the profiler is on before the load begins
	}
	most := 3 * (trials/optOutsPerLoad + 1)
	for have := 0; have < trials; have = s.number(anyOptOut) {
		if s.loads == most {
			return nil, fmt.Errorf("only %d of %d opt-outs fell into %d loads: they are too short to be measured in", have, trials, s.loads)
		}
		if s.loads > 0 {
			if err := s.t.changeAll(s.ids, fmt.Sprintf("Load %d", s.loads)); err != nil {
				return nil, err
			}
		}
		if err := s.load(min(optOutsPerLoad, trials-have)); err != nil {
			return nil, fmt.Errorf("load %d: %w", s.loads, err)
		}
		if err := s.verify(); err != nil {
			return nil, fmt.Errorf("after load %d: %w", s.loads, err)
		}
	}
	return s, nil
}

// load carries out one load with up to n opt-outs, at random moments of the time that
// the load before took.
func (s *optOutTrials) load(n int) error {
	moments := make([]time.Duration, n)
	for i := range moments {
		moments[i] = time.Duration(s.dice.Int64N(int64(s.length)))
	}
	slices.Sort(moments)
	run, err := s.p.request(lockstep.SyncMarketingLists)
	if err != nil {
		return err
	}
	s.loads++
	began, asked := time.Now(), time.Time{}
	first := len(s.all)
	for open := 0; !run.Status.Ended() || open > 0; time.Sleep(lookEvery) {
		if err := s.lane.failed(); err != nil {
			return err
		}
		if !run.Status.Ended() && time.Since(asked) > 50*time.Millisecond {
			asked = time.Now()
			if err := s.p.api(http.MethodGet, "/runs/"+run.ID, nil, &run); err != nil {
				return fmt.Errorf("%w\n%s", err, s.p.out.Bytes())
			}
		}
		if !run.Status.Ended() && len(moments) > 0 && time.Since(began) >= moments[0] {
			o, err := s.make()
			if err != nil {
				return err
			}
			if o != nil {
				s.all = append(s.all, o)
			}
			if o != nil && !o.early {
				moments = moments[1:]
			}
		}
		if open, err = s.look(s.all[first:], run.Status.Ended()); err != nil {
			return err
		}
	}
	if run.Status == lockstep.RunCompletedWithErrors {
		if err := s.refusals(run.ID); err != nil {
			return err
		}
	} else if run.Status != lockstep.RunCompleted {
		return fmt.Errorf("the run is %s: %s (%s)", run.Status, run.Error, run.Hint)
	}
	if written := run.Counts.ContactsCreated + run.Counts.ContactsUpdated; written < int64(len(s.ids)-len(s.all)) {
		return fmt.Errorf("the load wrote %d of %d contacts", written, len(s.ids))
	}
	s.length = run.Ended.Sub(run.Created)
	for _, o := range s.all[first:] {
		o.counts, o.after = o.made.Before(run.Ended) && !o.early, o.blocked.After(run.Ended)
	}
	say("  load %d: %.2f s, %d opt-outs", s.loads, s.length.Seconds(), len(s.all)-first)
	return nil
}

// refusals counts a load's findings. Only one is right here: the platform refused a
// contact who had unsubscribed while the import was on its way.
func (s *optOutTrials) refusals(run string) error {
	var page struct{ Items []lockstep.Finding }
	if err := s.p.api(http.MethodGet, "/runs/"+run+"/findings?limit=500", nil, &page); err != nil {
		return err
	}
	for _, f := range page.Items {
		if f.Code != lockstep.FindingRejected || !slices.ContainsFunc(s.all, func(o *optOut) bool { return o.platform && o.who.id == f.Record.String() }) {
			return fmt.Errorf("the load has a finding: %s %s %s: %s", f.Code, f.Table, f.Record, f.Message)
		}
		s.refused++
	}
	return nil
}

// make lets somebody opt out who is in an address book now, or, in the first load, who
// may be on the way there; nil when none of some was.
func (s *optOutTrials) make() (*optOut, error) {
	for range 3 {
		who := s.ids[s.dice.IntN(len(s.ids))]
		if s.taken[who.id] {
			continue
		}
		p, err := s.t.person(who.email)
		if err != nil {
			return nil, err
		}
		early := len(p.Lists) == 0
		if early && (s.loads > 1 || s.early >= optOutsPerLoad) {
			continue
		}
		s.taken[who.id] = true
		o := &optOut{who: who, platform: (len(s.all)-s.early)%2 == 0 && !early, early: early, made: time.Now()}
		if early {
			s.early++
		}
		if o.platform {
			return o, s.t.mail(http.MethodPost, "/v2/contacts/unsubscribe", map[string]string{"email": who.email}, nil)
		}
		return o, s.t.crm(http.MethodPatch, "contacts("+who.id+")", map[string]any{"donotbulkemail": true}, nil)
	}
	return nil, nil
}

// look looks at people who opted out and tells how many are not blocked yet.
func (s *optOutTrials) look(all []*optOut, last bool) (open int, err error) {
	for _, o := range all {
		if !o.blocked.IsZero() && !last && time.Since(o.looked) < lookAgain {
			continue
		}
		there, err := s.t.blocked(o)
		if err != nil {
			return 0, err
		}
		o.looked = time.Now()
		switch {
		case there && o.blocked.IsZero():
			o.blocked = o.looked
		case there:
		case !o.blocked.IsZero():
			o.blocked = time.Time{}
			o.returns++
			fallthrough
		default:
			open++
			if time.Since(o.made) > optOutPatience {
				return 0, fmt.Errorf("%s had no effect in %v\n%s", o, optOutPatience, s.p.out.Bytes())
			}
		}
	}
	return open, nil
}

// verify reads from the twins that everybody who opted out still is, and that nobody
// else was closed, and lets the consent ledger be verified.
func (s *optOutTrials) verify() error {
	closed, err := s.t.closed()
	if err != nil {
		return err
	}
	for _, o := range s.all {
		if !closed[o.who.email] {
			return fmt.Errorf("%s is not in the CRM", o)
		}
		p, err := s.t.person(o.who.email)
		if err != nil {
			return err
		}
		if len(p.Lists) > 0 {
			return fmt.Errorf("%s did not last: the contact is in an address book", o)
		}
		if status := p.Channels.Email.Status; o.platform && status != "unsubscribed" {
			return fmt.Errorf("%s did not last: the contact is %s", o, status)
		}
	}
	if len(closed) != len(s.all) {
		return fmt.Errorf("%d people opted out, and %d are closed to bulk email in the CRM", len(s.all), len(closed))
	}
	var ledger struct {
		Entries int
		Broken  any
	}
	if err := s.p.api(http.MethodGet, "/consent/verification", nil, &ledger); err != nil {
		return err
	}
	if ledger.Broken != nil || ledger.Entries < len(s.all) {
		return fmt.Errorf("the consent ledger does not verify: %d entries, broken: %v", ledger.Entries, ledger.Broken)
	}
	return nil
}

// blocked reports whether the other side blocks who opted out.
func (t *twins) blocked(o *optOut) (bool, error) {
	if !o.platform {
		p, err := t.person(o.who.email)
		return len(p.Lists) == 0, err
	}
	var r struct {
		Closed bool `json:"donotbulkemail"`
	}
	err := t.crm(http.MethodGet, "contacts("+o.who.id+")?$select=donotbulkemail", nil, &r)
	return r.Closed, err
}

// person is a contact of the platform.
type person struct {
	Lists    []struct{ ID int64 } `json:"lists"`
	Channels struct {
		Email struct{ Status string }
	} `json:"channelProperties"`
}

// person reads a contact; one that is not there is in no list.
func (t *twins) person(email string) (p person, err error) {
	err = t.mail(http.MethodGet, "/contacts/v3/email/"+url.PathEscape(email), nil, &p)
	if status := refused(0); errors.As(err, &status) && status == http.StatusNotFound {
		err = nil
	}
	return p, err
}

// closed are the addresses of the CRM's contacts that are closed to bulk email.
func (t *twins) closed() (map[string]bool, error) {
	out := map[string]bool{}
	err := t.contacts("&$filter=donotbulkemail%20eq%20true", func(k known) { out[k.email] = true })
	return out, err
}

// everybody are the CRM's contacts.
func (t *twins) everybody() (all []known, err error) {
	err = t.contacts("", func(k known) { all = append(all, k) })
	return all, err
}

func (t *twins) contacts(query string, each func(known)) error {
	for next := "contacts?$select=emailaddress1" + query; next != ""; {
		var page struct {
			Value []struct {
				ID    string `json:"contactid"`
				Email string `json:"emailaddress1"`
			}
			Next string `json:"@odata.nextLink"`
		}
		if err := t.crm(http.MethodGet, next, nil, &page); err != nil {
			return err
		}
		for _, r := range page.Value {
			each(known{r.ID, strings.ToLower(r.Email)})
		}
		next = page.Next
	}
	return nil
}

// changeAll gives every contact another city.
func (t *twins) changeAll(ids []known, city string) error {
	for part := range slices.Chunk(ids, 1000) {
		if err := t.change(part, city, len(part)); err != nil {
			return err
		}
	}
	return nil
}

// consentLane asks for runs of the consent lane.
type consentLane struct {
	stop, done chan struct{}
	took       []float64 // seconds of each run; to be read when the lane has ended
	err        error     // likewise
}

func (p *product) startLane() *consentLane {
	l := &consentLane{stop: make(chan struct{}), done: make(chan struct{})}
	go func() {
		defer close(l.done)
		for {
			r, err := p.exchangeConsent()
			if err != nil {
				l.err = fmt.Errorf("the consent lane: %w", err)
				return
			}
			l.took = append(l.took, r.Ended.Sub(r.Created).Seconds())
			select {
			case <-l.stop:
				return
			case <-time.After(lanePause):
			}
		}
	}()
	return l
}

// installTables adds Lockstep's own tables to the CRM, as the consent lane writes a row
// for each opt-out from all mail.
func (p *product) installTables() error {
	for {
		var done struct {
			Left []any
			Run  string
		}
		if err := p.api(http.MethodPost, "/organizations/"+organization+"/schema", nil, &done); err != nil {
			return err
		}
		if done.Run != "" {
			_, err := p.wait(done.Run, 10*time.Millisecond)
			return err
		}
		if len(done.Left) == 0 {
			return nil
		}
	}
}

// exchangeConsent carries out one run of the consent lane.
func (p *product) exchangeConsent() (lockstep.Run, error) {
	r, err := p.request(lockstep.SyncSuppressions)
	if err != nil {
		return r, err
	}
	return p.wait(r.ID, 10*time.Millisecond)
}

// failed is the lane's error as soon as it has ended with one.
func (l *consentLane) failed() error {
	select {
	case <-l.done:
		return l.err
	default:
		return nil
	}
}

// end lets the run under way be the last one.
func (l *consentLane) end() error {
	close(l.stop)
	<-l.done
	return l.err
}

// optOutProfile repeats one load with opt-outs under a profiler and says where the
// processor time of Lockstep went.
func (b *bench) optOutProfile(contacts int, each time.Duration) error {
	say("  PF-10 missed; once more with a profiler")
	dir := filepath.Join(cmp.Or(b.keep, b.dir), "profile-PF-10")
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return err
	}
	file := filepath.Join(dir, "cpu")
	if _, err := b.optOutFigure(contacts, optOutsPerLoad/2, each, file); err != nil {
		return err
	}
	cpu, err := top(file, 15, "-flat")
	if err != nil {
		return err
	}
	cum, err := top(file, 60, "-cum")
	if err != nil {
		return err
	}
	b.note("Profile: PF-10", "A load of %s contacts with the consent lane beside it. Processor time, by function:\n\n```\n%s\n```\n\nBy what was called, ours only:\n\n```\n%s\n```", thousands(contacts), cpu, ours(cum))
	return nil
}
