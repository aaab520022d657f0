package consent

import (
	"bytes"
	"encoding/hex"
	"fmt"

	"github.com/lockstep-sync/lockstep"
)

// Break is the first place where a chain is not what was appended.
type Break struct {
	Seq int64  `json:"seq"` // of the row
	Why string `json:"why"`
}

func (b *Break) Error() string {
	return fmt.Sprintf("row %d of the consent ledger: %s", b.Seq, b.Why)
}

// Report is the outcome of a verification.
type Report struct {
	// Entries is how many rows hold, from the first on.
	Entries int64 `json:"entries"`
	// Erased is how many of them have no values of a person any more.
	Erased int64 `json:"erased"`
	// Head is the last row that holds, as "number:hash in hexadecimal": note it
	// elsewhere, and a later verification can be asked whether it is still there.
	Head   string `json:"head"`
	Broken *Break `json:"broken,omitempty"` // nil: the chain is whole
}

// String is the head as Report shows it.
func (h Head) String() string { return fmt.Sprintf("%d:%s", h.Seq, hex.EncodeToString(h.Hash[:])) }

// ParseHead reads what Report.Head says.
func ParseHead(s string) (Head, error) {
	var h Head
	var sum []byte
	n, err := fmt.Sscanf(s, "%d:%x", &h.Seq, &sum)
	if err != nil || n != 2 || len(sum) != len(h.Hash) || h.Seq < 0 {
		return Head{}, &lockstep.Error{Code: lockstep.CodeInvalid, Field: "head", Msg: fmt.Sprintf("%.80q is not the head of a ledger.", s), Hint: "Give it as an earlier verification printed it: number:hash."}
	}
	h.Hash = [32]byte(sum)
	return h, nil
}

// Verifier goes over a ledger from its first row to its last. The zero value is
// ready. It remembers the address keys of people who were erased, and nothing else.
type Verifier struct {
	// Expect, when its Seq is not zero, is a head noted earlier, which must be part
	// of the chain.
	Expect Head

	last    Head
	rows    int64
	blank   int64
	broken  *Break
	erased  map[lockstep.AddressKey]bool  // an erasure is on record
	pending map[lockstep.AddressKey]int64 // first row without values, erasure not met yet
}

// Add looks at the next row and reports whether to go on: after the first break
// nothing more can be said. The row is not kept.
func (v *Verifier) Add(r *Row) bool {
	if v.broken != nil {
		return false
	}
	if r.Seq > v.last.Seq+1 {
		return v.fail(v.last.Seq+1, "it is missing")
	}
	if r.Seq <= v.last.Seq {
		return v.fail(r.Seq, "it comes a second time")
	}
	if why := r.check(); why != "" {
		return v.fail(r.Seq, why)
	}
	if !bytes.Equal(r.Content[prevAt:commitAt], v.last.Hash[:]) {
		if r.Seq == 1 {
			return v.fail(1, "it was not the first")
		}
		return v.fail(r.Seq, fmt.Sprintf("it was not appended after row %d as that is now: one of the two was replaced", v.last.Seq))
	}
	if v.Expect.Seq == r.Seq && v.Expect.Hash != r.Hash {
		return v.fail(r.Seq, "it is not the one that was noted as the head")
	}
	if r.erasure() {
		if v.erased == nil {
			v.erased = map[lockstep.AddressKey]bool{}
		}
		v.erased[r.Key] = true
		delete(v.pending, r.Key)
	}
	if len(r.Person) == 0 {
		v.blank++
		if _, known := v.pending[r.Key]; !known && !v.erased[r.Key] {
			if v.pending == nil {
				v.pending = map[lockstep.AddressKey]int64{}
			}
			v.pending[r.Key] = r.Seq
		}
	}
	v.last = Head{r.Seq, r.Hash}
	v.rows++
	return true
}

func (v *Verifier) fail(seq int64, why string) bool {
	v.broken = &Break{Seq: seq, Why: why}
	return false
}

// End compares the last row with the head that is kept apart, nil when that is gone
// or unreadable, and returns what was found.
func (v *Verifier) End(head *Head) Report {
	if v.broken == nil {
		v.end(head)
	}
	return Report{Entries: v.rows, Erased: v.blank, Head: v.last.String(), Broken: v.broken}
}

func (v *Verifier) end(head *Head) {
	var first int64
	for _, seq := range v.pending {
		if first == 0 || seq < first {
			first = seq
		}
	}
	switch {
	case first > 0:
		v.fail(first, whyBlank)
	case head == nil:
		v.fail(v.last.Seq+1, "whether it is missing cannot be told: the record of the last row is gone or damaged")
	case head.Seq > v.last.Seq:
		v.fail(v.last.Seq+1, fmt.Sprintf("it is missing: the ledger had %d rows", head.Seq))
	case head.Seq < v.last.Seq:
		v.fail(head.Seq+1, fmt.Sprintf("it was not appended by Lockstep: the ledger had %d rows", head.Seq))
	case head.Hash != v.last.Hash:
		v.fail(head.Seq, "it is not the one that was appended last")
	case v.Expect.Seq > v.last.Seq:
		v.fail(v.last.Seq+1, fmt.Sprintf("it is missing: row %d was noted as the head", v.Expect.Seq))
	}
}
