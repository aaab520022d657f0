//go:build unix

package store

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/lockstep-sync/lockstep"
)

// A changed row is never handed out as if it were what was written.
func TestDamagedRows(t *testing.T) {
	engines(t, func(t *testing.T, o Options) {
		s := mustOpen(t, o)
		a := account(t, s)
		ctx, run := started(t, s, a.ID)
		batch, err := s.Plan(ctx, lockstep.Batch{Run: run.ID, Account: a.ID, Payload: []byte("plan")})
		ok(t, err)
		open, err := s.Plan(ctx, lockstep.Batch{Run: run.ID, Account: a.ID, Payload: []byte("plan")})
		ok(t, err)
		ok(t, s.Commit(ctx, fullCommit(run, batch)))
		ok(t, s.Commit(ctx, lockstep.Commit{Run: run.ID, Account: a.ID, Choices: []lockstep.Choice{chosen(s, a.ID, "17", "ada@example.com", true)}}))
		ok(t, s.Stage(ctx, run.ID, "contact", []StagedRow{{"k", []byte("v")}}))
		ok(t, s.SaveTables(ctx, a.Organization, []lockstep.Table{{Name: "lead"}}))
		linkIDs, _ := links(t, s, a.ID, 0)
		none := func(lockstep.StoredBlob) error { return nil }
		row := func(StagedRow) error { return nil }
		other := []byte("other")

		readLinks := func() error { return s.Links(ctx, a.ID, 0, none) }
		readRange := func() error {
			_, err := s.LinkRanges(ctx, []lockstep.BlobRange{{Blob: linkIDs[0], Offset: partSize, Length: 4}})
			return err
		}
		readMembers := func() error { return s.Members(ctx, "l1", none) }
		ada := s.AddressKey("ada@example.com")
		readConsent := func() error { _, err := s.ConsentOf(ctx, ada, 0, 0); return err }
		readRestrictions := func() error { _, err := s.Restrictions(ctx, a.ID, []lockstep.AddressKey{ada}); return err }
		readSince := func() error {
			return s.RestrictedSince(ctx, a.ID, 0, func(lockstep.Restriction) error { return nil })
		}
		readChoices := func() error { _, err := s.Choices(ctx, a.ID, []lockstep.AddressKey{ada}); return err }
		appendMore := func() error {
			err := s.AppendConsent(ctx, []lockstep.ConsentEntry{{Act: lockstep.ActAllowed, Email: "eve@example.com", At: s.now()}}, nil, nil)
			return err
		}
		readOpen := func() error { _, err := s.OpenBatches(ctx, a.ID); return err }
		for _, c := range []struct {
			name, statement string
			args            []any
			read            func() error
		}{
			{"link payload", `UPDATE links SET payload = $1 WHERE part = 1`, []any{other}, readLinks},
			{"link payload, one range", `UPDATE links SET payload = $1 WHERE part = 1`, []any{other}, readRange},
			{"link moved", `UPDATE links SET blob = blob + 100 WHERE part = 1`, nil, readLinks},
			{"link batches moved", `UPDATE links SET blob = blob + $1`, []any{int64(1000)}, readLinks},
			{"link part lost", `DELETE FROM links WHERE part = 1`, nil, readLinks},
			{"link end lost", `DELETE FROM links WHERE part = parts - 1 AND parts > 1`, nil, readLinks},
			{"link batch lost", `DELETE FROM links WHERE blob = $1`, []any{linkIDs[1]}, readLinks},
			{"link owner", `UPDATE links SET account = $1 WHERE blob = $2`, []any{"x", linkIDs[1]}, readLinks},
			{"member payload", `UPDATE members SET payload = $1`, []any{other}, readMembers},
			{"member owner", `UPDATE members SET list = 'l1'`, nil, readMembers},
			{"member lost", `DELETE FROM members WHERE payload = $1`, []any{[]byte("m1")}, readMembers},
			{"journal payload", `UPDATE journal SET payload = $1`, []any{other}, readOpen},
			{"journal state", `UPDATE journal SET kind = $1 WHERE id = $2`, []any{int64(lockstep.RemoveFromBook), open}, readOpen},
			{"cursor", `UPDATE cursors SET value = $1`, []any{"delta:99"}, func() error { _, err := s.Cursors(ctx, a.ID); return err }},
			{"one cursor", `UPDATE cursors SET value = $1`, []any{"delta:99"}, func() error { _, err := s.Cursor(ctx, a.ID, "contacts"); return err }},
			{"progress", `UPDATE runs SET progress = $1`, []any{other}, func() error { _, err := s.Progress(ctx, run.ID); return err }},
			{"run status", `UPDATE runs SET status = $1`, []any{"qveued"}, func() error { _, err := s.Run(ctx, run.ID); return err }},
			{"run counts", `UPDATE runs SET counts = $1`, []any{"{"}, func() error { _, err := s.Run(ctx, run.ID); return err }},
			{"staged", `UPDATE staged SET payload = $1`, []any{other}, func() error { return s.EachStaged(ctx, run.ID, "contact", "", row) }},
			{"staged, by key", `UPDATE staged SET payload = $1`, []any{other}, func() error { return s.Staged(ctx, run.ID, "contact", []string{"k"}, row) }},
			{"list", `UPDATE lists SET doc = replace(doc, 'VIP', 'VIQ')`, nil, func() error { _, err := s.Lists(ctx, a.ID); return err }},
			{"label", `UPDATE labels SET doc = replace(doc, 'CITY', 'CITZ')`, nil, func() error { _, err := s.Labels(ctx, a.ID); return err }},
			{"mapping", `UPDATE mappings SET doc = replace(doc, 'city', 'citz')`, nil, func() error { _, err := s.Mappings(ctx, a.ID); return err }},
			{"account", `UPDATE email_accounts SET doc = replace(doc, 'EU', 'EV')`, nil, func() error { _, err := s.Account(ctx, a.ID); return err }},
			{"organization", `UPDATE organizations SET doc = replace(doc, 'Contoso', 'Contosp')`, nil, func() error { _, err := s.Organizations(ctx); return err }},
			{"table", `UPDATE crm_tables SET doc = replace(doc, 'lead', 'leae')`, nil, func() error { _, err := s.Tables(ctx, a.Organization); return err }},
			{"ledger content", `UPDATE consent SET content = $1 WHERE seq = 1`, []any{other}, readConsent},
			{"ledger values", `UPDATE consent SET person = $1 WHERE seq = 2`, []any{other}, readConsent},
			{"ledger hash", `UPDATE consent SET hash = $1 WHERE seq = 2`, []any{other}, readConsent},
			{"ledger id", `UPDATE consent SET id = $1 WHERE seq = 2`, []any{other}, readConsent},
			{"ledger order", `UPDATE consent SET seq = 4 - seq WHERE seq = 1`, nil, readConsent},
			{"ledger head", `UPDATE consent_head SET seq = seq - 1`, nil, appendMore},
			{"ledger head lost", `DELETE FROM consent_head`, nil, appendMore},
			{"restriction", `UPDATE restrictions SET doc = replace(doc, 'ada@', 'eve@')`, nil, readRestrictions},
			{"restriction told", `UPDATE restrictions SET pending = NOT pending`, nil, readRestrictions},
			{"restriction of another", `UPDATE restrictions SET account = 'b' WHERE account = $1`, []any{a.ID}, func() error {
				_, err := s.ListRestrictions(ctx, RestrictionFilter{})
				return err
			}},
			{"restriction stamp", `UPDATE restrictions SET stamp = stamp + 100`, nil, readSince},
			{"choice", `UPDATE choices SET doc = replace(doc, 'ada@', 'eve@')`, nil, readChoices},
			{"choice told", `UPDATE choices SET pending = NOT pending`, nil, readChoices},
			{"choice of another", `UPDATE choices SET id = address`, nil, readChoices},
			{"choice shown elsewhere", `UPDATE choices SET shown = id`, nil, readChoices},
			{"finding", `UPDATE findings SET record = $1`, []any{"?"}, func() error { _, err := s.Findings(ctx, run.ID, "", 0); return err }},
		} {
			t.Run(c.name, func(t *testing.T) {
				ok(t, c.read())
				undo := keep(t, s)
				ok(t, s.InTx(ctx, func(tx Tx) error {
					n, err := tx.Exec(ctx, c.statement, c.args...)
					if n == 0 && err == nil {
						t.Error("nothing was damaged")
					}
					return err
				}))
				err := c.read()
				if !IsDamaged(err) {
					t.Errorf("damage is not noticed: %v", err)
				}
				undo()
				ok(t, c.read())
			})
		}
	})
}

