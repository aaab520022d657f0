// Package apptest makes a running product with a small company in it, for tests of
// what stands on the use cases: web, API, command line.
package apptest

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/app"
	"github.com/lockstep-sync/lockstep/internal/crosswalk"
	"github.com/lockstep-sync/lockstep/internal/journal"
	"github.com/lockstep-sync/lockstep/internal/store"
)

// Seeded names what the company has.
type Seeded struct {
	Organization lockstep.Organization
	Account      lockstep.EmailAccount
	// Customers is activated, Partners is not, Newsletter is dynamic and activated.
	Customers, Partners, Newsletter lockstep.ListSettings
	Label                           lockstep.DataLabel // VISITS, mapped
	Mapping                         lockstep.DataMapping
	// Completed has Changes changes and Findings findings, and a conflict that waits.
	Completed, Previewed, Failed lockstep.Run
	Conflict                     lockstep.Conflict
	// Email belongs to a linked contact of Customers.
	Email string
}

// How much the completed run of the company did.
const (
	Changes  = 230
	Findings = 3
)

// Open returns a product without workers, on a temporary SQLite store that holds
// the company. It is closed with the test.
func Open(t testing.TB, cfg app.Config) (*app.App, Seeded) {
	t.Helper()
	if cfg.DataDir == "" {
		cfg.DataDir = t.TempDir()
	}
	company, err := seed(t.Context(), cfg.DataDir)
	if err != nil {
		t.Fatalf("seed the store: %v", err)
	}
	a, err := app.Open(t.Context(), cfg)
	if err != nil {
		t.Fatalf("open the product: %v", err)
	}
	t.Cleanup(func() {
		if a.Ready(context.Background()) != nil {
			return // the test closed it
		}
		if err := a.Close(context.Background()); err != nil {
			t.Errorf("close the product: %v", err)
		}
	})
	return a, company
}

func seed(ctx context.Context, dir string) (c Seeded, err error) {
	s, err := store.Open(ctx, store.Options{Path: dir})
	if err != nil {
		return c, err
	}
	defer func() {
		if cerr := s.Close(); err == nil {
			err = cerr
		}
	}()
	c.Email = "ada@example.com"
	if err := seedConnections(ctx, s, &c); err != nil {
		return c, err
	}
	if err := seedRuns(ctx, s, &c); err != nil {
		return c, err
	}
	conflicts, err := s.Conflicts(ctx, store.ConflictFilter{})
	if err == nil && len(conflicts) == 1 {
		c.Conflict = conflicts[0]
	}
	return c, err
}

func id(n int) lockstep.ID {
	return lockstep.NameID(lockstep.ID{}, fmt.Sprint("record ", n))
}

