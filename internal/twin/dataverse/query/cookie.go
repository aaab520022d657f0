package query

import (
	"encoding/xml"
	"net/url"
	"strconv"
	"strings"

	"github.com/lockstep-sync/lockstep/internal/twin/dataverse/value"
)

// Cookie writes the inner paging cookie of a page,
// <cookie page="1"><contactid last="{…}" first="{…}" /></cookie>, with one
// element a column of the key; "" when the query pages by number or the page is
// empty.
func (q *Query) Cookie(page int, first, last Key) string {
	if !q.Keyset() || len(first) == 0 || len(last) != len(first) {
		return ""
	}
	var b strings.Builder
	b.WriteString(`<cookie page="` + strconv.Itoa(page) + `">`)
	for i, column := range q.keyColumns() {
		b.WriteString("<" + column.name)
		writeKeyPart(&b, "last", last[i])
		writeKeyPart(&b, "first", first[i])
		b.WriteString(" />")
	}
	b.WriteString("</cookie>")
	return b.String()
}

func writeKeyPart(b *strings.Builder, side string, v value.Value) {
	if v.IsNull() {
		b.WriteString(" " + side + `null="1"`)
		return
	}
	text := v.String()
	if v.Kind() == value.KindGUID {
		text = "{" + strings.ToUpper(text) + "}"
	}
	b.WriteString(" " + side + `="`)
	_ = xml.EscapeText(b, []byte(text)) // a strings.Builder does not fail
	b.WriteByte('"')
}

type keyColumn struct {
	name string
	kind value.Kind
}

// keyColumns names the parts of a key.
func (q *Query) keyColumns() []keyColumn {
	p := &q.plan
	var out []keyColumn
	for i := range p.order {
		out = append(out, keyColumn{strings.ReplaceAll(p.order[i].name, "/", "."), p.order[i].kind()})
	}
	out = append(out, keyColumn{q.Table.PrimaryID().LogicalName, value.KindGUID})
	if !p.oncePerRoot {
		for i := range p.joins {
			out = append(out, keyColumn{p.joins[i].table.PrimaryID().LogicalName, value.KindGUID})
		}
	}
	return out
}

// ParseCookie reads an inner paging cookie (as Cookie writes it) into the key to
// continue after.
func (q *Query) ParseCookie(inner string) (Key, error) {
	bad := refuse(CodeInvalidPagingCookie, "The paging cookie is malformed or belongs to another query.")
	if !q.Keyset() {
		return nil, bad
	}
	root, err := parseXML(inner)
	if err != nil {
		return nil, bad
	}
	columns := q.keyColumns()
	if root.name != "cookie" || len(root.kids) != len(columns) {
		return nil, bad
	}
	key := make(Key, 0, len(columns))
	for i, kid := range root.kids {
		if kid.name != columns[i].name {
			return nil, bad
		}
		if kid.get("lastnull") == "1" {
			key = append(key, value.Value{})
			continue
		}
		text, ok := kid.attr("last")
		if !ok {
			return nil, bad
		}
		v, err := value.ParseText(text, columns[i].kind)
		if err != nil {
			return nil, bad
		}
		key = append(key, v)
	}
	if key[len(q.plan.order)].IsNull() {
		return nil, bad
	}
	return key, nil
}

// SkipToken wraps an inner cookie for the next page into
// <cookie pagenumber="2" pagingcookie="…" istracking="False" />, the inner text
// URL-encoded twice. It is the value of the fetchxmlpagingcookie annotation and,
// URL-encoded once more by the caller, of $skiptoken.
func SkipToken(nextPage int, inner string, tracking bool) string {
	flag := "False"
	if tracking {
		flag = "True"
	}
	return `<cookie pagenumber="` + strconv.Itoa(nextPage) + `" pagingcookie="` + escape(escape(inner)) + `" istracking="` + flag + `" />`
}

func escape(s string) string { return strings.ReplaceAll(url.QueryEscape(s), "+", "%20") }

// ParseSkipToken reads what SkipToken writes.
func ParseSkipToken(token string) (page int, inner string, tracking bool, err error) {
	bad := refuse(CodeODataQuery, "The $skiptoken is malformed.")
	root, err := parseXML(token)
	if err != nil || root.name != "cookie" || len(root.kids) > 0 {
		return 0, "", false, bad
	}
	page, err = strconv.Atoi(root.get("pagenumber"))
	if err != nil || page < 2 {
		return 0, "", false, bad
	}
	once, err := url.QueryUnescape(root.get("pagingcookie"))
	if err != nil {
		return 0, "", false, bad
	}
	if inner, err = url.QueryUnescape(once); err != nil {
		return 0, "", false, bad
	}
	switch root.get("istracking") {
	case "True":
		tracking = true
	case "False":
	default:
		return 0, "", false, bad
	}
	return page, inner, tracking, nil
}
