package dotdigital

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/lockstep-sync/lockstep"
	twin "github.com/lockstep-sync/lockstep/internal/twin/dotdigital"
	"github.com/lockstep-sync/lockstep/internal/twin/fault"
)

// operation is one thing that an adapter does, with the name of the call that a
// fault hits.
type operation struct {
	name, call string
	writes     bool
	run        func(a *account) error
}

func operations() []operation {
	drop := func([]lockstep.Contact) error { return nil }
	return []operation{
		{"Identity", "account-info", false, func(a *account) error { _, err := a.Identity(a.ctx()); return err }},
		{"Fields", "data-fields.list", false, func(a *account) error { _, err := a.Fields(a.ctx()); return err }},
		{"CreateField", "data-fields.create", true, func(a *account) error {
			return a.CreateField(a.ctx(), lockstep.DataField{Name: "MADE", Type: lockstep.FieldText})
		}},
		{"Books", "address-books.list", false, func(a *account) error { _, err := a.Books(a.ctx()); return err }},
		{"CreateBook", "address-books.create", true, func(a *account) error { _, err := a.CreateBook(a.ctx(), "Made"); return err }},
		{"RenameBook", "address-books.update", true, func(a *account) error { return a.RenameBook(a.ctx(), a.firstBook(), "Renamed") }},
		{"RemoveFromBook", "address-books.remove-members", true, func(a *account) error {
			_, err := a.RemoveFromBook(a.ctx(), a.firstBook(), []lockstep.ContactID{"1001"})
			return err
		}},
		{"server time", "server-time", false, func(a *account) error {
			_, err := a.Contacts(a.ctx(), lockstep.ContactQuery{}, drop)
			return err
		}},
		{"Contacts", "contacts.list", false, func(a *account) error {
			_, err := a.Contacts(a.ctx(), lockstep.ContactQuery{Memberships: true}, drop)
			return err
		}},
		{"Contact", "contacts.get", false, func(a *account) error {
			_, err := a.Contact(a.ctx(), "ann@example.com", nil)
			return err
		}},
		{"Import", "contacts.import", true, func(a *account) error {
			_, err := a.Import(a.ctx(), nil, []lockstep.ContactWrite{{Email: "new@example.com"}})
			return err
		}},
	}
}

func (a *account) ctx() context.Context { return a.t.(*testing.T).Context() }

// firstBook is the book that filled makes.
func (a *account) firstBook() lockstep.BookID {
	books, err := a.Books(a.ctx())
	if err != nil {
		a.t.Fatal(err)
	}
	for _, b := range books {
		if !b.System {
			return b.ID
		}
	}
	a.t.Fatal("there is no address book")
	return ""
}

