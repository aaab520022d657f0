package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/app"
	"github.com/lockstep-sync/lockstep/internal/store/pgtest"
	"github.com/lockstep-sync/lockstep/internal/twin/dataverse"
)

// liveLabel is the label that both sides change while a pair is watched.
const (
	liveLabel  = "CITY"
	liveColumn = "address1_city"
)

// live watches a pair that nobody asks for anything: every sync begins by its
// schedule, and all schedules are the default ones.
func (b *bench) live() (err error) {
	say("a pair of %d contacts that runs by itself", b.contacts)
	t, err := b.startTwins(twinsConfig{Contacts: b.contacts})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.stop()) }()
	p, err := b.startWith(t, setup{lists: []string{dynamicList}, twoWay: liveLabel}, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.stop()) }()
	if _, err := p.sync(t); err != nil {
		return err
	}
	if err := p.api(http.MethodPatch, "/accounts/"+p.account, map[string]bool{"automatic": true}, nil); err != nil {
		return err
	}
	if err := b.restarts(p); err != nil {
		return err
	}
	if err := b.idle(t, p); err != nil {
		return err
	}
	return b.changes(t, p)
}

// restarts measures the time from the start of the program to its first answer.
func (b *bench) restarts(p *product) error {
	var ms []float64
	for range max(5, b.runs) {
		if err := p.stop(); err != nil {
			return err
		}
		began := time.Now()
		if err := p.serve(); err != nil {
			return err
		}
		for {
			err := send(http.MethodGet, p.url+"/readyz", nil, nil, func(*http.Request) {})
			if err == nil {
				break
			}
			if time.Since(began) > time.Minute {
				return err
			}
		}
		ms = append(ms, float64(time.Since(began).Milliseconds()))
	}
	say("  start to serving: %s ms", format(median(ms)))
	b.add(result{id: "PF-17", what: "start to serving with " + thousands(b.contacts) + " contacts of state", unit: "ms", values: ms, target: 300, stretch: 150})
	return nil
}

// idle measures what a pair costs in which nothing happens.
func (b *bench) idle(t *twins, p *product) error {
	// Continuous syncs look less and less often; after four minutes they are at their
	// slowest.
	settle, watch := min(4*time.Minute, b.liveFor), b.liveFor/2
	say("  idle: %v to come to rest, %v watched", settle, watch)
	if err := b.pause(settle); err != nil {
		return err
	}
	if err := t.reset(); err != nil {
		return err
	}
	before, err := p.cpu()
	if err != nil {
		return err
	}
	began := time.Now()
	if err := b.pause(watch); err != nil {
		return err
	}
	took := time.Since(began)
	after, err := p.cpu()
	if err != nil {
		return err
	}
	calls, err := t.stats()
	if err != nil {
		return err
	}
	// A table of the CRM is asked by its feed, its memberships and its headers; the
	// platform by one operation for each kind of thing.
	tables := map[string]float64{}
	for system, c := range calls {
		for op, n := range c.Operations {
			table, _, _ := strings.Cut(op, ".")
			if system == "dotdigital" {
				table = op
			}
			tables[system+" "+table] += float64(n) / took.Minutes()
		}
	}
	most := 0.0
	var text []string
	for table, n := range tables {
		most = max(most, n)
		text = append(text, fmt.Sprintf("%s %s", table, format(n)))
	}
	slices.Sort(text)
	b.add(
		result{id: "PF-11", what: "idle, default schedules: calls a minute for the table or platform operation with most of them", unit: "calls", values: []float64{most}, target: 2, stretch: 2, note: strings.Join(text, ", ")},
		result{id: "PF-11", what: "idle: share of one core", unit: "%", values: []float64{100 * (after - before).Seconds() / took.Seconds()}, target: 0.5, stretch: 0.5},
	)
	return nil
}

// trial is a change that is on its way.
type trial struct {
	who      known
	platform bool // made there
	value    string
	made     time.Time
}

