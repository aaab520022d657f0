package e2e

import (
	"context"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/adapter"
	"github.com/lockstep-sync/lockstep/internal/adapter/dotdigital"
	"github.com/lockstep-sync/lockstep/internal/adapter/dynamics"
	"github.com/lockstep-sync/lockstep/internal/app"
	"github.com/lockstep-sync/lockstep/internal/engine"
	"github.com/lockstep-sync/lockstep/internal/secret"
	"github.com/lockstep-sync/lockstep/internal/store"
)

// reference brings a world to the point where one run has something of bothSides
// to do: edits on both sides, a changed address, an opt-out, people who left and
// joined lists, a deleted record, a new list with people that the platform knows
// already, a stranger that becomes a record and one that is known to the CRM. It
// depends on the seed alone.
func reference(t *testing.T, o worldOptions) *world {
	t.Helper()
	o.twins.Contacts, o.twins.Seed, o.twins.PlatformShare, o.bare = 100, 11, 0.3, true
	o.cfg.ImportRows = 8
	w := newWorld(t, o)
	w.mapFields()
	w.switchOn("Company newsletter", lockstep.ActionRemove)
	w.switchOn("Newsletter – Germany", lockstep.ActionAllowKnown)
	w.switchOn("Webinar waiting list", lockstep.ActionCreateContact)
	w.switchOn("Customers in France", lockstep.ActionIgnore)
	w.sync()
	news, webinar, germany := w.listNamed("Company newsletter"), w.listNamed("Webinar waiting list"), w.listNamed("Newsletter – Germany")
	people := w.people("contact")
	var members []string // of the newsletter, who may be mailed and whose address nobody shares
	sharing := w.sharing()
	for _, id := range w.membersOf(news) {
		if r := people[id]; eligible(r) && sharing[lockstep.NormalizeEmail(r.str("emailaddress1"))] == 1 {
			members = append(members, id)
		}
	}
	slices.Sort(members)
	if len(members) < 20 {
		t.Fatalf("only %d members to play with", len(members))
	}
	email := func(i int) string { return lockstep.NormalizeEmail(people[members[i]].str("emailaddress1")) }
	w.intoBook(news, "stranger.who.leaves@example.net", nil) // in the run after the next
	const sharer = "7b3f0a52-6a0a-4c4e-9a4e-6f3a6f1d0002"
	w.crm("POST", "contacts", map[string]any{"firstname": "Sharing", "lastname": "Somebody", "emailaddress1": email(9), "contactid": sharer}, nil)
	w.enlist(news, sharer)
	w.sync()

	w.editRecord("contact", members[0], map[string]any{"address1_city": "Valparaíso", "jobtitle": nil})
	w.editContact(email(1), map[string]any{"JOBTITLE": "Keeper of the seals"})
	w.editRecord("contact", members[2], map[string]any{"address1_city": "Iquique"})
	w.editContact(email(2), map[string]any{"PHONE": "+56 32 100 200"})
	w.editRecord("contact", members[3], map[string]any{"emailaddress1": "renamed.person@example.org"})
	w.editRecord("contact", members[4], map[string]any{"donotbulkemail": true})
	w.editRecord("contact", members[5], map[string]any{"statecode": 1})
	w.crm("DELETE", "contacts("+members[6]+")", nil, nil)
	w.delist(news, members[7])
	w.crm("POST", "contacts", map[string]any{
		"firstname": "Nadia", "lastname": "Núñez", "emailaddress1": "nadia.nunez@example.org",
		"contactid": "7b3f0a52-6a0a-4c4e-9a4e-6f3a6f1d0001",
	}, nil)
	w.enlist(news, "7b3f0a52-6a0a-4c4e-9a4e-6f3a6f1d0001")
	w.editRecord("contact", members[8], map[string]any{"address1_country": "France"})
	// One of two with the same address takes another one, the other one leaves the list.
	w.editRecord("contact", members[9], map[string]any{"emailaddress1": "no.longer.shared@example.org"})
	w.delist(news, sharer)
	for i := 10; i < 18; i++ {
		w.editRecord("contact", members[i], map[string]any{"telephone1": fmt.Sprintf("+56 2 55 %04d", i)})
	}
	// A stranger to the CRM and one that it knows.
	w.intoBook(webinar, "stranger.to.the.crm@example.net", map[string]any{"LASTNAME": "Stranger", "JOBTITLE": "Visitor"})
	known := ""
	inGermany := w.contacts(string(germany.Book))
	for _, id := range slices.Sorted(maps.Keys(people)) {
		e := lockstep.NormalizeEmail(people[id].str("emailaddress1"))
		if _, there := inGermany[e]; eligible(people[id]) && sharing[e] == 1 && !there && !slices.Contains(members, id) {
			known = e
			break
		}
	}
	w.intoBook(germany, known, nil)
	w.switchOn("Everyone reachable", lockstep.ActionIgnore)
	return w
}

