package configuration

import (
	"fmt"
	"strconv"
	"strings"
)

// The kinds of change.
const (
	Created = "created"
	Changed = "changed"
	Deleted = "deleted"
)

// Change is what applying a document does to one item.
type Change struct {
	Account string `json:"account" doc:"Name of the email account; empty for what all share."`
	Item    string `json:"item" doc:"installation, organization, settings, label, mapping, list or schedule."`
	Name    string `json:"name,omitempty" doc:"Which one."`
	Action  string `json:"action" enum:"created,changed,deleted"`
	// Fields are what differs; of a created item, what it begins with.
	Fields []FieldChange `json:"fields,omitempty"`
	// Note says what else follows.
	Note string `json:"note,omitempty"`
}

// FieldChange is one value before and after, as a document would say it.
type FieldChange struct {
	Name string `json:"name"`
	Old  string `json:"old,omitempty"`
	New  string `json:"new,omitempty"`
}

// String is the change in words: a line, and one for each field that changes.
func (c *Change) String() string {
	var b strings.Builder
	b.WriteString(c.Item)
	if c.Name != "" {
		b.WriteString(" " + c.Name)
	}
	b.WriteString(": " + c.Action)
	if c.Note != "" {
		b.WriteString(" (" + c.Note + ")")
	}
	for _, f := range c.Fields {
		switch {
		case c.Action == Created:
			fmt.Fprintf(&b, "\n  %s: %s", f.Name, f.New)
		default:
			fmt.Fprintf(&b, "\n  %s: %s → %s", f.Name, nothing(f.Old), nothing(f.New))
		}
	}
	return b.String()
}

func nothing(s string) string {
	if s == "" {
		return "(none)"
	}
	return s
}

// field is one key of an item with its value: a string, bool, int, list of words or
// list of windows. One that says nothing is at its default and left out of a text.
type field struct {
	name  string
	value any
	quiet bool
}

// text is a value as a person reads it; empty when there is none.
func (f *field) text() string {
	switch v := f.value.(type) {
	case string:
		if v == "" {
			return ""
		}
		return scalar(v)
	case bool:
		return strconv.FormatBool(v)
	case int:
		return strconv.Itoa(v)
	case []string:
		return strings.Join(v, ", ")
	case []Window:
		var parts []string
		for _, w := range v {
			parts = append(parts, strings.TrimSpace(strings.Join(w.Days, ",")+" "+w.From+"-"+w.To+" "+w.Zone))
		}
		return strings.Join(parts, "; ")
	}
	return ""
}

// given adds a value that is not nil.
func given[T any](to []field, name string, v *T, value func(T) any) []field {
	if v == nil {
		return to
	}
	return append(to, field{name: name, value: value(*v)})
}

func as[T any](v T) any       { return v }
func word[T ~string](v T) any { return string(v) }

// item is one thing of a section.
type item interface {
	key() string   // tells it from the others
	title() string // for people
	fields() []field
}

func (*Settings) key() string   { return "" }
func (*Settings) title() string { return "" }

func (s *Settings) fields() []field {
	var f []field
	f = given(f, "description", s.Description, as)
	isDefault := s.Default != nil && *s.Default
	f = append(f, field{name: "default", value: isDefault, quiet: !isDefault})
	f = given(f, "priority", s.Priority, as)
	f = given(f, "create_cap", s.CreateCap, as)
	f = given(f, "automatic", s.Automatic, as)
	f = given(f, "bulk_opt_out", s.BulkOptOut, word)
	f = given(f, "alone_with_suppressions", s.AloneWithSuppressions, as)
	f = given(f, "guard_percent", s.GuardPercent, as)
	f = given(f, "guard_rows", s.GuardRows, as)
	f = given(f, "guard_floor", s.GuardFloor, as)
	f = given(f, "confirm_changes", s.ConfirmChanges, as)
	f = given(f, "calls_per_hour", s.CallsPerHour, as)
	return given(f, "calls_per_day", s.CallsPerDay, as)
}

func (*Installation) key() string   { return "" }
func (*Installation) title() string { return "" }

func (i *Installation) fields() []field {
	return given(nil, "retention_days", i.RetentionDays, as)
}

func (o *Organization) key() string   { return strings.ToLower(o.Name) }
func (o *Organization) title() string { return scalar(o.Name) }

func (o *Organization) fields() []field {
	f := []field{{name: "name", value: o.Name}}
	f = given(f, "calls_per_hour", o.CallsPerHour, as)
	return given(f, "calls_per_day", o.CallsPerDay, as)
}

func (l *Label) key() string   { return strings.ToLower(l.Name) }
func (l *Label) title() string { return scalar(l.Name) }

func (l *Label) fields() []field {
	return []field{
		{name: "name", value: l.Name},
		{name: "type", value: string(l.Type)},
		{name: "private", value: l.Private, quiet: !l.Private},
		{name: "default", value: l.Default, quiet: l.Default == ""},
		{name: "description", value: l.Description, quiet: l.Description == ""},
	}
}

