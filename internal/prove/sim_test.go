// Package prove simulates the product between the two systems that it keeps in step,
// and checks on what then happened that it kept its promises. One seed decides who is
// there, what people do on both sides and when, how long each request takes, which of
// them go wrong and how, when the process is killed and what its clock shows; time is
// virtual and nothing listens on a port. The same seed gives the same run, request by
// request, so that a failure can be looked at as often as one likes.
//
// The twins serve in the same process. Their histories, every value that changed and
// by whom, are what the promises are checked against (promise_test.go), with a model
// of who has to be where that is small enough to be read (model_test.go).
package prove

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/cryptotest"
	"testing/synctest"
	"time"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/adapter"
	"github.com/lockstep-sync/lockstep/internal/app"
	"github.com/lockstep-sync/lockstep/internal/remote"
	"github.com/lockstep-sync/lockstep/internal/twin/clock"
	"github.com/lockstep-sync/lockstep/internal/twin/dataverse"
	"github.com/lockstep-sync/lockstep/internal/twin/dotdigital"
	"github.com/lockstep-sync/lockstep/internal/twin/entra"
)

// Who signs in where.
const (
	tenant        = "aaaaaaaa-0000-4000-8000-000000000001"
	productClient = "aaaaaaaa-0000-4000-8000-000000000002"
	personClient  = "aaaaaaaa-0000-4000-8000-000000000003"
	clientSecret  = "a secret of the simulation"
	personToken   = "person"
	apiUser       = "apiuser-000000000001@apiconnector.com"
	apiPassword   = "a password of the simulation"
)

// collectRarely has garbage collected rarely: a life makes much and keeps little, and
// a fifth of its time would go into that.
func collectRarely() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(1000)
		debug.SetMemoryLimit(1 << 30)
	}
}

// sim is one simulated world.
type sim struct {
	t        *testing.T
	ctx      context.Context
	plan     *plan
	hosts    map[string]http.Handler
	dynamics *dataverse.Server
	mailer   *dotdigital.Server
	history  *history
	net      *network
	injector *injector

	dir     string
	app     *app.App
	account string
	started string            // the newest run that was asked for
	played  []played          // every cycle, in order
	calls   []called          // that twins carried out
	queued  bool              // a person asked for something that starts a run
	paused  func()            // takes back what a person paused
	backup  map[string][]byte // a copy of the product's files
	store   func()            // what a person wants done with them
	since   int               // the change since which the product's memory goes back without a gap
	toUndo  string            // the run that a person wants undone
	undoing *undoneWrites     // once the life is over
	renamed bool              // a mapped column has another name
	closed  map[string]int    // addresses that a person closed in the product
	books   []string          // of the lists, once they are there
	skew    time.Duration

	events   []event
	planned  int
	round    int
	requests int // of this round
	faulty   bool
	waiting  []act // actions that happen during this round's cycle
	runCtx   context.Context
	die      context.CancelFunc

	stepMu sync.Mutex
	steps  int // of the engine in this round
	killed bool
	kills  int
	// stopped is set once the process was asked to stop, for a newer version.
	stopped  bool
	upgrades int

	log      []string // every request, in order: the same seed gives the same log
	struck   []string
	done     int
	refused  string
	acted    map[string]int
	coverage map[coverKey]int
	// deaf are the runs, by their place in played, that an empty answer told of no opt-outs.
	deaf map[int]bool
	// unreported are the rounds in which an import told nothing of contacts that it made.
	unreported map[int]bool
	// unanswered are the rounds in which the process, because it died or because of a fault,
	// may not have been told what became of a write to the CRM.
	unanswered map[int]bool
	possible   map[coverKey]int // pairs of fault and route that could have been
	routes     map[string]int   // requests
	// requested is how many requests there were, in all rounds.
	requested int
	broken    []string // promises
	kinds     []string // what is wrong in each, without naming anybody
	said      string   // what the ledger says of the address that is traced
	alarms    []string // that the product raised
}

type coverKey struct{ kind, twin, route string }

func (s *sim) note(format string, a ...any) { s.log = append(s.log, fmt.Sprintf(format, a...)) }