// keep copies the tables that TestDamagedRows damages and returns how to restore them.
func keep(t *testing.T, s *Store) func() {
	tables := []string{"links", "members", "journal", "cursors", "staged", "crm_tables", "labels", "mappings", "lists", "findings", "consent", "consent_head", "restrictions", "choices"}
	docs := []string{"organizations", "email_accounts"}
	ctx := context.Background()
	do := func(statements ...string) {
		t.Helper()
		ok(t, s.InTx(ctx, func(tx Tx) error {
			for _, q := range statements {
				if _, err := tx.Exec(ctx, q); err != nil {
					return err
				}
			}
			return nil
		}))
	}
	for _, table := range append(append(tables, docs...), "runs") {
		do(`CREATE TABLE kept_` + table + ` AS SELECT * FROM ` + table)
	}
	return func() {
		for _, table := range tables {
			do(`DELETE FROM `+table, `INSERT INTO `+table+` SELECT * FROM kept_`+table, `DROP TABLE kept_`+table)
		}
		for _, table := range docs {
			do(`UPDATE `+table+` SET doc = (SELECT doc FROM kept_`+table+` k WHERE k.id = `+table+`.id)`, `DROP TABLE kept_`+table)
		}
		do(`UPDATE runs SET status = (SELECT status FROM kept_runs k WHERE k.id = runs.id), counts = (SELECT counts FROM kept_runs k WHERE k.id = runs.id),
progress = (SELECT progress FROM kept_runs k WHERE k.id = runs.id)`, `DROP TABLE kept_runs`)
	}
}

