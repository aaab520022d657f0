package lockstep

import (
	"context"
	"errors"
)

// Cursor is an adapter's own mark of how far a feed was read: a delta link, a
// page link, a watermark. Empty means from the beginning. It holds no secret.
type Cursor string

// RecordQuery says which columns of which table to read. Columns are logical
// names of the table, or "lookup.column" for a column one lookup away.
type RecordQuery struct {
	Table   string
	Columns []string
	// Inactive asks FindByEmail for inactive records too.
	Inactive bool
}

// RecordPage is one page of a record feed. The records and their texts are valid
// until the page is dropped; a callee that keeps a value keeps the whole page's
// text alive.
type RecordPage struct {
	Records []Record
	// Resume continues the feed after this page. It is empty on the last page.
	Resume Cursor
}

// CRM is what the engine needs of every CRM connection. All methods are safe for
// concurrent use, obey ctx, and answer with *Error. Pages are handed to each in
// order, one at a time; an error from each ends the read and is returned as is.
type CRM interface {
	// Identity asks who answers. CodeUnauthorized, CodeForbidden or
	// CodeUnavailable say which step of the connection failed.
	Identity(ctx context.Context) (OrganizationIdentity, error)
	// Tables reads the metadata of the named tables; unknown names are left out.
	Tables(ctx context.Context, names []string) ([]Table, error)
	RecordReader
	RecordWriter
	ListReader
	ListWriter
}

// RecordReader reads CRM records.
type RecordReader interface {
	// Changes reads what changed since from, deleted records included, and
	// returns the cursor for the next time. With an empty from it reads every
	// record. from may also be a page's Resume. CodeExpired means that the
	// cursor cannot be continued: read from the beginning. It wraps ErrSetBack when
	// that is so because the CRM was set back to an earlier state.
	Changes(ctx context.Context, q RecordQuery, from Cursor, each func(RecordPage) error) (Cursor, error)
	// Records reads the records with these ids, in any order; missing ones are
	// left out.
	Records(ctx context.Context, q RecordQuery, ids []ID, each func([]Record) error) error
	// FindByEmail reads active records, and inactive ones if the query says so,
	// whose address equals one of the normalised emails.
	FindByEmail(ctx context.Context, q RecordQuery, emails []string, each func([]Record) error) error
	// CountRecords returns how many records the table holds. It may be a day
	// old; it is compared with what a full read delivered.
	CountRecords(ctx context.Context, table string) (int64, error)
}

// ColumnValue is a value for one column.
type ColumnValue struct {
	Column string
	Value  Value
}

// RecordWrite creates a record under an id that the caller chose, or updates
// the given columns of an existing one.
type RecordWrite struct {
	ID     ID
	Create bool
	// Version is what an update rests on: if the record has another one by now, the row
	// is refused with CodeStale. 0 = whatever the record's version is.
	Version int64
	Fields  []ColumnValue
}

// RecordWriter writes CRM records.
type RecordWriter interface {
	// WriteRecords returns one result for each row: nil, or why that row was
	// refused. A row that is already there when created counts as written. An
	// update never creates. The second result is set when the call as a whole
	// failed; IsUnknown then tells whether rows may have been written.
	WriteRecords(ctx context.Context, table string, rows []RecordWrite) ([]*Error, error)
}

// ListMember is one membership of a static marketing list.
type ListMember struct {
	List    ID
	Record  ID
	Version int64
}

// IDPage is one page of records that are told by their ids alone.
type IDPage struct {
	IDs []ID
	// Resume continues the reading after this page. It is empty on the last page.
	Resume Cursor
}

// MemberQuery restricts a sweep over the memberships of static lists.
type MemberQuery struct {
	// Lists are the lists wanted; rows of other lists may come too when one
	// sweep over all lists is cheaper, and must be ignored by the caller.
	Lists []ID
	// AfterVersion leaves out memberships that are not newer; 0 = all.
	AfterVersion int64
}

