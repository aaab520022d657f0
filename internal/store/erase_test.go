//go:build unix

package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/crosswalk"
	"github.com/lockstep-sync/lockstep/internal/journal"
	"github.com/lockstep-sync/lockstep/internal/subject"
)

const canaryEmail = "canary.kestrel@example.com"

var (
	canaryRef = lockstep.Ref{Table: "contact", ID: lockstep.ID{0xca, 0x9a, 0x7e, 0x57, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}}
	otherRef  = lockstep.Ref{Table: "contact", ID: lockstep.ID{0x22, 15: 7}}
	// canaries are what names the person; none may be left anywhere.
	canaries = []string{
		"canary.kestrel", "Kestrelina", "Wrenfield-Canary", "+44 7700 900461", "Canary Feathers Ltd", "770461461", canaryRef.ID.String(), string(canaryRef.ID[:]), "letter of the canary",
	}
	baseLabels = []string{"FIRSTNAME", "LASTNAME", "PHONE", "COMPANY"}
)

func canaryValues() []lockstep.Value {
	return []lockstep.Value{lockstep.TextValue("Kestrelina"), lockstep.TextValue("Wrenfield-Canary"), lockstep.TextValue("+44 7700 900461"), lockstep.TextValue("Canary Feathers Ltd")}
}

func otherValues(n int) []lockstep.Value {
	return []lockstep.Value{lockstep.TextValue(fmt.Sprint("Other", n)), lockstep.TextValue("Person"), lockstep.NullValue(), lockstep.TextValue("Contoso")}
}

func other(n int) crosswalk.Entry {
	return crosswalk.Entry{
		Ref: lockstep.Ref{Table: "lead", ID: lockstep.ID{0x44, byte(n >> 8), byte(n)}}, Contact: lockstep.ContactID(fmt.Sprint(1000 + n)),
		Email: fmt.Sprintf("other%d@example.com", n), Standing: lockstep.Subscribed, Master: true, Base: otherValues(n),
	}
}

func linkBatch(entries ...crosswalk.Entry) []byte {
	b := crosswalk.NewBatch(baseLabels)
	for _, e := range entries {
		b.Append(e)
	}
	return b.Bytes()
}

func memberBatch(members ...crosswalk.Member) []byte {
	b := crosswalk.NewMemberBatch()
	for _, m := range members {
		b.Append(m)
	}
	return b.Bytes()
}

func canaryChange(kind lockstep.ChangeKind) lockstep.Change {
	c := lockstep.Change{Kind: kind, State: lockstep.Acknowledged, Ref: canaryRef, Contact: "770461461", Email: canaryEmail, Why: "changed in the CRM"}
	for i, v := range canaryValues() {
		c.Fields = append(c.Fields, lockstep.FieldChange{Name: baseLabels[i], Old: v, New: v})
	}
	return c
}

func otherChange(n int) lockstep.Change {
	e := other(n)
	return lockstep.Change{
		Kind: lockstep.WriteContact, State: lockstep.Acknowledged, Ref: e.Ref, Contact: e.Contact, Email: e.Email, Why: "changed in the CRM",
		Fields: []lockstep.FieldChange{{Name: "FIRSTNAME", Old: lockstep.TextValue("Old"), New: e.Base[0]}},
	}
}

// planted is a store in which the canary is everywhere.
type planted struct {
	account, second lockstep.EmailAccount
	list            lockstep.ListSettings
	ended, live     lockstep.Run
	preview         lockstep.Run
	liveCtx         context.Context
}

