package prove

import (
	"os"
	"path/filepath"
	"slices"

	"github.com/lockstep-sync/lockstep"
)

// backupActions copy the product's files and put an older copy back. What the product
// forgets by that it can hear again: the two systems have it.
//
// A life with a backup has no undo: that the sides are apart on purpose the product alone
// knows, and would have forgotten.
var backupActions = []action{
	{"back the product up, or put the backup back", 3, func(w *people) string {
		undone := slices.ContainsFunc(w.played, func(p played) bool { return p.run.Type == lockstep.SyncUndo })
		switch {
		case w.during || w.store != nil || w.toUndo != "" || undone || len(w.books) < len(lists) || w.paused != nil:
			return ""
		case w.backup == nil:
			w.store = w.backUp
			return "the product is backed up"
		}
		w.store = w.putBack
		return "the backup is put back"
	}, false},
}

// backUp copies the files of the product, which is not running meanwhile.
func (s *sim) backUp() {
	if s.paused != nil {
		return // by somebody in the same round, who would have to go on after each restore
	}
	s.close()
	defer s.open()
	s.backup = map[string][]byte{}
	for _, f := range s.files() {
		b, err := os.ReadFile(f)
		if err != nil {
			s.t.Fatal(err)
		}
		s.backup[filepath.Base(f)] = b
	}
}

// putBack has the product go on with the copy.
func (s *sim) putBack() {
	s.paused = nil // it was not when the copy was made
	s.close()
	defer s.open()
	for _, f := range s.files() {
		if err := os.Remove(f); err != nil {
			s.t.Fatal(err)
		}
	}
	for _, name := range sortedKeys(s.backup) {
		if err := os.WriteFile(filepath.Join(s.dir, name), s.backup[name], 0o600); err != nil {
			s.t.Fatal(err)
		}
	}
	s.backup, s.queued, s.since = nil, false, len(s.history.changes)
	s.note("%d.%d the product knows again what it knew", s.round, s.requests)
}

func (s *sim) files() []string {
	files, err := filepath.Glob(filepath.Join(s.dir, "*"))
	if err != nil {
		s.t.Fatal(err)
	}
	return files
}
