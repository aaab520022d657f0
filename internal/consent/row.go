package consent

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"time"

	"github.com/lockstep-sync/lockstep"
)

const (
	version   = 1
	nonceSize = 16

	// Where the fixed parts of a content begin.
	seqAt    = 2
	prevAt   = seqAt + 8
	commitAt = prevAt + sha256.Size
	idAt     = commitAt + sha256.Size
	keyAt    = idAt + 16
	aboutAt  = keyAt + 16
	timesAt  = aboutAt + 16
	kindsAt  = timesAt + 16
	textsAt  = kindsAt + 2
)

// Row is one entry of the ledger as it is stored.
type Row struct {
	Seq     int64
	ID      lockstep.ID
	Key     lockstep.AddressKey
	Content []byte
	Person  []byte // empty = erased
	Hash    [32]byte
}

// Head is the end of the chain: the number and the hash of the last row. The zero
// Head is that of an empty ledger.
type Head struct {
	Seq  int64
	Hash [32]byte
}

// Append makes the row that follows head and the head after it. It gives the entry
// its place (Seq, Prev, Hash) and cuts its times to microseconds. erased leaves the
// values that name the person out from the beginning: somebody who was erased is
// restricted again.
func Append(head Head, e *lockstep.ConsentEntry, erased bool) (Row, Head) {
	e.Seq, e.Prev = head.Seq+1, head.Hash
	e.At, e.Seen = cut(e.At), cut(e.Seen)
	if erased {
		Blank(e)
	}
	person := appendPerson(e)
	content := make([]byte, textsAt, textsAt+96)
	content[0], content[1] = 'C', version
	binary.BigEndian.PutUint64(content[seqAt:], uint64(e.Seq))
	copy(content[prevAt:], e.Prev[:])
	commitment := sha256.Sum256(person)
	copy(content[commitAt:], commitment[:])
	copy(content[idAt:], e.ID[:])
	copy(content[keyAt:], e.Key[:])
	copy(content[aboutAt:], e.About[:])
	binary.BigEndian.PutUint64(content[timesAt:], uint64(micros(e.At)))
	binary.BigEndian.PutUint64(content[timesAt+8:], uint64(micros(e.Seen)))
	content[kindsAt], content[kindsAt+1] = byte(e.Reason), byte(e.OptIn)
	for _, s := range [...]string{e.Account, string(e.Act), string(e.Scope), e.Object, string(e.System), e.Target, e.Run} {
		content = appendText(content, s)
	}
	e.Hash = sha256.Sum256(content)
	if erased {
		person = nil
	}
	return Row{Seq: e.Seq, ID: e.ID, Key: e.Key, Content: content, Person: person, Hash: e.Hash}, Head{e.Seq, e.Hash}
}

// Blank takes every value that names a person out of an entry.
func Blank(e *lockstep.ConsentEntry) {
	e.Email, e.Ref, e.Contact, e.Actor, e.Evidence = "", lockstep.Ref{}, "", "", ""
}

func appendPerson(e *lockstep.ConsentEntry) []byte {
	person := make([]byte, nonceSize, nonceSize+16+5+len(e.Ref.Table)+len(e.Email)+len(e.Contact)+len(e.Actor)+len(e.Evidence)+4)
	_, _ = rand.Read(person) // never fails since Go 1.24
	person = append(person, e.Ref.ID[:]...)
	for _, s := range [...]string{e.Ref.Table, e.Email, string(e.Contact), e.Actor, e.Evidence} {
		person = appendText(person, s)
	}
	return person
}

// Entry reads a row. A row that is not what was appended is an error of what is
// wrong with it; its place in the chain is for Verifier to judge.
func (r *Row) Entry() (lockstep.ConsentEntry, error) {
	var e lockstep.ConsentEntry
	if why := r.check(); why != "" {
		return e, &Break{Seq: r.Seq, Why: why}
	}
	c := r.Content
	e.Seq, e.ID, e.Key, e.Hash = r.Seq, r.ID, r.Key, r.Hash
	copy(e.Prev[:], c[prevAt:])
	copy(e.About[:], c[aboutAt:])
	e.At = fromMicros(int64(binary.BigEndian.Uint64(c[timesAt:])))
	e.Seen = fromMicros(int64(binary.BigEndian.Uint64(c[timesAt+8:])))
	e.Reason, e.OptIn = lockstep.Standing(c[kindsAt]), lockstep.OptInType(c[kindsAt+1])
	t := texts{b: c[textsAt:]}
	e.Account = t.next()
	e.Act = lockstep.ConsentAct(t.next())
	e.Scope = lockstep.ConsentScope(t.next())
	e.Object = t.next()
	e.System = lockstep.ConsentSystem(t.next())
	e.Target = t.next()
	e.Run = t.next()
	ok := t.ended()
	if len(r.Person) > 0 {
		if len(r.Person) < nonceSize+16 {
			return e, &Break{Seq: r.Seq, Why: whyValues}
		}
		copy(e.Ref.ID[:], r.Person[nonceSize:])
		t = texts{b: r.Person[nonceSize+16:]}
		e.Ref.Table = t.next()
		e.Email = t.next()
		e.Contact = lockstep.ContactID(t.next())
		e.Actor = t.next()
		e.Evidence = t.next()
		ok = ok && t.ended()
	}
	if !ok { // its hash is right, so a newer program may have written it
		return e, &Break{Seq: r.Seq, Why: whyForm}
	}
	return e, nil
}

// Reasons of a Break.
const (
	whyContent = "its content was changed"
	whyPlace   = "it was moved here from another place"
	whyColumns = "its id or address key was changed"
	whyValues  = "the values that name the person were changed"
	whyForm    = "its form is not known to this program"
	whyBlank   = "the values that name the person are gone, and no erasure is on record for them"
)

// check compares a row with its own hash and commitment; empty = they fit.
func (r *Row) check() string {
	switch c := r.Content; {
	case sha256.Sum256(c) != r.Hash:
		return whyContent
	case len(c) < textsAt || c[0] != 'C' || c[1] != version:
		return whyForm
	case int64(binary.BigEndian.Uint64(c[seqAt:])) != r.Seq:
		return whyPlace
	case lockstep.ID(c[idAt:keyAt]) != r.ID || lockstep.AddressKey(c[keyAt:aboutAt]) != r.Key:
		return whyColumns
	case len(r.Person) > 0 && sha256.Sum256(r.Person) != [32]byte(c[commitAt:idAt]):
		return whyValues
	}
	return ""
}

// erasure reports whether a row, already checked, records one.
func (r *Row) erasure() bool {
	t := texts{b: r.Content[textsAt:]}
	t.bytes() // account
	return string(t.bytes()) == string(lockstep.ActErased)
}

// texts reads length-prefixed texts; after a failure all are empty.
type texts struct {
	b      []byte
	failed bool
}

func (t *texts) bytes() []byte {
	n, size := binary.Uvarint(t.b)
	if size <= 0 || n > uint64(len(t.b)-size) {
		t.b, t.failed = nil, true
		return nil
	}
	s := t.b[size : size+int(n)]
	t.b = t.b[size+int(n):]
	return s
}

func (t *texts) next() string { return string(t.bytes()) }

func (t *texts) ended() bool { return !t.failed && len(t.b) == 0 }

func appendText(dst []byte, s string) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}

func cut(t time.Time) time.Time { return fromMicros(micros(t)) }

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
