package history

import (
	"strconv"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func ids(l *Log, after int64) []string {
	var out []string
	for e := range l.After(after) {
		out = append(out, strconv.FormatInt(e.Seq, 10)+e.ID)
	}
	return out
}

func TestLog(t *testing.T) {
	l := New(3)
	if first, last := l.Bounds(); first != 1 || last != 0 || ids(l, 0) != nil {
		t.Errorf("empty: %d %d", first, last)
	}
	for _, id := range []string{"a", "b", "c", "d", "e"} {
		l.Add(Entry{ID: id, Changes: []Change{{Name: "x"}}})
	}
	if first, last := l.Bounds(); first != 3 || last != 5 {
		t.Errorf("bounds %d %d", first, last)
	}
	for after, want := range map[int64][]string{0: {"3c", "4d", "5e"}, 3: {"4d", "5e"}, 5: nil, 99: nil, -7: {"3c", "4d", "5e"}} {
		if diff := cmp.Diff(want, ids(l, after)); diff != "" {
			t.Errorf("after %d: %s", after, diff)
		}
	}
	for e := range l.After(4) {
		if string(e.Changes[0].Old) != "null" || string(e.Changes[0].New) != "null" {
			t.Errorf("changes %v", e.Changes)
		}
	}
}

func TestLogWhileItGrows(t *testing.T) {
	const each = 2000
	l := New(500)
	var adding sync.WaitGroup
	for range 2 {
		adding.Go(func() {
			for range each {
				l.Add(Entry{})
			}
		})
	}
	last := int64(0)
	for last < 2*each {
		for e := range l.After(last) {
			if e.Seq <= last {
				t.Fatalf("entry %d behind %d", e.Seq, last)
			}
			last = e.Seq
		}
	}
	adding.Wait()
	if first, end := l.Bounds(); first != 2*each-500+1 || end != 2*each {
		t.Errorf("bounds %d %d", first, end)
	}
}
