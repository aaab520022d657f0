package store

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"slices"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/consent"
)

const saltSize = 32

// addressSalt is where the salt of address keys is kept, sealed: the database alone
// does not tell whose key one is.
var addressSalt = Owner{"settings", "consent"}

const addressSaltName = "address-salt"

// loadSalt reads the installation's salt, which the first process makes. A salt that
// the key does not open is no reason to keep everything closed: its error is kept, and
// whatever concerns consent fails with it.
func (s *Store) loadSalt(ctx context.Context) error {
	const op = "store: read address salt"
	if s.sealer == nil {
		s.saltErr = noSealer(op)
		return nil
	}
	salt := make([]byte, saltSize)
	_, _ = rand.Read(salt) // never fails since Go 1.24
	box, err := s.sealer.Seal(addressSalt.table, addressSaltName, addressSalt.id, salt)
	if err != nil {
		return in(op, err)
	}
	err = s.InTx(ctx, func(tx Tx) error {
		_, err := tx.Exec(ctx, `INSERT INTO secrets (owner_table, owner, name, sealed) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING`,
			addressSalt.table, addressSalt.id, addressSaltName, box)
		if err != nil {
			return err
		}
		return tx.QueryRow(ctx, `SELECT sealed FROM secrets WHERE owner_table = $1 AND owner = $2 AND name = $3`,
			addressSalt.table, addressSalt.id, addressSaltName).Scan(&box)
	})
	if err != nil {
		return in(op, err)
	}
	if s.salt, err = s.sealer.Open(addressSalt.table, addressSaltName, addressSalt.id, box); err == nil && len(s.salt) != saltSize {
		err = damaged("the salt of address keys")
	}
	s.saltErr = in(op, err)
	return nil
}

// AddressKey returns the key of an address: the same for every spelling of it that
// NormalizeEmail makes equal, another one in every installation. The zero key stands
// for no address. Where the salt could not be opened there are no keys either, and
// whatever would use one fails.
func (s *Store) AddressKey(email string) lockstep.AddressKey {
	email = lockstep.NormalizeEmail(email)
	if email == "" || s.saltErr != nil {
		return lockstep.AddressKey{}
	}
	// Half of a SHA-256 is kept, so the sum cannot be continued by somebody who does
	// not know the salt; no longer construction is needed.
	buf := make([]byte, 0, saltSize+lockstep.MaxEmail+2)
	sum := sha256.Sum256(append(append(buf, s.salt...), email...))
	return lockstep.AddressKey(sum[:16])
}

// AppendConsent appends entries to the ledger and replaces and lifts restrictions,
// outside of a run and in one transaction; runs do it with Commit. An entry that is
// there already, by id, is left alone. An id that is missing is made; so is the key
// of an entry or restriction that has an address.
func (s *Store) AppendConsent(ctx context.Context, entries []lockstep.ConsentEntry, restrictions []lockstep.Restriction, lifted []lockstep.ID) error {
	return s.InTx(ctx, func(tx Tx) error { return s.AppendConsentIn(ctx, tx, entries, restrictions, lifted) })
}

// AppendConsentIn is AppendConsent within tx.
func (s *Store) AppendConsentIn(ctx context.Context, tx Tx, entries []lockstep.ConsentEntry, restrictions []lockstep.Restriction, lifted []lockstep.ID) error {
	// Whoever acts outside of a run says a word of their own.
	restrictions = slices.Clone(restrictions)
	for i := range restrictions {
		restrictions[i].Stamp = 0
	}
	gone := make([]lockstep.Restriction, len(lifted))
	for i, id := range lifted {
		gone[i].ID = id
	}
	return in("store: append consent", s.addConsent(ctx, tx, "", entries, restrictions, gone))
}

func (s *Store) addConsent(ctx context.Context, tx Tx, run string, entries []lockstep.ConsentEntry, restrictions, lifted []lockstep.Restriction) error {
	if len(entries) == 0 && len(restrictions) == 0 && len(lifted) == 0 {
		return nil
	}
	if s.saltErr != nil {
		return s.saltErr
	}
	if err := s.liftRestrictions(ctx, tx, lifted); err != nil {
		return err
	}
	if len(entries) > 0 {
		if err := s.appendEntries(ctx, tx, run, entries); err != nil {
			return err
		}
	}
	return s.putRestrictions(ctx, tx, restrictions)
}

