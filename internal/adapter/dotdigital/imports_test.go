package dotdigital

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"go.uber.org/goleak"

	"github.com/lockstep-sync/lockstep"
	twin "github.com/lockstep-sync/lockstep/internal/twin/dotdigital"
)

// scripted answers the polls of an import with one text after the other; the last
// one stays.
func scripted(t *testing.T, answers ...string) (*Client, *atomic.Int64) {
	t.Helper()
	var polls atomic.Int64
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v2/account-info" {
			fmt.Fprint(w, `{"id":1,"properties":[{"name":"ApiEndpoint","value":""}]}`)
			return
		}
		n := int(polls.Add(1))
		answer := answers[min(n, len(answers))-1]
		if status, text, ok := strings.Cut(answer, " "); ok && status == "503" {
			w.WriteHeader(http.StatusServiceUnavailable)
			answer = text
		}
		fmt.Fprint(w, answer)
	}))
	t.Cleanup(srv.Close)
	return connect(t, srv.URL), &polls
}

const job = lockstep.JobID("d7de900d-d337-43f6-b1e1-c8ec73e1a434")

func await(t *testing.T, c *Client) ([]lockstep.ContactResult, error) {
	t.Helper()
	var got []lockstep.ContactResult
	err := c.AwaitImport(t.Context(), job, func(rs []lockstep.ContactResult) error {
		got = append(got, rs...)
		return nil
	})
	return got, err
}