// filled is an account with one contact in one book, its region known.
func filled(t *testing.T, change ...func(*twin.Options)) *account {
	t.Helper()
	a := open(t, change...)
	b, err := a.CreateBook(t.Context(), "First")
	if err == nil {
		_, err = a.Import(t.Context(), nil, []lockstep.ContactWrite{{Email: "ann@example.com", Books: []lockstep.BookID{b.ID}}})
	}
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// TestFaults meets each call with each fault once: reads and repeatable writes
// recover by themselves, the others say truly whether they may have taken effect.
func TestFaults(t *testing.T) {
	faults := []struct {
		name string
		rule fault.Fault
		// unknown: a write may have taken effect.
		unknown bool
		// final is the error that no repeat can mend; empty = one can.
		final lockstep.Code
	}{
		{"ack-lost", fault.Fault{Kind: fault.AckLost}, true, ""},
		{"reset-before", fault.Fault{Kind: fault.ResetBefore}, true, ""},
		{"truncated", fault.Fault{Kind: fault.Truncate, Args: json.RawMessage(`{"keep_length":true}`)}, true, ""},
		{"truncated quietly", fault.Fault{Kind: fault.Truncate}, true, ""},
		{"truncated to one byte", fault.Fault{Kind: fault.Truncate, Args: json.RawMessage(`{"at":1}`)}, true, ""},
		{"html", fault.Fault{Kind: fault.Garbage, Args: json.RawMessage(`{"variant":"html"}`)}, true, ""},
		{"empty", fault.Fault{Kind: fault.Garbage, Args: json.RawMessage(`{"variant":"empty"}`)}, true, ""},
		{"null", fault.Fault{Kind: fault.Garbage, Args: json.RawMessage(`{"variant":"null"}`)}, true, ""},
		{"array", fault.Fault{Kind: fault.Garbage, Args: json.RawMessage(`{"variant":"array"}`)}, true, ""},
		{"gzip garbage", fault.Fault{Kind: fault.Garbage, Args: json.RawMessage(`{"variant":"gzip-garbage"}`)}, true, ""},
		{"message on success", status(200, `{"message":"Something is wrong. ERROR_UNKNOWN"}`), false, lockstep.CodeInvalid},
		{"500", status(500, `<h1>Oops</h1>`), true, ""},
		{"502", status(502, ``), true, ""},
		{"400", status(400, `{"message":"No. ERROR_PARAMETER_INVALID "}`), false, lockstep.CodeInvalid},
		{"v3 400", status(400, `{"errorCode":"contacts:badRequest","description":"No."}`), false, lockstep.CodeInvalid},
		{"401", status(401, ``), false, lockstep.CodeUnauthorized},
		{"403", status(403, `{"message":"Error: ERROR_FEATURENOTACTIVE"}`), false, lockstep.CodeForbidden},
		{"404 of a proxy", status(404, `<html>nothing here</html>`), false, ""},
		{"404 without a name", status(404, `{"message":"An unknown error has occurred. ERROR_UNKNOWN"}`), false, ""},
		{"flat cap", status(400, `{"message":"Your account is capped. ERROR_APIUSAGE_EXCEEDED"}`), false, lockstep.CodeThrottled},
		{"flat cap in v3", status(400, `{"errorCode":"contacts:badRequest","description":"Capped. ERROR_APIUSAGE_EXCEEDED"}`), false, lockstep.CodeThrottled},
		{"list in use", status(400, `{"message":"In use. ERROR_ADDRESSBOOK_IN_USE"}`), false, lockstep.CodeThrottled},
		{"too many imports in v2 words", status(400, `{"message":"ERROR_IMPORT_TOOMANYACTIVEIMPORTS"}`), false, lockstep.CodeThrottled},
		{"redirect", fault.Fault{Kind: fault.Status, Args: json.RawMessage(`{"code":302,"headers":{"Location":"http://127.0.0.1:1/"}}`)}, true, lockstep.CodeUnavailable},
	}
	for _, op := range operations() {
		for _, f := range faults {
			t.Run(op.name+"/"+f.name, func(t *testing.T) {
				t.Parallel()
				a := filled(t)
				f.rule.Operation, f.rule.Count = op.call, 1
				a.fail(f.rule)
				err := op.run(a)
				if f.name == "array" && op.call == "address-books.list" {
					return // an empty array is an answer there
				}
				if f.name == "empty" && (op.call == "data-fields.create" || op.call == "address-books.update") {
					return // these calls may answer with nothing
				}
				if f.name == "redirect" && (op.name == "CreateField" || op.name == "CreateBook") {
					f.final = "" // they look whether it is there and try once more
				}
				recovers := f.final == "" && (!op.writes || op.name != "Import")
				if strings.HasPrefix(f.name, "404 ") {
					recovers = !op.writes || op.call == "address-books.update" || op.call == "address-books.remove-members"
				}
				if recovers {
					if err != nil {
						t.Fatalf("not recovered: %v", err)
					}
					return
				}
				var e *lockstep.Error
				want := f.final
				if want == "" {
					want = lockstep.CodeUnavailable
				}
				if !errors.As(err, &e) || e.Code != want {
					t.Fatalf("got %v, want %s", err, want)
				}
				if e.Unknown != (f.unknown && op.writes) {
					t.Errorf("Unknown is %t: %v", e.Unknown, err)
				}
				if want == lockstep.CodeThrottled && e.After <= 0 {
					t.Errorf("no pause is named: %v", err)
				}
				checkWords(t, e)
			})
		}
	}
}

func status(code int, content string) fault.Fault {
	args, err := json.Marshal(map[string]any{"code": code, "content": content, "body": "empty"})
	if err != nil {
		panic(err)
	}
	return fault.Fault{Kind: fault.Status, Args: args}
}

// checkWords: an error speaks to people and quotes nobody.
func checkWords(t *testing.T, e *lockstep.Error) {
	t.Helper()
	text := fmt.Sprintf("%v %+v %v", e, *e, e.Err)
	if e.Msg == "" || !strings.HasPrefix(e.Op, "dotdigital: ") {
		t.Errorf("the error %q with op %q says too little", e.Msg, e.Op)
	}
	for _, secret := range []string{testPassword, testUser, "@", "/v2/", "/contacts/v3", "127.0.0.1", "Oops", "<html"} {
		if strings.Contains(text, secret) {
			t.Errorf("the error holds %q: %s", secret, text)
		}
	}
}

// TestLostWritesHappenOnce repeats each write as its caller would and counts what
// the other side has afterwards.
func TestLostWritesHappenOnce(t *testing.T) {
	a := filled(t)
	ctx := t.Context()
	for _, op := range []string{"data-fields.create", "address-books.create", "address-books.update", "address-books.remove-members", "contacts.import"} {
		a.fail(fault.Fault{Kind: fault.AckLost, Operation: op, Count: 1})
	}
	if err := a.CreateField(ctx, lockstep.DataField{Name: "MADE", Type: lockstep.FieldText}); err != nil {
		t.Error(err)
	}
	if got := a.calls("data-fields.create"); got != 1 {
		t.Errorf("the field was created with %d calls, want 1 and a look", got)
	}
	b, err := a.CreateBook(ctx, "Made")
	if err != nil {
		t.Error(err)
	}
	if err := a.RenameBook(ctx, b.ID, "Made again"); err != nil {
		t.Error(err)
	}
	job, err := a.RemoveFromBook(ctx, a.firstBook(), []lockstep.ContactID{"1001"})
	if err != nil {
		t.Error(err)
	}
	if err := a.AwaitRemoval(ctx, job); err != nil {
		t.Error(err)
	}
	rows := []lockstep.ContactWrite{{Email: "new@example.com", Books: []lockstep.BookID{b.ID}}}
	if _, err := a.Import(ctx, nil, rows); !lockstep.IsUnknown(err) {
		t.Errorf("a lost import: %v", err)
	}
	if job, err = a.Import(ctx, nil, rows); err != nil {
		t.Fatal(err)
	}
	if err := a.AwaitImport(ctx, job, func([]lockstep.ContactResult) error { return nil }); err != nil {
		t.Error(err)
	}
	books, err := a.Books(ctx)
	if err != nil {
		t.Fatal(err)
	}
	made := 0
	for _, have := range books {
		if strings.HasPrefix(have.Name, "Made") {
			made++
			if have.Members != 1 || have.Name != "Made again" {
				t.Errorf("book %+v, want the renamed one with one member", have)
			}
		}
		if have.Name == "First" && have.Members != 0 {
			t.Errorf("book %+v, want it empty", have)
		}
	}
	if made != 1 {
		t.Errorf("%d books were made", made)
	}
}

// TestCreateBookNotOurs: a book that has members cannot be the one whose answer
// was lost.
func TestCreateBookNotOurs(t *testing.T) {
	a := filled(t)
	a.fail(fault.Fault{Kind: fault.ResetBefore, Operation: "address-books.create", Count: 1})
	if _, err := a.CreateBook(t.Context(), "First"); lockstep.CodeOf(err) != lockstep.CodeConflict {
		t.Errorf("got %v, want %s", err, lockstep.CodeConflict)
	}
}

// TestCreateBookLate: a call that was reported to have failed is carried out after we
// looked for the book and before we try again.
func TestCreateBookLate(t *testing.T) {
	a := open(t)
	var late []byte // the body of the call that was put off
	inner := a.twin.Handler()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		books := r.URL.Path == "/v2/address-books"
		if books && r.Method == http.MethodPost && late == nil {
			late, _ = io.ReadAll(r.Body)
			w.WriteHeader(http.StatusGatewayTimeout)
			return
		}
		inner.ServeHTTP(w, r)
		if books && r.Method == http.MethodGet {
			again := r.Clone(r.Context())
			again.Method, again.URL, again.Body, again.ContentLength = http.MethodPost, &url.URL{Path: r.URL.Path}, io.NopCloser(bytes.NewReader(late)), int64(len(late))
			again.Header.Set("Content-Type", "application/json")
			inner.ServeHTTP(httptest.NewRecorder(), again)
		}
	}))
	t.Cleanup(srv.Close)
	a.twin.SetEndpoint(srv.URL + "/")
	c := connect(t, srv.URL)
	b, err := c.CreateBook(t.Context(), "Late")
	if err != nil || b.Name != "Late" || b.ID == "" {
		t.Errorf("got %+v, %v, want the book that the first call made", b, err)
	}
}