// changes makes a change a second, in turns on the two sides, and measures how long it
// takes until the other side says it.
func (b *bench) changes(t *twins, p *product) error {
	say("  a change a second for %v", b.liveFor)
	var seconds [2][]float64
	var pending []trial
	next, end := time.Now(), time.Now().Add(b.liveFor)
	for n := 0; time.Now().Before(end) || len(pending) > 0; {
		if now := time.Now(); !now.Before(next) && now.Before(end) {
			tr := trial{who: b.ids[n%len(b.ids)], platform: n%2 == 1, value: fmt.Sprintf("Town %d", n), made: now}
			if err := t.changeOne(tr); err != nil {
				return err
			}
			pending = append(pending, tr)
			next, n = next.Add(time.Second), n+1
		}
		kept := pending[:0]
		for _, tr := range pending {
			seen, err := t.sees(tr)
			switch {
			case err != nil:
				return err
			case seen:
				side := 0
				if tr.platform {
					side = 1
				}
				seconds[side] = append(seconds[side], time.Since(tr.made).Seconds())
			case time.Since(tr.made) > 2*time.Minute:
				return fmt.Errorf("a change did not arrive in two minutes\n%s", p.out.Bytes())
			default:
				kept = append(kept, tr)
			}
		}
		pending = kept
		if err := b.pause(20 * time.Millisecond); err != nil {
			return err
		}
	}
	for side, name := range []string{"in the CRM to visible on the platform", "on the platform to visible in the CRM"} {
		slices.Sort(seconds[side])
		what := fmt.Sprintf("1 change/s for %v in turns, default schedules: %s", b.liveFor, name)
		b.add(
			result{id: "PF-9", what: what + ": p50", unit: "s", values: []float64{percentile(seconds[side], 0.5)}, target: 2, stretch: 2, note: fmt.Sprintf("%d changes", len(seconds[side]))},
			result{id: "PF-9", what: "same: p99", unit: "s", values: []float64{percentile(seconds[side], 0.99)}, target: 10, stretch: 3, note: "slowest " + format(seconds[side][len(seconds[side])-1]) + " s"},
		)
	}
	return nil
}

func (t *twins) changeOne(tr trial) error {
	if tr.platform {
		return t.mail(http.MethodPatch, "/contacts/v3/email/"+url.PathEscape(tr.who.email), map[string]any{"dataFields": map[string]string{liveLabel: tr.value}}, nil)
	}
	return t.crm(http.MethodPatch, "contacts("+tr.who.id+")", map[string]string{liveColumn: tr.value}, nil)
}

// sees asks the other side.
func (t *twins) sees(tr trial) (bool, error) {
	if tr.platform {
		var row map[string]any
		err := t.crm(http.MethodGet, "contacts("+tr.who.id+")?$select="+liveColumn, nil, &row)
		return row[liveColumn] == tr.value, err
	}
	var c struct {
		DataFields []struct {
			Key   string
			Value any
		} `json:"dataFields"`
	}
	err := t.mail(http.MethodGet, "/v2/contacts/"+url.PathEscape(tr.who.email), nil, &c)
	for _, f := range c.DataFields {
		if f.Key == liveLabel && f.Value == tr.value {
			return true, err
		}
	}
	return false, err
}

// pause waits, or less when the benchmark is interrupted.
func (b *bench) pause(d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-b.ctx.Done():
		return b.ctx.Err()
	}
}

// serviceLimits are the limits of the service with one server, and limitWindow is what
// they count over.
var serviceLimits = dataverse.Limits{Requests: 6000, Execution: 20 * time.Minute, Concurrent: 52, Servers: 1, Parallel: 5}

const limitWindow = 5 * time.Minute

// throttled writes to every contact of the CRM, while the twin enforces the limits of
// the service: what the platform changed comes back.
func (b *bench) throttled() error {
	free, _, err := b.writeBack(b.large, dataverse.Limits{})
	if err != nil {
		return err
	}
	bound, told, err := b.writeBack(b.large, serviceLimits)
	if err != nil {
		return err
	}
	// A full window of requests has to pass as often as there are more of them than it
	// lets through; the rest takes the time that it takes.
	needed := int(bound.calls["dataverse"].Calls)
	windows := (needed - 1) / serviceLimits.Requests
	rest := float64(needed-windows*serviceLimits.Requests) / float64(needed) * free.wall.Seconds()
	least := max(free.wall.Seconds(), float64(windows)*limitWindow.Seconds()+rest)
	b.add(
		result{
			id: "PF-12", what: thousands(b.large) + " rows written to the CRM under 6,000 requests and 1,200 s of execution in 300 s, 52 at once, hint 5: wall, against the least by arithmetic", unit: "×",
			values: []float64{bound.wall.Seconds() / least}, target: 1.15, stretch: 1.05,
			note: fmt.Sprintf("%.0f s; %.0f s without limits, %s requests, least %.0f s, told to wait %d times", bound.wall.Seconds(), free.wall.Seconds(), thousands(needed), least, told.Refused),
		},
		result{id: "PF-13", what: "same: requests sent before a Retry-After had passed", unit: "calls", values: []float64{float64(told.Early)}},
		result{id: "PF-13", what: "same: refused because too many were in flight", unit: "calls", values: []float64{float64(told.Crowded)}},
	)
	return nil
}

