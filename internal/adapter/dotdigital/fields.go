package dotdigital

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/lockstep-sync/lockstep"
)

// lastSubscribed is the data field that the service keeps itself.
const lastSubscribed = "LASTSUBSCRIBED"

// reservedFields cannot be the name of a data field (Dotdigital help centre,
// "Data fields").
var reservedFields = map[string]bool{
	"account": true, "campaign": true, "campaignid": true, "contact": true, "contact_api_id": true, "contactid": true, "email": true,
	"hcontactid": true, "hemail": true, "hemail256": true, "id": true, "messagecontent": true, "mobilenumberid": true, "notes": true,
	"unsubscribed": true, "uniquecontactid": true,
}

// fieldCache remembers the data fields: their types decide how values are read,
// and a type never changes while the field exists.
type fieldCache struct {
	mu     sync.Mutex
	read   time.Time
	byName map[string]lockstep.DataField // by upper-case name
}

// fieldsKept is how long the types are trusted: a field can be deleted and made
// anew with another type.
const fieldsKept = 15 * time.Minute

type wireField struct {
	Name       string          `json:"name"`
	Type       string          `json:"type,omitempty"`
	Visibility string          `json:"visibility,omitempty"`
	Default    json.RawMessage `json:"defaultValue,omitempty"`
}

func (w wireField) field() lockstep.DataField {
	f := lockstep.DataField{Name: w.Name, Private: !strings.EqualFold(w.Visibility, "public"), Default: lockstep.NullValue()}
	switch strings.ToLower(w.Type) {
	case "string":
		f.Type = lockstep.FieldText
	case "numeric":
		f.Type = lockstep.FieldNumber
	case "date":
		f.Type = lockstep.FieldDate
	case "boolean":
		f.Type = lockstep.FieldBool
	default:
		// A type that came after this version: readable as text, not writable.
		f.Type, f.System = lockstep.FieldText, true
	}
	f.System = f.System || strings.EqualFold(w.Name, lastSubscribed)
	text := bytes.TrimSpace(w.Default)
	switch {
	case len(text) == 0 || string(text) == "null":
	case text[0] == '"':
		var s string
		if json.Unmarshal(text, &s) == nil {
			f.Default = typed(f.Type, s)
		}
	default:
		f.Default = typed(f.Type, string(text))
	}
	return f
}

// Fields reads all data fields in one call. Every account has some from the beginning,
// so an answer without any is none: believing it would make every value look unknown.
func (c *Client) Fields(ctx context.Context) ([]lockstep.DataField, error) {
	var rows []wireField
	q := call{op: "read data fields", method: http.MethodGet, path: "/v2/data-fields", repeat: true}
	if err := c.do(ctx, q, decode(&q, '[', &rows, func() bool { return len(rows) > 0 })); err != nil {
		return nil, err
	}
	fields := make([]lockstep.DataField, 0, len(rows))
	byName := make(map[string]lockstep.DataField, len(rows))
	for _, w := range rows {
		if w.Name == "" {
			continue
		}
		f := w.field()
		fields = append(fields, f)
		byName[strings.ToUpper(f.Name)] = f
	}
	c.fields.mu.Lock()
	c.fields.byName, c.fields.read = byName, c.now()
	c.fields.mu.Unlock()
	return fields, nil
}

// forgetFields makes the next look-up read the fields anew.
func (c *Client) forgetFields() {
	c.fields.mu.Lock()
	c.fields.byName = nil
	c.fields.mu.Unlock()
}

// fieldsNamed returns the fields with these names, compared without regard to
// case; the type is empty where the account has no such field. It asks the service
// when it does not know one of them, or not lately.
func (c *Client) fieldsNamed(ctx context.Context, names []string) ([]lockstep.DataField, error) {
	out := make([]lockstep.DataField, len(names))
	if len(names) == 0 {
		return out, nil
	}
	look := func() (all bool) {
		c.fields.mu.Lock()
		defer c.fields.mu.Unlock()
		if c.fields.byName == nil || c.now().Sub(c.fields.read).Abs() > fieldsKept {
			return false
		}
		all = true
		for i, name := range names {
			f, ok := c.fields.byName[strings.ToUpper(name)]
			if !ok {
				f, all = lockstep.DataField{Name: name}, false
			}
			out[i] = f
		}
		return all
	}
	if look() {
		return out, nil
	}
	if _, err := c.Fields(ctx); err != nil {
		return nil, err
	}
	look()
	return out, nil
}

