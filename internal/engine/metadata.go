package engine

import (
	"fmt"
	"slices"
	"strings"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/transform"
)

// MemberTables are the tables whose records can be members of a marketing list.
var MemberTables = []string{"account", "contact", "lead"}

// crmMetadata reads which columns can be mapped and suspends mappings whose
// column is gone or has another type now; the other mappings go on.
func (s *session) crmMetadata() error {
	s.stage("reading CRM metadata")
	tables, err := s.crm.Tables(s.ctx, s.neededTables())
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(tables, func(t lockstep.Table) bool { return slices.Contains(MemberTables, t.Name) }) {
		return &lockstep.Error{
			Code: lockstep.CodeUnsupported, Op: "read CRM metadata", Msg: "the organization has none of the tables account, contact and lead",
			Hint: "check that the Sales or Customer Insights app is installed and that the application user may read metadata",
		}
	}
	looked, err := s.crm.Tables(s.ctx, s.lookedUp(tables))
	if err != nil && lockstep.CodeOf(err) != lockstep.CodeForbidden { // then what goes through them is suspended
		return err
	}
	tables = append(tables, looked...)
	for _, t := range tables {
		s.counts.Read += int64(len(t.Columns))
		s.counts.Equal += int64(len(t.Columns))
	}
	if s.dry() {
		return s.commit(lockstep.Commit{})
	}
	s.e.step("tables.save")
	if err := s.e.Store.SaveTables(s.ctx, s.org.ID, tables); err != nil {
		return err
	}
	s.tables = tables
	var changed []lockstep.DataMapping
	for _, m := range s.mappings {
		was := m.Disabled
		m.Disabled = ""
		if problem := s.checkMapping(m); problem != nil {
			m.Disabled = problem.Msg
			if was != m.Disabled {
				s.finding(lockstep.Finding{
					Code: lockstep.FindingMappingDisabled, Table: m.Table, Field: m.Column,
					Message: fmt.Sprintf("the mapping of label %s is suspended: %s", m.Label, problem.Msg), Hint: problem.Hint,
				})
			}
		}
		if was != m.Disabled {
			changed = append(changed, m)
		}
	}
	return s.commit(lockstep.Commit{Mappings: changed})
}

// neededTables are the member tables and the tables that we bring ourselves, where
// they are installed.
func (s *session) neededTables() []string {
	return slices.Concat(MemberTables, lockstep.OwnTables)
}

