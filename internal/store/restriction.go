package store

import (
	"context"
	"encoding/json"
	"slices"
	"strconv"

	"github.com/lockstep-sync/lockstep"
)

const restrictionColumns = `id, account, address, pending, asked, stamp, doc, crc`

// restrictionDoc is a Restriction as its doc column holds it. The reason is a number
// there, whatever it is called elsewhere.
type restrictionDoc struct {
	lockstep.Restriction
	Reason uint8 `json:"reason,omitempty"`
}

func restrictionSum(doc string, id lockstep.ID, account string, key lockstep.AddressKey, pending, asked bool, stamp int64) int64 {
	return checksum([]byte(doc), "restriction", id.String(), account, keyName(key), strconv.FormatBool(pending), strconv.FormatBool(asked), strconv.FormatInt(stamp, 10))
}

func scanRestriction(r interface{ Scan(...any) error }) (lockstep.Restriction, error) {
	var d restrictionDoc
	var id, key []byte
	var account, doc string
	var pending, asked bool
	var stamp, crc int64
	if err := r.Scan(&id, &account, &key, &pending, &asked, &stamp, &doc, &crc); err != nil {
		return d.Restriction, err
	}
	if len(id) != len(d.ID) || len(key) != len(d.Key) ||
		restrictionSum(doc, lockstep.ID(id), account, lockstep.AddressKey(key), pending, asked, stamp) != crc {
		return d.Restriction, damaged("a restriction")
	}
	if err := json.Unmarshal([]byte(doc), &d); err != nil {
		return d.Restriction, err
	}
	x := d.Restriction
	x.ID, x.Account, x.Key, x.Pending, x.Stamp = lockstep.ID(id), account, lockstep.AddressKey(key), pending, stamp
	x.Reason = lockstep.Standing(d.Reason)
	return x, nil
}

func restrictionRow(r Rows) (lockstep.Restriction, error) { return scanRestriction(r) }

// putRestrictions stores restrictions in place of those with the same id. Of people
// who were erased it keeps the key alone.
func (s *Store) putRestrictions(ctx context.Context, tx Tx, restrictions []lockstep.Restriction) error {
	if len(restrictions) == 0 {
		return nil
	}
	last := make(map[lockstep.ID]int, len(restrictions)) // PostgreSQL refuses a statement that writes a row twice
	all := slices.Clone(restrictions)
	keys := make([]lockstep.AddressKey, 0, len(all))
	for i := range all {
		r := &all[i]
		r.Email = lockstep.NormalizeEmail(r.Email)
		if r.Key == (lockstep.AddressKey{}) {
			r.Key = s.AddressKey(r.Email)
		}
		if r.ID.IsZero() {
			r.ID = lockstep.RestrictionID(r.Account, r.Scope, r.Object, r.Key)
		}
		if r.Seen.IsZero() {
			r.Seen = s.now()
		}
		last[r.ID] = i
		keys = append(keys, r.Key)
	}
	kept := make([]lockstep.Restriction, 0, len(last))
	for i, r := range all {
		if last[r.ID] == i {
			kept = append(kept, r)
		}
	}
	erased, err := erasedAmong(ctx, tx, keys)
	if err != nil {
		return err
	}
	// From here on nobody else stores any until the transaction ends.
	first, err := take(ctx, tx, "restrictions", len(kept))
	if err != nil {
		return err
	}
	if kept, err = withoutStale(ctx, tx, kept); err != nil || len(kept) == 0 {
		return err
	}
	docs := make([]string, len(kept))
	for i := range kept {
		r := &kept[i]
		if erased[r.Key] {
			blankRestriction(r)
		}
		r.Stamp = first + int64(i)
		r.At, r.Seen, r.Asked, r.Listed, r.Released = r.At.UTC(), r.Seen.UTC(), r.Asked.UTC(), r.Listed.UTC(), r.Released.UTC()
		doc, err := json.Marshal(restrictionDoc{*r, uint8(r.Reason)})
		if err != nil {
			return err
		}
		docs[i] = string(doc)
	}
	now := micros(s.now())
	_, err = insert(ctx, tx, `INSERT INTO restrictions (`+restrictionColumns+`, pending_since) VALUES`, `ON CONFLICT (id) DO UPDATE SET
account = excluded.account, address = excluded.address, pending = excluded.pending, asked = excluded.asked, stamp = excluded.stamp, doc = excluded.doc, crc = excluded.crc,
pending_since = CASE WHEN excluded.pending_since > 0 AND restrictions.pending_since > 0 THEN restrictions.pending_since ELSE excluded.pending_since END`,
		9, len(kept), func(args []any, i int) []any {
			r := &kept[i]
			asked := !r.Asked.IsZero()
			since := int64(0)
			if r.Pending {
				since = now
			}
			return append(args, r.ID[:], r.Account, r.Key[:], r.Pending, asked, r.Stamp, docs[i],
				restrictionSum(docs[i], r.ID, r.Account, r.Key, r.Pending, asked, r.Stamp), since)
		})
	return err
}

