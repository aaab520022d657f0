package api

import (
	"context"
	"net/http"
	"time"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/app"
)

const tagConnections = "Connections"

// connectionSettings document what settings are.
const connectionSettings = "Settings are an adapter's options by name. Secrets among them are sealed and never answered again."

type organizationCreate struct {
	Body struct {
		Name     string            `json:"name,omitempty" maxLength:"200" doc:"That of the organization itself when left out."`
		Adapter  string            `json:"adapter,omitempty" maxLength:"80" default:"dynamics"`
		Settings map[string]string `json:"settings" doc:"url, client_id, client_secret or certificate; tenant and authority are found by themselves."`
	}
}

type organizationPatch struct {
	ID   string `path:"id" maxLength:"80"`
	Body struct {
		Name     *string           `json:"name,omitempty" maxLength:"200"`
		Settings map[string]string `json:"settings,omitempty" doc:"What is left out stays, secrets too; an empty one is forgotten."`
	}
}

type accountCreate struct {
	Body struct {
		Organization string            `json:"organization,omitempty" maxLength:"200" doc:"Id or name; may be left out when there is only one."`
		Name         string            `json:"name,omitempty" maxLength:"200" doc:"That of the account itself when left out."`
		Adapter      string            `json:"adapter,omitempty" maxLength:"80" default:"dotdigital"`
		Settings     map[string]string `json:"settings" doc:"user and password; the region is found by itself."`
	}
}

type accountPatch struct {
	ID   string `path:"id" maxLength:"80"`
	Body struct {
		Name        *string           `json:"name,omitempty" maxLength:"200"`
		Description *string           `json:"description,omitempty" maxLength:"2000"`
		Settings    map[string]string `json:"settings,omitempty" doc:"What is left out stays, secrets too; an empty one is forgotten."`
		Default     *bool             `json:"default,omitempty" doc:"True makes it the organization's default account."`
		Priority    *[]string         `json:"priority,omitempty" maxItems:"10" doc:"The member tables in the order in which they speak for an address that several records share."`
		CreateCap   *int              `json:"create_cap,omitempty" doc:"The most records that one run creates in the CRM."`
		Automatic   *bool             `json:"automatic,omitempty" doc:"Whether the account's syncs run by themselves, as their schedules say. Consent too: what people chose waits while this is off."`

		BulkOptOut            *lockstep.BulkOptOut `json:"bulk_opt_out,omitempty" enum:"list_removal,suppress" doc:"What it does when a CRM user does not allow bulk email any more: the person leaves the address books, or is not mailed at all."`
		AloneWithSuppressions *bool                `json:"alone_with_suppressions,omitempty" doc:"Keeps the account out of the exchange of suppressions between the organization's accounts."`

		GuardPercent   *int       `json:"guard_percent,omitempty" doc:"A run that would remove or blank more than this share of a list's or table's known people stops before the first one."`
		GuardRows      *int       `json:"guard_rows,omitempty" doc:"The same as a number of people; the smaller of the two counts."`
		GuardFloor     *int       `json:"guard_floor,omitempty" doc:"Up to this many are always let through, so that small lists work."`
		BulkUntil      *time.Time `json:"bulk_until,omitempty" doc:"Until then, at most 7 days ahead, most of a table may change at once; a time that has passed ends it."`
		ConfirmChanges *bool      `json:"confirm_changes,omitempty" doc:"Whether changed mappings and rules of lists wait until a preview was applied."`
	}
}

type accountLock struct {
	ID   string `path:"id" maxLength:"80"`
	Body struct {
		Reason string `json:"reason" minLength:"1" maxLength:"500" doc:"What is to be checked, or was."`
		By     string `json:"by,omitempty" maxLength:"200" doc:"Who takes responsibility for unlocking; the token's name is added."`
	}
}

// wholeAccount fills in what an answer must not leave null.
func wholeAccount(a lockstep.EmailAccount, err error) (*oneOut[lockstep.EmailAccount], error) {
	if a.Settings == nil {
		a.Settings = map[string]string{}
	}
	if a.Priority == nil {
		a.Priority = []string{}
	}
	return one(a.Guarded(), err)
}

func wholeOrganization(o lockstep.Organization, err error) (*oneOut[lockstep.Organization], error) {
	if o.Settings == nil {
		o.Settings = map[string]string{}
	}
	return one(o, err)
}

