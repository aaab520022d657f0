package crosswalk

import (
	lockstep "github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/subject"
)

// Subjects returns the filter of the records and addresses of a payload of links; nil when it is damaged.
func Subjects(payload []byte) []byte {
	var all []subject.Hash
	err := scan(payload, nil, func(_ int, h *head, _ []byte) error {
		all = append(all, subject.Record(h.id))
		if h.flags&flagClosed == 0 {
			all = append(all, subject.Of(string(h.email)))
		}
		return nil
	})
	if err != nil {
		return nil
	}
	return subject.Filter(all)
}

// MemberSubjects returns the filter of the records, and the contacts without one, of a
// payload of members; nil when it is damaged.
func MemberSubjects(payload []byte) []byte {
	var all []subject.Hash
	err := scanMembers(payload, func(m Member, contact []byte) error {
		if m.Record.IsZero() {
			all = append(all, subject.Of(string(contact)))
		} else {
			all = append(all, subject.Record(m.Record))
		}
		return nil
	})
	if err != nil {
		return nil
	}
	return subject.Filter(all)
}

// Find calls each with the entries of a payload that have a normalised address, and
// with those of records that known reports: a later entry of such a record may have
// another address or close the link. It is Decode for a caller that wants a few of
// many entries: the others cost no memory.
func Find(payload []byte, email string, known func(lockstep.Ref) bool, each func(labels []string, e Entry) error) error {
	var labels []string
	return scan(payload, func(l []string) { labels = l }, func(_ int, h *head, body []byte) error {
		if string(h.email) != email && !known(lockstep.Ref{Table: h.table, ID: h.id}) {
			return nil
		}
		e, err := DecodeEntry(labels, body)
		if err != nil {
			return err
		}
		return each(labels, e)
	})
}

// FindMembers calls each with the members of a payload that want reports, by record or,
// for those without one, by contact.
func FindMembers(payload []byte, want func(record lockstep.ID, contact []byte) bool, each func(Member)) error {
	return scanMembers(payload, func(m Member, contact []byte) error {
		if want(m.Record, contact) {
			m.Contact = lockstep.ContactID(contact)
			each(m)
		}
		return nil
	})
}
