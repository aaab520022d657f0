package dataverse

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"

	"github.com/lockstep-sync/lockstep/internal/twin/dataverse/schema"
	"github.com/lockstep-sync/lockstep/internal/twin/dataverse/value"
)

const maxSelections = 150

// coerce reads a JSON value for a column and checks it against the column's
// definition: type, length, range, options.
func coerce(t *schema.Table, col *schema.Column, raw json.RawMessage) (value.Value, error) {
	v, err := value.ParseJSON(raw, kindOf(col))
	if err != nil {
		return v, payload("'%s', Cannot convert the value of '%s' to the expected type: %v.", t.Set, col.Name, err)
	}
	return check(t, col, v)
}

// check validates a value of the column's kind and returns it as it is stored.
func check(t *schema.Table, col *schema.Column, v value.Value) (value.Value, error) {
	if v.IsNull() {
		return v, nil
	}
	switch col.Type {
	case schema.String, schema.Memo, schema.EntityName:
		if v.Text() == "" {
			return value.Null(), nil
		}
		if len(v.Text()) > col.MaxLength && utf16Length(v.Text()) > col.MaxLength {
			return v, fail(http.StatusBadRequest, codeTextTooLong,
				"A validation error occurred. The length of the '%s' attribute of the '%s' entity exceeded the maximum allowed length of '%d'.", col.Name, t.Name, col.MaxLength)
		}
	case schema.Picklist, schema.State, schema.Status:
		if _, ok := col.Option(int32(v.Int())); !ok || int64(int32(v.Int())) != v.Int() {
			code := codeOptionRange
			if col.Type != schema.Picklist {
				code = codeStateStatus
			}
			return v, fail(http.StatusBadRequest, code,
				"A validation error occurred. The value %d of '%s' on record of type '%s' is outside the valid range. Accepted Values: %s", v.Int(), col.Name, t.Name, accepted(col))
		}
	case schema.MultiSelect:
		options := v.Options()
		if len(options) > maxSelections {
			return v, fail(http.StatusBadRequest, codeTooManySelections, "The attribute '%s' takes at most %d selections.", col.Name, maxSelections)
		}
		for _, o := range options {
			if _, ok := col.Option(int32(o)); !ok {
				return v, fail(http.StatusBadRequest, codeOptionRange,
					"A validation error occurred. The value %d of '%s' on record of type '%s' is outside the valid range. Accepted Values: %s", o, col.Name, t.Name, accepted(col))
			}
		}
	case schema.Integer:
		if f := float64(v.Int()); f < col.Min || f > col.Max {
			return v, outOfRange(codeIntegerRange, t, col)
		}
	case schema.Decimal:
		rounded, err := v.Rescale(min(col.Precision, value.MaxScale))
		if err != nil || rounded.Float() < col.Min || rounded.Float() > col.Max {
			return v, outOfRange(codeDecimalRange, t, col)
		}
		return rounded, nil
	case schema.Double:
		if f := v.Float(); f < col.Min || f > col.Max {
			return v, outOfRange(codeMinMax, t, col)
		}
	case schema.Money:
		rounded, err := v.Rescale(min(col.Precision, value.MoneyScale))
		if err != nil || rounded.Float() < col.Min || rounded.Float() > col.Max {
			return v, outOfRange(codeMoneyRange, t, col)
		}
		stored, err := rounded.Rescale(value.MoneyScale)
		if err != nil {
			return v, outOfRange(codeMoneyRange, t, col)
		}
		return stored, nil
	}
	return v, nil
}

func outOfRange(code string, t *schema.Table, col *schema.Column) *apiError {
	return fail(http.StatusBadRequest, code,
		"A validation error occurred. The value of '%s' on record of type '%s' is outside the valid range of %s to %s.", col.Name, t.Name,
		strconv.FormatFloat(col.Min, 'f', -1, 64), strconv.FormatFloat(col.Max, 'f', -1, 64))
}

func accepted(col *schema.Column) string {
	var b strings.Builder
	for i, o := range col.Options {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(strconv.Itoa(int(o.Value)))
	}
	return b.String()
}

// utf16Length counts as the database does: characters outside of the basic
// plane take two.
func utf16Length(s string) int {
	n := 0
	for _, r := range s {
		n++
		if r > 0xffff {
			n++
		}
	}
	return n
}
