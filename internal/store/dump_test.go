//go:build unix

package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

var tableNames = []string{
	"settings", "organizations", "email_accounts", "secrets", "crm_tables", "schedules", "lists", "labels", "mappings", "runs", "journal", "filters",
	"links", "members", "logs", "cursors", "findings", "retries", "conflicts", "staged", "api_tokens",
	"consent", "consent_head", "restrictions", "choices", "erasures",
}

// dump returns every row of every table but sequences, which may have gaps.
func dump(t tester, s *Store) map[string][]string {
	t.Helper()
	all := make(map[string][]string)
	for _, table := range tableNames {
		rows, err := s.db.Query(context.Background(), `SELECT * FROM `+table)
		if err != nil {
			t.Fatal(err)
		}
		columns := 0
		switch r := rows.(type) {
		case sqliteRows:
			names, err := r.Columns()
			if err != nil {
				t.Fatal(err)
			}
			columns = len(names)
		case postgresRows:
			columns = len(r.FieldDescriptions())
		}
		for rows.Next() {
			values := make([]any, columns)
			into := make([]any, columns)
			for i := range values {
				into[i] = &values[i]
			}
			if err := rows.Scan(into...); err != nil {
				t.Fatal(err)
			}
			all[table] = append(all[table], fmt.Sprintf("%q", values))
		}
		if err := rows.Err(); err != nil {
			t.Fatal(err)
		}
		rows.Close()
		slices.Sort(all[table])
	}
	return all
}

var errInjected = errors.New("injected: the disk is gone")

// faulty is the seam with its n-th write statement, or commit, failing.
type faulty struct {
	database
	n     int // 0 = none
	fired bool
}

func (f *faulty) hit() bool {
	if f.n == 0 {
		return false
	}
	f.n--
	f.fired = f.fired || f.n == 0
	return f.n == 0
}

func (f *faulty) InTx(ctx context.Context, do func(Tx) error) error {
	if f.hit() { // BEGIN
		return errInjected
	}
	return f.database.InTx(ctx, func(tx Tx) error {
		if err := do(faultyTx{tx, f}); err != nil {
			return err
		}
		if f.hit() { // COMMIT
			return errInjected
		}
		return nil
	})
}

type faultyTx struct {
	Tx
	f *faulty
}

type failedRow struct{}

func (failedRow) Scan(...any) error { return errInjected }

func (t faultyTx) Exec(ctx context.Context, q string, args ...any) (int64, error) {
	if t.f.hit() {
		return 0, errInjected
	}
	return t.Tx.Exec(ctx, q, args...)
}

func (t faultyTx) Query(ctx context.Context, q string, args ...any) (Rows, error) {
	if t.f.hit() {
		return nil, errInjected
	}
	return t.Tx.Query(ctx, q, args...)
}

func (t faultyTx) QueryRow(ctx context.Context, q string, args ...any) Row {
	if t.f.hit() {
		return failedRow{}
	}
	return t.Tx.QueryRow(ctx, q, args...)
}