func (m *Mapping) key() string {
	return m.Table + "\x00" + strings.ToLower(m.Label) + "\x00" + string(m.Direction)
}

func (m *Mapping) title() string {
	return scalar(m.Label) + " " + string(m.Direction) + " of " + m.Table
}

func (m *Mapping) fields() []field {
	return []field{
		{name: "label", value: m.Label},
		{name: "table", value: m.Table},
		{name: "direction", value: string(m.Direction)},
		{name: "column", value: m.Column},
		{name: "winner", value: string(m.Winner)},
		{name: "empty", value: string(m.Empty)},
		{name: "default", value: m.Default, quiet: m.Default == ""},
		{name: "truncate", value: m.Truncate, quiet: !m.Truncate},
		{name: "as_number", value: m.AsNumber, quiet: !m.AsNumber},
	}
}

func (l *List) key() string { return l.Name + "\x00" + l.CRMID }

func (l *List) title() string {
	if l.CRMID != "" {
		return strconv.Quote(l.Name) + " " + l.CRMID
	}
	return strconv.Quote(l.Name)
}

func (l *List) fields() []field {
	f := []field{{name: "name", value: l.Name}, {name: "crm_id", value: l.CRMID, quiet: l.CRMID == ""}}
	f = given(f, "activated", l.Activated, as)
	f = given(f, "membership_action", l.MembershipAction, word)
	f = given(f, "subscription_filter", l.SubscriptionFilter, word)
	f = given(f, "min_opt_in", l.MinOptIn, as)
	f = given(f, "mirror_removals", l.MirrorRemovals, as)
	f = given(f, "clear_on_send", l.ClearOnSend, as)
	f = given(f, "sync_order", l.SyncOrder, as)
	f = given(f, "manual_only", l.ManualOnly, as)
	return given(f, "keep_automatic", l.KeepAutomatic, as)
}

func (s *Schedule) key() string   { return string(s.Type) }
func (s *Schedule) title() string { return string(s.Type) }

func (s *Schedule) fields() []field {
	return []field{
		{name: "type", value: string(s.Type)},
		{name: "interval", value: s.Interval},
		{name: "at", value: s.At, quiet: s.At == ""},
		{name: "zone", value: s.Zone, quiet: s.Zone == ""},
		{name: "windows", value: s.Windows, quiet: len(s.Windows) == 0},
	}
}

func items[T any, P interface {
	*T
	item
}](all []T) []item {
	out := make([]item, len(all))
	for i := range all {
		out[i] = P(&all[i])
	}
	return out
}

// DiffShared says how what all accounts share changes.
func DiffShared(from, to *Document) []Change {
	var all []Change
	add := func(what string, changes []Change) {
		for _, c := range changes {
			c.Item = what
			all = append(all, c)
		}
	}
	if from.Installation != nil && to.Installation != nil {
		add("installation", diff([]item{from.Installation}, []item{to.Installation}))
	}
	add("organization", diff(items(from.Organizations), items(to.Organizations)))
	return all
}

// Diff says how an account's whole configuration, as Of writes it, changes from one to
// another: settings, labels, mappings, lists and schedules.
func Diff(from, to *Account) []Change {
	var all []Change
	section := func(what string, before, after []item, notes map[string]string) {
		for _, c := range diff(before, after) {
			c.Account, c.Item = to.Name, what
			c.Note = notes[c.Action]
			all = append(all, c)
		}
	}
	section("settings", []item{from.Settings}, []item{to.Settings}, nil)
	section("label", items(from.Labels), items(to.Labels), map[string]string{
		Created: "the next data-labels run makes its field on the platform",
		Deleted: "its field on the platform stays, and the next data-labels run reads it again",
	})
	section("mapping", items(from.Mappings), items(to.Mappings), map[string]string{Deleted: "values already written stay"})
	section("list", items(from.Lists), items(to.Lists), nil)
	section("schedule", items(from.Schedules), items(to.Schedules), nil)
	return all
}

// diff compares the items of one section.
func diff(from, to []item) []Change {
	var all []Change
	was := map[string]item{}
	for _, f := range from {
		was[f.key()] = f
	}
	stays := map[string]bool{}
	for _, t := range to {
		stays[t.key()] = true
		c := Change{Name: t.title(), Action: Created}
		old, there := was[t.key()]
		values := map[string]string{}
		if there {
			c.Action = Changed
			for _, f := range old.fields() {
				values[f.name] = f.text()
			}
		}
		for _, f := range t.fields() {
			if now := f.text(); there && now != values[f.name] || !there && !f.quiet {
				c.Fields = append(c.Fields, FieldChange{Name: f.name, Old: values[f.name], New: now})
			}
		}
		if !there || len(c.Fields) > 0 {
			all = append(all, c)
		}
	}
	for _, f := range from {
		if !stays[f.key()] {
			all = append(all, Change{Name: f.title(), Action: Deleted})
		}
	}
	return all
}
