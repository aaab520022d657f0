package dotdigital

import (
	"time"
)

// Write is one applied write, as the history hook sees it.
type Write struct {
	// Time is the twins' time of the write.
	Time time.Time
	// Kind is "create", "update", "restore", "delete", "destroy", "status",
	// "join-list", "leave-list", "list-status", "preference", "consent", "challenge", or
	// "list-challenge": a mail asks whether to resubscribe.
	Kind string
	// Operation is the API operation as the counters name it, or "people." and
	// what a person did; Principal is the API user, empty for a person.
	Operation, Principal string
	// ContactID is the contact, or 0; Email its address after the write.
	ContactID int64
	Email     string
	// Object identifies what is not a contact: the name of a field or identifier,
	// the id of a list, preference, campaign or send. The kind is then the object's
	// and what was done, such as "list-create".
	Object string
	// List is the list of a membership write.
	List int32
	// Source is "import", "api", "list-removal", "recipient", "fault" or "loader".
	Source string
	// Changes say what became of each value.
	Changes []FieldChange
}

// FieldChange is one value before and after a write, as JSON; empty where there is
// none. Name is the data field in upper case, or "email", "mobileNumber", "status",
// "optInType", "emailType", "sms", "whatsApp", "consent" (its text), "identifier:"
// and the name of a custom identifier, "preference:" and the id of a preference, or
// "name" of an object.
type FieldChange struct{ Name, Old, New string }

// writer carries the circumstances of one write: when, through what, and the
// changes collected for the history.
type writer struct {
	s         *Server
	now       int64
	source    string
	operation string // of the call; what a person did otherwise
	principal string // the API user; empty when no call did it
	changes   []FieldChange
}

// writer returns the circumstances of a call's writes.
func (c *call) writer(source string) *writer {
	return &writer{s: c.s, now: c.s.now(), source: source, operation: c.route.operation, principal: c.user}
}

func (w *writer) changed(name, from, to string) {
	if w.s.opt.History != nil && from != to {
		w.changes = append(w.changes, FieldChange{name, from, to})
	}
}

// changedText is changed for a text, which is told as JSON.
func (w *writer) changedText(name, from, to string) {
	if w.s.opt.History != nil && from != to {
		w.changes = append(w.changes, FieldChange{name, textLiteral(from), textLiteral(to)})
	}
}

func textLiteral(s string) string {
	if s == "" {
		return ""
	}
	return string(appendQuoted(nil, s))
}

// note tells the history about a write to something that is no contact. named are
// its name before and after.
func (c *call) note(kind, object, from, to string) {
	if c.s.opt.History == nil {
		return
	}
	w := c.writer("api")
	w.changedText("name", from, to)
	c.s.opt.History(Write{
		Time: time.UnixMilli(w.now).UTC(), Kind: kind, Operation: w.operation, Principal: w.principal, Object: object, Source: w.source, Changes: w.changes,
	})
}

func (w *writer) record(kind string, i uint32, list int32) {
	if w.s.opt.History == nil {
		return
	}
	w.s.opt.History(Write{
		Time: time.UnixMilli(w.now).UTC(), Kind: kind, Operation: w.operation, Principal: w.principal,
		ContactID: contactID(i), Email: w.s.at(i).email, List: list, Source: w.source, Changes: w.changes,
	})
	w.changes = nil
}

// touch moves the contact's modification time.
func (w *writer) touch(i uint32) { w.s.updated[i] = w.now }

// setStatus moves the email channel to another state and keeps the suppression
// row, the list memberships and LASTSUBSCRIBED in step with it.
func (w *writer) setStatus(i uint32, to emailStatus) {
	c := w.s.at(i)
	from := c.status
	if from == to {
		return
	}
	c.status = to
	if to.blocked() {
		c.removedAt = w.now
		c.challenged = false
		if c.life == live {
			w.s.blockedSet.add(i)
		}
		w.leaveAll(i)
	} else {
		w.s.blockedSet.remove(i)
		if to == subscribed {
			c.subscribedAt = w.now
			c.challenged = false
			c.softBounces = 0
		}
	}
	w.touch(i)
	w.changedText("status", statusNames[from].channel, statusNames[to].channel)
	w.record("status", i, 0)
}

// unsubscribe and suppress never soften a stronger suppression.
// Who leaves again takes back that a challenge could have been confirmed.
func (w *writer) block(i uint32, to emailStatus) {
	c := w.s.at(i)
	c.challenged = false
	switch {
	case c.status == subscribed || c.status == pendingOptIn || c.status == noSubscription,
		c.status == softBounced, c.status == unsubscribed && to == suppressed, c.status == suppressed && to == unsubscribed:
		w.setStatus(i, to)
	}
}

