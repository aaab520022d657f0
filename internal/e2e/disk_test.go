package e2e

import (
	"path/filepath"
	"sync"
	"testing"
	"unsafe"

	"modernc.org/libc"
	sqlite3 "modernc.org/sqlite/lib"
)

// disk is what lies beneath the embedded database of one data folder: it counts what
// SQLite writes and syncs, and fails as a test wants it to. A write that fails has
// written half of what it should have.
type disk struct {
	mu            sync.Mutex
	counting      bool
	writes, syncs int
	badWrite      int // the write that fails, counted from 1; 0 = none
	badSync       int
	fullFrom      int // the write from which on there is no room; 0 = there is

	failures int
	full     chan struct{} // closed by the first write without room
	tries    chan struct{} // closed by the twelfth
}

func newDisk(t *testing.T, folder string) *disk {
	t.Helper()
	beneath.install(t)
	folder, err := filepath.EvalSymlinks(folder)
	if err != nil {
		t.Fatal(err)
	}
	d := &disk{full: make(chan struct{}), tries: make(chan struct{})}
	beneath.disks.Store(folder, d)
	t.Cleanup(func() { beneath.disks.Delete(folder) })
	return d
}

// watch begins to count, and to fail.
func (d *disk) watch() { d.set(func() { d.counting = true }) }

// heal ends every failure.
func (d *disk) heal() { d.set(func() { d.badWrite, d.badSync, d.fullFrom = 0, 0, 0 }) }

func (d *disk) set(f func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f()
}

// state returns how many writes and syncs there were, and how many of them failed.
func (d *disk) state() (writes, syncs, failures int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.writes, d.syncs, d.failures
}

// write and sync say what becomes of the next one.
func (d *disk) write() int32 {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.counting {
		return sqlite3.SQLITE_OK
	}
	d.writes++
	switch {
	case d.fullFrom != 0 && d.writes >= d.fullFrom:
		d.failures++
		switch d.failures {
		case 1:
			close(d.full)
		case 12:
			close(d.tries)
		}
		return sqlite3.SQLITE_FULL
	case d.writes == d.badWrite:
		d.failures++
		return sqlite3.SQLITE_IOERR_WRITE
	}
	return sqlite3.SQLITE_OK
}

func (d *disk) sync() int32 {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.counting {
		return sqlite3.SQLITE_OK
	}
	d.syncs++
	if d.syncs == d.badSync {
		d.failures++
		return sqlite3.SQLITE_IOERR_FSYNC
	}
	return sqlite3.SQLITE_OK
}

// layer is SQLite's default file system with a layer on top that asks the disks. It
// serves the whole process; folders without a disk pass through it.
type layer struct {
	once  sync.Once
	disks sync.Map // data folder → *disk
	files sync.Map // address of an open file → openFile
	real  uintptr  // *sqlite3.Tsqlite3_vfs
	open  func(*libc.TLS, uintptr, uintptr, uintptr, int32, uintptr) int32
	mu    sync.Mutex
	over  map[uintptr]uintptr // ours, by SQLite's methods: a database has others than its log
}

type openFile struct {
	*disk
	below *sqlite3.Tsqlite3_io_methods
}

var beneath = layer{over: map[uintptr]uintptr{}}

// SQLite's functions and structures are reached by their addresses, which are no
// pointers to Go: they are of memory that is not the collector's.
func at[T any](address uintptr) *T        { return *(**T)(unsafe.Pointer(&address)) }
func function[F any](address uintptr) F   { return *(*F)(unsafe.Pointer(&address)) }
func addressOf[F any](function F) uintptr { return *(*uintptr)(unsafe.Pointer(&function)) }

func clone[T any](tls *libc.TLS, of *T) uintptr {
	address := libc.Xmalloc(tls, libc.Tsize_t(unsafe.Sizeof(*of)))
	*at[T](address) = *of
	return address
}

// install puts the layer under everything that is opened from now on. What it asks of
// SQLite stays until the process ends.
func (l *layer) install(t *testing.T) {
	t.Helper()
	l.once.Do(func() {
		tls := libc.NewTLS()
		if l.real = sqlite3.Xsqlite3_vfs_find(tls, 0); l.real == 0 {
			t.Error("SQLite has no file system")
			return
		}
		sqlite := at[sqlite3.Tsqlite3_vfs](l.real)
		l.open = function[func(*libc.TLS, uintptr, uintptr, uintptr, int32, uintptr) int32](sqlite.FxOpen)
		ours := clone(tls, sqlite)
		name, err := libc.CString("faulty")
		if err != nil {
			t.Error(err)
			return
		}
		v := at[sqlite3.Tsqlite3_vfs](ours)
		v.FzName, v.FpNext, v.FxOpen = name, 0, addressOf(fileOpen)
		if code := sqlite3.Xsqlite3_vfs_register(tls, ours, 1); code != sqlite3.SQLITE_OK {
			t.Errorf("the layer is not taken: %d", code)
		}
	})
	if t.Failed() {
		t.FailNow()
	}
}

func fileOpen(tls *libc.TLS, _, name, file uintptr, flags int32, out uintptr) int32 {
	l := &beneath
	code := l.open(tls, l.real, name, file, flags, out)
	if code != sqlite3.SQLITE_OK || name == 0 {
		return code
	}
	d, ok := l.disks.Load(filepath.Dir(libc.GoString(name)))
	if !ok {
		return code
	}
	f := at[sqlite3.Tsqlite3_file](file)
	below := at[sqlite3.Tsqlite3_io_methods](f.FpMethods)
	l.files.Store(file, openFile{d.(*disk), below})
	l.mu.Lock()
	defer l.mu.Unlock()
	ours := l.over[f.FpMethods]
	if ours == 0 {
		ours = clone(tls, below)
		m := at[sqlite3.Tsqlite3_io_methods](ours)
		m.FxClose, m.FxWrite, m.FxSync = addressOf(fileClose), addressOf(fileWrite), addressOf(fileSync)
		l.over[f.FpMethods] = ours
	}
	f.FpMethods = ours
	return code
}

func opened(file uintptr) openFile {
	f, _ := beneath.files.Load(file)
	return f.(openFile)
}

func fileClose(tls *libc.TLS, file uintptr) int32 {
	f := opened(file)
	beneath.files.Delete(file)
	return function[func(*libc.TLS, uintptr) int32](f.below.FxClose)(tls, file)
}

func fileWrite(tls *libc.TLS, file, from uintptr, n int32, to int64) int32 {
	f := opened(file)
	write := function[func(*libc.TLS, uintptr, uintptr, int32, int64) int32](f.below.FxWrite)
	if code := f.write(); code != sqlite3.SQLITE_OK {
		write(tls, file, from, n/2, to)
		return code
	}
	return write(tls, file, from, n, to)
}

func fileSync(tls *libc.TLS, file uintptr, flags int32) int32 {
	f := opened(file)
	if code := f.sync(); code != sqlite3.SQLITE_OK {
		return code
	}
	return function[func(*libc.TLS, uintptr, int32) int32](f.below.FxSync)(tls, file, flags)
}
