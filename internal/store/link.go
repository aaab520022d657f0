package store

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/crosswalk"
)

// partSize is how many bytes of a link batch one row holds. A single link costs
// reading and checking one part.
const partSize = 16 << 10

func partSum(blob int64, part, parts int, account string, payload []byte) int64 {
	return checksum(payload, strconv.FormatInt(blob, 10), strconv.Itoa(part), strconv.Itoa(parts), account)
}

// Links hands over an account's link batches with ids above after, oldest first.
// The payload is each's to keep. CodeExpired, before the first batch: earlier ones
// were written anew since, so what was read of them must be read again, after 0.
func (s *Store) Links(ctx context.Context, account string, after int64, each func(lockstep.StoredBlob) error) error {
	const op = "store: read links"
	if after > 0 {
		if err := s.notRewritten(ctx, op, account, after); err != nil {
			return err
		}
	} else {
		if err := s.whole(ctx, linkLog(account), `SELECT count(*) FROM links WHERE account = $1 AND part = 0`, account); err != nil {
			return in(op, err)
		}
	}
	type row struct {
		blob        int64
		part, parts int
		payload     []byte
	}
	scan := func(r Rows) (row, error) {
		var p row
		var part, parts, crc int64
		if err := r.Scan(&p.blob, &part, &parts, &p.payload, &crc); err != nil {
			return p, err
		}
		p.part, p.parts = int(part), int(parts)
		if partSum(p.blob, p.part, p.parts, account, p.payload) != crc {
			return p, damaged(fmt.Sprintf("link batch %d", p.blob))
		}
		return p, nil
	}
	// Rows are read in portions, so that each may take its time and may itself use
	// the store. A batch may begin in one portion and end in the next.
	const portion = 256
	var blob lockstep.StoredBlob
	next, lastPart := 0, int64(-1)
	at := after
	for {
		rows, err := collect(ctx, s.db, scan, `SELECT blob, part, parts, payload, crc FROM links
WHERE account = $1 AND (blob, part) > ($2, $3) AND blob > $4 ORDER BY blob, part LIMIT $5`, account, at, lastPart, after, int64(portion))
		if err != nil {
			return in(op, err)
		}
		for _, p := range rows {
			if p.part != next || (p.part > 0 && p.blob != blob.ID) {
				return in(op, damaged(fmt.Sprintf("link batch %d lacks a part, which", p.blob)))
			}
			if p.part == 0 {
				blob = lockstep.StoredBlob{ID: p.blob}
				if p.parts > 1 {
					blob.Payload = make([]byte, 0, p.parts*partSize)
				}
			}
			if p.parts == 1 {
				blob.Payload = p.payload
			} else {
				blob.Payload = append(blob.Payload, p.payload...)
			}
			if next++; next == p.parts {
				next = 0
				if err := each(blob); err != nil {
					return err
				}
			}
			at, lastPart = p.blob, int64(p.part)
		}
		if len(rows) < portion {
			break
		}
	}
	if next != 0 {
		return in(op, damaged(fmt.Sprintf("link batch %d lacks its end, which", blob.ID)))
	}
	return nil
}

