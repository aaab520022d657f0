package dotdigital

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// what selects the optional parts of a printed contact.
type what struct {
	fields      []*field
	withFields  bool
	channels    bool
	lists       bool
	preferences bool
	consent     bool
	allFields   bool
}

var everything = what{allFields: true, channels: true, lists: true, preferences: true, consent: true}

// printer appends v3 contacts to a buffer. slot maps the id of a field to its
// place among the wanted ones, so that a contact's values are walked once.
type printer struct {
	s    *Server
	what what
	slot []int16
	vals []string
}

func (s *Server) newPrinter(w what) *printer {
	if w.allFields {
		w.withFields = true
		w.fields = s.fields.order
	}
	p := &printer{s: s, what: w, slot: make([]int16, s.fields.nextID), vals: make([]string, len(w.fields))}
	for k, f := range w.fields {
		p.slot[f.id] = int16(k + 1)
	}
	return p
}

func (p *printer) append(b []byte, i uint32) []byte {
	c := p.s.at(i)
	b = append(b, `{"contactId":`...)
	b = strconv.AppendInt(b, contactID(i), 10)
	b = append(b, `,"status":"`...)
	if c.life != live {
		b = append(b, "binned"...)
	} else {
		b = append(b, statusNames[c.status].contact...)
	}
	b = append(b, `","created":`...)
	b = appendTime(b, c.created)
	b = append(b, `,"updated":`...)
	b = appendTime(b, p.s.updated[i])
	b = append(b, `,"identifiers":`...)
	b = appendIdentifiers(b, c)
	if p.what.withFields {
		b = p.appendFields(b, c)
	}
	if p.what.channels {
		b = appendChannels(b, c)
	}
	if p.what.lists {
		b = append(b, `,"lists":[`...)
		for k, m := range c.lists {
			if k > 0 {
				b = append(b, ',')
			}
			b = append(b, `{"id":`...)
			b = strconv.AppendInt(b, int64(m.list), 10)
			b = append(b, `,"name":`...)
			b = appendQuoted(b, p.s.lists[m.list].name)
			switch {
			case m.status != inList:
				b = append(b, `,"status":"suppressed"}`...)
			case c.status == pendingOptIn:
				b = append(b, `,"status":"pending"}`...)
			default:
				b = append(b, `,"status":"subscribed"}`...)
			}
		}
		b = append(b, ']')
	}
	if p.what.preferences {
		b = append(b, `,"preferences":[`...)
		if c.rare != nil {
			b = p.s.appendPreferences(b, c.rare.prefs)
		}
		b = append(b, ']')
	}
	if p.what.consent {
		b = append(b, `,"consentRecords":`...)
		records := []consentRecord{}
		if c.rare != nil && c.rare.consent != nil {
			records = c.rare.consent
		}
		text, _ := json.Marshal(records)
		b = append(b, text...)
	}
	return append(b, '}')
}

func appendIdentifiers(b []byte, c *contact) []byte {
	b = append(b, '{')
	if c.email != "" {
		b = append(b, `"email":`...)
		b = appendQuoted(b, c.email)
	}
	if m := c.mobile(); m != "" {
		if c.email != "" {
			b = append(b, ',')
		}
		b = append(b, `"mobileNumber":`...)
		b = appendQuoted(b, m)
	}
	if c.rare != nil {
		for _, name := range sortedKeys(c.rare.custom) {
			b = append(b, ',')
			b = appendQuoted(b, name)
			b = append(b, ':')
			b = appendQuoted(b, c.rare.custom[name])
		}
	}
	return append(b, '}')
}

