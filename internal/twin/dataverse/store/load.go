package store

import (
	"github.com/lockstep-sync/lockstep/internal/twin/dataverse/value"
)

// slabRows is how many rows share one allocation while loading.
const slabRows = 4096

// Slab collects encoded rows for Load with few allocations.
type Slab struct {
	rows []*Row
	part []Row
	buf  []byte
	ends []int
}

// Add encodes one row.
func (s *Slab) Add(id value.ID, cells []Cell) {
	if s.part == nil {
		s.part = make([]Row, 0, slabRows)
	}
	s.part = append(s.part, Row{ID: id})
	s.buf = AppendCells(s.buf, cells)
	s.ends = append(s.ends, len(s.buf))
	if len(s.part) == slabRows {
		s.flush()
	}
}

func (s *Slab) flush() {
	text := string(s.buf)
	start := 0
	for i := range s.part {
		s.part[i].data = text[start:s.ends[i]]
		start = s.ends[i]
		s.rows = append(s.rows, &s.part[i])
	}
	s.part, s.buf, s.ends = nil, s.buf[:0], s.ends[:0]
}

// Rows returns everything added.
func (s *Slab) Rows() []*Row {
	s.flush()
	return s.rows
}
