package merge

import (
	"bytes"
	"slices"

	lockstep "github.com/lockstep-sync/lockstep"
)

// TableOrder is the usual order of tables when one address belongs to several
// records: the first one speaks for the contact.
var TableOrder = []string{"contact", "lead", "account"}

// Rank returns a table's place in order; tables that are not in it come last.
func Rank(order []string, table string) int {
	if i := slices.Index(order, table); i >= 0 {
		return i
	}
	return len(order)
}

// Candidate is one of several records that share an address.
type Candidate struct {
	Ref      lockstep.Ref
	Rank     int   // place of its table, see Rank; lower is preferred
	Member   bool  // of the list being synced
	Modified int64 // Unix seconds
}

// Less reports whether a speaks for the contact rather than b: by table, then
// membership, then the later change, then the lower id. It is a total order, so
// the choice does not depend on the order of reading.
func Less(a, b Candidate) bool {
	switch {
	case a.Rank != b.Rank:
		return a.Rank < b.Rank
	case a.Member != b.Member:
		return a.Member
	case a.Modified != b.Modified:
		return a.Modified > b.Modified
	}
	if c := bytes.Compare(a.Ref.ID[:], b.Ref.ID[:]); c != 0 {
		return c < 0
	}
	return a.Ref.Table < b.Ref.Table
}

// Best returns the index of the candidate that speaks for the contact, -1 for none.
func Best(candidates []Candidate) int {
	best := -1
	for i := range candidates {
		if best < 0 || Less(candidates[i], candidates[best]) {
			best = i
		}
	}
	return best
}
