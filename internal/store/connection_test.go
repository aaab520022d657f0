//go:build unix

package store

import (
	"context"
	"strings"
	"sync"
	"testing"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/secret"
)

func TestConnections(t *testing.T) {
	ctx := context.Background()
	engines(t, func(t *testing.T, o Options) {
		s := mustOpen(t, o)
		org, err := s.SaveOrganization(ctx, lockstep.Organization{
			Name: "Fabrikam", Adapter: "dynamics", Settings: map[string]string{"url": "https://x.crm4.dynamics.com"},
			Identity: lockstep.OrganizationIdentity{ID: "1", Name: "org"},
		})
		ok(t, err)
		org.Name = "Contoso"
		_, err = s.SaveOrganization(ctx, org)
		ok(t, err)
		second, err := s.SaveOrganization(ctx, lockstep.Organization{ID: "z", Name: "Adventure Works"})
		ok(t, err)
		got, err := s.Organization(ctx, org.ID)
		ok(t, err)
		equal(t, got, org)
		all, err := s.Organizations(ctx)
		ok(t, err)
		equal(t, all, []lockstep.Organization{second, org})
		_, err = s.Organization(ctx, "none")
		wantCode(t, err, lockstep.CodeNotFound)

		_, err = s.SaveAccount(ctx, lockstep.EmailAccount{Organization: "none"})
		wantCode(t, err, lockstep.CodeNotFound)
		first, err := s.SaveAccount(ctx, lockstep.EmailAccount{Organization: org.ID, Name: "b", Priority: lockstep.DefaultPriority, CreateCap: 3})
		ok(t, err)
		if !first.Default {
			t.Fatal("the first account is not the default")
		}
		other, err := s.SaveAccount(ctx, lockstep.EmailAccount{Organization: org.ID, Name: "a", Default: true, Locked: "copy"})
		ok(t, err)
		first, err = s.Account(ctx, first.ID)
		ok(t, err)
		if first.Default || !other.Default {
			t.Fatalf("default: %v, %v", first.Default, other.Default)
		}
		other.Default = false // an organization is never without a default
		other, err = s.SaveAccount(ctx, other)
		ok(t, err)
		if !other.Default {
			t.Fatal("no account is the default")
		}
		elsewhere, err := s.SaveAccount(ctx, lockstep.EmailAccount{Organization: second.ID, Name: "c"})
		ok(t, err)
		accounts, err := s.Accounts(ctx, org.ID)
		ok(t, err)
		equal(t, accounts, []lockstep.EmailAccount{other, first})
		accounts, err = s.Accounts(ctx, "")
		ok(t, err)
		equal(t, accounts, []lockstep.EmailAccount{other, first, elsewhere})
		elsewhere.Organization = org.ID
		_, err = s.SaveAccount(ctx, elsewhere)
		wantCode(t, err, lockstep.CodeConflict)
		_, err = s.Account(ctx, "none")
		wantCode(t, err, lockstep.CodeNotFound)

		// Two accounts made the default at once leave one default.
		var wg sync.WaitGroup
		for range 4 {
			for _, a := range []lockstep.EmailAccount{first, other} {
				wg.Go(func() {
					a.Default = true
					if _, err := s.SaveAccount(ctx, a); err != nil {
						t.Error(err)
					}
				})
			}
		}
		wg.Wait()
		accounts, err = s.Accounts(ctx, org.ID)
		ok(t, err)
		if accounts[0].Default == accounts[1].Default {
			t.Fatalf("not exactly one default: %+v", accounts)
		}
	})
}

