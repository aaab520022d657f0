package query

import (
	"iter"
	"time"

	"github.com/lockstep-sync/lockstep/internal/twin/dataverse/value"
)

// Limits of the service, from Microsoft's documentation of paging, FetchXML and
// aggregation.
const (
	MaxPage          = 5000    // rows a page, and the most that @odata.count tells
	MaxExpands       = 15      // $expand items a query, nested ones included
	MaxLinks         = 15      // link-entity elements a query
	MaxConditions    = 500     // condition elements a query
	MaxValues        = 2000    // values of one condition
	MaxAggregateRows = 50_000  // source rows of an aggregate query
	MaxSimplePaging  = 50_000  // rows reachable by page number without a cookie
	MaxFetchBytes    = 1 << 20 // size of a FetchXML text
	MaxFetchDepth    = 64      // nesting of a FetchXML text
)

// Schema finds tables. Implementations answer from one immutable snapshot.
type Schema interface {
	// TableByName finds a table by its logical name, such as "contact".
	TableByName(logicalName string) (Table, bool)
	// TableBySet finds a table by its entity set name, such as "contacts".
	TableBySet(setName string) (Table, bool)
}

// Table describes one table. Names are case-sensitive.
type Table interface {
	LogicalName() string
	SetName() string
	// PrimaryID is the column of the primary key; its kind is value.KindGUID.
	PrimaryID() Column
	// PrimaryName is the column that names a record; false for tables without.
	PrimaryName() (Column, bool)
	// Column finds a column by logical name ("parentcustomerid", never the
	// property name "_parentcustomerid_value").
	Column(logicalName string) (Column, bool)
	// Columns lists all columns in the order in which they are served.
	Columns() []Column
	// Navigation finds a navigation property by its name.
	Navigation(name string) (Navigation, bool)
}

// Column describes one column.
type Column struct {
	LogicalName string
	Ordinal     int        // index for Row.Value, unique within the table
	Kind        value.Kind // kind of its non-null values
	Lookup      bool       // holds the id of another record; property _x_value
	Option      bool       // choice, state, status: whole numbers with labels
	// Targets are the logical names of the tables a lookup may point to.
	Targets []string
}

// Property returns the column's name on the wire: the logical name, or
// _name_value for a lookup.
func (c Column) Property() string {
	if c.Lookup {
		return "_" + c.LogicalName + "_value"
	}
	return c.LogicalName
}

// Cardinality of a navigation property as seen from its table.
type Cardinality uint8

// The three cardinalities. ToOne is the only single-valued one.
const (
	ToOne Cardinality = iota
	ToMany
	ManyToMany
)

// Navigation describes one navigation property.
type Navigation struct {
	Name        string
	Cardinality Cardinality
	Target      string // logical name of the table at the other end
	// Column is the logical name of the lookup that makes the relation: a
	// column of this table for ToOne, of Target for ToMany, unused otherwise.
	Column string
	// Intersect is the logical name of the table between, for ManyToMany, with
	// its column that holds our id (Near) and the other end's (Far).
	Intersect, Near, Far string
}

// Row is an immutable version of a record: it stays valid and unchanged however
// long a query holds it.
type Row interface {
	// Value returns the value at a column's ordinal; null where never set.
	Value(ordinal int) value.Value
}

// Source gives the rows that the caller may read. Get and Lookup are called
// while a Scan of the same or another table is being consumed, so an
// implementation must not hold a lock that they need. Rows inserted or deleted
// while a Scan runs may or may not appear; all others appear exactly once.
type Source interface {
	// Scan yields the rows of a table in ascending order of the primary key
	// (value.ID.Compare) that lie strictly after the key; the zero ID starts at
	// the first row.
	Scan(t Table, after value.ID) iter.Seq[Row]
	// Get finds a row by its primary key.
	Get(t Table, id value.ID) (Row, bool)
	// Lookup yields the rows whose column equals v (value.Equal; v is of the
	// column's kind and not null), in any order. ok is false when the column has no index; the query then scans.
	Lookup(t Table, c Column, v value.Value) (rows iter.Seq[Row], ok bool)
}

