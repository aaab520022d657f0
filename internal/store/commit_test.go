//go:build unix

package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/lockstep-sync/lockstep"
)

var (
	day    = time.Date(2026, 5, 1, 12, 30, 0, 123456000, time.UTC)
	record = lockstep.Ref{Table: "contact", ID: lockstep.ID{0x22, 15: 2}}
)

// fullCommit has something of everything that a commit can hold.
func fullCommit(run lockstep.Run, batch int64) lockstep.Commit {
	c := lockstep.Commit{
		Run: run.ID, Account: run.Account,
		Batches: []lockstep.BatchEnd{{ID: batch, State: lockstep.Acknowledged, Payload: []byte("result")}},
		Links:   [][]byte{bytes.Repeat([]byte("link"), 20_000), {}, []byte("small")},
		Members: []lockstep.MemberBlob{{List: "l1", Payload: []byte("m1")}, {List: "l2", Payload: nil}, {List: "l1", Payload: []byte("m2")}},
		Conflicts: []lockstep.Conflict{{
			ID: "c1", Run: run.ID, Account: run.Account, Ref: record, Contact: "17", Label: "CITY", Column: "address1_city",
			Base: lockstep.TextValue("Köln"), CRM: lockstep.NullValue(), Platform: lockstep.CanonicalValue(lockstep.Number, "1.5"),
			CRMAt: day, Policy: lockstep.WinnerHold, Winner: "held", DetectedAt: day,
		}},
		Cursors:  map[string]lockstep.Cursor{"contacts": "delta:9", "leads": ""},
		Lists:    []lockstep.ListSettings{{ID: "l1", Account: run.Account, CRMID: lockstep.ID{1}, Name: "VIP"}},
		Labels:   []lockstep.DataLabel{{ID: "d1", Account: run.Account, Name: "CITY"}},
		Mappings: []lockstep.DataMapping{{ID: "p1", Account: run.Account, Label: "CITY", Table: "contact", Direction: lockstep.ToCRM, Column: "address1_city"}},
		Consent: []lockstep.ConsentEntry{
			{Account: run.Account, Act: lockstep.ActRestricted, Scope: lockstep.ScopeAccount, Email: "Ada@Example.com", Ref: record, Contact: "17", Reason: lockstep.Unsubscribed, System: lockstep.ConsentPlatform, Evidence: "clicked", At: day, Seen: day},
			{Account: run.Account, Act: lockstep.ActTold, Scope: lockstep.ScopeAccount, Email: "ada@example.com", System: lockstep.ConsentCRM, About: lockstep.ID{9}, At: day, Seen: day},
		},
		Restrictions: []lockstep.Restriction{
			{Account: run.Account, Scope: lockstep.ScopeAccount, Email: "Ada@Example.com", Ref: record, Contact: "17", Reason: lockstep.Unsubscribed, System: lockstep.ConsentPlatform, At: day, Seen: day, Entry: lockstep.ID{9}, Told: map[string]time.Time{"crm": day}, Pending: true},
			{Account: run.Account, Scope: lockstep.ScopeList, Object: "l1", Email: "bob@example.com", System: lockstep.ConsentCRM, At: day, Seen: day, Asked: day},
		},
		Lifted:   []lockstep.Restriction{{ID: lockstep.ID{1, 2, 3}}},
		Retries:  []lockstep.Retry{{Ref: record, Finding: "f0", Attempts: 1, Next: day}, {Ref: record, Finding: "f1", Attempts: 2, Next: day.Add(time.Hour)}},
		Taken:    []lockstep.Ref{record},
		Counts:   lockstep.Counts{Read: 5, Written: 3, Findings: 120},
		Calls:    lockstep.Calls{CRM: 2, Platform: 1},
		Stage:    "writing contacts",
		Progress: []byte{1, 2, 3},
	}
	for i := range 120 {
		c.Findings = append(c.Findings, lockstep.Finding{
			ID: fmt.Sprintf("f%03d", i), Run: run.ID, Account: run.Account, Code: lockstep.FindingNoEmail, Table: "contact",
			Record: record.ID, Contact: "17", List: "l1", Field: "emailaddress1", Message: "It has no address.\x00", Hint: "Enter one.", At: day,
		})
	}
	return c
}

func links(t tester, s *Store, account string, after int64) (ids []int64, payloads [][]byte) {
	t.Helper()
	ok(t, s.Links(context.Background(), account, after, func(b lockstep.StoredBlob) error {
		ids, payloads = append(ids, b.ID), append(payloads, b.Payload)
		return nil
	}))
	return ids, payloads
}