func TestSecrets(t *testing.T) {
	ctx := context.Background()
	engines(t, func(t *testing.T, o Options) {
		s := mustOpen(t, o)
		owner := AccountSecrets("a1")
		ok(t, s.SetSecrets(ctx, owner, map[string]string{"password": "hunter2", "token": "t", "old": "x"}))
		ok(t, s.SetSecrets(ctx, owner, map[string]string{"password": "hunter3", "old": ""}))
		ok(t, s.SetSecrets(ctx, OrganizationSecrets("a1"), map[string]string{"password": "other"}))
		got, err := s.Secrets(ctx, owner)
		ok(t, err)
		equal(t, got, map[string]string{"password": "hunter3", "token": "t"})
		for _, row := range dump(t, s)["secrets"] {
			if strings.Contains(row, "hunter") {
				t.Fatal("a secret is stored in the clear")
			}
		}

		// A second key: everything is sealed again, once.
		newest, err := secret.NewKeyring([]byte("new-new-new-new-new-new-new-new-"), []byte("0123456789abcdef0123456789abcdef"))
		ok(t, err)
		ok(t, s.Close())
		o.Sealer = newest
		s = mustOpen(t, o)
		for _, want := range []int{4, 0} { // the salt of address keys is one more
			if n, err := s.Reseal(ctx); err != nil || n != want {
				t.Fatalf("Reseal = %d, %v; want %d", n, err, want)
			}
		}
		got, err = s.Secrets(ctx, owner)
		ok(t, err)
		equal(t, got, map[string]string{"password": "hunter3", "token": "t"})

		// A value moved to another row does not open.
		ok(t, s.InTx(ctx, func(tx Tx) error {
			_, err := tx.Exec(ctx, `UPDATE secrets SET owner = $1 WHERE owner_table = $2`, "a2", "organizations")
			return err
		}))
		_, err = s.Secrets(ctx, OrganizationSecrets("a2"))
		wantCode(t, err, lockstep.CodeInvalid)

		ok(t, s.Close())
		o.Sealer = nil
		s = mustOpen(t, o)
		_, err = s.Secrets(ctx, owner)
		wantCode(t, err, lockstep.CodeInternal)
		wantCode(t, s.SetSecrets(ctx, owner, nil), lockstep.CodeInternal)
	})
}

func TestTables(t *testing.T) {
	ctx := context.Background()
	engines(t, func(t *testing.T, o Options) {
		s := mustOpen(t, o)
		a := account(t, s)
		tables := []lockstep.Table{
			{Name: "account", DisplayName: "Account"},
			{Name: "contact", DisplayName: "Contact", PrimaryName: "fullname", ChangeTracked: true, Columns: []lockstep.Column{
				{Table: "contact", Name: "gendercode", Type: lockstep.ColumnOption, Options: []lockstep.Option{{Value: 1, Label: "männlich\x00"}}, Readable: true},
			}},
		}
		ok(t, s.SaveTables(ctx, a.Organization, []lockstep.Table{{Name: "lead"}}))
		ok(t, s.SaveTables(ctx, a.Organization, tables))
		got, err := s.Tables(ctx, a.Organization)
		ok(t, err)
		equal(t, got, tables)
		wantCode(t, s.SaveTables(ctx, a.Organization, append(tables, tables[0])), lockstep.CodeInvalid)
		wantCode(t, s.SaveTables(ctx, "none", tables), lockstep.CodeNotFound)
	})
}

func TestLists(t *testing.T) {
	ctx := context.Background()
	engines(t, func(t *testing.T, o Options) {
		s := mustOpen(t, o)
		a := account(t, s)
		one := lockstep.ListSettings{
			Account: a.ID, CRMID: lockstep.ID{1}, Name: "VIP", MemberTable: "contact", MembershipAction: lockstep.ActionRemove,
			SubscriptionFilter: lockstep.FilterOptInAtLeast, MinOptIn: lockstep.OptInDouble, SyncOrder: 2, Activated: true, MirrorRemovals: true,
		}
		two := lockstep.ListSettings{Account: a.ID, CRMID: lockstep.ID{2}, Name: "All", SyncOrder: 1}
		saved, err := s.SaveLists(ctx, one, two)
		ok(t, err)
		one, two = saved[0], saved[1]
		if one.ID == "" || one.ID == two.ID {
			t.Fatalf("ids %q and %q", one.ID, two.ID)
		}
		again := one
		again.ID, again.Name, again.SyncOrder = "", "VIP 2", 0
		saved, err = s.SaveLists(ctx, again)
		ok(t, err)
		again.ID = one.ID // the same list keeps its id
		equal(t, saved, []lockstep.ListSettings{again})
		lists, err := s.Lists(ctx, a.ID)
		ok(t, err)
		equal(t, lists, []lockstep.ListSettings{again, two})
		got, err := s.List(ctx, two.ID)
		ok(t, err)
		equal(t, got, two)
		_, err = s.SaveLists(ctx, lockstep.ListSettings{Account: a.ID})
		wantCode(t, err, lockstep.CodeInvalid)
		_, err = s.SaveLists(ctx, lockstep.ListSettings{Account: "none", CRMID: lockstep.ID{1}})
		wantCode(t, err, lockstep.CodeNotFound)
		ok(t, s.DeleteList(ctx, two.ID))
		wantCode(t, s.DeleteList(ctx, two.ID), lockstep.CodeNotFound)
		_, err = s.List(ctx, two.ID)
		wantCode(t, err, lockstep.CodeNotFound)
	})
}

