package app

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/store"
)

// HookPath begins the path of the addresses that an organization calls; an opaque id
// follows.
const HookPath = "/hooks/dynamics/"

const (
	// secretBytes of randomness are a webhook's secret.
	secretBytes = 32
	// A process knows the webhooks of an installation for hookAge, and looks again when
	// one is not as it knows them, but not more often than every hookAgain.
	hookAge   = 5 * time.Second
	hookAgain = time.Second
	// hurryEvery is the shortest time between two times that an organization's word is
	// passed on to its syncs, however often it calls.
	hurryEvery = time.Second
	// mendEvery is how often registrations are compared with the mappings, for those that
	// another process changed, and for what failed.
	mendEvery = 5 * time.Minute
)

// hookRecord is what is kept of a webhook beside its secret.
type hookRecord struct {
	ID   string `json:"id"`
	Base string `json:"base"` // as a person gave it, without a trailing slash
	// Columns are those that were registered last, by table; none before the first
	// registration came to its end.
	Columns map[string][]string `json:"columns,omitempty"`
}

func hookSetting(organization string) string { return "webhook/" + organization }

// The secrets of a webhook. The former one is still accepted until the organization
// was told of the present one.
const (
	presentSecret = "secret"
	formerSecret  = "former"
)

func (a *App) hookRecord(ctx context.Context, organization string) (hookRecord, error) {
	var rec hookRecord
	text, err := a.store.Setting(ctx, hookSetting(organization))
	if err != nil || text == "" {
		return rec, err
	}
	if err := json.Unmarshal([]byte(text), &rec); err != nil {
		return rec, &lockstep.Error{Code: lockstep.CodeInternal, Op: "read webhook", Msg: "what is kept of the webhook cannot be read", Err: err}
	}
	return rec, nil
}

func (a *App) saveHookRecord(ctx context.Context, organization string, rec hookRecord) error {
	text, err := json.Marshal(rec)
	if err != nil {
		return err
	}
	return a.store.SetSetting(ctx, hookSetting(organization), string(text))
}

// Webhook is how an organization is asked to tell of changes.
type Webhook struct {
	// URL is what it calls; empty when nothing was ever registered.
	URL string `json:"url,omitempty"`
	// Registered says that nothing is missing, and nothing is different.
	Registered bool `json:"registered"`
	// Steps are what registering it, or registering it again, would do.
	Steps []lockstep.SchemaStep `json:"steps"`
}

// WebhookRequest says how to register a webhook.
type WebhookRequest struct {
	// URL is the address under which the organization reaches Lockstep, such as
	// https://lockstep.example.com; empty keeps the one that is registered.
	URL string
	// NewSecret gives it another secret. The former one works until the organization has
	// been told of the new one, and not a moment longer.
	NewSecret bool
}

// PlanWebhook says what RegisterWebhook would do, and does nothing.
func (a *App) PlanWebhook(ctx context.Context, which string, q WebhookRequest) (Webhook, error) {
	org, in, err := a.webhookInstaller(ctx, which)
	if err != nil {
		return Webhook{}, err
	}
	rec, err := a.hookRecord(ctx, org.ID)
	if err != nil {
		return Webhook{}, err
	}
	if rec.ID == "" && q.URL == "" {
		return Webhook{Steps: []lockstep.SchemaStep{}}, nil
	}
	w, _, err := a.webhook(ctx, org, rec, q)
	if err != nil {
		return Webhook{}, err
	}
	steps, err := in.PlanWebhook(ctx, w)
	if steps == nil {
		steps = []lockstep.SchemaStep{}
	}
	return Webhook{URL: w.URL, Registered: err == nil && rec.ID != "" && len(steps) == 0, Steps: steps}, err
}

