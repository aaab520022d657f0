package dotdigital

import (
	"errors"
	"net/http"
	"slices"
	"strconv"
)

// readSingle reads and checks the body of a write to one v3 contact.
func (c *call) readSingle() (*[]byte, error) {
	if err := c.wantJSON(); err != nil {
		return nil, err
	}
	pb, err := readAll(c.r, maxSingleBody)
	if errors.Is(err, errTooLarge) {
		return nil, v3Error(http.StatusRequestEntityTooLarge, "badRequest", "The request is too large.")
	}
	if err != nil {
		return nil, v3Error(http.StatusBadRequest, "badJson", "The request broke off.")
	}
	if !valid(*pb) {
		putBuffer(pb)
		return nil, v3Error(http.StatusBadRequest, "badJson", "The request JSON is badly formed")
	}
	return pb, nil
}

// fromPath reads {identifier}/{value} into in.
func (s *Server) fromPath(c *call, in *contactInput) (name string, err error) {
	name, value := c.params[0], c.params[1]
	wrong := v3Error(http.StatusBadRequest, "invalidId", "The id value is invalid for the identifier '"+shortName([]byte(name))+"'")
	if len(value) == 0 || len(value) > 256 {
		return "", wrong
	}
	switch name {
	case "contactId":
		id, err := strconv.ParseInt(value, 10, 64)
		if err != nil || id < 1 {
			return "", wrong
		}
		in.contactID = id
	case "email":
		if !validEmail([]byte(value)) {
			return "", wrong
		}
		in.email = []byte(value)
	case "mobileNumber":
		if !validMobile([]byte(value)) {
			return "", wrong
		}
		in.mobile = []byte(value)
	default:
		id := s.customID(name)
		if id == nil {
			return "", v3Error(http.StatusBadRequest, "invalidId", "The account has no identifier '"+shortName([]byte(name))+"'")
		}
		name = id.name
		in.custom = append(in.custom, customValue{[]byte(name), []byte(value)})
	}
	return name, nil
}

var errContactNotFound = v3Error(http.StatusNotFound, "contactNotFound", "The contact could not be found!")

// find returns the contact of the path; binned contacts are not found.
func (s *Server) find(c *call) (uint32, error) {
	var in contactInput
	name, err := s.fromPath(c, &in)
	if err != nil {
		return 0, err
	}
	i, found, bad := s.locate(name, &in)
	if bad != nil {
		return 0, bad.refuse()
	}
	if !found || s.at(i).life != live {
		return 0, errContactNotFound
	}
	return i, nil
}

func (s *Server) serveContact(c *call) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	i, err := s.find(c)
	if err != nil {
		return err
	}
	c.write(http.StatusOK, s.newPrinter(everything).append(nil, i))
	return nil
}

func (s *Server) serveContactCreate(c *call) error {
	pb, err := c.readSingle()
	if err != nil {
		return err
	}
	defer putBuffer(pb)
	s.mu.Lock()
	defer s.mu.Unlock()
	var in contactInput
	if bad := in.parse(&s.fields, *pb); bad != nil {
		return bad.refuse()
	}
	if in.contactID != 0 {
		return v3Error(http.StatusBadRequest, "invalidId", "contactId cannot be chosen.")
	}
	if in.channels.resubscribes {
		return v3Error(http.StatusBadRequest, "badRequest", "A new contact has no resubscribeOptions.")
	}
	if bad := s.checkIdentifiers(0, false, &in); bad != nil {
		return bad.refuse()
	}
	return s.writeSingle(c, 0, false, &in, overwrite)
}

