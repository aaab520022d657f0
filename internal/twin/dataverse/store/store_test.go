package store

import (
	"encoding/binary"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/lockstep-sync/lockstep/internal/twin/dataverse/value"
)

func idOf(n uint64) value.ID {
	var id value.ID
	binary.BigEndian.PutUint64(id[:8], n*0x9E3779B97F4A7C15) // spread, so that order differs from n
	binary.BigEndian.PutUint64(id[8:], n)
	return id
}

// genCell draws any cell that a column could hold.
func genCell() *rapid.Generator[Cell] {
	return rapid.Custom(func(t *rapid.T) Cell {
		switch rapid.IntRange(0, 9).Draw(t, "kind") {
		case 0:
			return Cell{}
		case 1:
			return Cell{Value: value.Bool(rapid.Bool().Draw(t, "bool"))}
		case 2:
			return Cell{Value: value.Int(rapid.Int64().Draw(t, "int"))}
		case 3:
			return Cell{Value: value.Decimal(rapid.Int64Range(-1e15, 1e15).Draw(t, "decimal"), rapid.IntRange(0, 10).Draw(t, "scale"))}
		case 4:
			return Cell{Value: value.Double(rapid.Float64().Draw(t, "double"))}
		case 5:
			return Cell{Value: value.Text(rapid.String().Draw(t, "text"))}
		case 6:
			return Cell{Value: value.DateTime(time.Unix(rapid.Int64Range(-6e9, 6e9).Draw(t, "time"), 0))}
		case 7:
			return Cell{Value: value.Date(rapid.IntRange(1753, 9999).Draw(t, "year"), 2, 28)}
		case 8:
			return Cell{Value: value.GUID(idOf(rapid.Uint64().Draw(t, "id"))), Target: rapid.Byte().Draw(t, "target")}
		}
		return Cell{Value: value.MultiSelect(rapid.SliceOf(rapid.IntRange(-5, 1<<31-1)).Draw(t, "options")...)}
	})
}

func TestRowsKeepTheirCells(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cells := rapid.SliceOfN(genCell(), 2, 60).Draw(t, "cells")
		id := idOf(7)
		cells[0], cells[1] = Cell{Value: value.GUID(id)}, Cell{Value: value.Int(42)}
		row := NewRow(id, 42, cells)
		got := row.Cells(make([]Cell, len(cells)))
		for i := range cells {
			if got[i] != cells[i] || row.Cell(i) != cells[i] || row.Value(i) != cells[i].Value {
				t.Fatalf("cell %d is %v, want %v", i, got[i], cells[i])
			}
		}
		if short := NewRow(id, 42, row.Cells(make([]Cell, 2))); short.data != row.data {
			t.Fatal("a narrow buffer loses columns")
		}
		slot := make([]int16, len(cells))
		want := rapid.IntRange(2, max(2, len(cells)-1)).Draw(t, "want")
		for i := range slot {
			slot[i] = -1
		}
		if want < len(cells) {
			slot[want] = 0
			found := make([]Span, 1)
			row.Locate(slot, want, found)
			if v := row.Field(found[0]).Value(); v != cells[want].Value && !cells[want].Value.IsNull() {
				t.Fatalf("located %v, want %v", v, cells[want].Value)
			}
			if (found[0].Kind == value.KindNull) != cells[want].Value.IsNull() {
				t.Fatalf("located kind %v for %v", found[0].Kind, cells[want].Value)
			}
		}
	})
}

// model is the store as plain maps.
type model map[value.ID]int64

func (m model) sorted() []value.ID {
	out := make([]value.ID, 0, len(m))
	for id := range m {
		out = append(out, id)
	}
	slices.SortFunc(out, value.ID.Compare)
	return out
}

const (
	column = 2
	by     = "by"
)

func read(v View, batch int) (ids []value.ID, values []int64) {
	ids = []value.ID{}
	var after value.ID
	for {
		rows := v.Page(nil, "t", after, batch)
		for _, r := range rows {
			ids, values = append(ids, r.ID), append(values, r.Value(column).Int())
			after = r.ID
		}
		if len(rows) < batch {
			return ids, values
		}
	}
}

func checkModel(t *rapid.T, s *Store, m model) {
	ids, values := read(s.View(), 3)
	if diff := cmp.Diff(m.sorted(), ids); diff != "" {
		t.Fatalf("rows: %s", diff)
	}
	counts := map[int64]int{}
	for i, id := range ids {
		if values[i] != m[id] {
			t.Fatalf("row %s holds %d, want %d", id, values[i], m[id])
		}
		counts[m[id]]++
	}
	for n := range int64(5) {
		rows := s.View().Find(nil, "t", by, Hash(value.Int(n)), value.ID{}, 1000)
		for _, r := range rows {
			if r.Value(column).Int() != n || s.View().Get("t", r.ID) != r {
				t.Fatalf("index of %d holds a foreign or old row", n)
			}
		}
		if len(rows) != counts[n] || !slices.IsSortedFunc(rows, func(a, b *Row) int { return a.ID.Compare(b.ID) }) {
			t.Fatalf("index of %d has %d rows, want %d in key order", n, len(rows), counts[n])
		}
	}
}

// replay applies the changes after a version to a copy of the rows known then,
// as a client of change tracking does.
func replay(v View, known model, after int64) model {
	for _, r := range v.Changed(nil, "t", after, 0, 1_000_000) {
		known[r.ID] = r.Value(column).Int()
	}
	for _, d := range v.Deleted(nil, "t", after, v.Version(), 1_000_000) {
		delete(known, d.ID)
	}
	return known
}

