package journal

import (
	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/subject"
)

// Subjects returns the filter of the records and contacts that a payload's changes
// are about; nil when it is damaged.
func Subjects(payload []byte) []byte {
	r, ok := open(payload)
	if !ok {
		return nil
	}
	var all []subject.Hash
	for !r.bad && r.pos < len(r.text) {
		r.skip(&all)
	}
	if r.bad {
		return nil
	}
	return subject.Filter(all)
}

// skip reads past one change and notes whom it is about.
func (r *reader) skip(subjects *[]subject.Hash) {
	r.cut(2)
	flags := r.byte()
	r.uvarint() // why
	if flags&hasRef != 0 {
		r.uvarint()
		*subjects = append(*subjects, subject.Of(r.cut(16)))
	}
	if flags&hasContact != 0 {
		if contact := r.string(); contact != "" {
			*subjects = append(*subjects, subject.Of(contact))
		}
		r.string()
	}
	if flags&hasList != 0 {
		r.cut(16)
	}
	if flags&hasBook != 0 {
		r.uvarint()
	}
	if flags&hasBooks != 0 {
		for range r.count() {
			r.uvarint()
		}
	}
	if flags&hasName != 0 {
		r.string()
	}
	if flags&hasCause != 0 {
		r.string()
	}
	if flags&hasFields != 0 {
		for range r.count() {
			r.uvarint()
			r.skipValue()
			r.skipValue()
		}
	}
}

func (r *reader) skipValue() {
	if lockstep.Kind(r.byte()) > lockstep.Null {
		r.string()
	}
}

// open checks a payload and reads past its names.
func open(payload []byte) (*reader, bool) {
	if !whole(payload) {
		return nil, false
	}
	r := &reader{text: string(payload[2 : len(payload)-4])}
	for range r.count() {
		r.names = append(r.names, r.string())
	}
	return r, !r.bad
}
