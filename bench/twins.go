package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/bench/work"
	"github.com/lockstep-sync/lockstep/internal/twin"
	"github.com/lockstep-sync/lockstep/internal/twin/dataverse"
)

// twinsConfig goes to the process of the twins.
type twinsConfig struct {
	Contacts int           `json:"contacts"`
	Ready    string        `json:"ready"`
	PerCall  time.Duration `json:"per_call"` // added to every call
	PerRow   time.Duration `json:"per_row"`  // added to a call for every row it writes
	// Accounts is the number of email accounts; 0 means one.
	Accounts int `json:"accounts"`
	// Limits are the service protection limits of the CRM; off when zero.
	Limits dataverse.Limits `json:"limits"`
}

// serveTwins is the process of the twins; it ends with its standard input.
func serveTwins(ctx context.Context, config string) error {
	var c twinsConfig
	if err := json.Unmarshal([]byte(config), &c); err != nil {
		return err
	}
	o := twin.Options{Contacts: c.Contacts, Seed: 1, Plain: true, DotdigitalAccounts: c.Accounts, Limits: c.Limits}
	switch {
	case c.PerCall > 0 || c.PerRow > 0:
		o.Wrap = func(_ string, h http.Handler) http.Handler { return distant{h, c.PerCall, c.PerRow} }
	case c.Limits.Requests > 0:
		o.Wrap = func(name string, h http.Handler) http.Handler {
			if name != "dataverse" {
				return h
			}
			return &patience{Handler: h}
		}
	}
	t, err := twin.Start(ctx, o)
	if err != nil {
		return err
	}
	err = t.WriteReady(c.Ready)
	if err == nil {
		_, _ = io.Copy(io.Discard, os.Stdin)
	}
	return errors.Join(err, t.Close())
}

// distant makes a twin answer like a service far away that takes time to write.
// Waiting takes no processor time.
type distant struct {
	http.Handler
	call, row time.Duration
}

func (d distant) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	time.Sleep(d.call)
	if d.row > 0 && r.Method != http.MethodGet {
		counted := &rowCounter{ReadCloser: r.Body}
		r.Body = counted
		d.Handler.ServeHTTP(&delayed{ResponseWriter: w, wait: func() { time.Sleep(time.Duration(counted.rows) * d.row) }}, r)
		return
	}
	d.Handler.ServeHTTP(w, r)
}

// rowCounter counts the rows of a body by the member that each row has.
type rowCounter struct {
	io.ReadCloser
	rows int
	tail []byte
}

var rowMarks = [][]byte{[]byte(`"matchIdentifier"`), []byte(`"@odata.type"`)}

func (c *rowCounter) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	for _, mark := range rowMarks {
		c.rows += bytes.Count(p[:n], mark)
		if joint := slices.Concat(c.tail, p[:min(n, len(mark)-1)]); len(c.tail) > 0 {
			for i := max(0, len(c.tail)-len(mark)+1); i < len(c.tail) && i+len(mark) <= len(joint); i++ {
				if bytes.Equal(joint[i:i+len(mark)], mark) {
					c.rows++
				}
			}
		}
	}
	c.tail = append(c.tail[:0], p[max(0, n-32):n]...)
	return n, err
}

// delayed waits before the answer begins.
type delayed struct {
	http.ResponseWriter
	wait func()
	done bool
}

func (d *delayed) WriteHeader(status int) {
	if !d.done {
		d.done = true
		d.wait()
	}
	d.ResponseWriter.WriteHeader(status)
}

func (d *delayed) Write(b []byte) (int, error) {
	if !d.done {
		d.WriteHeader(http.StatusOK)
	}
	return d.ResponseWriter.Write(b)
}

// twins are running twins, in a process of their own.
type twins struct {
	process
	ready twin.Ready
	file  string
	token string // for the Web API, fetched once
	pprof string // address of the profiler
}

func (b *bench) startTwins(c twinsConfig) (*twins, error) {
	dir, err := os.MkdirTemp(b.dir, "twins-")
	if err != nil {
		return nil, err
	}
	c.Ready = filepath.Join(dir, "ready.json")
	config, err := json.Marshal(c)
	if err != nil {
		return nil, err
	}
	t := &twins{file: c.Ready, pprof: filepath.Join(dir, "pprof")}
	if err := t.start(b.self, nil, roleVariable+"="+roleTwins, twinsVariable+"="+string(config), pprofVariable+"="+t.pprof); err != nil {
		return nil, err
	}
	if err := t.waitFor(c.Ready, 10*time.Minute); err != nil {
		return nil, errors.Join(err, t.stop())
	}
	if t.ready, err = twin.ReadReady(c.Ready); err != nil {
		return nil, errors.Join(err, t.stop())
	}
	return t, nil
}

// accounts are the email accounts.
func (t *twins) accounts() []twin.DotdigitalAccount { return t.ready.DotdigitalAccounts }

