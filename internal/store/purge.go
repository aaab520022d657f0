package store

import (
	"context"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/crosswalk"
	"github.com/lockstep-sync/lockstep/internal/journal"
)

// person is somebody who is to be erased: an address, and the records and contacts
// that were ever met with it.
type person struct {
	email string // normalised
	key   lockstep.AddressKey
	// refs are records that had the address. Of those in gone, which is by account, no
	// entry of the link log is needed any more; the others have another address now
	// and stay linked.
	refs map[lockstep.Ref]bool
	gone map[string]map[lockstep.Ref]bool
	// contacts are by account: their ids mean nothing elsewhere.
	contacts map[string]map[lockstep.ContactID]bool
}

func newPerson(s *Store, email string) *person {
	email = lockstep.NormalizeEmail(email)
	return &person{
		email: email, key: s.AddressKey(email), refs: map[lockstep.Ref]bool{}, gone: map[string]map[lockstep.Ref]bool{},
		contacts: map[string]map[lockstep.ContactID]bool{},
	}
}

// meet notes a record and a contact, and reports whether one of them is new.
func (p *person) meet(account string, ref lockstep.Ref, contact lockstep.ContactID) bool {
	fresh := false
	if !ref.ID.IsZero() && !p.refs[ref] {
		p.refs[ref], fresh = true, true
	}
	if contact != "" && !p.contacts[account][contact] {
		if p.contacts[account] == nil {
			p.contacts[account] = map[lockstep.ContactID]bool{}
		}
		p.contacts[account][contact], fresh = true, true
	}
	return fresh
}

func (p *person) isAddress(s string) bool {
	return strings.Contains(s, "@") && lockstep.NormalizeEmail(s) == p.email
}

// identify notes what the ledger and the restrictions know of the person.
func (s *Store) identify(ctx context.Context, p *person) error {
	entries, err := collect(ctx, s.db, scanEntry, `SELECT `+ledgerColumns+` FROM consent WHERE address = $1`, p.key[:])
	if err != nil {
		return err
	}
	for _, e := range entries {
		p.meet(e.Account, e.Ref, e.Contact)
	}
	restrictions, err := collect(ctx, s.db, restrictionRow, `SELECT `+restrictionColumns+` FROM restrictions WHERE address = $1`, p.key[:])
	if err != nil {
		return err
	}
	for _, r := range restrictions {
		p.meet(r.Account, r.Ref, r.Contact)
	}
	choices, err := collect(ctx, s.db, choiceRow, `SELECT `+choiceColumns+` FROM choices WHERE address = $1`, p.key[:])
	for _, c := range choices {
		p.meet(c.Account, lockstep.Ref{Table: lockstep.ChoiceTable, ID: c.Row}, c.Contact)
	}
	return err
}

// found is where a person was found.
type found struct {
	links    map[string][]int64 // account → blobs
	members  []int64
	batches  []int64
	underWay bool // in a write whose outcome is not known
}

func (f *found) empty() bool { return len(f.links) == 0 && len(f.members) == 0 && len(f.batches) == 0 }

// search looks through everything, in no transaction: what is stored meanwhile is
// found by the next search. Whom the journal names is looked for in what was read
// before, so it goes on until nobody new turns up.
func (s *Store) search(ctx context.Context, p *person) (*found, error) {
	for {
		f := &found{links: map[string][]int64{}}
		fresh := false
		for _, look := range []func(context.Context, *person, *found) (bool, error){s.searchLinks, s.searchJournal, s.searchMembers} {
			more, err := look(ctx, p, f)
			if err != nil {
				return nil, err
			}
			fresh = fresh || more
		}
		if !fresh {
			return f, nil
		}
	}
}

