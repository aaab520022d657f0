package e2e

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/app"
	"github.com/lockstep-sync/lockstep/internal/store/pgtest"
	"github.com/lockstep-sync/lockstep/internal/twin"
	"github.com/lockstep-sync/lockstep/internal/twin/fault"
)

// The tests of this package wait for networks and timers more than they compute.
func TestMain(m *testing.M) {
	flag.Parse()
	if flag.Lookup("test.parallel").Value.String() == fmt.Sprint(runtime.GOMAXPROCS(0)) {
		_ = flag.Set("test.parallel", "8")
	}
	if os.Getenv("TMPDIR") == "" && spacious("/dev/shm") {
		_ = os.Setenv("TMPDIR", "/dev/shm") // a fifth of the time would go into writing to a disk
	}
	pgtest.Main(m)
}

// signingKey is the directories' of all twins, since making one takes a while.
var signingKey = sync.OnceValue(func() *rsa.PrivateKey {
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return k
})

// stormy is a world for faults: round after round something of everything is edited.
type stormy struct {
	*world
	haste    *haste
	before   map[lockstep.BookID]map[string]bool
	news     lockstep.ListSettings
	webinar  lockstep.ListSettings
	members  []string
	emails   []string
	round    int
	arrivals []string
}

func newStormy(t *testing.T) *stormy {
	t.Helper()
	h := newHaste()
	w := newWorld(t, worldOptions{
		twins: twin.Options{Contacts: 60, Seed: 11, PlatformShare: 0.3, Clock: h.Clock, Wrap: h.wrap},
		cfg:   app.Config{Now: h.ours, Ticks: h.Now, Sleep: h.sleep}, bare: true,
	})
	s := &stormy{world: w, haste: h}
	w.mapFields()
	w.switchOn("Company newsletter", lockstep.ActionRemove)
	w.switchOn("Webinar waiting list", lockstep.ActionCreateContact)
	w.switchOn("Everyone reachable", lockstep.ActionIgnore)
	s.before = w.booksNow()
	w.sync()
	w.sync()
	s.news, s.webinar = w.listNamed("Company newsletter"), w.listNamed("Webinar waiting list")
	people, sharing := w.people("contact"), w.sharing()
	for _, id := range w.membersOf(s.news) {
		e := lockstep.NormalizeEmail(people[id].str("emailaddress1"))
		if eligible(people[id]) && sharing[e] == 1 && w.contact(e).Channel["email"]["status"] == "subscribed" {
			s.members = append(s.members, id)
		}
	}
	slices.Sort(s.members)
	if len(s.members) < 5 {
		t.Fatalf("%d members are too few", len(s.members))
	}
	for _, id := range s.members {
		s.emails = append(s.emails, lockstep.NormalizeEmail(people[id].str("emailaddress1")))
	}
	return s
}

// edit changes something that every stage of a run has to do with.
func (s *stormy) edit() {
	s.t.Helper()
	s.round++
	n := s.round
	s.editRecord("contact", s.members[0], map[string]any{"address1_city": fmt.Sprint("City ", n)})
	s.editContact(s.emails[1], map[string]any{"JOBTITLE": fmt.Sprint("Job ", n)})
	s.delist(s.news, s.members[2+n%2])
	if n > 1 {
		s.enlist(s.news, s.members[3-n%2])
	}
	id := fmt.Sprintf("7b3f0a52-6a0a-4c4e-9a4e-6f3a6f1e%04x", n)
	s.crm("POST", "contacts", map[string]any{"lastname": fmt.Sprint("New ", n), "emailaddress1": fmt.Sprintf("new%d@example.org", n), "contactid": id}, nil)
	s.enlist(s.news, id)
	stranger := fmt.Sprintf("stranger%d@example.net", n)
	s.intoBook(s.webinar, stranger, map[string]any{"LASTNAME": fmt.Sprint("Stranger ", n)})
	s.arrivals = append(s.arrivals, stranger)
}

// driftwood are people of no list with the lowest ids, where rows come and go in a
// drift, so that it does not touch those that are looked at afterwards.
func (s *stormy) driftwood() {
	s.t.Helper()
	for i := range 30 {
		s.crm("POST", "contacts", map[string]any{"lastname": fmt.Sprint("Drift ", i), "contactid": fmt.Sprintf("00000000-0000-4000-8000-0000000000%02x", i)}, nil)
	}
}