func (s *server) organizations() {
	handle(s, operation("list-organizations", http.MethodGet, "/organizations", tagConnections, "The connected Dynamics organizations"),
		func(ctx context.Context, _ *struct{}) (*pageOut[lockstep.Organization], error) {
			all, err := s.app.Organizations(ctx)
			for i := range all {
				if all[i].Settings == nil {
					all[i].Settings = map[string]string{}
				}
			}
			return newPage(all, ""), err
		})
	create := operation("connect-organization", http.MethodPost, "/organizations", tagConnections, "Connect a Dynamics organization", withBody...)
	create.Description, create.DefaultStatus = connectionSettings+" They are tried before they are kept.", http.StatusCreated
	handle(s, create, func(ctx context.Context, in *organizationCreate) (*oneOut[lockstep.Organization], error) {
		b := in.Body
		return wholeOrganization(s.app.ConnectOrganization(ctx, "", b.Name, b.Adapter, b.Settings))
	})
	change := operation("change-organization", http.MethodPatch, "/organizations/{id}", tagConnections, "Change a connection to an organization", withBody...)
	change.Description = connectionSettings + " They are tried before they are kept, and refused when another organization answers."
	handle(s, change, func(ctx context.Context, in *organizationPatch) (*oneOut[lockstep.Organization], error) {
		return wholeOrganization(s.app.UpdateOrganization(ctx, in.ID, app.OrganizationPatch{Name: in.Body.Name, Settings: in.Body.Settings}))
	})
	remove := operation("disconnect-organization", http.MethodDelete, "/organizations/{id}", tagConnections, "Forget an organization that has no email accounts; nothing changes in it", http.StatusConflict)
	handle(s, remove, func(ctx context.Context, in *ByID) (*struct{}, error) {
		return nil, s.app.DeleteOrganization(ctx, in.ID)
	})
}

