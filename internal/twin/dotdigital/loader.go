package dotdigital

import (
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"
)

// AddField creates a contact data field; name has 1 to 20 letters, digits,
// underscores or hyphens.
func (s *Server) AddField(name string, typ FieldType) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, err := s.createField(fieldBody{Name: name, Type: string(typ)})
	return err
}

// UseField makes an object depend on a data field, so that deleting the field
// is refused. kind is a dependency type of the API such as "Campaign".
func (s *Server) UseField(name, kind string, objectID int32) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.fields.find([]byte(name))
	if f == nil {
		return fmt.Errorf("dotdigital twin: no data field %q", name)
	}
	f.uses = append(f.uses, dependency{kind, objectID})
	return nil
}

// AddList creates a list and returns its id.
func (s *Server) AddList(name string, public bool) (int32, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.checkListName(name, 0); err != nil {
		return 0, err
	}
	return s.addList(&list{name: name, public: public}).id, nil
}

// AddSegment creates a segment and returns its id, which is of the same
// sequence as the ids of lists. It has no members until it is refreshed.
func (s *Server) AddSegment(name string, rule SegmentRule) (int32, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.checkListName(name, 0); err != nil {
		return 0, err
	}
	return s.addList(&list{name: name, rule: &rule}).id, nil
}

// AddCustomIdentifier defines a custom identifier.
func (s *Server) AddCustomIdentifier(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !validIdentifierName([]byte(name)) || s.customID(name) != nil {
		return fmt.Errorf("dotdigital twin: custom identifier %q cannot be added", name)
	}
	s.customIDs = append(s.customIDs, &customIdentifier{name, s.now()})
	return nil
}

// NewContact is a contact that a Loader adds.
type NewContact struct {
	Email  string
	Mobile string
	Custom map[string]string
	// Values are texts in the form of an import file: numbers in decimal
	// notation, dates in ISO 8601, true and false.
	Values []Value
	Lists  []int32
	// Status is a v2 contact status such as "Unsubscribed"; "" is Subscribed.
	// A contact with a suppressing status joins no list.
	Status string
	// OptIn and EmailType are v2 words; "" is Unknown and Html.
	OptIn, EmailType string
	// Created is the time of creation, last subscription and modification; the
	// twins' time when zero. Removed is the time of the suppression.
	Created, Removed time.Time
}

// Value is one data field value.
type Value struct{ Name, Text string }

// Loader adds contacts before or between runs, past every limit and job. It
// keeps scratch space between contacts and is not safe for concurrent use.
type Loader struct {
	s       *Server
	in      contactInput
	scratch []byte
	lit     []byte
}

// Loader returns a loader of this account.
func (s *Server) Loader() *Loader { return &Loader{s: s} }

func parseStatus(v2 string) (emailStatus, bool) {
	for k := range statusNames {
		if strings.EqualFold(statusNames[k].v2, v2) {
			return emailStatus(k), true
		}
	}
	return 0, false
}

// Contact adds one contact and returns its id. Values and identifiers are
// checked as the API checks them.
func (l *Loader) Contact(n NewContact) (int64, error) {
	s := l.s
	s.mu.Lock()
	defer s.mu.Unlock()
	in := &l.in
	in.reset()
	refuse := func(why string) (int64, error) { return 0, errors.New("dotdigital twin: loading a contact: " + why) }
	if n.Email != "" {
		if in.email = []byte(n.Email); !validEmail(in.email) {
			return refuse("the email address is not valid")
		}
	}
	if n.Mobile != "" {
		if in.mobile = []byte(n.Mobile); !validMobile(in.mobile) {
			return refuse("the mobile number is not valid")
		}
	}
	for _, name := range sortedKeys(n.Custom) {
		in.custom = append(in.custom, customValue{[]byte(name), []byte(n.Custom[name])})
	}
	for _, v := range n.Values {
		f := s.fields.find([]byte(v.Name))
		if f == nil {
			return refuse("no data field " + v.Name)
		}
		l.lit = appendQuoted(l.lit[:0], v.Text)
		if bad := in.addValue(f, l.lit, true); bad != nil {
			return refuse(bad.text)
		}
	}
	ch := &in.channels
	var ok bool
	if n.OptIn != "" {
		if ch.optIn, ok = parseOptIn(n.OptIn); !ok {
			return refuse("unknown opt-in type " + n.OptIn)
		}
	}
	if n.EmailType != "" {
		if ch.emailType, ok = parseEmailType(n.EmailType); !ok {
			return refuse("unknown email type " + n.EmailType)
		}
		ch.hasEmailType = true
	}
	status := subscribed
	if n.Status != "" {
		if status, ok = parseStatus(n.Status); !ok {
			return refuse("unknown status " + n.Status)
		}
	}
	if bad := s.checkIdentifiers(0, false, in); bad != nil {
		return refuse(bad.text)
	}
	for _, id := range n.Lists {
		if t := s.lists[id]; t == nil || t.rule != nil || t.system != ordinary {
			return refuse("a list does not exist or cannot be joined")
		}
	}
	w := &writer{s: s, now: s.now(), source: "loader"}
	if !n.Created.IsZero() {
		w.now = n.Created.UnixMilli()
	}
	out := w.put(0, false, in, overwrite, &l.scratch)
	// The opt-in type of the past needs no confirmation any more.
	s.at(out.index).optIn = ch.optIn
	if status != subscribed {
		if !n.Removed.IsZero() {
			w.now = n.Removed.UnixMilli()
		}
		w.setStatus(out.index, status)
	}
	if !status.blocked() {
		if c := s.at(out.index); len(n.Lists) > 0 {
			c.lists = make([]membership, 0, len(n.Lists))
		}
		for _, id := range n.Lists {
			w.join(out.index, s.lists[id])
		}
	}
	return contactID(out.index), nil
}