// writeSingle applies a checked single write and answers the contact. A set of
// the contact that cannot be written refuses the whole call, before anything
// is written.
func (s *Server) writeSingle(c *call, i uint32, found bool, in *contactInput, opt mergeOption) error {
	if p := s.takePoison(c.route.operation); p.hits(in, i, found, 0) {
		return v3Error(http.StatusBadRequest, "invalidContacts", "The contact could not be written.")
	}
	for _, id := range in.lists {
		if l := s.lists[id]; l == nil || l.rule != nil || l.system != ordinary {
			return v3Error(http.StatusBadRequest, "invalidContacts", "No list with id "+strconv.Itoa(int(id))+" can be joined.")
		}
	}
	for _, p := range in.prefs {
		if s.prefs.choosable(p.id) == nil {
			return v3Error(http.StatusBadRequest, "invalidContacts", "There is no preference "+strconv.Itoa(int(p.id))+"; categories cannot be opted into.")
		}
	}
	w := c.writer("api")
	var scratch []byte
	out := w.put(i, found, in, opt, &scratch)
	status := http.StatusOK
	if out.created {
		status = http.StatusCreated
	}
	c.write(status, s.newPrinter(everything).append(nil, out.index))
	return nil
}

func (s *Server) serveContactPatch(c *call) error {
	v, _ := c.query("merge-option")
	opt, ok := parseMergeOption(v, true)
	if !ok {
		return v3Error(http.StatusBadRequest, "badRequest", "merge-option must be overwrite, overwrite-if-not-empty or overwrite-if-empty.")
	}
	pb, err := c.readSingle()
	if err != nil {
		return err
	}
	defer putBuffer(pb)
	s.mu.Lock()
	defer s.mu.Unlock()
	in, i, found, err := s.parseAtPath(c, *pb)
	if err != nil {
		return err
	}
	if bad := s.checkIdentifiers(i, found, in); bad != nil {
		return bad.refuse()
	}
	return s.writeSingle(c, i, found, in, opt)
}

// parseAtPath reads a body and finds the contact that the path names. An
// identifier of the path that the body does not repeat is part of the write.
func (s *Server) parseAtPath(c *call, body []byte) (in *contactInput, i uint32, found bool, err error) {
	var path contactInput
	name, err := s.fromPath(c, &path)
	if err != nil {
		return nil, 0, false, err
	}
	in = &contactInput{}
	if bad := in.parse(&s.fields, body); bad != nil {
		return nil, 0, false, bad.refuse()
	}
	i, found, bad := s.locate(name, &path)
	if bad != nil {
		return nil, 0, false, bad.refuse()
	}
	if !found && name == "contactId" {
		return nil, 0, false, errContactNotFound
	}
	if in.contactID == 0 {
		in.contactID = path.contactID
	}
	if !found {
		if len(in.email) == 0 {
			in.email = path.email
		}
		if len(in.mobile) == 0 {
			in.mobile = path.mobile
		}
		if len(path.custom) > 0 && !slices.ContainsFunc(in.custom, func(v customValue) bool { return string(v.name) == name }) {
			in.custom = append(in.custom, path.custom[0])
		}
	}
	return in, i, found, nil
}

func (s *Server) serveContactReplace(c *call) error {
	pb, err := c.readSingle()
	if err != nil {
		return err
	}
	defer putBuffer(pb)
	s.mu.Lock()
	defer s.mu.Unlock()
	in, i, found, err := s.parseAtPath(c, *pb)
	if err != nil {
		return err
	}
	if in.identifiers == nil {
		return v3Error(http.StatusBadRequest, "badRequest", "A replacement needs identifiers.")
	}
	if !found || s.at(i).life != live {
		return errContactNotFound
	}
	if bad := s.checkIdentifiers(i, true, in); bad != nil {
		return bad.refuse()
	}
	blank := in.values
	eachValue(s.at(i).values, func(id uint32, _ string) {
		for _, f := range s.fields.order {
			if f.id == id && !slices.ContainsFunc(in.values, func(v fieldValue) bool { return v.field == f }) {
				blank = append(blank, fieldValue{field: f})
			}
		}
	})
	in.values = blank
	return s.writeSingle(c, i, true, in, overwrite)
}

func (s *Server) serveContactDelete(c *call) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	i, err := s.find(c)
	if err != nil {
		return err
	}
	w := c.writer("api")
	w.bin(i)
	c.reply(http.StatusOK, struct {
		ContactID int64 `json:"contactId"`
	}{contactID(i)})
	return nil
}
