package cli

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/lockstep-sync/lockstep/internal/twin"
)

// A demo's data folder holds a mark of the twins that it was synced with: going on
// with others would look like a CRM and an email account that were replaced by copies.
const markFile = "demo.json"

type twinsMark struct {
	Tenant string `json:"tenant"`
	User   string `json:"user"`
	// Field is a data field that the demo made; twins that were started anew do
	// not have it.
	Field string `json:"field"`
}

func otherTwins(folder, why string) error {
	return usage("start again with --twins FILE of the twins that it was synced with, or with another --data folder", "%s holds an earlier demo, and %s", folder, why)
}

// checkOwnTwins says when the folder belongs to twins that the demo did not start.
func (d *demo) checkOwnTwins() error {
	if _, err := os.Stat(filepath.Join(d.folder, markFile)); err != nil {
		return nil //nolint:nilerr // a new folder
	}
	if _, err := os.Stat(filepath.Join(d.twins.DataDir, "twins.json")); err != nil {
		return otherTwins(d.folder, "its twins are not kept there: they were started by lockstep twin")
	}
	return nil
}

// checkMark says when the twins are not those that the folder was synced with.
func (d *demo) checkMark(ctx context.Context) error {
	b, err := os.ReadFile(filepath.Join(d.folder, markFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	d.marked = true
	var mark twinsMark
	if err := json.Unmarshal(b, &mark); err != nil {
		return otherTwins(d.folder, markFile+" there cannot be read")
	}
	if mark.Tenant != d.twinsReady.Dataverse.Tenant || mark.User != d.twinsReady.Dotdigital.User {
		return otherTwins(d.folder, "these are other twins than it was synced with")
	}
	has, err := hasField(ctx, d.twinsReady.Dotdigital, mark.Field)
	if err != nil {
		return usage("start them with lockstep twin, or leave --twins out", "the twins do not answer: %s", err)
	}
	if !has {
		return otherTwins(d.folder, "its twins know nothing of what was synced: they were killed before they kept their records, or started anew without --data")
	}
	return nil
}

// mark notes which twins the folder belongs to.
func (d *demo) mark() error {
	return twin.WriteReady(filepath.Join(d.folder, markFile), twinsMark{Tenant: d.twinsReady.Dataverse.Tenant, User: d.twinsReady.Dotdigital.User, Field: demoLabels[0].Name})
}

// hasField asks the email account for a data field.
func hasField(ctx context.Context, at twin.DotdigitalReady, name string) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at.URL+"/v2/data-fields", nil)
	if err != nil {
		return false, err
	}
	req.SetBasicAuth(at.User, at.Password)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false, err
	}
	defer resp.Body.Close()
	var fields []struct{ Name string }
	if resp.StatusCode != http.StatusOK {
		return false, errors.New(resp.Status)
	}
	if err := json.NewDecoder(http.MaxBytesReader(nil, resp.Body, 1<<20)).Decode(&fields); err != nil {
		return false, err
	}
	for _, f := range fields {
		if f.Name == name {
			return true, nil
		}
	}
	return false, nil
}