func clone(m model) model {
	out := model{}
	maps.Copy(out, m)
	return out
}

func TestStoreAgreesWithAMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := New(100)
		s.AddTable("t")
		s.AddIndex("t", by, column)
		m := model{}
		baseline, known := s.View().Version(), model{}
		n := rapid.IntRange(1, 40).Draw(t, "transactions")
		for range n {
			before := clone(m)
			tx := s.Begin(value.ID{}, time.Time{})
			for range rapid.IntRange(0, 12).Draw(t, "writes") {
				id := idOf(rapid.Uint64Range(1, 30).Draw(t, "id"))
				if rapid.IntRange(0, 3).Draw(t, "delete") == 0 {
					tx.Delete("t", id)
					delete(m, id)
					continue
				}
				v := rapid.Int64Range(0, 4).Draw(t, "value")
				cells := make([]Cell, column+1)
				cells[column].Value = value.Int(v)
				tx.Put("t", NewRow(id, tx.Next(), cells))
				m[id] = v
			}
			if rapid.IntRange(0, 2).Draw(t, "rollback") == 0 {
				tx.Rollback()
				m = before
			} else {
				tx.Commit()
			}
			checkModel(t, s, m)
			if rapid.IntRange(0, 3).Draw(t, "sync") == 0 {
				known = replay(s.View(), known, baseline)
				baseline = s.View().Version()
				if diff := cmp.Diff(m, known); diff != "" {
					t.Fatalf("replayed changes differ: %s", diff)
				}
			}
		}
	})
}

func TestRewindRestores(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := New(100)
		s.AddTable("t")
		s.AddIndex("t", by, column)
		m := model{}
		var states []model
		for range rapid.IntRange(1, 30).Draw(t, "writes") {
			states = append(states, clone(m))
			tx := s.Begin(value.ID{}, time.Time{})
			id := idOf(rapid.Uint64Range(1, 8).Draw(t, "id"))
			if _, ok := m[id]; ok && rapid.Bool().Draw(t, "delete") {
				tx.Delete("t", id)
				delete(m, id)
			} else {
				v := rapid.Int64Range(0, 4).Draw(t, "value")
				cells := make([]Cell, column+1)
				cells[column].Value = value.Int(v)
				tx.Put("t", NewRow(id, tx.Next(), cells))
				m[id] = v
			}
			tx.Commit()
		}
		top := s.View().Version()
		back := rapid.IntRange(1, len(states)).Draw(t, "back")
		if got := s.Rewind(back); got != back {
			t.Fatalf("%d writes taken back, want %d", got, back)
		}
		want := states[len(states)-back]
		checkModel(t, s, want)
		if v := s.View().Version(); v >= top {
			t.Fatalf("version %d did not move back from %d", v, top)
		}
		if got := replay(s.View(), model{}, 0); !cmp.Equal(got, want) {
			t.Fatalf("the change log does not lead to the restored state: %s", cmp.Diff(want, got))
		}
	})
}

func TestIndexSplitsAndShrinks(t *testing.T) {
	s := New(0)
	s.AddTable("t")
	const n = 5000
	var rows []*Row
	for i := range uint64(n) {
		rows = append(rows, NewRow(idOf(i+1), 0, make([]Cell, 3)))
	}
	if err := s.Load("t", rows[:n/2]); err != nil {
		t.Fatal(err)
	}
	if err := s.Load("t", rows[:1]); err == nil {
		t.Error("a repeated id must be refused")
	}
	tx := s.Begin(value.ID{}, time.Time{})
	for _, r := range rows[n/2:] {
		tx.Put("t", NewRow(r.ID, tx.Next(), make([]Cell, 3)))
	}
	tx.Commit()
	if ids, _ := read(s.View(), 700); len(ids) != n || !slices.IsSortedFunc(ids, value.ID.Compare) {
		t.Fatalf("%d rows", len(ids))
	}
	tx = s.Begin(value.ID{}, time.Time{})
	for _, r := range rows {
		if !tx.Delete("t", r.ID) {
			t.Fatal("a row is missing")
		}
	}
	tx.Commit()
	if s.View().Count("t") != 0 || len(s.View().Page(nil, "t", value.ID{}, 10)) != 0 {
		t.Error("rows are left")
	}
}

func TestEqualValuesShareAHash(t *testing.T) {
	for _, pair := range [][2]value.Value{
		{value.Text("Ada@X.org"), value.Text("ada@x.ORG")},
		{value.Decimal(15, 1), value.Decimal(1500, 3)},
		{value.Decimal(10, 0), value.Decimal(100, 1)},
	} {
		if !value.Equal(pair[0], pair[1]) || Hash(pair[0]) != Hash(pair[1]) {
			t.Errorf("%v and %v", pair[0], pair[1])
		}
	}
}

func TestARowDeletedTwiceIsToldOnce(t *testing.T) {
	s := New(100)
	s.AddTable("t")
	for range 2 {
		tx := s.Begin(value.ID{}, time.Time{})
		tx.Put("t", NewRow(idOf(1), tx.Next(), make([]Cell, 3)))
		tx.Delete("t", idOf(1))
		tx.Commit()
	}
	if d := s.View().Deleted(nil, "t", 100, s.View().Version(), 10); len(d) != 1 || d[0].Version != s.View().Version() {
		t.Errorf("deletions %v", d)
	}
}