func members(t tester, s *Store, name string) (ids []int64, payloads []string) {
	t.Helper()
	ok(t, s.Members(context.Background(), name, func(b lockstep.StoredBlob) error {
		ids, payloads = append(ids, b.ID), append(payloads, string(b.Payload))
		return nil
	}))
	return ids, payloads
}

func TestCommit(t *testing.T) {
	engines(t, func(t *testing.T, o Options) {
		s := mustOpen(t, o)
		a := account(t, s)
		ctx, run := started(t, s, a.ID)
		ok(t, s.SetCursor(ctx, a.ID, "leads", "old"))
		batch, err := s.Plan(ctx, lockstep.Batch{Run: run.ID, Account: a.ID, Kind: lockstep.WriteContact, Payload: []byte("plan"), Rows: 3})
		ok(t, err)
		c := fullCommit(run, batch)
		ok(t, s.Commit(ctx, c))

		ids, payloads := links(t, s, a.ID, 0)
		if len(payloads) != 3 || !bytes.Equal(payloads[0], c.Links[0]) || len(payloads[1]) != 0 || string(payloads[2]) != "small" || !slices.IsSorted(ids) {
			t.Fatalf("links %v", ids)
		}
		mids, m := members(t, s, "l1")
		equal(t, m, []string{"m1", "m2"})
		if _, m := members(t, s, "l2"); len(m) != 1 || m[0] != "" {
			t.Fatalf("members of l2: %q", m)
		}
		cursors, err := s.Cursors(ctx, a.ID)
		ok(t, err)
		equal(t, cursors, map[string]lockstep.Cursor{"contacts": "delta:9"})
		lists, err := s.Lists(ctx, a.ID)
		ok(t, err)
		equal(t, lists, c.Lists)
		labels, err := s.Labels(ctx, a.ID)
		ok(t, err)
		equal(t, labels, c.Labels)
		mappings, err := s.Mappings(ctx, a.ID)
		ok(t, err)
		equal(t, mappings, c.Mappings)
		conflicts, err := s.Conflicts(ctx, ConflictFilter{Run: run.ID})
		ok(t, err)
		equal(t, conflicts, c.Conflicts)
		var findings []lockstep.Finding
		for after := ""; ; after = findings[len(findings)-1].ID {
			page, err := s.Findings(ctx, run.ID, after, 50)
			ok(t, err)
			if len(page) == 0 {
				break
			}
			findings = append(findings, page...)
		}
		for i := range c.Findings {
			c.Findings[i].Message = "It has no address."
		}
		equal(t, findings, c.Findings)
		got, err := s.Run(ctx, run.ID)
		ok(t, err)
		if got.Counts != c.Counts || got.Calls != c.Calls || got.Stage != c.Stage {
			t.Fatalf("%+v", got)
		}
		progress, err := s.Progress(ctx, run.ID)
		ok(t, err)
		equal(t, progress, c.Progress)
		batches, err := s.Batches(ctx, run.ID, 0, 0)
		ok(t, err)
		if len(batches) != 1 || batches[0].State != lockstep.Acknowledged || string(batches[0].Payload) != "result" || batches[0].Ended.IsZero() || batches[0].Rows != 3 {
			t.Fatalf("%+v", batches)
		}

		// The second commit adds counts, keeps what it does not name, and compacts.
		ok(t, s.Commit(ctx, lockstep.Commit{
			Run: run.ID, Account: a.ID, Counts: lockstep.Counts{Read: 1, Equal: 1}, DropLinks: ids[:2], Links: [][]byte{[]byte("both")},
			DropMembers: mids, Members: []lockstep.MemberBlob{{List: "l1", Payload: []byte("m1m2")}},
		}))
		got, err = s.Run(ctx, run.ID)
		ok(t, err)
		want := c.Counts
		want.Add(lockstep.Counts{Read: 1, Equal: 1})
		if got.Counts != want || got.Calls != c.Calls || got.Stage != c.Stage {
			t.Fatalf("%+v", got)
		}
		if progress, err = s.Progress(ctx, run.ID); err != nil || len(progress) != 3 {
			t.Fatal(progress, err)
		}
		newIDs, payloads := links(t, s, a.ID, ids[1])
		if len(newIDs) != 2 || newIDs[0] != ids[2] || newIDs[1] <= ids[2] || string(payloads[1]) != "both" {
			t.Fatalf("links %v", newIDs)
		}
		_, m = members(t, s, "l1")
		equal(t, m, []string{"m1m2"})

		// What cannot be stored as a whole is not stored in part.
		before := dump(t, s)
		base := lockstep.Commit{Run: run.ID, Account: a.ID, Links: [][]byte{[]byte("x")}, Cursors: map[string]lockstep.Cursor{"contacts": "delta:10"}}
		for name, bad := range map[string]struct {
			change func(c *lockstep.Commit)
			code   lockstep.Code
		}{
			"another account":      {func(c *lockstep.Commit) { c.Account = "b" }, lockstep.CodeInvalid},
			"ended batch":          {func(c *lockstep.Commit) { c.Batches = []lockstep.BatchEnd{{ID: batch, State: lockstep.Refused}} }, lockstep.CodeConflict},
			"unknown batch":        {func(c *lockstep.Commit) { c.Batches = []lockstep.BatchEnd{{ID: 99, State: lockstep.Refused}} }, lockstep.CodeNotFound},
			"batch sent":           {func(c *lockstep.Commit) { c.Batches = []lockstep.BatchEnd{{ID: batch, State: lockstep.Sent}} }, lockstep.CodeInvalid},
			"dropped link batch":   {func(c *lockstep.Commit) { c.DropLinks = ids[:1] }, lockstep.CodeConflict},
			"dropped member batch": {func(c *lockstep.Commit) { c.DropMembers = mids[:1] }, lockstep.CodeConflict},
			"label taken": {func(c *lockstep.Commit) {
				c.Labels = []lockstep.DataLabel{{ID: "d2", Account: a.ID, Name: "City"}}
			}, lockstep.CodeConflict},
			"label of nobody":   {func(c *lockstep.Commit) { c.Labels = []lockstep.DataLabel{{ID: "d2", Name: "X"}} }, lockstep.CodeInvalid},
			"list without id":   {func(c *lockstep.Commit) { c.Lists = []lockstep.ListSettings{{Account: a.ID}} }, lockstep.CodeInvalid},
			"mapping of nobody": {func(c *lockstep.Commit) { c.Mappings = []lockstep.DataMapping{{ID: "p2"}} }, lockstep.CodeInvalid},
		} {
			c := base
			bad.change(&c)
			t.Run(name, func(t *testing.T) {
				wantCode(t, s.Commit(ctx, c), bad.code)
				equal(t, dump(t, s), before)
			})
		}

		// What a slice found that died is found again, and told and counted once.
		ok(t, s.Commit(ctx, lockstep.Commit{
			Run: run.ID, Account: a.ID, Counts: lockstep.Counts{Findings: 2},
			Findings: []lockstep.Finding{{ID: "f001", Message: "Again."}, {ID: "new", Message: "New."}},
		}))
		again, err := s.Run(ctx, run.ID)
		ok(t, err)
		if again.Counts.Findings != got.Counts.Findings+1 {
			t.Errorf("%d findings are counted, want %d", again.Counts.Findings, got.Counts.Findings+1)
		}
		findings, err = s.Findings(ctx, run.ID, "", 1000)
		ok(t, err)
		if len(findings) != len(c.Findings)+1 {
			t.Errorf("%d findings are stored, want %d", len(findings), len(c.Findings)+1)
		}
	})
}