func (s *sim) violated(promise, format string, a ...any) {
	s.broken = append(s.broken, promise+": "+fmt.Sprintf(format, a...))
	s.kinds = append(s.kinds, promise+": "+format)
}

// directoryKey signs the tokens of every simulated directory. It is short: a token is
// asked for in almost every round.
var directoryKey = sync.OnceValue(func() *rsa.PrivateKey {
	k, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		panic(err)
	}
	return k
})

// newSim makes the twins, with the company's lists and nobody in them.
func newSim(t *testing.T, p *plan) *sim {
	s := &sim{
		t: t, ctx: t.Context(), plan: p, history: newHistory(), net: newNetwork(), injector: &injector{},
		closed: map[string]int{}, acted: map[string]int{}, coverage: map[coverKey]int{}, unreported: map[int]bool{}, unanswered: map[int]bool{}, deaf: map[int]bool{}, possible: map[coverKey]int{}, routes: map[string]int{},
	}
	s.history.who = person
	s.injector.history = s.history
	now := clock.New()
	must := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	crmURL, directoryURL := "https://"+crmHost, "https://"+entraHost
	directory, err := entra.New(entra.Options{Tenant: tenant, Resources: []string{crmURL}, Key: directoryKey(), Clock: now, Faults: s.injector})
	must(err)
	must(directory.AddApplication(entra.Application{ClientID: productClient, Secrets: []entra.Secret{{Value: clientSecret}}}))
	must(directory.AddAuthority(directoryURL))
	crm := dataverse.New(dataverse.Options{
		Clock: now, Faults: s.injector, BaseURL: crmURL, Authority: directoryURL + "/" + tenant, TenantID: tenant,
		Tokens: dataverse.VerifierFunc(func(token string) (dataverse.Token, error) {
			if token == personToken {
				return dataverse.Token{AppID: personClient, Audience: crmURL, Tenant: tenant}, nil
			}
			c, err := directory.Verify(token, "")
			if err != nil {
				return dataverse.Token{}, err
			}
			return dataverse.Token{AppID: c.AppID, Audience: c.Audience, Tenant: c.Tenant, Expires: c.Expires}, nil
		}),
	})
	s.dynamics = crm
	installed := template.crm != ""
	if installed {
		must(crm.LoadSnapshot(template.crm))
	} else {
		must(s.staff())
	}
	crm.OnWrite(s.history.crm)
	s.mailer = dotdigital.New(dotdigital.Options{
		Clock: now, Faults: s.injector, Seed: p.Seed, Users: []dotdigital.APIUser{{Name: apiUser, Password: apiPassword}},
		History: s.history.mail, ImportTime: time.Duration(s.random("imports").IntN(4000)) * time.Millisecond,
	})
	s.mailer.SetEndpoint("https://" + mailHost)
	for _, f := range []string{"JOBTITLE", "PHONE", "CITY", "COUNTRY"} {
		must(s.mailer.AddField(f, "String"))
	}
	must(s.mailer.AddField(misfit, "Numeric"))
	for i, name := range preferences {
		if id := s.mailer.AddPreference(name, name); int(id) != i+1 {
			t.Fatalf("the preference %s has the id %d", name, id)
		}
	}
	s.hosts = map[string]http.Handler{crmHost: crm.Handler(), mailHost: s.mailer.Handler(), entraHost: directory}
	for _, l := range lists {
		if installed {
			break
		}
		c := cols{"listid": l.id(), "listname": l.name, "type": l.dynamic != "", "createdfromcode": memberCode[l.table]}
		if l.dynamic != "" {
			c["query"] = l.fetch()
		}
		if !s.crm("POST", "lists", c, nil) {
			t.Fatal(s.refused)
		}
	}
	crm.Seal()
	return s
}

// staff gives the product and the people at the CRM every privilege that there is.
func (s *sim) staff() error {
	for _, u := range []dataverse.AppUser{{ClientID: productClient, Name: "Lockstep"}, {ClientID: personClient, Name: "People"}} {
		if _, err := s.dynamics.AddApplicationUser(u); err != nil {
			return err
		}
	}
	return nil
}

