package consent_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/consent"
)

var word = rapid.StringMatching(`[a-z0-9]{0,12}`)

func drawEntry(t *rapid.T) lockstep.ConsentEntry {
	e := lockstep.ConsentEntry{
		Account: word.Draw(t, "account"),
		Act:     rapid.SampledFrom([]lockstep.ConsentAct{lockstep.ActRestricted, lockstep.ActAllowed, lockstep.ActAsked, lockstep.ActRefused, lockstep.ActTold}).Draw(t, "act"),
		Scope:   rapid.SampledFrom([]lockstep.ConsentScope{lockstep.ScopeAccount, lockstep.ScopeList}).Draw(t, "scope"),
		Object:  word.Draw(t, "object"),
		Key:     lockstep.AddressKey{rapid.Byte().Draw(t, "key")},
		Email:   rapid.String().Draw(t, "email"),
		Ref:     lockstep.Ref{Table: word.Draw(t, "table"), ID: lockstep.ID(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "record"))},
		Contact: lockstep.ContactID(word.Draw(t, "contact")),
		Reason:  lockstep.Standing(rapid.IntRange(0, 9).Draw(t, "reason")),
		OptIn:   lockstep.OptInType(rapid.IntRange(0, 3).Draw(t, "opt-in")),
		System:  lockstep.ConsentCRM,
		Target:  word.Draw(t, "target"),
		Actor:   word.Draw(t, "actor"),
		// Longer than a length of one byte can say.
		Evidence: rapid.StringN(0, 200, -1).Draw(t, "evidence"),
		Seen:     time.UnixMicro(rapid.Int64Range(1, 1<<50).Draw(t, "seen")).UTC(),
		About:    lockstep.ID{rapid.Byte().Draw(t, "about")},
		Run:      word.Draw(t, "run"),
	}
	if rapid.Bool().Draw(t, "dated") {
		e.At = time.UnixMicro(rapid.Int64Range(1, 1<<50).Draw(t, "at")).UTC()
	}
	e.ID = lockstep.ConsentID(&e)
	return e
}

func drawChain(t *rapid.T, least int) ([]consent.Row, []lockstep.ConsentEntry, consent.Head) {
	var head consent.Head
	var rows []consent.Row
	var entries []lockstep.ConsentEntry
	for range rapid.IntRange(least, 12).Draw(t, "rows") {
		e := drawEntry(t)
		var r consent.Row
		r, head = consent.Append(head, &e, false)
		rows, entries = append(rows, r), append(entries, e)
	}
	return rows, entries, head
}

func verify(rows []consent.Row, head *consent.Head) consent.Report {
	var v consent.Verifier
	for i := range rows {
		if !v.Add(&rows[i]) {
			break
		}
	}
	return v.End(head)
}

func clone(r consent.Row) consent.Row {
	r.Content, r.Person = bytes.Clone(r.Content), bytes.Clone(r.Person)
	return r
}

// What is appended is read back as it was, and holds.
func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rows, entries, head := drawChain(t, 0)
		for i := range rows {
			got, err := rows[i].Entry()
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(entries[i], got); d != "" {
				t.Fatalf("(-appended +read)\n%s", d)
			}
		}
		if r := verify(rows, &head); r.Broken != nil || r.Entries != int64(len(rows)) || r.Erased != 0 || r.Head != head.String() {
			t.Fatalf("%+v", r)
		}
	})
}

// Any single bit that differs is noticed, at its row or at the next.
func TestEveryByteCounts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rows, _, head := drawChain(t, 1)
		i := rapid.IntRange(0, len(rows)-1).Draw(t, "row")
		r := clone(rows[i])
		bit := byte(1) << rapid.IntRange(0, 7).Draw(t, "bit")
		within := func(n int) int { return rapid.IntRange(0, n-1).Draw(t, "byte") }
		switch part := rapid.SampledFrom([]string{"content", "person", "hash", "id", "key", "cut content", "cut person", "blank person", "longer content", "head"}).Draw(t, "part"); part {
		case "content":
			r.Content[within(len(r.Content))] ^= bit
		case "person":
			r.Person[within(len(r.Person))] ^= bit
		case "hash":
			r.Hash[within(32)] ^= bit
		case "id":
			r.ID[within(16)] ^= bit
		case "key":
			r.Key[within(16)] ^= bit
		case "cut content":
			r.Content = r.Content[:within(len(r.Content))]
		case "cut person":
			r.Person = r.Person[:within(len(r.Person))]
		case "blank person":
			r.Person = nil
		case "longer content":
			r.Content = append(r.Content, bit)
		case "head":
			head.Hash[within(32)] ^= bit
			i, r = len(rows)-1, rows[len(rows)-1]
		}
		rows[i] = r
		got := verify(rows, &head)
		if got.Broken == nil || got.Broken.Seq != int64(i)+1 {
			t.Fatalf("row %d was changed: %+v", i+1, got)
		}
	})
}