func (s *Store) searchLinks(ctx context.Context, p *person, f *found) (fresh bool, err error) {
	accounts, err := texts(ctx, s.db, `SELECT DISTINCT account FROM links`)
	if err != nil {
		return false, err
	}
	clear(p.gone)
	for _, account := range accounts {
		gone := map[lockstep.Ref]bool{}
		p.gone[account] = gone
		last := map[lockstep.Ref]crosswalk.Entry{}
		err := s.Links(ctx, account, 0, func(b lockstep.StoredBlob) error {
			return crosswalk.Find(b.Payload, p.email, func(r lockstep.Ref) bool { return p.refs[r] }, func(_ []string, e crosswalk.Entry) error {
				if e.Email == p.email {
					fresh = p.meet(account, e.Ref, e.Contact) || fresh
				}
				last[e.Ref] = e
				return nil
			})
		})
		if err != nil {
			return false, err
		}
		for ref, e := range last {
			if e.Closed || e.Email == p.email || e.Email == "" {
				gone[ref] = true
			}
		}
		if fresh {
			continue // looked through again, for what they were before
		}
		err = s.Links(ctx, account, 0, func(b lockstep.StoredBlob) error {
			hit := false
			err := crosswalk.Find(b.Payload, p.email, func(r lockstep.Ref) bool { return gone[r] }, func(_ []string, e crosswalk.Entry) error {
				hit = hit || p.drops(account, &e)
				return nil
			})
			if hit {
				f.links[account] = append(f.links[account], b.ID)
			}
			return err
		})
		if err != nil {
			return false, err
		}
	}
	return fresh, nil
}

// drops reports whether an entry of an account's link log goes.
func (p *person) drops(account string, e *crosswalk.Entry) bool {
	return e.Email == p.email || p.gone[account][e.Ref]
}

func (s *Store) searchJournal(ctx context.Context, p *person, f *found) (fresh bool, err error) {
	const portion = 64
	for at := int64(0); ; {
		batches, err := collect(ctx, s.db, scanOwnedBatch, `SELECT `+batchColumns+`, preview FROM journal WHERE id > $1 ORDER BY id LIMIT $2`, at, int64(portion))
		if err != nil {
			return false, err
		}
		for _, b := range batches {
			at = b.ID
			hit := false
			err := journal.Decode(b.Payload, func(c lockstep.Change) error {
				switch p.named(b.Account, &c) {
				case byAddress:
					fresh = p.meet(b.Account, c.Ref, c.Contact) || fresh
					hit = true
				case byID, byValue:
					hit = true
				}
				return nil
			})
			if err != nil {
				return false, err
			}
			if hit {
				f.batches = append(f.batches, b.ID)
				f.underWay = f.underWay || b.underWay()
			}
		}
		if len(batches) < portion {
			return fresh, nil
		}
	}
}

// ownedBatch is a batch that knows whether it is part of a preview.
type ownedBatch struct {
	lockstep.Batch
	preview bool
}

func scanOwnedBatch(r Rows) (o ownedBatch, err error) {
	o.Batch, err = scanBatch(alsoScan{r, &o.preview})
	return o, err
}

// alsoScan reads one more column than its caller knows of.
type alsoScan struct {
	Rows
	more any
}

func (a alsoScan) Scan(dest ...any) error { return a.Rows.Scan(append(dest, a.more)...) }

// planned reports whether the batch waits for somebody to apply a preview.
func (o *ownedBatch) planned() bool { return o.preview && o.State == lockstep.Planned }

// underWay reports whether the batch's outcome is not known.
func (o *ownedBatch) underWay() bool {
	switch o.State {
	case lockstep.Planned:
		return !o.preview
	case lockstep.Sent, lockstep.Unknown:
		return true
	}
	return false
}

// naming is how a change names a person.
type naming uint8

const (
	notNamed naming = iota
	byAddress
	byID
	byValue // one of its values is the address, of a record that is somebody else's
)

