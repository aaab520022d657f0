//go:build unix

package store

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/consent"
	"github.com/lockstep-sync/lockstep/internal/secret"
)

func optOut(account, email string) lockstep.ConsentEntry {
	return lockstep.ConsentEntry{
		Account: account, Act: lockstep.ActRestricted, Scope: lockstep.ScopeAccount, Email: email, Ref: record, Contact: "17",
		Reason: lockstep.Unsubscribed, System: lockstep.ConsentPlatform, Actor: "the person", Evidence: "clicked unsubscribe", At: day, Seen: day,
	}
}

func whole(t tester, s *Store) consent.Report {
	t.Helper()
	r, err := s.VerifyConsent(context.Background(), consent.Head{})
	ok(t, err)
	if r.Broken != nil {
		t.Fatalf("the ledger is broken: %v", r.Broken)
	}
	return r
}

func TestLedger(t *testing.T) {
	ctx := context.Background()
	engines(t, func(t *testing.T, o Options) {
		s := mustOpen(t, o)
		if r := whole(t, s); r.Entries != 0 {
			t.Fatalf("%+v", r)
		}
		a := account(t, s)
		one, two := optOut(a.ID, " Ada@Example.com "), optOut(a.ID, "bob@example.com")
		ok(t, s.AppendConsent(ctx, []lockstep.ConsentEntry{one, two, one}, nil, nil))
		ok(t, s.AppendConsent(ctx, []lockstep.ConsentEntry{two}, nil, nil)) // the same again
		told := lockstep.ConsentEntry{Account: a.ID, Act: lockstep.ActTold, Email: "ada@example.com", System: lockstep.ConsentCRM, At: day.Add(time.Hour)}
		rctx, run := started(t, s, a.ID)
		ok(t, s.Commit(rctx, lockstep.Commit{Run: run.ID, Account: a.ID, Consent: []lockstep.ConsentEntry{told}}))

		key := s.AddressKey("ADA@example.com")
		got, err := s.ConsentOf(ctx, key, 0, 0)
		ok(t, err)
		if len(got) != 2 || got[0].Seq != 1 || got[1].Seq != 3 || got[1].Run != run.ID || got[1].Seen.IsZero() {
			t.Fatalf("%+v", got)
		}
		one.Email, one.Key, one.Seq, one.Hash = "ada@example.com", key, 1, got[0].Hash
		one.ID = lockstep.ConsentID(&one)
		equal(t, got[0], one)
		if page, err := s.ConsentOf(ctx, key, 1, 1); err != nil || len(page) != 1 || page[0].Seq != 3 {
			t.Fatal(page, err)
		}
		if r := whole(t, s); r.Entries != 3 || r.Erased != 0 {
			t.Fatalf("%+v", r)
		}

		// A head noted earlier is found again after more was appended, and a wrong one not.
		noted, err := consent.ParseHead(whole(t, s).Head)
		ok(t, err)
		ok(t, s.AppendConsent(ctx, []lockstep.ConsentEntry{optOut(a.ID, "eve@example.com")}, nil, nil))
		if r, err := s.VerifyConsent(ctx, noted); err != nil || r.Broken != nil {
			t.Fatal(r, err)
		}
		noted.Hash[0] ^= 1
		if r, err := s.VerifyConsent(ctx, noted); err != nil || r.Broken == nil || r.Broken.Seq != 3 {
			t.Fatal(r, err)
		}
	})
}