// RegisterWebhook has an organization tell at once that something changed, and returns
// what was done. It can be repeated, after anything: what is registered is compared
// first. CodeInvalid with the field url when the organization cannot call that address;
// CodeForbidden when the user of the connection may not register; CodeConflict while the
// database is taken for a copy, which would lead the original's calls astray.
func (a *App) RegisterWebhook(ctx context.Context, which string, q WebhookRequest) ([]lockstep.SchemaStep, error) {
	if err := a.refuseCopy(ctx, "register webhook"); err != nil {
		return nil, err
	}
	org, in, err := a.webhookInstaller(ctx, which)
	if err != nil {
		return nil, err
	}
	release, err := a.holdWebhook(org)
	if err != nil {
		return nil, err
	}
	defer release()
	rec, err := a.hookRecord(ctx, org.ID)
	if err != nil {
		return nil, err
	}
	if rec.ID == "" && q.URL == "" {
		return nil, invalid("url", "it is not known under which address the organization reaches Lockstep", "give the public https address, such as https://lockstep.example.com")
	}
	w, secrets, err := a.webhook(ctx, org, rec, q)
	if err != nil {
		return nil, err
	}
	// Whether it can be done at all is found out before anything is kept.
	if _, err := in.PlanWebhook(ctx, w); err != nil {
		return nil, err
	}
	// What the organization will send has to be known before it is told.
	if err := a.store.SetSecrets(ctx, store.WebhookSecrets(org.ID), secrets); err != nil {
		return nil, err
	}
	rec.ID, rec.Base = w.ID, w.Base
	if err := a.saveHookRecord(ctx, org.ID, rec); err != nil {
		return nil, err
	}
	a.hooks.forget()
	taken := []lockstep.SchemaStep{}
	if err := in.InstallWebhook(ctx, w, func(s lockstep.SchemaStep) error { taken = append(taken, s); return nil }); err != nil {
		return taken, err
	}
	rec.Columns = w.Columns
	if err := a.saveHookRecord(ctx, org.ID, rec); err != nil {
		return taken, err
	}
	err = a.store.SetSecrets(ctx, store.WebhookSecrets(org.ID), map[string]string{formerSecret: ""})
	a.hooks.forget()
	return taken, err
}

// webhook is what is to be registered, and the secrets to keep for it.
func (a *App) webhook(ctx context.Context, org lockstep.Organization, rec hookRecord, q WebhookRequest) (lockstep.Webhook, map[string]string, error) {
	var w lockstep.Webhook
	secrets, err := a.store.Secrets(ctx, store.WebhookSecrets(org.ID))
	if err != nil {
		return w, nil, err
	}
	if rec.ID == "" {
		rec.ID = strings.ToLower(rand.Text())
	}
	if q.URL != "" {
		rec.Base = strings.TrimRight(strings.TrimSpace(q.URL), "/")
	}
	if secrets[presentSecret] == "" || q.NewSecret {
		var b [secretBytes]byte
		_, _ = rand.Read(b[:]) // it never fails
		secrets[formerSecret], secrets[presentSecret] = secrets[presentSecret], base64.RawURLEncoding.EncodeToString(b[:])
	}
	w = lockstep.Webhook{ID: rec.ID, Base: rec.Base, URL: rec.Base + HookPath + rec.ID, Secret: secrets[presentSecret]}
	w.Columns, err = a.watchedColumns(ctx, org.ID)
	return w, secrets, err
}

// consentColumns are those of every table of people that decide whether somebody is
// mailed.
var consentColumns = []string{"emailaddress1", "statecode", lockstep.AllEmailColumn, lockstep.BulkEmailColumn, "donotsendmm"}

// watchedColumns are the columns that matter to the accounts of an organization, by
// table: what is mapped, and what decides whether somebody is mailed.
func (a *App) watchedColumns(ctx context.Context, organization string) (map[string][]string, error) {
	tables, err := a.store.Tables(ctx, organization)
	if err != nil {
		return nil, err
	}
	accounts, err := a.store.Accounts(ctx, organization)
	if err != nil {
		return nil, err
	}
	out := map[string][]string{}
	for i := range tables {
		if t := &tables[i]; slices.Contains(lockstep.DefaultPriority, t.Name) {
			out[t.Name] = slices.Clone(consentColumns)
			if _, ok := t.Column(lockstep.OptInTypeColumn); ok {
				out[t.Name] = append(out[t.Name], lockstep.OptInTypeColumn)
			}
		}
	}
	if len(out) == 0 {
		return nil, &lockstep.Error{Code: lockstep.CodeConflict, Msg: "the tables of the organization have not been read yet", Hint: "connect an email account first, or run crm-metadata"}
	}
	for _, acc := range accounts {
		mappings, err := a.store.Mappings(ctx, acc.ID)
		if err != nil {
			return nil, err
		}
		for _, m := range mappings {
			column, _, _ := strings.Cut(m.Column, ".") // of a column one lookup away, the lookup
			for i := range tables {
				if _, ok := tables[i].Column(column); ok && tables[i].Name == m.Table && m.Disabled == "" && out[m.Table] != nil {
					out[m.Table] = append(out[m.Table], column)
				}
			}
		}
	}
	for table, columns := range out {
		slices.Sort(columns)
		out[table] = slices.Compact(columns)
	}
	return out, nil
}