// counts is what a twin counted since the last reset.
type counts struct {
	Calls      int64            `json:"calls"`
	Operations map[string]int64 `json:"operations"`
	Errors     map[string]int64 `json:"errors"`
	BytesIn    int64            `json:"bytes_in"`
	BytesOut   int64            `json:"bytes_out"`
}

// stats returns the counters of the two systems; signing in is none of them.
func (t *twins) stats() (map[string]counts, error) {
	out := map[string]counts{}
	err := t.control(http.MethodGet, "/stats", nil, &out)
	delete(out, "entra")
	return out, err
}

func (t *twins) reset() error { return t.control(http.MethodPost, "/stats/reset", nil, nil) }

// expireDelta makes the next use of a delta token fail, as it does when the token
// is older than a week: everything has to be read again.
func (t *twins) expireDelta() error {
	return t.control(http.MethodPost, "/faults", map[string]any{"twin": "dataverse", "kind": "delta-expired", "count": 1}, nil)
}

// anHourLater moves the twins' clock; tokens expire by it, and limits forget.
func (t *twins) anHourLater() error {
	t.token = ""
	return t.control(http.MethodPost, "/clock", map[string]string{"advance": time.Hour.String()}, nil)
}

// makeField makes a data field in the email account unless it is there.
func (t *twins) makeField(f work.Field) error {
	var all []struct {
		Name string `json:"name"`
	}
	if err := t.mail(http.MethodGet, "/v2/data-fields", nil, &all); err != nil {
		return err
	}
	for _, known := range all {
		if known.Name == f.Label {
			return nil
		}
	}
	kind := map[lockstep.FieldType]string{lockstep.FieldText: "String", lockstep.FieldNumber: "Numeric", lockstep.FieldBool: "Boolean", lockstep.FieldDate: "Date"}[f.Type]
	return t.mail(http.MethodPost, "/v2/data-fields", map[string]string{"name": f.Label, "type": kind, "visibility": "Private"}, nil)
}

func (t *twins) control(method, path string, body, out any) error {
	return send(method, t.ready.Control.URL+path, body, out, func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+t.ready.Control.Token) })
}

// crm calls the Web API.
func (t *twins) crm(method, path string, body, out any) error {
	if t.token == "" {
		d := t.ready.Dataverse
		form := url.Values{"grant_type": {"client_credentials"}, "client_id": {d.ClientID}, "client_secret": {d.ClientSecret}, "scope": {d.Scope}}
		req, err := http.NewRequestWithContext(context.Background(), http.MethodPost, d.TokenURL, strings.NewReader(form.Encode()))
		if err != nil {
			return err
		}
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			return err
		}
		defer res.Body.Close()
		var token struct {
			AccessToken string `json:"access_token"`
		}
		if err := json.NewDecoder(res.Body).Decode(&token); err != nil || token.AccessToken == "" {
			return fmt.Errorf("no token: %w", err)
		}
		t.token = token.AccessToken
	}
	if !strings.HasPrefix(path, "http") {
		path = t.ready.Dataverse.API + path
	}
	return send(method, path, body, out, func(r *http.Request) {
		r.Header.Set("Authorization", "Bearer "+t.token)
		r.Header.Set("OData-Version", "4.0")
		r.Header.Set("Prefer", "odata.maxpagesize=5000")
		r.Header.Set("Accept-Encoding", "identity") // over loopback Lockstep does not let answers be compressed
	})
}

// mail calls the API of the email account.
func (t *twins) mail(method, path string, body, out any) error {
	d := t.ready.Dotdigital
	return send(method, d.URL+path, body, out, func(r *http.Request) { r.SetBasicAuth(d.User, d.Password) })
}

// refused is the status of an answer that is none of success.
type refused int

func (r refused) Error() string { return fmt.Sprintf("%d %s", int(r), http.StatusText(int(r))) }

// send makes one call. body may be JSON already; out may be an io.Writer.
func send(method, address string, body, out any, prepare func(*http.Request)) error {
	var rd io.Reader
	switch b := body.(type) {
	case nil:
	case []byte:
		rd = bytes.NewReader(b)
	default:
		text, err := json.Marshal(b)
		if err != nil {
			return err
		}
		rd = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(context.Background(), method, address, rd)
	if err != nil {
		return err
	}
	if rd != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	prepare(req)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode >= 300 {
		text, _ := io.ReadAll(io.LimitReader(res.Body, 500))
		return fmt.Errorf("%s %s: %w: %s", method, req.URL.Path, refused(res.StatusCode), text)
	}
	switch out := out.(type) {
	case nil:
		_, err = io.Copy(io.Discard, res.Body)
	case io.Writer:
		_, err = io.Copy(out, res.Body)
	default:
		err = json.NewDecoder(res.Body).Decode(out)
	}
	return err
}
