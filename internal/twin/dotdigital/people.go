package dotdigital

import (
	"errors"
	"fmt"
)

// Act is what a person, or the mail system on a person's behalf, does on the
// platform's side, without any API call.
type Act struct {
	// Email is the person's address.
	Email string
	// Kind is one of the acts below.
	Kind ActKind
	// List is the list of ListUnsubscribe.
	List int32
	// Preference is the preference of Prefer, OptedIn the answer to it.
	Preference int32
	OptedIn    bool
}

// ActKind says what a person does.
type ActKind string

// The acts.
const (
	// Unsubscribe leaves the account through the link of a mail.
	Unsubscribe ActKind = "unsubscribe"
	// ListUnsubscribe leaves one list.
	ListUnsubscribe ActKind = "list-unsubscribe"
	// Complain reports a mail as spam at the mailbox provider.
	Complain ActKind = "complain"
	// HardBounce is a mailbox that does not exist any more.
	HardBounce ActKind = "bounce"
	// Resubscribe signs up again through a form of the platform. Only who
	// unsubscribed can: other suppressions are not the person's to end.
	Resubscribe ActKind = "resubscribe"
	// Confirm answers the mails that ask for a confirmation.
	Confirm ActKind = "confirm"
	// Prefer changes a preference in the preference centre.
	Prefer ActKind = "preference"
)

// errUnknownPerson says that an address is no contact of the account.
var errUnknownPerson = errors.New("the account has no contact with this address")

// Act lets a person act at the twins' present time. What changes nothing, such as
// leaving twice, is no error; what the platform does not let a person do is.
func (s *Server) Act(a Act) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	i, ok := s.findEmail([]byte(a.Email))
	if !ok || s.at(i).life != live {
		return errUnknownPerson
	}
	c := s.at(i)
	w := s.person(string(a.Kind))
	switch a.Kind {
	case Unsubscribe:
		w.block(i, unsubscribed)
	case ListUnsubscribe:
		l := s.lists[a.List]
		if l == nil || l.rule != nil || l.system != ordinary {
			return fmt.Errorf("the account has no list %d that one can leave", a.List)
		}
		if c.membership(l.id) < 0 {
			return fmt.Errorf("the person is not on list %d", a.List)
		}
		w.leaveByChoice(i, l)
	case Complain:
		if c.status.reversible() || !c.status.blocked() {
			w.setStatus(i, ispComplained)
		}
	case HardBounce:
		w.bounce(i, true)
	case Resubscribe:
		switch {
		case c.status == unsubscribed || c.status == noSubscription && c.email != "":
			w.setStatus(i, subscribed)
		case c.status.blocked():
			return fmt.Errorf("the platform does not resubscribe a contact that is %s", statusNames[c.status].v2)
		}
	case Confirm:
		if !w.confirm(i) {
			return errors.New("no mail waits for a confirmation")
		}
	case Prefer:
		p := s.prefs.choosable(a.Preference)
		if p == nil {
			return fmt.Errorf("the account has no preference %d", a.Preference)
		}
		w.choose(i, p, a.OptedIn)
	default:
		return fmt.Errorf("%q is no act; %s, %s, %s, %s, %s, %s and %s are", a.Kind, Unsubscribe, ListUnsubscribe, Complain, HardBounce, Resubscribe, Confirm, Prefer)
	}
	return nil
}

// person returns the circumstances of what a person does. The caller holds the
// lock.
func (s *Server) person(act string) *writer {
	return &writer{s: s, now: s.now(), source: "recipient", operation: "people." + act}
}

// confirm answers every mail that waits: a pending double opt-in, a
// resubscription of the account, and those of lists. It reports whether there
// was one.
func (w *writer) confirm(i uint32) bool {
	c := w.s.at(i)
	waiting := false
	if c.status == pendingOptIn || c.challenged {
		w.setStatus(i, subscribed)
		waiting = true
	}
	for k := range c.lists {
		if c.lists[k].status == challengedList {
			w.returnToList(i, w.s.lists[c.lists[k].list])
			waiting = true
		}
	}
	return waiting
}

// challenge sends the mail that asks whether the contact wants to return to the
// account. Until Confirm the contact stays as it is.
func (w *writer) challenge(i uint32) {
	w.s.at(i).challenged = true
	w.record("challenge", i, 0)
}

// challengeOnList does the same for a list.
func (w *writer) challengeOnList(i uint32, l *list) {
	c := w.s.at(i)
	c.lists[c.membership(l.id)].status = challengedList
	w.record("list-challenge", i, l.id)
}