func (p *person) named(account string, c *lockstep.Change) naming {
	switch {
	case c.Email != "" && lockstep.NormalizeEmail(c.Email) == p.email:
		return byAddress
	case p.refs[c.Ref] || c.Contact != "" && p.contacts[account][c.Contact]:
		return byID
	}
	for i := range c.Fields {
		if x := &c.Fields[i]; p.isAddress(x.Old.Text()) || p.isAddress(x.New.Text()) {
			if x.Name == lockstep.EmailColumn || x.Name == lockstep.EmailTextColumn {
				return byAddress
			}
			return byValue
		}
	}
	return notNamed
}

// erasedCause is what a change says whose person was erased.
const erasedCause = "the person was erased"

// blank takes the person out of a change that names them.
func (p *person) blank(c *lockstep.Change, how naming) {
	if how == byValue {
		for i := range c.Fields {
			if x := &c.Fields[i]; p.isAddress(x.Old.Text()) || p.isAddress(x.New.Text()) {
				x.Old, x.New = lockstep.Value{}, lockstep.Value{}
			}
		}
		return
	}
	c.Ref, c.Contact, c.Email, c.Name, c.Cause = lockstep.Ref{}, "", "", "", erasedCause
	for i := range c.Fields {
		c.Fields[i].Old, c.Fields[i].New = lockstep.Value{}, lockstep.Value{}
	}
}

func (s *Store) searchMembers(ctx context.Context, p *person, f *found) (fresh bool, err error) {
	owners, err := s.owners(ctx, s.db)
	if err != nil {
		return false, err
	}
	names, err := texts(ctx, s.db, `SELECT DISTINCT list FROM members`)
	if err != nil {
		return false, err
	}
	for _, name := range names {
		leaves := p.leaves(owners[name])
		err := s.Members(ctx, name, func(b lockstep.StoredBlob) error {
			hit := false
			err := crosswalk.FindMembers(b.Payload, leaves, func(crosswalk.Member) { hit = true })
			if hit {
				f.members = append(f.members, b.ID)
			}
			return err
		})
		if err != nil {
			return false, err
		}
	}
	return false, nil
}

// owners returns the account of each list.
func (s *Store) owners(ctx context.Context, r Reader) (map[string]string, error) {
	owners := map[string]string{}
	_, err := collect(ctx, r, func(r Rows) (struct{}, error) {
		var id, account string
		err := r.Scan(&id, &account)
		owners[id] = account
		return struct{}{}, err
	}, `SELECT id, account FROM lists`)
	return owners, err
}

// leaves tells which members of an account's list are the person. Members are known by
// the record's id alone.
func (p *person) leaves(account string) func(record lockstep.ID, contact []byte) bool {
	records := map[lockstep.ID]bool{}
	for ref := range p.gone[account] { // a record that has another address now keeps its place
		records[ref.ID] = true
	}
	return func(record lockstep.ID, contact []byte) bool {
		if !record.IsZero() {
			return records[record]
		}
		return len(contact) > 0 && p.contacts[account][lockstep.ContactID(contact)]
	}
}

// purge takes the person out of what was found.
func (s *Store) purge(ctx context.Context, tx Tx, p *person, f *found, done *Erasure) error {
	// Runs in process hold parts of what is rewritten in memory. They lose their turn:
	// what they try to store is refused, so no call leaves either, and they go on in a
	// new turn with what they read then.
	if _, err := tx.Exec(ctx, `UPDATE runs SET fence = fence + 1 WHERE status = 'in_process'`); err != nil {
		return err
	}
	g := growth{}
	for _, account := range slices.Sorted(maps.Keys(f.links)) {
		if err := s.purgeLinks(ctx, tx, g, p, account, f.links[account], done); err != nil {
			return err
		}
	}
	if err := g.store(ctx, tx); err != nil {
		return err
	}
	if err := s.purgeMembers(ctx, tx, p, f.members, done); err != nil {
		return err
	}
	for _, id := range f.batches {
		if err := purgeBatch(ctx, tx, p, id, done); err != nil {
			return err
		}
	}
	return purgeProblems(ctx, tx, p, done)
}