// Whatever is done to the rows, the first that is wrong is named.
func TestBrokenLedger(t *testing.T) {
	ctx := context.Background()
	engines(t, func(t *testing.T, o Options) {
		s := mustOpen(t, o)
		a := account(t, s)
		var entries []lockstep.ConsentEntry
		for i := range 9 {
			entries = append(entries, optOut(a.ID, fmt.Sprintf("p%d@example.com", i)))
		}
		ok(t, s.AppendConsent(ctx, entries, nil, nil))
		before := whole(t, s)
		for _, c := range []struct {
			name string
			do   []string
			seq  int64
			why  string
		}{
			{"content", []string{`UPDATE consent SET content = person WHERE seq = 4`}, 4, "changed"},
			{"values", []string{`UPDATE consent SET person = content WHERE seq = 4`}, 4, "person were changed"},
			{"values blanked", []string{`UPDATE consent SET person = address, address = address WHERE seq = 4`}, 4, "person were changed"},
			{"values gone", []string{`UPDATE consent SET person = (SELECT person FROM blank) WHERE seq = 4`}, 4, "no erasure"},
			{"hash", []string{`UPDATE consent SET hash = id WHERE seq = 1`}, 1, "changed"},
			{"address", []string{`UPDATE consent SET address = id WHERE seq = 9`}, 9, "key was changed"},
			{"first removed", []string{`DELETE FROM consent WHERE seq = 1`}, 1, "missing"},
			{"removed", []string{`DELETE FROM consent WHERE seq = 5`}, 5, "missing"},
			{"removed and renumbered", []string{`DELETE FROM consent WHERE seq = 9`, `UPDATE consent SET seq = 9 WHERE seq = 8`, `UPDATE consent SET seq = 8 WHERE seq = 9`}, 9, "missing"},
			{"swapped", []string{`UPDATE consent SET seq = 100 WHERE seq = 3`, `UPDATE consent SET seq = 3 WHERE seq = 7`, `UPDATE consent SET seq = 7 WHERE seq = 100`}, 3, "moved"},
			{"tail cut", []string{`DELETE FROM consent WHERE seq > 6`}, 7, "had 9 rows"},
			{"everything cut", []string{`DELETE FROM consent`}, 1, "had 9 rows"},
			{"head moved", []string{`UPDATE consent_head SET seq = 3`}, 10, "gone or damaged"},
			{"head gone", []string{`DELETE FROM consent_head`}, 10, "gone or damaged"},
		} {
			t.Run(c.name, func(t *testing.T) {
				run := func(statements ...string) {
					t.Helper()
					ok(t, s.InTx(ctx, func(tx Tx) error {
						for _, q := range statements {
							if _, err := tx.Exec(ctx, q); err != nil {
								return err
							}
						}
						return nil
					}))
				}
				run(`CREATE TABLE kept AS SELECT * FROM consent`, `CREATE TABLE kept_head AS SELECT * FROM consent_head`, `CREATE TABLE blank AS SELECT person FROM consent WHERE seq = 1`)
				ok(t, s.InTx(ctx, func(tx Tx) error { _, err := tx.Exec(ctx, `UPDATE blank SET person = $1`, []byte{}); return err }))
				run(c.do...)
				r, err := s.VerifyConsent(ctx, consent.Head{})
				ok(t, err)
				if r.Broken == nil || r.Broken.Seq != c.seq || !strings.Contains(r.Broken.Why, c.why) {
					t.Errorf("%+v, want row %d: %s", r.Broken, c.seq, c.why)
				}
				run(`DELETE FROM consent`, `DELETE FROM consent_head`, `INSERT INTO consent SELECT * FROM kept`, `INSERT INTO consent_head SELECT * FROM kept_head`,
					`DROP TABLE kept`, `DROP TABLE kept_head`, `DROP TABLE blank`)
				equal(t, whole(t, s), before)
			})
		}
	})
}

