package dotdigital

import (
	"net/http"
)

// removalJob is a list removal; applied when taken, Completed on the clock.
type removalJob struct {
	id     string
	finish int64
}

type jobBody struct {
	ID     string `json:"id"`
	Status string `json:"status"`
}

// memberSource finds a list or segment that members can be read of.
func (s *Server) memberSource(id int32) (*idSet, error) {
	l := s.lists[id]
	if l == nil {
		return nil, v2Error("ERROR_ADDRESSBOOK_NOT_FOUND", "")
	}
	return s.audience(l), nil
}

func (s *Server) serveMembers(c *call) error {
	id, err := c.id(0)
	if err != nil {
		return err
	}
	s.drift(c)
	s.mu.RLock()
	defer s.mu.RUnlock()
	set, err := s.memberSource(id)
	if err != nil {
		return err
	}
	return s.listV2(c, set, maxSelect, nil)
}

func (s *Server) serveMembersModified(c *call) error {
	id, err := c.id(0)
	if err != nil {
		return err
	}
	since, err := c.since(1)
	if err != nil {
		return err
	}
	s.drift(c)
	s.mu.RLock()
	defer s.mu.RUnlock()
	set, err := s.memberSource(id)
	if err != nil {
		return err
	}
	return s.listV2(c, set, modifiedSinceDefault, func(i uint32) bool { return s.updated[i] >= since })
}

func (s *Server) serveMemberAdd(c *call) error {
	id, err := c.id(0)
	if err != nil {
		return err
	}
	var body v2Contact
	if err := c.decode(&body, maxSmallBody); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	l, err := s.writable(id)
	if err != nil {
		return err
	}
	if i, ok := s.findEmail([]byte(body.Email)); ok {
		ct := s.at(i)
		if k := ct.membership(id); k >= 0 && ct.lists[k].status != inList && !ct.status.blocked() {
			return v2Error("ERROR_CONTACT_SUPPRESSEDFORADDRESSBOOK", "Contact is suppressed for this address book.")
		}
	}
	w := c.writer("api")
	i, err := s.putV2(c, w, &body)
	if err != nil {
		return err
	}
	w.join(i, l)
	c.write(http.StatusOK, s.appendV2Contact(nil, i, true))
	return nil
}

func (s *Server) serveMemberRemove(c *call) error {
	id, err := c.id(0)
	if err != nil {
		return err
	}
	contact, err := c.id(1)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	l, err := s.writable(id)
	if err != nil {
		return err
	}
	i, ok := s.byID(int64(contact))
	if !ok {
		return v2Error("ERROR_CONTACT_NOT_FOUND", "")
	}
	w := c.writer("list-removal")
	w.leave(i, l)
	return c.empty(http.StatusNoContent)
}

// maxRemoval is our bound for a list whose length the service does not publish.
const maxRemoval = 5000

func (s *Server) serveMembersRemove(c *call) error {
	id, err := c.id(0)
	if err != nil {
		return err
	}
	var ids []int32
	if err := c.decode(&ids, maxSmallBody); err != nil {
		return err
	}
	if len(ids) == 0 {
		return v2Error("ERROR_CONTACTS_ARE_NOT_SPECIFIED", "No contact is named.")
	}
	if len(ids) > maxRemoval {
		return v2Error("ERROR_CONTACT_TOOMANY", "Too many contacts are named in one call.")
	}
	return s.remove(c, id, func(w *writer, l *list) {
		for _, contact := range ids {
			// Ids that are unknown or no members are passed over.
			if i, ok := s.byID(int64(contact)); ok {
				w.leave(i, l)
			}
		}
	})
}

func (s *Server) serveMembersRemoveAll(c *call) error {
	id, err := c.id(0)
	if err != nil {
		return err
	}
	return s.remove(c, id, removeAll)
}

func removeAll(w *writer, l *list) {
	for i := range l.members.all(0) {
		w.leave(i, l)
	}
}

// remove starts a removal job on a list.
func (s *Server) remove(c *call, id int32, apply func(*writer, *list)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	l, err := s.writable(id)
	if err != nil {
		return err
	}
	now := s.now()
	apply(c.writer("list-removal"), l)
	job := &removalJob{id: s.newID(), finish: now + s.opt.JobTime.Milliseconds()}
	s.removals[job.id] = job
	l.busyUntil = job.finish
	c.reply(http.StatusAccepted, jobBody{job.id, "Started"})
	return nil
}

func (s *Server) serveMembersClear(c *call) error {
	id, err := c.id(0)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	l, err := s.writable(id)
	if err != nil {
		return err
	}
	removeAll(c.writer("list-removal"), l)
	return c.empty(http.StatusNoContent)
}

func (s *Server) serveRemovalStatus(c *call) error {
	s.mu.RLock()
	j := s.removals[c.params[0]]
	s.mu.RUnlock()
	if j == nil {
		return v2Error("ERROR_IMPORT_NOT_FOUND", "")
	}
	status := "Started"
	if j.finish <= s.now() {
		status = "Completed"
	}
	c.reply(http.StatusOK, jobBody{j.id, status})
	return nil
}
