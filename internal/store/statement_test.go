package store

import (
	"context"
	"database/sql"
	"fmt"
	"path/filepath"
	"testing"
)

// keeping returns one connection to a new database, and what it keeps.
func keeping(t *testing.T) (*sql.Conn, *keepingConn) {
	t.Helper()
	pool, err := openPool("file:" + filepath.Join(t.TempDir(), "x.db") + pragmas)
	if err != nil {
		t.Fatal(err)
	}
	c, err := pool.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		if err := pool.Close(); err != nil {
			t.Error(err)
		}
	})
	var k *keepingConn
	if err := c.Raw(func(x any) error { k = x.(*keepingConn); return nil }); err != nil {
		t.Fatal(err)
	}
	run(t, c, `CREATE TABLE t (a INTEGER PRIMARY KEY, b TEXT NOT NULL)`)
	return c, k
}

func run(t *testing.T, c *sql.Conn, q string, args ...any) {
	t.Helper()
	if _, err := c.ExecContext(t.Context(), q, args...); err != nil {
		t.Fatalf("%s: %v", q, err)
	}
}

func TestStatementsAreKept(t *testing.T) {
	c, k := keeping(t)
	if len(k.kept) != 0 {
		t.Errorf("a change of the schema is kept: %v", k.kept)
	}
	const insert, query = `INSERT INTO t (a, b) VALUES ($1, $2)`, `SELECT b FROM t WHERE a >= $1 ORDER BY a`
	for i := range 3 {
		run(t, c, insert, i, fmt.Sprint("row ", i))
	}
	read := func(from int) (all []string) {
		rows, err := c.QueryContext(t.Context(), query, from)
		if err != nil {
			t.Fatal(err)
		}
		defer rows.Close()
		for rows.Next() {
			var s string
			if err := rows.Scan(&s); err != nil {
				t.Fatal(err)
			}
			all = append(all, s)
		}
		if err := rows.Err(); err != nil {
			t.Fatal(err)
		}
		return all
	}
	for from := range 4 {
		if got := read(from); len(got) != 3-from || len(got) > 0 && got[0] != fmt.Sprint("row ", from) {
			t.Errorf("from %d: %q", from, got)
		}
	}
	if len(k.kept) != 2 {
		t.Errorf("%d statements are kept, want the insert and the query", len(k.kept))
	}

	// A statement fails and is then carried out.
	if _, err := c.ExecContext(t.Context(), insert, 1, "again"); err == nil {
		t.Error("a row was inserted twice")
	}
	run(t, c, insert, 3, "row 3")

	// The same statement while its rows are read: with its own values, and neither
	// disturbs the other.
	func() {
		outer, err := c.QueryContext(t.Context(), query, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer outer.Close()
		n := 0
		for outer.Next() {
			var s string
			if err := outer.Scan(&s); err != nil || s != fmt.Sprint("row ", n) {
				t.Errorf("row %d of the outer reading: %q, %v", n, s, err)
			}
			n++
			if got := read(3); len(got) != 1 || got[0] != "row 3" {
				t.Errorf("the inner reading: %q", got)
			}
		}
		if err := outer.Err(); err != nil || n != 4 {
			t.Errorf("%d rows, %v", n, err)
		}
	}()

	// The table becomes another one.
	run(t, c, `DROP TABLE t`)
	run(t, c, `CREATE TABLE t (b TEXT NOT NULL, c TEXT, a INTEGER PRIMARY KEY)`)
	run(t, c, insert, 7, "another")
	if got := read(0); len(got) != 1 || got[0] != "another" {
		t.Errorf("after a change of the schema: %q", got)
	}
}

func TestFewStatementsAreKept(t *testing.T) {
	c, k := keeping(t)
	for i := range 3 * keptStatements {
		var n int
		if err := c.QueryRowContext(t.Context(), fmt.Sprintf(`SELECT %d + $1`, i), 1).Scan(&n); err != nil || n != i+1 {
			t.Fatalf("%d: %d, %v", i, n, err)
		}
		if err := c.QueryRowContext(t.Context(), `SELECT 0`).Scan(&n); err != nil {
			t.Fatal(err)
		}
	}
	if len(k.kept) != keptStatements {
		t.Errorf("%d statements are kept, want %d", len(k.kept), keptStatements)
	}
	if k.kept[`SELECT 0`] == nil {
		t.Error("the one that is used most is not among them")
	}
}

// A statement that its caller gave up is no longer kept, and the next one works.
func TestStatementThatIsGivenUp(t *testing.T) {
	c, k := keeping(t)
	const endless = `WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n) SELECT i FROM n`
	ctx, cancel := context.WithCancel(t.Context())
	func() {
		rows, err := c.QueryContext(ctx, endless)
		if err != nil {
			t.Fatal(err)
		}
		defer rows.Close()
		for range 3 {
			if !rows.Next() {
				t.Fatal(rows.Err())
			}
		}
		cancel()
		for rows.Next() {
			continue
		}
		if rows.Err() == nil {
			t.Error("endless rows have ended")
		}
	}()
	for _, s := range k.kept {
		if s.busy {
			t.Errorf("%s is still in use", s.query)
		}
	}
}

func TestRepeats(t *testing.T) {
	for q, want := range map[string]bool{
		"SELECT 1": true, "-- name: JobGet :one\nSELECT *": true, "\n\tinsert INTO t": true, "WITH x AS (SELECT 1) UPDATE t": true,
		"PRAGMA quick_check(1)": false, "CREATE TABLE t (a)": false, "BEGIN": false, "": false, "-- nothing": false,
	} {
		if got := repeats(q); got != want {
			t.Errorf("repeats(%q) = %t", q, got)
		}
	}
}