// lookedUp are the tables, other than these, that mappings reach through a lookup.
func (s *session) lookedUp(tables []lockstep.Table) []string {
	var names []string
	for _, m := range s.mappings {
		lookup, _, hop := strings.Cut(m.Column, ".")
		if !hop {
			continue
		}
		for i := range tables {
			if tables[i].Name == m.Table {
				names = append(names, transform.Unread(&tables[i], tables, lookup)...)
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func (s *session) table(name string) *lockstep.Table {
	for i := range s.tables {
		if s.tables[i].Name == name {
			return &s.tables[i]
		}
	}
	return nil
}

func (s *session) label(name string) *lockstep.DataLabel {
	for i := range s.labels {
		if strings.EqualFold(s.labels[i].Name, name) {
			return &s.labels[i]
		}
	}
	return nil
}

// checkMapping says why a mapping cannot work; nil when it can.
func (s *session) checkMapping(m lockstep.DataMapping) *lockstep.Error {
	t := s.table(m.Table)
	if t == nil {
		return &lockstep.Error{Code: lockstep.CodeInvalid, Field: "table", Msg: "the organization has no table " + m.Table}
	}
	first, far, hop := strings.Cut(m.Column, ".")
	col, ok := t.Column(first)
	if !ok {
		return &lockstep.Error{
			Code: lockstep.CodeInvalid, Field: "column", Msg: fmt.Sprintf("the table %s has no column %s any more", m.Table, first),
			Hint: "map another column or delete the mapping",
		}
	}
	if hop {
		if col.Type != lockstep.ColumnLookup {
			return &lockstep.Error{Code: lockstep.CodeInvalid, Field: "column", Msg: first + " is not a lookup, so nothing lies behind it"}
		}
		if col, ok = transform.Related(t, s.tables)(first, far); !ok {
			return &lockstep.Error{
				Code: lockstep.CodeInvalid, Field: "column", Msg: fmt.Sprintf("no table that %s leads to has a column %s that can be read", first, far),
				Hint: "map another column or delete the mapping; check the application user's rights on the table",
			}
		}
	}
	label := s.label(m.Label)
	if label == nil {
		return &lockstep.Error{Code: lockstep.CodeInvalid, Field: "label", Msg: "there is no data label " + m.Label}
	}
	if err := transform.CheckMapping(*label, *col, m.Direction, hop); err != nil {
		return lockstep.AsError(err)
	}
	return nil
}

// dataLabels brings labels and the platform's data fields in step: fields that
// only the platform has become labels, labels that only we have become fields.
// Nothing is ever deleted here.
func (s *session) dataLabels() error {
	s.stage("comparing data labels")
	fields, err := s.platform.Fields(s.ctx)
	if err != nil {
		return err
	}
	var changed []lockstep.DataLabel
	var planned []lockstep.Change
	for _, f := range fields {
		s.counts.Read++
		if f.System {
			s.counts.Equal++
			continue
		}
		l := s.label(f.Name)
		switch {
		case l == nil:
			changed = append(changed, lockstep.DataLabel{
				ID: lockstep.NewID(s.e.Now()).String(), Account: s.account.ID, Name: f.Name, Type: f.Type,
				Private: f.Private, Default: f.Default.Text(), Synced: true,
			})
			s.counts.Written++
		case l.Type != f.Type:
			s.counts.Rejected++
			s.finding(lockstep.Finding{
				Code: lockstep.FindingMappingDisabled, Field: l.Name,
				Message: fmt.Sprintf("the label %s is %s here and %s on the platform", l.Name, l.Type, f.Type),
				Hint:    "delete the label here and let it be read again, or give it another name",
			})
			if l.Synced {
				forgo(l)
				changed = append(changed, *l)
			}
		case !l.Synced || l.Private != f.Private:
			l.Synced, l.Private = true, f.Private
			changed = append(changed, *l)
			s.counts.Written++
		default:
			s.counts.Equal++
		}
	}
	has := func(name string) bool {
		return slices.ContainsFunc(fields, func(f lockstep.DataField) bool { return strings.EqualFold(f.Name, name) })
	}
	var lost []lockstep.DataLabel
	for i := range s.labels {
		l := &s.labels[i]
		if has(l.Name) {
			continue
		}
		why := "label without a field"
		if l.Synced {
			why = "its field was deleted on the platform"
			forgo(l)
			lost = append(lost, *l)
		}
		s.counts.Read++
		planned = append(planned, lockstep.Change{
			Kind: lockstep.CreateField, State: lockstep.Planned, Name: l.Name, Why: why,
			Fields: []lockstep.FieldChange{{Name: "type", New: lockstep.TextValue(string(l.Type))}},
		})
	}
	if s.dry() {
		s.counts.Written += int64(len(planned))
		return s.planOnly(planned)
	}
	if len(lost) > 0 { // noted first: a field that is there again is not the one that was
		if err := s.commit(lockstep.Commit{Labels: lost}); err != nil {
			return err
		}
	}
	return s.callEach(planned, func(c *lockstep.Change) (*lockstep.Error, error) {
		l := s.label(c.Name)
		var def lockstep.Value
		if l.Default != "" {
			def = lockstep.TextValue(l.Default)
		}
		err := s.platform.CreateField(s.ctx, lockstep.DataField{Name: l.Name, Type: l.Type, Private: l.Private, Default: def})
		if err != nil {
			le := lockstep.AsError(err)
			if le.Scope == lockstep.ScopeConnection || transient(err) {
				return nil, err
			}
			s.counts.Rejected++
			s.finding(lockstep.Finding{Code: lockstep.FindingRejected, Field: l.Name, Message: "the platform refused the field: " + le.Msg, Hint: le.Hint})
			return le, nil
		}
		done := *l
		done.Synced = true
		changed = append(changed, done)
		s.counts.Written++
		return nil, nil
	}, func(end *lockstep.Commit) { end.Labels = changed })
}