// writeBack loads the company, changes everybody on the platform, and measures the run
// that carries that to the CRM.
func (b *bench) writeBack(contacts int, limits dataverse.Limits) (m measured, told toldToWait, err error) {
	say("%d rows written to the CRM, %d requests allowed", contacts, limits.Requests)
	t, err := b.startTwins(twinsConfig{Contacts: contacts, Limits: limits})
	if err != nil {
		return m, told, err
	}
	defer func() { err = errors.Join(err, t.stop()) }()
	p, err := b.startWith(t, setup{lists: []string{dynamicList}, twoWay: liveLabel}, false)
	if err != nil {
		return m, told, err
	}
	defer func() { err = errors.Join(err, p.stop()) }()
	if _, err := p.sync(t); err != nil {
		return m, told, err
	}
	// That everybody changes is announced, or the run would stop before it begins.
	if err := p.api(http.MethodPatch, "/accounts/"+p.account, map[string]time.Time{"bulk_until": time.Now().Add(time.Hour).UTC()}, nil); err != nil {
		return m, told, err
	}
	if err := t.anHourLater(); err != nil {
		return m, told, err
	}
	if err := t.moveEverybody(contacts); err != nil {
		return m, told, err
	}
	if m, err = p.sync(t); err != nil {
		return m, told, err
	}
	if n := m.run.Counts.RecordsUpdated; n != int64(contacts) {
		return m, told, fmt.Errorf("%d of %d records were written", n, contacts)
	}
	if limits.Requests > 0 {
		err = send(http.MethodGet, t.ready.Dataverse.URL+patiencePath, nil, &told, func(*http.Request) {})
	}
	say("  %.1f s, %d requests of the CRM, told to wait %d times, early %d", m.wall.Seconds(), m.calls["dataverse"].Calls, told.Refused, told.Early)
	return m, told, err
}

// moveEverybody gives every contact of the platform another city.
func (t *twins) moveEverybody(contacts int) error {
	const each = 50_000
	type contact map[string]any
	var rows []contact
	flush := func() error {
		if len(rows) == 0 {
			return nil
		}
		err := t.mail(http.MethodPut, "/contacts/v3/import", map[string]any{"mergeOption": "overwrite", "contacts": rows}, nil)
		rows = rows[:0]
		return err
	}
	n := 0
	for next := "contacts?$select=emailaddress1"; next != ""; {
		var page struct {
			Value []struct {
				Email string `json:"emailaddress1"`
			}
			Next string `json:"@odata.nextLink"`
		}
		if err := t.crm(http.MethodGet, next, nil, &page); err != nil {
			return err
		}
		for _, r := range page.Value {
			rows = append(rows, contact{"matchIdentifier": "email", "identifiers": map[string]string{"email": strings.ToLower(r.Email)}, "dataFields": map[string]string{liveLabel: "Elsewhere"}})
		}
		if n += len(page.Value); len(rows) >= each {
			if err := flush(); err != nil {
				return err
			}
		}
		next = page.Next
	}
	if n != contacts {
		return fmt.Errorf("%d of %d contacts were read", n, contacts)
	}
	return flush()
}

// patience stands before the Dataverse twin and counts who does not wait.
type patience struct {
	http.Handler
	mu sync.Mutex
	// Whoever asks between these two does not wait.
	from, until time.Time
	told        toldToWait
}

// onTheirWay is how long after a refusal requests arrive that were sent before it.
const onTheirWay = 100 * time.Millisecond

// toldToWait is how often a client was told to wait, did not, and had too many
// requests in flight.
type toldToWait struct{ Refused, Early, Crowded int }

const patiencePath = "/bench/patience"

// crowded is the code of the answer to too many requests at once.
const crowded = "0x80072326"

func (h *patience) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == patiencePath {
		h.mu.Lock()
		defer h.mu.Unlock()
		_ = json.NewEncoder(w).Encode(h.told)
		return
	}
	h.mu.Lock()
	if now := time.Now(); now.After(h.from) && now.Before(h.until) {
		h.told.Early++
	}
	h.mu.Unlock()
	h.Handler.ServeHTTP(&refusals{ResponseWriter: w, of: h}, r)
}

// refusals sees the answers that tell to wait.
type refusals struct {
	http.ResponseWriter
	of *patience
	is bool
}