// plant puts the canary into every place that keeps values of people.
func plant(t tester, s *Store) planted {
	t.Helper()
	var p planted
	ctx := context.Background()
	p.account = account(t, s)
	var err error
	p.second, err = s.SaveAccount(ctx, lockstep.EmailAccount{Organization: p.account.Organization, Name: "Contoso US"})
	ok(t, err)
	lists, err := s.SaveLists(ctx, lockstep.ListSettings{Account: p.account.ID, CRMID: lockstep.ID{1}, Name: "VIP"})
	ok(t, err)
	p.list = lists[0]

	rctx, run := started(t, s, p.account.ID)
	p.ended = run
	var changes []lockstep.Change
	for i := range 40 {
		changes = append(changes, otherChange(i))
	}
	changes = slices.Insert(changes, 17, canaryChange(lockstep.WriteContact))
	mention := otherChange(50) // somebody else's record holds the address too
	mention.Fields = append(mention.Fields, lockstep.FieldChange{Name: "ASSISTANT", Old: lockstep.TextValue("Canary.Kestrel@Example.com"), New: lockstep.NullValue()})
	changes = append(changes, mention)
	first, err := s.Plan(rctx, lockstep.Batch{Run: run.ID, Account: p.account.ID, Kind: lockstep.WriteContact, Payload: journal.Encode(changes), Rows: len(changes)})
	ok(t, err)
	// Known by the contact alone, in a batch before and after the one that tells who it is.
	removal := lockstep.Change{Kind: lockstep.RemoveFromBook, State: lockstep.Acknowledged, Contact: "770461461", Book: "42", Why: "left the list"}
	second, err := s.Plan(rctx, lockstep.Batch{Run: run.ID, Account: p.account.ID, Kind: lockstep.RemoveFromBook, Payload: journal.Encode([]lockstep.Change{removal}), Rows: 1})
	ok(t, err)
	ok(t, s.Stage(rctx, run.ID, "contact", []StagedRow{{Key: canaryEmail, Payload: []byte("Kestrelina")}}))

	many := make([]crosswalk.Entry, 0, 400)
	for i := range 400 {
		many = append(many, other(i))
	}
	canary := crosswalk.Entry{Ref: canaryRef, Contact: "770461461", Email: canaryEmail, Standing: lockstep.Subscribed, Master: true, Base: canaryValues()}
	older := canary
	older.Email = "old.address@example.com"
	stranger := crosswalk.Entry{Ref: lockstep.Ref{ID: lockstep.NameID(lockstep.ID{}, "stranger")}, Contact: "770461461", Email: canaryEmail, Base: canaryValues()}
	ok(t, s.Commit(rctx, lockstep.Commit{
		Run: run.ID, Account: p.account.ID,
		Batches: []lockstep.BatchEnd{{ID: first, State: lockstep.Acknowledged, Payload: journal.Encode(changes)}, {ID: second, State: lockstep.Acknowledged, Payload: journal.Encode([]lockstep.Change{removal})}},
		Links:   [][]byte{linkBatch(older, other(1)), linkBatch(slices.Insert(many, 100, canary)...), linkBatch(stranger), linkBatch(other(500))},
		Members: []lockstep.MemberBlob{
			{List: p.list.ID, Payload: memberBatch(crosswalk.Member{Record: other(1).Ref.ID, InList: true}, crosswalk.Member{Record: canaryRef.ID, Contact: "770461461", InList: true, InBook: true})},
			{List: p.list.ID, Payload: memberBatch(crosswalk.Member{Contact: "770461461", InBook: true}, crosswalk.Member{Contact: "9", InBook: true})},
		},
		Findings: []lockstep.Finding{
			{Code: lockstep.FindingRejected, Table: "contact", Record: canaryRef.ID, Message: "Kestrelina was refused."},
			{Code: lockstep.FindingRejected, Contact: "770461461", Message: "The platform refused Wrenfield-Canary."},
			{Code: lockstep.FindingRejected, Message: "The address Canary.Kestrel@example.com is taken."},
			{Code: lockstep.FindingRejected, Contact: "9", Message: "Somebody else."},
		},
		Retries: []lockstep.Retry{{Ref: canaryRef, Finding: "f", Attempts: 1}},
		Conflicts: []lockstep.Conflict{
			{ID: "held", Account: p.account.ID, Ref: canaryRef, Contact: "770461461", Label: "PHONE", Base: canaryValues()[2], CRM: canaryValues()[0], Platform: canaryValues()[1], Winner: "held"},
			{ID: "other", Account: p.account.ID, Ref: otherRef, Contact: "9", Label: "PHONE", Base: lockstep.TextValue("1"), Winner: "held"},
		},
		Consent:      []lockstep.ConsentEntry{{Account: p.account.ID, Act: lockstep.ActRestricted, Scope: lockstep.ScopeAccount, Email: canaryEmail, Ref: canaryRef, Contact: "770461461", System: lockstep.ConsentCRM, Evidence: "letter of the canary", Actor: "Kestrelina", At: day}},
		Restrictions: []lockstep.Restriction{{Account: p.account.ID, Scope: lockstep.ScopeAccount, Email: canaryEmail, Ref: canaryRef, Contact: "770461461", Evidence: "letter of the canary", Actor: "Kestrelina", At: day}},
	}))
	ok(t, s.Commit(rctx, lockstep.Commit{Run: run.ID, Account: p.account.ID, Choices: []lockstep.Choice{
		chosen(s, p.account.ID, "17", canaryEmail, true), chosen(s, p.account.ID, "17", "somebody@example.com", true),
	}}))
	_, err = s.EndRun(ctx, run.ID, lockstep.RunCompleted, "", "")
	ok(t, err)

	// A preview that waits to be applied.
	p.preview, err = s.CreateRun(ctx, lockstep.Run{Account: p.account.ID, Type: lockstep.SyncMarketingLists, Mode: lockstep.ModePreview})
	ok(t, err)
	pctx, _, err := s.StartRun(ctx, p.preview.ID)
	ok(t, err)
	for _, changes := range [][]lockstep.Change{{otherChange(1), canaryChange(lockstep.WriteContact)}, {canaryChange(lockstep.AddToList)}} {
		_, err = s.Plan(pctx, lockstep.Batch{Run: p.preview.ID, Account: p.account.ID, Kind: changes[0].Kind, Payload: journal.Encode(changes), Rows: len(changes)})
		ok(t, err)
	}
	_, err = s.EndRun(ctx, p.preview.ID, lockstep.RunPreviewed, "", "")
	ok(t, err)

	// In the other account the contact's id is somebody else's.
	sctx, srun := started(t, s, p.second.ID)
	same := other(7)
	same.Contact = "770461461"
	ok(t, s.Commit(sctx, lockstep.Commit{Run: srun.ID, Account: p.second.ID, Links: [][]byte{linkBatch(same)}}))
	p.liveCtx, p.live = sctx, srun
	return p
}

