package app

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/lockstep-sync/lockstep"
)

// storeCallsEvery is how often the calls that this process made are stored, and those
// that others made are read: for so long several processes may overdraw a budget.
const storeCallsEvery = 10 * time.Second

// calling counts the calls to one connection and keeps them within its budget.
type calling struct {
	id  string
	now func() time.Time

	mu     sync.Mutex
	budget lockstep.CallBudget
	// granted is what the service itself allows in an hour, of which the budget may be
	// left to it; nil = it does not tell.
	granted func() int
	stored  []lockstep.CallCount // of the last day, the oldest first
	fresh   map[slotOf]*lockstep.CallCount
}

type slotOf struct {
	at     time.Time
	caller lockstep.Caller
}

// bounds are the budget, and what the service grants where it names no hour.
func (c *calling) bounds() lockstep.CallBudget {
	b := c.budget
	if b.PerHour == 0 && c.granted != nil {
		b.PerHour = c.granted()
	}
	return b
}

// admit is the connection's remote.Admitter.
func (c *calling) admit(ctx context.Context, poll bool) time.Duration {
	caller, now := lockstep.CallerFrom(ctx), c.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	if !poll {
		if wait := c.wait(now, caller, 1); wait > 0 {
			return wait
		}
	}
	at := now.UTC().Truncate(lockstep.CallSlot)
	n := c.fresh[slotOf{at, caller}]
	if n == nil {
		n = &lockstep.CallCount{Connection: c.id, At: at, Caller: caller}
		c.fresh[slotOf{at, caller}] = n
	}
	if poll {
		n.Polls++
	} else {
		n.Calls++
	}
	return 0
}

// all calls each with what was counted of the last day, the oldest first.
func (c *calling) all(each func(*lockstep.CallCount)) {
	for i := range c.stored {
		each(&c.stored[i])
	}
	for _, n := range slices.SortedFunc(maps.Values(c.fresh), func(a, b *lockstep.CallCount) int { return a.At.Compare(b.At) }) {
		each(n)
	}
}

// used counts the calls of the time up to now. A slot counts until all of it is over.
func (c *calling) used(now time.Time, within time.Duration) (calls int64) {
	c.all(func(n *lockstep.CallCount) {
		if n.At.Add(lockstep.CallSlot).After(now.Add(-within)) {
			calls += n.Calls
		}
	})
	return calls
}

// wait is for how long a caller has to wait until n calls fit into the budget; 0 = they
// do. What is more than the whole of its share waits for no more than that.
func (c *calling) wait(now time.Time, caller lockstep.Caller, n int64) (longest time.Duration) {
	b := c.bounds()
	for _, bound := range []struct {
		most   int
		within time.Duration
	}{{b.PerHour, time.Hour}, {b.PerDay, day}} {
		if bound.most == 0 {
			continue
		}
		share := max(1, int64(bound.most)*int64(caller.Share())/100)
		over := c.used(now, bound.within) + min(n, share) - share
		if over <= 0 {
			continue
		}
		var until time.Time
		c.all(func(s *lockstep.CallCount) {
			end := s.At.Add(lockstep.CallSlot + bound.within)
			if over > 0 && end.After(now) {
				over -= s.Calls
				until = end
			}
		})
		longest = max(longest, until.Sub(now), time.Second)
	}
	return longest
}

// space is how far apart runs of n calls have to be so that what is left of the hour lasts;
// 0 while half of what syncs may take is there.
func (c *calling) space(now time.Time, n int64) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	share := int64(c.bounds().PerHour) * int64(lockstep.CallerSchedule.Share()) / 100
	if share == 0 || c.used(now, time.Hour) < share/2 {
		return 0
	}
	return time.Duration(n) * time.Hour / time.Duration(share)
}

