package dotdigital

import (
	"strings"
	"time"
)

// bulkContact is a row of an import-collection.
type bulkContact struct {
	ID            int32     `json:"id"`
	Email         string    `json:"email"`
	OptInType     *string   `json:"optInType"`
	EmailType     *string   `json:"emailType"`
	DataFields    []v2Value `json:"dataFields"`
	ConsentFields []v2Value `json:"consentFields"`
}

// v2Contact is the row without its data fields.
func (b *bulkContact) v2Contact() *v2Contact {
	return &v2Contact{ID: b.ID, Email: b.Email, OptInType: b.OptInType, EmailType: b.EmailType}
}

// importColumn says what a column of a v2 import fills.
type importColumn struct {
	kind       columnKind
	preference *preference
	consent    string // name of the consent column, upper case
}

type columnKind uint8

const (
	unknownColumn columnKind = iota
	fieldColumn
	preferenceColumn
	consentColumn
)

const preferencePrefix = "PREFERENCE:"

// importColumn finds what the header of a column, or the key of a value, names: a
// data field, one part of a consent record, or "Preference:Name" and
// "Preference:Category>Name" with public names. Case does not matter.
func (s *Server) importColumn(header string) importColumn {
	name := strings.ToUpper(strings.TrimSpace(header))
	if strings.HasPrefix(name, preferencePrefix) {
		if p := s.prefs.named(strings.TrimSpace(header)[len(preferencePrefix):]); p != nil {
			return importColumn{kind: preferenceColumn, preference: p}
		}
		return importColumn{}
	}
	switch name {
	case "CONSENTTEXT", "CONSENTURL", "CONSENTDATETIME", "CONSENTIP", "CONSENTUSERAGENT":
		return importColumn{kind: consentColumn, consent: name}
	}
	if s.fields.find([]byte(name)) != nil {
		return importColumn{kind: fieldColumn}
	}
	return importColumn{}
}

// specialCells collects a row's preferences and consent.
type specialCells struct {
	prefs   []prefValue
	consent consentRecord
	given   bool // of consent
	bad     bool
}

// add takes one cell; a blank one says nothing.
func (c *specialCells) add(column importColumn, text string) {
	text = strings.TrimSpace(text)
	if text == "" || text == "null" {
		return
	}
	switch column.kind {
	case preferenceColumn:
		in := strings.EqualFold(text, "true")
		c.bad = c.bad || !in && !strings.EqualFold(text, "false")
		c.prefs = append(c.prefs, prefValue{column.preference.id, in})
	case consentColumn:
		c.given = true
		switch column.consent {
		case "CONSENTTEXT":
			c.consent.Text = text
		case "CONSENTURL":
			c.consent.URL = text
		case "CONSENTIP":
			c.consent.IPAddress = text
		case "CONSENTUSERAGENT":
			c.consent.UserAgent = text
		case "CONSENTDATETIME":
			t, ok := parseDate(text)
			c.bad = c.bad || !ok
			c.consent.DateTimeConsented = t.Format(wireTime)
		}
	}
}

// into completes an input; false when the cells cannot be used. A consent
// without a time was given now, one without a text is none.
func (c *specialCells) into(in *contactInput, now int64) bool {
	if c.bad || c.given && c.consent.Text == "" {
		return false
	}
	in.prefs = c.prefs
	if c.given {
		if c.consent.DateTimeConsented == "" {
			c.consent.DateTimeConsented = time.UnixMilli(now).UTC().Format(wireTime)
		}
		in.consent = []consentRecord{c.consent}
	}
	return true
}
