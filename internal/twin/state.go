package twin

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/lockstep-sync/lockstep/internal/twin/population"
)

// identity is what a restart keeps so that a client's stored connection stays
// valid: addresses, credentials and the offset of the clock.
type identity struct {
	Format       int    `json:"format"`
	Tenant       string `json:"tenant"`
	ClientID     string `json:"client_id"`
	ClientSecret string `json:"client_secret"`
	APIUser      string `json:"api_user"`
	APIPassword  string `json:"api_password"`
	ControlToken string `json:"control_token"`
	// MoreAccounts are the API users of the email accounts behind the first.
	MoreAccounts []apiUser     `json:"more_accounts,omitempty"`
	Ports        ports         `json:"ports"`
	ClockOffset  time.Duration `json:"clock_offset"`
	// Company is what the population was made from; nil before the first start.
	Company *population.Options `json:"company,omitempty"`
}

type ports struct {
	Dataverse  int `json:"dataverse"`
	Entra      int `json:"entra"`
	EntraTLS   int `json:"entra_tls"`
	Dotdigital int `json:"dotdigital"`
	Control    int `json:"control"`
}

const identityFormat = 1

func identityPath(dir string) string { return filepath.Join(dir, "twins.json") }

// loadIdentity returns the identity kept in dir, or a new one.
func loadIdentity(dir string) (identity, error) {
	if dir != "" {
		b, err := os.ReadFile(identityPath(dir))
		switch {
		case err == nil:
			var id identity
			if err := json.Unmarshal(b, &id); err != nil {
				return id, fmt.Errorf("%s: %w", identityPath(dir), err)
			}
			if id.Format != identityFormat {
				return id, fmt.Errorf("%s has format %d, this program reads %d; use another folder", identityPath(dir), id.Format, identityFormat)
			}
			return id, nil
		case !errors.Is(err, fs.ErrNotExist):
			return identity{}, err
		}
	}
	user := newAPIUser()
	return identity{
		Format: identityFormat, Tenant: guid(), ClientID: guid(), ClientSecret: "tw1n~" + rand.Text() + rand.Text()[:8],
		APIUser: user.Name, APIPassword: user.Password, ControlToken: rand.Text(),
	}, nil
}

func (id identity) save(dir string) error {
	b, err := json.MarshalIndent(id, "", "  ")
	if err != nil {
		return err
	}
	return writeFile(identityPath(dir), append(b, '\n'))
}

func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails
	return b
}

// guid returns a random identifier (RFC 9562 version 4).
func guid() string {
	b := random(16)
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
