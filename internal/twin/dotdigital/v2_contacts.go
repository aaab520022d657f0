package dotdigital

import (
	"errors"
	"net/http"
	"strconv"
	"time"
)

// v2Visible reports whether the v2 contact reads return the contact: those
// calls know only mailable contacts with an address.
func (s *Server) v2Visible(i uint32) bool {
	c := s.at(i)
	return c.life == live && c.email != "" && !c.status.blocked()
}

// appendV2Contact prints a contact as v2 does; full adds the data fields, which
// are null otherwise.
func (s *Server) appendV2Contact(b []byte, i uint32, full bool) []byte {
	c := s.at(i)
	b = append(b, `{"id":`...)
	b = strconv.AppendInt(b, contactID(i), 10)
	b = append(b, `,"email":`...)
	b = appendQuoted(b, c.email)
	b = append(b, `,"optInType":"`...)
	// v2 stores a verified double opt-in as Double.
	b = append(b, optInNames[min(c.optIn, optInDouble)]...)
	b = append(b, `","emailType":"`...)
	b = append(b, emailTypeNames[c.emailType]...)
	b = append(b, `","dataFields":`...)
	if full {
		b = append(b, '[')
		for k, f := range s.fields.order {
			if k > 0 {
				b = append(b, ',')
			}
			b = append(b, `{"key":"`...)
			b = append(b, f.name...)
			b = append(b, `","value":`...)
			if f.name == lastSubscribed {
				b = time.UnixMilli(c.subscribedAt).UTC().AppendFormat(b, `"2006-01-02 15:04:05"`)
			} else if lit := packedValue(c.values, f.id); lit == "" {
				b = append(b, "null"...)
			} else {
				b = append(b, lit...)
			}
			b = append(b, '}')
		}
		b = append(b, ']')
	} else {
		b = append(b, "null"...)
	}
	b = append(b, `,"status":"`...)
	b = append(b, v2Status(c)...)
	return append(b, '"', '}')
}

func v2Status(c *contact) string {
	if c.life != live {
		return "Deleted"
	}
	return statusNames[c.status].v2
}

// listV2 answers one page of contacts of set that keep admits, by offset over
// the live data: rows shift when contacts enter or leave the selection.
func (s *Server) listV2(c *call, set *idSet, byDefault int, keep func(uint32) bool) error {
	limit, skip, err := c.page(byDefault)
	if err != nil {
		return err
	}
	full, err := c.boolQuery("withFullData")
	if err != nil {
		return err
	}
	skip, limit = s.pageFault(c, skip, limit)
	c.pooled = getBuffer()
	b := append(*c.pooled, '[')
	n := 0
	for i := range set.all(0) {
		if !s.v2Visible(i) || keep != nil && !keep(i) {
			continue
		}
		if skip > 0 {
			skip--
			continue
		}
		if n == limit {
			break
		}
		if n > 0 {
			b = append(b, ',')
		}
		b = s.appendV2Contact(b, i, full)
		n++
	}
	b = append(b, ']')
	*c.pooled = b
	c.write(http.StatusOK, b)
	return nil
}

func (s *Server) serveV2Contacts(c *call) error {
	s.drift(c)
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.listV2(c, &s.alive, maxSelect, nil)
}

const modifiedSinceDefault = 2000

func (s *Server) serveModifiedSince(c *call) error {
	since, err := c.since(0)
	if err != nil {
		return err
	}
	s.drift(c)
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.listV2(c, &s.alive, modifiedSinceDefault, func(i uint32) bool { return s.updated[i] >= since })
}

func (s *Server) serveCreatedSince(c *call) error {
	since, err := c.since(0)
	if err != nil {
		return err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.listV2(c, &s.alive, maxSelect, func(i uint32) bool { return s.at(i).created >= since })
}

func (s *Server) serveContactCount(c *call) error {
	s.mu.RLock()
	n := s.alive.n - s.blockedSet.n
	s.mu.RUnlock()
	c.write(http.StatusOK, strconv.AppendInt(nil, int64(n), 10))
	return nil
}

// findV2 finds a contact by id or address; digits alone mean an id.
func (s *Server) findV2(idOrEmail string) (uint32, bool) {
	if id, err := strconv.ParseInt(idOrEmail, 10, 64); err == nil {
		i, ok := s.byID(id)
		return i, ok && s.at(i).life == live
	}
	i, ok := s.findEmail([]byte(idOrEmail))
	return i, ok && s.at(i).life == live
}

func (s *Server) serveV2Contact(c *call) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	i, ok := s.findV2(c.params[0])
	if !ok || !s.v2Visible(i) {
		return v2Error("ERROR_CONTACT_NOT_FOUND", "")
	}
	c.write(http.StatusOK, s.appendV2Contact(nil, i, true))
	return nil
}

// v2Contact is a contact as v2 requests carry it.
type v2Contact struct {
	ID         int32     `json:"id"`
	Email      string    `json:"email"`
	OptInType  *string   `json:"optInType"`
	EmailType  *string   `json:"emailType"`
	DataFields []v2Value `json:"dataFields"`
}