// TestThrottled: the tiered limit is waited out.
func TestThrottled(t *testing.T) {
	a := filled(t)
	a.fail(fault.Fault{Kind: "throttle", Operation: "contacts.get", Count: 1})
	if _, err := a.Contact(t.Context(), "ann@example.com", nil); err != nil {
		t.Error(err)
	}
	if got := a.calls("contacts.get"); got != 2 {
		t.Errorf("%d calls, want the refused one and another", got)
	}
	// When the caller has no time for the pause it is told at once.
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	a.fail(fault.Fault{Kind: "retry-after", Operation: "contacts.get", Count: 1, Args: json.RawMessage(`{"code":429,"value":"60"}`)})
	_, err := a.Contact(ctx, "ann@example.com", nil)
	var e *lockstep.Error
	if !errors.As(err, &e) || e.Code != lockstep.CodeThrottled || e.After < 50*time.Second || e.After > 61*time.Second {
		t.Errorf("got %v, want to be told to wait a minute", err)
	}
}

func TestUnauthorizedIsNotRepeated(t *testing.T) {
	a := filled(t)
	a.fail(status401())
	before := a.served().Calls
	_, err := a.Contact(t.Context(), "ann@example.com", nil)
	e := lockstep.AsError(err)
	if e.Code != lockstep.CodeUnauthorized || e.Scope != lockstep.ScopeConnection || e.Hint == "" {
		t.Errorf("got %v with scope %d", err, e.Scope)
	}
	if got := a.served().Calls - before; got != 1 {
		t.Errorf("%d calls, want 1: an account is locked by repeated failures", got)
	}
}