// A field that was changed by somebody who also makes the row's hash right again is
// noticed at the next row, or by the head.
func TestRehashedRow(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rows, entries, head := drawChain(t, 1)
		i := rapid.IntRange(0, len(rows)-1).Draw(t, "row")
		e := entries[i]
		for _, change := range []func(){
			func() { e.Account += "x" }, func() { e.Act += "x" }, func() { e.Scope += "x" }, func() { e.Object += "x" },
			func() { e.Key[1] ^= 1 }, func() { e.Email += "x" }, func() { e.Ref.Table += "x" }, func() { e.Ref.ID[3] ^= 1 },
			func() { e.Contact += "x" }, func() { e.Reason ^= 1 }, func() { e.OptIn ^= 1 }, func() { e.System += "x" },
			func() { e.Target += "x" }, func() { e.Actor += "x" }, func() { e.Evidence += "x" }, func() { e.At = e.At.Add(time.Second) },
			func() { e.Seen = e.Seen.Add(time.Microsecond) }, func() { e.About[2] ^= 1 }, func() { e.Run += "x" }, func() { e.ID[5] ^= 1 },
		} {
			e = entries[i]
			change()
			changed := append([]consent.Row(nil), rows...)
			before := consent.Head{Seq: e.Seq - 1, Hash: e.Prev}
			changed[i], _ = consent.Append(before, &e, false)
			got := verify(changed, &head)
			if got.Broken == nil || got.Broken.Seq < int64(i)+1 || got.Broken.Seq > int64(i)+2 {
				t.Fatalf("row %d was written anew: %+v", i+1, got)
			}
		}
	})
}

func TestRemovedSwappedInserted(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rows, _, head := drawChain(t, 2)
		n := len(rows)
		i := rapid.IntRange(0, n-1).Draw(t, "row")
		want := int64(i) + 1
		renumber := rapid.Bool().Draw(t, "renumber")
		switch rapid.SampledFrom([]string{"remove", "cut", "swap", "insert", "append", "repeat"}).Draw(t, "what") {
		case "remove":
			rows = append(rows[:i:i], rows[i+1:]...)
		case "cut":
			rows = rows[:i]
		case "swap":
			j := rapid.IntRange(0, n-1).Filter(func(j int) bool { return j != i }).Draw(t, "other")
			rows[i], rows[j] = rows[j], rows[i]
			want = int64(min(i, j)) + 1
		case "insert":
			rows = append(rows[:i+1:i+1], append([]consent.Row{rows[i]}, rows[i+1:]...)...)
			if renumber {
				want++
			}
		case "append":
			e := drawEntry(t)
			r, _ := consent.Append(head, &e, false)
			rows = append(rows, r)
			want = int64(n) + 1
			renumber = true
		case "repeat":
			rows = append(rows, rows[i])
			want = int64(n) + 1
			if !renumber {
				want = int64(i) + 1
			}
		}
		if renumber {
			for k := range rows {
				rows[k].Seq = int64(k) + 1
			}
		}
		got := verify(rows, &head)
		if got.Broken == nil || !renumber && got.Broken.Seq > want || renumber && got.Broken.Seq != want {
			t.Fatalf("the ledger is wrong from row %d on: %+v", want, got)
		}
	})
}