// leaveAll ends every membership. What the contact unsubscribed from stays on
// record, so that a later return to the account does not undo it.
func (w *writer) leaveAll(i uint32) {
	c := w.s.at(i)
	var kept []membership
	for _, m := range c.lists {
		if m.status != inList {
			kept = append(kept, m)
			continue
		}
		w.s.lists[m.list].members.remove(i)
		w.record("leave-list", i, m.list)
	}
	c.lists = kept
}

// join adds the contact to a list; it reports false when the contact has
// unsubscribed from that list.
func (w *writer) join(i uint32, l *list) bool {
	c := w.s.at(i)
	if k := c.membership(l.id); k >= 0 {
		return c.lists[k].status == inList
	}
	if c.lists == nil {
		c.lists = make([]membership, 0, 1)
	}
	c.lists = append(c.lists, membership{list: l.id})
	l.members.add(i)
	w.touch(i)
	w.record("join-list", i, l.id)
	return true
}

// leave removes the contact from a list without trace, unless the contact
// unsubscribed from it: that row stays.
func (w *writer) leave(i uint32, l *list) {
	c := w.s.at(i)
	k := c.membership(l.id)
	if k < 0 || c.lists[k].status != inList {
		return
	}
	c.lists = append(c.lists[:k], c.lists[k+1:]...)
	l.members.remove(i)
	w.touch(i)
	w.record("leave-list", i, l.id)
}

// leaveByChoice unsubscribes the contact from one list.
func (w *writer) leaveByChoice(i uint32, l *list) {
	c := w.s.at(i)
	k := c.membership(l.id)
	if k < 0 {
		c.lists = append(c.lists, membership{list: l.id})
		k = len(c.lists) - 1
	} else if c.lists[k].status != inList {
		c.lists[k].status = leftList
		return
	}
	c.lists[k].status = leftList
	l.members.remove(i)
	l.left.note(i, w.now)
	w.touch(i)
	w.record("list-status", i, l.id)
}

// returnToList undoes leaveByChoice.
func (w *writer) returnToList(i uint32, l *list) {
	c := w.s.at(i)
	k := c.membership(l.id)
	if k < 0 {
		w.join(i, l)
		return
	}
	if c.lists[k].status == inList {
		return
	}
	c.lists[k].status = inList
	l.left.forget(i)
	l.members.add(i)
	w.touch(i)
	w.record("list-status", i, l.id)
}

// bin moves the contact into the recycle bin. Its identifiers stay taken: a
// later write by one of them restores the contact with its channel status.
func (w *writer) bin(i uint32) {
	c := w.s.at(i)
	w.leaveAll(i)
	c.life = binned
	w.s.alive.remove(i)
	w.s.blockedSet.remove(i)
	w.touch(i)
	w.record("delete", i, 0)
}

// restore takes the contact out of the recycle bin. A suppression survives.
func (w *writer) restore(i uint32) {
	c := w.s.at(i)
	c.life = live
	w.s.alive.add(i)
	if c.status.blocked() {
		w.s.blockedSet.add(i)
	}
	w.touch(i)
	w.record("restore", i, 0)
}

// destroy empties a binned contact and frees its identifiers.
func (w *writer) destroy(i uint32) {
	c := w.s.at(i)
	w.s.setEmail(i, nil)
	for _, m := range c.lists {
		w.s.lists[m.list].left.forget(i)
	}
	if c.rare != nil {
		delete(w.s.byMobile, c.rare.mobile)
		for n, v := range c.rare.custom {
			delete(w.s.byCustom, customKey{n, v})
		}
		for id := range c.rare.prefs {
			w.s.prefs.byID[id].chosen.remove(i)
		}
	}
	*c = contact{life: destroyed}
	w.record("destroy", i, 0)
}

// mergeOption says which stored values a write may replace.
type mergeOption uint8

const (
	overwrite mergeOption = iota
	overwriteIfNotEmpty
	overwriteIfEmpty
)

// fieldValue is one value of a write in stored form; blank when lit is empty.
type fieldValue struct {
	field *field
	lit   []byte
}

// merge writes values into the contact. scratch is reused between contacts.
func (w *writer) merge(i uint32, values []fieldValue, opt mergeOption, scratch []byte) []byte {
	c := w.s.at(i)
	b := scratch[:0]
	eachValue(c.values, func(id uint32, old string) {
		for k := range values {
			v := &values[k]
			if v.field == nil || v.field.id != id {
				continue
			}
			name, lit := v.field.name, v.lit
			v.field = nil
			if opt == overwriteIfEmpty || len(lit) == 0 && opt == overwriteIfNotEmpty {
				break
			}
			w.changed(name, old, string(lit))
			if len(lit) > 0 {
				b = appendPacked(b, id, lit)
			}
			return
		}
		b = appendPacked(b, id, old)
	})
	for k := range values {
		if v := &values[k]; v.field != nil && len(v.lit) > 0 {
			w.changed(v.field.name, "", string(v.lit))
			b = appendPacked(b, v.field.id, v.lit)
		}
	}
	if string(b) != c.values {
		c.values = string(b)
	}
	return b
}