func TestRestrictions(t *testing.T) {
	ctx := context.Background()
	engines(t, func(t *testing.T, o Options) {
		s := mustOpen(t, o)
		a := account(t, s)
		restriction := func(account string, scope lockstep.ConsentScope, object, email string, pending bool) lockstep.Restriction {
			key := s.AddressKey(email)
			return lockstep.Restriction{
				ID: lockstep.RestrictionID(account, scope, object, key), Account: account, Scope: scope, Object: object, Key: key, Email: email, Ref: record, Contact: "17",
				Reason: lockstep.Complained, System: lockstep.ConsentPlatform, Origin: "other", Actor: "ada", Evidence: "said so", At: day, Seen: day,
				Entry: lockstep.ID{5}, Told: map[string]time.Time{"crm": day}, Pending: pending,
			}
		}
		var all []lockstep.Restriction
		for i := range 5 {
			all = append(all, restriction(a.ID, lockstep.ScopeAccount, "", fmt.Sprintf("p%d@example.com", i), i%2 == 0))
		}
		all = append(all, restriction(a.ID, lockstep.ScopeList, "l1", "p0@example.com", false), restriction("other", lockstep.ScopeAccount, "", "p0@example.com", true))
		ok(t, s.AppendConsent(ctx, nil, append(all, all[1]), nil))
		since := func(stamp int64) (got []lockstep.Restriction) {
			ok(t, s.RestrictedSince(ctx, a.ID, stamp, func(r lockstep.Restriction) error { got = append(got, r); return nil }))
			return got
		}
		got := since(0)
		if len(got) != 6 {
			t.Fatalf("%d restrictions", len(got))
		}
		for _, r := range got {
			for _, w := range all {
				if w.ID == r.ID {
					w.Stamp = r.Stamp
					equal(t, r, w)
				}
			}
		}
		last := got[5].Stamp
		changed := all[3]
		changed.Pending, changed.Asked, changed.Told = false, day, nil
		ok(t, s.AppendConsent(ctx, nil, []lockstep.Restriction{changed}, nil))
		if got = since(last); len(got) != 1 || got[0].ID != changed.ID || !got[0].Asked.Equal(day) || got[0].Stamp <= last {
			t.Fatalf("%+v", got)
		}
		two, err := s.Restrictions(ctx, a.ID, []lockstep.AddressKey{all[0].Key, all[4].Key, all[0].Key, {1}})
		ok(t, err)
		if len(two) != 3 {
			t.Fatalf("%d restrictions of two addresses, one of which has two", len(two))
		}
		var pending []lockstep.Restriction
		for after := (lockstep.ID{}); ; after = pending[len(pending)-1].ID {
			page, err := s.PendingRestrictions(ctx, a.ID, after, 2)
			ok(t, err)
			if len(page) == 0 {
				break
			}
			pending = append(pending, page...)
		}
		if len(pending) != 3 {
			t.Fatalf("%d are pending", len(pending))
		}
		for _, c := range []struct {
			f    RestrictionFilter
			want int
		}{
			{RestrictionFilter{}, 7},
			{RestrictionFilter{Account: a.ID}, 6},
			{RestrictionFilter{Key: s.AddressKey("P0@example.com")}, 3},
			{RestrictionFilter{State: RestrictionPending}, 4},
			{RestrictionFilter{Account: a.ID, State: RestrictionTold}, 3},
			{RestrictionFilter{State: RestrictionAsked}, 1},
			{RestrictionFilter{Limit: 2}, 2},
		} {
			got, err := s.ListRestrictions(ctx, c.f)
			if err != nil || len(got) != c.want {
				t.Errorf("%+v: %d, %v; want %d", c.f, len(got), err, c.want)
			}
		}
		_, err = s.ListRestrictions(ctx, RestrictionFilter{State: "gone"})
		wantCode(t, err, lockstep.CodeInvalid)
		ok(t, s.AppendConsent(ctx, nil, nil, []lockstep.ID{all[2].ID, {77}}))
		_, err = s.Restriction(ctx, all[2].ID)
		wantCode(t, err, lockstep.CodeNotFound)
		one, err := s.Restriction(ctx, all[1].ID)
		ok(t, err)
		if one.Email != "p1@example.com" {
			t.Fatalf("%+v", one)
		}
	})
}

