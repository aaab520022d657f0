package crosswalk

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"iter"
	"runtime"
	"slices"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	lockstep "github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/transform"
	"pgregory.net/rapid"
)

var values = gocmp.Comparer(func(a, b lockstep.Value) bool { return a == b })

func drawEntry(t *rapid.T, labels int) Entry {
	e := Entry{
		Ref:      lockstep.Ref{Table: rapid.SampledFrom([]string{"contact", "lead", "account", "lsk_person"}).Draw(t, "table"), ID: lockstep.ID{15: rapid.Byte().Draw(t, "id") % 12}},
		Contact:  lockstep.ContactID(rapid.SampledFrom([]string{"", "0", "1", "2", "007", "-1", "x", "é", "999999999999999999", "1000000000000000000", "9223372036854775808"}).Draw(t, "contact")),
		Email:    rapid.SampledFrom([]string{"", "a@example.com", "b@example.com", "ü@example.com"}).Draw(t, "email"),
		Standing: lockstep.Standing(rapid.Byte().Draw(t, "standing") % 10),
		OptIn:    lockstep.OptInType(rapid.Byte().Draw(t, "opt-in") % 4),
		Master:   rapid.Bool().Draw(t, "master"),
		Closed:   rapid.IntRange(0, 3).Draw(t, "closed") == 0,
		Hash:     transform.Hash128{rapid.Byte().Draw(t, "hash")},
		Seen:     rapid.Uint64().Draw(t, "seen"),
		Modified: rapid.Int64().Draw(t, "modified"),
	}
	for range labels {
		kind := lockstep.Kind(rapid.Byte().Draw(t, "kind") % 8)
		e.Base = append(e.Base, lockstep.CanonicalValue(kind, rapid.String().Draw(t, "value")))
	}
	if labels > 0 && rapid.IntRange(0, 3).Draw(t, "apart") == 0 {
		e.Apart = make([]lockstep.Value, labels)
		e.Apart[rapid.IntRange(0, labels-1).Draw(t, "which")] = lockstep.TextValue(rapid.StringN(1, 5, -1).Draw(t, "crm"))
	}
	return e
}

func labelsOf(n int) []string {
	var l []string
	for i := range n {
		l = append(l, fmt.Sprintf("LABEL_%d", i))
	}
	return l
}

func payloadOf(labels []string, entries ...Entry) []byte {
	b := NewBatch(labels)
	for _, e := range entries {
		b.Append(e)
	}
	return b.Bytes()
}

func TestBatchRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		labels := labelsOf(rapid.IntRange(0, 4).Draw(t, "labels"))
		var want []Entry
		for range rapid.IntRange(0, 6).Draw(t, "entries") {
			want = append(want, drawEntry(t, len(labels)))
		}
		payload := payloadOf(labels, want...)
		var got []Entry
		err := Decode(payload, func(offset, length int, e Entry) error {
			again, err := DecodeEntry(labels, payload[offset:offset+length])
			if err != nil {
				return err
			}
			if diff := gocmp.Diff(e, again, values); diff != "" {
				t.Fatalf("the range reads otherwise: %s", diff)
			}
			got = append(got, e)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if diff := gocmp.Diff(want, got, values); diff != "" {
			t.Fatal(diff)
		}
		if l, err := Labels(payload); err != nil || !slices.Equal(l, labels) {
			t.Fatalf("labels %v, %v", l, err)
		}
	})
}

func sample(n int) Entry {
	return Entry{
		Ref:     lockstep.Ref{Table: "contact", ID: lockstep.ID{0: byte(n), 1: byte(n >> 8), 2: byte(n >> 16), 15: 1}},
		Contact: lockstep.ContactID(fmt.Sprint(1000 + n)), Email: fmt.Sprintf("p%d@example.com", n), Standing: lockstep.Subscribed,
		Master: true, Hash: transform.Hash128{1, byte(n)}, Modified: int64(n),
		Base: []lockstep.Value{lockstep.TextValue("Ann"), lockstep.NullValue()},
	}
}

