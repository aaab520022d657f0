package secret

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/lockstep-sync/lockstep"
)

// EnvKey is the environment variable that holds the master keys: base64 or
// hexadecimal of 32 bytes each, newest first, separated by commas or white space.
const EnvKey = "LOCKSTEP_MASTER_KEY"

// FileName is the key file in the data folder: one key a line, newest first, in
// the same form; lines that start with # are remarks.
const FileName = "master.key"

// maxFile is far more than any sensible number of keys needs.
const maxFile = 64 << 10

// Load returns the keyring of an installation. env is the value of EnvKey: when it
// names keys, the newest of them seals and the key file in folder, if there is
// one, still opens. Otherwise the key file is used, and made with a fresh key when
// there is none. folder may be empty when there is no data folder; then env is
// required.
func Load(env, folder string) (*Keyring, error) {
	keys, err := parse(env)
	if err != nil {
		return nil, invalid(EnvKey + " cannot be used: " + err.Error() + ".")
	}
	if folder == "" {
		if len(keys) == 0 {
			return nil, invalid(EnvKey + " is not set.")
		}
		return NewKeyring(keys...)
	}
	path := filepath.Join(folder, FileName)
	stored, err := readFile(path)
	if errors.Is(err, fs.ErrNotExist) && len(keys) == 0 {
		if err := create(path); err != nil {
			return nil, err
		}
		stored, err = readFile(path)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return NewKeyring(append(keys, stored...)...)
}

// AddKey puts a fresh key in front of the key file in folder, so that it seals
// from the next start on. Values sealed before stay readable.
func AddKey(folder string) error {
	path := filepath.Join(folder, FileName)
	if _, err := readFile(path); err != nil {
		return err
	}
	old, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read the key file: %w", err)
	}
	return write(path, append(freshLine(), old...), os.Rename)
}

func invalid(msg string) error {
	return &lockstep.Error{Code: lockstep.CodeInvalid, Op: "secret: load keys", Msg: msg, Hint: "Give keys of 32 bytes as base64, newest first; make one with: openssl rand -base64 32", Field: EnvKey}
}

// parse reads keys. Its errors must not show what they are about.
func parse(s string) ([][]byte, error) {
	var keys [][]byte
	for i, word := range strings.FieldsFunc(s, func(r rune) bool { return r == ',' || r == ' ' || r == '\t' || r == '\n' || r == '\r' }) {
		var key []byte
		var err error
		if len(word) == hex.EncodedLen(KeySize) {
			key, err = hex.DecodeString(word)
		} else {
			word = strings.NewReplacer("-", "+", "_", "/").Replace(strings.TrimRight(word, "="))
			key, err = base64.RawStdEncoding.DecodeString(word)
		}
		if err != nil {
			return nil, fmt.Errorf("key %d is neither base64 nor hexadecimal", i+1)
		}
		if len(key) != KeySize {
			return nil, fmt.Errorf("key %d has %d bytes instead of %d", i+1, len(key), KeySize)
		}
		keys = append(keys, key)
	}
	return keys, nil
}

func readFile(path string) ([][]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read the key file: %w", err)
	}
	defer f.Close() //nolint:errcheck // it was only read
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("read the key file: %w", err)
	}
	if runtime.GOOS != "windows" && info.Mode().Perm()&0o077 != 0 {
		return nil, &lockstep.Error{Code: lockstep.CodeForbidden, Op: "secret: load keys", Msg: fmt.Sprintf("The key file %s may be read by others (mode %04o).", path, info.Mode().Perm()), Hint: "Run: chmod 600 " + path}
	}
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("read the key file: %w", err)
	}
	if len(b) > maxFile {
		return nil, invalid("The key file " + path + " is too long to be one.")
	}
	var lines []string
	for line := range strings.Lines(string(b)) {
		if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
			lines = append(lines, line)
		}
	}
	keys, err := parse(strings.Join(lines, "\n"))
	if err != nil {
		return nil, invalid("The key file " + path + " cannot be used: " + err.Error() + ".")
	}
	if len(keys) == 0 {
		return nil, invalid("The key file " + path + " holds no key.")
	}
	return keys, nil
}

func freshLine() []byte {
	key := make([]byte, KeySize)
	_, _ = rand.Read(key) // never fails since Go 1.24
	return []byte(base64.StdEncoding.EncodeToString(key) + "\n")
}

// create makes the key file unless another process was faster: the loser of a
// race must use the winner's key, so the finished file is linked into place, which
// fails when the name exists.
func create(path string) error {
	var b bytes.Buffer
	b.WriteString("# Master keys of this Lockstep installation, newest first.\n# Without them the stored credentials cannot be read: keep a copy, apart from the database.\n")
	b.Write(freshLine())
	err := write(path, b.Bytes(), os.Link)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	return err
}

// write puts content into a file beside path, makes it durable and moves it to path.
func write(path string, content []byte, move func(from, to string) error) error {
	folder := filepath.Dir(path)
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return fmt.Errorf("make the data folder: %w", err)
	}
	f, err := os.CreateTemp(folder, ".master-*.key") // mode 0600
	if err != nil {
		return fmt.Errorf("write the key file: %w", err)
	}
	defer os.Remove(f.Name()) //nolint:errcheck // after a rename there is nothing left to remove
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = move(f.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("write the key file: %w", err)
	}
	if dir, err := os.Open(folder); err == nil {
		_ = dir.Sync() // not every system can sync a folder
		_ = dir.Close()
	}
	return nil
}