// purgeLinks writes batches anew without the person's entries. Who keeps the log in
// memory must read it again from the beginning: places in these batches have moved.
func (s *Store) purgeLinks(ctx context.Context, tx Tx, g growth, p *person, account string, blobs []int64, done *Erasure) error {
	for _, id := range blobs {
		payload, err := linkBlob(ctx, tx, account, id)
		if err != nil {
			return err
		}
		if payload == nil {
			continue // a compaction replaced it; the next search finds its successor
		}
		labels, err := crosswalk.Labels(payload)
		if err != nil {
			return err
		}
		batch := crosswalk.NewBatch(labels)
		err = crosswalk.Decode(payload, func(_, _ int, e crosswalk.Entry) error {
			if p.drops(account, &e) {
				done.Links++
			} else {
				batch.Append(e)
			}
			return nil
		})
		if err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `DELETE FROM links WHERE blob = $1`, id); err != nil {
			return err
		}
		if err := insertLinks(ctx, tx, account, id, [][]byte{batch.Bytes()}); err != nil {
			return err
		}
	}
	// An empty batch is the end of what was rewritten: who has read up to it, has read
	// the log as it is now.
	end, err := take(ctx, tx, "links", 1)
	if err != nil {
		return err
	}
	if err := insertLinks(ctx, tx, account, end, [][]byte{crosswalk.NewBatch(nil).Bytes()}); err != nil {
		return err
	}
	g[linkLog(account)]++
	_, err = tx.Exec(ctx, `INSERT INTO logs (name, blobs) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET blobs = excluded.blobs`, rewrittenLog(account), end)
	return err
}

// linkBlob reads a batch within tx; nil when it is not there.
func linkBlob(ctx context.Context, tx Tx, account string, id int64) ([]byte, error) {
	parts, err := collect(ctx, tx, func(r Rows) ([]byte, error) {
		var part, parts, crc int64
		var payload []byte
		if err := r.Scan(&part, &parts, &payload, &crc); err != nil {
			return nil, err
		}
		if partSum(id, int(part), int(parts), account, payload) != crc {
			return nil, damaged("link batch " + strconv.FormatInt(id, 10))
		}
		return payload, nil
	}, `SELECT part, parts, payload, crc FROM links WHERE account = $1 AND blob = $2 ORDER BY part`, account, id)
	if err != nil || len(parts) == 0 {
		return nil, err
	}
	return slices.Concat(parts...), nil
}

func (s *Store) purgeMembers(ctx context.Context, tx Tx, p *person, blobs []int64, done *Erasure) error {
	owners, err := s.owners(ctx, tx)
	if err != nil {
		return err
	}
	for _, id := range blobs {
		var owner string
		var payload []byte
		var crc int64
		err := tx.QueryRow(ctx, `SELECT list, payload, crc FROM members WHERE id = $1`, id).Scan(&owner, &payload, &crc)
		if lockstep.CodeOf(err) == lockstep.CodeNotFound {
			continue
		}
		if err != nil {
			return err
		}
		if checksum(payload, strconv.FormatInt(id, 10), owner) != crc {
			return damaged("membership batch " + strconv.FormatInt(id, 10))
		}
		leaves := p.leaves(owners[owner])
		batch := crosswalk.NewMemberBatch()
		err = crosswalk.DecodeMembers(payload, func(m crosswalk.Member) error {
			if leaves(m.Record, []byte(m.Contact)) {
				done.Members++
			} else {
				batch.Append(m)
			}
			return nil
		})
		if err != nil {
			return err
		}
		kept := batch.Bytes()
		if _, err := tx.Exec(ctx, `UPDATE members SET payload = $2, crc = $3 WHERE id = $1`, id, kept, checksum(kept, strconv.FormatInt(id, 10), owner)); err != nil {
			return err
		}
		if err := addFilters(ctx, tx, memberFilters, []int64{id}, [][]byte{crosswalk.MemberSubjects(kept)}); err != nil {
			return err
		}
	}
	return nil
}