// calls returns the counter of a connection.
func (a *App) calls(ctx context.Context, id string) (*calling, error) {
	a.mu.Lock()
	c := a.callings[id]
	a.mu.Unlock()
	if c != nil {
		return c, nil
	}
	stored, err := a.store.Calls(ctx, id, a.now().Add(-day-lockstep.CallSlot))
	if err != nil {
		return nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if c := a.callings[id]; c != nil { // somebody was faster
		return c, nil
	}
	c = &calling{id: id, now: a.now, stored: stored, fresh: map[slotOf]*lockstep.CallCount{}}
	a.callings[id] = c
	return c, nil
}

// callsOfCRM returns the counter of an organization with its budget.
func (a *App) callsOfCRM(ctx context.Context, org lockstep.Organization) (*calling, error) {
	c, err := a.calls(ctx, org.ID)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.budget = org.Budget
	return c, nil
}

// callsOfPlatform returns the counter of an email account with its budget.
func (a *App) callsOfPlatform(ctx context.Context, account lockstep.EmailAccount) (*calling, error) {
	c, err := a.calls(ctx, account.ID)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.budget = account.Budget
	return c, nil
}

// storeCalls stores what this process counted and reads what all did.
func (a *App) storeCalls(ctx context.Context) error {
	a.mu.Lock()
	all := slices.Collect(maps.Values(a.callings))
	a.mu.Unlock()
	a.storing.Lock()
	defer a.storing.Unlock()
	for _, c := range all {
		c.mu.Lock()
		fresh, before := c.fresh, len(c.stored)
		c.fresh = map[slotOf]*lockstep.CallCount{}
		// Until they are read back they count as they are.
		for _, n := range fresh {
			c.stored = append(c.stored, *n)
		}
		c.mu.Unlock()
		counts := make([]lockstep.CallCount, 0, len(fresh))
		for _, n := range fresh {
			counts = append(counts, *n)
		}
		if len(counts) > 0 {
			if err := a.store.AddCalls(ctx, counts); err != nil {
				c.again(before, fresh)
				return err
			}
		}
		stored, err := a.store.Calls(ctx, c.id, a.now().Add(-day-lockstep.CallSlot))
		if err != nil {
			return err
		}
		c.mu.Lock()
		c.stored = stored
		c.mu.Unlock()
	}
	return nil
}

// again takes what could not be stored for fresh.
func (c *calling) again(before int, fresh map[slotOf]*lockstep.CallCount) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stored = c.stored[:before]
	for at, n := range fresh {
		if now := c.fresh[at]; now != nil {
			n.Calls += now.Calls
			n.Polls += now.Polls
		}
		c.fresh[at] = n
	}
}

// keepCalls stores what is counted again and again until ctx ends.
func (a *App) keepCalls(ctx context.Context) {
	next := time.NewTicker(storeCallsEvery)
	defer next.Stop()
	for {
		select {
		case <-next.C:
		case <-ctx.Done():
			return
		}
		if err := a.storeCalls(ctx); err != nil && ctx.Err() == nil {
			a.log.Warn("the calls that were made could not be stored", "err", err)
		}
	}
}

// CallUse is how much of a connection's budget is used.
type CallUse struct {
	Connection string `json:"connection"` // id
	Kind       string `json:"kind"`       // "organization" or "account"
	Name       string `json:"name"`
	lockstep.CallBudget
	// Granted is how many calls an hour the service itself said that it grants; 0 =
	// it has not. It bounds where the budget names no hour.
	Granted int            `json:"granted_per_hour,omitempty"`
	Hour    CallerCalls    `json:"last_hour"`
	Day     CallerCalls    `json:"last_day"`
	Waits   time.Duration  `json:"-"` // for how long syncs that begin by themselves have to wait
	Until   time.Time      `json:"syncs_wait_until,omitzero"`
	Slots   []CallSlotSize `json:"slots,omitempty"`
}

// CallerCalls are calls by caller; polls are apart and not in the budget.
type CallerCalls struct {
	Total    int64 `json:"total"`
	Schedule int64 `json:"schedule"`
	Person   int64 `json:"person"`
	Consent  int64 `json:"consent"`
	Polls    int64 `json:"polls"`
}

func (c *CallerCalls) add(n *lockstep.CallCount) {
	c.Total += n.Calls
	c.Polls += n.Polls
	switch n.Caller {
	case lockstep.CallerSchedule:
		c.Schedule += n.Calls
	case lockstep.CallerConsent:
		c.Consent += n.Calls
	default:
		c.Person += n.Calls
	}
}

// CallSlotSize are the calls of an hour.
type CallSlotSize struct {
	At time.Time `json:"at"`
	CallerCalls
}

// Budgets returns the budget of each connection and how much of it is used.
func (a *App) Budgets(ctx context.Context) ([]CallUse, error) {
	if err := a.storeCalls(ctx); err != nil {
		return nil, err
	}
	return a.countedCalls(ctx)
}

// countedCalls is Budgets as this process knows it: of the others' calls, what it read
// when it last stored its own. It stores nothing.
func (a *App) countedCalls(ctx context.Context) ([]CallUse, error) {
	orgs, err := a.store.Organizations(ctx)
	if err != nil {
		return nil, err
	}
	accounts, err := a.store.Accounts(ctx, "")
	if err != nil {
		return nil, err
	}
	var all []CallUse
	for _, org := range orgs {
		c, err := a.callsOfCRM(ctx, org)
		if err != nil {
			return nil, err
		}
		all = append(all, c.use("organization", org.Name))
	}
	for _, acc := range accounts {
		c, err := a.callsOfPlatform(ctx, acc)
		if err != nil {
			return nil, err
		}
		all = append(all, c.use("account", acc.Name))
	}
	return all, nil
}

func (c *calling) use(kind, name string) CallUse {
	now := c.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	u := CallUse{Connection: c.id, Kind: kind, Name: name, CallBudget: c.budget}
	if c.granted != nil {
		u.Granted = c.granted()
	}
	c.all(func(n *lockstep.CallCount) {
		end := n.At.Add(lockstep.CallSlot)
		if end.After(now.Add(-time.Hour)) {
			u.Hour.add(n)
		}
		if end.After(now.Add(-day)) {
			u.Day.add(n)
		}
	})
	if u.Waits = c.wait(now, lockstep.CallerSchedule, 1); u.Waits > 0 {
		u.Until = now.Add(u.Waits).UTC()
	}
	return u
}

