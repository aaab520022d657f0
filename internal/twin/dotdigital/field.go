package dotdigital

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"unicode/utf8"
)

// FieldType is the type of a contact data field; it never changes.
type FieldType string

// The types of contact data fields.
const (
	String  FieldType = "String"
	Numeric FieldType = "Numeric"
	Date    FieldType = "Date"
	Boolean FieldType = "Boolean"
)

// field is a contact data field. Values are kept as the JSON literal that the
// v3 API prints, dates without their zone.
type field struct {
	id       uint32
	name     string
	typ      FieldType
	public   bool
	def      []byte
	standard bool
	// uses are the objects that depend on the field.
	uses []dependency
}

type dependency struct {
	Type     string `json:"type"`
	ObjectID int32  `json:"objectId"`
}

// fieldSet holds the fields in order of creation. Ids are never used again, so
// that a value of a deleted field cannot appear under a new one.
type fieldSet struct {
	byName map[string]*field
	order  []*field
	nextID uint32
}

const (
	lastSubscribed = "LASTSUBSCRIBED"
	maxFieldName   = 20
	maxStringValue = 1000
	maxIntDigits   = 18
	maxFracDigits  = 9
	maxFields      = 1000
)

// reservedFields cannot be created because personalisation uses the names.
var reservedFields = map[string]bool{
	"ACCOUNT": true, "CAMPAIGN": true, "CAMPAIGNID": true, "CONTACT": true, "CONTACT_API_ID": true, "CONTACTID": true,
	"EMAIL": true, "HCONTACTID": true, "HEMAIL": true, "HEMAIL256": true, "ID": true, "MESSAGECONTENT": true,
	"MOBILENUMBERID": true, "NOTES": true, "UNSUBSCRIBED": true, "UNIQUECONTACTID": true,
}

func (fs *fieldSet) init() {
	fs.byName = map[string]*field{}
	for _, name := range []string{"FIRSTNAME", "LASTNAME", "FULLNAME", "GENDER", "POSTCODE"} {
		fs.add(&field{name: name, typ: String, standard: true})
	}
	fs.add(&field{name: lastSubscribed, typ: Date, standard: true})
}

func (fs *fieldSet) add(f *field) {
	f.id = fs.nextID
	fs.nextID++
	fs.byName[f.name] = f
	fs.order = append(fs.order, f)
}

func (fs *fieldSet) remove(f *field) {
	delete(fs.byName, f.name)
	for i, o := range fs.order {
		if o == f {
			fs.order = append(fs.order[:i:i], fs.order[i+1:]...)
			return
		}
	}
}

// find looks a field up ignoring case, without allocating for ASCII names.
func (fs *fieldSet) find(name []byte) *field {
	if len(name) > maxFieldName {
		return nil
	}
	var up [maxFieldName]byte
	n := copy(up[:], name)
	for i, c := range up[:n] {
		if c-'a' < 26 {
			up[i] = c - 'a' + 'A'
		}
	}
	return fs.byName[string(up[:n])]
}

func validFieldName(name string) bool {
	if name == "" || len(name) > maxFieldName {
		return false
	}
	for _, c := range []byte(name) {
		if c|0x20-'a' >= 26 && c-'0' > 9 && c != '_' && c != '-' {
			return false
		}
	}
	return true
}

// Errors of values; the text names the reason, never the value.
var (
	errWrongType = errors.New("the value does not have the type of the data field")
	errOverflow  = errors.New("the value is too large for the data field")
	errReadOnly  = errors.New("the data field is maintained by the system")
)

// canon appends the stored form of a JSON value to dst. Nothing appended means
// that the value is blank. loose admits text for every type, as the v2 calls
// and import files do; v3 wants the JSON type that belongs to the field.
func (f *field) canon(dst, lit []byte, loose bool) ([]byte, error) {
	if f.name == lastSubscribed {
		return dst, errReadOnly
	}
	if lit[0] == 'n' {
		return dst, nil
	}
	if f.typ == String {
		return f.canonString(dst, lit, loose)
	}
	if lit[0] == '{' || lit[0] == '[' {
		return dst, errWrongType
	}
	text := lit
	if lit[0] == '"' {
		text = unquote(lit)
		if len(text) == 0 {
			return dst, nil
		}
		if !loose && f.typ != Date {
			return dst, errWrongType
		}
	} else if f.typ == Date {
		return dst, errWrongType
	}
	switch f.typ {
	case Boolean:
		switch {
		case bytes.EqualFold(text, []byte("true")):
			return append(dst, "true"...), nil
		case bytes.EqualFold(text, []byte("false")):
			return append(dst, "false"...), nil
		}
		return dst, errWrongType
	case Numeric:
		return canonNumber(dst, text)
	}
	return canonDate(dst, text)
}