// populate brings the people in whom the seed wants.
func (s *sim) populate() {
	contacts, leads, accounts := s.population()
	n := 0
	for _, many := range []struct {
		table string
		n     int
	}{{"contact", contacts}, {"lead", leads}, {"account", accounts}} {
		for range many.n {
			rnd := s.random("person", n)
			n++
			email := fmt.Sprintf("p%d@people.example", n)
			switch rnd.IntN(20) {
			case 0:
				email = ""
			case 1, 2, 4, 5:
				email = fmt.Sprintf("P%d@People.Example", n)
			case 3:
				if !s.plan.Shared {
					break
				}
				email = fmt.Sprintf("p%d@people.example", 1+rnd.IntN(n)) // shared
			}
			id := s.create(many.table, email, rnd)
			if rnd.IntN(12) == 0 {
				s.crm("PATCH", many.table+"s("+id+")", cols{"donotbulkemail": true}, nil)
			}
			for _, l := range lists {
				if l.table == many.table && l.dynamic == "" && rnd.IntN(5) < 2 {
					s.join(l, id)
				}
			}
			if email != "" && rnd.IntN(6) == 0 {
				s.mail("POST", "/v2/contacts", cols{"email": lower(email), "optInType": "Single", "emailType": "Html", "dataFields": []cols{{"key": "PHONE", "value": fmt.Sprint("+", n)}}}, nil)
				if rnd.IntN(4) == 0 {
					s.mail("POST", "/v2/contacts/unsubscribe", cols{"email": lower(email)}, nil)
				}
			}
		}
	}
}

// open starts a process of the product on the store.
func (s *sim) open() {
	s.t.Helper()
	s.net.mu.Lock()
	s.net.dead = false
	s.net.mu.Unlock()
	s.killed, s.stopped = false, false
	s.runCtx, s.die = context.WithCancel(remote.WithTurn(s.ctx, s.net.callTurn))
	importRows, pageRows := cmp.Or(s.plan.ImportRows, 8), s.plan.PageRows
	if s.upgrades > 0 { // another version asks for other portions
		rnd := s.random("version", s.upgrades)
		importRows, pageRows = pick(rnd, []int{3, 5, 8}), pick(rnd, []int{0, 4, 15})
	}
	if s.plan.Dropped["pages"] {
		importRows, pageRows = 8, 0
	}
	a, err := app.Open(s.ctx, app.Config{
		DataDir: s.dir, Transport: s.net, ImportRows: importRows, PageRows: pageRows, Log: slog.New(alarm{s}),
		Now: func() time.Time { return time.Now().Add(s.skew) },
		// The jitter depends on the moment alone, not on who asks first.
		Jitter: func(n int64) int64 {
			return int64(uint64(time.Now().UnixNano()/1000)*0x9E3779B97F4A7C15>>1) % n
		},
		OnStep: s.step,
	})
	if err != nil {
		s.t.Fatal(err)
	}
	s.app = a
}

func (s *sim) close() {
	s.die()
	if err := s.app.Close(s.ctx); err != nil {
		s.t.Errorf("close: %v", err)
	}
	s.app = nil
}

// step is told each durable or network step of the engine.
func (s *sim) step(name string) {
	s.net.turn(func() string { return name })
	s.stepMu.Lock()
	s.steps++
	k := s.kill()
	if k != nil && k.Step > 0 && k.Step == s.steps && !s.killed {
		s.dies()
	}
	dead := s.killed
	s.stepMu.Unlock()
	if dead {
		runtime.Goexit()
	}
}

// kill returns how this round's process is to be killed, if it is.
func (s *sim) kill() *kill {
	if !s.faulty || s.round >= len(s.plan.Rounds) || s.plan.Dropped["kills"] || s.plan.drops("k", strconv.Itoa(s.round)) {
		return nil
	}
	return s.plan.Rounds[s.round].Kill
}

// dying kills the process if it is to die at this request.
func (s *sim) dying(request int, served bool) bool {
	k := s.kill()
	s.stepMu.Lock()
	defer s.stepMu.Unlock()
	if !s.killed && !s.stopped && k != nil && k.Request == request && k.Before == !served {
		if k.Upgrade {
			s.stops()
		} else {
			s.dies()
		}
	}
	return s.killed
}