// appendEntries chains the entries that are new. The row of the head is locked until
// the transaction ends, so that any number of processes make one chain.
func (s *Store) appendEntries(ctx context.Context, tx Tx, run string, entries []lockstep.ConsentEntry) error {
	entries = slices.Clone(entries)
	ids := make([][]byte, 0, len(entries))
	keys := make([]lockstep.AddressKey, 0, len(entries))
	for i := range entries {
		e := &entries[i]
		e.Email = lockstep.NormalizeEmail(e.Email)
		if e.Key == (lockstep.AddressKey{}) {
			e.Key = s.AddressKey(e.Email)
		}
		if e.Seen.IsZero() {
			e.Seen = s.now()
		}
		if e.Run == "" {
			e.Run = run
		}
		if e.ID.IsZero() {
			e.ID = lockstep.ConsentID(e)
		}
		ids, keys = append(ids, e.ID[:]), append(keys, e.Key)
	}
	head, err := lockHead(ctx, tx)
	if err != nil {
		return err
	}
	known, err := notedAmong(ctx, tx, ids)
	if err != nil {
		return err
	}
	erased, err := erasedAmong(ctx, tx, keys)
	if err != nil {
		return err
	}
	rows := make([]consent.Row, 0, len(entries))
	for i := range entries {
		e := &entries[i]
		if known[e.ID] {
			continue
		}
		known[e.ID] = true
		var row consent.Row
		row, head = consent.Append(head, e, erased[e.Key] && e.Act != lockstep.ActErased)
		rows = append(rows, row)
	}
	if len(rows) == 0 {
		return nil
	}
	_, err = insert(ctx, tx, `INSERT INTO consent (seq, id, address, content, person, hash) VALUES`, ``, 6, len(rows), func(args []any, i int) []any {
		r := &rows[i]
		return append(args, r.Seq, r.ID[:], r.Key[:], r.Content, notNil(r.Person), r.Hash[:])
	})
	if err != nil {
		return err
	}
	_, err = tx.Exec(ctx, `UPDATE consent_head SET seq = $1, hash = $2, crc = $3`, head.Seq, head.Hash[:], headSum(head))
	return err
}

// ConsentNoted returns which of these entries the ledger has, by id.
func (s *Store) ConsentNoted(ctx context.Context, ids []lockstep.ID) (map[lockstep.ID]bool, error) {
	values := make([][]byte, len(ids))
	for i := range ids {
		values[i] = ids[i][:]
	}
	known, err := notedAmong(ctx, s.db, values)
	return known, in("store: read consent", err)
}

func notedAmong(ctx context.Context, r Reader, ids [][]byte) (map[lockstep.ID]bool, error) {
	known := make(map[lockstep.ID]bool, len(ids))
	err := inPortions(ctx, r, ids, `SELECT id FROM consent WHERE id IN (`, func(r Rows) error {
		var id []byte
		err := r.Scan(&id)
		known[lockstep.ID(id)] = err == nil
		return err
	})
	return known, err
}

func headSum(h consent.Head) int64 { return checksum(h.Hash[:], "consent", h.String()) }

// lockHead returns the end of the ledger and keeps others from moving it.
func lockHead(ctx context.Context, tx Tx) (consent.Head, error) {
	var empty consent.Head
	row := tx.QueryRow(ctx, `INSERT INTO consent_head (name, seq, hash, crc) VALUES ('ledger', 0, $1, $2)
ON CONFLICT (name) DO UPDATE SET seq = consent_head.seq RETURNING seq, hash, crc`, empty.Hash[:], headSum(empty))
	head, err := scanHead(row)
	if err == nil && head.Seq == 0 {
		// A head that was taken away must not begin a second chain over the first.
		var rows int64
		if err = tx.QueryRow(ctx, `SELECT count(*) FROM (SELECT seq FROM consent LIMIT 1) AS ledger`).Scan(&rows); err == nil && rows > 0 {
			err = damaged("the head of the consent ledger")
		}
	}
	return head, err
}

func scanHead(r Row) (consent.Head, error) {
	var h consent.Head
	var hash []byte
	var crc int64
	if err := r.Scan(&h.Seq, &hash, &crc); err != nil {
		return h, err
	}
	if len(hash) == len(h.Hash) {
		h.Hash = [32]byte(hash)
	}
	if headSum(h) != crc {
		return h, damaged("the head of the consent ledger")
	}
	return h, nil
}

const ledgerColumns = `seq, id, address, content, person, hash`

// scanLedger reads a row as it lies there; bytes of a wrong length stay behind as
// zeros and so do not fit the content.
func scanLedger(r Rows) (consent.Row, error) {
	var row consent.Row
	var id, key, hash []byte
	if err := r.Scan(&row.Seq, &id, &key, &row.Content, &row.Person, &hash); err != nil {
		return row, err
	}
	if len(id) == len(row.ID) && len(key) == len(row.Key) && len(hash) == len(row.Hash) {
		row.ID, row.Key, row.Hash = lockstep.ID(id), lockstep.AddressKey(key), [32]byte(hash)
	}
	return row, nil
}

