// Package twin starts the twins: local emulators of the systems that the product
// connects, filled with a sample company, each behind its own HTTP address, and
// the control API that steers them.
//
// It imports nothing of the product: what the adapters print is parsed here by
// other code, so that one cannot hide the other's mistake.
package twin

import (
	"cmp"
	"context"
	"crypto/rsa"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"time"

	"github.com/lockstep-sync/lockstep/internal/twin/clock"
	"github.com/lockstep-sync/lockstep/internal/twin/control"
	"github.com/lockstep-sync/lockstep/internal/twin/dataverse"
	"github.com/lockstep-sync/lockstep/internal/twin/dotdigital"
	"github.com/lockstep-sync/lockstep/internal/twin/entra"
	"github.com/lockstep-sync/lockstep/internal/twin/fault"
	"github.com/lockstep-sync/lockstep/internal/twin/history"
	"github.com/lockstep-sync/lockstep/internal/twin/population"
	"github.com/lockstep-sync/lockstep/internal/twin/stats"
)

// DefaultContacts is the size of the sample company.
const DefaultContacts = 5000

// Options configure the twins. The zero value starts a sample company of
// DefaultContacts on loopback, without limits.
type Options struct {
	// Contacts is the number of CRM contacts; 0 means DefaultContacts.
	Contacts int
	// Seed decides the company and which calls a fault with a rate hits.
	Seed uint64
	// Plain makes the population of benchmarks (see population.Options).
	Plain bool
	// PlatformShare as in population.Options: 0 means 2 %, negative none.
	PlatformShare float64
	// Host is the address to listen on; 127.0.0.1 when empty. Whoever can reach
	// it and knows the credentials can change the twins' data.
	Host string
	// DataDir is an existing folder that keeps everything over a restart: records,
	// addresses (as far as their ports are free), credentials and the clock's
	// offset. It is written by Close and by Snapshot. A company that is found there
	// is used as it is, whatever Contacts and Seed say. Empty keeps nothing.
	DataDir string
	// DotdigitalAccounts is the number of email accounts, of which each has its own
	// credentials, contacts, lists and ids; 0 means one. All answer under one
	// address. With a DataDir accounts are added to those found there, never taken away.
	DotdigitalAccounts int
	// Limits are the service protection limits of Dataverse; off when zero.
	Limits dataverse.Limits
	// RateLimit is that of each Dotdigital account; off when zero.
	RateLimit dotdigital.RateLimit
	// ImportTime is how long a Dotdigital import stays unfinished on the twins'
	// clock; 0 finishes at once.
	ImportTime time.Duration
	// ClientSecret, APIPassword and ControlToken replace random credentials.
	ClientSecret, APIPassword, ControlToken string
	// SigningKey signs the directory's tokens; nil generates one of 2048 bits.
	SigningKey *rsa.PrivateKey
	// Clock is the twins' time; a running one when nil.
	Clock *clock.Clock
	// Wrap, when set, is put around the handler of each twin, whose name it gets.
	// Benchmarks add the delays of a distant service there.
	Wrap func(twin string, h http.Handler) http.Handler
	// History is how many writes the twins remember (see package history); 0
	// remembers none. A write takes about a kilobyte.
	History int
	// Log is told what happens; discarded when nil.
	Log *slog.Logger
}

// Twins are running twins. The fields are for tests in the same process.
type Twins struct {
	Dataverse *dataverse.Server
	// Dotdigital is the first of Accounts.
	Dotdigital *dotdigital.Server
	Accounts   []*dotdigital.Server
	Directory  *entra.Service
	Faults     *fault.Set
	Clock      *clock.Clock
	// Counters by twin: dataverse, dotdigital, entra.
	Counters map[string]*stats.Counter
	// History holds the writes since the start; nil unless Options.History is set.
	History *history.Log
	// Plan names the marketing lists of the population.
	Plan population.Plan

	ready     Ready
	log       *slog.Logger
	wrap      func(twin string, h http.Handler) http.Handler
	dataDir   string
	identity  identity
	ownClock  bool // not shared with the caller, so that its offset can be kept
	saving    sync.Mutex
	temporary string // folder of the certificate when there is no DataDir
	endpoints []*endpoint
	serving   sync.WaitGroup
	closeOnce sync.Once
	closeErr  error
}