// stops asks the process to stop. Its calls are cut off, what it has to keep it can.
func (s *sim) stops() {
	s.stopped, s.unanswered[s.round] = true, true
	s.upgrades++
	s.die()
}

// dies ends the process: nothing that it still does reaches anybody.
func (s *sim) dies() {
	s.killed, s.unanswered[s.round] = true, true
	s.net.mu.Lock()
	s.net.dead = true
	s.net.mu.Unlock()
	s.die()
}

// volatile does what people do while a request is under way.
func (s *sim) volatile(request int) {
	for len(s.waiting) > 0 && s.waiting[0].During <= request {
		a := s.waiting[0]
		s.waiting = s.waiting[1:]
		s.act(a)
	}
}

// work has the product do something while the world goes on around it.
func (s *sim) work(f func(ctx context.Context) error) (err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		err = f(s.runCtx)
	}()
	s.drive(done)
	synctest.Wait()
	return err
}

// cycle has the product carry out runs until none is left; when it is killed, or stopped
// for an upgrade, the next process goes on.
func (s *sim) cycle(f func(ctx context.Context) error) {
	s.queued = false
	p := played{round: s.round, from: len(s.history.changes)}
	s.started = ""
	before, _ := s.app.Runs(s.ctx, app.RunFilter{Limit: 1})
	struck, kills := len(s.struck), s.kills+s.upgrades
	defer func() {
		p.disturbed = len(s.struck) > struck || s.kills+s.upgrades > kills
		p.run, p.to = s.lastRun(), len(s.history.changes)
		if len(before) > 0 && before[0].ID == p.run.ID {
			p.run = lockstep.Run{} // killed before there was one
		}
		s.played = append(s.played, p)
		s.note("%d.%d %s %s is %s: %s %+v", s.round, s.requests, p.run.Mode, p.run.Type, p.run.Status, p.run.Error, p.run.Counts)
		s.noteFindings(p.run)
	}()
	err := s.work(f)
	if s.killed || s.stopped {
		if s.killed {
			s.kills++
			s.note("%d.%d killed", s.round, s.requests)
		} else {
			s.note("%d.%d upgraded: %v", s.round, s.requests, err)
		}
		s.close()
		s.open()
		s.requests += 1000 // the requests of the next process have numbers of their own
		s.steps += 1000
		err = s.work(s.app.WorkOff)
	}
	if err != nil {
		s.note("%d.%d ended with: %v", s.round, s.requests, err)
	}
}

// noteFindings tells in the log what the product found, for whoever looks at one life.
func (s *sim) noteFindings(run lockstep.Run) {
	if run.Counts.Findings == 0 || !*logFlag {
		return
	}
	found, err := s.app.Findings(s.ctx, run.ID, "", 1000)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, f := range found {
		s.note("  finding %s: %s %s contact %s list %s: %s", f.Code, f.Table, f.Record, f.Contact, f.List, f.Message)
	}
}

// request starts a run and works until it has ended.
func (s *sim) request(t lockstep.SyncType, mode lockstep.Mode) func(ctx context.Context) error {
	return func(ctx context.Context) error {
		run, err := s.app.StartRun(ctx, app.RunRequest{Account: s.account, Type: t, Mode: mode})
		if err != nil {
			return err
		}
		s.started = run.ID
		return s.app.WorkOff(ctx)
	}
}

// lastRun is the run that was asked for last.
func (s *sim) lastRun() lockstep.Run {
	if s.started != "" {
		run, err := s.app.Run(s.ctx, s.started)
		if err != nil {
			s.t.Fatal(err)
		}
		return run
	}
	runs, err := s.app.Runs(s.ctx, app.RunFilter{Limit: 1})
	if err != nil || len(runs) == 0 {
		s.t.Fatalf("no run: %v", err)
	}
	return runs[0]
}

