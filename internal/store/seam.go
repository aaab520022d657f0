package store

import (
	"context"
	"database/sql"
	"log/slog"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/lockstep-sync/lockstep"
)

// Rows is a result being read; Close it.
type Rows interface {
	Next() bool
	Scan(dest ...any) error
	Err() error
	Close()
}

// Row is a result of at most one row. Scan returns CodeNotFound when there is none.
type Row interface{ Scan(dest ...any) error }

// Reader reads. Placeholders are $1 … $n.
type Reader interface {
	Query(ctx context.Context, q string, args ...any) (Rows, error)
	QueryRow(ctx context.Context, q string, args ...any) Row
}

// Tx is a write transaction.
type Tx interface {
	Reader
	// Exec returns how many rows were changed.
	Exec(ctx context.Context, q string, args ...any) (int64, error)
	// Native returns the *sql.Tx (SQLite) or pgx.Tx (PostgreSQL) beneath.
	Native() any
}

// database is the seam between the statements and the two engines. Errors come
// out as *lockstep.Error.
type database interface {
	Reader
	InTx(ctx context.Context, f func(Tx) error) error
	Close() error
	// ping reports whether the database answers and, as far as it knows, takes writes.
	ping(ctx context.Context) error
	// wipe makes what was deleted or overwritten unreadable in the files, as far as
	// that can be done while the database is in use.
	wipe(ctx context.Context, log *slog.Logger) error
	sqlite() *sql.DB
	postgres() *pgxpool.Pool
}

// storable refuses text that PostgreSQL cannot hold, on both engines alike. Free text
// goes through clean; an id or a cursor must be refused, not changed.
func storable(args []any) error {
	for _, a := range args {
		if s, ok := a.(string); ok && (!utf8.ValidString(s) || strings.IndexByte(s, 0) >= 0) {
			return &lockstep.Error{Code: lockstep.CodeInvalid, Msg: "A text holds a zero byte or is not UTF-8."}
		}
	}
	return nil
}

type refusedRow struct{ err error }

func (r refusedRow) Scan(...any) error { return r.err }

// collect reads every row of a query.
func collect[T any](ctx context.Context, r Reader, scan func(Rows) (T, error), q string, args ...any) ([]T, error) {
	rows, err := r.Query(ctx, q, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []T
	for rows.Next() {
		v, err := scan(rows)
		if err != nil {
			return nil, err
		}
		all = append(all, v)
	}
	return all, rows.Err()
}

// maxRows and maxParams bound one statement of several rows. SQLite finds a $n by
// walking a list, so long statements cost more than they save.
const (
	maxRows   = 50
	maxParams = 400
)

// insert writes n rows: head is "INSERT INTO t (a, b) VALUES", tail what follows
// the values, row appends the values of row i. It returns how many rows were
// inserted or changed.
func insert(ctx context.Context, tx Tx, head, tail string, columns, n int, row func(args []any, i int) []any) (int64, error) {
	chunk := min(maxRows, max(1, maxParams/columns))
	var total int64
	var q string
	var args []any
	for from := 0; from < n; from += chunk {
		size := min(chunk, n-from)
		if q == "" || size < chunk {
			q = valuesStatement(head, tail, columns, size)
		}
		args = args[:0]
		for i := range size {
			args = row(args, from+i)
		}
		changed, err := tx.Exec(ctx, q, args...)
		if err != nil {
			return total, err
		}
		total += changed
	}
	return total, nil
}

func valuesStatement(head, tail string, columns, rows int) string {
	var b strings.Builder
	b.Grow(len(head) + len(tail) + rows*columns*6)
	b.WriteString(head)
	for r := range rows {
		if r > 0 {
			b.WriteByte(',')
		}
		b.WriteString(" (")
		for c := range columns {
			if c > 0 {
				b.WriteByte(',')
			}
			b.WriteByte('$')
			b.WriteString(strconv.Itoa(r*columns + c + 1))
		}
		b.WriteByte(')')
	}
	b.WriteByte(' ')
	b.WriteString(tail)
	return b.String()
}

// list returns "$first, $first+1 …" for n placeholders.
func list(first, n int) string {
	var b strings.Builder
	for i := range n {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteByte('$')
		b.WriteString(strconv.Itoa(first + i))
	}
	return b.String()
}

// filter builds the conditions of a query; each ? stands for one of the values.
type filter struct {
	text strings.Builder
	args []any
}

func (f *filter) and(condition string, values ...any) {
	if f.text.Len() == 0 {
		f.text.WriteString(" WHERE ")
	} else {
		f.text.WriteString(" AND ")
	}
	for _, v := range values {
		before, after, _ := strings.Cut(condition, "?")
		f.args = append(f.args, v)
		f.text.WriteString(before + "$" + strconv.Itoa(len(f.args)))
		condition = after
	}
	f.text.WriteString(condition)
}

// pageSize turns a caller's limit into the number of rows to read.
func pageSize(limit int) int64 {
	const usual, most = 100, 1000
	if limit <= 0 {
		return usual
	}
	return int64(min(limit, most))
}