func sortedKeys[K string | int32, V any](m map[K]V) []K {
	if len(m) == 0 {
		return nil
	}
	keys := make([]K, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

func (p *printer) appendFields(b []byte, c *contact) []byte {
	clear(p.vals)
	eachValue(c.values, func(id uint32, lit string) {
		if int(id) < len(p.slot) {
			if k := p.slot[id]; k > 0 {
				p.vals[k-1] = lit
			}
		}
	})
	b = append(b, `,"dataFields":{`...)
	for k, f := range p.what.fields {
		if k > 0 {
			b = append(b, ',')
		}
		b = append(b, '"')
		b = append(b, f.name...)
		b = append(b, '"', ':')
		switch lit := p.vals[k]; {
		case f.name == lastSubscribed:
			b = append(b, '"')
			b = time.UnixMilli(c.subscribedAt).UTC().AppendFormat(b, fieldTime)
			b = append(b, 'Z', '"')
		case lit == "":
			b = append(b, "null"...)
		case f.typ == Date:
			b = append(b, lit[:len(lit)-1]...)
			b = append(b, 'Z', '"')
		default:
			b = append(b, lit...)
		}
	}
	return append(b, '}')
}

func appendChannels(b []byte, c *contact) []byte {
	b = append(b, `,"channelProperties":{`...)
	if c.email != "" {
		b = append(b, `"email":{"emailType":"`...)
		b = append(b, emailTypeNames[c.emailType]...)
		b = append(b, `","optInType":"`...)
		b = append(b, optInNames[c.optIn]...)
		b = append(b, `","status":"`...)
		b = append(b, statusNames[c.status].channel...)
		b = append(b, '"', '}')
	}
	if m := c.mobile(); m != "" {
		if c.email != "" {
			b = append(b, ',')
		}
		b = append(b, `"sms":{"countryCode":null,"status":"`...)
		b = append(b, orElse(c.rare.sms, "noSubscription")...)
		b = append(b, `"},"whatsApp":{"status":"`...)
		b = append(b, orElse(c.rare.whatsApp, "noSubscription")...)
		b = append(b, '"', '}')
	}
	return append(b, '}')
}

func orElse(s, byDefault string) string {
	if s == "" {
		return byDefault
	}
	return s
}

const (
	maxLimit     = 5000
	defaultLimit = 5000
)

func invalidFilter(text string) *apiError {
	return v3Error(http.StatusBadRequest, "invalidFilter", text)
}

// SetMaxPage bounds the pages of the contacts listing below the limit that a client
// asks for; where the next page is, its links tell. 0 ends it.
func (s *Server) SetMaxPage(rows int) { s.maxPage.Store(int64(rows)) }

// listing is a read of many v3 contacts.
type listing struct {
	what           what
	created, since int64
	list           int32
	limit          int
	after          uint32
	marker         bool
}

func (s *Server) parseListing(c *call) (l listing, err error) {
	l = listing{created: -never, since: -never, limit: defaultLimit}
	if v, ok := c.query("data-fields"); ok && v != "" {
		l.what.withFields = true
		if v == "[[ALL]]" {
			l.what.allFields = true
		} else {
			for name := range strings.SplitSeq(v, "|") {
				f := s.fields.find([]byte(name))
				if f == nil {
					return l, v3Error(http.StatusBadRequest, "badRequest", "Data field '"+shortName([]byte(name))+"' does not exist.")
				}
				if !slices.Contains(l.what.fields, f) {
					l.what.fields = append(l.what.fields, f)
				}
			}
		}
	}
	if v, ok := c.query("include"); ok && v != "" {
		for name := range strings.SplitSeq(v, "|") {
			switch name {
			case "channelProperties":
				l.what.channels = true
			case "lists":
				l.what.lists = true
			case "preferences":
				l.what.preferences = true
			case "consentRecords":
				l.what.consent = true
			default:
				return l, v3Error(http.StatusBadRequest, "badRequest", "include knows channelProperties, lists, preferences and consentRecords.")
			}
		}
	}
	created, hasCreated := c.query("~created")
	modified, hasModified := c.query("~modified")
	if hasCreated && hasModified {
		return l, invalidFilter("~created and ~modified exclude each other.")
	}
	if hasCreated {
		if l.created, err = parseGTE(created); err != nil {
			return l, err
		}
	}
	if hasModified {
		if l.since, err = parseGTE(modified); err != nil {
			return l, err
		}
	}
	list, hasList := c.query("~listId")
	segment, hasSegment := c.query("~segmentId")
	if hasList && hasSegment {
		return l, invalidFilter("~listId and ~segmentId exclude each other.")
	}
	if hasList || hasSegment {
		id, err := strconv.ParseInt(list+segment, 10, 32)
		target := s.lists[int32(id)]
		if err != nil || target == nil || (target.rule != nil) != hasSegment {
			return l, invalidFilter("There is no such list or segment.")
		}
		l.list = int32(id)
	}
	if v, ok := c.query("limit"); ok {
		if l.limit, err = strconv.Atoi(v); err != nil || l.limit < 1 || l.limit > maxLimit {
			return l, v3Error(http.StatusBadRequest, "badRequest", "limit must be a whole number from 1 to 5000.")
		}
	}
	if m := int(s.maxPage.Load()); m > 0 {
		l.limit = min(l.limit, m)
	}
	if v, ok := c.query("marker"); ok && v != "" {
		text, err := base64.RawURLEncoding.DecodeString(v)
		id, err2 := strconv.ParseInt(string(text), 10, 64)
		if err != nil || err2 != nil || id < firstContactID || id > int64(^uint32(0)) {
			return l, v3Error(http.StatusBadRequest, "badRequest", "The marker is not one that this API gave out.")
		}
		l.marker = true
		l.after = uint32(id-firstContactID) + 1
	}
	return l, nil
}

// parseGTE reads gte::<date-time with zone>.
func parseGTE(v string) (int64, error) {
	text, ok := strings.CutPrefix(v, "gte::")
	if ok {
		for _, layout := range dateLayouts[:2] {
			if t, err := time.Parse(layout, text); err == nil {
				return t.UnixMilli(), nil
			}
		}
	}
	return 0, invalidFilter("The filter value must be gte:: and an ISO 8601 date-time with its zone.")
}

func (s *Server) serveContacts(c *call) error {
	c.pooled = getBuffer()
	b, err := s.listContacts(c, *c.pooled)
	*c.pooled = b
	if err != nil {
		return err
	}
	c.write(http.StatusOK, b)
	return nil
}

func (s *Server) listContacts(c *call, b []byte) ([]byte, error) {
	s.drift(c)
	s.mu.RLock()
	defer s.mu.RUnlock()
	l, err := s.parseListing(c)
	if err != nil {
		return b, err
	}
	set := &s.alive
	if l.list != 0 {
		set = s.audience(s.lists[l.list])
	}
	matches := func(i uint32) bool {
		return s.updated[i] >= l.since && (l.created == -never || s.at(i).created >= l.created) && s.alive.has(i)
	}
	from := l.after
	loop := false
	if l.marker {
		switch s.pageKind(c) {
		case "dup":
			for from > 0 {
				from--
				if set.has(from) && matches(from) {
					break
				}
			}
		case "skip":
			for i := range set.all(from) {
				if matches(i) {
					from = i + 1
					break
				}
			}
		case "loop":
			loop = true
		}
	}
	p := s.newPrinter(l.what)
	start := len(b)
	b = append(b, `{"_items":[`...)
	n, last, more := 0, uint32(0), false
	for i := range set.all(from) {
		if !matches(i) {
			continue
		}
		if n == l.limit {
			more = true
			break
		}
		if n > 0 {
			b = append(b, ',')
		}
		b = p.append(b, i)
		last = i
		n++
	}
	b = append(b, `],"_links":`...)
	marker, _ := c.query("marker")
	next := ""
	if more {
		next = base64.RawURLEncoding.EncodeToString(strconv.AppendInt(nil, contactID(last), 10))
		if loop {
			next = marker
		}
	}
	b = s.appendLinks(b, c, marker, next)
	b = append(b, '}')
	return b[start:], nil
}

func (s *Server) appendLinks(b []byte, c *call, marker, next string) []byte {
	base := s.endpoint
	if base == "" {
		base = "http://" + c.r.Host
	}
	base += "/contacts/v3"
	q := c.r.URL.Query()
	link := func(name, m string) {
		q.Del("marker")
		if m != "" {
			q.Set("marker", m)
		}
		b = append(b, '"')
		b = append(b, name...)
		b = append(b, `":{"marker":`...)
		b = appendQuoted(b, m)
		b = append(b, `,"link":`...)
		url := base
		if e := q.Encode(); e != "" {
			url += "?" + e
		}
		b = appendQuoted(b, url)
		b = append(b, '}')
	}
	b = append(b, '{')
	link("self", marker)
	b = append(b, ',')
	link("first", "")
	if next != "" {
		b = append(b, ',')
		link("next", next)
	}
	return append(b, '}')
}
