package engine

import (
	"fmt"
	"slices"
	"strings"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/crosswalk"
)

// forgo notes that a label's data field is not there any more, or is another one of its
// name. What both sides agreed on is no base any longer: the next field of the name is
// empty, and nobody has cleared it.
func forgo(l *lockstep.DataLabel) {
	l.Synced = false
	l.Remade++
}

// fieldsLately looks, as often as who answers is verified, whether the data fields of
// mapped labels are still there. Where one is not, its mappings rest with a finding and
// everything else goes on; a run of data-labels makes it anew.
func (s *session) fieldsLately() error {
	a, ok := s.e.sentinel.of(s.account.ID)
	if age := s.e.Now().Sub(a.fieldsAt); ok && a.platform == s.platform && age >= 0 && age < verifyEvery {
		return nil
	}
	_, err := s.compareFields()
	if err == nil {
		s.e.sentinel.checked(s.account.ID, s.e.Now())
	}
	return err
}

// compareFields forgoes labels whose data field is not on the platform, or of another
// type, and returns their names.
func (s *session) compareFields() (lost []string, err error) {
	fields, err := s.platform.Fields(s.ctx)
	if err != nil {
		return nil, err
	}
	types := make(map[string]lockstep.FieldType, len(fields))
	for _, f := range fields {
		types[strings.ToLower(f.Name)] = f.Type
	}
	var changed []lockstep.DataLabel
	for i := range s.labels {
		l := &s.labels[i]
		if t, there := types[strings.ToLower(l.Name)]; l.Synced && (!there || t != l.Type) {
			forgo(l)
			lost, changed = append(lost, l.Name), append(changed, *l)
		}
	}
	if len(changed) == 0 || s.dry() {
		return lost, nil
	}
	return lost, s.commit(lockstep.Commit{Labels: changed})
}

// A field is taken for one that was made anew when most of so many contacts, of whom it
// had a value when they were last looked at, have none now.
const (
	remadeSample = 5
	remadeLook   = 200 // links at most that are searched for the sample
)

// doubtCleared looks, before values of CRM records are cleared because contacts have none,
// whether the data fields are those that had them: somebody may have deleted one, or
// deleted it and made it anew, which empties it for everybody. Then nothing is cleared;
// the slice ends, and the next one fills the field from the CRM.
func (s *session) doubtCleared() error {
	if len(s.sync.clearing) == 0 {
		return nil
	}
	lost, err := s.compareFields()
	if err != nil {
		return err
	}
	var changed []lockstep.DataLabel
	for pos := range s.sync.names {
		if !s.sync.clearing[pos] || slices.Contains(lost, s.sync.names[pos]) {
			continue
		}
		empty, err := s.emptied(pos)
		if err != nil {
			return err
		}
		if empty {
			l := s.label(s.sync.names[pos])
			l.Remade++
			lost, changed = append(lost, l.Name), append(changed, *l)
		}
	}
	clear(s.sync.clearing)
	switch {
	case len(lost) == 0:
		return nil
	case s.dry():
		s.hold(0, "data fields of the email account were deleted or made anew since the last sync: %s; what they had is not cleared in the CRM", strings.Join(lost, ", "))
		for _, b := range s.sync.blanks {
			b.over, b.told = true, true
		}
		return nil
	}
	if len(changed) > 0 {
		if err := s.commit(lockstep.Commit{Labels: changed}); err != nil {
			return err
		}
	}
	return errYield
}

// emptied asks a few contacts that nobody sets out to clear for their value of a field.
func (s *session) emptied(pos int) (bool, error) {
	var some []crosswalk.Link
	s.mu.Lock()
	for l := range s.sync.links.All() {
		if b := s.sync.blanks[l.Ref.Table]; l.Contact == "" || l.Ref.Table == "" || !l.Master || b != nil && b.counted[l.Ref.ID] {
			continue
		}
		if some = append(some, l); len(some) == remadeLook {
			break
		}
	}
	s.mu.Unlock()
	entries, err := s.entries(some)
	if err != nil {
		return false, err
	}
	asked, empty := 0, 0
	for i := range entries {
		e := &entries[i]
		if pos >= len(e.Base) || e.Base[pos].IsNull() || e.Base[pos].IsAbsent() || e.Standing == lockstep.ContactDeleted {
			continue
		}
		c, err := s.platform.ContactByID(s.ctx, e.Contact, s.sync.names)
		if lockstep.CodeOf(err) == lockstep.CodeNotFound {
			continue
		}
		if err != nil {
			return false, fmt.Errorf("look whether the field %s was made anew: %w", s.sync.names[pos], err)
		}
		if asked++; pos < len(c.Values) && c.Values[pos].IsNull() {
			empty++
		}
		if asked == remadeSample {
			break
		}
	}
	return 2*empty > asked, nil
}
