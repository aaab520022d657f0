// Package configuration is what people decide about their email accounts, as a text
// that is reviewed before it is applied: the form of the document, how it is written
// and read as YAML, and how two configurations differ, in words.
//
// A document holds decisions alone: no secrets, no connections, nothing that Lockstep
// found out by itself, and no ids, except those of marketing lists that share a name.
// Address books are left out: which one belongs to a list is a fact of one platform
// account, and its id means nothing in another.
package configuration

import (
	"cmp"
	"slices"
	"strings"

	"github.com/lockstep-sync/lockstep"
)

// Document is the configuration of one or more email accounts, and of what they share.
type Document struct {
	Installation  *Installation  `json:"installation,omitempty" yaml:"installation"`
	Organizations []Organization `json:"organizations,omitzero" yaml:"organizations" required:"false" doc:"Budgets of the organizations; those not named stay."`
	Accounts      []Account      `json:"accounts" yaml:"accounts" doc:"The email accounts that the document is about; others are left alone."`
}

// Installation is what is decided for all accounts; nil stays.
type Installation struct {
	RetentionDays *int `json:"retention_days,omitempty" yaml:"retention_days" doc:"For how many days runs, findings and the journal are kept."`
}

// Organization is what is decided about an organization; nil stays.
type Organization struct {
	Name         string `json:"name" yaml:"name" doc:"Name of the organization."`
	CallsPerHour *int   `json:"calls_per_hour,omitempty" yaml:"calls_per_hour" doc:"The most calls to the CRM in any 60 minutes; 0 = none."`
	CallsPerDay  *int   `json:"calls_per_day,omitempty" yaml:"calls_per_day" doc:"The most calls to the CRM in any 24 hours; 0 = none."`
}

// OrganizationsOf returns organizations as a document has them, by name; those that share
// a name are left out, as a document could not tell them apart.
func OrganizationsOf(all []lockstep.Organization) []Organization {
	out := []Organization{}
	for i := range all {
		o := &all[i]
		if slices.ContainsFunc(all, func(x lockstep.Organization) bool { return x.ID != o.ID && strings.EqualFold(x.Name, o.Name) }) {
			continue
		}
		out = append(out, Organization{Name: o.Name, CallsPerHour: &o.Budget.PerHour, CallsPerDay: &o.Budget.PerDay})
	}
	slices.SortFunc(out, func(a, b Organization) int { return byName(a.Name, b.Name) })
	return out
}

// Account is the configuration of one email account. A section that is absent is left
// alone. Labels, mappings and schedules that are present are the whole truth: what is
// not among them is deleted, and a schedule goes back to its default. Of settings and
// lists, what is not named stays.
type Account struct {
	Name string `json:"name" yaml:"name" doc:"Name of the email account."`
	// Organization is given only where several organizations have an account of the name.
	Organization string     `json:"organization,omitempty" yaml:"organization" doc:"Name of the organization, where several have an account of this name."`
	Settings     *Settings  `json:"settings,omitempty" yaml:"settings"`
	Labels       []Label    `json:"labels,omitzero" yaml:"labels" required:"false" doc:"All data labels; left alone when absent."`
	Mappings     []Mapping  `json:"mappings,omitzero" yaml:"mappings" required:"false" doc:"All mappings; left alone when absent."`
	Lists        []List     `json:"lists,omitzero" yaml:"lists" required:"false" doc:"Settings of marketing lists; those not named stay."`
	Schedules    []Schedule `json:"schedules,omitzero" yaml:"schedules" required:"false" doc:"All schedules: a sync type not named goes by its default; left alone when absent."`
}

// Settings are those of lockstep.EmailAccount that are decisions; nil stays.
type Settings struct {
	Description           *string              `json:"description,omitempty" yaml:"description"`
	Default               *bool                `json:"default,omitempty" yaml:"default" doc:"True makes it the organization's default account."`
	Priority              *[]string            `json:"priority,omitempty" yaml:"priority" doc:"The member tables in the order in which they speak for an address that several records share."`
	CreateCap             *int                 `json:"create_cap,omitempty" yaml:"create_cap" doc:"The most records that one run creates in the CRM."`
	Automatic             *bool                `json:"automatic,omitempty" yaml:"automatic" doc:"Whether the account's syncs run by themselves."`
	BulkOptOut            *lockstep.BulkOptOut `json:"bulk_opt_out,omitempty" yaml:"bulk_opt_out" doc:"list_removal or suppress."`
	AloneWithSuppressions *bool                `json:"alone_with_suppressions,omitempty" yaml:"alone_with_suppressions"`
	GuardPercent          *int                 `json:"guard_percent,omitempty" yaml:"guard_percent"`
	GuardRows             *int                 `json:"guard_rows,omitempty" yaml:"guard_rows"`
	GuardFloor            *int                 `json:"guard_floor,omitempty" yaml:"guard_floor"`
	ConfirmChanges        *bool                `json:"confirm_changes,omitempty" yaml:"confirm_changes"`
	CallsPerHour          *int                 `json:"calls_per_hour,omitempty" yaml:"calls_per_hour" doc:"The most calls to the platform in any 60 minutes; 0 = none but what it grants."`
	CallsPerDay           *int                 `json:"calls_per_day,omitempty" yaml:"calls_per_day" doc:"The most calls to the platform in any 24 hours; 0 = none."`
}