// withoutStale leaves out restrictions that were read before and have been stored anew,
// or lifted, since.
func withoutStale(ctx context.Context, tx Tx, restrictions []lockstep.Restriction) ([]lockstep.Restriction, error) {
	var ids [][]byte
	for i := range restrictions {
		if restrictions[i].Stamp != 0 {
			ids = append(ids, restrictions[i].ID[:])
		}
	}
	stamps := make(map[lockstep.ID]int64, len(ids))
	err := inPortions(ctx, tx, ids, `SELECT id, stamp FROM restrictions WHERE id IN (`, func(r Rows) error {
		var id []byte
		var stamp int64
		err := r.Scan(&id, &stamp)
		if err == nil && len(id) == len(lockstep.ID{}) {
			stamps[lockstep.ID(id)] = stamp
		}
		return err
	})
	return slices.DeleteFunc(restrictions, func(r lockstep.Restriction) bool { return r.Stamp != 0 && stamps[r.ID] != r.Stamp }), err
}

// blankRestriction takes out what names the person. Nobody can be told of an address
// that is not known any more.
func blankRestriction(r *lockstep.Restriction) {
	r.Email, r.Ref, r.Contact, r.Actor, r.Evidence = "", lockstep.Ref{}, "", "", ""
	r.Former, r.Pending = nil, false
}

// liftRestrictions takes restrictions away. With the last one of an address its
// erasure ends too: the person is back by their own wish.
func (s *Store) liftRestrictions(ctx context.Context, tx Tx, lifted []lockstep.Restriction) error {
	for i := range lifted {
		var key []byte
		err := tx.QueryRow(ctx, `DELETE FROM restrictions WHERE id = $1 AND (stamp = $2 OR $3) RETURNING address`, lifted[i].ID[:], lifted[i].Stamp, lifted[i].Stamp == 0).Scan(&key)
		if lockstep.CodeOf(err) == lockstep.CodeNotFound {
			continue
		}
		if err == nil {
			_, err = tx.Exec(ctx, `DELETE FROM erasures WHERE address = $1 AND NOT EXISTS (SELECT 1 FROM restrictions WHERE address = $2)`, key, key)
		}
		if err != nil {
			return err
		}
	}
	if len(lifted) == 0 {
		return nil
	}
	_, err := take(ctx, tx, liftedSequence, len(lifted))
	return err
}

// liftedSequence counts the restrictions that were lifted.
const liftedSequence = "lifted"

// LiftedRestrictions returns a number that grows whenever a restriction is lifted:
// who keeps a set of them in memory, which RestrictedSince only adds to, reads it anew.
func (s *Store) LiftedRestrictions(ctx context.Context) (int64, error) {
	var n int64
	err := s.db.QueryRow(ctx, `SELECT value FROM sequences WHERE name = $1`, liftedSequence).Scan(&n)
	if lockstep.CodeOf(err) == lockstep.CodeNotFound {
		return 0, nil
	}
	return n, in("store: read restrictions", err)
}