// Contact is a contact as checkers see it.
type Contact struct {
	ID     int64
	Email  string
	Mobile string
	Custom map[string]string
	// Status is the v2 status; "Deleted" for a contact in the recycle bin.
	Status string
	OptIn  string
	// Values are JSON literals by field name, blanks left out, dates as
	// "yyyy-MM-ddTHH:mm:ss".
	Values map[string]string
	// Lists are the lists the contact is in, Left those it unsubscribed from.
	Lists, Left []int32
	// Challenged is set while a mail waits to be answered that asks whether the
	// contact wants to be resubscribed.
	Challenged bool
	// Preferences are the marketing preferences that it said something about.
	Preferences map[int32]bool
	Created     time.Time
	Updated     time.Time
	// Subscribed is LASTSUBSCRIBED; Removed the time of the last suppression.
	Subscribed, Removed time.Time
}

func (s *Server) view(i uint32) Contact {
	c := s.at(i)
	at := func(ms int64) time.Time {
		if ms == 0 {
			return time.Time{}
		}
		return time.UnixMilli(ms).UTC()
	}
	out := Contact{
		ID: contactID(i), Email: c.email, Mobile: c.mobile(), Status: v2Status(c), OptIn: optInNames[c.optIn],
		Values: map[string]string{}, Challenged: c.challenged, Created: at(c.created), Updated: at(s.updated[i]),
		Subscribed: at(c.subscribedAt), Removed: at(c.removedAt),
	}
	if c.rare != nil {
		out.Custom = maps.Clone(c.rare.custom)
		for id, v := range c.rare.prefs {
			if out.Preferences == nil {
				out.Preferences = map[int32]bool{}
			}
			out.Preferences[id] = v.in
		}
	}
	for _, f := range s.fields.order {
		if lit := packedValue(c.values, f.id); lit != "" {
			out.Values[f.name] = lit
		}
	}
	for _, m := range c.lists {
		if m.status == inList {
			out.Lists = append(out.Lists, m.list)
		} else {
			out.Left = append(out.Left, m.list)
		}
	}
	return out
}

// EachContact calls yield for every contact in order of id, those in the
// recycle bin included, until it returns false. The account is locked for
// writes meanwhile.
func (s *Server) EachContact(yield func(Contact) bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for i := range s.count {
		if s.at(i).life != destroyed && !yield(s.view(i)) {
			return
		}
	}
}

// FindContact returns the contact with an email address, ignoring case.
func (s *Server) FindContact(email string) (Contact, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	i, ok := s.findEmail([]byte(email))
	if !ok {
		return Contact{}, false
	}
	return s.view(i), true
}

// Members returns the ids of the members of a list or segment, ascending.
func (s *Server) Members(list int32) []int64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	l := s.lists[list]
	if l == nil {
		return nil
	}
	var out []int64
	for i := range s.audience(l).all(0) {
		out = append(out, contactID(i))
	}
	return out
}

// Confirm answers the confirmation or challenge mail that a contact was sent:
// a pending double opt-in, a resubscription of the account, and those of lists.
// It reports whether anything was waiting.
func (s *Server) Confirm(email string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	i, ok := s.findEmail([]byte(email))
	if !ok || s.at(i).life != live {
		return false
	}
	return s.person(string(Confirm)).confirm(i)
}

// SetStatus moves a contact to a v2 status such as "IspComplained", as an event
// outside the API does. It reports false for an unknown contact or status.
func (s *Server) SetStatus(email, status string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	i, ok := s.findEmail([]byte(email))
	to, known := parseStatus(status)
	if !ok || !known || s.at(i).life != live {
		return false
	}
	s.person("status").setStatus(i, to)
	return true
}

// softBounceLimit is the account's threshold of consecutive soft bounces.
const softBounceLimit = 20

// Bounce reports an undeliverable mail: a hard one suppresses at once, soft
// ones after twenty in a row.
func (s *Server) Bounce(email string, hard bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	i, ok := s.findEmail([]byte(email))
	if !ok || s.at(i).life != live {
		return false
	}
	s.person(string(HardBounce)).bounce(i, hard)
	return true
}

func (w *writer) bounce(i uint32, hard bool) {
	c := w.s.at(i)
	if hard {
		if !c.status.blocked() {
			w.setStatus(i, hardBounced)
		}
		return
	}
	if c.softBounces++; c.softBounces >= softBounceLimit && !c.status.blocked() {
		w.setStatus(i, softBounced)
	}
}
