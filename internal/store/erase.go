package store

import (
	"bytes"
	"context"
	"slices"

	"github.com/lockstep-sync/lockstep"
)

// Erasure says what an erasure took away.
type Erasure struct {
	Entries      int `json:"entries"`      // of the ledger, whose values were blanked
	Restrictions int `json:"restrictions"` // that go on without values
	Choices      int `json:"choices"`      // of marketing preferences
	Links        int `json:"links"`        // entries of the link log
	Members      int `json:"members"`      // entries of the membership logs
	Changes      int `json:"changes"`      // of the journal, whose values were blanked
	Findings     int `json:"findings"`
	Conflicts    int `json:"conflicts"`
}

// maxRounds bounds how often an erasure looks again for what was stored meanwhile.
const maxRounds = 8

// EraseAddress takes the values of the person behind an address out of everything
// that is kept: what remains is the address's key, which goes on to restrict it. Every
// account is closed to the address from now on, and the ledger records the erasure;
// by says who asked for it. Runs that are under way continue with what is kept now.
//
// CodeConflict, with nothing erased, while a write about the person is under way, and
// while an opt-out of the person has still to be told to another system, which could
// then no longer be done; force erases in spite of the latter.
func (s *Store) EraseAddress(ctx context.Context, email, by string, force bool) (Erasure, error) {
	const op = "store: erase address"
	var done Erasure
	if s.saltErr != nil {
		return done, s.saltErr
	}
	p := newPerson(s, email)
	if p.email == "" {
		return done, invalid(op, "email", "No address is given.")
	}
	if err := s.identify(ctx, p); err != nil {
		return done, in(op, err)
	}
	for round := range maxRounds {
		found, err := s.search(ctx, p)
		if err != nil {
			return done, in(op, err)
		}
		if found.underWay {
			return done, &lockstep.Error{Code: lockstep.CodeConflict, Op: op, Msg: "A write about this person is under way.", Hint: "Try again in a minute; should a run be stuck, cancel it."}
		}
		if round > 0 && found.empty() {
			break
		}
		part := done
		err = s.InTx(ctx, func(tx Tx) error {
			part = done
			if err := s.purge(ctx, tx, p, found, &part); err != nil {
				return err
			}
			if round > 0 {
				return nil
			}
			return s.eraseConsent(ctx, tx, op, p.key, by, force, &part)
		})
		if err != nil {
			return done, in(op, err)
		}
		done = part
	}
	if err := s.clearEnded(ctx); err != nil {
		return done, in(op, err)
	}
	return done, in(op, s.db.wipe(ctx, s.log))
}

// toldEverybody refuses an erasure after which nobody could be told any more.
func toldEverybody(ctx context.Context, tx Tx, op string, key lockstep.AddressKey) error {
	var pending int64
	if err := tx.QueryRow(ctx, `SELECT count(*) FROM restrictions WHERE address = $1 AND pending`, key[:]).Scan(&pending); err != nil {
		return err
	}
	if pending == 0 {
		return nil
	}
	return &lockstep.Error{
		Code: lockstep.CodeConflict, Op: op, Msg: "An opt-out of this address has still to be told to another system.",
		Hint: "Wait for the next run, or see why it fails; or erase with force, and tell the other system yourself.",
	}
}

// eraseConsent blanks the ledger and the restrictions of an address, notes the
// erasure, and closes every account to the address.
func (s *Store) eraseConsent(ctx context.Context, tx Tx, op string, key lockstep.AddressKey, by string, force bool, done *Erasure) error {
	now := s.now()
	note := lockstep.ConsentEntry{Act: lockstep.ActErased, Scope: lockstep.ScopeAccount, Key: key, System: lockstep.ConsentLockstep, Actor: by, At: now, Seen: now}
	note.ID = lockstep.ConsentID(&note)
	// First, because it keeps others from appending about the person meanwhile.
	if err := s.appendEntries(ctx, tx, "", []lockstep.ConsentEntry{note}); err != nil {
		return err
	}
	if !force {
		if err := toldEverybody(ctx, tx, op, key); err != nil {
			return err
		}
	}
	entries, err := collect(ctx, tx, scanEntry, `SELECT `+ledgerColumns+` FROM consent WHERE address = $1`, key[:])
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Act == lockstep.ActErased { // it names who erased, not who was erased
			continue
		}
		n, err := tx.Exec(ctx, `UPDATE consent SET person = $2 WHERE seq = $1 AND length(person) > 0`, e.Seq, []byte{})
		if err != nil {
			return err
		}
		done.Entries += int(n)
	}
	if _, err := tx.Exec(ctx, `INSERT INTO erasures (address, at) VALUES ($1, $2) ON CONFLICT (address) DO UPDATE SET at = excluded.at`, key[:], micros(now)); err != nil {
		return err
	}
	n, err := tx.Exec(ctx, `DELETE FROM choices WHERE address = $1`, key[:])
	if err != nil {
		return err
	}
	done.Choices += int(n)
	restrictions, err := collect(ctx, tx, restrictionRow, `SELECT `+restrictionColumns+` FROM restrictions WHERE address = $1`, key[:])
	if err != nil {
		return err
	}
	done.Restrictions = len(restrictions)
	closed := map[string]bool{}
	for i := range restrictions {
		r := &restrictions[i]
		r.Stamp = 0 // whatever it says by then
		closed[r.Account] = closed[r.Account] || r.Scope == lockstep.ScopeAccount && r.Released.IsZero()
	}
	accounts, err := texts(ctx, tx, `SELECT id FROM email_accounts ORDER BY id`)
	if err != nil {
		return err
	}
	for _, account := range accounts {
		if !closed[account] {
			restrictions = append(restrictions, lockstep.Restriction{
				Account: account, Scope: lockstep.ScopeAccount, Key: key, System: lockstep.ConsentLockstep, At: now, Seen: now, Entry: note.ID,
			})
		}
	}
	return s.putRestrictions(ctx, tx, restrictions) // which leaves the values out
}

// clearEnded deletes what runs that have ended put aside and did not clear.
func (s *Store) clearEnded(ctx context.Context) error {
	for at := []byte{}; ; at = slices.Concat(at, []byte{1}) {
		var id []byte
		err := s.db.QueryRow(ctx, `SELECT id FROM staged WHERE id >= $1 ORDER BY id LIMIT 1`, at).Scan(&id)
		if lockstep.CodeOf(err) == lockstep.CodeNotFound {
			return nil
		}
		if err != nil {
			return err
		}
		run, _, _ := bytes.Cut(id, []byte{0})
		at = run // whose rows end before the byte that follows zero
		r, err := s.Run(ctx, string(run))
		switch {
		case lockstep.CodeOf(err) == lockstep.CodeNotFound, err == nil && r.Status.Ended():
			if err := s.ClearStaged(ctx, string(run), ""); err != nil {
				return err
			}
		case err != nil:
			return err
		}
	}
}

// texts reads one column of text.
func texts(ctx context.Context, r Reader, q string, args ...any) ([]string, error) {
	return collect(ctx, r, func(r Rows) (s string, err error) { return s, r.Scan(&s) }, q, args...)
}