func TestMappings(t *testing.T) {
	ctx := context.Background()
	engines(t, func(t *testing.T, o Options) {
		s := mustOpen(t, o)
		a := account(t, s)
		label, err := s.SaveLabel(ctx, lockstep.DataLabel{Account: a.ID, Name: "FIRSTNAME", Type: lockstep.FieldText, Synced: true})
		ok(t, err)
		_, err = s.SaveLabel(ctx, lockstep.DataLabel{Account: a.ID, Name: "FirstName"})
		wantCode(t, err, lockstep.CodeConflict)
		city, err := s.SaveLabel(ctx, lockstep.DataLabel{Account: a.ID, Name: "CITY"})
		ok(t, err)
		label.Description = "given name"
		_, err = s.SaveLabel(ctx, label)
		ok(t, err)
		labels, err := s.Labels(ctx, a.ID)
		ok(t, err)
		equal(t, labels, []lockstep.DataLabel{city, label})
		_, err = s.SaveLabel(ctx, lockstep.DataLabel{Account: a.ID})
		wantCode(t, err, lockstep.CodeInvalid)

		m, err := s.SaveMapping(ctx, lockstep.DataMapping{
			Account: a.ID, Label: "FIRSTNAME", Table: "contact", Direction: lockstep.ToPlatform, Column: "firstname",
			Winner: lockstep.WinnerNewest, Empty: lockstep.EmptyClear,
		})
		ok(t, err)
		back := m
		back.ID, back.Direction = "", lockstep.ToCRM
		back, err = s.SaveMapping(ctx, back)
		ok(t, err)
		twice := m
		twice.ID, twice.Label = "", "firstname"
		_, err = s.SaveMapping(ctx, twice)
		wantCode(t, err, lockstep.CodeConflict)
		m.Column = "nickname"
		_, err = s.SaveMapping(ctx, m)
		ok(t, err)
		mappings, err := s.Mappings(ctx, a.ID)
		ok(t, err)
		equal(t, mappings, []lockstep.DataMapping{back, m})

		wantCode(t, s.DeleteLabel(ctx, label.ID), lockstep.CodeConflict)
		ok(t, s.DeleteMapping(ctx, m.ID))
		wantCode(t, s.DeleteMapping(ctx, m.ID), lockstep.CodeNotFound)
		ok(t, s.DeleteMapping(ctx, back.ID))
		ok(t, s.DeleteLabel(ctx, label.ID))
		wantCode(t, s.DeleteLabel(ctx, label.ID), lockstep.CodeNotFound)

		// Rows cannot move to another account by their id.
		other := account(t, s)
		city.Account = other.ID
		_, err = s.SaveLabel(ctx, city)
		wantCode(t, err, lockstep.CodeConflict)
	})
}

