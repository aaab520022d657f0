package cli

import (
	"database/sql"
	"path/filepath"
	"strings"
	"testing"

	_ "modernc.org/sqlite"

	"github.com/lockstep-sync/lockstep/internal/app"
	"github.com/lockstep-sync/lockstep/internal/app/apptest"
)

// ledgerFolder is the data of a small company whose server does not run.
func ledgerFolder(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	a, _ := apptest.Open(t, app.Config{DataDir: dir})
	if err := a.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestConsentCommands(t *testing.T) {
	dir := ledgerFolder(t)
	const canary = "canary.person@example.com"
	run(t, "consent", "verify", "--data", dir).want(t, 0, "is whole: 0 rows")
	run(t, "consent", "show", canary, "--data", dir).want(t, 0, "nothing is on record", "says nothing of this address")

	// Bad input has one clear answer each.
	run(t, "consent", "show", "nobody", "--data", dir).want(t, 1, "no name or no domain around the @", "such as ada@example.com")
	run(t, "consent", "show", "--data", dir).want(t, 2, "needs an email address")
	run(t, "consent", "erase", canary, "--data", dir).want(t, 2, "cannot be undone", "--yes")
	run(t, "consent", "erase", "nobody", "--yes", "--data", dir).want(t, 1, "around the @")
	run(t, "consent", "verify", "--head", "x", "--data", dir).want(t, 1, "is not the head of a ledger")
	run(t, "consent", "check").want(t, 2, "no command")
	run(t, "suppressions", "add", "nobody", "--evidence", "a letter", "--data", dir).want(t, 1, "around the @")
	run(t, "suppressions", "add", canary, "--data", dir).want(t, 1, "The evidence is missing")
	run(t, "suppressions", "add", canary, "--evidence", "a letter", "--reason", "bored", "--data", dir).want(t, 1, `"bored" is not a reason`, "unsubscribed, suppressed, hard_bounced, complained")
	run(t, "suppressions", "list", "--state", "gone", "--data", dir).want(t, 1, "state")

	run(t, "suppressions", "add", canary, "--evidence", "letter of 3 May", "--data", dir).want(t, 0, canary, "blocked", "suppressed")
	run(t, "suppressions", "add", "bob@example.com", "--evidence", "a call", "--reason", "unsubscribed", "--data", dir).want(t, 0, "unsubscribed from everything")
	run(t, "suppressions", "list", "--data", dir).want(t, 0, canary, "bob@example.com", "not everybody")
	var list struct{ Items []app.Suppression }
	run(t, "suppressions", "list", "--state", "pending", "--json", "--data", dir).want(t, 0).object(t, &list)
	if len(list.Items) != 2 {
		t.Errorf("%d pending", len(list.Items))
	}
	run(t, "consent", "show", canary, "--data", dir).want(t, 0, "Contoso mailings: blocked", "letter of 3 May", "others have still to be told", "restricted (suppressed)", "token command line")
	var shown app.PersonConsent
	run(t, "consent", "show", canary, "--json", "--data", dir).want(t, 0).object(t, &shown)
	if len(shown.Entries) != 1 || len(shown.Accounts) != 1 || shown.Accounts[0].Word != "blocked" {
		t.Errorf("%+v", shown)
	}

	var before app.ConsentReport
	run(t, "consent", "verify", "--json", "--data", dir).want(t, 0, `"whole": true`).object(t, &before)
	run(t, "consent", "erase", canary, "--yes", "--data", dir).want(t, 1, "has still to be told", "force")
	run(t, "consent", "erase", canary, "--yes", "--force", "--data", dir).want(t, 0, "Erased", "entries: 1", "restrictions: 1")
	run(t, "consent", "show", canary, "--data", dir).want(t, 0, "The person was erased", "Contoso mailings: blocked")
	run(t, "consent", "verify", "--head", before.Head, "--data", dir).want(t, 0, "is whole: 3 rows, 1 of them of erased people")
	if o := run(t, "suppressions", "list", "--data", dir).want(t, 0, "(erased)"); strings.Contains(o.out, "canary") {
		t.Errorf("the address is still shown:\n%s", o.out)
	}
}

// A ledger with one byte changed is named and ends with exit code 1.
func TestConsentVerifyBroken(t *testing.T) {
	dir := ledgerFolder(t)
	for _, name := range []string{"a", "b", "c", "d"} {
		run(t, "suppressions", "add", name+"@example.com", "--evidence", "a letter", "--data", dir).want(t, 0)
	}
	db, err := sql.Open("sqlite", "file:"+filepath.Join(dir, "lockstep.db"))
	if err != nil {
		t.Fatal(err)
	}
	var content []byte
	if err := db.QueryRow(`SELECT content FROM consent WHERE seq = 3`).Scan(&content); err != nil {
		t.Fatal(err)
	}
	content[len(content)-9] ^= 1
	if _, err := db.Exec(`UPDATE consent SET content = ? WHERE seq = 3`, content); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	run(t, "consent", "verify", "--data", dir).want(t, 1, "is broken. Row 3: its content was changed", "The 2 rows before it hold")
	var report struct {
		Whole  bool
		Broken struct {
			Seq int64
			Why string
		}
	}
	run(t, "consent", "verify", "--json", "--data", dir).want(t, 1).object(t, &report)
	if report.Whole || report.Broken.Seq != 3 {
		t.Errorf("%+v", report)
	}
	run(t, "consent", "show", "c@example.com", "--data", dir).want(t, 1, "row 3 of the consent ledger: its content was changed", "lockstep consent verify")
	run(t, "consent", "show", "a@example.com", "--data", dir).want(t, 0, "a letter")
}