// findBooks asks for the address books of the lists.
func (s *sim) findBooks() {
	all, err := s.app.Lists(s.ctx, s.account)
	if err != nil {
		s.t.Fatal(err)
	}
	s.books = s.books[:0]
	for _, want := range lists {
		for _, l := range all {
			if l.CRMID.String() == want.id() && l.Book != "" {
				s.books = append(s.books, string(l.Book))
			}
		}
	}
}

// play lets the seed's life go by and checks the promises.
func (s *sim) play() {
	s.populate()
	s.poison()
	s.open()
	acc, err := s.app.Account(s.ctx, "")
	if err != nil {
		s.t.Fatal(err)
	}
	s.account = acc.ID
	s.settings()
	s.faulty = true
	for i, r := range s.plan.Rounds {
		s.settle(r.Pause)
		s.round, s.history.round, s.requests, s.steps = i, i, 0, 0
		s.skew += r.Skew
		if s.plan.drops("r", strconv.Itoa(i)) {
			continue
		}
		s.waiting = nil
		for _, a := range r.Actions {
			if a.During > 0 && !s.plan.Dropped["mid"] {
				s.waiting = append(s.waiting, a)
				continue
			}
			s.act(a)
		}
		sortByMoment(s.waiting)
		s.playRound(r)
		s.volatile(1 << 30)
		s.findBooks()
	}
	// The faults stop. What was to be applied late arrives, two cycles run.
	s.faulty = false
	s.round, s.history.round, s.requests = len(s.plan.Rounds), len(s.plan.Rounds), 0
	s.resume()
	s.settle(10 * time.Minute)
	s.cycle(s.request(lockstep.SyncCRMMetadata, lockstep.ModeApply)) // as every day
	for cycles, all := 2, 0; cycles > 0 && all < 6; cycles, all = cycles-1, all+1 {
		s.lane()
		if s.calm() {
			cycles = 3 // a person had to approve something first, and no more than that was done
		}
		s.settle(10 * time.Minute)
	}
	if waiting, err := s.app.Waiting(s.ctx, s.account, "", 1); err != nil || len(waiting) > 0 {
		if err != nil {
			s.violated("I9 convergence", "who waits for another attempt cannot be told: %v", err)
		}
		s.settle(lockstep.MaxRetryDelay) // whoever was refused for a while is tried again by then
		s.lane()
		s.calm()
		s.settle(10 * time.Minute)
	}
	s.lane()                 // about whom the last cycle made a record of
	s.settle(25 * time.Hour) // within a day an opt-out is found that a feed passed over
	s.lane()
	s.calm()
	for _, p := range promises {
		p.check(s)
	}
	// A day on which nobody does anything.
	before := len(s.history.changes)
	for i := range 4 {
		s.settle(6*time.Hour + 10*time.Minute)
		if i%3 == 0 {
			s.lane()
		}
		s.calm()
	}
	for _, c := range s.history.changes[before:] {
		s.violated("I4 no echo", "on a day without any change: %v", c)
	}
	if strings.Contains(*traceFlag, "@") {
		s.said = s.consentOf(*traceFlag)
	}
	s.close()
}

// consentOf is what the product has on record of an address, in lines.
func (s *sim) consentOf(email string) string {
	c, err := s.app.Consent(s.ctx, email)
	if err != nil {
		return err.Error()
	}
	var b strings.Builder
	when := func(t time.Time) string { return t.Format("02 15:04:05.000") }
	for _, e := range c.Entries {
		fmt.Fprintf(&b, "%d %s %s %s%s by %s at %s, seen %s: %s\n", e.Seq, e.Act, e.Scope, e.Object, e.Reason, e.System, when(e.At), when(e.Seen), e.Evidence)
		for _, t := range e.Told {
			fmt.Fprintf(&b, "  %d told %s %s at %s\n", t.Seq, t.System, t.Target, when(t.At))
		}
	}
	for _, a := range c.Accounts {
		for _, x := range a.Scopes {
			fmt.Fprintf(&b, "%s %s %s by %s since %s, asked %s, pending %t, told %v\n", x.Word, x.Scope, x.Object, x.System, when(x.Since), when(x.Asked), x.Pending, x.Told)
		}
	}
	return b.String()
}