// What is forgotten leaves nothing behind in any table, and what is still in use is
// not forgotten.
func TestDisconnect(t *testing.T) {
	engines(t, func(t *testing.T, o Options) {
		ctx := context.Background()
		s := mustOpen(t, o)
		org, err := s.SaveOrganization(ctx, lockstep.Organization{Name: "Contoso"})
		ok(t, err)
		empty := dump(t, s)
		var accounts [2]lockstep.EmailAccount
		for i, name := range []string{"a", "b"} {
			accounts[i], err = s.SaveAccount(ctx, lockstep.EmailAccount{Organization: org.ID, Name: name})
			ok(t, err)
		}
		one := accounts[0]
		wantCode(t, s.DeleteOrganization(ctx, org.ID), lockstep.CodeConflict)
		ok(t, s.SetSecrets(ctx, AccountSecrets(one.ID), map[string]string{"password": "hush"}))
		lists, err := s.SaveLists(ctx, lockstep.ListSettings{Account: one.ID, CRMID: lockstep.NewID(s.now()), Name: "L", MemberTable: "contact"})
		ok(t, err)
		_, err = s.SaveLabel(ctx, lockstep.DataLabel{Account: one.ID, Name: "CITY", Type: lockstep.FieldText})
		ok(t, err)
		_, err = s.SaveMapping(ctx, lockstep.DataMapping{Account: one.ID, Label: "CITY", Table: "contact", Column: "c", Direction: lockstep.ToPlatform})
		ok(t, err)
		run, err := s.CreateRun(ctx, lockstep.Run{Account: one.ID, Type: lockstep.SyncMarketingLists})
		ok(t, err)
		wantCode(t, s.DeleteAccount(ctx, one.ID), lockstep.CodeConflict)
		turn, _, err := s.StartRun(ctx, run.ID)
		ok(t, err)
		_, err = s.Plan(turn, lockstep.Batch{Run: run.ID, Account: one.ID, Kind: lockstep.WriteContact, Payload: []byte("x"), Rows: 1})
		ok(t, err)
		ok(t, s.Stage(turn, run.ID, "kind", []StagedRow{{Key: "k", Payload: []byte("x")}}))
		ok(t, s.Commit(turn, lockstep.Commit{
			Run: run.ID, Account: one.ID, Links: [][]byte{[]byte("link")}, Members: []lockstep.MemberBlob{{List: lists[0].ID, Payload: []byte("member")}},
			Findings: []lockstep.Finding{{Code: "x"}}, Conflicts: []lockstep.Conflict{{Label: "x"}}, Cursors: map[string]lockstep.Cursor{"c": "1"},
		}))
		_, err = s.EndRun(turn, run.ID, lockstep.RunCompleted, "", "")
		ok(t, err)

		exec := func(q string) {
			t.Helper()
			ok(t, s.InTx(ctx, func(tx Tx) error { _, err := tx.Exec(ctx, q); return err }))
		}
		exec(`DELETE FROM filters`)
		exec(`INSERT INTO filters (log, blob, filter) SELECT 1, id, payload FROM journal`)
		exec(`INSERT INTO filters (log, blob, filter) SELECT 2, blob, payload FROM links WHERE part = 0`)
		exec(`INSERT INTO filters (log, blob, filter) SELECT 3, id, payload FROM members`)
		ok(t, s.InTx(ctx, func(tx Tx) error {
			_, err := tx.Exec(ctx, `INSERT INTO restrictions (id, account, address, pending, asked, stamp, doc, crc) VALUES ($1, $2, $3, $4, $5, 1, '{}', 0)`, []byte("id"), one.ID, []byte("a"), true, false)
			return err
		}))
		wantCode(t, s.DeleteAccount(ctx, one.ID), lockstep.CodeConflict)
		exec(`UPDATE restrictions SET pending = NOT pending`)

		ok(t, s.DeleteAccount(ctx, one.ID))
		wantCode(t, s.DeleteAccount(ctx, one.ID), lockstep.CodeNotFound)
		other, err := s.Account(ctx, accounts[1].ID)
		ok(t, err)
		if !other.Default {
			t.Error("no account is the default any more")
		}
		ok(t, s.DeleteAccount(ctx, other.ID))
		after := dump(t, s)
		equal(t, after, empty)
		ok(t, s.SaveTables(ctx, org.ID, []lockstep.Table{{Name: "contact"}}))
		ok(t, s.DeleteOrganization(ctx, org.ID))
		wantCode(t, s.DeleteOrganization(ctx, org.ID), lockstep.CodeNotFound)
		all, err := s.Organizations(ctx)
		ok(t, err)
		equal(t, len(all), 0)
	})
}