func (f *field) canonString(dst, lit []byte, loose bool) ([]byte, error) {
	if lit[0] != '"' {
		if !loose || lit[0] == '{' || lit[0] == '[' {
			return dst, errWrongType
		}
		return appendQuoted(dst, lit), nil
	}
	if len(lit) == 2 {
		return dst, nil
	}
	if bytes.IndexByte(lit, '\\') < 0 {
		if len(lit)-2 > maxStringValue && utf8.RuneCount(lit)-2 > maxStringValue {
			return dst, errOverflow
		}
		return append(dst, lit...), nil
	}
	text := unquote(lit)
	if utf8.RuneCount(text) > maxStringValue {
		return dst, errOverflow
	}
	return appendQuoted(dst, text), nil
}

func canonNumber(dst, text []byte) ([]byte, error) {
	sc := scanner{b: text}
	if !sc.checkNumber() || sc.i != len(text) {
		return dst, errWrongType
	}
	if bytes.ContainsAny(text, "eE") {
		v, err := strconv.ParseFloat(string(text), 64)
		if err != nil || v >= 1e18 || v <= -1e18 {
			return dst, errOverflow
		}
		text = strconv.AppendFloat(nil, v, 'f', -1, 64)
	}
	digits, neg := bytes.CutPrefix(text, []byte("-"))
	whole, frac, _ := bytes.Cut(digits, []byte("."))
	frac = bytes.TrimRight(frac, "0")
	if len(whole) > maxIntDigits || len(frac) > maxFracDigits {
		return dst, errOverflow
	}
	if neg && (len(frac) > 0 || string(whole) != "0") {
		dst = append(dst, '-')
	}
	dst = append(dst, whole...)
	if len(frac) > 0 {
		dst = append(append(dst, '.'), frac...)
	}
	return dst, nil
}

const fieldTime = "2006-01-02T15:04:05"

// canonDate has a way of its own for the forms that nearly every value has,
// because imports bring them by the million.
func canonDate(dst, text []byte) ([]byte, error) {
	plain := bytes.TrimSuffix(text, []byte("Z"))
	if len(plain) == 10 || len(plain) == 19 && plain[10] == 'T' {
		if knownDate(plain) {
			dst = append(append(dst, '"'), plain...)
			if len(plain) == 10 {
				dst = append(dst, "T00:00:00"...)
			}
			return append(dst, '"'), nil
		}
	}
	t, ok := parseDate(string(text))
	if !ok {
		return dst, errWrongType
	}
	if t.Year() < 1753 || t.Year() > 9999 {
		return dst, errOverflow
	}
	dst = append(dst, '"')
	dst = t.AppendFormat(dst, fieldTime)
	return append(dst, '"'), nil
}

// knownDate accepts yyyy-MM-dd and yyyy-MM-ddTHH:mm:ss of days that every month
// has, from 1753 on; anything else takes the long way.
func knownDate(d []byte) bool {
	const form = "0000-00-00T00:00:00"
	for i, c := range d {
		if form[i] == '0' && c-'0' > 9 || form[i] != '0' && c != form[i] {
			return false
		}
	}
	two := func(i int) byte { return (d[i]-'0')*10 + d[i+1] - '0' }
	year := int(two(0))*100 + int(two(2))
	if year < 1753 || two(5) < 1 || two(5) > 12 || two(8) < 1 || two(8) > 28 {
		return false
	}
	return len(d) == 10 || two(11) < 24 && two(14) < 60 && two(17) < 60
}

// The values of a contact are one string: for each value that is not blank the
// id of the field, the length, and the literal.

// eachValue iterates over packed values.
func eachValue(packed string, yield func(id uint32, lit string)) {
	for i := 0; i < len(packed); {
		id, n := uvarint(packed[i:])
		i += n
		size, n := uvarint(packed[i:])
		i += n
		yield(id, packed[i:i+int(size)])
		i += int(size)
	}
}

func uvarint(s string) (uint32, int) {
	var v uint32
	for i := range len(s) {
		v |= uint32(s[i]&0x7f) << (7 * i)
		if s[i] < 0x80 {
			return v, i + 1
		}
	}
	return v, len(s)
}

func appendPacked[T string | []byte](b []byte, id uint32, lit T) []byte {
	b = binary.AppendUvarint(b, uint64(id))
	b = binary.AppendUvarint(b, uint64(len(lit)))
	return append(b, lit...)
}

