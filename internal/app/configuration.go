package app

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/configuration"
	"github.com/lockstep-sync/lockstep/internal/store"
	"github.com/lockstep-sync/lockstep/internal/transform"
)

// ConfigurationPlan is what applying a document does.
type ConfigurationPlan struct {
	// Fingerprint names the document and what it was compared with: it is another one
	// when either changes.
	Fingerprint string `json:"fingerprint"`
	// Changes are in the order of the document; empty when there is no difference.
	Changes []configuration.Change `json:"changes"`
}

// Configuration returns everything that was decided for an email account, by id or
// name, or for all when which is empty, by name.
func (a *App) Configuration(ctx context.Context, which string) (configuration.Document, error) {
	d := configuration.Document{Accounts: []configuration.Account{}}
	all, err := a.Accounts(ctx)
	if err != nil {
		return d, err
	}
	shown := all
	if which != "" {
		acc, err := a.Account(ctx, which)
		if err != nil {
			return d, err
		}
		shown = []lockstep.EmailAccount{acc}
	}
	for _, acc := range shown {
		state, err := a.store.Configuration(ctx, acc.ID)
		if err != nil {
			return d, err
		}
		doc := configuration.Of((*configuration.State)(&state))
		if which == "" && len(called(all, acc.Name, "")) > 1 {
			org, err := a.store.Organization(ctx, acc.Organization)
			if err != nil {
				return d, err
			}
			doc.Organization = org.Name
		}
		d.Accounts = append(d.Accounts, doc)
	}
	if which == "" {
		common, err := a.readCommon(ctx, &d)
		if err != nil {
			return d, err
		}
		d.Installation, d.Organizations = common.before.Installation, common.before.Organizations
	}
	slices.SortFunc(d.Accounts, func(a, b configuration.Account) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Organization, b.Organization))
	})
	return d, nil
}

// called are the accounts of a name, in an organization or, when that is empty, in any.
func called(all []lockstep.EmailAccount, name, organization string) []lockstep.EmailAccount {
	var found []lockstep.EmailAccount
	for _, acc := range all {
		if strings.EqualFold(acc.Name, name) && (organization == "" || acc.Organization == organization) {
			found = append(found, acc)
		}
	}
	return found
}

// PlanConfiguration says what applying a document would do and writes nothing. An
// account's name or id in which has a document of one account be about that one. Every
// problem is told, each with its path in the document as Field.
func (a *App) PlanConfiguration(ctx context.Context, d configuration.Document, which string) (ConfigurationPlan, error) {
	targets, err := a.targets(ctx, d, which)
	if err != nil {
		return ConfigurationPlan{}, err
	}
	for _, t := range targets {
		if t.state, err = a.store.Configuration(ctx, t.account.ID); err != nil {
			return ConfigurationPlan{}, err
		}
	}
	common, err := a.readCommon(ctx, &d)
	if err != nil {
		return ConfigurationPlan{}, err
	}
	return planAll(targets, common)
}