// LinkRanges reads pieces of link batches, one result for each range in its order.
// The results share memory with each other; the caller must not change them.
// CodeNotFound when a batch is gone: a compaction has replaced it.
func (s *Store) LinkRanges(ctx context.Context, ranges []lockstep.BlobRange) ([][]byte, error) {
	const op = "store: read links"
	type key struct {
		blob int64
		part int
	}
	wanted := make(map[key][]byte)
	var order []key
	for _, r := range ranges {
		if r.Offset < 0 || r.Length < 0 {
			return nil, invalid(op, "range", "A range begins at %d and is %d bytes long.", r.Offset, r.Length)
		}
		for part := r.Offset / partSize; part <= max(r.Offset, r.Offset+r.Length-1)/partSize; part++ {
			k := key{r.Blob, part}
			if _, ok := wanted[k]; !ok {
				wanted[k] = nil
				order = append(order, k)
			}
		}
	}
	for len(order) > 0 {
		n := min(len(order), maxRows)
		args := make([]any, 0, 2*n)
		var q strings.Builder
		q.WriteString(`SELECT blob, part, parts, account, payload, crc FROM links WHERE `)
		for i, k := range order[:n] {
			if i > 0 {
				q.WriteString(" OR ")
			}
			args = append(args, k.blob, int64(k.part))
			fmt.Fprintf(&q, "(blob = $%d AND part = $%d)", len(args)-1, len(args))
		}
		_, err := collect(ctx, s.db, func(r Rows) (struct{}, error) {
			var blob, part, parts, crc int64
			var account string
			var payload []byte
			if err := r.Scan(&blob, &part, &parts, &account, &payload, &crc); err != nil {
				return struct{}{}, err
			}
			if partSum(blob, int(part), int(parts), account, payload) != crc {
				return struct{}{}, damaged(fmt.Sprintf("link batch %d", blob))
			}
			wanted[key{blob, int(part)}] = notNil(payload)
			return struct{}{}, nil
		}, q.String(), args...)
		if err != nil {
			return nil, in(op, err)
		}
		order = order[n:]
	}
	out := make([][]byte, len(ranges))
	for i, r := range ranges {
		first := wanted[key{r.Blob, r.Offset / partSize}]
		if first == nil {
			return nil, &lockstep.Error{Code: lockstep.CodeNotFound, Op: op, Msg: fmt.Sprintf("Link batch %d is gone or shorter than %d bytes.", r.Blob, r.Offset+r.Length), Hint: "Read the links again."}
		}
		from := r.Offset % partSize
		if end := from + r.Length; end <= len(first) {
			out[i] = first[from:end:end]
			continue
		}
		piece := make([]byte, 0, r.Length)
		for part := r.Offset / partSize; len(piece) < r.Length; part++ {
			p := wanted[key{r.Blob, part}]
			if len(p) <= from {
				return nil, invalid(op, "range", "Link batch %d is shorter than %d bytes.", r.Blob, r.Offset+r.Length)
			}
			piece = append(piece, p[from:min(len(p), from+r.Length-len(piece))]...)
			from = 0
		}
		out[i] = piece
	}
	return out, nil
}

// Members hands over the membership batches of a list (list settings id), oldest
// first.
func (s *Store) Members(ctx context.Context, list string, each func(lockstep.StoredBlob) error) error {
	const op = "store: read members"
	if err := s.whole(ctx, memberLog(list), `SELECT count(*) FROM members WHERE list = $1`, list); err != nil {
		return in(op, err)
	}
	scan := func(r Rows) (lockstep.StoredBlob, error) {
		var b lockstep.StoredBlob
		var crc int64
		if err := r.Scan(&b.ID, &b.Payload, &crc); err != nil {
			return b, err
		}
		if checksum(b.Payload, strconv.FormatInt(b.ID, 10), list) != crc {
			return b, damaged(fmt.Sprintf("membership batch %d", b.ID))
		}
		return b, nil
	}
	const portion = 16
	var at int64
	for {
		blobs, err := collect(ctx, s.db, scan, `SELECT id, payload, crc FROM members
WHERE list = $1 AND id > $2 ORDER BY id LIMIT $3`, list, at, int64(portion))
		if err != nil {
			return in(op, err)
		}
		for _, b := range blobs {
			if err := each(b); err != nil {
				return err
			}
			at = b.ID
		}
		if len(blobs) < portion {
			return nil
		}
	}
}

func linkLog(account string) string { return "links/" + account }
func memberLog(list string) string  { return "members/" + list }

// rewrittenLog is the name under which logs keeps the batch up to which an erasure
// wrote batches of an account anew.
func rewrittenLog(account string) string { return "rewritten links/" + account }

func (s *Store) notRewritten(ctx context.Context, op, account string, after int64) error {
	var end int64
	err := s.db.QueryRow(ctx, `SELECT blobs FROM logs WHERE name = $1`, rewrittenLog(account)).Scan(&end)
	switch {
	case lockstep.CodeOf(err) == lockstep.CodeNotFound || err == nil && after >= end:
		return nil
	case err != nil:
		return in(op, err)
	}
	return &lockstep.Error{Code: lockstep.CodeExpired, Op: op, Scope: lockstep.ScopeConnection, Msg: "Link batches were written anew since.", Hint: "Read the links from the beginning."}
}

// whole compares how many blobs a log has with how many it should have.
func (s *Store) whole(ctx context.Context, log, count, owner string) error {
	var have, should int64
	err := s.db.QueryRow(ctx, `SELECT (`+count+`), COALESCE((SELECT blobs FROM logs WHERE name = $2), 0)`, owner, log).Scan(&have, &should)
	if err != nil {
		return err
	}
	if have != should {
		return damaged(fmt.Sprintf("%s has %d batches instead of %d, which", log, have, should))
	}
	return nil
}

// growth is by how many blobs logs grow or shrink, by name.
type growth map[string]int64

// store adds to the number of blobs that each log should have; in one order for
// everybody, so that two transactions cannot wait for each other.
func (g growth) store(ctx context.Context, tx Tx) error {
	for _, log := range slices.Sorted(maps.Keys(g)) {
		if g[log] == 0 {
			continue
		}
		if _, err := tx.Exec(ctx, `INSERT INTO logs (name, blobs) VALUES ($1, $2)
ON CONFLICT (name) DO UPDATE SET blobs = logs.blobs + excluded.blobs`, log, g[log]); err != nil {
			return err
		}
	}
	return nil
}