func TestEveryPrefixAndEveryFlippedBitIsNoticed(t *testing.T) {
	labels := labelsOf(2)
	payload := payloadOf(labels, sample(1), sample(2), sample(300))
	index := NewIndex()
	if err := index.Add(1, payloadOf(labels, sample(7))); err != nil {
		t.Fatal(err)
	}
	check := func(damaged []byte, what string) {
		t.Helper()
		err := Decode(damaged, func(int, int, Entry) error { t.Errorf("%s: an entry came out", what); return nil })
		if err == nil || lockstep.CodeOf(err) != lockstep.CodeInternal {
			t.Errorf("%s: decoded with %v", what, err)
		}
		if err := index.Add(2, damaged); err == nil {
			t.Errorf("%s: the index took it", what)
		}
		if index.Len() != 1 || index.Labels(2) != nil {
			t.Fatalf("%s: the index changed", what)
		}
	}
	for n := range payload {
		check(payload[:n], fmt.Sprintf("prefix of %d bytes", n))
	}
	for i := range payload {
		for bit := range 8 {
			flipped := bytes.Clone(payload)
			flipped[i] ^= 1 << bit
			check(flipped, fmt.Sprintf("byte %d bit %d", i, bit))
		}
	}
	if err := index.Add(2, payload); err != nil || index.Len() != 4 {
		t.Errorf("the whole payload: %v, %d links", err, index.Len())
	}
}

func TestDecodeEndsWithTheCallersError(t *testing.T) {
	stop := errors.New("stop")
	n := 0
	err := Decode(payloadOf(labelsOf(2), sample(1), sample(2)), func(int, int, Entry) error { n++; return stop })
	if !errors.Is(err, stop) || n != 1 {
		t.Errorf("%v after %d entries", err, n)
	}
}

func TestIndexRefusesBlobsOutOfOrder(t *testing.T) {
	x := NewIndex()
	if err := x.Add(5, payloadOf(labelsOf(2), sample(1))); err != nil {
		t.Fatal(err)
	}
	for _, id := range []int64{5, 4} {
		if err := x.Add(id, payloadOf(labelsOf(2), sample(2))); err == nil {
			t.Errorf("blob %d after blob 5 was taken", id)
		}
	}
}

// model is the index as one would write it without thinking of memory.
type model map[lockstep.Ref]Entry

func (m model) add(entries []Entry) {
	for _, e := range entries {
		if e.Closed {
			delete(m, e.Ref)
		} else {
			m[e.Ref] = e
		}
	}
}

func refs(links []Link) []string {
	var s []string
	for _, l := range links {
		s = append(s, l.Ref.String())
	}
	slices.Sort(s)
	return s
}

// world is an index, its stored blobs and the model of both.
type world struct {
	index *Index
	model model
	blobs map[int64][]byte
	last  int64
}

func newWorld() *world { return &world{index: NewIndex(), model: model{}, blobs: map[int64][]byte{}} }

func (w *world) store(payload []byte) error {
	w.last++
	w.blobs[w.last] = payload
	return w.index.Add(w.last, payload)
}

func (w *world) fetch(ranges []lockstep.BlobRange) ([][]byte, error) {
	var out [][]byte
	for _, r := range ranges {
		out = append(out, w.blobs[r.Blob][r.Offset:r.Offset+r.Length])
	}
	return out, nil
}

func (w *world) compact(limit, chunk int) (dropped int, err error) {
	c, err := w.index.compact(w.fetch, limit, chunk)
	if err != nil {
		return 0, err
	}
	for _, p := range c.Payloads {
		if err := w.store(p); err != nil {
			return 0, err
		}
	}
	for _, id := range c.Drop {
		delete(w.blobs, id)
	}
	return len(c.Drop), w.index.Drop(c.Drop)
}

// reopened is the index that the next process builds from the stored blobs.
func (w *world) reopened() (*Index, error) {
	x := NewIndex()
	for id := range w.last + 1 {
		if p, ok := w.blobs[id]; ok {
			if err := x.Add(id, p); err != nil {
				return nil, err
			}
		}
	}
	return x, nil
}