// BudgetHours returns a connection's budget, how much of it is used, and the calls of each
// hour since a time, which is at most the retention ago.
func (a *App) BudgetHours(ctx context.Context, connection string, since time.Time) (CallUse, error) {
	u, err := a.budget(ctx, connection)
	if err != nil {
		return u, err
	}
	counts, err := a.store.Calls(ctx, u.Connection, since.Truncate(time.Hour))
	if err != nil {
		return u, err
	}
	u.Slots = []CallSlotSize{}
	for i := range counts {
		at := counts[i].At.Truncate(time.Hour)
		if n := len(u.Slots); n == 0 || !u.Slots[n-1].At.Equal(at) {
			u.Slots = append(u.Slots, CallSlotSize{At: at})
		}
		u.Slots[len(u.Slots)-1].add(&counts[i])
	}
	return u, nil
}

// budget finds a connection by id or name.
func (a *App) budget(ctx context.Context, connection string) (CallUse, error) {
	all, err := a.Budgets(ctx)
	if err != nil {
		return CallUse{}, err
	}
	var found []CallUse
	names := make([]string, 0, len(all))
	for _, u := range all {
		if u.Connection == connection {
			return u, nil
		}
		if u.Name == connection {
			found = append(found, u)
		}
		names = append(names, fmt.Sprintf("%q", u.Name))
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return CallUse{}, &lockstep.Error{Code: lockstep.CodeNotFound, Field: "connection", Msg: fmt.Sprintf("there is no connection %.80q", connection), Hint: fmt.Sprintf("use one of %v", names)}
	}
	return CallUse{}, &lockstep.Error{Code: lockstep.CodeConflict, Field: "connection", Msg: fmt.Sprintf("an organization and an email account are called %q", connection), Hint: "give the id"}
}

// maxCalls is the greatest number that a budget can name.
const maxCalls = 100_000_000

func checkBudget(b lockstep.CallBudget, perHour, perDay string) error {
	for _, n := range []struct {
		field string
		value int
	}{{perHour, b.PerHour}, {perDay, b.PerDay}} {
		if n.value < 0 || n.value > maxCalls {
			return invalid(n.field, fmt.Sprintf("a budget of %d calls cannot be", n.value), fmt.Sprintf("use 1 to %d, or 0 for none", maxCalls))
		}
	}
	return nil
}

// SetBudget changes the budget of a connection.
func (a *App) SetBudget(ctx context.Context, connection string, perHour, perDay *int) (CallUse, error) {
	u, err := a.budget(ctx, connection)
	if err != nil {
		return u, err
	}
	b := u.CallBudget
	set(&b.PerHour, perHour)
	set(&b.PerDay, perDay)
	if err := checkBudget(b, "per_hour", "per_day"); err != nil {
		return u, err
	}
	if u.Kind == "organization" {
		org, err := a.store.Organization(ctx, u.Connection)
		if err != nil {
			return u, err
		}
		org.Budget = b
		if _, err = a.store.SaveOrganization(ctx, org); err != nil {
			return u, err
		}
	} else {
		acc, err := a.store.Account(ctx, u.Connection)
		if err != nil {
			return u, err
		}
		acc.Budget = b
		if _, err = a.store.SaveAccount(ctx, acc); err != nil {
			return u, err
		}
	}
	a.jobs.Wake()
	return a.budget(ctx, u.Connection)
}

// counters are those of both sides of an account.
type counters struct{ crm, platform *calling }

func (a *App) counters(ctx context.Context, acc lockstep.EmailAccount) (c counters, err error) {
	org, err := a.store.Organization(ctx, acc.Organization)
	if err != nil {
		return c, err
	}
	if c.crm, err = a.callsOfCRM(ctx, org); err != nil {
		return c, err
	}
	c.platform, err = a.callsOfPlatform(ctx, acc)
	return c, err
}

// wait is for how long a run of this price has to wait, and which side it waits for.
func (c counters) wait(now time.Time, t lockstep.SyncType, p *lockstep.Price) (longest time.Duration, side string) {
	caller := lockstep.CallerSchedule
	if t.Consent() {
		caller = lockstep.CallerConsent
	}
	price := lockstep.Price{CRM: 1, Platform: 1}
	if p != nil {
		price = *p
	}
	for _, s := range []struct {
		c    *calling
		n    int64
		name string
	}{{c.crm, price.CRM, "Dynamics"}, {c.platform, price.Platform, "the email account"}} {
		s.c.mu.Lock()
		d := s.c.wait(now, caller, s.n)
		s.c.mu.Unlock()
		if d > longest {
			longest, side = d, s.name
		}
	}
	return longest, side
}

// space is how far apart continuous runs like this one have to be.
func (c counters) space(now time.Time, run *lockstep.Run) time.Duration {
	return max(c.crm.space(now, run.Calls.CRM), c.platform.space(now, run.Calls.Platform))
}
