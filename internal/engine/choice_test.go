package engine

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/lockstep-sync/lockstep"
)

func said(answer lockstep.Answer, second int) lockstep.Said {
	s := lockstep.Said{Answer: answer}
	if second > 0 {
		s.At = time.Date(2026, 5, 3, 9, 0, second, 0, time.UTC)
	}
	return s
}

func TestDecide(t *testing.T) {
	const (
		none = lockstep.NoAnswer
		out  = lockstep.OptedOut
		in   = lockstep.OptedIn
	)
	crm, platform := lockstep.ConsentCRM, lockstep.ConsentPlatform
	late := said(in, 1)
	late.At = late.At.Add(900 * time.Millisecond)
	for _, tt := range []struct {
		name                  string
		agreed, platform, crm lockstep.Said
		want                  lockstep.Answer
		from                  lockstep.ConsentSystem
	}{
		{"nobody said anything", said(none, 0), said(none, 0), said(none, 0), none, platform},
		{"the platform alone, in", said(none, 0), said(in, 1), said(none, 0), in, platform},
		{"the CRM alone, in", said(none, 0), said(none, 0), said(in, 1), in, crm},
		{"the CRM alone, out", said(none, 0), said(none, 0), said(out, 1), out, crm},
		{"never agreed, the platform newer", said(none, 0), said(in, 2), said(out, 1), in, platform},
		{"never agreed, the CRM newer", said(none, 0), said(out, 1), said(in, 2), in, crm},
		{"never agreed, the platform's opt-out newer", said(none, 0), said(out, 2), said(in, 1), out, platform},
		{"never agreed, the CRM's opt-out newer", said(none, 0), said(in, 1), said(out, 2), out, crm},
		{"a tie", said(none, 0), said(in, 1), said(out, 1), out, crm},
		{"the tie mirrored", said(none, 0), said(out, 1), said(in, 1), out, platform},
		{"a tie within a second", said(none, 0), late, said(out, 1), out, crm},
		{"the platform's time unknown", said(none, 0), said(in, 0), said(out, 1), out, crm},
		{"the CRM's time unknown", said(none, 0), said(out, 1), said(in, 0), out, platform},
		{"neither time known", said(none, 0), said(in, 0), said(out, 0), out, crm},
		{"the platform changed, older than the CRM's", said(in, 1), said(out, 2), said(in, 9), out, platform},
		{"the CRM changed, the platform opted out again", said(out, 1), said(out, 9), said(in, 2), out, platform},
		{"the platform changed, the CRM opted out again", said(out, 1), said(in, 2), said(out, 9), out, crm},
		{"opted out again before the other side changed", said(out, 1), said(in, 9), said(out, 2), in, platform},
		{"the platform changed to in", said(out, 1), said(in, 2), said(out, 1), in, platform},
		{"both changed alike, the CRM first", said(in, 1), said(out, 3), said(out, 2), out, crm},
		{"both changed alike, the platform first", said(in, 1), said(out, 2), said(out, 3), out, platform},
		{"the row was deleted", said(in, 1), said(in, 1), said(none, 0), in, platform},
		{"the answer is gone on the platform", said(out, 1), said(none, 0), said(out, 1), out, crm},
		{"nothing changed", said(in, 1), said(in, 1), said(in, 1), in, platform},
	} {
		if got := decide(tt.agreed, tt.platform, tt.crm); got.answer != tt.want || got.from != tt.from {
			t.Errorf("%s: %s by %s, want %s by %s", tt.name, got.answer, got.from, tt.want, tt.from)
		}
	}
}

func drawSaid(r *rapid.T, name string) lockstep.Said {
	answer := lockstep.Answer(rapid.IntRange(0, 2).Draw(r, name))
	if answer == lockstep.NoAnswer {
		return lockstep.Said{}
	}
	return said(answer, rapid.IntRange(0, 3).Draw(r, name+" at"))
}

// Which side is which makes no difference to what counts; a tie opts out; what was
// decided once and carried to both sides is decided no more; and nobody is opted in
// whom no side opts in.
func TestDecideProperties(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		agreed, p, c := drawSaid(r, "agreed"), drawSaid(r, "platform"), drawSaid(r, "crm")
		v := decide(agreed, p, c)
		if m := decide(agreed, c, p); m.answer != v.answer || !m.at.Equal(v.at) {
			r.Fatalf("%s at %s, mirrored %s at %s", v.answer, v.at, m.answer, m.at)
		}
		if v.answer != p.Answer && v.answer != c.Answer {
			r.Fatalf("nobody said %s", v.answer)
		}
		if p.Answer != lockstep.NoAnswer && c.Answer != lockstep.NoAnswer && v.answer == lockstep.NoAnswer {
			r.Fatal("an answer got lost")
		}
		tie := !later(p.At, c.At) && !later(c.At, p.At)
		if agreed.Answer == lockstep.NoAnswer && tie && (p.Answer == lockstep.OptedOut || c.Answer == lockstep.OptedOut) && v.answer != lockstep.OptedOut {
			r.Fatalf("a tie came to %s", v.answer)
		}
		after := lockstep.Said{Answer: v.answer, At: v.at}
		again := decide(after, after, after)
		if again.answer != v.answer {
			r.Fatalf("%s became %s", v.answer, again.answer)
		}
		done := lockstep.Choice{Known: true, Agreed: after, Platform: after, CRM: after}
		if settle(&done); done.Pending {
			r.Fatal("what was agreed waits to be told")
		}
		open := lockstep.Choice{Known: true, Agreed: agreed, Platform: p, CRM: c}
		if settle(&open); !open.Pending && v.answer != lockstep.NoAnswer && (p.Answer != v.answer || c.Answer != v.answer) {
			r.Fatal("a side that says something else is not told")
		}
		open.Known = false
		if settle(&open); open.Pending {
			r.Fatal("somebody whom the CRM does not know is told about")
		}
	})
}