// purgeBatch blanks the person's changes in a batch of the journal. From a preview that
// waits to be applied they are taken out: what is not known cannot be written.
func purgeBatch(ctx context.Context, tx Tx, p *person, id int64, done *Erasure) error {
	batches, err := collect(ctx, tx, scanOwnedBatch, `SELECT `+batchColumns+`, preview FROM journal WHERE id = $1`, id)
	if err != nil || len(batches) == 0 {
		return err
	}
	b := batches[0]
	if b.underWay() {
		return conflict("store: erase address", "A write about this person is under way.")
	}
	var w journal.Writer
	changed := 0
	err = journal.Decode(b.Payload, func(c lockstep.Change) error {
		how := p.named(b.Account, &c)
		if how != notNamed {
			changed++
			if b.planned() && how != byValue {
				return nil
			}
			p.blank(&c, how)
		}
		w.Add(&c)
		return nil
	})
	if err != nil || changed == 0 {
		return err
	}
	done.Changes += changed
	payload, state, rows := w.Payload(), b.State, b.Rows
	if b.planned() {
		rows = w.Len()
		if rows == 0 {
			state = lockstep.Dropped
		}
	}
	if _, err = tx.Exec(ctx, `UPDATE journal SET payload = $2, crc = $3, state = $4, size = $5 WHERE id = $1`,
		id, payload, batchSum(id, b.Run, b.Kind, payload), int64(state), int64(rows)); err != nil {
		return err
	}
	// The filter knows whom the batch was about.
	_, err = tx.Exec(ctx, `UPDATE filters SET filter = $3 WHERE log = $1 AND blob = $2`, int64(journalFilters), id, notNil(journal.Subjects(payload)))
	return err
}

// purgeProblems blanks findings and conflicts about the person. A conflict that waits
// for a decision needs none any more.
func purgeProblems(ctx context.Context, tx Tx, p *person, done *Erasure) error {
	blankFinding := `UPDATE findings SET record = '', contact = '', message = 'The person was erased.', hint = '' WHERE `
	blankConflict := `UPDATE conflicts SET record = '', contact = '', base_kind = 0, base = '', crm_kind = 0, crm = '', platform_kind = 0, platform = '',
resolved_at = CASE WHEN resolved THEN resolved_at ELSE 0 END, resolved = true WHERE `
	exec := func(q string, count *int, args ...any) error {
		n, err := tx.Exec(ctx, q, args...)
		*count += int(n)
		return err
	}
	for ref := range p.refs {
		if err := exec(blankFinding+`record = $1 AND table_name = $2`, &done.Findings, ref.ID.String(), ref.Table); err != nil {
			return err
		}
		if err := exec(blankConflict+`record = $1 AND table_name = $2`, &done.Conflicts, ref.ID.String(), ref.Table); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `DELETE FROM retries WHERE record = $1 AND table_name = $2`, ref.ID.String(), ref.Table); err != nil {
			return err
		}
	}
	for account, contacts := range p.contacts {
		for contact := range contacts {
			if err := exec(blankFinding+`account = $1 AND contact = $2`, &done.Findings, account, string(contact)); err != nil {
				return err
			}
			if err := exec(blankConflict+`account = $1 AND contact = $2`, &done.Conflicts, account, string(contact)); err != nil {
				return err
			}
		}
	}
	like := "%" + strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`).Replace(p.email) + "%"
	if err := exec(blankFinding+`lower(message) LIKE $1 ESCAPE '\' OR lower(hint) LIKE $2 ESCAPE '\'`, &done.Findings, like, like); err != nil {
		return err
	}
	return exec(blankConflict+`lower(base) LIKE $1 ESCAPE '\' OR lower(crm) LIKE $2 ESCAPE '\' OR lower(platform) LIKE $3 ESCAPE '\'`, &done.Conflicts, like, like, like)
}