// Label is a data label; see lockstep.DataLabel.
type Label struct {
	Name        string             `json:"name" yaml:"name"`
	Type        lockstep.FieldType `json:"type" yaml:"type" doc:"text, number, date or boolean."`
	Private     bool               `json:"private,omitempty" yaml:"private"`
	Default     string             `json:"default,omitempty" yaml:"default"`
	Description string             `json:"description,omitempty" yaml:"description"`
}

// Mapping is a data mapping; see lockstep.DataMapping. A label has one for each table
// and direction.
type Mapping struct {
	Label     string               `json:"label" yaml:"label" doc:"Name of the data label."`
	Table     string               `json:"table" yaml:"table" example:"contact"`
	Direction lockstep.Direction   `json:"direction" yaml:"direction" doc:"to_platform or to_crm."`
	Column    string               `json:"column" yaml:"column" example:"firstname"`
	Winner    lockstep.Winner      `json:"winner,omitempty" yaml:"winner" doc:"newest, crm, platform or hold; newest when left out."`
	Empty     lockstep.EmptyPolicy `json:"empty,omitempty" yaml:"empty" doc:"clear, keep or default; clear when left out."`
	Default   string               `json:"default,omitempty" yaml:"default"`
	Truncate  bool                 `json:"truncate,omitempty" yaml:"truncate"`
	AsNumber  bool                 `json:"as_number,omitempty" yaml:"as_number"`
}

// List is the settings of a marketing list; see lockstep.ListSettings. nil stays.
type List struct {
	Name string `json:"name" yaml:"name" doc:"Name of the marketing list in the CRM."`
	// CRMID is given only where several lists have the name.
	CRMID              string                       `json:"crm_id,omitempty" yaml:"crm_id" doc:"The list's id in the CRM, where several have this name."`
	Activated          *bool                        `json:"activated,omitempty" yaml:"activated"`
	MembershipAction   *lockstep.MembershipAction   `json:"membership_action,omitempty" yaml:"membership_action" doc:"ignore, remove, allow_known, create_lead or create_contact."`
	SubscriptionFilter *lockstep.SubscriptionFilter `json:"subscription_filter,omitempty" yaml:"subscription_filter" doc:"none, bulk_email, any_opt_out, marketing_material, list_unsubscribers, suppressed or opt_in_at_least."`
	MinOptIn           *string                      `json:"min_opt_in,omitempty" yaml:"min_opt_in" doc:"unknown, single, double or verified_double."`
	MirrorRemovals     *bool                        `json:"mirror_removals,omitempty" yaml:"mirror_removals"`
	ClearOnSend        *bool                        `json:"clear_on_send,omitempty" yaml:"clear_on_send"`
	SyncOrder          *int                         `json:"sync_order,omitempty" yaml:"sync_order" doc:"Lower is earlier."`
	ManualOnly         *bool                        `json:"manual_only,omitempty" yaml:"manual_only"`
	KeepAutomatic      *bool                        `json:"keep_automatic,omitempty" yaml:"keep_automatic" doc:"Whether the list goes on syncing by itself when nobody uses it for 90 days."`
}

// Schedule is when a sync type runs by itself; see lockstep.Schedule.
type Schedule struct {
	Type     lockstep.SyncType `json:"type" yaml:"type" example:"marketing-lists"`
	Interval string            `json:"interval" yaml:"interval" example:"4h"`
	At       string            `json:"at,omitempty" yaml:"at" example:"02:00" doc:"Time of day of daily and weekly runs without windows; midnight when left out."`
	Zone     string            `json:"zone,omitempty" yaml:"zone" example:"Europe/London" doc:"Zone of at; UTC when left out."`
	Windows  []Window          `json:"windows,omitempty" yaml:"windows" doc:"When a run may begin; at any time when left out."`
}

// Window is a time of certain days in which runs may begin; see lockstep.Window.
type Window struct {
	Days []string `json:"days,omitempty" yaml:"days" doc:"mon, tue, wed, thu, fri, sat, sun; every day when left out."`
	From string   `json:"from" yaml:"from" example:"18:00"`
	To   string   `json:"to" yaml:"to" example:"08:00"`
	Zone string   `json:"zone,omitempty" yaml:"zone" example:"Europe/London" doc:"UTC when left out."`
}

// State is the configuration of one email account as it is kept.
type State struct {
	Account  lockstep.EmailAccount
	Labels   []lockstep.DataLabel
	Mappings []lockstep.DataMapping
	Lists    []lockstep.ListSettings
	// Schedules are the stored ones. A sync type without one goes by its default.
	Schedules []lockstep.SyncSchedule
}

