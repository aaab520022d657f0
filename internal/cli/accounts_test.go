package cli

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/app"
	"github.com/lockstep-sync/lockstep/internal/app/apptest"
)

func TestAccountCommands(t *testing.T) {
	dir := t.TempDir()
	a, _ := apptest.Open(t, app.Config{DataDir: dir})
	if err := a.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	run(t, "accounts", "list", "--data", dir).want(t, 0, "Contoso mailings", "syncs when asked")
	run(t, "accounts", "lock", "Contoso mailings", "--data", dir).want(t, 2, "--reason")
	run(t, "accounts", "lock", "Contoso mailings", "--reason", "being restored", "--data", dir).want(t, 0, "locked: being restored")
	run(t, "sync", "run", "--type", "marketing-lists", "--data", dir).want(t, ExitGuarded, "the account is locked: being restored", "accounts unlock")
	run(t, "accounts", "unlock", "Contoso mailings", "--reason", "restored", "--data", dir).want(t, 2, "--by")
	run(t, "accounts", "unlock", "nobody", "--by", "Kim", "--reason", "restored", "--data", dir).want(t, 1, "There is no email account")
	run(t, "accounts", "unlock", "Contoso mailings", "--by", "Kim", "--reason", "restored", "--data", dir).want(t, 0, "syncs when asked")
	run(t, "accounts", "start", "Contoso mailings", "--data", dir).want(t, 0, "syncs by itself")
	run(t, "accounts", "pause", "Contoso mailings", "--data", dir).want(t, 0, "syncs when asked")
	run(t, "accounts", "pause", "nobody", "--data", dir).want(t, 1, "There is no email account")
	run(t, "rearm", "--data", dir).want(t, 2, "--by")
	run(t, "rearm", "--by", "Kim", "--data", dir).want(t, 0)

	// A database without the mark of its folder is a copy.
	if err := os.Remove(filepath.Join(dir, "instance")); err != nil {
		t.Fatal(err)
	}
	run(t, "accounts", "list", "--data", dir).want(t, 0, "locked: this database is a copy")
	run(t, "accounts", "unlock", "Contoso mailings", "--by", "Kim", "--reason", "x", "--data", dir).want(t, 1, "is a copy", "lockstep rearm")
	var answer struct{ Items []lockstep.EmailAccount }
	run(t, "rearm", "--by", "Kim", "--json", "--data", dir).want(t, 0).object(t, &answer)
	if len(answer.Items) != 1 || answer.Items[0].Locked != "" {
		t.Errorf("re-armed: %+v", answer.Items)
	}
	run(t, "accounts", "list", "--data", dir).want(t, 0, "syncs when asked")
}