// attempt carries out a run that may fail; a failure says why.
func (s *stormy) attempt() lockstep.Run {
	s.t.Helper()
	run, err := s.app.StartRun(s.t.Context(), app.RunRequest{Account: s.account.ID, Type: lockstep.SyncMarketingLists})
	if err != nil {
		s.t.Fatal(err)
	}
	run, err = s.app.Wait(s.t.Context(), run.ID)
	if run.Status == lockstep.RunFailed && (run.Error == "" || strings.Contains(run.Error, "Internal error")) {
		s.t.Errorf("the run failed with %q", run.Error)
	} else if err != nil && run.Status != lockstep.RunFailed {
		s.t.Fatal(err)
	}
	addsUp(s.t, run)
	return run
}

// whole checks that nothing was lost and nothing came twice.
func (s *stormy) whole(after string) {
	s.t.Helper()
	s.twins.Faults.Clear()
	s.twins.Dataverse.SetMaxPage(0)
	s.twins.Dotdigital.SetMaxPage(0)
	s.attempt()
	s.haste.Advance(10 * time.Minute) // what is applied late is applied now
	s.twins.Faults.Settle()
	s.sync()
	if got := s.contact(s.emails[0]).DataFields["CITY"]; got != fmt.Sprint("City ", s.round) {
		s.t.Errorf("%s: an edit of the CRM was lost: the platform has %v", after, got)
	}
	if got := s.record("contact", s.members[1], "jobtitle").str("jobtitle"); got != fmt.Sprint("Job ", s.round) {
		s.t.Errorf("%s: an edit of the platform was lost: the CRM has %v", after, got)
	}
	times := map[string]int{}
	for _, r := range s.people("contact") {
		times[lockstep.NormalizeEmail(r.str("emailaddress1"))]++
	}
	for _, e := range s.arrivals {
		if times[e] != 1 {
			s.t.Errorf("%s: %s is in the CRM %d times", after, e, times[e])
		}
	}
	if got := len(s.membersOf(s.webinar)); got != len(s.arrivals) {
		s.t.Errorf("%s: %d members are in the list of %d strangers", after, got, len(s.arrivals))
	}
	names := map[string]int{}
	var books []struct{ Name string }
	s.mail("GET", "/v2/address-books?select=1000", nil, &books)
	for _, b := range books {
		if names[b.Name]++; names[b.Name] > 1 {
			s.t.Errorf("%s: the address book %s came twice", after, b.Name)
		}
	}
	s.agree(s.before)
	s.silent(after)
}

// routes are the operations of one undisturbed round, by twin.
func (s *stormy) routes() map[string][]string {
	s.t.Helper()
	s.edit()
	s.bearer()
	s.resetCalls()
	s.sync()
	out := map[string][]string{}
	for _, name := range []string{fault.Dataverse, fault.Dotdigital} {
		out[name] = slices.Sorted(maps.Keys(s.calls(name)))
	}
	s.whole("without a fault")
	return out
}

// storm is a kind of fault with its arguments; only binds it to one twin, pages
// makes the pages of both twins shorter.
type storm struct {
	kind, args, only string
	pages            int
}

func (x storm) String() string { return strings.TrimSpace(x.kind + " " + x.args + " " + x.only) }

