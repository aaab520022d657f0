package dotdigital

import (
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// customIdentifier is an account-defined identifier of contacts.
type customIdentifier struct {
	name    string
	created int64
}

type customIdentifierBody struct {
	Name    string `json:"name"`
	Created string `json:"created"`
	Updated string `json:"updated"`
}

func (id *customIdentifier) body() customIdentifierBody {
	return customIdentifierBody{id.name, formatTime(id.created), formatTime(id.created)}
}

func (s *Server) customID(name string) *customIdentifier {
	for _, id := range s.customIDs {
		if id.name == name {
			return id
		}
	}
	return nil
}

func (s *Server) serveCustomIDs(c *call) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	out := []customIdentifierBody{}
	for _, id := range s.customIDs {
		out = append(out, id.body())
	}
	c.reply(http.StatusOK, out)
	return nil
}

func (s *Server) serveCustomIDCreate(c *call) error {
	pb, err := c.readSingle()
	if err != nil {
		return err
	}
	defer putBuffer(pb)
	var in struct {
		Name string `json:"name"`
	}
	if err := json.Unmarshal(*pb, &in); err != nil {
		return v3Error(http.StatusBadRequest, "badJson", "The request JSON is badly formed")
	}
	if len(in.Name) > 50 {
		return v3Error(http.StatusBadRequest, "nameTooLong", "The custom identifier is too long. It must be less than 50 characters.")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch in.Name {
	case "email", "mobileNumber", "contactId", "import", "delete":
		return v3Error(http.StatusConflict, "nameAlreadyExists", "The custom identifier already exists.")
	}
	if !validIdentifierName([]byte(in.Name)) {
		return v3Error(http.StatusBadRequest, "badRequest", "A name has letters, digits, hyphens and underscores.")
	}
	if slices.ContainsFunc(s.customIDs, func(o *customIdentifier) bool { return strings.EqualFold(o.name, in.Name) }) {
		return v3Error(http.StatusConflict, "nameAlreadyExists", "The custom identifier already exists.")
	}
	if len(s.customIDs) >= s.opt.MaxCustomIdentifiers {
		return c.empty(http.StatusPreconditionFailed)
	}
	id := &customIdentifier{in.Name, s.now()}
	s.customIDs = append(s.customIDs, id)
	c.note("identifier-create", id.name, "", id.name)
	c.reply(http.StatusCreated, id.body())
	return nil
}

func (s *Server) serveCustomIDDelete(c *call) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	id := s.customID(c.params[0])
	if id == nil {
		return v3Error(http.StatusNotFound, "notExist", "The custom identifier does not exist.")
	}
	n := 0
	for k := range s.byCustom {
		if k.name == id.name {
			n++
		}
	}
	if n > 0 {
		e := v3Error(http.StatusBadRequest, "inUse", "The custom identifier is in use.")
		e.details = []errorDetail{{Item: "contacts", Description: "Used by " + strconv.Itoa(n) + " contacts"}}
		return e
	}
	c.note("identifier-delete", id.name, id.name, "")
	s.customIDs = slices.DeleteFunc(s.customIDs, func(o *customIdentifier) bool { return o == id })
	return c.empty(http.StatusNoContent)
}
