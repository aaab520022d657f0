package dotdigital

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// list is a list or, when rule is set, a segment: both share ids and names.
type list struct {
	id     int32
	name   string
	public bool
	system systemList
	// members are the contacts whose status in the list is subscribed.
	members idSet
	// left are the contacts that unsubscribed from this list only.
	left leavers
	// rule makes this a segment; members are as of its last refresh.
	rule       *SegmentRule
	refreshed  int64
	refreshing int64
	// busyUntil is when the last removal job on the list ends.
	busyUntil int64
}

type systemList uint8

const (
	ordinary systemList = iota
	testList
	allContacts
)

// leavers maps contacts to the time they left; nil until one leaves.
type leavers struct {
	set idSet
	at  map[uint32]int64
}

func (v *leavers) note(i uint32, now int64) {
	if v.at == nil {
		v.at = map[uint32]int64{}
	}
	v.set.add(i)
	v.at[i] = now
}

func (v *leavers) forget(i uint32) {
	if v.set.remove(i) {
		delete(v.at, i)
	}
}

func (s *Server) addSystemLists() {
	s.nextListID = 1
	s.addList(&list{name: "Test", system: testList})
	s.addList(&list{name: "All Contacts", system: allContacts})
}

func (s *Server) addList(l *list) *list {
	l.id = s.nextListID
	s.nextListID++
	s.lists[l.id] = l
	s.listNames[strings.ToLower(l.name)] = l.id
	s.listOrder = append(s.listOrder, l.id)
	return l
}

// audience returns the members of a list or segment.
func (s *Server) audience(l *list) *idSet {
	if l.system == allContacts {
		return &s.alive
	}
	return &l.members
}

type listBody struct {
	ID         int32  `json:"id"`
	Name       string `json:"name"`
	Visibility string `json:"visibility"`
	Contacts   int    `json:"contacts"`
}

func (s *Server) listBody(l *list) listBody {
	return listBody{l.id, l.name, visibility(l.public), s.audience(l).n}
}

// addressBook finds a list that is not a segment.
func (s *Server) addressBook(id int32) (*list, error) {
	if l := s.lists[id]; l != nil && l.rule == nil {
		return l, nil
	}
	return nil, v2Error("ERROR_ADDRESSBOOK_NOT_FOUND", "")
}

// writable finds a list that calls may change.
func (s *Server) writable(id int32) (*list, error) {
	l, err := s.addressBook(id)
	if err != nil {
		return nil, err
	}
	if l.system != ordinary {
		return nil, v2Error("ERROR_ADDRESSBOOK_NOTWRITABLE", "Address book cannot be written to via the API.")
	}
	return l, nil
}

func (s *Server) checkListName(name string, self int32) error {
	if n := utf8.RuneCountInString(name); n < 1 || n > 128 || strings.TrimSpace(name) == "" {
		return v2Error("ERROR_ADDRESSBOOK_INVALID", "A name has 1 to 128 characters.")
	}
	low := strings.ToLower(name)
	if low == "test" || low == "all contacts" {
		return v2Error("ERROR_ADDRESSBOOK_INVALID", "That name is reserved.")
	}
	if other, taken := s.listNames[low]; taken && other != self {
		return v2Error("ERROR_ADDRESSBOOK_DUPLICATE", "That name is in use already, please choose another.")
	}
	return nil
}

func serveLists(keep func(*list) bool) func(*Server, *call) error {
	return func(s *Server, c *call) error {
		limit, skip, err := c.page(maxSelect)
		if err != nil {
			return err
		}
		s.mu.RLock()
		defer s.mu.RUnlock()
		skip, limit = s.pageFault(c, skip, limit)
		out := make([]listBody, 0, min(limit, len(s.listOrder)))
		for _, id := range s.listOrder {
			l := s.lists[id]
			if l.rule != nil || !keep(l) {
				continue
			}
			if skip > 0 {
				skip--
				continue
			}
			if len(out) == limit {
				break
			}
			out = append(out, s.listBody(l))
		}
		c.reply(http.StatusOK, out)
		return nil
	}
}

func (s *Server) serveList(c *call) error {
	id, err := c.id(0)
	if err != nil {
		return err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	l, err := s.addressBook(id)
	if err != nil {
		return err
	}
	c.reply(http.StatusOK, s.listBody(l))
	return nil
}

type listInput struct {
	Name       string `json:"name"`
	Visibility string `json:"visibility"`
}

func (s *Server) serveListCreate(c *call) error {
	var in listInput
	if err := c.decode(&in, maxSmallBody); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	public, err := parseVisibility(in.Visibility)
	if err != nil {
		return err
	}
	if err := s.checkListName(in.Name, 0); err != nil {
		return err
	}
	l := s.addList(&list{name: in.Name, public: public})
	c.note("list-create", strconv.Itoa(int(l.id)), "", l.name)
	c.reply(http.StatusCreated, s.listBody(l))
	return nil
}

func (s *Server) serveListUpdate(c *call) error {
	id, err := c.id(0)
	if err != nil {
		return err
	}
	var in listInput
	if err := c.decode(&in, maxSmallBody); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	l, err := s.writable(id)
	if err != nil {
		return err
	}
	if err := s.checkListName(in.Name, id); err != nil {
		return err
	}
	if in.Visibility != "" {
		if l.public, err = parseVisibility(in.Visibility); err != nil {
			return err
		}
	}
	delete(s.listNames, strings.ToLower(l.name))
	c.note("list-update", strconv.Itoa(int(id)), l.name, in.Name)
	l.name = in.Name
	s.listNames[strings.ToLower(l.name)] = id
	c.reply(http.StatusOK, s.listBody(l))
	return nil
}

func (s *Server) serveListDelete(c *call) error {
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
	now := s.now()
	if l.busyUntil > now {
		return v2Error("ERROR_ADDRESSBOOK_IN_USE", "A job is still working on this address book.")
	}
	w := c.writer("api")
	for i := range l.left.set.all(0) {
		ct := s.at(i)
		if k := ct.membership(id); k >= 0 {
			ct.lists = slices.Delete(ct.lists, k, k+1)
		}
	}
	for i := range l.members.all(0) {
		w.leave(i, l)
	}
	c.note("list-delete", strconv.Itoa(int(id)), l.name, "")
	delete(s.lists, id)
	delete(s.listNames, strings.ToLower(l.name))
	s.listOrder = slices.DeleteFunc(s.listOrder, func(o int32) bool { return o == id })
	return c.empty(http.StatusNoContent)
}

func (s *Server) serveContactLists(c *call) error {
	id, err := c.id(0)
	if err != nil {
		return err
	}
	limit, skip, err := c.page(maxSelect)
	if err != nil {
		return err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	i, ok := s.byID(int64(id))
	if !ok || !s.v2Visible(i) {
		return v2Error("ERROR_CONTACT_NOT_FOUND", "")
	}
	out := []listBody{}
	for _, l := range s.listsOf(i) {
		if skip > 0 {
			skip--
			continue
		}
		if len(out) == limit {
			break
		}
		out = append(out, s.listBody(l))
	}
	c.reply(http.StatusOK, out)
	return nil
}

// listsOf returns the lists that a contact is a subscribed member of, by id.
func (s *Server) listsOf(i uint32) []*list {
	var out []*list
	for _, m := range s.at(i).lists {
		if m.status == inList {
			out = append(out, s.lists[m.list])
		}
	}
	slices.SortFunc(out, func(a, b *list) int { return int(a.id - b.id) })
	return out
}
