package query

import "github.com/lockstep-sync/lockstep/internal/twin/dataverse/value"

type plan struct{}

// ParseOData reads the options of a URL's query (raw, still percent-encoded)
// over a table. It knows $select $filter $orderby $top $count $expand $apply
// $skiptoken $deltatoken and parameter aliases; any other name is refused, so
// fetchXml, savedQuery and userQuery must be taken away before.
func ParseOData(s Schema, t Table, rawQuery string) (*Query, error) {
	return nil, notEmulated("OData")
}

// ParseFetch reads FetchXML whose root entity must be t.
func ParseFetch(s Schema, t Table, text string) (*Query, error) { return nil, notEmulated("FetchXML") }

// FetchEntity returns the logical name of a FetchXML's root entity, for callers
// that do not know the table beforehand (the query of a dynamic list).
func FetchEntity(text string) (string, error) { return "", notEmulated("FetchXML") }

// Run starts the query. Errors in the data (an overflow, too many rows of an
// aggregate) come from here or from Result.Err.
func (q *Query) Run(src Source, opt Options) (*Result, error) { return nil, notEmulated("run") }

// RunExpand yields the rows of one $expand item for a parent row. A ToOne
// navigation gives at most one record; others at most MaxPage.
func (q *Query) RunExpand(src Source, opt Options, x *Expand, parent Row) (*Result, error) {
	return nil, notEmulated("run")
}

// CountRows counts the results without paging or $top, up to MaxPage; exceeded
// tells that there are more.
func (q *Query) CountRows(src Source, opt Options) (n int, exceeded bool, err error) {
	return 0, false, notEmulated("run")
}

// Match reports whether one row of the root table passes the query's filter.
func (q *Query) Match(src Source, env Env, row Row) bool { return false }

// RefuseTracking returns the refusal when the query has options that change
// tracking does not allow ($filter $orderby $expand $top), else nil.
func (q *Query) RefuseTracking() error { return nil }

// Keyset reports whether the query can continue after a key. Queries that
// cannot (ordered by a link-entity column, distinct without the primary key)
// page by number: Options.Skip.
func (q *Query) Keyset() bool { return true }

// Result iterates over the results of one run:
//
//	for res.Next() { rec := res.Record() … }
//	if err := res.Err(); err != nil { … }
type Result struct{}

// Next moves to the next record and reports whether there is one.
func (r *Result) Next() bool { return false }

// Record returns the current record.
func (r *Result) Record() *Record { return nil }

// Err returns the error that ended the iteration, if any.
func (r *Result) Err() error { return nil }

// More reports, after Next returned false, whether more results follow this page.
func (r *Result) More() bool { return false }

// FirstKey and LastKey return the positions of the page's first and last
// record; nil for an empty page.
func (r *Result) FirstKey() Key { return nil }

// LastKey is described with FirstKey.
func (r *Result) LastKey() Key { return nil }

// Row returns the root row; nil for aggregates and distinct results.
func (r *Record) Row() Row { return nil }

// Value returns the value of an output of the query that made the record.
func (r *Record) Value(o *Output) value.Value { return value.Value{} }

// Cookie writes the inner paging cookie <cookie page="n"><id last first/></cookie>
// of a page; "" when the query pages by number.
func (q *Query) Cookie(page int, first, last Key) string { return "" }

// ParseCookie reads an inner paging cookie (as Cookie writes it) into the key to
// continue after.
func (q *Query) ParseCookie(inner string) (Key, error) { return nil, notEmulated("run") }

// SkipToken wraps an inner cookie for the next page into
// <cookie pagenumber="2" pagingcookie="…" istracking="False" />, the inner text
// URL-encoded twice. It is the value of the fetchxmlpagingcookie annotation and,
// URL-encoded once more by the caller, of $skiptoken.
func SkipToken(nextPage int, inner string, tracking bool) string { return "" }

// ParseSkipToken reads what SkipToken writes.
func ParseSkipToken(token string) (page int, inner string, tracking bool, err error) {
	return 0, "", false, notEmulated("run")
}
