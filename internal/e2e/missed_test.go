package e2e

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/app"
	"github.com/lockstep-sync/lockstep/internal/twin/dotdigital"
	"github.com/lockstep-sync/lockstep/internal/twin/fault"
)

// missing is a stage with a clock and an audience.
type missing struct {
	*stage
	clock *ahead
	list  lockstep.ListSettings
}

func newMissing(t *testing.T) *missing {
	m := &missing{clock: &ahead{}}
	m.stage = newStageWith(t, app.Config{Now: m.clock.now})
	m.list = m.stage.list("Readers", "contact", lockstep.ActionIgnore, "")
	for _, name := range []string{"ann", "ben", "cay", "dan"} {
		m.join(m.list, m.cast("contact", name+"@stage.example"))
	}
	m.sync()
	m.hear()
	return m
}

// hear is what the consent lane does at one time.
func (m *missing) hear() (suppressions, unsubscribes lockstep.Run) {
	m.t.Helper()
	return m.run(lockstep.SyncSuppressions), m.run(lockstep.SyncUnsubscribes)
}

// pass lets time go by for everybody.
func (m *missing) pass(d time.Duration) {
	m.clock.pass(d)
	m.twins.Clock.Advance(d)
}

// conceal lets Ann act and, ten minutes later, Ben, and the next reading of a listing tell
// of Ben alone: it goes past Ann.
func (w *stage) conceal(operation, path string, act func(email string)) {
	w.t.Helper()
	act("ann@stage.example")
	w.twins.Clock.Advance(10 * time.Minute)
	act("ben@stage.example")
	var rows []struct {
		Contact map[string]any `json:"suppressedContact"`
		Removed string         `json:"dateRemoved"`
		Reason  string         `json:"reason"`
	}
	w.mail("GET", path, nil, &rows)
	for i := range rows {
		if rows[i].Contact["email"] != "ben@stage.example" {
			continue
		}
		body, err := json.Marshal(rows[i : i+1])
		if err != nil {
			w.t.Fatal(err)
		}
		args, err := json.Marshal(cols{"code": 200, "content": string(body), "headers": cols{"Content-Type": "application/json; charset=utf-8"}})
		if err != nil {
			w.t.Fatal(err)
		}
		if err := w.twins.Faults.Add(fault.Fault{Twin: fault.Dotdigital, Kind: fault.Status, Operation: operation, Count: 1, Args: args}); err != nil {
			w.t.Fatal(err)
		}
		return
	}
	w.t.Fatalf("the listing has %v", rows)
}

// quietly has the lane run and checks that it writes nothing to either side. It returns
// how often each listing was read.
func (m *missing) quietly(when string) (account, books int64) {
	m.t.Helper()
	before := m.crmWrites.Load()
	m.resetCalls()
	for _, run := range m.both() {
		if run.Counts.OptOutsSeen+run.Counts.OptOutsTold+run.Counts.OptOutsMissed+run.Counts.Written != 0 || len(m.findings(run)) > 0 {
			m.t.Errorf("%s: %s counts %+v and finds %+v", when, run.Type, run.Counts, m.findings(run))
		}
	}
	calls := m.calls("dotdigital")
	if n := m.crmWrites.Load() - before; n != 0 || writes(calls) != 0 {
		m.t.Errorf("%s: %d rows of the CRM were written; %v", when, n, calls)
	}
	return calls["contacts.suppressed-since"], calls["address-books.unsubscribed-since"]
}

func (m *missing) both() []lockstep.Run {
	m.t.Helper()
	s, u := m.hear()
	return []lockstep.Run{s, u}
}

// An opt-out that the platform's feed passes over is heard within the hour, told to
// everybody as any other, and people are told that it was missed.
func TestOptOutThatTheFeedPassedOver(t *testing.T) {
	t.Parallel()
	m := newMissing(t)
	m.conceal("contacts.suppressed-since", "/v2/contacts/suppressed-since/2000-01-01", m.optOut)
	m.hear()
	m.pass(20 * time.Minute)
	m.hear()
	if diff := cmp.Diff([]string{"contact ben@stage.example"}, m.closed()); diff != "" {
		t.Fatalf("before the hour is over (-want +got):\n%s", diff)
	}
	m.pass(45 * time.Minute)
	run, _ := m.hear()
	if diff := cmp.Diff([]string{"contact ann@stage.example", "contact ben@stage.example"}, m.closed()); diff != "" {
		t.Errorf("afterwards (-want +got):\n%s", diff)
	}
	if run.Counts.OptOutsMissed != 1 || run.Counts.OptOutsSeen != 1 || run.Counts.OptOutsTold != 1 {
		t.Errorf("the run counts %+v", run.Counts)
	}
	m.told(run, lockstep.FindingOptOutMissed, "")
	m.pass(65 * time.Minute)
	m.quietly("heard once")
}

