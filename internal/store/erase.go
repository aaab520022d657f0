package store

import (
	"context"

	"github.com/lockstep-sync/lockstep"
)

// Erasure says what an erasure took away.
type Erasure struct {
	Entries      int `json:"entries"`      // of the ledger, whose values were blanked
	Restrictions int `json:"restrictions"` // that go on without values
}

// EraseAddress takes the values of the person behind an address out of everything
// that is kept: what remains is the address's key, which goes on to restrict it. Every
// account is closed to the address from now on, and the ledger records the erasure;
// by says who asked for it. CodeConflict while an opt-out of the person has still to
// be told to another system, which could then no longer be done; force erases all the
// same.
func (s *Store) EraseAddress(ctx context.Context, key lockstep.AddressKey, by string, force bool) (Erasure, error) {
	const op = "store: erase address"
	var done Erasure
	if s.saltErr != nil {
		return done, s.saltErr
	}
	if key == (lockstep.AddressKey{}) {
		return done, invalid(op, "email", "No address is given.")
	}
	err := s.InTx(ctx, func(tx Tx) error {
		done = Erasure{}
		if _, err := lockHead(ctx, tx); err != nil { // nobody appends about the person meanwhile
			return err
		}
		if !force {
			var pending int64
			if err := tx.QueryRow(ctx, `SELECT count(*) FROM restrictions WHERE address = $1 AND pending`, key[:]).Scan(&pending); err != nil {
				return err
			}
			if pending > 0 {
				e := conflict(op, "An opt-out of this address has still to be told to another system.").(*lockstep.Error)
				e.Hint = "Wait for the next run, or see why it fails; or erase with force, and tell the other system yourself."
				return e
			}
		}
		return s.eraseConsent(ctx, tx, key, by, &done)
	})
	return done, in(op, err)
}

// eraseConsent blanks the ledger and the restrictions of an address, notes the
// erasure, and closes every account to the address.
func (s *Store) eraseConsent(ctx context.Context, tx Tx, key lockstep.AddressKey, by string, done *Erasure) error {
	now := s.now()
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
	note := lockstep.ConsentEntry{Act: lockstep.ActErased, Scope: lockstep.ScopeAccount, Key: key, System: lockstep.ConsentLockstep, Actor: by, At: now, Seen: now}
	note.ID = lockstep.ConsentID(&note)
	if err := s.appendEntries(ctx, tx, "", []lockstep.ConsentEntry{note}); err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, `INSERT INTO erasures (address, at) VALUES ($1, $2) ON CONFLICT (address) DO UPDATE SET at = excluded.at`, key[:], micros(now)); err != nil {
		return err
	}
	restrictions, err := collect(ctx, tx, restrictionRow, `SELECT `+restrictionColumns+` FROM restrictions WHERE address = $1`, key[:])
	if err != nil {
		return err
	}
	done.Restrictions = len(restrictions)
	closed := map[string]bool{}
	for _, r := range restrictions {
		closed[r.Account] = closed[r.Account] || r.Scope == lockstep.ScopeAccount
	}
	accounts, err := collect(ctx, tx, func(r Rows) (string, error) {
		var id string
		err := r.Scan(&id)
		return id, err
	}, `SELECT id FROM email_accounts ORDER BY id`)
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
