package twin

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
)

// Ready is the content of the ready file: where the twins answer and with which
// credentials. It holds secrets of the twins only.
type Ready struct {
	Dataverse  DataverseReady  `json:"dataverse"`
	Dotdigital DotdigitalReady `json:"dotdigital"`
	// DotdigitalAccounts are all email accounts; the first is Dotdigital.
	DotdigitalAccounts []DotdigitalAccount `json:"dotdigital_accounts"`
	Control            ControlReady        `json:"control"`
}

// DataverseReady is the organization and the directory that signs in to it.
type DataverseReady struct {
	URL          string `json:"url"`
	API          string `json:"api"`
	Tenant       string `json:"tenant"`
	ClientID     string `json:"client_id"`
	ClientSecret string `json:"client_secret"`
	// Authority is the directory over plain HTTP; AuthorityTLS is the same
	// directory under a certificate that CAFile vouches for.
	Authority    string `json:"authority"`
	AuthorityTLS string `json:"authority_tls"`
	CAFile       string `json:"ca_file"`
	TokenURL     string `json:"token_url"`
	Scope        string `json:"scope"`
}

// DotdigitalReady is the email account and its API user.
type DotdigitalReady struct {
	URL      string `json:"url"`
	User     string `json:"user"`
	Password string `json:"password"`
}

// DotdigitalAccount is one of the email accounts, which all have the same URL:
// the credentials of a call choose the account.
type DotdigitalAccount struct {
	URL      string `json:"url"`
	User     string `json:"user"`
	Password string `json:"password"`
	// AccountID is the id that account-info tells, from 1.
	AccountID int32 `json:"account_id"`
}

// ControlReady is the control API.
type ControlReady struct {
	URL   string `json:"url"`
	Token string `json:"token"`
}

// WriteReady writes the ready file: completely or not at all, readable by the
// owner alone. The content may hold more members than Ready.
func WriteReady(path string, content any) error {
	b, err := json.MarshalIndent(content, "", "  ")
	if err != nil {
		return fmt.Errorf("ready file: %w", err)
	}
	return writeFile(path, append(b, '\n'))
}

// ReadReady reads a ready file. Members that do not concern the twins are ignored.
func ReadReady(path string) (Ready, error) {
	var r Ready
	b, err := os.ReadFile(path)
	if err != nil {
		return r, fmt.Errorf("ready file: %w", err)
	}
	if err := json.Unmarshal(b, &r); err != nil {
		return r, fmt.Errorf("ready file %s: %w", path, err)
	}
	if r.Dataverse.URL == "" || r.Dotdigital.URL == "" || r.Control.URL == "" {
		return r, fmt.Errorf("ready file %s: it does not name the twins dataverse, dotdigital and control", path)
	}
	return r, nil
}

// writeFile replaces a file atomically with mode 0600.
func writeFile(path string, content []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*") // CreateTemp makes it 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = f.Close()
			_ = os.Remove(f.Name())
		}
	}()
	if _, err = f.Write(content); err != nil {
		return err
	}
	if err = f.Sync(); err != nil {
		return err
	}
	if err = f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
