//go:build unix

package store

import (
	"context"
	"testing"
	"time"

	"github.com/lockstep-sync/lockstep"
)

// Who waits for another attempt is told with the finding, until the record is taken, the
// person is erased, or nobody has tried for as long as the audit is kept.
func TestRetries(t *testing.T) {
	engines(t, func(t *testing.T, o Options) {
		s := mustOpen(t, o)
		a := account(t, s)
		ctx, run := started(t, s, a.ID)
		other := lockstep.Ref{Table: "lead", ID: lockstep.ID{7}}
		finding := func(id, code string, ref lockstep.Ref) lockstep.Finding {
			return lockstep.Finding{ID: id, Run: run.ID, Account: a.ID, Code: code, Table: ref.Table, Record: ref.ID, Message: "No.", At: day}
		}
		commit := func(c lockstep.Commit) {
			t.Helper()
			c.Run, c.Account = run.ID, a.ID
			ok(t, s.Commit(ctx, c))
		}
		first, second := lockstep.Retry{Ref: record, Finding: "f1", Attempts: 1, Next: day}, lockstep.Retry{Ref: other, Finding: "f3", Attempts: 4, Next: day.Add(time.Hour)}
		commit(lockstep.Commit{
			Findings: []lockstep.Finding{finding("f1", lockstep.FindingRejected, record), finding("f2", lockstep.FindingTooLong, record), finding("f3", lockstep.FindingRejected, other)},
			Retries:  []lockstep.Retry{second, first},
		})
		shows := func(want ...*lockstep.Retry) {
			t.Helper()
			found, err := s.Findings(ctx, run.ID, "", 0)
			ok(t, err)
			var got []*lockstep.Retry
			for _, f := range found {
				got = append(got, f.Retry)
			}
			equal(t, got, want)
		}
		waits := func(want ...string) {
			t.Helper()
			found, err := s.Waiting(ctx, a.ID, "", 10)
			ok(t, err)
			got := []string{}
			for _, f := range found {
				got = append(got, f.ID)
			}
			equal(t, got, append([]string{}, want...))
		}
		shows(&first, nil, &second)
		waits("f1", "f3")
		if page, err := s.Waiting(ctx, a.ID, "f1", 1); err != nil || len(page) != 1 || page[0].ID != "f3" || page[0].Retry.Attempts != 4 {
			t.Errorf("the second page: %+v, %v", page, err)
		}

		// Refused once more, as a later finding tells, and asked for by a person.
		commit(lockstep.Commit{Retries: []lockstep.Retry{{Ref: other, Finding: "f3", Attempts: 5, Next: day.Add(2 * time.Hour)}}, Taken: []lockstep.Ref{other}})
		f, err := s.Finding(ctx, "f3")
		ok(t, err)
		if f.Retry == nil || f.Retry.Attempts != 5 {
			t.Fatalf("%+v", f.Retry)
		}
		ok(t, s.RetryNow(ctx, f))
		if f, err = s.Finding(ctx, "f3"); err != nil || f.Retry.Attempts != 5 || !f.Retry.Next.Before(time.Now().Add(time.Minute)) || f.Retry.Next.Equal(day.Add(2*time.Hour)) {
			t.Fatalf("%+v, %v", f.Retry, err)
		}
		third := finding("f2", lockstep.FindingTooLong, record)
		commit(lockstep.Commit{Taken: []lockstep.Ref{record}})
		waits("f3")
		ok(t, s.RetryNow(ctx, third))
		waits("f2", "f3")
		if all, err := s.Retries(ctx, a.ID); err != nil || len(all) != 2 {
			t.Errorf("%v, %v", all, err)
		}
		if _, err := s.Finding(ctx, "f9"); lockstep.CodeOf(err) != lockstep.CodeNotFound {
			t.Errorf("a finding that is not there: %v", err)
		}
		_, err = s.EndRun(ctx, run.ID, lockstep.RunCompleted, "", "")
		ok(t, err)
		_, err = s.Forget(ctx, time.Now().Add(time.Hour), time.Now())
		ok(t, err)
		if all, err := s.Retries(ctx, a.ID); err != nil || len(all) != 0 {
			t.Errorf("after the retention: %v, %v", all, err)
		}
		ok(t, s.RetryNow(ctx, third))
		ok(t, s.DeleteAccount(context.Background(), a.ID))
	})
}