// sync is a cycle of the marketing lists. Where a guard stops it, a person looks at a
// preview and applies that.
func (s *sim) sync() (guarded bool) {
	s.cycle(s.request(lockstep.SyncMarketingLists, lockstep.ModeApply))
	run := s.lastRun()
	guarded = run.Status == lockstep.RunFailed && strings.Contains(run.Hint, "preview")
	if guarded {
		s.preview()
	}
	return guarded
}

// preview is a preview that a person applies.
func (s *sim) preview() {
	before := s.history.writes[product]
	s.cycle(s.request(lockstep.SyncMarketingLists, lockstep.ModePreview))
	if n := s.history.writes[product] - before; n != 0 {
		s.violated("preview", "a preview wrote %d times in round %d", n, s.round)
	}
	if run := s.lastRun(); run.Status == lockstep.RunPreviewed {
		s.cycle(func(ctx context.Context) error {
			applied, err := s.app.ApplyPreview(ctx, run.ID, "a person")
			if err != nil {
				return err
			}
			s.started = applied.ID
			return s.app.WorkOff(ctx)
		})
	}
}

// calm is a cycle without faults: it must succeed. It reports whether a guard wanted a
// person to look first.
func (s *sim) calm() (guarded bool) {
	guarded = s.sync()
	if run := s.lastRun(); run.Status != lockstep.RunCompleted && run.Status != lockstep.RunCompletedWithErrors {
		s.violated("I9 convergence", "a run without faults is %s: %s %s", run.Status, run.Error, run.Stage)
	}
	return guarded
}

func (s *sim) playRound(r round) {
	if s.queued {
		s.cycle(s.app.WorkOff)
	}
	if s.store != nil {
		s.store()
		s.store = nil
	}
	if s.toUndo != "" {
		s.undo()
	}
	switch r.Do {
	case "preview":
		s.preview()
	case "inward":
		s.cycle(s.request(lockstep.SyncAddressBooksIn, lockstep.ModeApply))
	case "labels":
		s.cycle(s.request(lockstep.SyncDataLabels, lockstep.ModeApply))
		s.cycle(s.request(lockstep.SyncCRMMetadata, lockstep.ModeApply))
		s.sync()
	case "all":
		s.lane()
		s.sync()
	case "lane":
		s.lane()
	case "look":
		s.look()
	default:
		s.sync()
	}
}

// template is a folder with the store of a product that is connected and set up. It
// is made once; every seed begins with a copy.
var template struct {
	once sync.Once
	dir  string
	crm  string // the folder with the CRM as setting up left it; empty while it is not
}

// makeTemplate connects the product to twins as newSim makes them.
func makeTemplate(t *testing.T, dir string) {
	template.crm = ""
	tables := ramDir(t)
	// The installation's salt decides in which order addresses come: it has to be the
	// same in every process.
	t.Run("template", func(t *testing.T) {
		cryptotest.SetGlobalRandom(t, 1)
		synctest.Test(t, func(t *testing.T) {
			s := newSim(t, newPlan(0, 0, false))
			s.dir = dir
			s.open()
			if err := s.work(s.setUp); err != nil {
				t.Fatal(err)
			}
			s.close()
			// Roles name the privileges that there were.
			if err := errors.Join(s.staff(), s.dynamics.SaveSnapshot(tables)); err != nil {
				t.Fatal(err)
			}
		})
	})
	template.crm = tables
}