func (w *world) sharing() map[string]int {
	w.t.Helper()
	n := map[string]int{}
	for _, t := range []string{"contact", "lead", "account"} {
		for _, r := range w.people(t) {
			n[lockstep.NormalizeEmail(r.str("emailaddress1"))]++
		}
	}
	return n
}

func (w *world) listNamed(name string) lockstep.ListSettings {
	w.t.Helper()
	l, err := w.app.List(w.t.Context(), w.account.ID, name)
	if err != nil {
		w.t.Fatal(err)
	}
	return l
}

func (w *world) switchOn(name string, action lockstep.MembershipAction) {
	w.t.Helper()
	yes := true
	if _, err := w.app.UpdateList(w.t.Context(), w.listNamed(name).ID, app.ListPatch{Activated: &yes, MembershipAction: &action}); err != nil {
		w.t.Fatalf("activate %s: %v", name, err)
	}
}

func (w *world) enlist(l lockstep.ListSettings, record string) {
	w.t.Helper()
	w.crm("POST", fmt.Sprintf("lists(%s)/Microsoft.Dynamics.CRM.AddMemberList", l.CRMID), map[string]any{"EntityId": record}, nil)
}

func (w *world) delist(l lockstep.ListSettings, record string) {
	w.t.Helper()
	w.crm("POST", fmt.Sprintf("lists(%s)/Microsoft.Dynamics.CRM.RemoveMemberList", l.CRMID), map[string]any{"EntityId": record}, nil)
}

// intoBook puts somebody into an address book on the platform.
func (w *world) intoBook(l lockstep.ListSettings, email string, fields map[string]any) {
	w.t.Helper()
	var data []map[string]any
	for _, k := range slices.Sorted(maps.Keys(fields)) {
		data = append(data, map[string]any{"key": k, "value": fields[k]})
	}
	w.mail("POST", fmt.Sprintf("/v2/address-books/%s/contacts", l.Book), map[string]any{"email": email, "dataFields": data}, nil)
}

// bothSides is what both twins say of everybody, in a form that does not depend on
// the ids and times that differ from world to world.
func (w *world) bothSides() []string {
	w.t.Helper()
	var out []string
	who := map[string]string{}
	for _, table := range []string{"contact", "lead", "account"} {
		for id, r := range w.people(table) {
			who[id] = table + " " + r.str("emailaddress1")
			line := fmt.Sprint("CRM ", who[id], " state ", r.str("statecode"), " optout ", r.str("donotbulkemail"))
			for _, c := range mapped[table] {
				line += " " + c.column + "=" + r.str(c.column)
			}
			out = append(out, line)
		}
	}
	lists, err := w.app.Lists(w.t.Context(), w.account.ID)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, l := range lists {
		if l.Dynamic || !l.Activated {
			continue
		}
		for _, id := range w.membersOf(l) {
			out = append(out, "CRM list "+l.Name+": "+who[id])
		}
	}
	books := map[int64]string{}
	var all []struct {
		ID   int64
		Name string
	}
	w.mail("GET", "/v2/address-books?select=1000", nil, &all)
	for _, b := range all {
		books[b.ID] = b.Name
		out = append(out, "book "+b.Name)
	}
	for email, c := range w.contacts("") {
		line := fmt.Sprint("platform ", email, " ", c.Channel["email"]["status"])
		for _, k := range slices.Sorted(maps.Keys(c.DataFields)) {
			if v := rec(c.DataFields).str(k); v != "" && k != "LASTSUBSCRIBED" { // a time
				line += " " + k + "=" + v
			}
		}
		var in []string
		for _, l := range c.Lists {
			in = append(in, books[l.ID])
		}
		slices.Sort(in)
		out = append(out, line+" in "+strings.Join(in, ", "))
	}
	slices.Sort(out)
	return out
}

