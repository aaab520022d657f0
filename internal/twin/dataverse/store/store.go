// Package store keeps the rows of a Dataverse organization in memory: compact
// immutable records, an ordered primary-key index per table, hash indexes, one
// row version counter for the whole organization, and a change log per table
// from which change tracking reads.
//
// One writer at a time: a Tx holds the lock until it is committed or rolled
// back. Readers copy row pointers in short slices under a shared lock and then
// work without it, so a long page never holds up a write.
package store

import (
	"fmt"
	"slices"
	"sort"
	"sync"
	"time"

	"github.com/lockstep-sync/lockstep/internal/twin/dataverse/value"
)

// historyMax bounds how many single writes can be taken back by Rewind.
const historyMax = 50_000

// Store is an organization's data. Safe for concurrent use.
type Store struct {
	mu      sync.RWMutex
	tables  map[string]*table
	version int64
	writes  int64 // ever made; unlike version never moved back
	history []Change
	observe func([]Change)
}

// Change is one applied write. Old is nil for an insert, New for a delete.
type Change struct {
	Table    string
	Old, New *Row
	Version  int64
	Time     time.Time
	User     value.ID
	// Operation and Caller are those of the transaction.
	Operation string
	Caller    value.ID
	// Note is what the owner of the transaction noted on the write; see Tx.Note.
	Note any
}

// Tombstone remembers a deleted row.
type Tombstone struct {
	ID      value.ID
	Version int64
}

type table struct {
	name    string
	rows    index
	lookups []*lookup
	log     []*Row // by version; superseded rows are dropped now and then
	stale   int
	tombs   []Tombstone
	touched int64 // count of the store's writes at the last one here
}

type lookup struct {
	name string
	ords []int
	index
}

// New returns a store whose first row version is first.
func New(first int64) *Store {
	return &Store{tables: map[string]*table{}, version: first}
}

// Observe calls f with the changes of every committed transaction, in order.
// f runs under the store's lock and must not call the store.
func (s *Store) Observe(f func([]Change)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.observe = f
}

// AddTable adds an empty table; existing ones stay as they are.
func (s *Store) AddTable(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.tables[name] == nil {
		s.tables[name] = &table{name: name}
	}
}

// DropTable removes a table with its rows.
func (s *Store) DropTable(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.tables, name)
}

// AddIndex indexes columns by position. Rows with a null in one of them are not
// in the index. An index of that name is replaced.
func (s *Store) AddIndex(tableName, name string, ords ...int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.tables[tableName]
	x := &lookup{name: name, ords: ords}
	x.fill(t)
	t.lookups = slices.DeleteFunc(t.lookups, func(l *lookup) bool { return l.name == name })
	t.lookups = append(t.lookups, x)
}

// DropIndex removes an index.
func (s *Store) DropIndex(tableName, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.tables[tableName]
	t.lookups = slices.DeleteFunc(t.lookups, func(l *lookup) bool { return l.name == name })
}

func (l *lookup) fill(t *table) {
	entries := make([]entry, 0, t.rows.n)
	for _, c := range t.rows.chunks {
		for _, e := range c {
			if h, ok := e.row.hashCells(l.ords); ok {
				entries = append(entries, entry{h, e.row})
			}
		}
	}
	l.build(entries)
}

func (t *table) lookup(name string) *lookup {
	for _, l := range t.lookups {
		if l.name == name {
			return l
		}
	}
	return nil
}

// View reads the store. The one of Store.View locks for each call; that of a
// transaction reads under the transaction's lock and sees its writes.
type View struct {
	s      *Store
	locked bool
}

// View returns a reader of committed rows.
func (s *Store) View() View { return View{s: s} }

func (v View) lock() func() {
	if v.locked {
		return func() {}
	}
	v.s.mu.RLock()
	return v.s.mu.RUnlock
}

// Get returns a row, nil when there is none.
func (v View) Get(tableName string, id value.ID) *Row {
	if !v.locked {
		v.s.mu.RLock()
		defer v.s.mu.RUnlock()
	}
	t := v.s.tables[tableName]
	if t == nil {
		return nil
	}
	return t.rows.get(idKey(id), id)
}

// Page appends to dst at most limit rows in ascending order of the primary key
// that lie strictly after the given one; the zero id starts at the first.
func (v View) Page(dst []*Row, tableName string, after value.ID, limit int) []*Row {
	unlock := v.lock()
	defer unlock()
	t := v.s.tables[tableName]
	if t == nil {
		return dst
	}
	return t.rows.run(dst, idKey(after), after, !after.IsZero(), false, len(dst)+limit)
}

// HasIndex reports whether a table has an index of that name.
func (v View) HasIndex(tableName, name string) bool {
	unlock := v.lock()
	defer unlock()
	t := v.s.tables[tableName]
	return t != nil && t.lookup(name) != nil
}