func (w *world) check(t *rapid.T, x *Index) {
	if x.Len() != len(w.model) {
		t.Fatalf("%d links, want %d", x.Len(), len(w.model))
	}
	seen := map[lockstep.Ref]bool{}
	for l := range x.All() {
		if _, ok := w.model[l.Ref]; !ok || seen[l.Ref] {
			t.Fatalf("iterated over %v", l.Ref)
		}
		seen[l.Ref] = true
	}
	if len(seen) != len(w.model) {
		t.Fatalf("iterated over %d links, want %d", len(seen), len(w.model))
	}
	byContact, byEmail := map[lockstep.ContactID][]string{}, map[string][]string{}
	for ref, want := range w.model {
		l, ok := x.ByRef(ref)
		if !ok {
			t.Fatalf("%v not found", ref)
		}
		body, _ := w.fetch([]lockstep.BlobRange{l.Where})
		got, err := DecodeEntry(x.Labels(l.Where.Blob), body[0])
		if err != nil {
			t.Fatal(err)
		}
		if diff := gocmp.Diff(want, got, values); diff != "" {
			t.Fatal(diff)
		}
		if l.Ref != ref || l.Contact != want.Contact || l.Email != EmailKey(want.Email) || l.Hash64 != want.Hash.Hash64() || l.Seen != want.Seen || l.Master != want.Master {
			t.Fatalf("link %+v of entry %+v", l, want)
		}
		byContact[want.Contact] = append(byContact[want.Contact], ref.String())
		byEmail[want.Email] = append(byEmail[want.Email], ref.String())
	}
	for _, id := range []lockstep.ContactID{"", "0", "1", "2", "007", "-1", "x", "é", "999999999999999999", "1000000000000000000", "9223372036854775808", "nobody", "77"} {
		want := byContact[id]
		if id == "" {
			want = nil
		}
		slices.Sort(want)
		if got := refs(x.ByContact(id, nil)); !slices.Equal(got, want) {
			t.Fatalf("contact %q: %v, want %v", id, got, want)
		}
	}
	several := 0
	for id, want := range byContact {
		if id != "" && len(want) > 1 {
			several++
		}
	}
	for group := range x.Shared() {
		several--
		if len(group) < 2 || len(group) != len(byContact[group[0].Contact]) {
			t.Fatalf("a group of %d links of contact %q instead of %d", len(group), group[0].Contact, len(byContact[group[0].Contact]))
		}
	}
	if several != 0 {
		t.Fatalf("%d groups are missing", several)
	}
	for _, email := range []string{"", "a@example.com", "b@example.com", "ü@example.com", "nobody@example.com"} {
		want := byEmail[email]
		if email == "" {
			want = nil
		}
		slices.Sort(want)
		if got := refs(x.ByEmail(email, nil)); !slices.Equal(got, want) {
			t.Fatalf("email %q: %v, want %v", email, got, want)
		}
	}
	if _, ok := x.ByRef(lockstep.Ref{Table: "none", ID: lockstep.ID{1}}); ok {
		t.Fatal("found a record of an unknown table")
	}
}

func TestIndexEqualsAMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld()
		t.Repeat(map[string]func(*rapid.T){
			"add": func(t *rapid.T) {
				labels := labelsOf(rapid.IntRange(0, 2).Draw(t, "labels"))
				var entries []Entry
				for range rapid.IntRange(0, 8).Draw(t, "entries") {
					entries = append(entries, drawEntry(t, len(labels)))
				}
				if err := w.store(payloadOf(labels, entries...)); err != nil {
					t.Fatal(err)
				}
				w.model.add(entries)
			},
			"compact": func(t *rapid.T) {
				if _, err := w.compact(rapid.IntRange(0, 20).Draw(t, "max"), 4); err != nil {
					t.Fatal(err)
				}
			},
			"": func(t *rapid.T) {
				w.check(t, w.index)
				again, err := w.reopened()
				if err != nil {
					t.Fatal(err)
				}
				w.check(t, again)
			},
		})
	})
}

func TestCompactMakesChunksAndThenRests(t *testing.T) {
	w := newWorld()
	labels := labelsOf(2)
	const people = 2500
	for n := range people {
		if err := w.store(payloadOf(labels, sample(n))); err != nil {
			t.Fatal(err)
		}
		w.model.add([]Entry{sample(n)})
	}
	for round := 0; ; round++ {
		if round == 50 {
			t.Fatal("compaction finds something to do for ever")
		}
		dropped, err := w.compact(1<<20, ChunkEntries)
		if err != nil {
			t.Fatal(err)
		}
		if dropped == 0 {
			break
		}
	}
	if len(w.blobs) != 3 {
		t.Errorf("%d blobs for %d entries", len(w.blobs), people)
	}
	closed := sample(3)
	closed.Closed = true
	if err := w.store(payloadOf(labels, closed)); err != nil {
		t.Fatal(err)
	}
	w.model.add([]Entry{closed})
	for round := 0; ; round++ {
		if round == 50 {
			t.Fatal("a closed link keeps compaction busy for ever")
		}
		dropped, err := w.compact(1<<20, ChunkEntries)
		if err != nil {
			t.Fatal(err)
		}
		if dropped == 0 {
			break
		}
	}
	again, err := w.reopened()
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := again.ByRef(closed.Ref); ok || again.Len() != people-1 {
		t.Errorf("after compaction %d links, the closed one found: %v", again.Len(), ok)
	}
}