func (s *server) emailAccounts() {
	create := operation("connect-account", http.MethodPost, "/accounts", tagConnections, "Connect an email account", withBody...)
	create.Description = connectionSettings + " They are tried before they are kept. Provision the account next."
	create.DefaultStatus = http.StatusCreated
	handle(s, create, func(ctx context.Context, in *accountCreate) (*oneOut[lockstep.EmailAccount], error) {
		b := in.Body
		org, err := s.app.Organization(ctx, b.Organization)
		if err != nil {
			return nil, err
		}
		return wholeAccount(s.app.ConnectAccount(ctx, "", org.ID, b.Name, b.Adapter, b.Settings))
	})
	provision := operation("provision-account", http.MethodPost, "/accounts/{id}/provision", tagConnections, "Read the account's tables, data fields and marketing lists", http.StatusConflict)
	provision.Description = "Makes the default mappings of names, too, and answers when it is done. It can be repeated: what is there stays as it is."
	handle(s, provision, func(ctx context.Context, in *ByID) (*oneOut[lockstep.EmailAccount], error) {
		acc, err := s.app.Account(ctx, in.ID)
		if err == nil {
			err = s.app.Provision(ctx, acc.ID)
		}
		return wholeAccount(acc, err)
	})
	change := operation("change-account", http.MethodPatch, "/accounts/{id}", tagConnections, "Change an email account", withBody...)
	change.Description = connectionSettings + " They are tried before they are kept, and refused when another account answers."
	handle(s, change, func(ctx context.Context, in *accountPatch) (*oneOut[lockstep.EmailAccount], error) {
		b := in.Body
		acc, err := s.app.Account(ctx, in.ID)
		if err != nil {
			return nil, err
		}
		return wholeAccount(s.app.UpdateAccount(ctx, acc.ID, app.AccountPatch{
			Name: b.Name, Description: b.Description, Settings: b.Settings, Default: b.Default, Priority: b.Priority, CreateCap: b.CreateCap,
			Automatic: b.Automatic, BulkOptOut: b.BulkOptOut, AloneWithSuppressions: b.AloneWithSuppressions,
			Guards: app.GuardPatch{Percent: b.GuardPercent, Rows: b.GuardRows, Floor: b.GuardFloor, BulkUntil: b.BulkUntil, ConfirmChanges: b.ConfirmChanges},
		}))
	})
	lock := operation("lock-account", http.MethodPost, "/accounts/{id}/lock", tagConnections, "Keep an account from being written to; opt-outs are still taken in", withBody...)
	handle(s, lock, func(ctx context.Context, in *accountLock) (*oneOut[lockstep.EmailAccount], error) {
		acc, err := s.app.Account(ctx, in.ID)
		if err != nil {
			return nil, err
		}
		return wholeAccount(s.app.LockAccount(ctx, acc.ID, in.Body.Reason))
	})
	unlock := operation("unlock-account", http.MethodPost, "/accounts/{id}/unlock", tagConnections, "Let a locked account be written to again", withBody...)
	unlock.Description = "409 while the database is a copy of another one: re-arm it first."
	handle(s, unlock, func(ctx context.Context, in *accountLock) (*oneOut[lockstep.EmailAccount], error) {
		acc, err := s.app.Account(ctx, in.ID)
		if err != nil {
			return nil, err
		}
		return wholeAccount(s.app.UnlockAccount(ctx, acc.ID, responsible(ctx, in.Body.By), in.Body.Reason))
	})
	rearm := operation("rearm", http.MethodPost, "/rearm", tagConnections, "Let a database that was copied or restored elsewhere act from where it is now", withBody...)
	rearm.Description = "Answers with the accounts that this unlocked. Make sure first that the original does not run any more: two of them would both write."
	handle(s, rearm, func(ctx context.Context, in *struct {
		Body struct {
			By string `json:"by,omitempty" maxLength:"200" doc:"Who takes responsibility; the token's name is added."`
		}
	},
	) (*pageOut[lockstep.EmailAccount], error) {
		all, err := s.app.Rearm(ctx, responsible(ctx, in.Body.By))
		for i := range all {
			whole, _ := wholeAccount(all[i], nil)
			all[i] = whole.Body
		}
		return newPage(all, ""), err
	})
	remove := operation("disconnect-account", http.MethodDelete, "/accounts/{id}", tagConnections, "Forget an email account and everything kept for it; nothing changes on either side", http.StatusConflict)
	remove.Description = "Refused while a list of the account is activated or a run of it has not ended."
	handle(s, remove, func(ctx context.Context, in *ByID) (*struct{}, error) {
		return nil, s.app.DeleteAccount(ctx, in.ID)
	})
}

func (s *server) connections() {
	s.organizations()
	s.emailAccounts()
	handle(s, operation("list-accounts", http.MethodGet, "/accounts", tagConnections, "The connected email accounts"),
		func(ctx context.Context, _ *struct{}) (*pageOut[lockstep.EmailAccount], error) {
			all, err := s.app.Accounts(ctx)
			for i := range all {
				whole, _ := wholeAccount(all[i], nil)
				all[i] = whole.Body
			}
			return newPage(all, ""), err
		})
	handle(s, operation("list-tables", http.MethodGet, "/tables", tagConnections, "The CRM tables that can be mapped, with their columns"),
		func(ctx context.Context, in *struct {
			Account string `query:"account" maxLength:"200" doc:"Id or name of the email account; may be left out when there is only one."`
		},
		) (*pageOut[lockstep.Table], error) {
			acc, err := s.app.Account(ctx, in.Account)
			if err != nil {
				return nil, err
			}
			all, err := s.app.Tables(ctx, acc.ID)
			for i := range all {
				if all[i].Columns == nil {
					all[i].Columns = []lockstep.Column{}
				}
			}
			return newPage(all, ""), err
		})
	op := operation("test-connection", http.MethodPost, "/connections/test", tagConnections, "Try settings without keeping them", withBody...)
	op.Description = "Ends with the first step that fails; the step says why and what to do. ok is false then, and the answer is still 200."
	op.Errors = append(op.Errors, http.StatusNotImplemented)
	handle(s, op, func(ctx context.Context, in *struct {
		Body struct {
			Adapter  string            `json:"adapter" maxLength:"80" example:"dotdigital"`
			Settings map[string]string `json:"settings" doc:"The adapter's settings by name, secrets included."`
		}
	},
	) (*oneOut[app.TestResult], error) {
		return one(s.app.TestConnection(ctx, in.Body.Adapter, in.Body.Settings))
	})
}