func seedConnections(ctx context.Context, s *store.Store, c *Seeded) error {
	var err error
	if c.Organization, err = s.SaveOrganization(ctx, lockstep.Organization{
		Name: "Contoso", Adapter: "dynamics", Settings: map[string]string{"url": "https://contoso.crm4.dynamics.com"},
		Identity: lockstep.OrganizationIdentity{ID: id(900).String(), Name: "Contoso Ltd", URL: "https://contoso.crm4.dynamics.com", Version: "9.2.24", UserID: id(901).String()},
	}); err != nil {
		return err
	}
	if c.Account, err = s.SaveAccount(ctx, lockstep.EmailAccount{
		Organization: c.Organization.ID, Name: "Contoso mailings", Adapter: "dotdigital", Settings: map[string]string{},
		Identity: lockstep.AccountIdentity{ID: "1337", Name: "Contoso mailings", Endpoint: "https://r1-api.dotdigital.com"}, Default: true,
		Priority: lockstep.DefaultPriority, CreateCap: lockstep.DefaultCreateCap,
	}); err != nil {
		return err
	}
	list := func(n int, name, table string, l lockstep.ListSettings) lockstep.ListSettings {
		l.Account, l.CRMID, l.Name, l.MemberTable, l.SyncOrder = c.Account.ID, id(n), name, table, n
		l.SubscriptionFilter = lockstep.FilterAnyOptOut
		if l.MembershipAction == "" {
			l.MembershipAction = lockstep.ActionIgnore
		}
		return l
	}
	lists, err := s.SaveLists(ctx,
		list(1001, "Customers <EMEA>", "contact", lockstep.ListSettings{Activated: true, Book: "42"}),
		list(1002, "Partners", "account", lockstep.ListSettings{}),
		list(1003, "Newsletter", "lead", lockstep.ListSettings{Activated: true, Dynamic: true, Book: "43", MembershipAction: lockstep.ActionRemove}))
	if err != nil {
		return err
	}
	c.Customers, c.Partners, c.Newsletter = lists[0], lists[1], lists[2]
	err = s.SaveTables(ctx, c.Organization.ID, []lockstep.Table{{Name: "contact", DisplayName: "Contact", PrimaryName: "fullname", ChangeTracked: true, Columns: []lockstep.Column{
		{Table: "contact", Name: "firstname", DisplayName: "First name", Type: lockstep.ColumnText, MaxLength: 50, Readable: true, Creatable: true, Updatable: true},
		{Table: "contact", Name: "lastname", DisplayName: "Last name", Type: lockstep.ColumnText, MaxLength: 50, Readable: true, Creatable: true, Updatable: true},
		{Table: "contact", Name: "numberofvisits", DisplayName: "Visits", Type: lockstep.ColumnWhole, Readable: true, Creatable: true, Updatable: true},
		{Table: "contact", Name: "gendercode", DisplayName: "Gender", Type: lockstep.ColumnOption, Options: []lockstep.Option{{Value: 1, Label: "Male"}, {Value: 2, Label: "Female"}}, Readable: true},
	}}})
	if err != nil {
		return err
	}
	for name, kind := range map[string]lockstep.FieldType{"FIRSTNAME": lockstep.FieldText, "LASTNAME": lockstep.FieldText, "VISITS": lockstep.FieldNumber} {
		l, err := s.SaveLabel(ctx, lockstep.DataLabel{Account: c.Account.ID, Name: name, Type: kind, Synced: true})
		if err != nil {
			return err
		}
		if name == "VISITS" {
			c.Label = l
		}
	}
	c.Mapping, err = s.SaveMapping(ctx, lockstep.DataMapping{
		Account: c.Account.ID, Label: "VISITS", Table: "contact", Direction: lockstep.ToPlatform, Column: "numberofvisits",
		Winner: lockstep.WinnerNewest, Empty: lockstep.EmptyClear,
	})
	return err
}

func seedRuns(ctx context.Context, s *store.Store, c *Seeded) error {
	run := func(r lockstep.Run, end lockstep.RunStatus, work func(context.Context, lockstep.Run) error) (lockstep.Run, error) {
		r.Account = c.Account.ID
		r, err := s.CreateRun(ctx, r)
		if err != nil {
			return r, err
		}
		ctx, r, err := s.StartRun(ctx, r.ID)
		if err != nil {
			return r, err
		}
		if err := work(ctx, r); err != nil {
			return r, err
		}
		message, hint := "", ""
		if end == lockstep.RunFailed {
			message, hint = "the platform did not answer", "check its status page and start the run again"
		}
		return s.EndRun(ctx, r.ID, end, message, hint)
	}
	var err error
	if c.Failed, err = run(lockstep.Run{Type: lockstep.SyncDataLabels}, lockstep.RunFailed, func(context.Context, lockstep.Run) error { return nil }); err != nil {
		return err
	}
	if c.Completed, err = run(lockstep.Run{Type: lockstep.SyncMarketingLists, List: c.Customers.ID}, lockstep.RunCompletedWithErrors, func(ctx context.Context, r lockstep.Run) error {
		return work(ctx, s, c, r, Changes)
	}); err != nil {
		return err
	}
	c.Previewed, err = run(lockstep.Run{Type: lockstep.SyncMarketingLists, Mode: lockstep.ModePreview}, lockstep.RunPreviewed, func(ctx context.Context, r lockstep.Run) error {
		_, err := s.Plan(ctx, lockstep.Batch{Run: r.ID, Account: c.Account.ID, Kind: lockstep.WriteContact, Rows: 1, Payload: journal.Encode([]lockstep.Change{change(c, 0, lockstep.Planned)})})
		return err
	})
	return err
}

