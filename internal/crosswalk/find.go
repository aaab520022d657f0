package crosswalk

import (
	lockstep "github.com/lockstep-sync/lockstep"
)

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