func (s *sim) setUp(ctx context.Context) error {
	org, err := s.app.ConnectOrganization(ctx, "", "Contoso", "dynamics", adapter.Settings{
		"url": "https://" + crmHost, "tenant": tenant, "client_id": productClient, "client_secret": clientSecret, "authority": "https://" + entraHost,
	})
	if err != nil {
		return err
	}
	acc, err := s.app.ConnectAccount(ctx, "", org.ID, "Marketing", "dotdigital", adapter.Settings{"endpoint": "https://" + mailHost, "user": apiUser, "password": apiPassword})
	if err != nil {
		return err
	}
	s.account = acc.ID
	if _, err := s.app.InstallSchema(ctx, org.ID, 0); err != nil {
		return err
	}
	// Provisioning waits for runs that somebody has to work on.
	provisioned := make(chan error, 1)
	go func() { provisioned <- s.app.Provision(ctx, acc.ID) }()
	for waiting := true; waiting; {
		select {
		case err = <-provisioned:
			waiting = false
		case <-time.After(100 * time.Millisecond):
			if err := s.app.WorkOff(ctx); err != nil {
				return err
			}
		}
	}
	if err != nil {
		return err
	}
	for _, name := range []string{"JOBTITLE", "PHONE", "CITY", "COUNTRY"} {
		if _, err := s.app.SaveLabel(ctx, lockstep.DataLabel{Account: acc.ID, Name: name, Type: lockstep.FieldText}); err != nil && lockstep.CodeOf(err) != lockstep.CodeConflict {
			return err
		}
	}
	if _, err := s.app.SaveLabel(ctx, lockstep.DataLabel{Account: acc.ID, Name: misfit, Type: lockstep.FieldNumber}); err != nil && lockstep.CodeOf(err) != lockstep.CodeConflict {
		return err
	}
	if err := s.request(lockstep.SyncDataLabels, lockstep.ModeApply)(ctx); err != nil {
		return err
	}
	for _, m := range []lockstep.DataMapping{
		{Label: "FIRSTNAME", Table: "contact", Direction: lockstep.ToCRM, Column: "firstname"},
		{Label: "JOBTITLE", Table: "contact", Direction: lockstep.ToPlatform, Column: "jobtitle"},
		{Label: "JOBTITLE", Table: "contact", Direction: lockstep.ToCRM, Column: "jobtitle"},
		{Label: "JOBTITLE", Table: "lead", Direction: lockstep.ToPlatform, Column: "jobtitle"},
		{Label: "JOBTITLE", Table: "lead", Direction: lockstep.ToCRM, Column: "jobtitle"},
		{Label: "CITY", Table: "contact", Direction: lockstep.ToPlatform, Column: "address1_city"},
		{Label: "COUNTRY", Table: "contact", Direction: lockstep.ToPlatform, Column: "address1_country"},
		{Label: "CITY", Table: "lead", Direction: lockstep.ToPlatform, Column: "address1_city"},
		{Label: "CITY", Table: "account", Direction: lockstep.ToPlatform, Column: "address1_city"},
		{Label: "PHONE", Table: "contact", Direction: lockstep.ToPlatform, Column: "telephone1"},
		{Label: "PHONE", Table: "contact", Direction: lockstep.ToCRM, Column: "telephone1"},
	} {
		m.Account = acc.ID
		if _, err := s.app.SaveMapping(ctx, m); err != nil {
			return fmt.Errorf("mapping %s %s %s: %w", m.Label, m.Table, m.Direction, err)
		}
	}
	all, err := s.app.Lists(ctx, acc.ID)
	if err != nil {
		return err
	}
	for _, want := range lists {
		for _, l := range all {
			if l.CRMID.String() != want.id() {
				continue
			}
			yes := true
			if _, err := s.app.UpdateList(ctx, l.ID, app.ListPatch{Activated: &yes, MembershipAction: &want.action}); err != nil {
				return err
			}
		}
	}
	return nil
}

// playground returns a new folder with a copy of the template, in memory where the
// system has such a place.
func playground(t *testing.T) string {
	t.Helper()
	dir := ramDir(t)
	files, err := filepath.Glob(filepath.Join(template.dir, "*"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no template: %v", err)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(f)), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func ramDir(t *testing.T) string {
	t.Helper()
	if _, err := os.Stat("/dev/shm"); err != nil {
		return t.TempDir()
	}
	dir, err := os.MkdirTemp("/dev/shm", "lockstep-prove-") //nolint:usetesting // t.TempDir is on a disk, where syncing takes most of the time
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// simulate plays a plan and returns the world as it was at the end.
func simulate(t *testing.T, p *plan) *sim {
	t.Helper()
	dir := playground(t)
	var s *sim
	synctest.Test(t, func(t *testing.T) {
		s = newSim(t, p)
		s.dir = dir
		s.play()
	})
	return s
}