func change(c *Seeded, n int, state lockstep.ChangeState) lockstep.Change {
	ch := lockstep.Change{
		Kind: lockstep.WriteContact, State: state, Ref: lockstep.Ref{Table: "contact", ID: id(n)}, Contact: lockstep.ContactID(fmt.Sprint(5000 + n)),
		Email: fmt.Sprintf("person%d@example.com", n), Books: []lockstep.BookID{"42"}, Why: "changed in the CRM",
		Fields: []lockstep.FieldChange{{Name: "FIRSTNAME", Old: lockstep.TextValue("Bob"), New: lockstep.TextValue(fmt.Sprintf("Robert %d", n))}, {Name: "VISITS", New: lockstep.CanonicalValue(lockstep.Number, fmt.Sprint(n))}},
	}
	if n == 0 {
		ch.Email = c.Email
	}
	if state == lockstep.Refused {
		ch.Cause = "the platform refused the address"
	}
	return ch
}

// work journals changes in batches of 100 and stores their outcome.
func work(ctx context.Context, s *store.Store, c *Seeded, r lockstep.Run, total int) error {
	commit := lockstep.Commit{
		Run: r.ID, Account: c.Account.ID, Calls: lockstep.Calls{CRM: 12, Platform: 7, Polls: 4},
		Counts: lockstep.Counts{Read: 5000, Written: int64(total), Equal: 4767 - int64(total) + 230, Rejected: Findings, ContactsCreated: 30, ContactsUpdated: int64(total) - 30, BookAdds: 30, Findings: Findings},
	}
	members, links := crosswalk.NewMemberBatch(), crosswalk.NewBatch([]string{"FIRSTNAME"})
	for from := 0; from < total; from += 100 {
		var changes []lockstep.Change
		for n := from; n < min(from+100, total); n++ {
			state := lockstep.Acknowledged
			if n%77 == 76 {
				state = lockstep.Refused
			}
			changes = append(changes, change(c, n, state))
			members.Append(crosswalk.Member{Record: id(n), Contact: changes[len(changes)-1].Contact, InList: true, InBook: true})
			links.Append(crosswalk.Entry{
				Ref: changes[len(changes)-1].Ref, Contact: changes[len(changes)-1].Contact, Email: changes[len(changes)-1].Email,
				Standing: lockstep.Subscribed, Master: true, Base: []lockstep.Value{lockstep.TextValue("Robert")},
			})
		}
		batch, err := s.Plan(ctx, lockstep.Batch{Run: r.ID, Account: c.Account.ID, Kind: lockstep.WriteContact, Rows: len(changes), Payload: journal.Encode(changes)})
		if err != nil {
			return err
		}
		if err := s.MarkSent(ctx, batch, "job"); err != nil {
			return err
		}
		commit.Batches = append(commit.Batches, lockstep.BatchEnd{ID: batch, State: lockstep.Acknowledged})
	}
	commit.Members = []lockstep.MemberBlob{{List: c.Customers.ID, Payload: members.Bytes()}}
	commit.Links = [][]byte{links.Bytes()}
	for n := range Findings {
		commit.Findings = append(commit.Findings, lockstep.Finding{
			ID:   fmt.Sprintf("finding-%d", n), // of the first of them the record waits for another attempt
			Code: lockstep.FindingRejected, Table: "contact", Record: id(n), List: c.Customers.ID, Field: "emailaddress1",
			Message: "the platform refused the address", Hint: "correct it in the CRM",
		})
	}
	at := time.Date(2026, 11, 20, 8, 30, 0, 0, time.UTC)
	commit.Retries = []lockstep.Retry{{Ref: lockstep.Ref{Table: "contact", ID: id(0)}, Finding: "finding-0", Attempts: 3, Next: at.Add(20 * time.Minute)}}
	commit.Conflicts = []lockstep.Conflict{{
		Ref: lockstep.Ref{Table: "contact", ID: id(0)}, Contact: "5000", Label: "FIRSTNAME", Column: "firstname",
		Base: lockstep.TextValue("Bob"), CRM: lockstep.TextValue("Robert"), Platform: lockstep.TextValue("Bobby"), CRMAt: at, PlatformAt: at.Add(3 * time.Hour), Policy: lockstep.WinnerHold, Winner: "held",
	}}
	return s.Commit(ctx, commit)
}