func (r *refusals) WriteHeader(status int) {
	if status == http.StatusTooManyRequests {
		s, _ := strconv.Atoi(r.Header().Get("Retry-After"))
		r.is = true
		r.of.mu.Lock()
		r.of.told.Refused++
		now := time.Now()
		if now.After(r.of.until) {
			r.of.from = now.Add(onTheirWay)
		}
		// Its answer counts the seconds from when it arrives, a little later.
		if until := now.Add(time.Duration(s) * time.Second); until.After(r.of.until) {
			r.of.until = until
		}
		r.of.mu.Unlock()
	}
	r.ResponseWriter.WriteHeader(status)
}

func (r *refusals) Write(p []byte) (int, error) {
	if r.is && strings.Contains(string(p), crowded) {
		r.of.mu.Lock()
		r.of.told.Crowded++
		r.of.mu.Unlock()
	}
	return r.ResponseWriter.Write(p)
}

// manyLists compares the members of a thousand lists when each of them lost one and got
// another one.
func (b *bench) manyLists() (err error) {
	lists, each := 1000, 5*b.contacts/1000
	say("%d lists of %d members", lists, each)
	t, err := b.startTwins(twinsConfig{Contacts: b.contacts})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.stop()) }()
	ids, err := t.contactIDs()
	if err != nil {
		return err
	}
	type target struct {
		Type string `json:"@odata.type"`
		ID   string `json:"contactid,omitempty"`
		List string `json:"listid,omitempty"`
	}
	const contactType, listType = "Microsoft.Dynamics.CRM.contact", "Microsoft.Dynamics.CRM.list"
	how := setup{}
	for i := range lists {
		how.lists = append(how.lists, fmt.Sprintf("Part %04d", i))
		if err := t.crm(http.MethodPost, "lists", map[string]any{"listname": how.lists[i], "createdfromcode": 2, "type": false}, nil); err != nil {
			return err
		}
	}
	var page struct {
		Value []struct {
			ID   string `json:"listid"`
			Name string `json:"listname"`
		}
	}
	if err := t.crm(http.MethodGet, "lists?$select=listid,listname&$orderby=listname&$filter="+url.QueryEscape("startswith(listname,'Part ')"), nil, &page); err != nil {
		return err
	}
	if len(page.Value) != lists {
		return fmt.Errorf("%d of %d lists were made", len(page.Value), lists)
	}
	member := func(list, n int) string { return ids[(list*each+n)%len(ids)] }
	add := func(list int, who ...string) error {
		members := make([]target, len(who))
		for i, id := range who {
			members[i] = target{Type: contactType, ID: id}
		}
		return t.crm(http.MethodPost, "AddListMembersList", map[string]any{"List": target{Type: listType, List: page.Value[list].ID}, "Members": members}, nil)
	}
	for i := range lists {
		var who []string
		for n := range each {
			who = append(who, member(i, n))
		}
		if err := add(i, who...); err != nil {
			return err
		}
	}
	p, err := b.startWith(t, how, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.stop()) }()
	// Making the address books takes more calls than the account grants in an hour, and
	// the clock of the twins does not move Lockstep's.
	if err := p.api(http.MethodPatch, "/budgets/"+p.account, map[string]int{"per_hour": 1_000_000}, nil); err != nil {
		return err
	}
	first, err := p.sync(t)
	if err != nil {
		return err
	}
	say("  first load: %.2f s", first.wall.Seconds())
	if err := t.anHourLater(); err != nil {
		return err
	}
	if _, err := p.sync(t); err != nil {
		return err
	}
	for i := range lists {
		if err := t.crm(http.MethodPost, "lists("+page.Value[i].ID+")/Microsoft.Dynamics.CRM.RemoveMemberList", map[string]any{"EntityId": member(i, 0)}, nil); err != nil {
			return err
		}
		if err := add(i, member(i, each)); err != nil {
			return err
		}
	}
	m, err := p.sync(t)
	if err != nil {
		return err
	}
	b.add(
		result{
			id: "PF-14", what: fmt.Sprintf("%s lists, %s memberships, each list lost a member and got another one: Dataverse reads", thousands(lists), thousands(lists*each)), unit: "calls",
			values: []float64{float64(m.calls["dataverse"].Calls)}, target: float64(100 + (lists*each+4999)/5000), stretch: float64(100 + (lists*each+4999)/5000), note: m.operations(),
		},
		result{id: "PF-14", what: "same: wall", unit: "s", values: []float64{m.wall.Seconds()}, target: 2, stretch: 2, note: fmt.Sprintf("first load %.1f s; added %d, removed %d", first.wall.Seconds(), m.run.Counts.BookAdds, m.run.Counts.BookRemovals)},
	)
	return nil
}