type v2Value struct {
	Key   string  `json:"key"`
	Value rawJSON `json:"value"`
}

// v2Input checks a v2 contact into the form that writes take. Every refusal
// names the v2 code.
func (s *Server) v2Input(in *v2Contact) (*contactInput, error) {
	out := &contactInput{}
	if !validEmail([]byte(in.Email)) {
		return nil, badParameter("Email is not a valid email address.")
	}
	out.email = []byte(in.Email)
	if s.domainBlocked(out.email) {
		return nil, v2Error("ERROR_EMAIL_BANNED", "The account suppresses this mail domain.")
	}
	ch := &out.channels
	if in.OptInType != nil && *in.OptInType != "" {
		if ch.optIn, ch.hasOptIn = parseOptIn(*in.OptInType); !ch.hasOptIn {
			return nil, badParameter("OptInType must be Unknown, Single, Double or VerifiedDouble.")
		}
	}
	if in.EmailType != nil && *in.EmailType != "" {
		if ch.emailType, ch.hasEmailType = parseEmailType(*in.EmailType); !ch.hasEmailType {
			return nil, badParameter("EmailType must be Html or PlainText.")
		}
	}
	for _, v := range in.DataFields {
		f := s.fields.find([]byte(v.Key))
		if f == nil {
			return nil, &apiError{status: http.StatusBadRequest, code: "ERROR_DATAFIELD_NOTFOUND", text: "Data field " + shortName([]byte(v.Key)) + " does not exist."}
		}
		if f.name == lastSubscribed {
			// Clients send whole contacts back; the system field is not theirs.
			continue
		}
		lit := v.Value
		if len(lit) == 0 {
			lit = rawJSON("null")
		}
		start := len(out.arena)
		arena, err := f.canon(out.arena, lit, true)
		switch {
		case err == nil:
		case errors.Is(err, errOverflow):
			return nil, v2Error("ERROR_DATAFIELD_VALUE_OVERFLOW", valueProblem(f, err))
		default:
			return nil, v2Error("ERROR_DATAFIELD_INVALID", valueProblem(f, err))
		}
		out.arena = arena
		out.values = append(out.values, fieldValue{f, arena[start:len(arena):len(arena)]})
	}
	return out, nil
}

var errV2Suppressed = v2Error("ERROR_CONTACT_SUPPRESSED", "Contact is suppressed.")

// putV2 creates or updates the contact with the address of in.
func (s *Server) putV2(c *call, w *writer, body *v2Contact) (uint32, error) {
	in, err := s.v2Input(body)
	if err != nil {
		return 0, err
	}
	i, found := s.findEmail(in.email)
	if found && s.at(i).status.blocked() {
		return 0, errV2Suppressed
	}
	if p := s.takePoison(c.route.operation); p.hits(in, i, found, 0) {
		return 0, v2Error("ERROR_CONTACT_INVALID", "The contact could not be written.")
	}
	var scratch []byte
	return w.put(i, found, in, overwrite, &scratch).index, nil
}

func (s *Server) serveV2ContactCreate(c *call) error {
	var in v2Contact
	if err := c.decode(&in, maxSmallBody); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	i, err := s.putV2(c, c.writer("api"), &in)
	if err != nil {
		return err
	}
	c.write(http.StatusCreated, s.appendV2Contact(nil, i, true))
	return nil
}

func (s *Server) serveV2ContactUpdate(c *call) error {
	var body v2Contact
	if err := c.decode(&body, maxSmallBody); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	i, ok := s.findV2(c.params[0])
	if !ok {
		return v2Error("ERROR_CONTACT_NOT_FOUND", "")
	}
	if s.at(i).status.blocked() {
		return errV2Suppressed
	}
	in, err := s.v2Input(&body)
	if err != nil {
		return err
	}
	if j, taken := s.findEmail(in.email); taken && j != i {
		return v2Error("ERROR_NON_UNIQUE_EMAIL", "Another contact has this email address.")
	}
	if p := s.takePoison(c.route.operation); p.hits(in, i, true, 0) {
		return v2Error("ERROR_CONTACT_INVALID", "The contact could not be written.")
	}
	w := c.writer("api")
	var scratch []byte
	w.put(i, true, in, overwrite, &scratch)
	c.write(http.StatusOK, s.appendV2Contact(nil, i, true))
	return nil
}

func (s *Server) serveV2ContactDelete(c *call) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	i, ok := s.findV2(c.params[0])
	if !ok {
		return v2Error("ERROR_CONTACT_NOT_FOUND", "")
	}
	c.writer("api").bin(i)
	return c.empty(http.StatusNoContent)
}

func (s *Server) serveEmptyBin(c *call) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := c.writer("api")
	for i := range s.count {
		if s.at(i).life == binned {
			w.destroy(i)
		}
	}
	return c.empty(http.StatusAccepted)
}