func TestDropRefusesWhatIsStillNeeded(t *testing.T) {
	w := newWorld()
	if err := w.store(payloadOf(labelsOf(2), sample(1))); err != nil {
		t.Fatal(err)
	}
	if err := w.index.Drop([]int64{1}); err == nil {
		t.Error("dropped a blob with an open link")
	}
	if _, ok := w.index.ByRef(sample(1).Ref); !ok {
		t.Error("the link is lost")
	}
}

func TestMemoryOfALink(t *testing.T) {
	const links, limit = 1_000_000, 84
	labels := labelsOf(2)
	heap := func() uint64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	x := NewIndex()
	e := sample(0)
	for chunk := range links / ChunkEntries {
		b := NewBatch(labels)
		for i := range ChunkEntries {
			n := chunk*ChunkEntries + i
			e.Ref.ID = lockstep.ID{0: byte(n), 1: byte(n >> 8), 2: byte(n >> 16), 15: 1}
			e.Contact = lockstep.ContactID(fmt.Sprint(10_000_000 + n))
			e.Email = fmt.Sprintf("person.%d@example.com", n)
			b.Append(e)
		}
		if err := x.Add(int64(chunk+1), b.Bytes()); err != nil {
			t.Fatal(err)
		}
	}
	used := float64(heap()-before) / links
	t.Logf("%.1f bytes a link", used)
	if used > limit {
		t.Errorf("%.1f bytes a link, want at most %d", used, limit)
	}
	// The most that the tables can take at any size: they are at least 17/24 full.
	row := float64(16+8+8+8+8+8+4+4) + 1
	if worst := row + 3*4*24.0/17; worst > limit {
		t.Errorf("%.1f bytes a link in the worst case", worst)
	}
	runtime.KeepAlive(x)
}

func TestObserved(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ids := rapid.SliceOf(rapid.Byte()).Draw(t, "ids")
		var o Observed
		want := map[lockstep.ID]bool{}
		for _, b := range ids {
			o.Add(lockstep.ID{b})
			want[lockstep.ID{b}] = true
		}
		o.Seal()
		if o.Len() != len(want) {
			t.Fatalf("%d of %d", o.Len(), len(want))
		}
		for b := range 256 {
			if id := (lockstep.ID{byte(b)}); o.Has(id) != want[id] {
				t.Fatalf("%v: %v", id, o.Has(id))
			}
		}
	})
}

func drawMember(t *rapid.T) Member {
	m := Member{
		Contact: lockstep.ContactID(rapid.SampledFrom([]string{"", "1", "2", "abc"}).Draw(t, "contact")),
		InList:  rapid.Bool().Draw(t, "in list"), InBook: rapid.Bool().Draw(t, "in book"), Former: rapid.Bool().Draw(t, "former"),
		Unsubscribed: rapid.Bool().Draw(t, "unsubscribed"), Excluded: rapid.Bool().Draw(t, "excluded"), Undone: rapid.Bool().Draw(t, "undone"), FirstSeen: rapid.Int64().Draw(t, "first seen"),
	}
	m.Lapsed = m.Excluded && rapid.Bool().Draw(t, "lapsed")
	if rapid.Bool().Draw(t, "record") {
		m.Record = lockstep.ID{1: 1 + rapid.Byte().Draw(t, "id")%6}
	}
	if rapid.IntRange(0, 3).Draw(t, "gone") == 0 {
		m.InList, m.InBook, m.Former, m.Unsubscribed, m.Excluded, m.Lapsed = false, false, false, false, false, false
	}
	return m
}

