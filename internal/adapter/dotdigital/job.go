package dotdigital

import (
	"context"
	"errors"

	"github.com/lockstep-sync/lockstep"
)

// jobName reports whether s can be the name of a job: a GUID, as the service
// writes it today, or something as harmless in a path.
func jobName(s string) bool {
	if len(s) == 0 || len(s) > 64 {
		return false
	}
	for i := range len(s) {
		if c := s[i]; c != '-' && (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') {
			return false
		}
	}
	return true
}

func unknownJob(op string) error {
	return &lockstep.Error{Code: lockstep.CodeNotFound, Op: op, Scope: lockstep.ScopeBatch, Msg: "Dotdigital does not know a job of this name"}
}

// await asks about a job until ended says that it has ended: at once, then after
// a pause that doubles. Outages and throttling of the questions do not end the
// wait, only ctx does.
func (c *Client) await(ctx context.Context, q *call, job string, ended func() (bool, error)) error {
	wait := c.waits.poll
	var last error
	for {
		done, err := ended()
		switch e := (*lockstep.Error)(nil); {
		case ctx.Err() != nil:
			if done {
				return err
			}
			return notEnded(ctx, q.name(), job, last)
		case done:
			return err
		case err == nil:
		case errors.As(err, &e) && (e.Code == lockstep.CodeThrottled || e.Code == lockstep.CodeUnavailable && e.Upstream != "Failed"):
			last, wait = err, max(wait, e.After)
		default:
			return err
		}
		if !c.pause(ctx, wait) {
			return notEnded(ctx, q.name(), job, last)
		}
		wait = min(2*wait, max(c.waits.pollMax, wait))
	}
}
