package dotdigital

import (
	"strconv"
	"sync"

	"github.com/lockstep-sync/lockstep"
)

const (
	importHead = `{"mergeOption":"overwrite","contacts":[`
	importTail = `]}`
	// maxBooks is the most lists that a row of an import can name.
	maxBooks = 100
)

// bodies are the buffers of import bodies, kept between imports.
var bodies = sync.Pool{New: func() any { b := make([]byte, 0, 1<<20); return &b }}

// importEncoder writes the rows of one import.
type importEncoder struct {
	keys [][]byte // of each field, its JSON name and the colon
}

func newImportEncoder(fields []string) importEncoder {
	e := importEncoder{keys: make([][]byte, len(fields))}
	for i, f := range fields {
		e.keys[i] = append(lockstep.AppendJSONString(nil, f), ':')
	}
	return e
}

// body appends an import's body with as many of the rows as stay within limit
// bytes, and returns how many those are: 0 when not even one does.
func (e importEncoder) body(dst []byte, rows []lockstep.ContactWrite, limit int) ([]byte, int) {
	dst = append(dst, importHead...)
	for i := range rows {
		before := len(dst)
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = e.row(dst, &rows[i])
		if len(dst)+len(importTail) > limit {
			return append(dst[:before], importTail...), i
		}
	}
	return append(dst, importTail...), len(rows)
}

// row appends one contact. It holds no channel properties: an import never changes
// whether a person may be mailed.
func (e importEncoder) row(dst []byte, w *lockstep.ContactWrite) []byte {
	if w.Contact != "" {
		dst = append(dst, `{"matchIdentifier":"contactId","identifiers":{"contactId":`...)
		dst = append(dst, w.Contact...)
		if w.Email != "" {
			dst = append(dst, `,"email":`...)
			dst = lockstep.AppendJSONString(dst, w.Email)
		}
	} else {
		dst = append(dst, `{"matchIdentifier":"email","identifiers":{"email":`...)
		dst = lockstep.AppendJSONString(dst, w.Email)
	}
	dst = append(dst, '}')
	open := `,"dataFields":{`
	for i := range w.Values {
		if w.Values[i].IsAbsent() {
			continue
		}
		dst = append(dst, open...)
		open = ","
		dst = append(dst, e.keys[i]...)
		dst = appendValue(dst, w.Values[i])
	}
	if open == "," {
		dst = append(dst, '}')
	}
	for i, b := range w.Books {
		if i == 0 {
			dst = append(dst, `,"lists":[`...)
		} else {
			dst = append(dst, ',')
		}
		dst = append(dst, b...)
	}
	if len(w.Books) > 0 {
		dst = append(dst, ']')
	}
	return append(dst, '}')
}

// appendValue appends a value as the service takes it: numbers and truth values as
// JSON has them, dates as yyyy-MM-ddTHH:mm:ss without a zone, in UTC.
func appendValue(dst []byte, v lockstep.Value) []byte {
	s := v.Text()
	switch v.Kind() {
	case lockstep.Absent, lockstep.Null:
		return append(dst, "null"...)
	case lockstep.Number, lockstep.Bool:
		return append(dst, s...)
	case lockstep.DateTime:
		dst = append(dst, '"')
		dst = append(dst, s[:min(len(s), len("2006-01-02T15:04:05"))]...)
		return append(dst, '"')
	case lockstep.Date:
		dst = append(dst, '"')
		dst = append(dst, s...)
		return append(dst, `T00:00:00"`...)
	}
	return lockstep.AppendJSONString(dst, s)
}

// checkRow says why a row cannot be sent; empty = it can.
func checkRow(w *lockstep.ContactWrite, fields int) (field, problem string) {
	switch {
	case len(w.Values) != fields:
		return "values", "has " + strconv.Itoa(len(w.Values)) + " values for " + strconv.Itoa(fields) + " fields"
	case w.Contact == "" && w.Email == "":
		return "email", "has neither a contact nor an address"
	case w.Contact != "" && !wholeID(string(w.Contact)):
		return "contact", "has a contact id that is none of Dotdigital's"
	case len(w.Books) > maxBooks:
		return "books", "names more than 100 address books"
	}
	for _, b := range w.Books {
		if !wholeID(string(b)) || len(b) > 10 {
			return "books", "names an address book whose id is none of Dotdigital's"
		}
	}
	return "", ""
}