// Restrictions returns the restrictions of addresses in an account, of all scopes, in
// no order.
func (s *Store) Restrictions(ctx context.Context, account string, keys []lockstep.AddressKey) ([]lockstep.Restriction, error) {
	if s.saltErr != nil {
		return nil, s.saltErr
	}
	var all []lockstep.Restriction
	err := inPortions(ctx, s.db, keyBytes(keys), `SELECT `+restrictionColumns+` FROM restrictions WHERE account = $1 AND address IN (`, func(r Rows) error {
		x, err := scanRestriction(r)
		all = append(all, x)
		return err
	}, account)
	return all, in("store: read restrictions", err)
}

// PendingRestrictions returns restrictions of which some destination has to be told,
// by id, with ids above after.
func (s *Store) PendingRestrictions(ctx context.Context, account string, after lockstep.ID, limit int) ([]lockstep.Restriction, error) {
	if s.saltErr != nil {
		return nil, s.saltErr
	}
	all, err := collect(ctx, s.db, restrictionRow, `SELECT `+restrictionColumns+` FROM restrictions
WHERE account = $1 AND pending AND id > $2 ORDER BY id LIMIT $3`, account, after[:], pageSize(limit))
	return all, in("store: read pending restrictions", err)
}

// RestrictedSince hands over an account's restrictions with stamps above stamp (0 =
// all) in the order of their stamps. They are read in portions, so each may take its
// time. One that was lifted meanwhile is not told.
func (s *Store) RestrictedSince(ctx context.Context, account string, stamp int64, each func(lockstep.Restriction) error) error {
	const op = "store: read restrictions"
	const portion = 2000
	if s.saltErr != nil {
		return s.saltErr
	}
	for {
		some, err := collect(ctx, s.db, restrictionRow, `SELECT `+restrictionColumns+` FROM restrictions
WHERE account = $1 AND stamp > $2 ORDER BY stamp LIMIT $3`, account, stamp, int64(portion))
		if err != nil {
			return in(op, err)
		}
		for _, r := range some {
			if err := each(r); err != nil {
				return err
			}
			stamp = r.Stamp
		}
		if len(some) < portion {
			return nil
		}
	}
}

// RestrictionState chooses restrictions by how far they have come.
type RestrictionState string

// The states.
const (
	RestrictionAny     RestrictionState = ""
	RestrictionPending RestrictionState = "pending" // some destination has to be told
	RestrictionTold    RestrictionState = "told"    // every destination knows
	RestrictionAsked   RestrictionState = "asked"   // a resubscription waits for the person
)

// RestrictionFilter chooses restrictions; zero fields choose all.
type RestrictionFilter struct {
	Account string
	Key     lockstep.AddressKey
	State   RestrictionState
	// After is the id of the last restriction of the page before.
	After lockstep.ID
	Limit int
}

// ListRestrictions returns restrictions by id.
func (s *Store) ListRestrictions(ctx context.Context, f RestrictionFilter) ([]lockstep.Restriction, error) {
	const op = "store: list restrictions"
	if s.saltErr != nil {
		return nil, s.saltErr
	}
	var w filter
	w.and("id > ?", f.After[:])
	if f.Account != "" {
		w.and("account = ?", f.Account)
	}
	if f.Key != (lockstep.AddressKey{}) {
		w.and("address = ?", f.Key[:])
	}
	switch f.State {
	case RestrictionAny:
	case RestrictionPending:
		w.and("pending")
	case RestrictionTold:
		w.and("NOT pending")
	case RestrictionAsked:
		w.and("asked")
	default:
		return nil, invalid(op, "state", "A restriction is %q, %q or %q, not %.40q.", RestrictionPending, RestrictionTold, RestrictionAsked, string(f.State))
	}
	w.args = append(w.args, pageSize(f.Limit))
	all, err := collect(ctx, s.db, restrictionRow, `SELECT `+restrictionColumns+` FROM restrictions`+w.text.String()+` ORDER BY id LIMIT `+list(len(w.args), 1), w.args...)
	return all, in(op, err)
}

// Restriction returns one restriction. CodeNotFound.
func (s *Store) Restriction(ctx context.Context, id lockstep.ID) (lockstep.Restriction, error) {
	r, err := scanRestriction(s.db.QueryRow(ctx, `SELECT `+restrictionColumns+` FROM restrictions WHERE id = $1`, id[:]))
	return r, missing("store: read restriction", err, "restriction", id.String())
}
