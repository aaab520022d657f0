// Package secret keeps credentials unreadable at rest and out of logs.
//
// A Keyring seals single values with AES-256-GCM under a key derived (HKDF,
// SHA-256) from a master key and a fresh random salt. A sealed value is bound to
// the table, column and row it belongs to: moved elsewhere, it does not open. A
// keyring may hold several master keys; the newest seals, all open. Text is a
// secret in memory that every formatter, log handler and encoder shows as
// "[redacted]".
package secret

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"

	"github.com/lockstep-sync/lockstep"
)

// KeySize is the size of a master key in bytes.
const KeySize = 32

// The layout of a sealed value: version (1 byte), key id (4), salt (24), then what
// GCM writes: nonce (12), ciphertext, tag (16).
const (
	version   = 1
	idSize    = 4
	saltSize  = 24
	headSize  = 1 + idSize + saltSize
	extraSize = headSize + 12 + 16
	purpose   = "lockstep/v1"
)

// MaxPlain is the longest value that Seal takes, in bytes.
const MaxPlain = 1 << 20

// Keyring seals and opens values. It is safe for concurrent use.
type Keyring struct{ keys []masterKey }

type masterKey struct {
	id     [idSize]byte
	secret []byte
}

// NewKeyring returns a keyring of master keys, newest first. Each has KeySize bytes.
func NewKeyring(keys ...[]byte) (*Keyring, error) {
	if len(keys) == 0 {
		return nil, &lockstep.Error{Code: lockstep.CodeInvalid, Op: "secret: keyring", Msg: "There is no master key.", Hint: "Set " + EnvKey + " or let Lockstep make a key file in its data folder."}
	}
	k := &Keyring{}
	for i, secret := range keys {
		if len(secret) != KeySize {
			return nil, &lockstep.Error{Code: lockstep.CodeInvalid, Op: "secret: keyring", Msg: fmt.Sprintf("Master key %d has %d bytes instead of %d.", i+1, len(secret), KeySize), Hint: "Make one with: openssl rand -base64 32"}
		}
		m := masterKey{secret: slices.Clone(secret)}
		name, err := hkdf.Key(sha256.New, secret, nil, "lockstep/key id", idSize)
		if err != nil {
			return nil, err
		}
		m.id = [idSize]byte(name)
		if slices.ContainsFunc(k.keys, func(o masterKey) bool { return o.id == m.id }) {
			continue
		}
		k.keys = append(k.keys, m)
	}
	return k, nil
}

// String never shows a key.
func (k *Keyring) String() string { return fmt.Sprintf("keyring of %d keys [redacted]", len(k.keys)) }

// GoString never shows a key.
func (k *Keyring) GoString() string { return k.String() }

// Seal encrypts plain for this table, column and row with the newest key.
func (k *Keyring) Seal(table, column, row string, plain []byte) ([]byte, error) {
	if len(plain) > MaxPlain {
		return nil, &lockstep.Error{Code: lockstep.CodeInvalid, Op: "secret: seal", Msg: fmt.Sprintf("The secret has %d bytes; at most %d are kept.", len(plain), MaxPlain), Field: column}
	}
	key := k.keys[0]
	box := make([]byte, headSize, extraSize+len(plain))
	box[0] = version
	copy(box[1:], key.id[:])
	_, _ = rand.Read(box[1+idSize : headSize]) // never fails since Go 1.24
	gcm, err := key.derive(box[1+idSize : headSize])
	if err != nil {
		return nil, err
	}
	//nolint:gosec // no nonce is needed: derive makes a cipher for this one box, from the salt just drawn
	return gcm.Seal(box, nil, plain, bind(box[:headSize], table, column, row)), nil
}

// Open decrypts a value that was sealed for this table, column and row.
// CodeInvalid when it was damaged or moved, or when its key is not on the ring.
func (k *Keyring) Open(table, column, row string, sealed []byte) ([]byte, error) {
	fail := func(msg, hint string, err error) error {
		return &lockstep.Error{Code: lockstep.CodeInvalid, Op: "secret: open", Field: column, Msg: msg, Hint: hint, Err: err}
	}
	switch {
	case len(sealed) < extraSize:
		return nil, fail("The sealed secret is too short.", "Enter the secret again.", nil)
	case sealed[0] != version:
		return nil, fail(fmt.Sprintf("The secret was sealed in format %d; this version reads format %d.", sealed[0], version), "Update Lockstep or enter the secret again.", nil)
	}
	key, ok := k.find(sealed)
	if !ok {
		return nil, fail("The secret was sealed with master key "+hex.EncodeToString(sealed[1:1+idSize])+", which is not on the keyring.", "Add the old key to "+EnvKey+" or to the key file, or enter the secret again.", nil)
	}
	gcm, err := key.derive(sealed[1+idSize : headSize])
	if err != nil {
		return nil, err
	}
	plain, err := gcm.Open(nil, nil, sealed[headSize:], bind(sealed[:headSize], table, column, row))
	if err != nil {
		return nil, fail("The sealed secret is damaged or belongs to another row.", "Enter the secret again.", errors.New("authentication failed"))
	}
	return plain, nil
}

// Current reports whether a value was sealed with the newest key. A value that
// was not should be opened and sealed again.
func (k *Keyring) Current(sealed []byte) bool {
	key, ok := k.find(sealed)
	return ok && key.id == k.keys[0].id
}

func (k *Keyring) find(sealed []byte) (masterKey, bool) {
	if len(sealed) < headSize {
		return masterKey{}, false
	}
	i := slices.IndexFunc(k.keys, func(m masterKey) bool { return m.id == [idSize]byte(sealed[1:1+idSize]) })
	if i < 0 {
		return masterKey{}, false
	}
	return k.keys[i], true
}

func (m masterKey) derive(salt []byte) (cipher.AEAD, error) {
	key, err := hkdf.Key(sha256.New, m.secret, salt, purpose, KeySize)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

// bind builds the additional data. Each part carries its length, so that no two
// places have the same data.
func bind(head []byte, parts ...string) []byte {
	aad := slices.Clone(head)
	for _, p := range parts {
		aad = binary.AppendUvarint(aad, uint64(len(p)))
		aad = append(aad, p...)
	}
	return aad
}
