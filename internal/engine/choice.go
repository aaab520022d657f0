package engine

import (
	"time"

	"github.com/lockstep-sync/lockstep"
)

// verdict is what counts of one choice, and which side said it.
type verdict struct {
	answer lockstep.Answer
	at     time.Time
	from   lockstep.ConsentSystem
}

// decide says what counts of what two sides say about one preference, seen from what
// they agreed on last. The side that changed its mind counts. When both did, or they
// never agreed, the newer counts, and when it is not known which that is, the opt-out.
// A side that opted out after the opt-out that was agreed changed its mind twice.
// A side without an answer never counts against one with an answer.
func decide(agreed, platform, crm lockstep.Said) verdict {
	p := verdict{platform.Answer, platform.At, lockstep.ConsentPlatform}
	c := verdict{crm.Answer, crm.At, lockstep.ConsentCRM}
	switch {
	case c.answer == lockstep.NoAnswer:
		return p
	case p.answer == lockstep.NoAnswer:
		return c
	case p.answer == c.answer:
		// Said on one side and carried to the other: the earlier is where it was said.
		if later(p.at, c.at) || p.at.IsZero() && !c.at.IsZero() {
			return c
		}
		return p
	case c.answer == agreed.Answer && !outAgain(c, agreed):
		return p
	case p.answer == agreed.Answer && !outAgain(p, agreed):
		return c
	case later(p.at, c.at):
		return p
	case later(c.at, p.at):
		return c
	case p.answer == lockstep.OptedOut:
		return p
	}
	return c
}

// outAgain reports whether a side opted out later than was agreed: in between it must have
// said otherwise.
func outAgain(v verdict, agreed lockstep.Said) bool {
	return v.answer == lockstep.OptedOut && later(v.at, agreed.At)
}

// lose notes that the row of a choice was deleted, or shows something else now.
func lose(c *lockstep.Choice) {
	c.Row, c.Lost, c.CRM = lockstep.ID{}, c.Row, lockstep.Said{}
}

// later reports whether a is known to be after b. The CRM tells whole seconds, so
// less than one apart is no difference.
func later(a, b time.Time) bool {
	return !a.IsZero() && !b.IsZero() && a.Truncate(time.Second).After(b.Truncate(time.Second))
}

// settle notes what a choice comes to: agreed when both sides say what counts,
// otherwise pending. Who has no record in the CRM has nobody to agree with.
func settle(c *lockstep.Choice) {
	v := decide(c.Agreed, c.Platform, c.CRM)
	c.Pending = false
	switch {
	case v.answer == lockstep.NoAnswer || !c.Known:
	case c.Platform.Answer == v.answer && c.CRM.Answer == v.answer && c.Agreed.Answer == v.answer:
	default:
		c.Pending = true
	}
}
