package secret_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/secret"
)

func key(fill byte) []byte { return bytes.Repeat([]byte{fill}, secret.KeySize) }

func ring(t interface{ Fatal(...any) }, keys ...[]byte) *secret.Keyring {
	k, err := secret.NewKeyring(keys...)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestSealOpen(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		k := ring(t, key(1))
		plain := rapid.SliceOfN(rapid.Byte(), 0, 200).Draw(t, "plain")
		table, column, row := rapid.String().Draw(t, "table"), rapid.String().Draw(t, "column"), rapid.String().Draw(t, "row")
		box, err := k.Seal(table, column, row, plain)
		if err != nil {
			t.Fatal(err)
		}
		if len(plain) > 3 && bytes.Contains(box, plain) {
			t.Fatal("the sealed value shows the plain one")
		}
		got, err := k.Open(table, column, row, box)
		if err != nil || !bytes.Equal(got, plain) {
			t.Fatalf("Open = %q, %v; want %q", got, err, plain)
		}
		at := rapid.IntRange(0, len(box)*8-1).Draw(t, "bit")
		box[at/8] ^= 1 << (at % 8)
		if _, err := k.Open(table, column, row, box); err == nil {
			t.Fatalf("a value with bit %d flipped opens", at)
		}
	})
}

func TestOpenRefuses(t *testing.T) {
	k := ring(t, key(1))
	box, err := k.Seal("email_accounts", "password", "row-1", []byte("hunter2"))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name               string
		ring               *secret.Keyring
		table, column, row string
		box                []byte
		want               string
	}{
		{"another row", k, "email_accounts", "password", "row-2", box, "another row"},
		{"another column", k, "email_accounts", "user", "row-1", box, "another row"},
		{"parts moved", k, "email_accountsp", "assword", "row-1", box, "another row"},
		{"another key", ring(t, key(2)), "email_accounts", "password", "row-1", box, "not on the keyring"},
		{"short", k, "email_accounts", "password", "row-1", box[:20], "too short"},
		{"empty", k, "email_accounts", "password", "row-1", nil, "too short"},
		{"format", k, "email_accounts", "password", "row-1", append([]byte{9}, box[1:]...), "format 9"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := c.ring.Open(c.table, c.column, c.row, c.box)
			if lockstep.CodeOf(err) != lockstep.CodeInvalid || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("Open: %v; want %q", err, c.want)
			}
			if strings.Contains(err.Error(), "hunter2") {
				t.Fatal("the error shows the secret")
			}
		})
	}
}

func TestNewestKeySeals(t *testing.T) {
	old := ring(t, key(1))
	box, err := old.Seal("t", "c", "r", []byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	both := ring(t, key(2), key(1))
	if got, err := both.Open("t", "c", "r", box); err != nil || string(got) != "x" {
		t.Fatalf("Open with the older key = %q, %v", got, err)
	}
	if both.Current(box) || !old.Current(box) || both.Current(nil) {
		t.Fatal("Current does not tell the newest key")
	}
	box, err = both.Seal("t", "c", "r", []byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	if !both.Current(box) {
		t.Fatal("the newest key did not seal")
	}
	if _, err := old.Open("t", "c", "r", box); err == nil {
		t.Fatal("the old key opens what the new one sealed")
	}
}

func TestLoad(t *testing.T) {
	hexKey := fmt.Sprintf("%x", key(7))
	const base64Key = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc="
	seven := ring(t, key(7))
	box, err := seven.Seal("t", "c", "r", []byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, env, want string }{
		{"hex", hexKey, ""},
		{"base64", base64Key, ""},
		{"base64 unpadded", strings.TrimRight(base64Key, "="), ""},
		{"older key", fmt.Sprintf("%x, %s", key(8), base64Key), ""},
		{"none", "", "not set"},
		{"short", "BwcH", "3 bytes"},
		{"garbage", "battery!staple", "neither"},
	} {
		t.Run(c.name, func(t *testing.T) {
			k, err := secret.Load(c.env, "")
			if c.want != "" {
				if err == nil || !strings.Contains(err.Error(), c.want) {
					t.Fatalf("Load: %v; want %q", err, c.want)
				}
				if strings.Contains(err.Error(), "battery") {
					t.Fatal("the error shows the key")
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got, err := k.Open("t", "c", "r", box); err != nil || string(got) != "x" {
				t.Fatalf("Open = %q, %v", got, err)
			}
		})
	}
}

func TestLoadMakesKeyFile(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "data")
	rings := make([]*secret.Keyring, 8)
	var wg sync.WaitGroup
	for i := range rings {
		wg.Go(func() {
			k, err := secret.Load("", folder)
			if err != nil {
				t.Error(err)
			}
			rings[i] = k
		})
	}
	wg.Wait()
	if t.Failed() {
		return
	}
	box, err := rings[0].Seal("t", "c", "r", []byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	for i, k := range rings {
		if _, err := k.Open("t", "c", "r", box); err != nil {
			t.Fatalf("start %d of 8 at once uses another key: %v", i, err)
		}
	}
	path := filepath.Join(folder, secret.FileName)
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Fatalf("mode %o", info.Mode().Perm())
	}
	left, _ := filepath.Glob(filepath.Join(folder, ".master-*"))
	if len(left) != 0 {
		t.Fatalf("left behind: %v", left)
	}

	if err := secret.AddKey(folder); err != nil {
		t.Fatal(err)
	}
	k, err := secret.Load("", folder)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.Open("t", "c", "r", box); err != nil || k.Current(box) {
		t.Fatalf("after AddKey: %v, current %v", err, k.Current(box))
	}
	env, err := secret.Load(fmt.Sprintf("%x", key(3)), folder)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := env.Open("t", "c", "r", box); err != nil {
		t.Fatalf("with a key from the environment the file's keys no longer open: %v", err)
	}

	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := secret.Load("", folder); lockstep.CodeOf(err) != lockstep.CodeForbidden {
		t.Fatalf("a key file that others may read: %v", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("# nothing\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := secret.Load("", folder); lockstep.CodeOf(err) != lockstep.CodeInvalid {
		t.Fatalf("an empty key file must not be replaced in silence: %v", err)
	}
}

func TestTextIsNeverShown(t *testing.T) {
	const hidden = "hunter2"
	text := secret.Text(hidden)
	var shown strings.Builder
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d", "%T"} {
		fmt.Fprintf(&shown, verb+"\n", text)
		fmt.Fprintf(&shown, verb+"\n", struct{ Password secret.Text }{text})
		fmt.Fprintf(&shown, verb+"\n", map[string]secret.Text{"password": text})
	}
	log := slog.New(slog.NewJSONHandler(&shown, nil))
	log.Info("signing in", "password", text, "settings", struct{ Password secret.Text }{text})
	log.Info("failed", "err", errors.New("sign in with "+text.String()))
	b, err := json.Marshal(map[string]any{"password": text})
	if err != nil {
		t.Fatal(err)
	}
	shown.Write(b)
	fmt.Fprintf(&shown, "%v %#v %s", ring(t, []byte("0123456789abcdef"+hidden+"hunter2xx")), ring(t, key(1)), ring(t, key(1)))
	if s := shown.String(); strings.Contains(s, hidden) || strings.Contains(s, fmt.Sprintf("%x", hidden)) {
		t.Fatalf("shown: %s", s)
	}
	if text.Reveal() != hidden {
		t.Fatal("Reveal")
	}
}