func TestMembersEqualAMap(t *testing.T) {
	type key struct {
		id      lockstep.ID
		contact lockstep.ContactID
	}
	byKey := func(a, b Member) int {
		return cmp.Or(bytes.Compare(a.Record[:], b.Record[:]), cmp.Compare(a.Contact, b.Contact))
	}
	rapid.Check(t, func(t *rapid.T) {
		set, want := NewMembers(), map[key]Member{}
		for range rapid.IntRange(0, 8).Draw(t, "batches") {
			b := NewMemberBatch()
			var in []Member
			for range rapid.IntRange(0, 5).Draw(t, "members") {
				m := drawMember(t)
				b.Append(m)
				in = append(in, m)
				k := key{id: m.Record}
				if m.Record.IsZero() {
					k.contact = m.Contact
				}
				if m.Gone() {
					delete(want, k)
				} else {
					want[k] = m
				}
			}
			var out []Member
			if err := DecodeMembers(b.Bytes(), func(m Member) error { out = append(out, m); return nil }); err != nil {
				t.Fatal(err)
			}
			if diff := gocmp.Diff(in, out); diff != "" {
				t.Fatal(diff)
			}
			if err := set.Add(b.Bytes()); err != nil {
				t.Fatal(err)
			}
		}
		reopened := NewMembers()
		for _, p := range set.Snapshot() {
			if err := reopened.Add(p); err != nil {
				t.Fatal(err)
			}
		}
		var expected []Member
		inList, inBook := 0, 0
		for _, m := range want {
			expected = append(expected, m)
			if m.InList {
				inList++
			}
			if m.InBook {
				inBook++
			}
		}
		slices.SortFunc(expected, byKey)
		for _, s := range []*Members{set, reopened} {
			got := slices.SortedFunc(s.All(), byKey)
			if diff := gocmp.Diff(expected, got); diff != "" {
				t.Fatal(diff)
			}
			if s.Len() != len(want) || s.InList() != inList || s.InBook() != inBook {
				t.Fatalf("counts %d, %d, %d", s.Len(), s.InList(), s.InBook())
			}
			strangers, waiting := 0, 0
			var listed []lockstep.ID
			for _, m := range expected {
				if m.Record.IsZero() && m.InBook {
					strangers++
				}
				if m.InList && !m.InBook && !m.Excluded {
					waiting++
				}
				if m.InList && !m.Record.IsZero() {
					listed = append(listed, m.Record)
				}
			}
			if s.Strangers() != strangers || s.Unsettled() != waiting {
				t.Fatalf("%d strangers and %d unsettled instead of %d and %d", s.Strangers(), s.Unsettled(), strangers, waiting)
			}
			if got := slices.SortedFunc(s.Listed(), compareIDs); !slices.Equal(got, listed) {
				t.Fatalf("listed %v instead of %v", got, listed)
			}
			for id := range s.Waiting() {
				if m := want[key{id: id}]; !m.InList || m.InBook || m.Excluded {
					t.Fatalf("%+v is not waiting", m)
				}
			}
		}
		for k, m := range want {
			got, ok := set.Record(k.id)
			if m.Record.IsZero() {
				got, ok = set.Stranger(k.contact)
			}
			if !ok || got != m {
				t.Fatalf("looked up %+v, want %+v", got, m)
			}
		}
		var now Observed
		for i := range byte(8) {
			if rapid.Bool().Draw(t, "observed") {
				now.Add(lockstep.ID{1: i})
			}
		}
		now.Seal()
		for m := range set.Left(&now) {
			if w := want[key{id: m.Record}]; !w.InList || now.Has(m.Record) {
				t.Fatalf("%+v did not leave", m)
			}
		}
		joined := slices.Collect(set.Joined(&now))
		if left := slices.Collect(set.Left(&now)); len(left)-len(joined) != recordsInList(expected)-now.Len() {
			t.Fatalf("%d in the list, %d observed, %d left and %d joined", recordsInList(expected), now.Len(), len(left), len(joined))
		}
	})
}