// Nor is somebody passed over who left a single list.
func TestListUnsubscribeThatTheFeedPassedOver(t *testing.T) {
	t.Parallel()
	m := newMissing(t)
	book := m.book(m.list)
	m.conceal("address-books.unsubscribed-since", "/v2/address-books/"+book+"/contacts/unsubscribed-since/2000-01-01", func(email string) { m.optOutOf(book, email) })
	m.hear()
	m.pass(65 * time.Minute)
	_, run := m.hear()
	if run.Counts.OptOutsMissed != 1 || run.Counts.ListRemovals != 1 {
		t.Errorf("the run counts %+v", run.Counts)
	}
	if got := m.membersOf(m.list); len(got) != 2 {
		t.Errorf("the marketing list still has %v", got)
	}
	m.pass(65 * time.Minute)
	m.quietly("heard once")
}

// What the feed has told of, or tells of in the same moment, was not missed.
func TestWhatTheFeedTellsIsNotMissed(t *testing.T) {
	t.Parallel()
	m := newMissing(t)
	m.optOut("ann@stage.example")
	m.optOutOf(m.book(m.list), "ben@stage.example")
	m.hear()
	for hour := range 3 {
		m.pass(65 * time.Minute)
		if account, books := m.quietly(fmt.Sprintf("hour %d", hour)); account != 2 || books != 2 {
			t.Errorf("hour %d: the account's listing was read %d times and the book's %d times, want 2 each", hour, account, books)
		}
		if account, books := m.quietly("again"); account != 1 || books != 1 {
			t.Errorf("hour %d: within the hour the listings were read %d and %d times, want once each", hour, account, books)
		}
	}
	m.pass(65 * time.Minute)
	m.optOut("cay@stage.example")
	// Who opts out between the two readings is told of by the feed as well.
	if err := m.twins.Faults.Add(fault.Fault{
		Twin: fault.Dotdigital, Kind: fault.Status, Operation: "contacts.suppressed-since", Count: 1,
		Args: json.RawMessage(`{"code":200,"content":"[]","headers":{"Content-Type":"application/json; charset=utf-8"}}`),
	}); err != nil {
		t.Fatal(err)
	}
	if run, _ := m.hear(); run.Counts.OptOutsSeen != 1 || run.Counts.OptOutsTold != 1 || run.Counts.OptOutsMissed != 0 {
		t.Errorf("the run counts %+v", run.Counts)
	}
}

// A closed contact that gets another address has not opted out anew, and neither has it
// when somebody else came to the old one.
func TestClosedContactsThatMoveWereNotMissed(t *testing.T) {
	t.Parallel()
	m := newMissing(t)
	ann, ben := m.contact("ann@stage.example").ContactID, m.contact("ben@stage.example").ContactID
	m.optOut("ann@stage.example")
	m.optOutOf(m.book(m.list), "ben@stage.example")
	m.pass(10 * time.Minute) // the feed tells of the last minutes again
	m.optOut("cay@stage.example")
	m.optOutOf(m.book(m.list), "dan@stage.example")
	m.hear()
	m.readdress(ann, "ann.new@stage.example")
	m.readdress(ben, "ben.new@stage.example")
	m.pass(65 * time.Minute)
	m.quietly("moved")
	m.signUp(m.anyBook(), "ann@stage.example")
	m.sync() // closes the newcomer, who has a closed address
	m.hear()
	m.sync()
	m.hear()
	m.pass(65 * time.Minute)
	m.quietly("somebody else has the address")
}

// Who was closed by both sides at once keeps what the platform knows of them.
func TestContactClosedByBothSidesMoves(t *testing.T) {
	t.Parallel()
	m := newMissing(t)
	m.installTables()
	ann := m.contact("ann@stage.example").ContactID
	m.act("ann@stage.example", dotdigital.Complain)
	m.enter()
	m.pass(10 * time.Minute)
	m.optOut("cay@stage.example")
	m.hear()
	m.readdress(ann, "ann.new@stage.example")
	m.pass(65 * time.Minute)
	m.quietly("moved")
}

// fewCalls is up to how many calls listings are compared every hour.
const fewCalls = 10

// Listings that together take many calls are compared once a day.
func TestLongListingsAreComparedDaily(t *testing.T) {
	t.Parallel()
	m := newMissing(t)
	left := map[string]lockstep.ListSettings{"ann@stage.example": m.list}
	for i := range fewCalls {
		l, email := m.stage.list(fmt.Sprintf("Readers %d", i), "contact", lockstep.ActionIgnore, ""), fmt.Sprintf("reader%d@stage.example", i)
		m.join(l, m.cast("contact", email))
		left[email] = l
	}
	m.sync()
	for email, l := range left { // a listing with nobody in it has nothing to compare
		m.optOutOf(m.book(l), email)
	}
	lists := int64(len(left))
	m.hear()
	m.pass(65 * time.Minute)
	if _, books := m.quietly("the first time"); books != 2*lists {
		t.Errorf("the books were read %d times, want %d", books, 2*lists)
	}
	m.pass(65 * time.Minute)
	if _, books := m.quietly("an hour later"); books != lists {
		t.Errorf("an hour later the books were read %d times, want %d", books, lists)
	}
	m.pass(23 * time.Hour)
	if _, books := m.quietly("a day later"); books != 2*lists {
		t.Errorf("a day later the books were read %d times, want %d", books, 2*lists)
	}
}
