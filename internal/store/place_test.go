package store

import (
	"testing"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/store/pgtest"
)

// A PostgreSQL database knows its place, as any user, and no other database has it.
func TestPlace(t *testing.T) {
	ctx := t.Context()
	place := func(url string) string {
		s, err := Open(ctx, Options{URL: url})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = s.Close() }()
		p, err := s.Place(ctx)
		if err != nil || p == "" {
			t.Fatalf("Place = %q, %v", p, err)
		}
		conn, err := s.Postgres().Acquire(ctx)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Release()
		for _, q := range []string{`DROP ROLE IF EXISTS place_reader`, `CREATE ROLE place_reader`, `SET ROLE place_reader`, `SELECT system_identifier FROM pg_control_system()`, `RESET ROLE`, `DROP ROLE place_reader`} {
			if _, err := conn.Exec(ctx, q); err != nil {
				t.Fatalf("%s: %v", q, err)
			}
		}
		return p
	}
	one, other := pgtest.Database(t), pgtest.Database(t)
	first := place(one)
	if again := place(one); again != first {
		t.Errorf("the place was %q and is %q", first, again)
	}
	if elsewhere := place(other); elsewhere == first {
		t.Errorf("two databases are at %q", first)
	}
	s, err := Open(ctx, Options{Path: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	if _, err := s.Place(ctx); lockstep.CodeOf(err) != lockstep.CodeUnsupported {
		t.Errorf("SQLite: %v", err)
	}
}