func TestImportResult(t *testing.T) {
	c, polls := scripted(t,
		`{"importId":"x","status":"NotStarted","summary":null,"created":null,"updated":null,"failures":null}`,
		`{"importId":"x","status":"NotFinished"}`,
		`503 <html>busy</html>`,
		`{"created":[{"contactId":7,"identifiers":{"email":"Ann@Example.com"}},{"contactId":8,"identifiers":{"email":"bob@example.com"}}],
		  "failures":[
		   {"matchIdentifier":"email","identifiers":{"email":"bob@EXAMPLE.com"},"failures":[{"failureCode":"consentRecordsNotApplied","description":"bob@example.com is bad"}]},
		   {"matchIdentifier":"email","identifiers":{"email":"bad"},"failures":[{"failureCode":"invalidEmail","description":"bad"},{"failureCode":"Blocker","description":"x"}]},
		   {"contactId":9,"matchIdentifier":"contactId","identifiers":{"contactId":9,"email":null},"failures":[{"failureCode":"GloballySuppressed","description":"x"}]},
		   {"matchIdentifier":"contactId","identifiers":{"contactId":99},"failures":[{"failureCode":"InvalidContactId"}]},
		   {"matchIdentifier":"email","identifiers":{"email":"odd@example.com"},"failures":[{"failureCode":"made up <b>code</b>"},{"failureCode":"NewCode"}]},
		   {"identifiers":{"email":"why@example.com"},"failures":[]}],
		  "updated":[{"contactId":9,"identifiers":{"contactId":9,"crmid":"z"}}],
		  "status":"Finished","summary":{"newContacts":2},"importId":"x"}`)
	meter := &lockstep.Meter{}
	var got []lockstep.ContactResult
	err := c.AwaitImport(lockstep.WithMeter(t.Context(), meter), job, func(rs []lockstep.ContactResult) error {
		got = append(got, rs...)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	fault := func(code lockstep.Code, field, upstream string) *lockstep.Error {
		return &lockstep.Error{Code: code, Field: field, Upstream: upstream}
	}
	want := []lockstep.ContactResult{
		{Email: "ann@example.com", Contact: "7", Created: true},
		{Email: "bob@example.com", Contact: "8", Created: true, Fault: fault(lockstep.CodeInvalid, "", "consentRecordsNotApplied")},
		{Contact: "9", Fault: fault(lockstep.CodeForbidden, "email", "GloballySuppressed")},
		{Email: "bad", Fault: fault(lockstep.CodeInvalid, "email", "invalidEmail,Blocker")},
		{Contact: "99", Fault: fault(lockstep.CodeNotFound, "contact", "InvalidContactId")},
		{Email: "odd@example.com", Fault: fault(lockstep.CodeInvalid, "", "NewCode")},
		{Email: "why@example.com", Fault: fault(lockstep.CodeInvalid, "", "")},
	}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(lockstep.Error{}, "Op", "Msg", "Hint", "Scope", "Err")); diff != "" {
		t.Errorf("results (-want +got):\n%s", diff)
	}
	for _, r := range got {
		if r.Fault == nil {
			continue
		}
		if r.Fault.Scope != lockstep.ScopeRecord || r.Fault.Msg == "" || strings.ContainsAny(r.Fault.Error(), "@<") {
			t.Errorf("fault %q with scope %d", r.Fault.Error(), r.Fault.Scope)
		}
	}
	if calls := meter.Calls(); calls.Polls != polls.Load() || calls.Platform != 1 {
		t.Errorf("the meter counts %+v for %d polls and the question for the region", calls, polls.Load())
	}
}

func TestImportStatuses(t *testing.T) {
	for status, want := range map[string]lockstep.Code{
		"Finished": "", "RejectedByWatchdog": lockstep.CodeGuarded, "ExceedsAllowedContactLimit": lockstep.CodeForbidden,
		"Failed": lockstep.CodeUnavailable, "SomethingNew": lockstep.CodeUnavailable,
	} {
		c, _ := scripted(t, `{"status":"`+status+`","created":[{"contactId":7,"identifiers":{"email":"ann@example.com"}}],"updated":null,"failures":null}`)
		got, err := await(t, c)
		if lockstep.CodeOf(err) != want {
			t.Errorf("%s: %v, want %q", status, err, want)
		}
		if len(got) != 1 { // what was done is told, however it ended
			t.Errorf("%s: results %v", status, got)
		}
		if want == "" {
			continue
		}
		if e := lockstep.AsError(err); e.Upstream != status || e.Hint == "" || !strings.Contains(e.Msg, string(job)) {
			t.Errorf("%s: %v", status, err)
		}
		if unknown := want == lockstep.CodeUnavailable; lockstep.IsUnknown(err) != unknown {
			t.Errorf("%s: Unknown is %t", status, !unknown)
		}
	}
}

func TestImportResultOfNoUse(t *testing.T) {
	for name, answer := range map[string]string{
		"a list": `[]`, "null": `null`, "a page": `<html>`, "nothing": ``, "no status": `{"created":[]}`, "cut": `{"status":"Finished","created":[{"contactId":7`,
		"a number": `{"status":3}`,
	} {
		c, _ := scripted(t, answer)
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
		err := c.AwaitImport(ctx, job, func(rs []lockstep.ContactResult) error { t.Errorf("%s: %v", name, rs); return nil })
		cancel()
		if e := lockstep.AsError(err); e.Code != lockstep.CodeUnavailable || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, answer := range map[string]string{
		"rows are no objects":   `{"status":"Finished","created":[7]}`,
		"faults are no objects": `{"status":"Finished","failures":[null]}`,
	} {
		c, _ := scripted(t, answer)
		if _, err := await(t, c); lockstep.CodeOf(err) != lockstep.CodeUnavailable {
			t.Errorf("%s: %v", name, err)
		}
	}
	c, _ := scripted(t, `{"errorCode":"contacts:importNotFound","description":"gone"}`)
	if _, err := await(t, c); lockstep.CodeOf(err) != lockstep.CodeNotFound {
		t.Errorf("an error on success: %v", err)
	}
}

// TestCallCounts states what the usual jobs cost.
func TestCallCounts(t *testing.T) {
	a := open(t)
	names, rows := sampleRows(6000, 2)
	for i, n := range names {
		if err := a.CreateField(t.Context(), lockstep.DataField{Name: n, Type: []lockstep.FieldType{lockstep.FieldText, lockstep.FieldNumber}[i]}); err != nil {
			t.Fatal(err)
		}
	}
	for i := range rows {
		rows[i].Books = nil
	}
	cost := func(what string, want, wantPolls int64, do func(ctx context.Context) error) {
		t.Helper()
		before := a.served().Calls
		m := &lockstep.Meter{}
		if err := do(lockstep.WithMeter(t.Context(), m)); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		got := m.Calls()
		if got.Platform != want || got.Polls != wantPolls || got.CRM != 0 {
			t.Errorf("%s: %+v, want %d calls and %d polls", what, got, want, wantPolls)
		}
		if served := a.served().Calls - before; served != want+wantPolls {
			t.Errorf("%s: the service counted %d calls, the meter %+v", what, served, got)
		}
	}
	var id lockstep.JobID
	cost("import", 1, 0, func(ctx context.Context) (err error) { id, err = a.Import(ctx, names, rows); return err })
	cost("await", 0, 1, func(ctx context.Context) error {
		return a.AwaitImport(ctx, id, func([]lockstep.ContactResult) error { return nil })
	})
	read := func(q lockstep.ContactQuery) (lockstep.Cursor, func(context.Context) error) {
		var cursor lockstep.Cursor
		return cursor, func(ctx context.Context) (err error) {
			cursor, err = a.Contacts(ctx, q, func([]lockstep.Contact) error { return nil })
			return err
		}
	}
	_, all := read(lockstep.ContactQuery{Fields: names, Memberships: true})
	cost("first read of 6000", 4, 0, all) // fields, time, two pages
	cost("second read of 6000", 3, 0, all)
	a.time.Advance(time.Hour)
	_, nothing := read(lockstep.ContactQuery{Fields: names, Since: mark{a.time.Now(), a.time.Now()}.cursor()})
	cost("read without a change", 2, 0, nothing)
	cost("one contact", 1, 0, func(ctx context.Context) error { _, err := a.Contact(ctx, rows[0].Email, names); return err })
	cost("identity", 1, 0, func(ctx context.Context) error { _, err := a.Identity(ctx); return err })
	cost("books", 1, 0, func(ctx context.Context) error { _, err := a.Books(ctx); return err })
}

func TestBooksOfManyPages(t *testing.T) {
	a := open(t)
	const n = 2500
	for i := range n {
		if _, err := a.twin.AddList(fmt.Sprintf("List %d", i), false); err != nil {
			t.Fatal(err)
		}
	}
	books, err := a.Books(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	seen := map[lockstep.BookID]bool{}
	system := 0
	for _, b := range books {
		if seen[b.ID] {
			t.Errorf("book %s came twice", b.ID)
		}
		seen[b.ID] = true
		if b.System {
			system++
		}
	}
	if len(books)-system != n || system == 0 {
		t.Errorf("%d books, %d of them the service's own; want %d others", len(books), system, n)
	}
	if got := a.calls("address-books.list"); got != 3 {
		t.Errorf("%d calls, want 3", got)
	}
}

// TestStoppedReadLeavesNothingBehind: the page that was asked for ahead ends with
// the read.
func TestStoppedReadLeavesNothingBehind(t *testing.T) {
	a := open(t)
	load := a.twin.Loader()
	for i := range 2*contactPage + 1 {
		if _, err := load.Contact(twin.NewContact{Email: fmt.Sprintf("p%d@example.com", i)}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := a.Identity(t.Context()); err != nil {
		t.Fatal(err)
	}
	running := goleak.IgnoreCurrent()
	stop := errors.New("stop")
	if _, err := a.Contacts(t.Context(), lockstep.ContactQuery{}, func([]lockstep.Contact) error { return stop }); err != stop { //nolint:errorlint // the very error is promised
		t.Errorf("got %v", err)
	}
	a.transport.(quota).next.(contract).next.(*http.Transport).CloseIdleConnections()
	goleak.VerifyNone(t, running, goleak.IgnoreTopFunction("internal/poll.runtime_pollWait"), goleak.IgnoreAnyFunction("net/http.(*conn).serve"))
}