// contactIDs are the ids of all contacts of the CRM.
func (t *twins) contactIDs() (ids []string, err error) {
	for next := "contacts?$select=contactid"; next != ""; {
		var page struct {
			Value []struct {
				ID string `json:"contactid"`
			}
			Next string `json:"@odata.nextLink"`
		}
		if err := t.crm(http.MethodGet, next, nil, &page); err != nil {
			return nil, err
		}
		for _, r := range page.Value {
			ids = append(ids, r.ID)
		}
		next = page.Next
	}
	return ids, nil
}

// The fan-out that one worker and three are compared by.
const (
	fanAccounts = 12
	fanLatency  = 50 * time.Millisecond
)

// workers compares one worker process with three on one PostgreSQL database, when the
// time goes into waiting for answers.
func (b *bench) workers() error {
	contacts := b.contacts / 20
	say("%d accounts of %d contacts, %v a call, one worker and three", fanAccounts, contacts, fanLatency)
	var walls [2][]float64
	for range min(3, b.runs) {
		for i, n := range []int{1, 3} {
			d, err := b.fanOut(contacts, n)
			if err != nil {
				return err
			}
			say("  %d: %.2f s", n, d.Seconds())
			walls[i] = append(walls[i], d.Seconds())
		}
	}
	ratios := make([]float64, len(walls[0]))
	for i := range ratios {
		ratios[i] = walls[0][i] / walls[1][i]
	}
	rate := func(w []float64) string { return format(float64(fanAccounts*contacts) / median(w)) }
	b.add(result{
		id: "workers", what: fmt.Sprintf("first load of %d email accounts with %s contacts each, %v a call, PostgreSQL: three worker processes against one", fanAccounts, thousands(contacts), fanLatency), unit: "×",
		values: ratios, target: 1, stretch: 2, higher: true, note: fmt.Sprintf("%s s and %s s; %s and %s contacts a second", format(median(walls[0])), format(median(walls[1])), rate(walls[0]), rate(walls[1])),
	})
	return nil
}

func (b *bench) fanOut(contacts, workers int) (took time.Duration, err error) {
	database, end, err := pgtest.Serve()
	if err != nil {
		return 0, err
	}
	defer end()
	t, err := b.startTwins(twinsConfig{Contacts: contacts, PerCall: fanLatency, Accounts: fanAccounts})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, t.stop()) }()
	dir, err := os.MkdirTemp(b.dir, "data-")
	if err != nil {
		return 0, err
	}
	set, err := prepare(b.ctx, dir, t, setup{lists: []string{dynamicList}, database: database})
	if err != nil {
		return 0, err
	}
	a, err := app.Open(b.ctx, app.Config{DataDir: dir, DatabaseURL: database, AllowHosts: set.hosts})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, a.Close(context.WithoutCancel(b.ctx))) }()
	var crew []*process
	defer func() {
		for _, w := range crew {
			err = errors.Join(err, w.stop())
		}
	}()
	for range workers {
		w := &process{}
		args := []string{"worker", "--data", dir, "--listen", "127.0.0.1:0"}
		for _, h := range set.hosts {
			args = append(args, "--allow-host", h)
		}
		if err := w.start(b.lockstep, args, "LOCKSTEP_DATABASE_URL="+database); err != nil {
			return 0, err
		}
		crew = append(crew, w)
	}
	if err := b.pause(2 * time.Second); err != nil { // they have connected
		return 0, err
	}
	began := time.Now()
	var runs []string
	for _, account := range set.accounts {
		run, err := a.StartRun(b.ctx, app.RunRequest{Account: account, Type: lockstep.SyncMarketingLists})
		if err != nil {
			return 0, err
		}
		runs = append(runs, run.ID)
	}
	for _, id := range runs {
		for {
			run, err := a.Run(b.ctx, id)
			if err != nil {
				return 0, err
			}
			if run.Status == lockstep.RunCompleted && run.Counts.ContactsCreated == int64(contacts) {
				break
			}
			if run.Status.Ended() {
				return 0, fmt.Errorf("a run is %s after %d contacts: %s", run.Status, run.Counts.ContactsCreated, run.Error)
			}
			if err := b.pause(20 * time.Millisecond); err != nil {
				return 0, err
			}
		}
	}
	return time.Since(began), nil
}
