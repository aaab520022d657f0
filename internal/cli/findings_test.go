package cli

import (
	"strings"
	"testing"

	"github.com/lockstep-sync/lockstep/internal/app"
	"github.com/lockstep-sync/lockstep/internal/app/apptest"
)

func TestFindings(t *testing.T) {
	dir := t.TempDir()
	a, c := apptest.Open(t, app.Config{DataDir: dir})
	if err := a.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	at := []string{"--data", dir}
	run(t, append(at, "findings", "list")...).want(t, ExitDone, "rejected", "the platform refused the address", "correct it in the CRM", "tried 3 times, again from 2026-11-20 08:50:00", "findings retry finding-0")
	if o := run(t, append(at, "findings", "list", "--json")...).want(t, ExitDone, `"attempts": 3`); strings.Contains(o.out, "finding-1") {
		t.Errorf("who is not tried again: %s", o.out)
	}
	run(t, append(at, "runs", "show", c.Completed.ID, "--findings")...).want(t, ExitDone, "tried 3 times")
	run(t, append(at, "findings", "retry", "none")...).want(t, ExitFailed, "no finding with this id")
	run(t, append(at, "findings", "retry")...).want(t, ExitUsage, "the id of a finding")
}