func (w *world) crmSettings() adapter.Settings {
	d := w.ready.Dataverse
	return adapter.Settings{
		"url": d.URL, "tenant": d.Tenant, "client_id": d.ClientID, "client_secret": d.ClientSecret,
		"authority": strings.TrimSuffix(d.Authority, "/"+d.Tenant),
	}
}

func (w *world) mailSettings() adapter.Settings {
	d := w.ready.Dotdigital
	return adapter.Settings{"endpoint": d.URL, "user": d.User, "password": d.Password}
}

// sides opens both sides for an engine that a test drives itself.
type sides struct{ w *world }

func (s sides) CRM(ctx context.Context, _ lockstep.Organization) (lockstep.CRM, error) {
	return s.open(dynamics.Kind()).OpenCRM(ctx, s.w.crmSettings(), adapter.Env{AllowHosts: s.w.cfg.AllowHosts, Now: s.w.cfg.Now, Sleep: s.w.cfg.Sleep})
}

func (s sides) Platform(ctx context.Context, _ lockstep.EmailAccount) (lockstep.Platform, error) {
	return s.open(dotdigital.Kind()).OpenPlatform(ctx, s.w.mailSettings(), adapter.Env{AllowHosts: s.w.cfg.AllowHosts, Now: s.w.cfg.Now, Sleep: s.w.cfg.Sleep})
}

func (sides) open(k adapter.Kind) adapter.Kind { return k }

// doomed works on a run until its k-th step and then does nothing any more: no
// deferred call of it can reach the store or either side. With k = 0 it works to the
// end. It returns the names of the steps, and leaves the store as the process left it.
func (w *world) doomed(run string, k int64) []string {
	w.t.Helper()
	keys, err := secret.Load("", w.cfg.DataDir)
	if err != nil {
		w.t.Fatal(err)
	}
	st, err := store.Open(w.t.Context(), store.Options{Path: w.cfg.DataDir, Sealer: keys, Now: w.cfg.Now})
	if err != nil {
		w.t.Fatal(err)
	}
	defer st.Close()
	ctx, die := context.WithCancel(w.t.Context())
	defer die()
	var mu sync.Mutex
	var steps []string
	var dead atomic.Bool
	e := engine.New(engine.Config{Store: st, Connector: sides{w}, Now: w.cfg.Now, Sleep: w.cfg.Sleep, ImportRows: w.cfg.ImportRows, OnStep: func(name string) {
		mu.Lock()
		if !dead.Load() {
			steps = append(steps, name)
			if int64(len(steps)) == k {
				dead.Store(true)
				die()
			}
		}
		mu.Unlock()
		if dead.Load() {
			runtime.Goexit()
		}
	}})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for done := false; !done; {
			turn, _, err := st.StartRun(ctx, run)
			if err == nil {
				done, err = e.Slice(turn, run, time.Minute)
			}
			if err != nil && !dead.Load() {
				w.t.Errorf("step %d of %v: %v", k, steps, err)
			}
			if err != nil {
				return
			}
		}
	}()
	<-ended
	return steps
}