var storms = []storm{
	{kind: fault.Refuse},
	{kind: fault.ResetBefore},
	{kind: fault.AckLost},
	{kind: fault.LateApply, args: `{"delay":"1ms"}`},
	{kind: fault.LateApply, args: `{"code":504,"delay":"100ms","clock":"twin"}`},
	{kind: fault.LateApply, args: `{"code":500,"delay":"5m","clock":"twin"}`},
	{kind: fault.Hang, args: `{"for":"50ms"}`},
	{kind: fault.SlowBody, args: `{"bytes_per_second":100000}`},
	{kind: fault.Truncate},
	{kind: fault.Truncate, args: `{"keep_length":true}`},
	{kind: fault.Truncate, args: `{"at":1}`},
	{kind: fault.Garbage, args: `{"variant":"html"}`},
	{kind: fault.Garbage, args: `{"variant":"html","apply":true}`},
	{kind: fault.Garbage, args: `{"variant":"empty"}`},
	{kind: fault.Garbage, args: `{"variant":"null"}`},
	{kind: fault.Garbage, args: `{"variant":"array"}`},
	{kind: fault.Garbage, args: `{"variant":"bom"}`},
	{kind: fault.Garbage, args: `{"variant":"gzip-garbage"}`},
	{kind: fault.Garbage, args: `{"variant":"wrong-type"}`},
	{kind: fault.Status, args: `{"code":400}`},
	{kind: fault.Status, args: `{"code":401}`},
	{kind: fault.Status, args: `{"code":403}`},
	{kind: fault.Status, args: `{"code":404}`},
	{kind: fault.Status, args: `{"code":408}`},
	{kind: fault.Status, args: `{"code":409}`},
	{kind: fault.Status, args: `{"code":412}`},
	{kind: fault.Status, args: `{"code":413}`},
	{kind: fault.Status, args: `{"code":415}`},
	{kind: fault.Status, args: `{"code":500}`},
	{kind: fault.Status, args: `{"code":502,"body":"html"}`},
	{kind: fault.Status, args: `{"code":503,"body":"empty"}`},
	{kind: fault.Status, args: `{"code":504}`},
	{kind: fault.RetryAfter, args: `{"code":503}`},
	{kind: fault.ClockSkew, args: `{"skew":"-1h"}`},
	{kind: fault.ClockSkew, args: `{"skew":"1h"}`},
	{kind: "token-expire", only: fault.Dataverse},
	{kind: "delta-expired", only: fault.Dataverse},
	{kind: "page-drift", only: fault.Dataverse},
	{kind: "page-drift", only: fault.Dotdigital},
	{kind: "row-poison", only: fault.Dataverse},
	{kind: "row-poison", only: fault.Dotdigital},
	{kind: "bulk-partial", args: `{"mode":"failures","share":0.5}`, only: fault.Dotdigital},
	{kind: "bulk-partial", args: `{"mode":"no-report"}`, only: fault.Dotdigital},
	{kind: "bulk-partial", args: `{"mode":"lost"}`, only: fault.Dotdigital},
	{kind: "bulk-partial", args: `{"mode":"watchdog"}`, only: fault.Dotdigital},
	{kind: "too-many-imports", only: fault.Dotdigital},
	{kind: "throttle", only: fault.Dataverse},
	{kind: "throttle", only: fault.Dotdigital},
	{kind: "throttle", args: `{"scheme":"flat"}`, only: fault.Dotdigital},
	{kind: "page-drift", only: fault.Dataverse, pages: 1},
	{kind: "page-drift", only: fault.Dotdigital, pages: 1},
	{kind: "page-dup", only: fault.Dataverse, pages: 1},
	{kind: "page-dup", args: `{"variant":"loop"}`, only: fault.Dataverse, pages: 1},
	{kind: "page-dup", args: `{"variant":"host"}`, only: fault.Dataverse, pages: 1},
	{kind: "page-dup", args: `{"variant":"empty"}`, only: fault.Dataverse, pages: 1},
	{kind: "page-dup", only: fault.Dotdigital, pages: 1},
	{kind: "page-dup", args: `{"mode":"loop"}`, only: fault.Dotdigital, pages: 1},
	{kind: "page-skip", only: fault.Dataverse, pages: 1},
	{kind: "page-skip", only: fault.Dotdigital, pages: 1},
}

// Each kind of fault hits each route of a run once, in the middle of the work: the
// runs recover or say why not, and once the faults are over nothing is lost, nothing
// is there twice and everything is quiet.
func TestFaultsOnEveryRoute(t *testing.T) {
	t.Parallel()
	for _, x := range storms {
		t.Run(x.String(), func(t *testing.T) {
			t.Parallel()
			s := newStormy(t)
			routes := s.routes()
			s.edit()
			if err := s.app.Close(t.Context()); err != nil { // nothing is remembered from before
				t.Fatal(err)
			}
			s.open()
			s.twins.Dataverse.SetMaxPage(x.pages)
			s.twins.Dotdigital.SetMaxPage(x.pages)
			if x.kind == "page-drift" {
				s.driftwood()
			}
			rules := 0
			for name, ops := range routes {
				if x.only != "" && x.only != name {
					continue
				}
				for _, op := range ops {
					args := x.args
					if x.kind == "page-drift" && strings.HasPrefix(op, "listmember.") {
						args = `{"updates":3,"inserts":0,"deletes":0}` // the check counts memberships
					}
					if err := s.twins.Faults.Add(fault.Fault{Twin: name, Kind: x.kind, Operation: op, Count: 1, Args: json.RawMessage(args)}); err != nil {
						t.Fatal(err)
					}
					rules++
				}
			}
			for range 40 {
				before := len(s.twins.Faults.Active())
				s.attempt()
				if left := len(s.twins.Faults.Active()); left == 0 || left == before {
					break
				}
			}
			hit := 0
			for _, st := range s.twins.Faults.States() {
				if st.Hits > 0 {
					hit++
				} else if x.only == "" {
					t.Errorf("%s of %s was never hit", st.Operation, st.Twin)
				}
			}
			if hit == 0 {
				t.Fatalf("none of %d rules hit anything", rules)
			}
			s.whole(x.String())
		})
	}
}