// Schedule returns when a sync type runs by itself.
func (s *State) Schedule(t lockstep.SyncType) lockstep.Schedule {
	for _, sc := range s.Schedules {
		if sc.Type == t {
			return sc.Schedule
		}
	}
	return lockstep.DefaultSchedule(t)
}

// Of writes everything that was decided for an account as a document would, in the
// order of a document. Lists that the CRM does not have any more are left out.
func Of(s *State) Account {
	acc := Account{
		Name: s.Account.Name, Settings: settingsOf(s.Account),
		Labels: []Label{}, Mappings: []Mapping{}, Lists: ListsOf(s.Lists), Schedules: []Schedule{},
	}
	for _, l := range s.Labels {
		acc.Labels = append(acc.Labels, LabelOf(l))
	}
	for _, m := range s.Mappings {
		acc.Mappings = append(acc.Mappings, MappingOf(m))
	}
	slices.SortFunc(acc.Labels, func(a, b Label) int { return byName(a.Name, b.Name) })
	slices.SortFunc(acc.Mappings, func(a, b Mapping) int {
		return cmp.Or(cmp.Compare(a.Table, b.Table), byName(a.Label, b.Label), -cmp.Compare(a.Direction, b.Direction))
	})
	for _, t := range lockstep.SyncTypes {
		acc.Schedules = append(acc.Schedules, ScheduleOf(t, s.Schedule(t)))
	}
	return acc
}

// byName orders names without regard to case, and those that differ in it alone too.
func byName(a, b string) int {
	return cmp.Or(cmp.Compare(strings.ToLower(a), strings.ToLower(b)), cmp.Compare(a, b))
}

func settingsOf(a lockstep.EmailAccount) *Settings {
	a = a.Guarded()
	if len(a.Priority) == 0 {
		a.Priority = lockstep.DefaultPriority
	}
	s := &Settings{
		Description: &a.Description, Priority: new(slices.Clone(a.Priority)), CreateCap: &a.CreateCap, Automatic: &a.Automatic,
		BulkOptOut: new(cmp.Or(a.BulkOptOut, lockstep.BulkListRemoval)), AloneWithSuppressions: &a.AloneWithSuppressions,
		GuardPercent: &a.GuardPercent, GuardRows: &a.GuardRows, GuardFloor: &a.GuardFloor, ConfirmChanges: &a.ConfirmChanges,
		CallsPerHour: &a.Budget.PerHour, CallsPerDay: &a.Budget.PerDay,
	}
	if a.Default { // that another account is the default is said there
		s.Default = &a.Default
	}
	return s
}

// LabelOf returns a label as a document has it.
func LabelOf(l lockstep.DataLabel) Label {
	return Label{Name: l.Name, Type: l.Type, Private: l.Private, Default: l.Default, Description: l.Description}
}

// MappingOf returns a mapping as a document has it.
func MappingOf(m lockstep.DataMapping) Mapping {
	return Mapping{
		Label: m.Label, Table: m.Table, Direction: m.Direction, Column: m.Column,
		Winner: cmp.Or(m.Winner, lockstep.WinnerNewest), Empty: cmp.Or(m.Empty, lockstep.EmptyClear), Default: m.Default, Truncate: m.Truncate, AsNumber: m.AsNumber,
	}
}

// ListsOf returns the lists that the CRM has as a document has them, by name.
func ListsOf(lists []lockstep.ListSettings) []List {
	called := map[string]int{}
	for _, l := range lists {
		if !l.Gone {
			called[strings.ToLower(l.Name)]++
		}
	}
	out := []List{}
	for _, l := range lists {
		if l.Gone {
			continue
		}
		shown := List{
			Name: l.Name, Activated: &l.Activated, MembershipAction: &l.MembershipAction, SubscriptionFilter: &l.SubscriptionFilter, MinOptIn: new(l.MinOptIn.String()),
			MirrorRemovals: &l.MirrorRemovals, ClearOnSend: &l.ClearOnSend, SyncOrder: &l.SyncOrder, ManualOnly: &l.ManualOnly, KeepAutomatic: &l.KeepAutomatic,
		}
		if called[strings.ToLower(l.Name)] > 1 {
			shown.CRMID = l.CRMID.String()
		}
		out = append(out, shown)
	}
	slices.SortFunc(out, func(a, b List) int { return cmp.Or(byName(a.Name, b.Name), cmp.Compare(a.CRMID, b.CRMID)) })
	return out
}

// ScheduleOf returns a schedule as a document has it.
func ScheduleOf(t lockstep.SyncType, s lockstep.Schedule) Schedule {
	out := Schedule{Type: t, Interval: string(s.Interval), Zone: s.Zone}
	if s.At != 0 || s.Interval == lockstep.Daily || s.Interval == lockstep.Weekly {
		out.At = s.At.String()
	}
	for _, w := range s.Windows {
		shown := Window{From: w.From.String(), To: w.To.String(), Zone: w.Zone}
		for _, d := range w.Days {
			shown.Days = append(shown.Days, d.String())
		}
		out.Windows = append(out.Windows, shown)
	}
	return out
}