// For every n, the n-th statement of every step of a reference run fails: the store
// is then as it was before the step, and the step succeeds when it is repeated.
func TestNthWriteFails(t *testing.T) {
	engines(t, func(t *testing.T, o Options) {
		var seam *faulty
		s, err := open(context.Background(), o, func(d database) database {
			seam = &faulty{database: d}
			return seam
		})
		ok(t, err)
		t.Cleanup(func() { _ = s.Close() })
		a := account(t, s)
		ctx, run := context.Background(), lockstep.Run{ID: "reference", Account: a.ID, Type: lockstep.SyncMarketingLists}
		var batch int64
		var old []int64
		steps := []struct {
			name string
			do   func() error
		}{
			{"create run", func() error { _, err := s.CreateRun(ctx, run); return err }},
			{"start run", func() error {
				next, _, err := s.StartRun(context.Background(), run.ID)
				if err == nil {
					ctx = next //nolint:fatcontext // the steps after it belong to the run
				}
				return err
			}},
			{"plan", func() error {
				id, err := s.Plan(ctx, lockstep.Batch{Run: run.ID, Account: a.ID, Kind: lockstep.AddToList, Payload: []byte("plan")})
				batch = id
				return err
			}},
			{"mark sent", func() error { return s.MarkSent(ctx, batch, "job-1") }},
			{"stage", func() error {
				return s.Stage(ctx, run.ID, "contact", slices.Repeat([]StagedRow{{Key: "a"}, {Key: "b"}}, 60))
			}},
			{"commit", func() error { return s.Commit(ctx, fullCommit(run, batch)) }},
			{"compact", func() error {
				old, _ = links(t, s, a.ID, 0)
				mids, _ := members(t, s, "l1")
				return s.Commit(ctx, lockstep.Commit{Run: run.ID, Account: a.ID, DropLinks: old, Links: [][]byte{[]byte("all")}, DropMembers: mids})
			}},
			{"resolve", func() error { _, err := s.ResolveConflict(ctx, "c1", "crm", "ada"); return err }},
			{"save account", func() error {
				_, err := s.SaveAccount(ctx, lockstep.EmailAccount{ID: "a2", Organization: a.Organization, Default: true})
				return err
			}},
			{"save tables", func() error {
				return s.SaveTables(ctx, a.Organization, []lockstep.Table{{Name: "lead"}, {Name: "contact"}})
			}},
			{"set secrets", func() error { return s.SetSecrets(ctx, AccountSecrets(a.ID), map[string]string{"x": "1", "y": "2"}) }},
			{"lift", func() error {
				key := s.AddressKey("bob@example.com")
				return s.AppendConsent(ctx, []lockstep.ConsentEntry{{Account: a.ID, Act: lockstep.ActAllowed, Scope: lockstep.ScopeList, Object: "l1", Email: "bob@example.com", System: lockstep.ConsentCRM, At: day}},
					nil, []lockstep.ID{lockstep.RestrictionID(a.ID, lockstep.ScopeList, "l1", key)})
			}},
			{"cancel", func() error { _, err := s.RequestCancel(ctx, run.ID); return err }},
			{"clear staged", func() error { return s.ClearStaged(ctx, run.ID, "contact") }},
			{"end run", func() error { _, err := s.EndRun(ctx, run.ID, lockstep.RunCompleted, "", ""); return err }},
		}
		faults := 0
		for _, step := range steps {
			before := dump(t, s)
			for n := 1; ; n++ {
				seam.n, seam.fired = n, false
				err := step.do()
				seam.n = 0
				if !seam.fired {
					if err != nil {
						t.Fatalf("%s without a fault: %v", step.name, err)
					}
					break
				}
				faults++
				if !errors.Is(err, errInjected) {
					t.Fatalf("%s with statement %d failing: %v", step.name, n, err)
				}
				if step.name == "clear staged" { // several transactions by design
					continue
				}
				equal(t, dump(t, s), before)
			}
		}
		if faults < 60 {
			t.Fatalf("only %d faults", faults)
		}
		if ids, payloads := links(t, s, a.ID, 0); len(ids) != 1 || string(payloads[0]) != "all" {
			t.Fatalf("links %v", ids)
		}
	})
}