func status401() fault.Fault { return status(http.StatusUnauthorized, "") }

func TestImportEndings(t *testing.T) {
	tests := []struct {
		mode string
		code lockstep.Code
		hint string
	}{
		{"watchdog", lockstep.CodeGuarded, "release"},
		{"lost", lockstep.CodeNotFound, ""},
	}
	for _, tt := range tests {
		a := open(t)
		a.fail(fault.Fault{Kind: "bulk-partial", Count: 1, Args: json.RawMessage(`{"mode":"` + tt.mode + `"}`)})
		job, err := a.Import(t.Context(), nil, []lockstep.ContactWrite{{Email: "ann@example.com"}})
		if err != nil {
			t.Fatal(err)
		}
		err = a.AwaitImport(t.Context(), job, func(rs []lockstep.ContactResult) error {
			t.Errorf("%s: results %v", tt.mode, rs)
			return nil
		})
		if e := lockstep.AsError(err); e.Code != tt.code || !strings.Contains(e.Hint, tt.hint) || e.Scope != lockstep.ScopeBatch {
			t.Errorf("%s: got %v, want %s", tt.mode, err, tt.code)
		}
	}

	full := open(t, func(o *twin.Options) { o.ContactAllowance = 1 })
	job, err := full.Import(t.Context(), nil, []lockstep.ContactWrite{{Email: "ann@example.com"}, {Email: "bob@example.com"}})
	if err != nil {
		t.Fatal(err)
	}
	err = full.AwaitImport(t.Context(), job, func([]lockstep.ContactResult) error { return nil })
	if e := lockstep.AsError(err); e.Code != lockstep.CodeForbidden || !strings.Contains(e.Hint, "allowance") {
		t.Errorf("over the contact allowance: %v", err)
	}
}