func left(t *testing.T, where string, content []byte) {
	t.Helper()
	folded := bytes.ToLower(content)
	for _, c := range canaries {
		// The second account's contact has the same id and is somebody else.
		if c != "770461461" && (bytes.Contains(content, []byte(c)) || bytes.Contains(folded, bytes.ToLower([]byte(c)))) {
			at := max(bytes.Index(content, []byte(c)), bytes.Index(folded, bytes.ToLower([]byte(c))))
			t.Errorf("%s still holds %q: %q", where, c, content[max(0, at-40):min(len(content), at+60)])
		}
	}
}

// No value of an erased person is left in any row, nor in the files beneath; what is
// kept of others is as it was.
func TestEraseEverywhere(t *testing.T) {
	engines(t, func(t *testing.T, o Options) {
		s := mustOpen(t, o)
		p := plant(t, s)
		ctx := context.Background()
		before := openLinks(t, s, p.account.ID)
		lastBlob, _ := links(t, s, p.account.ID, 0)

		done, err := s.EraseAddress(ctx, " Canary.Kestrel@example.com", "admin", false)
		ok(t, err)
		equal(t, done, Erasure{Entries: 1, Restrictions: 1, Choices: 1, Links: 3, Members: 2, Changes: 5, Findings: 3, Conflicts: 1})
		for table, rows := range dump(t, s) {
			for _, row := range rows {
				left(t, table, []byte(row))
				if strings.Contains(row, "770461461") && !strings.Contains(row, p.second.ID) {
					t.Errorf("%s still holds the contact: %s", table, row)
				}
			}
		}
		if o.Path != "" {
			files, err := filepath.Glob(filepath.Join(strings.NewReplacer("?", `\?`, "[", `\[`).Replace(o.Path), "*"))
			ok(t, err)
			if len(files) < 2 {
				t.Fatalf("only the files %v", files)
			}
			for _, f := range files {
				content, err := os.ReadFile(f)
				ok(t, err)
				left(t, filepath.Base(f), content)
			}
		}

		// Neither do the filters of the logs know the person.
		about := []subject.Hash{subject.Of(canaryEmail), subject.Record(canaryRef.ID)}
		met := 0
		ok(t, s.LinksAbout(ctx, p.account.ID, about, func(lockstep.StoredBlob) error { met++; return nil }))
		ok(t, s.MembersAbout(ctx, p.list.ID, about, func(lockstep.StoredBlob) error { met++; return nil }))
		ids, err := s.BatchesAbout(ctx, p.account.ID, about)
		ok(t, err)
		if met += len(ids); met > 1 { // a filter is wrong three times in a thousand
			t.Errorf("%d filters still name the person", met)
		}

		// Others are as they were.
		delete(before, canaryRef)
		for ref, e := range before {
			if e.Email == canaryEmail {
				delete(before, ref)
			}
		}
		equal(t, openLinks(t, s, p.account.ID), before)
		if second := openLinks(t, s, p.second.ID); len(second) != 1 {
			t.Fatalf("links of the other account: %v", second)
		}
		batches, err := s.Batches(ctx, p.ended.ID, 0, 0)
		ok(t, err)
		for i, want := range []int{42, 1} {
			changes, err := journal.Changes(batches[i].Payload)
			ok(t, err)
			if len(changes) != want || batches[i].Rows != want {
				t.Fatalf("batch %d has %d changes, want %d", i, len(changes), want)
			}
			if i == 0 {
				equal(t, changes[0], otherChange(0))
				if c := changes[17]; c.Cause != erasedCause || c.State != lockstep.Acknowledged || len(c.Fields) != 4 || c.Fields[0].Name != "FIRSTNAME" || !c.Fields[0].Old.IsAbsent() {
					t.Fatalf("%+v", c)
				}
				if c := changes[41]; c.Email != "other50@example.com" || c.Fields[0].New.Text() != "Other50" {
					t.Fatalf("%+v", c)
				}
			}
		}
		// Of a preview that waits, what cannot be written any more is out.
		planned, err := s.PlannedBatches(ctx, p.preview.ID, 0, 0)
		ok(t, err)
		if len(planned) != 1 || planned[0].Rows != 1 {
			t.Fatalf("%+v", planned)
		}
		_, m := members(t, s, p.list.ID)
		n := 0
		for _, payload := range m {
			ok(t, crosswalk.DecodeMembers([]byte(payload), func(crosswalk.Member) error { n++; return nil }))
		}
		if n != 2 {
			t.Fatalf("%d members are left", n)
		}
		findings, err := s.Findings(ctx, p.ended.ID, "", 0)
		ok(t, err)
		if len(findings) != 4 || !slices.ContainsFunc(findings, func(f lockstep.Finding) bool { return f.Message == "Somebody else." }) {
			t.Fatalf("%+v", findings)
		}
		conflicts, err := s.ResolvedConflicts(ctx, p.account.ID, time.Time{})
		ok(t, err)
		if len(conflicts) != 0 {
			t.Fatalf("a blanked conflict passes for a person's decision: %+v", conflicts)
		}
		whole(t, s)

		// Who keeps the log in memory is told to read it again, once.
		none := func(lockstep.StoredBlob) error { return nil }
		wantCode(t, s.Links(ctx, p.account.ID, lastBlob[len(lastBlob)-1], none), lockstep.CodeExpired)
		now, _ := links(t, s, p.account.ID, 0)
		ok(t, s.Links(ctx, p.account.ID, now[len(now)-1], none))
		ok(t, s.Links(ctx, p.second.ID, 1, none))
		// A run that was under way has lost its turn, and gets another.
		wantCode(t, s.Commit(p.liveCtx, lockstep.Commit{Run: p.live.ID, Account: p.second.ID, Links: [][]byte{linkBatch(other(1))}}), lockstep.CodeConflict)
		again, _, err := s.StartRun(ctx, p.live.ID)
		ok(t, err)
		ok(t, s.Commit(again, lockstep.Commit{Run: p.live.ID, Account: p.second.ID, Links: [][]byte{linkBatch(other(1))}}))

		// Once more there is nothing to do.
		done, err = s.EraseAddress(ctx, canaryEmail, "admin", false)
		ok(t, err)
		equal(t, done, Erasure{Restrictions: 2})
	})
}

