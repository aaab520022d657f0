//go:build unix

package store

import (
	"bytes"
	"context"
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/lockstep-sync/lockstep"
)

// model is what the journal, the link log and the cursors of one account should hold.
type model struct {
	s        *Store
	o        Options
	account  string
	ctx      context.Context
	run      lockstep.Run
	states   map[int64]lockstep.ChangeState
	links    map[int64][]byte
	cursors  map[string]lockstep.Cursor
	lastLink int64
}

func (m *model) batches(states ...lockstep.ChangeState) []int64 {
	out := []int64{}
	for _, id := range slices.Sorted(maps.Keys(m.states)) {
		if slices.Contains(states, m.states[id]) {
			out = append(out, id)
		}
	}
	return out
}

// Any sequence of plans, sends, commits and restarts leaves in the store what a
// simple model holds.
func TestModel(t *testing.T) {
	engines(t, func(t *testing.T, o Options) {
		s, err := Open(context.Background(), o)
		ok(t, err)
		t.Cleanup(func() { _ = s.Close() })
		org := account(t, s).Organization
		rapid.Check(t, func(t *rapid.T) {
			m := &model{s: s, o: o, states: map[int64]lockstep.ChangeState{}, links: map[int64][]byte{}, cursors: map[string]lockstep.Cursor{}}
			a, err := s.SaveAccount(context.Background(), lockstep.EmailAccount{Organization: org})
			ok(t, err)
			m.account = a.ID
			m.ctx, m.run = started(t, s, a.ID)
			t.Repeat(map[string]func(*rapid.T){
				"":        m.check,
				"plan":    m.plan,
				"send":    m.send,
				"commit":  m.commit,
				"refused": m.refused,
				"ranges":  m.ranges,
				"turn":    m.turn,
				"reopen": func(t *rapid.T) {
					ok(t, s.Close())
					s, err = Open(context.Background(), o)
					ok(t, err)
					m.s = s
				},
			})
		})
	})
}

func (m *model) plan(t *rapid.T) {
	id, err := m.s.Plan(m.ctx, lockstep.Batch{Run: m.run.ID, Account: m.account, Kind: lockstep.WriteRecord, Payload: rapid.SliceOfN(rapid.Byte(), 0, 30).Draw(t, "payload")})
	ok(t, err)
	for earlier := range m.states {
		if earlier >= id {
			t.Fatalf("batch %d was given after %d", id, earlier)
		}
	}
	m.states[id] = lockstep.Planned
}

func (m *model) send(t *rapid.T) {
	can := m.batches(lockstep.Planned, lockstep.Sent)
	if len(can) == 0 {
		return // nothing to send
	}
	id := rapid.SampledFrom(can).Draw(t, "batch")
	ok(t, m.s.MarkSent(m.ctx, id, lockstep.JobID(rapid.StringMatching(`[a-z0-9-]{0,8}`).Draw(t, "job"))))
	m.states[id] = lockstep.Sent
}

func (m *model) draw(t *rapid.T) lockstep.Commit {
	c := lockstep.Commit{Run: m.run.ID, Account: m.account, Cursors: map[string]lockstep.Cursor{}}
	for range rapid.IntRange(0, 3).Draw(t, "links") {
		size := rapid.SampledFrom([]int{0, 1, 100, partSize - 1, partSize, partSize + 1, 3*partSize + 7}).Draw(t, "size")
		blob := make([]byte, size)
		for i := range blob {
			blob[i] = byte(i * 31 >> 3)
		}
		c.Links, c.LinkIDs = append(c.Links, blob), append(c.LinkIDs, 0)
	}
	for range rapid.IntRange(0, 2).Draw(t, "cursors") {
		c.Cursors[rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "name")] = lockstep.Cursor(rapid.SampledFrom([]string{"", "1", "2"}).Draw(t, "value"))
	}
	for _, id := range m.batches(lockstep.Planned, lockstep.Sent, lockstep.Unknown) {
		if rapid.Bool().Draw(t, "end") {
			c.Batches = append(c.Batches, lockstep.BatchEnd{ID: id, State: rapid.SampledFrom([]lockstep.ChangeState{
				lockstep.Acknowledged, lockstep.Refused, lockstep.Unknown, lockstep.Dropped,
			}).Draw(t, "state")})
		}
	}
	for _, id := range slices.Sorted(maps.Keys(m.links)) {
		if rapid.IntRange(0, 3).Draw(t, "drop") == 0 {
			c.DropLinks = append(c.DropLinks, id)
		}
	}
	return c
}