// CreateField makes a data field. One that exists with the same type is no error,
// also when it is one that the service keeps itself.
func (c *Client) CreateField(ctx context.Context, f lockstep.DataField) error {
	q := call{op: "create data field", method: http.MethodPost, path: "/v2/data-fields"}
	w, err := newField(q.name(), f)
	if err != nil {
		return err
	}
	q.json = w
	for attempt := 0; ; attempt++ {
		err = c.do(ctx, q, func(body []byte) error {
			// Answered with the field or, by older servers, with nothing.
			if len(bytes.TrimSpace(body)) == 0 {
				return nil
			}
			var made wireField
			return object(&q, &made, func() bool { return strings.EqualFold(made.Name, f.Name) })(body)
		})
		e := lockstep.AsError(err)
		switch {
		case err == nil:
			c.forgetFields()
			return nil
		case e.Code != lockstep.CodeConflict && !e.Unknown:
			return err
		}
		// It exists, or may exist since our call: look which.
		there, readErr := c.Fields(ctx)
		if readErr != nil {
			return err
		}
		for _, old := range there {
			if !strings.EqualFold(old.Name, f.Name) {
				continue
			}
			if old.Type == f.Type {
				return nil
			}
			return &lockstep.Error{
				Code: lockstep.CodeConflict, Op: q.name(), Field: f.Name, Scope: lockstep.ScopeBatch, Upstream: e.Upstream,
				Msg:  "the data field " + f.Name + " exists with the type " + string(old.Type) + ", not " + string(f.Type),
				Hint: "use another name: the type of a data field cannot be changed",
			}
		}
		if !e.Unknown || attempt > 0 || ctx.Err() != nil {
			return err
		}
	}
}

func newField(op string, f lockstep.DataField) (*wireField, error) {
	const nameHint = "use 1 to 20 letters, digits, hyphens and underscores"
	if len(f.Name) < 1 || len(f.Name) > 20 {
		return nil, invalid(op, "name", "the name of a data field has 1 to 20 characters", nameHint)
	}
	for i := range len(f.Name) {
		if c := f.Name[i]; c != '-' && c != '_' && (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') {
			return nil, invalid(op, "name", "the name of a data field holds a character that it may not", nameHint)
		}
	}
	if reservedFields[strings.ToLower(f.Name)] {
		return nil, invalid(op, "name", "Dotdigital keeps the name "+f.Name+" for itself", "choose another name")
	}
	w := &wireField{Name: f.Name, Visibility: "Public"}
	if f.Private {
		w.Visibility = "Private"
	}
	switch f.Type {
	case lockstep.FieldText:
		w.Type = "String"
	case lockstep.FieldNumber:
		w.Type = "Numeric"
	case lockstep.FieldDate:
		w.Type = "Date"
	case lockstep.FieldBool:
		w.Type = "Boolean"
	default:
		return nil, invalid(op, "type", "there is no data field type "+string(f.Type), "use text, number, date or boolean")
	}
	if !f.Default.IsAbsent() && !f.Default.IsNull() {
		if !fits(f.Type, f.Default.Kind()) {
			return nil, invalid(op, "default", "the default value does not fit the type "+string(f.Type), "")
		}
		w.Default = appendValue(nil, f.Default)
	}
	return w, nil
}

// fits reports whether a value of this kind can stand in a field of this type.
func fits(t lockstep.FieldType, k lockstep.Kind) bool {
	switch t {
	case lockstep.FieldNumber:
		return k == lockstep.Number
	case lockstep.FieldDate:
		return k == lockstep.DateTime || k == lockstep.Date
	case lockstep.FieldBool:
		return k == lockstep.Bool
	}
	return k == lockstep.Text || k == lockstep.Choices
}
