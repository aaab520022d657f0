package store

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/lockstep-sync/lockstep"
)

// Token is what is known of an API token; the token itself is shown once, when it
// is made, and never kept.
type Token struct {
	ID      string    `json:"id"`
	Name    string    `json:"name"`
	Scopes  []string  `json:"scopes"`
	Created time.Time `json:"created"`
	Expires time.Time `json:"expires,omitzero"` // zero = never
}

// tokenPrefix lets people and secret scanners recognise a token.
const tokenPrefix = "lockstep_"

// CreateToken makes an API token and returns it, once.
func (s *Store) CreateToken(ctx context.Context, name string, scopes []string, expires time.Time) (string, Token, error) {
	const op = "store: create token"
	t := Token{ID: lockstep.NewID(s.now()).String(), Name: clean(name), Scopes: scopes, Created: fromMicros(micros(s.now())), Expires: fromMicros(micros(expires))}
	secret, salt := make([]byte, 32), make([]byte, 16)
	_, _ = rand.Read(secret) // never fails since Go 1.24
	_, _ = rand.Read(salt)
	doc, err := json.Marshal(scopes)
	if err != nil {
		return "", Token{}, in(op, err)
	}
	err = s.InTx(ctx, func(tx Tx) error {
		_, err := tx.Exec(ctx, `INSERT INTO api_tokens (id, name, scopes, salt, hash, created, expires) VALUES ($1, $2, $3, $4, $5, $6, $7)`,
			t.ID, t.Name, string(doc), salt, t.hash(salt, secret), micros(t.Created), micros(t.Expires))
		return err
	})
	if err != nil {
		return "", Token{}, in(op, err)
	}
	return tokenPrefix + strings.ReplaceAll(t.ID, "-", "") + "_" + base64.RawURLEncoding.EncodeToString(secret), t, nil
}

// hash covers what the token allows along with the secret, so that neither damage
// nor a hand in the table widens it. It needs no slow hash: a token is 256 random
// bits, which nobody can try out.
func (t Token) hash(salt, secret []byte) []byte {
	h := sha256.New()
	h.Write(salt)
	h.Write(secret)
	_, _ = fmt.Fprintf(h, "%s %q %d", t.ID, t.Scopes, micros(t.Expires))
	return h.Sum(nil)
}

// CheckToken returns what is known of a token that a caller presents.
// CodeUnauthorized, with one message for every reason, when it is not valid.
func (s *Store) CheckToken(ctx context.Context, token string) (Token, error) {
	const op = "store: check token"
	refused := &lockstep.Error{Code: lockstep.CodeUnauthorized, Op: op, Msg: "The API token is not valid.", Hint: "It may have expired or been deleted; make a new one."}
	rest, ok := strings.CutPrefix(token, tokenPrefix)
	id, encoded, ok2 := strings.Cut(rest, "_")
	if !ok || !ok2 || len(id) != 32 || len(encoded) > 64 {
		return Token{}, refused
	}
	secret, err := base64.RawURLEncoding.Strict().DecodeString(encoded)
	if err != nil {
		return Token{}, refused
	}
	id = id[:8] + "-" + id[8:12] + "-" + id[12:16] + "-" + id[16:20] + "-" + id[20:]
	if _, err := lockstep.ParseID(id); err != nil {
		return Token{}, refused
	}
	var salt, hash []byte
	t, err := scanToken(s.db.QueryRow(ctx, `SELECT id, name, scopes, created, expires, salt, hash FROM api_tokens WHERE id = $1`, id), &salt, &hash)
	if lockstep.CodeOf(err) == lockstep.CodeNotFound {
		return Token{}, refused
	}
	if err != nil {
		return Token{}, in(op, err)
	}
	if subtle.ConstantTimeCompare(hash, t.hash(salt, secret)) != 1 || (!t.Expires.IsZero() && !s.now().Before(t.Expires)) {
		return Token{}, refused
	}
	return t, nil
}

func scanToken(r interface{ Scan(...any) error }, more ...any) (Token, error) {
	var t Token
	var scopes string
	var created, expires int64
	if err := r.Scan(append([]any{&t.ID, &t.Name, &scopes, &created, &expires}, more...)...); err != nil {
		return t, err
	}
	t.Created, t.Expires = fromMicros(created), fromMicros(expires)
	return t, json.Unmarshal([]byte(scopes), &t.Scopes)
}

// Tokens returns all API tokens, oldest first.
func (s *Store) Tokens(ctx context.Context) ([]Token, error) {
	tokens, err := collect(ctx, s.db, func(r Rows) (Token, error) { return scanToken(r) },
		`SELECT id, name, scopes, created, expires FROM api_tokens ORDER BY created, id`)
	return tokens, in("store: read tokens", err)
}

// DeleteToken makes a token invalid. CodeNotFound.
func (s *Store) DeleteToken(ctx context.Context, id string) error {
	return s.deleteRow(ctx, "store: delete token", "API token", `DELETE FROM api_tokens WHERE id = $1`, id)
}