// TestPartialImport: each row is told exactly once, whatever share of them fails.
func TestPartialImport(t *testing.T) {
	a := open(t)
	a.fail(fault.Fault{Kind: "bulk-partial", Count: 1, Args: json.RawMessage(`{"mode":"failures","share":0.3}`)})
	const n = 2500
	rows := make([]lockstep.ContactWrite, n)
	for i := range rows {
		rows[i].Email = fmt.Sprintf("p%d@example.com", i)
	}
	job, err := a.Import(t.Context(), nil, rows)
	if err != nil {
		t.Fatal(err)
	}
	told, refused := map[string]bool{}, 0
	err = a.AwaitImport(t.Context(), job, func(rs []lockstep.ContactResult) error {
		for _, r := range rs {
			if told[r.Email] || r.Email == "" {
				t.Errorf("row %q is told twice or has no address", r.Email)
			}
			told[r.Email] = true
			if r.Fault != nil {
				refused++
			} else if r.Contact == "" {
				t.Errorf("row %q was accepted without a contact", r.Email)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(told) != n || refused < n/5 || refused > n/2 {
		t.Errorf("%d of %d rows were told, %d of them refused", len(told), n, refused)
	}
}

// TestPageFaults: pages that repeat, or that lead back, are noticed.
func TestPageFaults(t *testing.T) {
	a := open(t)
	const n = 2*contactPage + 7
	load := a.twin.Loader()
	for i := range n {
		if _, err := load.Contact(twin.NewContact{Email: fmt.Sprintf("p%d@example.com", i)}); err != nil {
			t.Fatal(err)
		}
	}
	read := func() (map[lockstep.ContactID]int, error) {
		seen := map[lockstep.ContactID]int{}
		_, err := a.Contacts(t.Context(), lockstep.ContactQuery{}, func(page []lockstep.Contact) error {
			for _, c := range page {
				seen[c.ID]++
			}
			return nil
		})
		return seen, err
	}
	seen, err := read()
	if err != nil || len(seen) != n {
		t.Fatalf("read %d of %d contacts: %v", len(seen), n, err)
	}
	if got := a.calls("contacts.list"); got != 3 {
		t.Errorf("%d calls for three pages", got)
	}
	a.fail(fault.Fault{Kind: "page-dup", Operation: "contacts.list", Count: 1})
	if seen, err = read(); err != nil || len(seen) != n {
		t.Errorf("with a row on two pages: %d of %d contacts: %v", len(seen), n, err)
	}
	a.fail(fault.Fault{Kind: "page-dup", Operation: "contacts.list", Count: 1, Args: json.RawMessage(`{"mode":"loop"}`)})
	if _, err = read(); lockstep.CodeOf(err) != lockstep.CodeUnavailable {
		t.Errorf("a listing that leads back to the same page: %v", err)
	}
	// A page that is cut quietly in the middle is asked for again.
	a.faults.Clear()
	before := a.calls("contacts.list")
	a.fail(fault.Fault{Kind: fault.Truncate, Operation: "contacts.list", After: 1, Count: 1})
	if seen, err = read(); err != nil || len(seen) != n {
		t.Errorf("after a cut page: %d of %d contacts: %v", len(seen), n, err)
	}
	if got := a.calls("contacts.list") - before; got != 4 {
		t.Errorf("%d calls for three pages of which one was cut, want 4", got)
	}
}
