package crosswalk

import (
	"strconv"
	"strings"

	lockstep "github.com/lockstep-sync/lockstep"
)

// packed is a contact id in 8 bytes: one more than its number when it is a
// canonical decimal number, otherwise its place in the pool with the top bit set;
// 0 = no contact.
type packed uint64

const pooled packed = 1 << 63

// contactPool keeps the texts of contact ids that are no decimal numbers.
type contactPool struct {
	texts []lockstep.ContactID
	known map[lockstep.ContactID]packed
}

// packNumber packs a decimal number of up to 18 digits without leading zeros.
func packNumber(s string) (packed, bool) {
	if len(s) == 0 || len(s) > 18 || s[0] == '0' && len(s) > 1 {
		return 0, false
	}
	var n packed
	for i := range len(s) {
		c := s[i] - '0'
		if c > 9 {
			return 0, false
		}
		n = n*10 + packed(c)
	}
	return n + 1, true
}

// lookup packs an id without taking it into the pool.
func (p *contactPool) lookup(id lockstep.ContactID) (packed, bool) {
	if id == "" {
		return 0, true
	}
	if n, ok := packNumber(string(id)); ok {
		return n, true
	}
	n, ok := p.known[id]
	return n, ok
}

// pack packs an id; the bytes are not kept.
func (p *contactPool) pack(id []byte) packed {
	if n, ok := p.lookup(lockstep.ContactID(peek(id))); ok {
		return n
	}
	if p.known == nil {
		p.known = map[lockstep.ContactID]packed{}
	}
	text := lockstep.ContactID(strings.Clone(peek(id)))
	n := pooled | packed(len(p.texts))
	p.texts = append(p.texts, text)
	p.known[text] = n
	return n
}

func (p *contactPool) unpack(n packed) lockstep.ContactID {
	switch {
	case n == 0:
		return ""
	case n&pooled != 0:
		return p.texts[n&^pooled]
	}
	return lockstep.ContactID(strconv.FormatUint(uint64(n-1), 10))
}
