package api

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/app"
)

const tagSchedules = "Schedules"

// OpenWindow is a window of a Plan.
type OpenWindow struct {
	Days []string `json:"days,omitempty" maxItems:"7" doc:"Days on which the window opens: mon, tue, wed, thu, fri, sat, sun; every day when left out."`
	From string   `json:"from" maxLength:"20" example:"18:00"`
	To   string   `json:"to" maxLength:"20" example:"08:00" doc:"Not after from: the window goes on past midnight and belongs to the day on which it opens."`
	Zone string   `json:"zone,omitempty" maxLength:"80" example:"Europe/London" doc:"UTC when left out."`
}

// Plan is a schedule as a client writes it; times and days are read here, so that a
// mistake is told by the name of its field.
type Plan struct {
	Interval string       `json:"interval" maxLength:"20" example:"4h" doc:"manual, continuous, 5m, 10m, 15m, 30m, 1h, 2h, 4h, 6h, 8h, 12h, daily or weekly."`
	Windows  []OpenWindow `json:"windows,omitempty" maxItems:"50" doc:"When a run may begin; at any time when left out."`
	At       string       `json:"at,omitempty" maxLength:"20" example:"02:00" doc:"Time of day of daily and weekly runs without windows; midnight when left out."`
	Zone     string       `json:"zone,omitempty" maxLength:"80" example:"Europe/London" doc:"Zone of at; UTC when left out."`
}

func (p *Plan) read() (lockstep.Schedule, error) {
	s := lockstep.Schedule{Interval: lockstep.Interval(p.Interval), Zone: p.Zone}
	clock := func(field, text string, to *lockstep.ClockTime) error {
		if text == "" && field == "at" {
			return nil
		}
		err := to.UnmarshalText([]byte(text))
		return inField(err, field)
	}
	if err := clock("at", p.At, &s.At); err != nil {
		return s, err
	}
	for i, w := range p.Windows {
		field := fmt.Sprintf("windows[%d]", i)
		read := lockstep.Window{Zone: w.Zone}
		if err := clock(field+".from", w.From, &read.From); err != nil {
			return s, err
		}
		if err := clock(field+".to", w.To, &read.To); err != nil {
			return s, err
		}
		for _, name := range w.Days {
			var day lockstep.Weekday
			if err := day.UnmarshalText([]byte(name)); err != nil {
				return s, inField(err, field+".days")
			}
			read.Days = append(read.Days, day)
		}
		s.Windows = append(s.Windows, read)
	}
	return s, nil
}

// inField names the field that an error is about.
func inField(err error, field string) error {
	if err == nil {
		return nil
	}
	e := *lockstep.AsError(err)
	e.Field = field
	return &e
}

type schedulePut struct {
	Body struct {
		Plan
		Account string            `json:"account,omitempty" maxLength:"200" doc:"Id or name of the email account; may be left out when there is only one."`
		Type    lockstep.SyncType `json:"type" maxLength:"80" example:"suppressions"`
	}
}

type scheduleNext struct {
	Body struct {
		Plan
		From  *time.Time `json:"from,omitempty" doc:"When the last run began; now when left out."`
		Count int        `json:"count,omitempty" minimum:"1" maximum:"1000" default:"10" doc:"How many times to compute."`
	}
}

type times struct {
	Times []time.Time `json:"times"`
}

func (s *server) schedules() {
	list := operation("list-schedules", http.MethodGet, "/schedules", tagSchedules, "When each sync type runs by itself, when it last ran and runs next")
	list.Description = "Nothing runs by itself in an account that is not automatic; waits then says so."
	handle(s, list, func(ctx context.Context, in *InAccount) (*pageOut[lockstep.SyncSchedule], error) {
		return ofAccounts(ctx, s, in.Account, s.app.Schedules)
	})
	handle(s, operation("set-schedule", http.MethodPut, "/schedules", tagSchedules, "Change when a sync type runs by itself", withBody...),
		func(ctx context.Context, in *schedulePut) (*oneOut[lockstep.SyncSchedule], error) {
			acc, err := s.app.Account(ctx, in.Body.Account)
			if err != nil {
				return nil, err
			}
			sched, err := in.Body.read()
			if err != nil {
				return nil, err
			}
			return one(s.app.SetSchedule(ctx, acc.ID, in.Body.Type, sched))
		})
	next := operation("next-times", http.MethodPost, "/schedules/next", tagSchedules, "The coming run times of a schedule, computed", withBody...)
	next.Metadata["scope"] = app.ScopeRead
	next.Description = "A continuous schedule answers with one time: when it may begin next. A manual one with none."
	handle(s, next, func(_ context.Context, in *scheduleNext) (*oneOut[times], error) {
		sched, err := in.Body.read()
		if err != nil {
			return nil, err
		}
		var from time.Time
		if in.Body.From != nil {
			from = *in.Body.From
		}
		at, err := s.app.NextTimes(sched, from, in.Body.Count)
		if at == nil {
			at = []time.Time{}
		}
		return one(times{at}, err)
	})
}

const tagSettings = "Settings"

type settingsPatch struct {
	Body struct {
		RetentionDays *int `json:"retention_days,omitempty" doc:"For how many days runs, findings and the journal are kept."`
	}
}

func (s *server) settings() {
	handle(s, operation("show-settings", http.MethodGet, "/settings", tagSettings, "The settings of the installation"),
		func(ctx context.Context, _ *struct{}) (*oneOut[app.Settings], error) { return one(s.app.Settings(ctx)) })
	handle(s, operation("change-settings", http.MethodPatch, "/settings", tagSettings, "Change settings of the installation; what is left out stays", withBody...),
		func(ctx context.Context, in *settingsPatch) (*oneOut[app.Settings], error) {
			if days := in.Body.RetentionDays; days != nil {
				if err := s.app.SetSettings(ctx, app.Settings{RetentionDays: *days}); err != nil {
					return nil, err
				}
			}
			return one(s.app.Settings(ctx))
		})
}
