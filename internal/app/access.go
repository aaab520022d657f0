package app

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/argon2"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/store"
)

// AdminUser is the name under which the administrator signs in.
const AdminUser = "admin@example.com"

// MinPassword is the shortest password that is accepted, in bytes.
const MinPassword = 12

// maxPassword bounds what is hashed.
const maxPassword = 1024

const adminSetting = "admin.password"

// What an API token allows.
const (
	ScopeRead  = "read"  // look at everything
	ScopeWrite = "write" // change settings, start and cancel runs, decide conflicts
)

// Scopes lists everything that a token can allow.
var Scopes = []string{ScopeRead, ScopeWrite}

// Token is what is known of an API token; the token itself is shown once.
type Token = store.Token

// Admin is the administrator's sign-in. Password is empty when it is not known any
// more: only its hash is kept.
type Admin struct{ User, Password string }

// EnsureAdmin gives the administrator a random password when there is none yet and
// returns it, this once.
func (a *App) EnsureAdmin(ctx context.Context) (Admin, error) {
	kept, err := a.store.Setting(ctx, adminSetting)
	if err != nil || kept != "" {
		return Admin{User: AdminUser}, err
	}
	return a.ResetAdmin(ctx)
}

// ResetAdmin gives the administrator a new random password and returns it.
func (a *App) ResetAdmin(ctx context.Context) (Admin, error) {
	admin := Admin{User: AdminUser, Password: strings.ToLower(rand.Text())}
	return admin, a.SetAdminPassword(ctx, admin.Password)
}

// SetAdminPassword replaces the administrator's password. CodeInvalid when it is
// shorter than MinPassword.
func (a *App) SetAdminPassword(ctx context.Context, password string) error {
	if len(password) < MinPassword || len(password) > maxPassword {
		return invalid("password", fmt.Sprintf("the password needs between %d and %d characters", MinPassword, maxPassword), "")
	}
	hash, err := hashPassword(ctx, password)
	if err != nil {
		return err
	}
	return a.store.SetSetting(ctx, adminSetting, hash)
}

// CheckPassword accepts the administrator's name and password. CodeUnauthorized,
// with one message and after the same work for every reason, when they are wrong.
// It does not count tries: the caller does.
func (a *App) CheckPassword(ctx context.Context, user, password string) error {
	refused := &lockstep.Error{Code: lockstep.CodeUnauthorized, Msg: "The user name or the password is wrong."}
	if len(password) > maxPassword {
		return refused
	}
	hash, err := a.store.Setting(ctx, adminSetting)
	if err != nil {
		return err
	}
	known := strings.EqualFold(strings.TrimSpace(user), AdminUser) && hash != ""
	if !known {
		hash = nobody
	}
	ok, err := checkPassword(ctx, hash, password)
	if err != nil {
		return err
	}
	if !ok || !known {
		return refused
	}
	return nil
}

// CreateToken makes an API token and returns it, once. scopes are of Scopes and not
// empty; a zero expires means never.
func (a *App) CreateToken(ctx context.Context, name string, scopes []string, expires time.Time) (string, Token, error) {
	if strings.TrimSpace(name) == "" {
		return "", Token{}, invalid("name", "the token needs a name", "name it after what will use it")
	}
	if len(scopes) == 0 {
		return "", Token{}, invalid("scopes", "the token would allow nothing", fmt.Sprintf("use some of %v", Scopes))
	}
	for _, s := range scopes {
		if !slices.Contains(Scopes, s) {
			return "", Token{}, invalid("scopes", fmt.Sprintf("%q is not a scope", s), fmt.Sprintf("use some of %v", Scopes))
		}
	}
	if !expires.IsZero() && !expires.After(a.now()) {
		return "", Token{}, invalid("expires", "the time has passed already", "")
	}
	return a.store.CreateToken(ctx, strings.TrimSpace(name), scopes, expires)
}

// CheckToken returns what is known of the token that a caller presents.
// CodeUnauthorized when it is not valid.
func (a *App) CheckToken(ctx context.Context, token string) (Token, error) {
	return a.store.CheckToken(ctx, token)
}

// Tokens returns all API tokens, oldest first.
func (a *App) Tokens(ctx context.Context) ([]Token, error) { return a.store.Tokens(ctx) }

// DeleteToken makes a token invalid. CodeNotFound.
func (a *App) DeleteToken(ctx context.Context, id string) error { return a.store.DeleteToken(ctx, id) }

// The cost of a password hash: the smallest that OWASP's guidance on password
// storage accepts for Argon2id, so that small machines stay responsive. It is kept
// with each hash and can therefore be raised.
const (
	hashPasses = 2
	hashKiB    = 19 * 1024
	hashLanes  = 1
)

// hashing holds one place a core: hashes are costly on purpose, and sign-in must
// not be a way to exhaust the machine.
var hashing = make(chan struct{}, runtime.NumCPU())

// nobody is a hash that no password has; checking it takes as long as a real one.
var nobody = encodeHash(make([]byte, 16), make([]byte, 32))

func argon(ctx context.Context, password string, salt []byte, passes, kib uint32, lanes uint8) ([]byte, error) {
	select {
	case hashing <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-hashing }()
	return argon2.IDKey([]byte(password), salt, passes, kib, lanes, 32), nil
}

func hashPassword(ctx context.Context, password string) (string, error) {
	salt := make([]byte, 16)
	_, _ = rand.Read(salt) // never fails since Go 1.24
	key, err := argon(ctx, password, salt, hashPasses, hashKiB, hashLanes)
	return encodeHash(salt, key), err
}

func encodeHash(salt, key []byte) string {
	b64 := base64.RawStdEncoding
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, hashKiB, hashPasses, hashLanes, b64.EncodeToString(salt), b64.EncodeToString(key))
}

func checkPassword(ctx context.Context, hash, password string) (bool, error) {
	unreadable := &lockstep.Error{Code: lockstep.CodeInternal, Msg: "The stored password hash cannot be read.", Hint: "Set a new password."}
	parts := strings.Split(hash, "$")
	if len(parts) != 6 || parts[1] != "argon2id" {
		return false, unreadable
	}
	var kib, passes uint32
	var lanes uint8
	if _, err := fmt.Sscanf(parts[3], "m=%d,t=%d,p=%d", &kib, &passes, &lanes); err != nil || passes == 0 || lanes == 0 || kib > 1<<20 || passes > 64 {
		return false, unreadable
	}
	salt, err1 := base64.RawStdEncoding.DecodeString(parts[4])
	want, err2 := base64.RawStdEncoding.DecodeString(parts[5])
	if err1 != nil || err2 != nil || len(want) != 32 {
		return false, unreadable
	}
	got, err := argon(ctx, password, salt, passes, kib, lanes)
	return err == nil && subtle.ConstantTimeCompare(got, want) == 1, err
}