// Find appends to dst at most limit rows of one index key (see Hash) strictly
// after a primary key. Different values may share a key: the caller compares.
func (v View) Find(dst []*Row, tableName, indexName string, key uint64, after value.ID, limit int) []*Row {
	unlock := v.lock()
	defer unlock()
	t := v.s.tables[tableName]
	if t == nil {
		return dst
	}
	l := t.lookup(indexName)
	if l == nil {
		return dst
	}
	return l.run(dst, key, after, !after.IsZero(), true, len(dst)+limit)
}

// Count is the number of rows of a table.
func (v View) Count(tableName string) int {
	unlock := v.lock()
	defer unlock()
	if t := v.s.tables[tableName]; t != nil {
		return t.rows.n
	}
	return 0
}

// Version is the last row version that was given out.
func (v View) Version() int64 {
	unlock := v.lock()
	defer unlock()
	return v.s.version
}

// Touched is a stamp of a table's last write: equal stamps mean equal content.
func (v View) Touched(tableName string) int64 {
	unlock := v.lock()
	defer unlock()
	if t := v.s.tables[tableName]; t != nil {
		return t.touched
	}
	return 0
}

// ChangedCount is an upper bound of the number of rows written after a version.
func (v View) ChangedCount(tableName string, after int64) int {
	unlock := v.lock()
	defer unlock()
	t := v.s.tables[tableName]
	if t == nil {
		return 0
	}
	return len(t.log) - t.logAfter(after)
}

func (t *table) logAfter(version int64) int {
	return sort.Search(len(t.log), func(i int) bool { return t.log[i].Version > version })
}

// Changed appends to dst at most limit current rows whose version lies in
// (after, until], in order of their versions; until 0 means no upper end.
func (v View) Changed(dst []*Row, tableName string, after, until int64, limit int) []*Row {
	unlock := v.lock()
	defer unlock()
	t := v.s.tables[tableName]
	if t == nil {
		return dst
	}
	limit += len(dst)
	for _, r := range t.log[t.logAfter(after):] {
		if until > 0 && r.Version > until || len(dst) >= limit {
			break
		}
		if t.rows.get(idKey(r.ID), r.ID) == r {
			dst = append(dst, r)
		}
	}
	return dst
}

// Deleted appends to dst at most limit deletions whose version lies in
// (after, until] of rows that are still gone, in order, each row once.
func (v View) Deleted(dst []Tombstone, tableName string, after, until int64, limit int) []Tombstone {
	unlock := v.lock()
	defer unlock()
	t := v.s.tables[tableName]
	if t == nil {
		return dst
	}
	limit += len(dst)
	start := sort.Search(len(t.tombs), func(i int) bool { return t.tombs[i].Version > after })
	var last map[value.ID]int64
	for _, d := range t.tombs[start:] {
		if d.Version > until {
			break
		}
		if last == nil {
			last = map[value.ID]int64{}
		}
		last[d.ID] = d.Version
	}
	for _, d := range t.tombs[start:] {
		if d.Version > until || len(dst) >= limit {
			break
		}
		if last[d.ID] == d.Version && t.rows.get(idKey(d.ID), d.ID) == nil {
			dst = append(dst, d)
		}
	}
	return dst
}

// Tx is a transaction. It is not safe for concurrent use, and until it ends no
// other transaction begins and no View outside of it reads.
type Tx struct {
	View
	// Operation and Caller say which call makes the following writes, and who
	// called; the user is another one when the caller impersonates it. They are
	// only noted.
	Operation string
	Caller    value.ID

	user    value.ID
	now     time.Time
	changes []Change
}

// Begin starts a transaction for a user at a time.
func (s *Store) Begin(user value.ID, now time.Time) *Tx {
	s.mu.Lock()
	return &Tx{View: View{s: s, locked: true}, user: user, now: now}
}

// Next gives out the next row version.
func (tx *Tx) Next() int64 {
	tx.s.version++
	return tx.s.version
}

// Put inserts a row or takes the place of the one with the same id; the row's
// version must come from Next of this transaction.
func (tx *Tx) Put(tableName string, row *Row) {
	t := tx.s.tables[tableName]
	old := t.rows.get(idKey(row.ID), row.ID)
	t.swap(old, row)
	t.log = append(t.log, row)
	t.touch(tx.s)
	tx.changes = append(tx.changes, tx.change(Change{Table: tableName, Old: old, New: row, Version: row.Version}))
}

// Delete removes a row and leaves a tombstone; it reports whether there was one.
func (tx *Tx) Delete(tableName string, id value.ID) bool {
	t := tx.s.tables[tableName]
	old := t.rows.get(idKey(id), id)
	if old == nil {
		return false
	}
	t.swap(old, nil)
	v := tx.Next()
	t.touch(tx.s)
	t.tombs = append(t.tombs, Tombstone{ID: id, Version: v})
	tx.changes = append(tx.changes, tx.change(Change{Table: tableName, Old: old, Version: v}))
	return true
}

// change completes a write with its circumstances.
func (tx *Tx) change(c Change) Change {
	c.Time, c.User, c.Operation, c.Caller = tx.now, tx.user, tx.Operation, tx.Caller
	return c
}