// Env is what a query depends on beside the data.
type Env struct {
	// Now is the time of the request; relative dates count from it, in UTC.
	Now time.Time
	// User, BusinessUnit and Teams are those of the calling user.
	User, BusinessUnit value.ID
	Teams              []value.ID
	// Language is the user's language code, such as 1033.
	Language int
	// WeekStart is the first day of a week; Sunday unless the organization says
	// otherwise.
	WeekStart time.Weekday
}

// Output is one property of a result.
type Output struct {
	// Name is the property's name: "fullname", "_parentcustomerid_value",
	// "alias.column", or the alias of a FetchXML attribute or an aggregate.
	Name string
	// Kind is the kind of its non-null values.
	Kind value.Kind
	// Table and Column say where the value comes from. Table is nil for
	// aggregates without such a column (a count, a date part).
	Table  Table
	Column Column
	// Aggregated is true when the value was computed (count, sum …) rather
	// than read or grouped by.
	Aggregated bool

	source int // index into Record.rows; aggregates: index into Record.values
}

// Expand is one item of $expand.
type Expand struct {
	Navigation Navigation
	Table      Table // the target
	// Ref is true for nav/$ref: only references are wanted.
	Ref bool
	// Query selects, filters, orders and cuts the related rows, with nested
	// expands in Query.Expands. Its Outputs are the target's.
	Query *Query
}

// Query is a parsed query, ready to run any number of times and safe for
// concurrent use. ParseOData and ParseFetch make them.
type Query struct {
	// Table is the root.
	Table Table
	// Outputs are the properties of each result in order of the request. The
	// primary key is always among the outputs of an OData query without $apply;
	// in FetchXML unless the query is distinct or aggregates.
	Outputs []Output
	// AllColumns is true when no columns were chosen.
	AllColumns bool
	// Select holds the chosen property names as written, for @odata.context;
	// nil when AllColumns.
	Select []string
	// Top is $top or the root's top attribute, 0 for none.
	Top int
	// Count is true for $count=true and returntotalrecordcount.
	Count bool
	// Expands are the $expand items in order.
	Expands []Expand
	// Aggregate is true for $apply and FetchXML aggregates: records have no row,
	// no etag and no primary key.
	Aggregate bool
	// Distinct is true for FetchXML distinct.
	Distinct bool
	// Fetch is true for FetchXML: null outputs are left out on the wire.
	Fetch bool
	// Page and PageSize are the page and count attributes of FetchXML (0 when
	// absent); PagingCookie is its decoded paging-cookie (see ParseCookie).
	Page, PageSize int
	PagingCookie   string
	// SkipToken and DeltaToken are the decoded $skiptoken and $deltatoken, which
	// are left to the caller (see ParseSkipToken).
	SkipToken, DeltaToken string

	plan plan
}

// Scope narrows a query to the rows related to one record, as in
// GET /accounts(id)/contact_customer_accounts.
type Scope struct {
	Navigation Navigation
	// From is the table that has the navigation property, ID its record.
	From Table
	ID   value.ID
}

// Options say how to run a query.
type Options struct {
	Env Env
	// Schema resolves the tables of a Scope.
	Schema Schema
	// PageSize is the wanted page (odata.maxpagesize); 0 means MaxPage. For
	// OData a value here makes $top ineffective, as in the service.
	PageSize int
	// After continues behind this key; nil starts at the beginning.
	After Key
	// Skip passes over so many results first: paging by number where there is
	// no cookie.
	Skip int
	// Scope narrows the rows; nil for all of the table.
	Scope *Scope
}

// Key is the position of one result: the values of the order columns, the
// primary key, and for joins the keys of the joined rows.
type Key []value.Value

// Record is one result. It is valid until the next one is asked for, its rows
// for ever.
type Record struct {
	rows   []Row         // root row, then one a link (nil where an outer join found none)
	values []value.Value // of an aggregate query
	// anonymous marks a distinct result that stands for no single record.
	anonymous bool
}
