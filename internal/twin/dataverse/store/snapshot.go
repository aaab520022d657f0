package store

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/lockstep-sync/lockstep/internal/twin/dataverse/value"
)

// magic begins a snapshot; its last byte is the version of the format.
const magic = "DVTWIN\x00\x01"

// maxRow bounds one row in a snapshot, against damaged files.
const maxRow = 1 << 30

// Save writes all rows, deletions and the version counter. Writes wait
// meanwhile; reads do not.
func (s *Store) Save(w io.Writer) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	b := bufio.NewWriterSize(w, 1<<20)
	var buf [binary.MaxVarintLen64]byte
	number := func(n int64) { _, _ = b.Write(binary.AppendVarint(buf[:0], n)) } // the writer keeps the first error
	text := func(t string) {
		number(int64(len(t)))
		_, _ = b.WriteString(t)
	}
	_, _ = b.WriteString(magic)
	number(s.version)
	names := make([]string, 0, len(s.tables))
	for name := range s.tables {
		names = append(names, name)
	}
	slices.Sort(names)
	number(int64(len(names)))
	for _, name := range names {
		t := s.tables[name]
		text(name)
		number(int64(t.rows.n))
		for _, c := range t.rows.chunks {
			for _, e := range c {
				_, _ = b.Write(e.row.ID[:])
				number(e.row.Version)
				text(e.row.data)
			}
		}
		number(int64(len(t.tombs)))
		for _, d := range t.tombs {
			_, _ = b.Write(d.ID[:])
			number(d.Version)
		}
	}
	return b.Flush()
}

// Restore replaces the content of all tables by a snapshot. Tables that the
// store does not have are an error; indexes are rebuilt.
func (s *Store) Restore(r io.Reader) (err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := bufio.NewReaderSize(r, 1<<20)
	keep := func(e error) {
		if err == nil && e != nil {
			if errors.Is(e, io.EOF) {
				e = io.ErrUnexpectedEOF
			}
			err = fmt.Errorf("snapshot: %w", e)
		}
	}
	number := func() int64 {
		n, e := binary.ReadVarint(b)
		keep(e)
		return n
	}
	text := func() string {
		n := number()
		if err == nil && (n < 0 || n > maxRow) {
			keep(errors.New("a length is out of range"))
		}
		if err != nil {
			return ""
		}
		p := make([]byte, n)
		_, e := io.ReadFull(b, p)
		keep(e)
		return string(p)
	}
	id := func() (id value.ID) {
		_, e := io.ReadFull(b, id[:])
		keep(e)
		return id
	}
	head := make([]byte, len(magic))
	_, e := io.ReadFull(b, head)
	keep(e)
	if err == nil && string(head) != magic {
		return errors.New("snapshot: not a snapshot of this version")
	}
	version := number()
	loaded := map[string]*table{}
	for range number() {
		name := text()
		old := s.tables[name]
		if err == nil && old == nil {
			keep(fmt.Errorf("there is no table %q", name))
		}
		if err != nil {
			return err
		}
		t := &table{name: name}
		var entries []entry
		for n := number(); n > 0 && err == nil; n-- {
			row := &Row{ID: id(), Version: number(), data: text()}
			entries = append(entries, entry{idKey(row.ID), row})
			t.log = append(t.log, row)
		}
		for n := number(); n > 0 && err == nil; n-- {
			t.tombs = append(t.tombs, Tombstone{ID: id(), Version: number()})
		}
		if err != nil {
			return err
		}
		slices.SortFunc(t.log, func(a, b *Row) int { return int(a.Version - b.Version) })
		t.rows.build(entries)
		for _, l := range old.lookups {
			fresh := &lookup{name: l.name, ords: l.ords}
			fresh.fill(t)
			t.lookups = append(t.lookups, fresh)
		}
		loaded[name] = t
	}
	if err != nil {
		return err
	}
	for name, t := range loaded {
		s.tables[name] = t
		t.touch(s)
	}
	s.version, s.history = version, nil
	return nil
}
