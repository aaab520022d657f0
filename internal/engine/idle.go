package engine

import (
	"fmt"
	"time"

	"github.com/lockstep-sync/lockstep"
)

const (
	// idleAfter is how long a static list is unused until it no longer syncs by itself.
	idleAfter = 90 * 24 * time.Hour
	// idleNotice is how long before that a finding tells of it, at least.
	idleNotice = 14 * 24 * time.Hour
	// useGrain is how exactly it is kept when a list was last used.
	useGrain = 24 * time.Hour
)

// idles tells of a static list that nobody uses, and after a while has it synced only
// when somebody asks for it. A list of which settings were kept before it was counted is
// counted from now on.
func (s *session) idles(set *lockstep.ListSettings, l *lockstep.MarketingList) {
	if s.dry() || s.run.Type != lockstep.SyncMarketingLists {
		return
	}
	if !set.Activated || set.Dynamic || set.ManualOnly || set.KeepAutomatic {
		set.IdleNotice = time.Time{}
		return
	}
	now, used := s.e.Now().UTC().Truncate(time.Second), set.InUse
	for _, t := range []time.Time{l.Used, l.Modified} {
		if t.After(used) {
			used = t
		}
	}
	if set.InUse.IsZero() || s.run.List == set.ID || used.After(now) {
		used = now
	}
	if set.InUse.IsZero() || used.Sub(set.InUse) >= useGrain {
		set.InUse = used.UTC()
	}
	idle := now.Sub(set.InUse)
	tell := func(msg, hint string) {
		s.finding(lockstep.Finding{Code: lockstep.FindingListIdle, Table: "list", Record: set.CRMID, List: set.ID, Message: msg, Hint: hint})
	}
	switch {
	case idle < idleAfter-idleNotice:
		set.IdleNotice = time.Time{}
	case set.IdleNotice.IsZero():
		set.IdleNotice = now
		from := set.InUse.Add(idleAfter)
		if told := now.Add(idleNotice); told.After(from) {
			from = told
		}
		tell(fmt.Sprintf("the list %q has not been used since %s; from %s on it is synced only when somebody asks for it", set.Name, set.InUse.Format(time.DateOnly), from.Format(time.DateOnly)),
			"use it, sync it by name, or exempt it with lockstep lists set --keep-automatic")
	case idle >= idleAfter && now.Sub(set.IdleNotice) >= idleNotice:
		set.ManualOnly, set.IdleNotice = true, time.Time{}
		tell(fmt.Sprintf("the list %q has not been used since %s; from now on it is synced only when somebody asks for it", set.Name, set.InUse.Format(time.DateOnly)),
			"lockstep lists set --manual-only=false brings it back, --keep-automatic for good")
	}
}

// stillUsed are the settings of lists whose members changed since the last run. They are
// read anew: a person may have changed them while the run was under way.
func (s *session) stillUsed() ([]lockstep.ListSettings, error) {
	if s.dry() || s.run.Type != lockstep.SyncMarketingLists {
		return nil, nil
	}
	now := s.e.Now().UTC().Truncate(time.Second)
	moved := map[string]bool{}
	for _, l := range s.sync.lists {
		changed := l.joined || l.stored.CRMCount != l.sum.CRMCount
		if set := &l.set; changed && !set.InUse.IsZero() && (now.Sub(set.InUse) >= useGrain || !set.IdleNotice.IsZero()) {
			moved[set.ID] = true
		}
	}
	if len(moved) == 0 {
		return nil, nil
	}
	all, err := s.e.Store.Lists(s.ctx, s.account.ID)
	var out []lockstep.ListSettings
	for _, set := range all {
		if moved[set.ID] && !set.InUse.IsZero() {
			set.InUse, set.IdleNotice = now, time.Time{}
			out = append(out, set)
		}
	}
	return out, err
}