// Note attaches something to the last write, for those who observe the commit. It
// goes with the write when that is undone.
func (tx *Tx) Note(note any) { tx.changes[len(tx.changes)-1].Note = note }

func (t *table) touch(s *Store) {
	s.writes++
	t.touched = s.writes
}

// swap moves the indexes of a table from one state of a record to another.
func (t *table) swap(old, row *Row) {
	switch {
	case row == nil:
		t.rows.remove(idKey(old.ID), old.ID)
	default:
		t.rows.put(idKey(row.ID), row)
	}
	if old != nil {
		t.stale++
	}
	for _, l := range t.lookups {
		var hadKey, hasKey bool
		var was, is uint64
		if old != nil {
			was, hadKey = old.hashCells(l.ords)
		}
		if row != nil {
			is, hasKey = row.hashCells(l.ords)
		}
		if hadKey && (!hasKey || was != is) {
			l.remove(was, old.ID)
		}
		if hasKey {
			l.put(is, row)
		}
	}
}

// Mark is a point in a transaction to which Undo can return.
func (tx *Tx) Mark() int { return len(tx.changes) }

// Undo takes back the writes since a mark.
func (tx *Tx) Undo(mark int) {
	for _, c := range slices.Backward(tx.changes[mark:]) {
		t := tx.s.tables[c.Table]
		if c.New == nil {
			t.swap(nil, c.Old)
			t.tombs = t.tombs[:len(t.tombs)-1]
			continue
		}
		t.log = t.log[:len(t.log)-1]
		if c.Old == nil {
			t.swap(c.New, nil)
		} else {
			t.swap(c.New, c.Old)
		}
	}
	tx.changes = tx.changes[:mark]
}

// Commit publishes the writes.
func (tx *Tx) Commit() {
	for _, c := range tx.changes {
		if t := tx.s.tables[c.Table]; t.stale > 1024 && t.stale > t.rows.n {
			t.compact()
		}
	}
	if len(tx.changes) > 0 {
		tx.s.history = append(tx.s.history, tx.changes...)
		if over := len(tx.s.history) - 2*historyMax; over > 0 {
			tx.s.history = append([]Change(nil), tx.s.history[len(tx.s.history)-historyMax:]...)
		}
		if tx.s.observe != nil {
			tx.s.observe(tx.changes)
		}
	}
	tx.s.mu.Unlock()
}

// Rollback takes back all writes.
func (tx *Tx) Rollback() {
	tx.Undo(0)
	tx.s.mu.Unlock()
}

func (t *table) compact() {
	t.log = slices.DeleteFunc(t.log, func(r *Row) bool { return t.rows.get(idKey(r.ID), r.ID) != r })
	t.stale = 0
}

// Rewind restores the state before the last n writes, as a restored backup
// does: rows reappear and vanish and the version counter moves backwards. It
// returns the number of writes taken back, which the store may have to limit to
// what it remembers.
func (s *Store) Rewind(n int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n = min(n, len(s.history))
	if n == 0 {
		return 0
	}
	undo := s.history[len(s.history)-n:]
	touched := map[*table]bool{}
	back := undo[0].Version - 1
	for _, c := range slices.Backward(undo) {
		t := s.tables[c.Table]
		if t == nil {
			continue
		}
		touched[t] = true
		current := t.rows.get(idKey(c.id()), c.id())
		if c.Old == nil {
			if current != nil {
				t.swap(current, nil)
			}
			continue
		}
		t.swap(current, c.Old)
		t.log = append(t.log, c.Old)
	}
	for t := range touched {
		slices.SortStableFunc(t.log, func(a, b *Row) int { return int(a.Version - b.Version) })
		t.log = slices.Compact(t.log)
		t.compact()
		t.tombs = slices.DeleteFunc(t.tombs, func(d Tombstone) bool { return d.Version > back })
		t.touch(s)
	}
	s.history = s.history[:len(s.history)-n]
	s.version = back
	return n
}

func (c Change) id() value.ID {
	if c.New != nil {
		return c.New.ID
	}
	return c.Old.ID
}

// Load adds many rows at once; their ids must be new and distinct. Versions are
// given in the order of the slice. It is meant for a table's first content: the
// rows are not in the history.
func (s *Store) Load(tableName string, rows []*Row) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.tables[tableName]
	if t == nil {
		return fmt.Errorf("load: there is no table %q", tableName)
	}
	entries := t.rows.all(make([]entry, 0, t.rows.n+len(rows)))
	for _, r := range rows {
		entries = append(entries, entry{idKey(r.ID), r})
	}
	fresh := index{}
	fresh.build(entries)
	var last *Row
	for _, c := range fresh.chunks {
		for _, e := range c {
			if last != nil && last.ID == e.row.ID {
				return fmt.Errorf("load: %s %s exists twice", tableName, last.ID)
			}
			last = e.row
		}
	}
	for _, r := range rows {
		s.version++
		r.Version = s.version
	}
	t.rows = fresh
	t.log = append(t.log, rows...)
	t.touch(s)
	for _, l := range t.lookups {
		l.fill(t)
	}
	return nil
}