func TestConflicts(t *testing.T) {
	engines(t, func(t *testing.T, o Options) {
		s := mustOpen(t, o)
		a := account(t, s)
		ctx, run := started(t, s, a.ID)
		var all []lockstep.Conflict // newest first
		for i := range 7 {
			c := lockstep.Conflict{ID: fmt.Sprintf("c%d", i), Run: run.ID, Account: a.ID, Ref: record, Winner: "held", DetectedAt: day.Add(time.Duration(i/2) * time.Hour)}
			all = append([]lockstep.Conflict{c}, all...)
		}
		ok(t, s.Commit(ctx, lockstep.Commit{Run: run.ID, Account: a.ID, Conflicts: all}))
		var got []lockstep.Conflict
		f := ConflictFilter{Account: a.ID, Limit: 2}
		for {
			page, err := s.Conflicts(ctx, f)
			ok(t, err)
			if len(page) == 0 {
				break
			}
			got = append(got, page...)
			f.Before = page[len(page)-1].ID
		}
		equal(t, got, all)

		decided, err := s.ResolveConflict(ctx, "c3", "platform", "ada@contoso")
		ok(t, err)
		if !decided.Resolved || decided.Winner != "platform" || decided.ResolvedBy != "ada@contoso" || decided.ResolvedAt.IsZero() {
			t.Fatalf("%+v", decided)
		}
		_, err = s.ResolveConflict(ctx, "c3", "crm", "bob")
		wantCode(t, err, lockstep.CodeConflict)
		_, err = s.ResolveConflict(ctx, "c2", "held", "bob")
		wantCode(t, err, lockstep.CodeInvalid)
		_, err = s.ResolveConflict(ctx, "none", "crm", "bob")
		wantCode(t, err, lockstep.CodeNotFound)

		// A later run replaces an open conflict; a person's decision stands.
		c2, c3 := all[4], all[3]
		c2.Label, c3.Label = "NEW", "NEW"
		ok(t, s.Commit(ctx, lockstep.Commit{Run: run.ID, Account: a.ID, Conflicts: []lockstep.Conflict{c2, c3}}))
		stored, err := s.Conflict(ctx, "c2")
		ok(t, err)
		equal(t, stored, c2)
		stored, err = s.Conflict(ctx, "c3")
		ok(t, err)
		equal(t, stored, decided)
		yes := true
		open, err := s.Conflicts(ctx, ConflictFilter{Account: a.ID, Resolved: &yes})
		ok(t, err)
		equal(t, open, []lockstep.Conflict{decided})
	})
}