// ConsentOf returns the entries about an address with a Seq above after, in their
// order. A row that was changed is an error that names it.
func (s *Store) ConsentOf(ctx context.Context, key lockstep.AddressKey, after int64, limit int) ([]lockstep.ConsentEntry, error) {
	const op = "store: read consent"
	if s.saltErr != nil {
		return nil, s.saltErr
	}
	entries, err := collect(ctx, s.db, scanEntry, `SELECT `+ledgerColumns+` FROM consent
WHERE address = $1 AND seq > $2 ORDER BY seq LIMIT $3`, key[:], after, pageSize(limit))
	return entries, in(op, err)
}

func scanEntry(r Rows) (lockstep.ConsentEntry, error) {
	row, err := scanLedger(r)
	if err != nil {
		return lockstep.ConsentEntry{}, err
	}
	e, err := row.Entry()
	if err != nil {
		return e, brokenLedger(err)
	}
	return e, nil
}

// brokenLedger says which row of the ledger is not what was written.
func brokenLedger(cause error) error {
	e := damaged("the consent ledger")
	e.Msg = "The consent ledger was changed: " + cause.Error() + "."
	e.Hint = "Run “lockstep consent verify” and restore the database from its last backup. Nothing was done with the row."
	return e
}

// VerifyConsent goes over the whole ledger. What is wrong with it is in the report;
// an error means that it could not be read to its end. expect, when its Seq is not
// zero, is a head noted earlier.
func (s *Store) VerifyConsent(ctx context.Context, expect consent.Head) (consent.Report, error) {
	const op = "store: verify consent"
	const portion = 4000
	v := consent.Verifier{Expect: expect}
	var at int64
	for {
		rows, err := collect(ctx, s.db, scanLedger, `SELECT `+ledgerColumns+` FROM consent WHERE seq > $1 ORDER BY seq LIMIT $2`, at, int64(portion))
		if err != nil {
			return consent.Report{}, in(op, err)
		}
		for i := range rows {
			if !v.Add(&rows[i]) {
				return v.End(nil), nil
			}
			at = rows[i].Seq
		}
		if len(rows) == portion {
			continue
		}
		// The head is read after the rows, so it knows all of them; what was appended
		// meanwhile is read now.
		head, err := scanHead(s.db.QueryRow(ctx, `SELECT seq, hash, crc FROM consent_head`))
		switch {
		case lockstep.CodeOf(err) == lockstep.CodeNotFound && at == 0:
			head = consent.Head{} // nothing was ever appended
		case IsDamaged(err) || lockstep.CodeOf(err) == lockstep.CodeNotFound:
			return v.End(nil), nil
		case err != nil:
			return consent.Report{}, in(op, err)
		}
		if head.Seq <= at || len(rows) == 0 {
			return v.End(&head), nil
		}
	}
}

// erasedAmong returns those of the keys whose people were erased.
func erasedAmong(ctx context.Context, tx Tx, keys []lockstep.AddressKey) (map[lockstep.AddressKey]bool, error) {
	erased := map[lockstep.AddressKey]bool{}
	err := inPortions(ctx, tx, keyBytes(keys), `SELECT address FROM erasures WHERE address IN (`, func(r Rows) error {
		var key []byte
		err := r.Scan(&key)
		if err == nil && len(key) == len(lockstep.AddressKey{}) {
			erased[lockstep.AddressKey(key)] = true
		}
		return err
	})
	return erased, err
}

// keyBytes returns each key once.
func keyBytes(keys []lockstep.AddressKey) [][]byte {
	out := make([][]byte, 0, len(keys))
	for i := range keys {
		out = append(out, keys[i][:])
	}
	slices.SortFunc(out, bytes.Compare)
	return slices.CompactFunc(out, bytes.Equal)
}

// inPortions asks, a portion at a time, for the rows that a list of values chooses. q
// ends with the parenthesis of the list.
func inPortions(ctx context.Context, r Reader, values [][]byte, q string, each func(Rows) error, first ...any) error {
	const portion = 200
	for part := range slices.Chunk(values, portion) {
		args := slices.Clone(first)
		for _, v := range part {
			args = append(args, v)
		}
		_, err := collect(ctx, r, func(r Rows) (struct{}, error) { return struct{}{}, each(r) }, q+list(len(first)+1, len(part))+`)`, args...)
		if err != nil {
			return err
		}
	}
	return nil
}

func keyName(k lockstep.AddressKey) string { return hex.EncodeToString(k[:]) }