// openLinks reads who is linked at the end of an account's log.
func openLinks(t tester, s *Store, account string) map[lockstep.Ref]crosswalk.Entry {
	t.Helper()
	last := map[lockstep.Ref]crosswalk.Entry{}
	ok(t, s.Links(context.Background(), account, 0, func(b lockstep.StoredBlob) error {
		return crosswalk.Decode(b.Payload, func(_, _ int, e crosswalk.Entry) error {
			if last[e.Ref] = e; e.Closed {
				delete(last, e.Ref)
			}
			return nil
		})
	}))
	return last
}

// A write whose outcome is not known is not cut off from it: the erasure waits.
func TestEraseUnderWay(t *testing.T) {
	engines(t, func(t *testing.T, o Options) {
		s := mustOpen(t, o)
		a := account(t, s)
		ctx, run := started(t, s, a.ID)
		batch, err := s.Plan(ctx, lockstep.Batch{Run: run.ID, Account: a.ID, Kind: lockstep.WriteContact, Payload: journal.Encode([]lockstep.Change{canaryChange(lockstep.WriteContact)}), Rows: 1})
		ok(t, err)
		ok(t, s.MarkSent(ctx, batch, "job"))
		before := dump(t, s)
		for _, force := range []bool{false, true} {
			_, err = s.EraseAddress(ctx, canaryEmail, "admin", force)
			wantCode(t, err, lockstep.CodeConflict)
			if !strings.Contains(err.Error(), "under way") || strings.Contains(err.Error(), "canary") {
				t.Fatal(err)
			}
		}
		equal(t, dump(t, s), before)
		ok(t, s.Commit(ctx, lockstep.Commit{Run: run.ID, Account: a.ID, Batches: []lockstep.BatchEnd{{ID: batch, State: lockstep.Acknowledged}}}))
		done, err := s.EraseAddress(ctx, canaryEmail, "admin", false)
		ok(t, err)
		if done.Changes != 1 {
			t.Fatalf("%+v", done)
		}
	})
}