// One flipped bit in the SQLite file is noticed when the file is opened or when what
// it hit is read, or it hit nothing that is used.
func TestFlippedBits(t *testing.T) {
	folder := t.TempDir()
	s := mustOpen(t, Options{Path: folder})
	a := account(t, s)
	ctx, run := started(t, s, a.ID)
	blob := bytes.Repeat([]byte("0123456789"), 20_000)
	ok(t, s.Commit(ctx, lockstep.Commit{Run: run.ID, Account: a.ID, Links: [][]byte{blob}, Cursors: map[string]lockstep.Cursor{"contacts": "delta"}}))
	ok(t, s.Close())
	path := filepath.Join(folder, DatabaseFile)
	clean, err := os.ReadFile(path)
	ok(t, err)

	read := func() error {
		s, err := Open(context.Background(), Options{Path: folder})
		if err != nil {
			return err
		}
		defer s.Close()
		var got []byte
		if err := s.Links(ctx, a.ID, 0, func(b lockstep.StoredBlob) error { got = b.Payload; return nil }); err != nil {
			return err
		}
		cursor, err := s.Cursor(ctx, a.ID, "contacts")
		if err != nil {
			return err
		}
		// A lost cursor is a full read, which is safe.
		if !bytes.Equal(got, blob) || (cursor != "delta" && cursor != "") {
			t.Fatal("damaged content was handed out")
		}
		return nil
	}
	noticed := 0
	const positions = 150
	for i := range positions {
		at := i * len(clean) / positions * 8
		broken := bytes.Clone(clean)
		broken[at/8] ^= 1 << (i % 8)
		ok(t, os.WriteFile(path, broken, 0o600))
		_ = os.Remove(path + "-wal")
		_ = os.Remove(path + "-shm")
		if read() != nil {
			noticed++
		}
	}
	ok(t, os.WriteFile(path, clean, 0o600))
	_ = os.Remove(path + "-wal")
	_ = os.Remove(path + "-shm")
	ok(t, read())
	if noticed < positions/4 {
		t.Fatalf("only %d of %d flipped bits were noticed", noticed, positions)
	}
}
