package store

import (
	"bytes"
	"context"
	"slices"
	"testing"

	"github.com/lockstep-sync/lockstep"
)

// chosen is a choice that somebody made on the platform.
func chosen(s *Store, account, preference, email string, pending bool) lockstep.Choice {
	key := s.AddressKey(email)
	id := lockstep.ChoiceID(account, preference, key)
	return lockstep.Choice{
		ID: id, Account: account, Preference: preference, Key: key, Email: email, Contact: "18", Row: lockstep.PreferenceID(account, id.String()), Known: true,
		Platform: lockstep.Said{Answer: lockstep.OptedOut, At: day}, CRM: lockstep.Said{Answer: lockstep.OptedIn}, Pending: pending,
	}
}

func TestChoices(t *testing.T) {
	ctx := context.Background()
	engines(t, func(t *testing.T, o Options) {
		s := mustOpen(t, o)
		a, b := account(t, s), account(t, s)
		rctx, run := started(t, s, a.ID)
		keep := func(all ...lockstep.Choice) {
			t.Helper()
			ok(t, s.Commit(rctx, lockstep.Commit{Run: run.ID, Account: a.ID, Choices: all}))
		}
		var all []lockstep.Choice
		for _, p := range []string{"1", "2"} {
			for _, e := range []string{"ada@example.com", "bob@example.com", "cid@example.com"} {
				all = append(all, chosen(s, a.ID, p, e, true))
			}
		}
		byID := func(x, y lockstep.Choice) int { return bytes.Compare(x.ID[:], y.ID[:]) }
		slices.SortFunc(all, byID)
		keep(all...)
		keep(all...) // again is as good as once

		got, err := s.Choices(ctx, a.ID, []lockstep.AddressKey{s.AddressKey("ada@example.com"), s.AddressKey("nobody@example.com")})
		ok(t, err)
		slices.SortFunc(got, byID)
		want := slices.DeleteFunc(slices.Clone(all), func(c lockstep.Choice) bool { return c.Email != "ada@example.com" })
		equal(t, got, want)
		if got, err = s.Choices(ctx, b.ID, []lockstep.AddressKey{s.AddressKey("ada@example.com")}); err != nil || len(got) != 0 {
			t.Errorf("the other account has %v (%v)", got, err)
		}

		got, err = s.ChoicesShown(ctx, a.ID, []lockstep.ID{all[3].Row, {}})
		ok(t, err)
		equal(t, got, all[3:4])

		first, err := s.PendingChoices(ctx, a.ID, lockstep.ID{}, 4)
		ok(t, err)
		rest, err := s.PendingChoices(ctx, a.ID, first[3].ID, 4)
		ok(t, err)
		equal(t, append(first, rest...), all)

		// One is agreed upon and loses its row; of one that is stored twice the last counts.
		done, twice := all[0], all[1]
		done.Agreed, done.Pending, done.Row = done.Platform, false, lockstep.ID{}
		twice.Contact = "10"
		keep(all[1], done, twice)
		if got, err = s.PendingChoices(ctx, a.ID, lockstep.ID{}, 100); err != nil || len(got) != 5 || got[0].Contact != "10" {
			t.Errorf("pending: %+v (%v)", got, err)
		}
		if got, err = s.ChoicesShown(ctx, a.ID, []lockstep.ID{all[0].Row, {}}); err != nil || len(got) != 0 {
			t.Errorf("without a row: %+v (%v)", got, err)
		}

		// What an erased person is said to have chosen is not kept.
		_, err = s.EraseAddress(ctx, "bob@example.com", "admin", false)
		ok(t, err)
		rctx, run, err = s.StartRun(ctx, run.ID)
		ok(t, err)
		keep(chosen(s, a.ID, "1", "bob@example.com", true), chosen(s, a.ID, "3", "ada@example.com", true))
		if got, err = s.Choices(ctx, a.ID, []lockstep.AddressKey{s.AddressKey("bob@example.com")}); err != nil || len(got) != 0 {
			t.Errorf("of somebody erased: %+v (%v)", got, err)
		}
		if got, err = s.Choices(ctx, a.ID, []lockstep.AddressKey{s.AddressKey("ada@example.com")}); err != nil || len(got) != 3 {
			t.Errorf("of the others: %+v (%v)", got, err)
		}

		_, err = s.EndRun(ctx, run.ID, lockstep.RunCompleted, "", "")
		ok(t, err)
		ok(t, s.DeleteAccount(ctx, a.ID))
		if rows := dump(t, s)["choices"]; len(rows) != 0 {
			t.Errorf("an account that is forgotten leaves %v", rows)
		}
	})
}