func TestStaging(t *testing.T) {
	engines(t, func(t *testing.T, o Options) {
		s := mustOpen(t, o)
		a := account(t, s)
		ctx, run := started(t, s, a.ID)
		want := make(map[string]string)
		var rows []StagedRow
		for i := range 1203 {
			key := fmt.Sprintf("%c%x", "aBä\xff"[i%4], i*7919%1203)
			rows = append(rows, StagedRow{key, []byte(fmt.Sprint(i))})
			want[key] = fmt.Sprint(i)
		}
		rows = append(rows, StagedRow{"", nil}, StagedRow{rows[5].Key, []byte("later")})
		want[""], want[rows[5].Key] = "", "later"
		ok(t, s.Stage(ctx, run.ID, "contact", rows[:700]))
		ok(t, s.Stage(ctx, run.ID, "contact", rows[600:]))
		ok(t, s.Stage(ctx, run.ID, "member", rows[:1]))
		ok(t, s.Stage(ctx, run.ID, "none", nil))

		got, keys := make(map[string]string), []string(nil)
		ok(t, s.EachStaged(ctx, run.ID, "contact", "", func(r StagedRow) error {
			keys = append(keys, r.Key)
			got[r.Key] = string(r.Payload)
			return s.SetSetting(ctx, "key", "each may use the store")
		}))
		equal(t, got, want)
		if !slices.IsSorted(keys) {
			t.Fatal("not in the order of the keys' bytes")
		}
		var rest []string
		ok(t, s.EachStaged(ctx, run.ID, "contact", keys[100], func(r StagedRow) error { rest = append(rest, r.Key); return nil }))
		equal(t, rest, keys[101:])

		found := make(map[string]string)
		ok(t, s.Staged(ctx, run.ID, "contact", append(keys[:250:250], "missing"), func(r StagedRow) error {
			found[r.Key] = string(r.Payload)
			return nil
		}))
		if len(found) != 250 || found[keys[7]] != want[keys[7]] {
			t.Fatalf("%d rows found", len(found))
		}
		boom := errors.New("boom")
		if err := s.Staged(ctx, run.ID, "contact", keys, func(StagedRow) error { return boom }); !errors.Is(err, boom) {
			t.Fatal(err)
		}
		if err := s.EachStaged(ctx, run.ID, "contact", "", func(StagedRow) error { return boom }); !errors.Is(err, boom) {
			t.Fatal(err)
		}
		count := func(kind string) (n int) {
			ok(t, s.EachStaged(ctx, run.ID, kind, "", func(StagedRow) error { n++; return nil }))
			return n
		}
		big := make([]StagedRow, 5001)
		for i := range big {
			big[i].Key = fmt.Sprint("big", i)
		}
		ok(t, s.Stage(ctx, run.ID, "contact", big))
		ok(t, s.ClearStaged(ctx, run.ID, "contact"))
		if count("contact") != 0 || count("member") != 1 {
			t.Fatal("clearing one kind")
		}
		ok(t, s.ClearStaged(ctx, run.ID, ""))
		if count("member") != 0 {
			t.Fatal("clearing everything")
		}
	})
}