// interrupted begins the run of a reference world, lets the process die at step k and
// has another process finish it.
func interrupted(t *testing.T, k int64) (w *world, steps []string, run lockstep.Run) {
	return interruptedRun(t, k, lockstep.SyncMarketingLists, reference)
}

// interruptedRun is interrupted for a run of any type in a world of its own.
func interruptedRun(t *testing.T, k int64, typ lockstep.SyncType, begin func(*testing.T, worldOptions) *world) (w *world, steps []string, run lockstep.Run) {
	w, lives, run := interruptedRuns(t, []int64{k}, typ, begin)
	return w, lives[0], run
}

// interruptedRuns lets one process after the other die at its own step and returns the
// steps of each; the last one finishes the run.
func interruptedRuns(t *testing.T, deaths []int64, typ lockstep.SyncType, begin func(*testing.T, worldOptions) *world) (w *world, lives [][]string, run lockstep.Run) {
	h := newHasteAtNoon()
	o := worldOptions{cfg: app.Config{Now: h.ours, Sleep: h.sleep}}
	o.twins.Clock = h.Clock
	w = begin(t, o)
	ctx := t.Context()
	if err := w.app.Close(ctx); err != nil {
		t.Fatal(err)
	}
	keys, err := secret.Load("", w.cfg.DataDir)
	if err != nil {
		t.Fatal(err)
	}
	st, err := store.Open(ctx, store.Options{Path: w.cfg.DataDir, Sealer: keys, Now: w.cfg.Now})
	if err != nil {
		t.Fatal(err)
	}
	err = st.InTx(ctx, func(tx store.Tx) (err error) {
		run, err = st.CreateRunIn(ctx, tx, lockstep.Run{Account: w.account.ID, Type: typ, Mode: lockstep.ModeApply})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	for _, k := range deaths {
		lives = append(lives, w.doomed(run.ID, k))
	}
	w.open()
	if run, err = w.app.Wait(ctx, run.ID); err != nil {
		t.Fatalf("after crashes at the steps %d: %v", deaths, err)
	}
	return w, lives, run
}

// addsUp checks that every record that was read is accounted for.
func addsUp(t *testing.T, run lockstep.Run) {
	t.Helper()
	c := run.Counts
	if c.Read != c.Written+c.Equal+c.Conflicted+c.Rejected+c.Guarded {
		t.Errorf("the counts of the run do not add up: %+v", c)
	}
}

// silent checks that one more run changes nothing on either side.
func (w *world) silent(after string) {
	w.t.Helper()
	w.resetCalls()
	run := w.sync()
	addsUp(w.t, run)
	c := run.Counts
	// A batch may be reads alone: what it wrote is in the counts.
	n := w.allWrites() - w.calls("dataverse")["batch"]
	if n+c.Written+c.ContactsCreated+c.ContactsUpdated+c.RecordsCreated+c.RecordsUpdated+c.BookAdds+c.BookRemovals+c.ListAdds+c.ListRemovals != 0 {
		w.t.Errorf("%s; not quiet afterwards: %+v %v %v", after, c, w.calls("dataverse"), w.calls("dotdigital"))
	}
}

// The process may die at any step: the next one ends the run in the state that an
// undisturbed run has, and then bothSides is quiet.
func TestCrashAtEveryStep(t *testing.T) {
	t.Parallel()
	w, steps, run := interrupted(t, 0)
	addsUp(t, run)
	want := w.bothSides()
	w.silent("the undisturbed run")
	t.Logf("dying at each of %d steps: %v", len(steps), steps)
	for k := int64(1); k <= int64(len(steps)); k++ {
		t.Run(fmt.Sprint(k), func(t *testing.T) {
			t.Parallel()
			w, steps, run := interrupted(t, k)
			addsUp(t, run)
			if diff := cmp.Diff(want, w.bothSides()); diff != "" {
				t.Errorf("the process died at %s; differs from the undisturbed run (-) as follows:\n%s", steps[len(steps)-1], diff)
			}
			w.silent("the process died at " + steps[len(steps)-1])
		})
	}
}