// Whoever is erased, the chain holds, and nothing of them is left in it.
func TestErasure(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var head consent.Head
		var rows []consent.Row
		people := map[lockstep.AddressKey][]string{}
		gone := map[lockstep.AddressKey]bool{}
		for range rapid.IntRange(1, 25).Draw(t, "rows") {
			e := drawEntry(t)
			e.Key = lockstep.AddressKey{rapid.SampledFrom([]byte{1, 2, 3, 4}).Draw(t, "person")}
			mark := string('a' + rune(e.Key[0]))
			e.Email, e.Actor, e.Evidence, e.Contact = "canary-"+mark+"@example.com", "canary-actor-"+mark, "canary said "+mark, lockstep.ContactID("99887766"+mark)
			e.Ref = lockstep.Ref{Table: "canary_" + mark, ID: lockstep.ID{0xca, 0x9a, 0x51, 15: e.Key[0]}}
			people[e.Key] = []string{e.Email, e.Actor, e.Evidence, string(e.Contact), e.Ref.Table, string(e.Ref.ID[:])}
			var r consent.Row
			r, head = consent.Append(head, &e, gone[e.Key]) // who was erased stays erased
			rows = append(rows, r)
			if rapid.IntRange(0, 4).Draw(t, "erase") == 0 {
				for i := range rows {
					if rows[i].Key == e.Key {
						rows[i].Person = nil
					}
				}
				if r := verify(rows, &head); r.Broken == nil && !gone[e.Key] {
					t.Fatalf("values vanished without an erasure on record: %+v", r)
				}
				note := lockstep.ConsentEntry{Act: lockstep.ActErased, Key: e.Key, System: lockstep.ConsentLockstep, Seen: e.Seen}
				note.ID = lockstep.ConsentID(&note)
				r, head = consent.Append(head, &note, true)
				rows = append(rows, r)
				gone[e.Key] = true
			}
		}
		if r := verify(rows, &head); r.Broken != nil || r.Entries != int64(len(rows)) {
			t.Fatalf("%+v", r)
		}
		for key := range gone {
			for i := range rows {
				for _, value := range people[key] {
					if bytes.Contains(rows[i].Content, []byte(value)) || bytes.Contains(rows[i].Person, []byte(value)) {
						t.Fatalf("row %d still holds %q", i+1, value)
					}
				}
			}
		}
	})
}

// Two entries of one person share nothing from which the person could be told.
func TestCommitmentsDiffer(t *testing.T) {
	e := lockstep.ConsentEntry{Act: lockstep.ActRestricted, Email: "a@example.com"}
	f := e
	a, _ := consent.Append(consent.Head{}, &e, false)
	b, _ := consent.Append(consent.Head{}, &f, false)
	if a.Hash == b.Hash {
		t.Error("the same statement has the same commitment twice: it can be guessed after an erasure")
	}
}

func TestExpectedHead(t *testing.T) {
	var head consent.Head
	var rows []consent.Row
	for i := range 3 {
		e := lockstep.ConsentEntry{Act: lockstep.ActRestricted, ID: lockstep.ID{byte(i)}}
		var r consent.Row
		r, head = consent.Append(head, &e, false)
		rows = append(rows, r)
	}
	with := func(noted string) *consent.Break {
		t.Helper()
		h, err := consent.ParseHead(noted)
		if err != nil {
			t.Fatal(err)
		}
		v := consent.Verifier{Expect: h}
		for i := range rows {
			v.Add(&rows[i])
		}
		return v.End(&head).Broken
	}
	second := consent.Head{Seq: 2, Hash: rows[1].Hash}
	for noted, want := range map[string]string{
		second.String(): "",
		head.String():   "",
		consent.Head{Seq: 2, Hash: head.Hash}.String(): "row 2 of the consent ledger: it is not the one that was noted",
		consent.Head{Seq: 4, Hash: head.Hash}.String(): "row 4 of the consent ledger: it is missing",
	} {
		got := ""
		if b := with(noted); b != nil {
			got = b.Error()
		}
		if (want == "") != (got == "") || !strings.HasPrefix(got, want) {
			t.Errorf("%s: %q, want %q", noted, got, want)
		}
	}
	for _, bad := range []string{"", "2", "2:", "x:00", "2:zz", "-1:" + strings.Repeat("00", 32), "2:" + strings.Repeat("00", 31)} {
		if _, err := consent.ParseHead(bad); lockstep.CodeOf(err) != lockstep.CodeInvalid {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if b := verify(rows, nil).Broken; b == nil || b.Seq != 4 {
		t.Errorf("without a head: %v", b)
	}
}

func FuzzEntry(f *testing.F) {
	e := lockstep.ConsentEntry{Act: lockstep.ActRestricted, Email: "a@example.com", Evidence: "by telephone"}
	r, _ := consent.Append(consent.Head{}, &e, false)
	f.Add(r.Content, r.Person)
	f.Fuzz(func(t *testing.T, content, person []byte) {
		changed := consent.Row{Seq: r.Seq, ID: r.ID, Key: r.Key, Content: content, Person: person, Hash: r.Hash}
		if _, err := changed.Entry(); err == nil && (!bytes.Equal(content, r.Content) || len(person) > 0 && !bytes.Equal(person, r.Person)) {
			t.Errorf("%x %x passes", content, person)
		}
	})
}