// Start starts the twins and returns when they answer. ctx bounds the start
// only; end the twins with Close.
func Start(ctx context.Context, opt Options) (_ *Twins, err error) {
	t := &Twins{Clock: opt.Clock, dataDir: opt.DataDir, log: opt.Log, wrap: opt.Wrap}
	if t.log == nil {
		t.log = slog.New(slog.DiscardHandler)
	}
	if t.Clock == nil {
		t.Clock, t.ownClock = clock.New(), true
	}
	opt.Host = cmp.Or(opt.Host, "127.0.0.1")
	opt.Contacts = cmp.Or(opt.Contacts, DefaultContacts)
	if opt.DotdigitalAccounts, err = checkAccounts(opt.DotdigitalAccounts); err != nil {
		return nil, fmt.Errorf("start the twins: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("start the twins: %w", err), t.Close())
		}
	}()
	if t.identity, err = loadIdentity(opt.DataDir); err != nil {
		return nil, err
	}
	t.identity.ClientSecret = cmp.Or(opt.ClientSecret, t.identity.ClientSecret)
	t.identity.APIPassword = cmp.Or(opt.APIPassword, t.identity.APIPassword)
	t.identity.ControlToken = cmp.Or(opt.ControlToken, t.identity.ControlToken)
	if t.ownClock {
		t.Clock.Advance(t.identity.ClockOffset)
	}

	t.Faults = fault.New(opt.Seed, t.Clock)
	t.Counters = map[string]*stats.Counter{fault.Dataverse: stats.New(), fault.Dotdigital: stats.New(), fault.Entra: stats.New()}
	if opt.History > 0 {
		t.History = history.New(opt.History)
	}
	if err = t.build(opt); err != nil {
		return nil, err
	}
	if err = t.populate(ctx, opt); err != nil {
		return nil, err
	}
	if t.History != nil { // what the population made is the beginning, not a part of it
		t.Dataverse.OnWrite(t.recordRows)
	}
	for _, e := range t.endpoints {
		t.serving.Go(func() { e.serve(t.log) })
	}
	if opt.DataDir != "" {
		if err = t.identity.save(opt.DataDir); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// build opens the ports and makes the servers, which do not serve yet.
func (t *Twins) build(opt Options) error {
	id := &t.identity
	caPEM, tlsConfig, err := entra.NewCA(t.Clock.Now())
	if err != nil {
		return err
	}
	// A reset needs the connection itself, which HTTP/2 does not give away.
	tlsConfig.NextProtos = []string{"http/1.1"}
	caFile, err := t.storeCA(caPEM)
	if err != nil {
		return err
	}
	open := func(name string, port int) (*endpoint, error) {
		l, err := listen(opt.Host, port)
		if err != nil {
			return nil, err
		}
		e := &endpoint{name: name, listener: l}
		t.endpoints = append(t.endpoints, e)
		return e, nil
	}
	var org, directory, directoryTLS, email, steering *endpoint
	for _, want := range []struct {
		to   **endpoint
		name string
		port *int
	}{
		{&org, fault.Dataverse, &id.Ports.Dataverse},
		{&directory, fault.Entra, &id.Ports.Entra},
		{&directoryTLS, fault.Entra, &id.Ports.EntraTLS},
		{&email, fault.Dotdigital, &id.Ports.Dotdigital},
		{&steering, "control", &id.Ports.Control},
	} {
		if *want.to, err = open(want.name, *want.port); err != nil {
			return err
		}
		*want.port = port((*want.to).listener)
	}
	orgURL, directoryURL := address("http", opt.Host, org.listener), address("http", opt.Host, directory.listener)
	tlsURL := address("https", "localhost", directoryTLS.listener)

	if t.Directory, err = entra.New(entra.Options{
		Tenant: id.Tenant, Resources: []string{orgURL}, Key: opt.SigningKey, Clock: t.Clock, Stats: t.Counters[fault.Entra], Faults: t.Faults,
	}); err != nil {
		return err
	}
	if err := t.Directory.AddApplication(entra.Application{ClientID: id.ClientID, Secrets: []entra.Secret{{Value: id.ClientSecret}}}); err != nil {
		return err
	}
	for _, a := range []string{directoryURL, tlsURL} {
		if err := t.Directory.AddAuthority(a); err != nil {
			return err
		}
	}
	t.Dataverse = dataverse.New(dataverse.Options{
		Clock: t.Clock, Faults: t.Faults, Stats: t.Counters[fault.Dataverse], BaseURL: orgURL,
		Authority: directoryURL + "/" + id.Tenant, TenantID: id.Tenant, Limits: opt.Limits,
		Tokens: dataverse.VerifierFunc(t.verify),
	})
	emailURL := address("http", opt.Host, email.listener)
	t.openAccounts(opt, emailURL)

	org.handle(t.Dataverse.Handler(), t, true)
	directory.handle(t.Directory, t, true)
	directoryTLS.handle(t.Directory, t, true)
	directoryTLS.secure(tlsConfig)
	email.handle(dotdigital.Choose(t.Accounts...), t, true)
	steering.handle(control.New(control.Options{
		Token: id.ControlToken, Counters: t.Counters, Faults: t.Faults, Clock: t.Clock, Accounts: t.steered(), History: t.History, Snapshot: t.Snapshot,
		Webhooks: func() any { return t.Dataverse.Deliveries() },
	}), t, false)

	t.ready.Dataverse = DataverseReady{
		URL: orgURL, API: orgURL + "/api/data/v9.2/", Tenant: id.Tenant, ClientID: id.ClientID, ClientSecret: id.ClientSecret,
		Authority: directoryURL + "/" + id.Tenant, AuthorityTLS: tlsURL + "/" + id.Tenant, CAFile: caFile,
		TokenURL: directoryURL + "/" + id.Tenant + "/oauth2/v2.0/token", Scope: orgURL + "/.default",
	}
	t.ready.Dotdigital = DotdigitalReady{URL: emailURL, User: id.APIUser, Password: id.APIPassword}
	t.ready.Control = ControlReady{URL: address("http", opt.Host, steering.listener), Token: id.ControlToken}
	return nil
}

// storeCA writes the certificate that clients must trust.
func (t *Twins) storeCA(caPEM []byte) (string, error) {
	dir := t.dataDir
	if dir == "" {
		var err error
		if dir, err = os.MkdirTemp("", "lockstep-twins-"); err != nil {
			return "", err
		}
		t.temporary = dir
	}
	file, err := filepath.Abs(filepath.Join(dir, "ca.pem"))
	if err != nil {
		return "", err
	}
	return file, writeFile(file, caPEM)
}

// verify lets the organization trust the directory's tokens. The organization
// compares audience and expiry itself; a token that is not valid yet is refused here.
func (t *Twins) verify(token string) (dataverse.Token, error) {
	c, err := t.Directory.Verify(token, "")
	if errors.Is(err, entra.ErrExpired) && !t.Clock.Now().Before(c.Expires) {
		err = nil
	}
	return dataverse.Token{AppID: c.AppID, Audience: c.Audience, Tenant: c.Tenant, Expires: c.Expires}, err
}

// populate fills the organization and the email account: from the snapshot of the
// data folder when there is one, otherwise with a new company.
func (t *Twins) populate(ctx context.Context, opt Options) error {
	began := time.Now()
	made := population.Options{Contacts: opt.Contacts, Seed: opt.Seed, Plain: opt.Plain, PlatformShare: opt.PlatformShare, Now: t.Clock.Now()}
	if t.dataDir != "" && t.identity.Company != nil {
		made = *t.identity.Company
		err := t.restore(made)
		if err == nil {
			t.Plan, err = population.PlanOf(made)
			t.log.Info("the twins go on from their snapshot", "contacts", made.Contacts, "seed", made.Seed, "took", time.Since(began).Round(time.Millisecond))
			return err
		}
		if !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("read the snapshot in %s: %w", t.dataDir, err)
		}
		made.Now = t.Clock.Now()
	}
	crm := newOrganization(ctx, t.Dataverse)
	if err := crm.admit(t.identity.ClientID); err != nil {
		return err
	}
	var err error
	t.Plan, err = population.Generate(made, crm, newEmailAccount(t.Dotdigital))
	if err == nil {
		err = crm.finish()
	}
	for k := 1; k < len(t.Accounts) && err == nil; k++ {
		err = population.GeneratePlatform(made, k, newEmailAccount(t.Accounts[k]))
	}
	if err != nil {
		return err
	}
	if made.Contacts >= 100_000 {
		debug.FreeOSMemory() // loading left about half as much garbage as data
	}
	t.identity.Company = &made
	t.log.Info("the twins are filled", "contacts", made.Contacts, "seed", made.Seed, "took", time.Since(began).Round(time.Millisecond))
	return nil
}

// restore fills both services from the data folder. os.ErrNotExist when there is
// no complete snapshot.
func (t *Twins) restore(made population.Options) error {
	if err := t.Dataverse.LoadSnapshot(filepath.Join(t.dataDir, fault.Dataverse)); err != nil {
		return err
	}
	if err := t.restoreAccounts(made); err != nil {
		return err
	}
	t.Dataverse.Seal()
	return nil
}

// Snapshot writes what both services hold to the data folder, from which the next
// Start goes on. Jobs that are under way are not kept.
func (t *Twins) Snapshot() error {
	if t.dataDir == "" {
		return errors.New("the twins were started without a data folder")
	}
	folders := map[string]func(string) error{filepath.Join(t.dataDir, fault.Dataverse): t.Dataverse.SaveSnapshot}
	for k, a := range t.Accounts {
		folders[t.accountDir(k)] = a.SaveSnapshot
	}
	for dir, save := range folders {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
		if err := save(dir); err != nil {
			return fmt.Errorf("snapshot of %s: %w", filepath.Base(dir), err)
		}
	}
	t.saving.Lock()
	defer t.saving.Unlock()
	if t.ownClock {
		t.identity.ClockOffset = time.Until(t.Clock.Now()).Round(time.Second)
	}
	return t.identity.save(t.dataDir)
}

// Ready returns addresses and credentials.
func (t *Twins) Ready() Ready { return t.ready }

// WriteReady writes the ready file (see the function WriteReady).
func (t *Twins) WriteReady(path string) error { return WriteReady(path, t.ready) }

// Close ends all servers and what they still do in the background. It may be
// called twice.
func (t *Twins) Close() error {
	t.closeOnce.Do(func() {
		if t.Faults != nil {
			t.Faults.Close()
		}
		var stopping sync.WaitGroup
		for _, e := range t.endpoints {
			stopping.Go(e.stop)
		}
		stopping.Wait()
		t.serving.Wait()
		if t.Dataverse != nil {
			t.Dataverse.Close()
		}
		if t.dataDir != "" && t.identity.Company != nil && t.ready.Control.URL != "" {
			t.closeErr = t.Snapshot()
		}
		if t.temporary != "" {
			t.closeErr = errors.Join(t.closeErr, os.RemoveAll(t.temporary))
		}
	})
	return t.closeErr
}
