package dataverse

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/lockstep-sync/lockstep/internal/twin/dataverse/schema"
)

// snapshotFile is the name of the one file in a snapshot's folder.
const snapshotFile = "dataverse.snapshot"

// snapshotHead begins the file: a line of JSON before the rows.
type snapshotHead struct {
	Format       int
	UniqueName   string // ids of system rows follow from it
	IDs          uint64
	Floor        int64
	SchemaLength int
}

const snapshotFormat = 1

// SaveSnapshot writes definitions and rows to a folder, atomically: a file that
// was there before stays whole until the new one is complete. Definitions must
// not change meanwhile.
func (s *Server) SaveSnapshot(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("save the Dataverse twin: %w", err)
	}
	f, err := os.CreateTemp(dir, snapshotFile+".*")
	if err != nil {
		return fmt.Errorf("save the Dataverse twin: %w", err)
	}
	defer os.Remove(f.Name()) //nolint:errcheck // fails once it is renamed, as it should
	err = s.writeSnapshot(f)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), filepath.Join(dir, snapshotFile))
	}
	if err != nil {
		return fmt.Errorf("save the Dataverse twin: %w", err)
	}
	return nil
}

func (s *Server) writeSnapshot(w io.Writer) error {
	definitions, err := s.sch.Load().Marshal()
	if err != nil {
		return err
	}
	head, err := json.Marshal(snapshotHead{snapshotFormat, s.opt.UniqueName, s.ids.Load(), s.floor.Load(), len(definitions)})
	if err != nil {
		return err
	}
	if _, err = w.Write(append(append(head, '\n'), definitions...)); err != nil {
		return err
	}
	return s.store.Save(w)
}

// LoadSnapshot replaces definitions and rows by those of a folder. Call it
// before serving. The error is os.ErrNotExist when there is no snapshot.
func (s *Server) LoadSnapshot(dir string) error {
	f, err := os.Open(filepath.Join(dir, snapshotFile))
	if err != nil {
		return fmt.Errorf("load the Dataverse twin: %w", err)
	}
	defer f.Close() //nolint:errcheck // it was only read
	if err := s.readSnapshot(f); err != nil {
		return fmt.Errorf("load the Dataverse twin: %w", err)
	}
	return nil
}

func (s *Server) readSnapshot(r io.Reader) error {
	line := make([]byte, 0, 256)
	for one := []byte{0}; len(line) < 4096; line = append(line, one[0]) {
		if _, err := io.ReadFull(r, one); err != nil {
			return err
		}
		if one[0] == '\n' {
			break
		}
	}
	var head snapshotHead
	if err := json.Unmarshal(line, &head); err != nil {
		return err
	}
	switch {
	case head.Format != snapshotFormat:
		return fmt.Errorf("the snapshot has format %d, this program reads %d", head.Format, snapshotFormat)
	case head.UniqueName != s.opt.UniqueName:
		return fmt.Errorf("the snapshot is of the organization %q, this is %q", head.UniqueName, s.opt.UniqueName)
	case head.SchemaLength < 0 || head.SchemaLength > 256<<20:
		return errors.New("the snapshot is damaged")
	}
	definitions := make([]byte, head.SchemaLength)
	if _, err := io.ReadFull(r, definitions); err != nil {
		return err
	}
	sch, err := schema.Unmarshal(definitions)
	if err != nil {
		return err
	}
	s.schemaMu.Lock()
	defer s.schemaMu.Unlock()
	for _, t := range sch.Tables() {
		s.addStorage(t)
		for _, k := range t.Keys {
			if k.Status != schema.KeyActive {
				continue
			}
			ords := make([]int, len(k.Columns))
			for i, name := range k.Columns {
				ords[i] = int(t.Column(name).Ord)
			}
			s.store.AddIndex(t.Name, k.Name, ords...)
		}
	}
	if err := s.store.Restore(r); err != nil {
		return err
	}
	s.sch.Store(publish(sch))
	s.ids.Store(head.IDs)
	s.floor.Store(head.Floor)
	return nil
}
