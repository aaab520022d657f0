// Package store keeps what Lockstep knows: connections, list settings, mappings,
// runs, the journal of changes, the link log, cursors and findings. One set of
// portable SQL statements runs on an embedded SQLite file and on PostgreSQL.
//
// Reads go to a pool; every write happens in a transaction, on SQLite through one
// connection, so that writers queue fairly and never see a lock error. Results of
// a sync step are stored by Commit alone: all of them or nothing, and only while
// the run is in process and the caller is the one who works on it.
//
// Whatever is acted upon without a person looking (link and membership logs,
// journal, cursors, settings, staged rows) carries a checksum that is verified
// when it is read: a damaged row is an error that tells the administrator, never
// an input.
package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/lockstep-sync/lockstep"
)

// Options says where the store is.
type Options struct {
	// Path is the data folder of an embedded SQLite database. It is made when it
	// does not exist and belongs to one process at a time.
	Path string
	// URL is a PostgreSQL database, "postgres://user:password@host/name". Any
	// number of processes may share it. Exactly one of Path and URL is set.
	URL string
	// Log receives what an administrator should know; nil = nothing.
	Log *slog.Logger
	// Sealer seals secrets; nil = secrets can be neither stored nor read.
	Sealer Sealer
	// Now is the clock; nil = time.Now.
	Now func() time.Time
}

// Sealer encrypts a secret for the place where it is kept. A value opens only
// where it was sealed for.
type Sealer interface {
	Seal(table, column, row string, plain []byte) ([]byte, error)
	Open(table, column, row string, sealed []byte) ([]byte, error)
	// Current reports whether a value was sealed with the newest key.
	Current(sealed []byte) bool
}

// Store is an open database. It is safe for concurrent use.
type Store struct {
	db     database
	log    *slog.Logger
	sealer Sealer
	now    func() time.Time

	salt    []byte // of address keys
	saltErr error  // why there is none

	schema decoded
}

// Open opens the database, makes or updates its tables, and, on SQLite, takes the
// data folder for this process. CodeConflict: another process has it.
func Open(ctx context.Context, o Options) (*Store, error) {
	return open(ctx, o, func(d database) database { return d })
}

// open is Open with the seam wrapped, which lets tests make single statements fail.
func open(ctx context.Context, o Options, wrap func(database) database) (*Store, error) {
	s := &Store{log: o.Log, sealer: o.Sealer, now: o.Now}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.now == nil {
		s.now = time.Now
	}
	var err error
	var d database
	switch {
	case (o.Path == "") == (o.URL == ""):
		return nil, &lockstep.Error{Code: lockstep.CodeInvalid, Op: "store: open", Msg: "Exactly one of a data folder and a database URL is needed."}
	case o.Path != "":
		d, err = openSQLite(ctx, o.Path, s.log)
	default:
		d, err = openPostgres(ctx, o.URL)
	}
	if err != nil {
		return nil, in("store: open", err)
	}
	s.db = d
	if err := s.loadSalt(ctx); err != nil {
		return nil, errors.Join(in("store: open", err), d.Close())
	}
	s.db = wrap(d)
	return s, nil
}

// Close ends every connection and gives the data folder free.
func (s *Store) Close() error { return s.db.Close() }

// SQLite returns the one connection through which everything is written, for
// parts that bring their own tables; nil on PostgreSQL.
func (s *Store) SQLite() *sql.DB { return s.db.sqlite() }

// Postgres returns the connection pool; nil on SQLite.
func (s *Store) Postgres() *pgxpool.Pool { return s.db.postgres() }

// Exclusive reports whether no other process can be working on this database.
func (s *Store) Exclusive() bool { return s.db.sqlite() != nil }

// InTx runs f in one write transaction, which is committed when f returns nil and
// rolled back otherwise. f must use the Tx alone: on SQLite a call to the Store
// from within f waits for ever. It must not wait for the network.
func (s *Store) InTx(ctx context.Context, f func(Tx) error) error { return s.db.InTx(ctx, f) }

// Ping reports whether the database answers. After the disk of an embedded database
// failed a write, it is CodeUnavailable with the reason until one succeeds.
func (s *Store) Ping(ctx context.Context) error { return in("store: ping", s.db.ping(ctx)) }