// mappingsChanged has the registrations of webhooks follow the mappings.
func (a *App) mappingsChanged() {
	select {
	case a.remapped <- struct{}{}:
	default:
	}
}

// mendWebhooks has the registrations of webhooks follow the mappings, until ctx ends.
func (a *App) mendWebhooks(ctx context.Context) {
	again := time.NewTicker(mendEvery)
	defer again.Stop()
	for {
		orgs, err := a.store.Organizations(ctx)
		for _, org := range orgs {
			err = errors.Join(err, a.mendWebhook(ctx, org.ID))
		}
		if err != nil && ctx.Err() == nil {
			a.log.Warn("the webhooks do not follow the mappings; changes of newly mapped columns are found by the usual looks, and it is tried again", "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-a.remapped:
		case <-again.C:
		}
	}
}

// mendWebhook registers an organization's webhook anew when other columns matter than
// were registered. Only what is kept is compared: what somebody switched off in the CRM
// stays off until then.
func (a *App) mendWebhook(ctx context.Context, organization string) error {
	rec, err := a.hookRecord(ctx, organization)
	if err != nil || rec.ID == "" {
		return err
	}
	copied, err := a.isCopy(ctx)
	if err != nil || copied {
		return err
	}
	accounts, err := a.store.Accounts(ctx, organization)
	if err != nil || !slices.ContainsFunc(accounts, func(acc lockstep.EmailAccount) bool { return acc.Locked == "" }) {
		return err
	}
	columns, err := a.watchedColumns(ctx, organization)
	if err != nil || maps.EqualFunc(columns, rec.Columns, slices.Equal) {
		return err
	}
	_, err = a.RegisterWebhook(ctx, organization, WebhookRequest{})
	return err
}

// RemoveWebhook takes an organization's webhook away and forgets it; removing one that
// is not there is no error. CodeConflict as of RegisterWebhook.
func (a *App) RemoveWebhook(ctx context.Context, which string) ([]lockstep.SchemaStep, error) {
	if err := a.refuseCopy(ctx, "remove webhook"); err != nil {
		return nil, err
	}
	org, in, err := a.webhookInstaller(ctx, which)
	if err != nil {
		return nil, err
	}
	release, err := a.holdWebhook(org)
	if err != nil {
		return nil, err
	}
	defer release()
	taken := []lockstep.SchemaStep{}
	rec, err := a.hookRecord(ctx, org.ID)
	if err != nil || rec.ID == "" {
		return taken, err
	}
	if err := in.RemoveWebhook(ctx, rec.ID, func(s lockstep.SchemaStep) error { taken = append(taken, s); return nil }); err != nil {
		return taken, err
	}
	return taken, a.forgetWebhook(ctx, org.ID)
}

// forgetWebhook has calls of an organization refused from now on.
func (a *App) forgetWebhook(ctx context.Context, organization string) error {
	defer a.hooks.forget()
	if err := a.store.SetSetting(ctx, hookSetting(organization), ""); err != nil {
		return err
	}
	return a.store.SetSecrets(ctx, store.WebhookSecrets(organization), map[string]string{presentSecret: "", formerSecret: ""})
}

// holdWebhook keeps others of this process from changing the same registration.
func (a *App) holdWebhook(org lockstep.Organization) (release func(), err error) {
	key := "webhook of " + org.ID
	if _, busy := a.schemas.LoadOrStore(key, true); busy {
		return nil, &lockstep.Error{Code: lockstep.CodeConflict, Msg: "the webhooks of this organization are being changed already", Hint: "wait until that is over"}
	}
	return func() { a.schemas.Delete(key) }, nil
}

func (a *App) webhookInstaller(ctx context.Context, which string) (lockstep.Organization, lockstep.WebhookInstaller, error) {
	org, crm, err := a.sameOrganization(ctx, which)
	if err != nil {
		return org, nil, err
	}
	in, ok := crm.(lockstep.WebhookInstaller)
	if !ok {
		return org, nil, &lockstep.Error{Code: lockstep.CodeUnsupported, Msg: "this CRM cannot tell of changes", Scope: lockstep.ScopeConnection}
	}
	return org, in, nil
}

// knownHooks are the webhooks of the installation as a process knows them, so that
// calls, of which anybody can make many, cost the database next to nothing.
type knownHooks struct {
	mu     sync.Mutex
	loaded time.Time
	failed time.Time // when they could not be read, and why
	err    error
	hooks  map[string]knownHook // by id
}

type knownHook struct {
	organization string
	secrets      [2][sha256.Size]byte // present and former, the present one twice without a former
}

func (k *knownHooks) forget() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.loaded = time.Time{}
}