// packedValue returns one value of a contact, "" when blank.
func packedValue(packed string, id uint32) string {
	for i := 0; i < len(packed); {
		got, n := uvarint(packed[i:])
		i += n
		size, n := uvarint(packed[i:])
		i += n
		if got == id {
			return packed[i : i+int(size)]
		}
		i += int(size)
	}
	return ""
}

// HTTP: /v2/data-fields

type fieldBody struct {
	Name         string  `json:"name"`
	Type         string  `json:"type"`
	Visibility   string  `json:"visibility"`
	DefaultValue rawJSON `json:"defaultValue"`
}

// rawJSON is a json.RawMessage that prints null when empty.
type rawJSON []byte

func (r rawJSON) MarshalJSON() ([]byte, error) {
	if len(r) == 0 {
		return []byte("null"), nil
	}
	return r, nil
}

func (r *rawJSON) UnmarshalJSON(b []byte) error { *r = append((*r)[:0], b...); return nil }

func (f *field) body() fieldBody {
	return fieldBody{Name: f.name, Type: string(f.typ), Visibility: visibility(f.public), DefaultValue: f.def}
}

func visibility(public bool) string {
	if public {
		return "Public"
	}
	return "Private"
}

func parseVisibility(v string) (public bool, err error) {
	switch strings.ToLower(v) {
	case "", "private":
		return false, nil
	case "public":
		return true, nil
	}
	return false, badParameter("Visibility must be Private or Public.")
}

func (s *Server) serveFields(c *call) error {
	s.mu.RLock()
	out := make([]fieldBody, 0, len(s.fields.order))
	for _, f := range s.fields.order {
		out = append(out, f.body())
	}
	s.mu.RUnlock()
	c.reply(http.StatusOK, out)
	return nil
}

func (s *Server) serveFieldCreate(c *call) error {
	var in fieldBody
	if err := c.decode(&in, maxSmallBody); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	f, err := s.createField(in)
	if err != nil {
		return err
	}
	c.note("field-create", f.name, "", f.name)
	c.reply(http.StatusCreated, f.body())
	return nil
}

func (s *Server) createField(in fieldBody) (*field, error) {
	if !validFieldName(in.Name) {
		return nil, v2Error("ERROR_DATAFIELD_INVALID", "A field name has 1 to 20 letters, digits, underscores or hyphens.")
	}
	name := strings.ToUpper(in.Name)
	if reservedFields[name] {
		return nil, v2Error("ERROR_DATAFIELD_INVALID", "Field name is reserved.")
	}
	if s.fields.byName[name] != nil {
		return nil, v2Error("ERROR_NON_UNIQUE_DATAFIELD", "Field already exists.")
	}
	if len(s.fields.order) >= maxFields {
		return nil, v2Error("ERROR_DATAFIELD_LIMITEXCEEDED", "The account has as many data fields as it may have.")
	}
	f := &field{name: name}
	for _, t := range []FieldType{String, Numeric, Date, Boolean} {
		if strings.EqualFold(in.Type, string(t)) {
			f.typ = t
		}
	}
	if f.typ == "" {
		return nil, v2Error("ERROR_DATAFIELD_INVALID", "Field type must be String, Numeric, Date or Boolean.")
	}
	var err error
	if f.public, err = parseVisibility(in.Visibility); err != nil {
		return nil, err
	}
	if len(in.DefaultValue) > 0 {
		def, err := f.canon(nil, in.DefaultValue, true)
		if err != nil {
			return nil, v2Error("ERROR_DATAFIELD_INVALID", "The default value is wrong: "+err.Error()+".")
		}
		f.def = def
	}
	s.fields.add(f)
	return f, nil
}

func (s *Server) serveFieldDelete(c *call) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.fields.find([]byte(c.params[0]))
	if f == nil {
		return v2Error("ERROR_DATAFIELD_NOTFOUND", "")
	}
	if f.standard {
		return v2Error("ERROR_DATAFIELD_INVALID", "The standard data fields cannot be deleted.")
	}
	type result struct {
		Dependencies []dependency `json:"dependencies"`
		Result       bool         `json:"result"`
	}
	uses := append([]dependency(nil), f.uses...)
	for _, id := range s.listOrder {
		if l := s.lists[id]; l.rule != nil && l.rule.uses(f.name) {
			uses = append(uses, dependency{"AddressBook", id})
		}
	}
	if len(uses) > 0 {
		return &apiError{status: http.StatusConflict, body: result{uses, false}}
	}
	s.fields.remove(f)
	c.note("field-delete", f.name, f.name, "")
	c.reply(http.StatusOK, result{nil, true})
	return nil
}

func valueProblem(f *field, err error) string {
	return fmt.Sprintf("Data field %s: %v.", f.name, err)
}