// ListReader reads marketing lists and their members.
type ListReader interface {
	// Lists reads all marketing lists of account, contact and lead members.
	Lists(ctx context.Context) ([]MarketingList, error)
	// StaticMembers sweeps the memberships of static lists.
	StaticMembers(ctx context.Context, q MemberQuery, each func([]ListMember) error) error
	// DynamicMembers evaluates the query of a dynamic list, from the beginning or,
	// with a page's Resume, from where an evaluation was interrupted; both parts
	// together name everybody who was in the list all the while. CodeInvalid means
	// that the stored query cannot be run and names why; CodeExpired, that the
	// evaluation cannot be continued there: begin anew.
	DynamicMembers(ctx context.Context, list MarketingList, from Cursor, each func(IDPage) error) error
	// QueryTables names the tables whose records decide who is in a dynamic
	// list, and whether the answer also moves with time alone (relative dates)
	// or with the asking user.
	QueryTables(list MarketingList) (tables []string, volatile bool, err error)
}

// KeyReader is a CRM some of whose feeds do not tell which records were deleted. Whose
// id is not among all ids of the table any more, was.
type KeyReader interface {
	// TellsDeleted reports whether the feed that this cursor of Changes belongs to tells
	// of deleted records. It makes no call.
	TellsDeleted(feed Cursor) bool
	// Keys reads the ids of all records of a table, inactive ones included, each once,
	// from the beginning or, with a page's Resume, from where a reading was interrupted.
	// CodeExpired means that it cannot be continued there: begin anew.
	Keys(ctx context.Context, table string, from Cursor, each func(IDPage) error) error
}

// GoneTeller is a CRM that tells records which do not exist from those that the
// application user may not read. What it answers otherwise lacks both.
type GoneTeller interface {
	// Gone returns which of these records do not exist. CodeForbidden when one of the
	// others may not be read.
	Gone(ctx context.Context, table string, ids []ID) ([]ID, error)
}

// ErrSetBack says that a CRM was set back to an earlier state, as from a backup.
var ErrSetBack = errors.New("set back to an earlier state")

// RestoreReader is a CRM that can tell that it was set back to an earlier state, as from
// a backup.
type RestoreReader interface {
	// SetBack reports whether the CRM's own count of changes is lower now than it was when
	// Changes, with the same query, returned the cursor. False proves nothing: the cursor
	// may not tell, and as many changes may have been made since as were lost. It costs one
	// call at most.
	SetBack(ctx context.Context, q RecordQuery, from Cursor) (bool, error)
}

// DependantReader is a CRM that can tell whose looked-up records changed. The feed of
// a table tells of its own records' changes alone; a value that is one lookup away may
// change without the record that looks it up.
type DependantReader interface {
	// Dependants tells which records of q.Table look up, through a lookup of a
	// "lookup.column" in q.Columns, a record that changed since from, and returns the
	// cursor for the next time. A record may be told twice, and without a need. With an
	// empty from it tells nobody. When nothing changed it takes one call for each table
	// that is looked up. CodeExpired means that the cursor cannot be continued.
	Dependants(ctx context.Context, q RecordQuery, from Cursor, each func([]ID) error) (Cursor, error)
}

// MemberTester is a CRM that can ask a dynamic list's query about single records,
// which costs less than evaluating it when few of many records have changed.
type MemberTester interface {
	// DynamicMembersAmong tells which of these records are in the list. It takes
	// one call for each TestedMembers of them. Errors as of DynamicMembers.
	DynamicMembersAmong(ctx context.Context, list MarketingList, among []ID, each func([]ID) error) error
}

// MemberDecider is a CRM that can tell of some dynamic lists who is in them from the
// records alone, so that reading the records is all it takes.
type MemberDecider interface {
	// DecideMembers returns what tells whether a record, as Changes or Records
	// delivered it, is in the list: exactly what evaluating the query at that moment
	// would say of it. nil when only the CRM can tell. It makes no call.
	DecideMembers(list MarketingList) func(*Record) bool
}

// TestedMembers is the number of records that one call of DynamicMembersAmong asks
// about.
const TestedMembers = 300

// ListWriter changes the members of static lists.
type ListWriter interface {
	// AddMembers adds records of the list's member table. Adding a member that
	// is there already is no error. One result for each id, as in WriteRecords.
	AddMembers(ctx context.Context, list ID, table string, ids []ID) ([]*Error, error)
	// RemoveMembers removes members; one that is not a member is no error.
	RemoveMembers(ctx context.Context, list ID, ids []ID) ([]*Error, error)
}
