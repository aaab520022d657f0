package cli

import (
	"encoding/json"

	"github.com/lockstep-sync/lockstep/internal/twin"
)

// readyFile is where everything answers and with which credentials. A demo writes
// all of it, the twins alone write their part.
type readyFile struct {
	Lockstep *lockstepReady `json:"lockstep,omitempty"`
	twin.Ready
}

type lockstepReady struct {
	URL      string `json:"url"`
	User     string `json:"user"`
	Password string `json:"password,omitempty"`
	Token    string `json:"token"`
	PID      int    `json:"pid"`
}

// readServer reads where a running Lockstep answers from its ready file.
func readServer(path string) (lockstepReady, error) {
	b, err := readSmall(path)
	if err != nil {
		return lockstepReady{}, usage("", "the ready file cannot be read: %s", err)
	}
	var r struct {
		Lockstep lockstepReady `json:"lockstep"`
	}
	if err := json.Unmarshal(b, &r); err != nil {
		return r.Lockstep, usage("", "%s is not a ready file: %s", path, err)
	}
	if r.Lockstep.URL == "" || r.Lockstep.Token == "" {
		return r.Lockstep, usage("give the ready file of lockstep demo, not that of lockstep twin", "%s does not say where Lockstep answers", path)
	}
	return r.Lockstep, nil
}

// writeReady writes where this process answers, completely or not at all.
func writeReady(path string, r lockstepReady) error {
	return twin.WriteReady(path, struct {
		Lockstep lockstepReady `json:"lockstep"`
	}{r})
}