// Keys are the same in every process of an installation and differ between two.
func TestAddressKeys(t *testing.T) {
	engines(t, func(t *testing.T, o Options) {
		s := mustOpen(t, o)
		key := s.AddressKey("ada@example.com")
		if key != s.AddressKey(" ADA@Example.COM\t") || key == s.AddressKey("ada@example.org") || key == (lockstep.AddressKey{}) || s.AddressKey("  ") != (lockstep.AddressKey{}) {
			t.Fatal("keys do not follow normalised addresses")
		}
		if o.URL != "" { // another process
			if mustOpen(t, o).AddressKey("ada@example.com") != key {
				t.Fatal("two processes make different keys")
			}
		}
		ok(t, s.Close())
		if mustOpen(t, o).AddressKey("ada@example.com") != key {
			t.Fatal("the keys changed with a restart")
		}
	})
	one := mustOpen(t, Options{Path: t.TempDir(), Sealer: ring(t, "0123456789abcdef0123456789abcdef")})
	two := mustOpen(t, Options{Path: t.TempDir(), Sealer: ring(t, "0123456789abcdef0123456789abcdef")})
	if one.AddressKey("a@b.c") == two.AddressKey("a@b.c") {
		t.Error("two installations share a salt")
	}
}

func ring(t *testing.T, key string) *secret.Keyring {
	t.Helper()
	k, err := secret.NewKeyring([]byte(key))
	ok(t, err)
	return k
}

// Without the key of the installation nothing that concerns consent answers: no answer
// would be mistaken for "not restricted".
func TestLostKey(t *testing.T) {
	ctx := context.Background()
	folder := t.TempDir()
	s := mustOpen(t, Options{Path: folder, Sealer: ring(t, "0123456789abcdef0123456789abcdef")})
	ok(t, s.AppendConsent(ctx, []lockstep.ConsentEntry{optOut("a", "ada@example.com")}, nil, nil))
	ok(t, s.Close())
	for name, o := range map[string]Options{"another key": {Path: folder, Sealer: ring(t, "another-another-another-another-")}, "no key": {Path: folder}} {
		t.Run(name, func(t *testing.T) {
			s, err := Open(ctx, o)
			ok(t, err)
			defer s.Close()
			if s.AddressKey("ada@example.com") != (lockstep.AddressKey{}) {
				t.Error("a key is made without its salt")
			}
			_, of := s.ConsentOf(ctx, lockstep.AddressKey{}, 0, 0)
			_, restrictions := s.Restrictions(ctx, "a", []lockstep.AddressKey{{}})
			_, pending := s.PendingRestrictions(ctx, "a", lockstep.ID{}, 0)
			_, listed := s.ListRestrictions(ctx, RestrictionFilter{})
			_, erased := s.EraseAddress(ctx, "ada@example.com", "x", false)
			since := s.RestrictedSince(ctx, "a", 0, func(lockstep.Restriction) error { return nil })
			appended := s.AppendConsent(ctx, []lockstep.ConsentEntry{optOut("a", "bob@example.com")}, nil, nil)
			for i, err := range []error{of, restrictions, pending, listed, erased, since, appended} {
				if err == nil {
					t.Errorf("call %d answers", i)
				}
			}
			if r := whole(t, s); r.Entries != 1 { // this needs no key
				t.Errorf("%+v", r)
			}
		})
	}
}