// Whatever the log of links says, an erasure takes exactly the person out of it: who is
// linked under another address stays so, and nobody who was closed comes back.
func TestEraseLinksModel(t *testing.T) {
	s := mustOpen(t, Options{Path: t.TempDir(), Sealer: ring(t, "0123456789abcdef0123456789abcdef")})
	org := account(t, s).Organization
	addresses := []string{canaryEmail, "b@example.com", "c@example.com", ""}
	rapid.Check(t, func(t *rapid.T) {
		a, err := s.SaveAccount(context.Background(), lockstep.EmailAccount{Organization: org})
		ok(t, err)
		ctx, run := started(t, s, a.ID)
		for range rapid.IntRange(1, 6).Draw(t, "batches") {
			var entries []crosswalk.Entry
			for range rapid.IntRange(0, 5).Draw(t, "entries") {
				entries = append(entries, crosswalk.Entry{
					Ref:     lockstep.Ref{Table: rapid.SampledFrom([]string{"contact", "invented"}).Draw(t, "table"), ID: lockstep.ID{rapid.SampledFrom([]byte{1, 2, 3}).Draw(t, "record")}},
					Contact: lockstep.ContactID(rapid.StringMatching(`[1-9]?`).Draw(t, "contact")),
					Email:   rapid.SampledFrom(addresses).Draw(t, "email"),
					Closed:  rapid.IntRange(0, 3).Draw(t, "closed") == 0,
					Seen:    rapid.Uint64().Draw(t, "seen"),
					Base:    otherValues(rapid.IntRange(0, 99).Draw(t, "base")),
				})
			}
			ok(t, s.Commit(ctx, lockstep.Commit{Run: run.ID, Account: a.ID, Links: [][]byte{linkBatch(entries...)}}))
		}
		want := openLinks(t, s, a.ID)
		had := map[lockstep.Ref]bool{}
		ok(t, s.Links(ctx, a.ID, 0, func(b lockstep.StoredBlob) error {
			return crosswalk.Decode(b.Payload, func(_, _ int, e crosswalk.Entry) error {
				had[e.Ref] = had[e.Ref] || e.Email == canaryEmail
				return nil
			})
		}))
		maps.DeleteFunc(want, func(r lockstep.Ref, e crosswalk.Entry) bool { return e.Email == canaryEmail || e.Email == "" && had[r] })
		_, err = s.EraseAddress(ctx, canaryEmail, "admin", true)
		ok(t, err)
		equal(t, openLinks(t, s, a.ID), want)
		ok(t, s.Links(ctx, a.ID, 0, func(b lockstep.StoredBlob) error {
			if bytes.Contains(b.Payload, []byte(canaryEmail)) {
				t.Fatal("the address is still in the log")
			}
			return nil
		}))
		_, err = s.EndRun(context.Background(), run.ID, lockstep.RunCancelled, "", "")
		ok(t, err)
	})
}

// Whatever statement of an erasure fails, nothing is half done that a second try does
// not finish.
func TestEraseNthWriteFails(t *testing.T) {
	ctx := context.Background()
	engines(t, func(t *testing.T, o Options) {
		var seam *faulty
		s, err := open(ctx, o, func(d database) database {
			seam = &faulty{database: d}
			return seam
		})
		ok(t, err)
		t.Cleanup(func() { _ = s.Close() })
		plant(t, s)
		before := dump(t, s)
		faults := 0
		for n := 1; ; n++ {
			seam.n, seam.fired = n, false
			_, err := s.EraseAddress(ctx, canaryEmail, "admin", false)
			seam.n = 0
			if !seam.fired {
				ok(t, err)
				break
			}
			faults++
			if !errors.Is(err, errInjected) {
				t.Fatalf("with statement %d failing: %v", n, err)
			}
			if now := dump(t, s); len(now["erasures"]) == 0 { // all of the first transaction or nothing
				equal(t, now, before)
			}
		}
		if faults < 20 {
			t.Fatalf("only %d faults", faults)
		}
		for table, rows := range dump(t, s) {
			for _, row := range rows {
				left(t, table, []byte(row))
			}
		}
		whole(t, s)
	})
}