// ApplyConfiguration does what PlanConfiguration says, all of it or nothing. With a
// fingerprint it does what that plan showed: CodeConflict when the document, or what it
// was compared with, has changed since.
func (a *App) ApplyConfiguration(ctx context.Context, d configuration.Document, which, fingerprint string) (ConfigurationPlan, error) {
	var plan ConfigurationPlan
	targets, err := a.targets(ctx, d, which)
	if err != nil {
		return plan, err
	}
	for _, t := range targets {
		if t.state, err = a.store.Configuration(ctx, t.account.ID); err != nil {
			return plan, err
		}
	}
	// What is wrong is told before anything is written, tables that were read included.
	common, err := a.readCommon(ctx, &d)
	if err != nil {
		return plan, err
	}
	if _, err := planAll(targets, common); err != nil {
		return plan, err
	}
	for _, t := range targets {
		if t.unread {
			if err := a.store.SaveTables(ctx, t.account.Organization, t.tables); err != nil {
				return plan, err
			}
		}
	}
	err = a.store.InTx(ctx, func(tx store.Tx) error {
		if common, err = a.readCommonIn(ctx, tx, &d); err != nil {
			return err
		}
		inOrder := slices.Clone(targets) // so that two of us do not wait for each other
		slices.SortFunc(inOrder, func(a, b *target) int { return cmp.Compare(a.account.ID, b.account.ID) })
		for _, t := range inOrder {
			if t.state, err = a.store.ConfigurationIn(ctx, tx, t.account.ID); err != nil {
				return err
			}
		}
		if plan, err = planAll(targets, common); err != nil {
			return err
		}
		if fingerprint != "" && fingerprint != plan.Fingerprint {
			return &lockstep.Error{
				Code: lockstep.CodeConflict, Field: "plan", Msg: "the plan that was looked at is not the plan any more: the configuration or the document has changed since",
				Hint: "plan again, look at the changes and apply that plan",
			}
		}
		if err := a.editCommon(ctx, tx, common); err != nil {
			return err
		}
		for _, t := range inOrder {
			if err := a.edit(ctx, tx, t); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return ConfigurationPlan{}, err
	}
	if len(plan.Changes) > 0 {
		a.jobs.Wake()
	}
	return plan, nil
}

// target is an account of a document and what becomes of it.
type target struct {
	index   int // in the document
	doc     *configuration.Account
	account lockstep.EmailAccount // as it was found
	// others are the accounts of its organization; successor is the one that the
	// document makes the default there.
	others    []lockstep.EmailAccount
	successor string

	tables []lockstep.Table
	unread bool // some of the tables are not kept yet

	state, want store.Configuration
	problems    []error
}

// problem notes what is wrong at a place of the document; an error of several parts is
// several problems.
func (t *target) problem(section string, index int, key string, err error) {
	if err == nil {
		return
	}
	var all interface{ Unwrap() []error }
	if errors.As(err, &all) {
		for _, one := range all.Unwrap() {
			t.problem(section, index, key, one)
		}
		return
	}
	e := *lockstep.AsError(err)
	if key == "" {
		key = e.Field
	}
	e.Field = configuration.Path(t.index, section, index, key)
	t.problems = append(t.problems, &e)
}

// problems makes one error of all that is wrong with a document; nil when nothing is.
func problems(all []error) error {
	if len(all) == 0 {
		return nil
	}
	what := "is a problem"
	if len(all) > 1 {
		what = fmt.Sprintf("are %d problems", len(all))
	}
	return errors.Join(append([]error{&lockstep.Error{Code: lockstep.CodeInvalid, Msg: "there " + what + " in the document; nothing was written"}}, all...)...)
}

// targets finds the accounts of a document and reads, of the CRM's metadata, what its
// mappings go through.
func (a *App) targets(ctx context.Context, d configuration.Document, which string) ([]*target, error) {
	if which != "" && len(d.Accounts) != 1 {
		return nil, invalid("account", fmt.Sprintf("the document is about %d accounts and cannot be about another one", len(d.Accounts)), "leave the account out, or export one account alone")
	}
	accounts, err := a.Accounts(ctx)
	if err != nil {
		return nil, err
	}
	organizations, err := a.store.Organizations(ctx)
	if err != nil {
		return nil, err
	}
	var all []*target
	var wrong []error
	for i := range d.Accounts {
		t := &target{index: i, doc: &d.Accounts[i]}
		if which != "" {
			t.account, err = a.Account(ctx, which)
			if err != nil {
				return nil, err
			}
		} else if err := t.find(accounts, organizations); err != nil {
			wrong = append(wrong, err)
			continue
		}
		if twice := slices.IndexFunc(all, func(o *target) bool { return o.account.ID == t.account.ID }); twice >= 0 {
			wrong = append(wrong, &lockstep.Error{Code: lockstep.CodeInvalid, Field: configuration.Path(i, "", -1, "name"), Msg: fmt.Sprintf("the email account %q is in the document twice", t.doc.Name), Hint: "make one of both"})
			continue
		}
		t.others = slices.DeleteFunc(slices.Clone(accounts), func(o lockstep.EmailAccount) bool {
			return o.Organization != t.account.Organization || o.ID == t.account.ID
		})
		all = append(all, t)
	}
	if len(d.Accounts) == 0 {
		wrong = append(wrong, invalid("accounts", "the document is about no email account", "name at least one under accounts:"))
	}
	if err := problems(wrong); err != nil {
		return nil, err
	}
	tables := map[string][]lockstep.Table{} // by organization
	for _, t := range all {
		for _, o := range all {
			if o.account.Organization == t.account.Organization && o.doc.Settings != nil && o.doc.Settings.Default != nil && *o.doc.Settings.Default {
				if t.successor != "" {
					wrong = append(wrong, invalid(configuration.Path(o.index, "settings", -1, "default"), "an organization has one default account", "say default: true for one of its accounts"))
				}
				t.successor = cmp.Or(t.successor, o.account.ID)
			}
		}
		kept, read := tables[t.account.Organization]
		if !read {
			if kept, err = a.store.Tables(ctx, t.account.Organization); err != nil {
				return nil, err
			}
		}
		var through []lockstep.DataMapping
		for _, m := range t.doc.Mappings {
			through = append(through, lockstep.DataMapping{Table: m.Table, Column: m.Column})
		}
		if t.tables, err = a.readBehind(ctx, t.account.Organization, kept, through...); err != nil {
			return nil, err
		}
		t.unread = len(t.tables) > len(kept)
		tables[t.account.Organization] = t.tables
	}
	slices.SortFunc(wrong, func(a, b error) int { return cmp.Compare(lockstep.AsError(a).Field, lockstep.AsError(b).Field) })
	return all, problems(slices.CompactFunc(wrong, func(a, b error) bool { return lockstep.AsError(a).Field == lockstep.AsError(b).Field }))
}

// find matches the account by its name.
func (t *target) find(accounts []lockstep.EmailAccount, organizations []lockstep.Organization) error {
	organization := ""
	refuse := func(key, msg, hint string) error { return invalid(configuration.Path(t.index, "", -1, key), msg, hint) }
	if t.doc.Organization != "" {
		i := slices.IndexFunc(organizations, func(o lockstep.Organization) bool { return strings.EqualFold(o.Name, t.doc.Organization) })
		if i < 0 {
			return refuse("organization", fmt.Sprintf("there is no organization %q", t.doc.Organization), "connect it first, or leave the key out")
		}
		organization = organizations[i].ID
	}
	switch found := called(accounts, t.doc.Name, organization); len(found) {
	case 0:
		var names []string
		for _, acc := range accounts {
			names = append(names, fmt.Sprintf("%q", acc.Name))
		}
		hint := "connect one first"
		if names != nil {
			hint = "use one of " + strings.Join(names, ", ") + ", or say which account it is to be applied to"
		}
		return refuse("name", fmt.Sprintf("there is no email account %q", t.doc.Name), hint)
	case 1:
		t.account = found[0]
		return nil
	}
	return refuse("name", fmt.Sprintf("several organizations have an email account %q", t.doc.Name), "say which one with organization:")
}

// planAll says what becomes of the accounts from the states that were read, or
// everything that stands in the way.
func planAll(targets []*target, common *common) (ConfigurationPlan, error) {
	plan := ConfigurationPlan{Changes: []configuration.Change{}}
	changes, wrong := common.plan()
	plan.Changes = append(plan.Changes, changes...)
	h := sha256.New()
	if common.doc.Installation != nil {
		if err := json.NewEncoder(h).Encode([]any{common.doc.Installation, common.before.Installation}); err != nil {
			return plan, err
		}
	}
	if len(common.doc.Organizations) > 0 {
		if err := json.NewEncoder(h).Encode([]any{common.doc.Organizations, common.before.Organizations}); err != nil {
			return plan, err
		}
	}
	for _, t := range targets {
		t.plan()
		wrong = append(wrong, t.problems...)
		before, after := configuration.Of((*configuration.State)(&t.state)), configuration.Of((*configuration.State)(&t.want))
		changes := configuration.Diff(&before, &after)
		for i := range changes {
			t.annotate(&changes[i])
		}
		plan.Changes = append(plan.Changes, changes...)
		if err := json.NewEncoder(h).Encode([]any{t.account.ID, t.doc, before}); err != nil {
			return plan, err
		}
	}
	plan.Fingerprint = hex.EncodeToString(h.Sum(nil)[:12])
	return plan, problems(wrong)
}

// annotate says what else follows from a change.
func (t *target) annotate(c *configuration.Change) {
	if c.Item != "settings" || !t.want.Account.Default || t.state.Account.Default {
		return
	}
	for _, o := range t.others {
		if o.Default {
			c.Note = fmt.Sprintf("the default account in place of %q", o.Name)
		}
	}
}

// plan computes what the account's configuration becomes.
func (t *target) plan() {
	t.problems = nil
	t.want = t.state
	t.want.Labels, t.want.Mappings = slices.Clone(t.state.Labels), slices.Clone(t.state.Mappings)
	t.want.Lists, t.want.Schedules = slices.Clone(t.state.Lists), slices.Clone(t.state.Schedules)
	t.settings()
	t.labels()
	t.mappings()
	t.unused()
	t.lists()
	t.schedules()
}

func (t *target) settings() {
	acc := &t.want.Account
	if t.successor != "" && t.successor != acc.ID {
		acc.Default = false
	}
	s := t.doc.Settings
	if s == nil {
		return
	}
	p := AccountPatch{
		Description: s.Description, Default: s.Default, Priority: s.Priority, CreateCap: s.CreateCap, BulkOptOut: s.BulkOptOut,
		AloneWithSuppressions: s.AloneWithSuppressions, Automatic: s.Automatic,
		Guards:       GuardPatch{Percent: s.GuardPercent, Rows: s.GuardRows, Floor: s.GuardFloor, ConfirmChanges: s.ConfirmChanges},
		CallsPerHour: s.CallsPerHour, CallsPerDay: s.CallsPerDay,
	}
	t.problem("settings", -1, "", p.apply(acc, time.Time{}))
}

func (t *target) labels() {
	if t.doc.Labels == nil {
		return
	}
	t.want.Labels = nil
	for i, d := range t.doc.Labels {
		same := func(o lockstep.DataLabel) bool { return strings.EqualFold(o.Name, d.Name) }
		if slices.ContainsFunc(t.want.Labels, same) {
			t.problem("labels", i, "name", invalid("", fmt.Sprintf("the label %.40q is there twice", d.Name), "make one of both"))
			continue
		}
		l := lockstep.DataLabel{Account: t.account.ID, Name: d.Name, Type: d.Type, Private: d.Private, Default: d.Default, Description: d.Description}
		var old *lockstep.DataLabel
		if at := slices.IndexFunc(t.state.Labels, same); at >= 0 {
			old = &t.state.Labels[at]
			l.ID, l.Name, l.Synced, l.Remade = old.ID, old.Name, old.Synced, old.Remade
			if l == *old {
				t.want.Labels = append(t.want.Labels, l)
				continue
			}
		}
		l, err := checkLabel(l, old)
		if old == nil && slices.ContainsFunc(transform.ReservedLabelNames, func(name string) bool { return strings.EqualFold(name, l.Name) }) {
			err = invalid("name", fmt.Sprintf("the field %s of every email account is not known yet", l.Name), "run data-labels for the account first")
		}
		t.problem("labels", i, "", err)
		t.want.Labels = append(t.want.Labels, l)
	}
}

func (t *target) mappings() {
	if t.doc.Mappings == nil {
		return
	}
	var stay, changed []lockstep.DataMapping
	var places []int // of the changed ones in the document
	for i, d := range t.doc.Mappings {
		m := lockstep.DataMapping{
			Account: t.account.ID, Label: d.Label, Table: d.Table, Direction: d.Direction, Column: d.Column,
			Winner: d.Winner, Empty: d.Empty, Default: d.Default, Truncate: d.Truncate, AsNumber: d.AsNumber,
		}
		at := slices.IndexFunc(t.state.Mappings, func(o lockstep.DataMapping) bool { return sameTarget(o, m) })
		if at >= 0 {
			old := t.state.Mappings[at]
			if slices.ContainsFunc(stay, func(o lockstep.DataMapping) bool { return o.ID == old.ID }) {
				t.problem("mappings", i, "label", invalid("", fmt.Sprintf("the label %s is mapped for %s in this direction twice", d.Label, d.Table), "make one of both"))
				continue
			}
			m.ID, m.Label = old.ID, old.Label
			if configuration.MappingOf(m) == configuration.MappingOf(old) {
				stay = append(stay, old) // suspended or not
				continue
			}
		}
		changed, places = append(changed, m), append(places, i)
	}
	// A label that the document itself makes may be mapped: its field is made before
	// the mapping carries anything.
	labels := slices.Clone(t.want.Labels)
	for i := range labels {
		labels[i].Synced = labels[i].Synced || labels[i].ID == ""
	}
	for i, err := range checkMappings(t.tables, labels, stay, changed) {
		t.problem("mappings", places[i], "", err)
	}
	t.want.Mappings = slices.Concat(stay, changed)
}

// unused refuses to delete a label that a mapping which stays needs.
func (t *target) unused() {
	for _, l := range t.state.Labels {
		if slices.ContainsFunc(t.want.Labels, func(o lockstep.DataLabel) bool { return o.ID == l.ID }) {
			continue
		}
		for _, m := range t.want.Mappings {
			if strings.EqualFold(m.Label, l.Name) && slices.Contains(t.state.Mappings, m) { // others were checked
				t.problem("labels", -1, "", &lockstep.Error{
					Code: lockstep.CodeConflict, Msg: fmt.Sprintf("the label %s is not among them, but mapped for %s", l.Name, m.Table),
					Hint: "keep the label, or take its mappings out of the document too",
				})
				break
			}
		}
	}
}

func (t *target) lists() {
	seen := map[string]bool{}
	for i, d := range t.doc.Lists {
		at, err := findList(t.state.Lists, d)
		if err != nil {
			t.problem("lists", i, "", err)
			continue
		}
		l := &t.want.Lists[at]
		if seen[l.ID] {
			t.problem("lists", i, "name", invalid("", fmt.Sprintf("the marketing list %q is there twice", d.Name), "make one of both"))
			continue
		}
		seen[l.ID] = true
		p := ListPatch{
			Activated: d.Activated, MembershipAction: d.MembershipAction, SubscriptionFilter: d.SubscriptionFilter,
			MirrorRemovals: d.MirrorRemovals, ClearOnSend: d.ClearOnSend, SyncOrder: d.SyncOrder, ManualOnly: d.ManualOnly, KeepAutomatic: d.KeepAutomatic,
		}
		if d.MinOptIn != nil {
			optIn, err := parseOptIn(*d.MinOptIn)
			t.problem("lists", i, "", err)
			p.MinOptIn = &optIn
		}
		was := *l
		if err := p.apply(l, nil); *l != was {
			t.problem("lists", i, "", err)
		}
	}
}

// parseOptIn reads the name of an opt-in type.
func parseOptIn(name string) (lockstep.OptInType, error) {
	var names []string
	for o := lockstep.OptInUnknown; o <= lockstep.OptInVerifiedDouble; o++ {
		if o.String() == name {
			return o, nil
		}
		names = append(names, o.String())
	}
	return 0, invalid("min_opt_in", fmt.Sprintf("%.40q is not an opt-in type", name), "use one of "+strings.Join(names, ", "))
}

// findList finds a list of a document among those that the CRM has.
func findList(all []lockstep.ListSettings, d configuration.List) (int, error) {
	var found []int
	for i, l := range all {
		if !l.Gone && strings.EqualFold(l.Name, d.Name) && (d.CRMID == "" || strings.EqualFold(l.CRMID.String(), d.CRMID)) {
			found = append(found, i)
		}
	}
	which := fmt.Sprintf("%q", d.Name)
	if d.CRMID != "" {
		which += fmt.Sprintf(" with the id %.40q", d.CRMID)
	}
	switch len(found) {
	case 0:
		return 0, &lockstep.Error{
			Code: lockstep.CodeNotFound, Field: "name", Msg: "the CRM has no marketing list " + which,
			Hint: "correct the name, or make the list in the CRM; one that was just made is known after the next sync of marketing lists",
		}
	case 1:
		return found[0], nil
	}
	return 0, &lockstep.Error{Code: lockstep.CodeConflict, Field: "name", Msg: fmt.Sprintf("%d marketing lists are called %q", len(found), d.Name), Hint: "say which one with crm_id:"}
}

func (t *target) schedules() {
	if t.doc.Schedules == nil {
		return
	}
	t.want.Schedules = nil
	seen := map[lockstep.SyncType]bool{}
	for i, d := range t.doc.Schedules {
		switch {
		case !slices.Contains(lockstep.SyncTypes, d.Type):
			t.problem("schedules", i, "", unknownType(d.Type))
			continue
		case seen[d.Type]:
			t.problem("schedules", i, "type", invalid("", fmt.Sprintf("the schedule of %s is there twice", d.Type), "make one of both"))
			continue
		}
		seen[d.Type] = true
		s, err := readSchedule(d)
		t.problem("schedules", i, "", err)
		t.want.Schedules = append(t.want.Schedules, t.rescheduled(d.Type, s))
	}
	for _, old := range t.state.Schedules {
		if !seen[old.Type] {
			t.want.Schedules = append(t.want.Schedules, t.rescheduled(old.Type, lockstep.DefaultSchedule(old.Type)))
		}
	}
}

// rescheduled is a sync type's stored schedule with another content.
func (t *target) rescheduled(of lockstep.SyncType, s lockstep.Schedule) lockstep.SyncSchedule {
	sc := lockstep.SyncSchedule{Account: t.account.ID, Type: of}
	if i := slices.IndexFunc(t.state.Schedules, func(o lockstep.SyncSchedule) bool { return o.Type == of }); i >= 0 {
		sc = t.state.Schedules[i]
	}
	sc.Schedule = s
	return sc
}

// readSchedule reads a schedule of a document.
func readSchedule(d configuration.Schedule) (lockstep.Schedule, error) {
	s := lockstep.Schedule{Interval: lockstep.Interval(d.Interval), Zone: d.Zone}
	var wrong []error
	clock := func(field, text string) (at lockstep.ClockTime) {
		if err := at.UnmarshalText([]byte(text)); err != nil {
			wrong = append(wrong, named(err, field))
		}
		return at
	}
	if d.At != "" {
		s.At = clock("at", d.At)
	}
	for i, w := range d.Windows {
		at := fmt.Sprintf("windows[%d]", i)
		read := lockstep.Window{From: clock(at+".from", w.From), To: clock(at+".to", w.To), Zone: w.Zone}
		for n, name := range w.Days {
			var day lockstep.Weekday
			if err := day.UnmarshalText([]byte(name)); err != nil {
				wrong = append(wrong, named(err, fmt.Sprintf("%s.days[%d]", at, n)))
			}
			read.Days = append(read.Days, day)
		}
		s.Windows = append(s.Windows, read)
	}
	_, err := checkSchedule(&s)
	return s, errors.Join(append(wrong, err)...)
}

// edit stores what the plan changes.
func (a *App) edit(ctx context.Context, tx store.Tx, t *target) error {
	e := store.Edit{}
	for _, l := range t.want.Labels {
		if !slices.Contains(t.state.Labels, l) {
			e.Labels = append(e.Labels, l)
		}
	}
	for _, l := range t.state.Labels {
		if !slices.ContainsFunc(t.want.Labels, func(o lockstep.DataLabel) bool { return o.ID == l.ID }) {
			e.DropLabels = append(e.DropLabels, l.ID)
		}
	}
	for _, m := range t.want.Mappings {
		if !slices.Contains(t.state.Mappings, m) {
			e.Mappings = append(e.Mappings, m)
		}
	}
	for _, m := range t.state.Mappings {
		if !slices.ContainsFunc(t.want.Mappings, func(o lockstep.DataMapping) bool { return o.ID == m.ID }) {
			e.DropMappings = append(e.DropMappings, m.ID)
		}
	}
	for _, l := range t.want.Lists {
		if !slices.Contains(t.state.Lists, l) {
			e.Lists = append(e.Lists, l)
		}
	}
	before, after := (*configuration.State)(&t.state), (*configuration.State)(&t.want)
	for _, sc := range t.want.Schedules {
		if reflect.DeepEqual(configuration.ScheduleOf(sc.Type, before.Schedule(sc.Type)), configuration.ScheduleOf(sc.Type, sc.Schedule)) {
			continue
		}
		plan, err := checkSchedule(&sc.Schedule)
		if err != nil {
			return err
		}
		a.reschedule(&sc, sc.Schedule, plan)
		e.Schedules = append(e.Schedules, sc)
	}
	if !reflect.DeepEqual(configuration.Of(before).Settings, configuration.Of(after).Settings) {
		e.Account = &t.want.Account
	}
	return a.store.EditIn(ctx, tx, t.account.ID, e)
}