// Several writers, in and outside of runs, make one unbroken chain.
func TestWritersMakeOneChain(t *testing.T) {
	ctx := context.Background()
	engines(t, func(t *testing.T, o Options) {
		stores := []*Store{mustOpen(t, o)}
		if o.URL != "" {
			stores = append(stores, mustOpen(t, o), mustOpen(t, o))
		}
		org := account(t, stores[0]).Organization
		const writers, rounds = 6, 12
		var wg sync.WaitGroup
		for w := range writers {
			s := stores[w%len(stores)]
			a, err := s.SaveAccount(ctx, lockstep.EmailAccount{Organization: org, Name: fmt.Sprint("writer ", w)})
			ok(t, err)
			rctx, run := started(t, s, a.ID)
			wg.Go(func() {
				for i := range rounds {
					// Half of what each says is said by all.
					entries := []lockstep.ConsentEntry{optOut("all", fmt.Sprintf("all%d@example.com", i)), optOut(a.ID, fmt.Sprintf("own%d@example.com", i))}
					restrictions := []lockstep.Restriction{{Account: "all", Scope: lockstep.ScopeAccount, Email: fmt.Sprintf("all%d@example.com", i)}}
					var err error
					if i%2 == 0 {
						err = s.Commit(rctx, lockstep.Commit{Run: run.ID, Account: a.ID, Consent: entries, Restrictions: restrictions})
					} else {
						err = s.AppendConsent(ctx, entries, restrictions, nil)
					}
					if err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
		if r := whole(t, stores[0]); r.Entries != rounds+writers*rounds {
			t.Fatalf("%d entries, want %d", r.Entries, rounds+writers*rounds)
		}
		n := 0
		var last int64
		ok(t, stores[0].RestrictedSince(ctx, "all", 0, func(r lockstep.Restriction) error {
			if r.Stamp <= last {
				t.Errorf("stamp %d after %d", r.Stamp, last)
			}
			last = r.Stamp
			n++
			return nil
		}))
		if n != rounds {
			t.Fatalf("%d restrictions, want %d", n, rounds)
		}
	})
}

// An erased person's values are gone, the chain holds, the address stays restricted,
// and what is said of it later is kept without values.
func TestEraseConsent(t *testing.T) {
	ctx := context.Background()
	engines(t, func(t *testing.T, o Options) {
		s := mustOpen(t, o)
		a := account(t, s)
		b, err := s.SaveAccount(ctx, lockstep.EmailAccount{Organization: a.Organization, Name: "Contoso US"})
		ok(t, err)
		out := optOut(a.ID, "canary@example.com")
		out.Actor, out.Evidence, out.Contact = "canary actor", "canary evidence", "777canary"
		out.Ref = lockstep.Ref{Table: "canarytable", ID: lockstep.ID{0xca}}
		restriction := lockstep.Restriction{Account: a.ID, Scope: lockstep.ScopeAccount, Email: out.Email, Ref: out.Ref, Contact: out.Contact, Actor: out.Actor, Evidence: out.Evidence, Pending: true}
		ok(t, s.AppendConsent(ctx, []lockstep.ConsentEntry{out, optOut(a.ID, "bob@example.com")}, []lockstep.Restriction{restriction}, nil))
		key := s.AddressKey(out.Email)

		_, err = s.EraseAddress(ctx, out.Email, "admin", false)
		wantCode(t, err, lockstep.CodeConflict)
		_, err = s.EraseAddress(ctx, " ", "admin", false)
		wantCode(t, err, lockstep.CodeInvalid)
		done, err := s.EraseAddress(ctx, out.Email, "admin", true)
		ok(t, err)
		if done.Entries != 1 || done.Restrictions != 1 {
			t.Fatalf("%+v", done)
		}
		later := out
		later.At = later.At.Add(time.Hour)
		ok(t, s.AppendConsent(ctx, []lockstep.ConsentEntry{later}, []lockstep.Restriction{restriction}, nil))
		_, err = s.EraseAddress(ctx, out.Email, "admin", false)
		ok(t, err)

		for table, rows := range dump(t, s) {
			for _, row := range rows {
				if strings.Contains(row, "canary") {
					t.Errorf("%s still has %s", table, row)
				}
			}
		}
		if r := whole(t, s); r.Entries != 5 || r.Erased != 2 {
			t.Fatalf("%+v", r)
		}
		entries, err := s.ConsentOf(ctx, key, 0, 0)
		ok(t, err)
		if len(entries) != 4 || entries[1].Act != lockstep.ActErased || entries[1].Actor != "admin" || entries[0].Email != "" || entries[2].Actor != "" {
			t.Fatalf("%+v", entries)
		}
		for _, account := range []string{a.ID, b.ID} {
			got, err := s.Restrictions(ctx, account, []lockstep.AddressKey{key})
			ok(t, err)
			if len(got) != 1 || got[0].Scope != lockstep.ScopeAccount || got[0].Pending || got[0].Email != "" {
				t.Fatalf("%+v", got)
			}
		}
		if bob, err := s.ConsentOf(ctx, s.AddressKey("bob@example.com"), 0, 0); err != nil || bob[0].Email == "" {
			t.Fatal("another person was erased too", err)
		}

		// Back by their own wish, a person is one like all others.
		for _, account := range []string{a.ID, b.ID} {
			ok(t, s.AppendConsent(ctx, nil, nil, []lockstep.ID{lockstep.RestrictionID(account, lockstep.ScopeAccount, "", key)}))
		}
		later.At = later.At.Add(time.Hour)
		ok(t, s.AppendConsent(ctx, []lockstep.ConsentEntry{later}, nil, nil))
		entries, err = s.ConsentOf(ctx, key, 4, 0)
		ok(t, err)
		if len(entries) == 0 || entries[len(entries)-1].Email != "canary@example.com" {
			t.Fatalf("%+v", entries)
		}
		whole(t, s)
	})
}

// What a run does with a restriction that it had read loses to what somebody said about
// it meanwhile; what is said outside of a run always counts.
func TestRestrictionsThatChangedMeanwhile(t *testing.T) {
	engines(t, func(t *testing.T, o Options) {
		s := mustOpen(t, o)
		a := account(t, s)
		ctx, run := started(t, s, a.ID)
		read := func() lockstep.Restriction {
			t.Helper()
			rs, err := s.Restrictions(ctx, a.ID, []lockstep.AddressKey{s.AddressKey("ada@example.com")})
			ok(t, err)
			if len(rs) != 1 {
				t.Fatalf("%d restrictions stand", len(rs))
			}
			return rs[0]
		}
		commit := func(c lockstep.Commit) {
			t.Helper()
			c.Run, c.Account = run.ID, a.ID
			ok(t, s.Commit(ctx, c))
		}
		r := lockstep.Restriction{Account: a.ID, Scope: lockstep.ScopeAccount, Email: "ada@example.com", Reason: lockstep.Unsubscribed, At: day, Seen: day, Pending: true}
		commit(lockstep.Commit{Restrictions: []lockstep.Restriction{r}})
		old := read()
		r.Reason = lockstep.Complained
		commit(lockstep.Commit{Restrictions: []lockstep.Restriction{r}})
		old.Released, old.Pending = day, false
		commit(lockstep.Commit{Restrictions: []lockstep.Restriction{old}})
		commit(lockstep.Commit{Lifted: []lockstep.Restriction{old}})
		now := read()
		if now.Reason != lockstep.Complained || !now.Released.IsZero() || !now.Pending {
			t.Errorf("a word from before it has replaced the complaint: %+v", now)
		}
		told := now
		told.Pending = false
		commit(lockstep.Commit{Restrictions: []lockstep.Restriction{told}})
		if told = read(); told.Pending {
			t.Error("what nobody else has touched was not stored")
		}
		asked := now
		asked.Asked = day
		ok(t, s.AppendConsent(ctx, nil, []lockstep.Restriction{asked}, nil))
		if got := read(); got.Asked.IsZero() {
			t.Error("what was asked outside of a run was not stored")
		}
		commit(lockstep.Commit{Lifted: []lockstep.Restriction{told}})
		told = read()
		commit(lockstep.Commit{Lifted: []lockstep.Restriction{told}})
		commit(lockstep.Commit{Restrictions: []lockstep.Restriction{told}})
		if rs, err := s.Restrictions(ctx, a.ID, []lockstep.AddressKey{told.Key}); err != nil || len(rs) != 0 {
			t.Errorf("lifted, and there again: %+v %v", rs, err)
		}
	})
}
