package store

import (
	"fmt"

	"github.com/lockstep-sync/lockstep"
)

// taken says that another process has the data folder.
func taken(folder, holder string) error {
	who := "Another Lockstep process"
	if holder != "" {
		who += " (process " + holder + ")"
	}
	return &lockstep.Error{
		Code: lockstep.CodeConflict, Scope: lockstep.ScopeConnection,
		Msg:  fmt.Sprintf("%s uses the data folder %s.", who, folder),
		Hint: "Stop it first, or use its web pages and API; several processes need a PostgreSQL database.",
	}
}