// Place says which database of which cluster this is, on PostgreSQL. A restored dump
// and another cluster are other places; a copy of all files of a cluster is not told
// apart. CodeUnsupported on SQLite, whose place is its folder.
func (s *Store) Place(ctx context.Context) (string, error) {
	const op = "store: place"
	if s.db.sqlite() != nil {
		return "", &lockstep.Error{Code: lockstep.CodeUnsupported, Op: op, Msg: "An embedded database does not know its place."}
	}
	var place string
	err := s.db.QueryRow(ctx, `SELECT (SELECT system_identifier FROM pg_control_system())::text || '/' || (SELECT oid FROM pg_database WHERE datname = current_database())::text`).Scan(&place)
	return place, in(op, err)
}

// in names the operation in an error that has no name yet.
func in(op string, err error) error {
	var e *lockstep.Error
	if !errors.As(err, &e) {
		if err == nil {
			return nil
		}
		return &lockstep.Error{Code: lockstep.CodeInternal, Op: op, Msg: "The database failed.", Scope: lockstep.ScopeConnection, Err: err}
	}
	if e.Op != "" {
		return err
	}
	named := *e
	named.Op = op
	return &named
}

// missing is in, with CodeNotFound put into words.
func missing(op string, err error, what, id string) error {
	if lockstep.CodeOf(err) == lockstep.CodeNotFound {
		return &lockstep.Error{Code: lockstep.CodeNotFound, Op: op, Msg: fmt.Sprintf("There is no %s %.80q.", what, id)}
	}
	return in(op, err)
}

func conflict(op, format string, args ...any) error {
	return &lockstep.Error{Code: lockstep.CodeConflict, Op: op, Msg: fmt.Sprintf(format, args...)}
}

func invalid(op, field, format string, args ...any) error {
	return &lockstep.Error{Code: lockstep.CodeInvalid, Op: op, Field: field, Msg: fmt.Sprintf(format, args...)}
}

// damaged says that stored bytes are not what was written.
func damaged(what string) *lockstep.Error {
	return &lockstep.Error{
		Code: lockstep.CodeInternal, Scope: lockstep.ScopeConnection, Upstream: "damaged",
		Msg:  "The database is damaged: " + what + " does not match its checksum.",
		Hint: "Nothing was done with it. Check the disk, then restore the database from its last backup.",
	}
}

// IsDamaged reports whether err says that the database does not hold what was written.
func IsDamaged(err error) bool {
	var e *lockstep.Error
	return errors.As(err, &e) && e.Upstream == "damaged"
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// checksum covers a row's content and where it belongs, so that neither a changed
// nor a misplaced row passes.
func checksum(content []byte, place ...string) int64 {
	h := crc32.New(castagnoli)
	for _, p := range place {
		_, _ = io.WriteString(h, p)
		_, _ = h.Write([]byte{0})
	}
	return int64(crc32.Update(h.Sum32(), castagnoli, content))
}

// toDoc encodes v for a doc column.
func toDoc(v any, place ...string) (doc string, crc int64, err error) {
	b, err := json.Marshal(v)
	if err != nil {
		return "", 0, err
	}
	return string(b), checksum(b, place...), nil
}

// fromDoc decodes a doc column into v.
func fromDoc(doc string, crc int64, v any, place ...string) error {
	if checksum([]byte(doc), place...) != crc {
		return damaged(strings.Join(place, " "))
	}
	return json.Unmarshal([]byte(doc), v)
}

// micros and fromMicros carry times as columns do; the zero time is 0.
func micros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

func fromMicros(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.UnixMicro(n).UTC()
}

// clean makes text from outside fit for a TEXT column: PostgreSQL takes neither
// malformed UTF-8 nor zero bytes.
func clean(s string) string {
	for i := range len(s) {
		if s[i] == 0 || s[i] >= 0x80 {
			return strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "")
		}
	}
	return s
}

// take reserves n numbers of a sequence and returns the first. The row stays
// locked until the transaction ends, so numbers become visible in their order: who
// has read up to a number has missed none below it.
func take(ctx context.Context, tx Tx, sequence string, n int) (int64, error) {
	var last int64
	err := tx.QueryRow(ctx, `INSERT INTO sequences (name, value) VALUES ($1, $2)
ON CONFLICT (name) DO UPDATE SET value = sequences.value + excluded.value RETURNING value`, sequence, int64(n)).Scan(&last)
	return last - int64(n) + 1, err
}