func addLinks(ctx context.Context, tx Tx, g growth, account string, blobs [][]byte, ids []int64) error {
	if len(blobs) == 0 {
		return nil
	}
	first, err := take(ctx, tx, "links", len(blobs))
	if err != nil {
		return err
	}
	if len(ids) == len(blobs) {
		for i := range ids {
			ids[i] = first + int64(i)
		}
	}
	g[linkLog(account)] += int64(len(blobs))
	return insertLinks(ctx, tx, account, first, blobs)
}

// insertLinks stores batches in parts, under ids from first on, with the filters of
// their subjects.
func insertLinks(ctx context.Context, tx Tx, account string, first int64, blobs [][]byte) error {
	type piece struct {
		blob        int64
		part, parts int
		payload     []byte
	}
	var pieces []piece
	for i, b := range blobs {
		parts := max(1, (len(b)+partSize-1)/partSize)
		for part := range parts {
			pieces = append(pieces, piece{first + int64(i), part, parts, notNil(b[part*partSize : min(len(b), (part+1)*partSize)])})
		}
	}
	_, err := insert(ctx, tx, `INSERT INTO links (blob, part, parts, account, payload, crc) VALUES`, ``, 6, len(pieces), func(args []any, i int) []any {
		p := pieces[i]
		return append(args, p.blob, int64(p.part), int64(p.parts), account, p.payload, partSum(p.blob, p.part, p.parts, account, p.payload))
	})
	if err != nil {
		return err
	}
	filters, stored := make([][]byte, len(blobs)), make([]int64, len(blobs))
	for i, b := range blobs {
		filters[i], stored[i] = crosswalk.Subjects(b), first+int64(i)
	}
	return addFilters(ctx, tx, linkFilters, stored, filters)
}

func dropLinks(ctx context.Context, tx Tx, g growth, op, account string, blobs []int64) error {
	for from := 0; from < len(blobs); from += maxRows {
		some := blobs[from:min(len(blobs), from+maxRows)]
		args := []any{account}
		for _, b := range some {
			args = append(args, b)
		}
		var n int64
		err := tx.QueryRow(ctx, `SELECT count(*) FROM links WHERE account = $1 AND part = 0 AND blob IN (`+list(2, len(some))+`)`, args...).Scan(&n)
		if err == nil && n != int64(len(some)) {
			err = conflict(op, "A link batch that is to be replaced is gone already.")
		}
		if err == nil {
			_, err = tx.Exec(ctx, `DELETE FROM links WHERE account = $1 AND blob IN (`+list(2, len(some))+`)`, args...)
		}
		if err == nil {
			err = dropFilters(ctx, tx, linkFilters, some)
		}
		if err != nil {
			return err
		}
	}
	g[linkLog(account)] -= int64(len(blobs))
	return nil
}

func addMembers(ctx context.Context, tx Tx, g growth, blobs []lockstep.MemberBlob) error {
	if len(blobs) == 0 {
		return nil
	}
	first, err := take(ctx, tx, "members", len(blobs))
	if err != nil {
		return err
	}
	_, err = insert(ctx, tx, `INSERT INTO members (id, list, payload, crc) VALUES`, ``, 4, len(blobs), func(args []any, i int) []any {
		id, payload := first+int64(i), notNil(blobs[i].Payload)
		return append(args, id, blobs[i].List, payload, checksum(payload, strconv.FormatInt(id, 10), blobs[i].List))
	})
	if err != nil {
		return err
	}
	filters, stored := make([][]byte, len(blobs)), make([]int64, len(blobs))
	for i, b := range blobs {
		g[memberLog(b.List)]++
		filters[i], stored[i] = crosswalk.MemberSubjects(b.Payload), first+int64(i)
	}
	return addFilters(ctx, tx, memberFilters, stored, filters)
}

func dropMembers(ctx context.Context, tx Tx, g growth, op string, ids []int64) error {
	for _, id := range ids {
		var owner string
		err := tx.QueryRow(ctx, `DELETE FROM members WHERE id = $1 RETURNING list`, id).Scan(&owner)
		if lockstep.CodeOf(err) == lockstep.CodeNotFound {
			return conflict(op, "Membership batch %d, which is to be replaced, is gone already.", id)
		}
		if err != nil {
			return err
		}
		g[memberLog(owner)]--
	}
	return dropFilters(ctx, tx, memberFilters, ids)
}