// find returns a webhook by its id, when the key is one of its secrets.
func (k *knownHooks) find(id, key string) (h knownHook, known, proven bool) {
	h, known = k.hooks[id]
	sum := sha256.Sum256([]byte(key))
	same := subtle.ConstantTimeCompare(sum[:], h.secrets[0][:]) | subtle.ConstantTimeCompare(sum[:], h.secrets[1][:])
	return h, known, known && same == 1
}

func (a *App) loadHooks(ctx context.Context) error {
	orgs, err := a.store.Organizations(ctx)
	if err != nil {
		return err
	}
	hooks := map[string]knownHook{}
	for _, org := range orgs {
		rec, err := a.hookRecord(ctx, org.ID)
		if err != nil {
			return err
		}
		if rec.ID == "" {
			continue
		}
		secrets, err := a.store.Secrets(ctx, store.WebhookSecrets(org.ID))
		if err != nil {
			return err
		}
		h := knownHook{organization: org.ID}
		if secrets[presentSecret] == "" {
			continue
		}
		h.secrets[0] = sha256.Sum256([]byte(secrets[presentSecret]))
		h.secrets[1] = h.secrets[0]
		if former := secrets[formerSecret]; former != "" {
			h.secrets[1] = sha256.Sum256([]byte(former))
		}
		hooks[rec.ID] = h
	}
	a.hooks.hooks, a.hooks.loaded = hooks, time.Now()
	return nil
}

// CheckHook says which organization calls the webhook id with a key. CodeNotFound when
// there is no such webhook, CodeUnauthorized when the key is not its secret.
func (a *App) CheckHook(ctx context.Context, id, key string) (organization string, err error) {
	k := &a.hooks
	k.mu.Lock()
	defer k.mu.Unlock()
	h, known, proven := k.find(id, key)
	if age := time.Since(k.loaded); age > hookAge || !proven && age > hookAgain {
		if time.Since(k.failed) < hookAgain {
			return "", k.err
		}
		// Not the caller's own time: one that hangs up shall not fail the others.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), hookAge)
		defer cancel()
		if err := a.loadHooks(ctx); err != nil {
			k.failed, k.err = time.Now(), err
			a.log.Warn("calls of webhooks cannot be told from others; they are refused until the database answers", "err", err)
			return "", err
		}
		h, known, proven = k.find(id, key)
	}
	switch {
	case !known:
		return "", &lockstep.Error{Code: lockstep.CodeNotFound, Msg: "there is no such webhook"}
	case !proven:
		return "", &lockstep.Error{Code: lockstep.CodeUnauthorized, Msg: "the key is not that of the webhook"}
	}
	return h.organization, nil
}

// hints are the organizations that said that something changed and whose syncs have not
// been told yet.
type hints struct {
	mu      sync.Mutex
	waiting map[string]bool
	come    chan struct{}
}

// Hint notes that an organization says that something changed. It costs nothing:
// however many come, its syncs are told at once and then once in a while. That word is
// all that is taken from a call.
func (a *App) Hint(organization string) {
	h := &a.hints
	h.mu.Lock()
	h.waiting[organization] = true
	h.mu.Unlock()
	select {
	case h.come <- struct{}{}:
	default:
	}
}

func (h *hints) take() map[string]bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	waiting := h.waiting
	h.waiting = map[string]bool{}
	return waiting
}

// passOn tells syncs what organizations say, until ctx ends.
func (a *App) passOn(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-a.hints.come:
		}
		for organization := range a.hints.take() {
			n, err := a.hurry(ctx, organization)
			switch {
			case ctx.Err() != nil:
				return
			case err != nil:
				a.log.Warn("the syncs could not be told that something changed; they look at their usual time", "err", err)
			case n > 0:
				a.metrics.hurried.WithLabelValues(organization).Inc()
			}
		}
		pause := time.NewTimer(hurryEvery)
		select {
		case <-ctx.Done():
			pause.Stop()
			return
		case <-pause.C:
		}
	}
}

// What becomes of a call of a webhook.
const (
	HookAccepted     = "accepted"
	HookUnauthorized = "unauthorized" // without the secret
	HookUnknown      = "unknown"      // to an address that no webhook has
	HookMethod       = "method"       // other than POST
	HookOversized    = "oversized"
	HookBroken       = "broken" // the body came to no end
	HookFailed       = "failed" // the database did not answer
)

// HookCalled counts a call of a webhook by what became of it.
func (a *App) HookCalled(outcome string) { a.metrics.hookCalls.WithLabelValues(outcome).Inc() }
