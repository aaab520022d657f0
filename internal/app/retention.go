package app

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/lockstep-sync/lockstep"
)

const (
	day = 24 * time.Hour
	// DefaultRetention is for how many days the audit is kept unless somebody decides
	// otherwise: runs, their findings, the losing values of conflicts and the journal.
	// What waits for a decision or for its end is kept longer.
	DefaultRetention = 30
	maxRetention     = 3650
	// quietRetention is how long a run is kept that its schedule started and that found
	// nothing to do.
	quietRetention = time.Hour

	retentionSetting = "retention_days"
)

// sweepEvery is how often what is older is deleted.
const sweepEvery = 10 * time.Minute

// Settings are those of the installation.
type Settings struct {
	// RetentionDays is for how many days the audit is kept.
	RetentionDays int `json:"retention_days"`
}

// Settings returns the settings of the installation.
func (a *App) Settings(ctx context.Context) (Settings, error) {
	text, err := a.store.Setting(ctx, retentionSetting)
	if err != nil {
		return Settings{RetentionDays: DefaultRetention}, err
	}
	return parseSettings(text)
}

// parseSettings reads the settings as they are stored.
func parseSettings(text string) (s Settings, err error) {
	s.RetentionDays = DefaultRetention
	if text == "" {
		return s, nil
	}
	if s.RetentionDays, err = strconv.Atoi(text); err != nil || s.RetentionDays < 1 || s.RetentionDays > maxRetention {
		return s, &lockstep.Error{Code: lockstep.CodeInternal, Op: "read the settings", Msg: "the retention that is stored is not a number of days", Hint: "set it again"}
	}
	return s, nil
}

// SetSettings changes the settings of the installation.
func (a *App) SetSettings(ctx context.Context, s Settings) error {
	if err := s.check(); err != nil {
		return err
	}
	return a.store.SetSetting(ctx, retentionSetting, strconv.Itoa(s.RetentionDays))
}

func (s Settings) check() error {
	if s.RetentionDays < 1 || s.RetentionDays > maxRetention {
		return invalid("retention_days", fmt.Sprintf("the audit cannot be kept for %d days", s.RetentionDays), fmt.Sprintf("use 1 to %d; a run can be undone for as long as its journal is kept, up to 30 days", maxRetention))
	}
	return nil
}

// Forget deletes what is older than the retention.
func (a *App) Forget(ctx context.Context) error {
	s, err := a.Settings(ctx)
	if err != nil {
		return err
	}
	now := a.now()
	done, err := a.store.Forget(ctx, now.Add(-time.Duration(s.RetentionDays)*day), now.Add(-quietRetention))
	if err == nil && done.Batches+done.Findings+done.Conflicts+done.Runs > 0 {
		a.log.Info("deleted what is older than the retention", "batches", done.Batches, "findings", done.Findings, "conflicts", done.Conflicts, "runs", done.Runs)
	}
	return err
}

// sweep forgets again and again until ctx ends.
func (a *App) sweep(ctx context.Context) {
	next := time.NewTicker(sweepEvery)
	defer next.Stop()
	for {
		if err := a.Forget(ctx); err != nil && ctx.Err() == nil {
			a.log.Warn("what is older than the retention could not be deleted; it is tried again", "err", err)
		}
		select {
		case <-next.C:
		case <-ctx.Done():
			return
		}
	}
}