// What is known of the records that moved, and of all others from before, is the same
// as a sweep over everybody.
func TestMovedMembers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		set := NewMembers()
		for range rapid.IntRange(0, 20).Draw(t, "members") {
			set.Set(drawMember(t))
		}
		var sweep Observed
		var asked, in []lockstep.ID
		for i := range byte(8) {
			id := lockstep.ID{1: i + 1} // the zero id is nobody's
			m, _ := set.Record(id)
			member := m.InList
			if rapid.Bool().Draw(t, "asked") {
				asked = append(asked, id)
				if member = rapid.Bool().Draw(t, "in"); member {
					in = append(in, id)
				}
			}
			if member {
				sweep.Add(id)
			}
		}
		for m := range set.All() {
			if m.InList && !m.Record.IsZero() && !slices.Contains(asked, m.Record) {
				sweep.Add(m.Record)
			}
		}
		sweep.Seal()
		moved := set.Moved(asked, in)
		if diff := gocmp.Diff(slices.Collect(sweep.All()), slices.Collect(moved.All())); diff != "" || moved.Len() != sweep.Len() {
			t.Fatalf("%d records, %d in a sweep: %s", moved.Len(), sweep.Len(), diff)
		}
		people := func(of func(*Observed) iter.Seq[Member], o *Observed) []Member {
			return slices.SortedFunc(of(o), func(a, b Member) int {
				return cmp.Or(bytes.Compare(a.Record[:], b.Record[:]), cmp.Compare(a.Contact, b.Contact))
			})
		}
		for _, of := range []func(*Observed) iter.Seq[Member]{set.Outside, set.Left} {
			if diff := gocmp.Diff(people(of, &sweep), people(of, moved)); diff != "" {
				t.Fatal(diff)
			}
		}
		for _, m := range people(set.Outside, moved) {
			if moved.Has(m.Record) && !(m.InList && m.InBook && m.Excluded) {
				t.Fatalf("%+v is not outside", m)
			}
		}
		n := 0
		for m := range set.All() {
			if !sweep.Has(m.Record) || m.InList && m.InBook && m.Excluded {
				n++
			}
		}
		if got := len(people(set.Outside, moved)); got != n {
			t.Fatalf("%d people outside instead of %d", got, n)
		}
		if diff := gocmp.Diff(slices.Collect(set.Joined(&sweep)), slices.Collect(set.Joined(moved))); diff != "" {
			t.Fatal(diff)
		}
	})
}

func recordsInList(members []Member) int {
	n := 0
	for _, m := range members {
		if m.InList && !m.Record.IsZero() {
			n++
		}
	}
	return n
}

func TestDamagedMembersChangeNothing(t *testing.T) {
	b := NewMemberBatch()
	b.Append(Member{Record: lockstep.ID{1}, Contact: "5", InList: true, InBook: true, FirstSeen: 3})
	b.Append(Member{Contact: "abc", InBook: true})
	payload := b.Bytes()
	set := NewMembers()
	for n := range payload {
		if err := set.Add(payload[:n]); err == nil {
			t.Errorf("a prefix of %d bytes was taken", n)
		}
		for bit := range 8 {
			flipped := bytes.Clone(payload)
			flipped[n] ^= 1 << bit
			if err := set.Add(flipped); err == nil {
				t.Errorf("byte %d bit %d: a damaged payload was taken", n, bit)
			}
		}
	}
	if set.Len() != 0 {
		t.Errorf("%d members came of damaged payloads", set.Len())
	}
	if err := set.Add(payloadOf(nil)); err == nil {
		t.Error("a link batch was taken for a member batch")
	}
}

func FuzzDecode(f *testing.F) {
	whole := payloadOf(labelsOf(2), sample(1), sample(2))
	f.Add(whole[headSize : len(whole)-tailSize])
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0x0f})
	members := NewMemberBatch()
	members.Append(Member{Record: lockstep.ID{1}, Contact: "5", InList: true})
	f.Add(members.Bytes()[headSize:])
	f.Fuzz(func(t *testing.T, body []byte) {
		// A right frame around any body, with any number of entries claimed, gets
		// past the checksum and to the parser.
		for _, kind := range []byte{'K', 'M'} {
			for entries := range 4 {
				frame := seal(append([]byte{'L', kind, frameVersion}, body...), entries)
				n := 0
				if kind == 'M' {
					if err := DecodeMembers(frame, func(Member) error { n++; return nil }); err == nil && n != entries {
						t.Fatalf("%d members of %d", n, entries)
					}
					continue
				}
				err := Decode(frame, func(offset, length int, _ Entry) error {
					if offset < headSize || offset+length > len(frame)-tailSize {
						t.Fatalf("entry at %d+%d of %d", offset, length, len(frame))
					}
					n++
					return nil
				})
				if err == nil && n != entries {
					t.Fatalf("%d entries of %d", n, entries)
				}
				x := NewIndex()
				if addErr := x.Add(1, frame); (addErr == nil) != (err == nil) {
					t.Fatalf("decoding says %v, the index %v", err, addErr)
				}
			}
		}
		labels := labelsOf(len(body) % 5)
		if e, err := DecodeEntry(labels, body); err == nil && len(e.Base) != len(labels) {
			t.Fatalf("%d values for %d labels", len(e.Base), len(labels))
		}
	})
}
