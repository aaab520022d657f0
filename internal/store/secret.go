package store

import (
	"context"
	"maps"
	"slices"

	"github.com/lockstep-sync/lockstep"
)

// Owner is what a secret belongs to.
type Owner struct{ table, id string }

// OrganizationSecrets are the secrets of a connection to an organization.
func OrganizationSecrets(id string) Owner { return Owner{"organizations", id} }

// AccountSecrets are the secrets of an email account.
func AccountSecrets(id string) Owner { return Owner{"email_accounts", id} }

// WebhookSecrets are those that an organization proves itself with when it calls us.
func WebhookSecrets(organization string) Owner { return Owner{"webhooks", organization} }

// SetSecrets seals and stores secrets by name; an empty one is forgotten, names not
// given stay.
func (s *Store) SetSecrets(ctx context.Context, owner Owner, secrets map[string]string) error {
	const op = "store: set secrets"
	if s.sealer == nil {
		return noSealer(op)
	}
	sealed := make(map[string][]byte, len(secrets))
	for name, plain := range secrets {
		if plain == "" {
			continue
		}
		var err error
		if sealed[name], err = s.sealer.Seal(owner.table, name, owner.id, []byte(plain)); err != nil {
			return in(op, err)
		}
	}
	return in(op, s.InTx(ctx, func(tx Tx) error {
		for _, name := range slices.Sorted(maps.Keys(secrets)) {
			var err error
			if box, ok := sealed[name]; ok {
				err = putSecret(ctx, tx, owner, name, box)
			} else {
				_, err = tx.Exec(ctx, `DELETE FROM secrets WHERE owner_table = $1 AND owner = $2 AND name = $3`, owner.table, owner.id, name)
			}
			if err != nil {
				return err
			}
		}
		return nil
	}))
}

func putSecret(ctx context.Context, tx Tx, owner Owner, name string, box []byte) error {
	_, err := tx.Exec(ctx, `INSERT INTO secrets (owner_table, owner, name, sealed) VALUES ($1, $2, $3, $4)
ON CONFLICT (owner_table, owner, name) DO UPDATE SET sealed = excluded.sealed`, owner.table, owner.id, name, box)
	return err
}

// Secrets opens the secrets of an owner, by name. Never log them.
func (s *Store) Secrets(ctx context.Context, owner Owner) (map[string]string, error) {
	const op = "store: read secrets"
	boxes, err := s.sealed(ctx, s.db, `SELECT owner_table, owner, name, sealed FROM secrets WHERE owner_table = $1 AND owner = $2`, owner.table, owner.id)
	if err != nil {
		return nil, in(op, err)
	}
	if len(boxes) > 0 && s.sealer == nil {
		return nil, noSealer(op)
	}
	secrets := make(map[string]string, len(boxes))
	for _, b := range boxes {
		plain, err := s.sealer.Open(owner.table, b.name, owner.id, b.box)
		if err != nil {
			return nil, in(op, err)
		}
		secrets[b.name] = string(plain)
	}
	return secrets, nil
}

// Reseal seals every secret again that was sealed with an older key, and returns
// how many those were. Afterwards the older keys are no longer needed.
func (s *Store) Reseal(ctx context.Context) (int, error) {
	const op = "store: reseal"
	if s.sealer == nil {
		return 0, noSealer(op)
	}
	var changed int
	err := s.InTx(ctx, func(tx Tx) error {
		changed = 0
		boxes, err := s.sealed(ctx, tx, `SELECT owner_table, owner, name, sealed FROM secrets`)
		if err != nil {
			return err
		}
		for _, b := range boxes {
			if s.sealer.Current(b.box) {
				continue
			}
			plain, err := s.sealer.Open(b.owner.table, b.name, b.owner.id, b.box)
			if err != nil {
				return err
			}
			box, err := s.sealer.Seal(b.owner.table, b.name, b.owner.id, plain)
			if err != nil {
				return err
			}
			if err := putSecret(ctx, tx, b.owner, b.name, box); err != nil {
				return err
			}
			changed++
		}
		return nil
	})
	return changed, in(op, err)
}

type sealedSecret struct {
	owner Owner
	name  string
	box   []byte
}

func (s *Store) sealed(ctx context.Context, r Reader, q string, args ...any) ([]sealedSecret, error) {
	return collect(ctx, r, func(r Rows) (sealedSecret, error) {
		var b sealedSecret
		err := r.Scan(&b.owner.table, &b.owner.id, &b.name, &b.box)
		return b, err
	}, q, args...)
}

func noSealer(op string) error {
	return &lockstep.Error{Code: lockstep.CodeInternal, Op: op, Msg: "The store was opened without a key for secrets."}
}
