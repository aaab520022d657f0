package schema

import (
	"encoding/json"
	"errors"
	"fmt"
)

// stored is the JSON form of a schema.
type stored struct {
	Version    int64
	NextCode   int
	Tables     []storedTable
	Relations  []*Relation
	ManyToMany []*ManyToMany
}

type storedTable struct {
	Table   *Table
	Columns []*Column // by position; null where one was removed
}

// Marshal writes the schema as JSON.
func (s *Schema) Marshal() ([]byte, error) {
	out := stored{Version: s.Version, NextCode: s.nextCode, Relations: s.relations, ManyToMany: s.manyToMany}
	for _, t := range s.Tables() {
		c := *t
		c.ManyToOne, c.OneToMany, c.NToN = nil, nil, nil
		out.Tables = append(out.Tables, storedTable{&c, t.columns})
	}
	return json.Marshal(out)
}

// Unmarshal reads what Marshal wrote.
func Unmarshal(b []byte) (*Schema, error) {
	var in stored
	if err := json.Unmarshal(b, &in); err != nil {
		return nil, fmt.Errorf("schema: %w", err)
	}
	s := &Schema{Version: in.Version, nextCode: in.NextCode, tables: map[string]*Table{}, relations: in.Relations, manyToMany: in.ManyToMany}
	d := &Draft{s: s, owned: map[string]bool{}}
	for _, st := range in.Tables {
		t := st.Table
		if t == nil || t.Name == "" {
			return nil, errors.New("schema: a table has no name")
		}
		t.columns, t.byName, t.byWire = st.Columns, map[string]*Column{}, map[string]*Column{}
		for _, c := range st.Columns {
			if c == nil {
				continue
			}
			t.byName[c.Name] = c
			if c.AttributeOf == "" && c.ForRead {
				t.byWire[c.Wire()] = c
			}
		}
		s.tables[t.Name] = t
		d.owned[t.Name] = true
	}
	s.link(d)
	return s, nil
}
