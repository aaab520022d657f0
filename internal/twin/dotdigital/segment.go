package dotdigital

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
)

// SegmentRule selects contacts. It is evaluated only when the segment is
// refreshed: members and count stand still in between. All conditions must
// hold; a rule without conditions selects every subscribed contact.
type SegmentRule struct {
	Conditions []Condition `json:"conditions"`
	// List, when set, restricts the segment to members of this list.
	List int32 `json:"list"`
}

// Condition compares one data field.
type Condition struct {
	// Field is the name of a data field.
	Field string `json:"field"`
	// Op is "equals", "differs", "empty", "filled", "above" or "below"; the last
	// two compare numbers.
	Op string `json:"op"`
	// Value is compared as text, ignoring case.
	Value string `json:"value"`
}

func (r *SegmentRule) uses(field string) bool {
	for _, c := range r.Conditions {
		if strings.EqualFold(c.Field, field) {
			return true
		}
	}
	return false
}

func (s *Server) holds(c *contact, cond Condition) bool {
	f := s.fields.find([]byte(cond.Field))
	if f == nil {
		return false
	}
	text := packedValue(c.values, f.id)
	if strings.HasPrefix(text, `"`) {
		_ = json.Unmarshal([]byte(text), &text)
	}
	switch cond.Op {
	case "equals":
		return strings.EqualFold(text, cond.Value)
	case "differs":
		return !strings.EqualFold(text, cond.Value)
	case "empty":
		return text == ""
	case "filled":
		return text != ""
	}
	have, err1 := strconv.ParseFloat(text, 64)
	want, err2 := strconv.ParseFloat(cond.Value, 64)
	if err1 != nil || err2 != nil {
		return false
	}
	return cond.Op == "above" && have > want || cond.Op == "below" && have < want
}

// refresh evaluates a segment. The caller holds the lock.
func (s *Server) refresh(l *list, now int64) {
	var members idSet
	from := &s.alive
	if l.rule.List != 0 {
		if base := s.lists[l.rule.List]; base != nil {
			from = s.audience(base)
		} else {
			from = &idSet{}
		}
	}
next:
	for i := range from.all(0) {
		c := s.at(i)
		if c.status != subscribed {
			continue
		}
		for _, cond := range l.rule.Conditions {
			if !s.holds(c, cond) {
				continue next
			}
		}
		members.add(i)
	}
	l.members = members
	l.refreshed = now
}

func (s *Server) segment(c *call) (*list, error) {
	id, err := c.id(0)
	if err != nil {
		return nil, err
	}
	if l := s.lists[id]; l != nil && l.rule != nil {
		return l, nil
	}
	return nil, v2Error("ERROR_SEGMENT_NOT_FOUND", "")
}

func (s *Server) serveSegments(c *call) error {
	limit, skip, err := c.page(maxSelect)
	if err != nil {
		return err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	type body struct {
		ID       int32  `json:"id"`
		Name     string `json:"name"`
		Contacts int    `json:"contacts"`
	}
	out := []body{}
	for _, id := range s.listOrder {
		l := s.lists[id]
		if l.rule == nil {
			continue
		}
		if skip > 0 {
			skip--
			continue
		}
		if len(out) == limit {
			break
		}
		out = append(out, body{l.id, l.name, l.members.n})
	}
	c.reply(http.StatusOK, out)
	return nil
}

type refreshBody struct {
	ID     int32  `json:"id"`
	Status string `json:"status"`
}

func (s *Server) serveSegmentRefresh(c *call) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	l, err := s.segment(c)
	if err != nil {
		return err
	}
	now := s.now()
	if l.refreshing <= now {
		s.refresh(l, now)
		l.refreshing = now + s.opt.JobTime.Milliseconds()
	}
	c.reply(http.StatusAccepted, refreshBody{l.id, "NotStarted"})
	return nil
}

func (s *Server) serveSegmentStatus(c *call) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	l, err := s.segment(c)
	if err != nil {
		return err
	}
	status := "Finished"
	switch {
	case l.refreshed == 0:
		status = "NotStarted"
	case l.refreshing > s.now():
		status = "NotFinished"
	}
	c.reply(http.StatusOK, refreshBody{l.id, status})
	return nil
}