func (m *model) commit(t *rapid.T) {
	c := m.draw(t)
	ok(t, m.s.Commit(m.ctx, c))
	for _, e := range c.Batches {
		m.states[e.ID] = e.State
	}
	for _, id := range c.DropLinks {
		delete(m.links, id)
	}
	for name, value := range c.Cursors {
		if value == "" {
			delete(m.cursors, name)
		} else {
			m.cursors[name] = value
		}
	}
	ids, payloads := links(t, m.s, m.account, m.lastLink)
	if len(ids) != len(c.Links) {
		t.Fatalf("%d new link batches instead of %d", len(ids), len(c.Links))
	}
	if !slices.Equal(ids, c.LinkIDs) {
		t.Fatalf("link batches are stored under %v and not %v", ids, c.LinkIDs)
	}
	for i, id := range ids {
		if !bytes.Equal(payloads[i], c.Links[i]) {
			t.Fatalf("link batch %d differs", id)
		}
		m.links[id], m.lastLink = payloads[i], id
	}
}

// refused is a commit with one thing that does not fit: it must change nothing.
func (m *model) refused(t *rapid.T) {
	c := m.draw(t)
	if done := m.batches(lockstep.Acknowledged, lockstep.Refused, lockstep.Dropped); len(done) > 0 && rapid.Bool().Draw(t, "batch") {
		c.Batches = append(c.Batches, lockstep.BatchEnd{ID: rapid.SampledFrom(done).Draw(t, "ended"), State: lockstep.Acknowledged})
	} else {
		c.DropLinks = append(c.DropLinks, m.lastLink+1000000)
	}
	wantCode(t, m.s.Commit(m.ctx, c), lockstep.CodeConflict)
}

func (m *model) turn(t *rapid.T) {
	stale := m.ctx
	var err error
	m.ctx, _, err = m.s.StartRun(context.Background(), m.run.ID)
	ok(t, err)
	wantCode(t, m.s.Commit(stale, m.draw(t)), lockstep.CodeConflict)
}

func (m *model) ranges(t *rapid.T) {
	if len(m.links) == 0 {
		return // no links
	}
	var ranges []lockstep.BlobRange
	var want [][]byte
	for range rapid.IntRange(0, 120).Draw(t, "ranges") {
		id := rapid.SampledFrom(slices.Sorted(maps.Keys(m.links))).Draw(t, "blob")
		blob := m.links[id]
		from := rapid.IntRange(0, len(blob)).Draw(t, "from")
		length := rapid.IntRange(0, len(blob)-from).Draw(t, "length")
		if length == 0 && from == len(blob) && from > 0 {
			from--
		}
		ranges = append(ranges, lockstep.BlobRange{Blob: id, Offset: from, Length: length})
		want = append(want, blob[from:from+length])
	}
	got, err := m.s.LinkRanges(m.ctx, ranges)
	ok(t, err)
	for i := range want {
		if !bytes.Equal(got[i], want[i]) {
			t.Fatalf("range %+v: %d bytes instead of %d", ranges[i], len(got[i]), len(want[i]))
		}
	}
	for id, blob := range m.links {
		if _, err := m.s.LinkRanges(m.ctx, []lockstep.BlobRange{{Blob: id, Offset: len(blob), Length: 1}}); err == nil {
			t.Fatal("a range beyond the end")
		}
	}
}

func (m *model) check(t *rapid.T) {
	ids, payloads := links(t, m.s, m.account, 0)
	if want := slices.Sorted(maps.Keys(m.links)); !slices.Equal(ids, want) {
		t.Fatalf("link batches %v instead of %v", ids, want)
	}
	for i, id := range ids {
		if !bytes.Equal(payloads[i], m.links[id]) {
			t.Fatalf("link batch %d differs", id)
		}
	}
	cursors, err := m.s.Cursors(m.ctx, m.account)
	ok(t, err)
	if !maps.Equal(cursors, m.cursors) {
		t.Fatalf("cursors %v instead of %v", cursors, m.cursors)
	}
	open, err := m.s.OpenBatches(m.ctx, m.account)
	ok(t, err)
	got := []int64{}
	for _, b := range open {
		if b.State != m.states[b.ID] {
			t.Fatalf("batch %d is %v instead of %v", b.ID, b.State, m.states[b.ID])
		}
		got = append(got, b.ID)
	}
	if want := m.batches(lockstep.Planned, lockstep.Sent, lockstep.Unknown); !slices.Equal(got, want) {
		t.Fatalf("open batches %v instead of %v", got, want)
	}
}
