package lockstep

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Interval is how often a sync type runs by itself.
type Interval string

// The intervals. Continuous runs begin again as soon as the one before has ended and
// there is something to do; Daily and Weekly runs keep to a time of day.
const (
	Manual     Interval = "manual"
	Continuous Interval = "continuous"
	Daily      Interval = "daily"
	Weekly     Interval = "weekly"
)

// Intervals are all that can be chosen, the shortest first.
var Intervals = []Interval{Manual, Continuous, "5m", "10m", "15m", "30m", "1h", "2h", "4h", "6h", "8h", "12h", Daily, Weekly}

// ParseInterval reads the name of an interval.
func ParseInterval(s string) (Interval, error) {
	if i := Interval(strings.ToLower(strings.TrimSpace(s))); slices.Contains(Intervals, i) {
		return i, nil
	}
	names := make([]string, len(Intervals))
	for i, v := range Intervals {
		names[i] = string(v)
	}
	return "", &Error{Code: CodeInvalid, Field: "interval", Msg: fmt.Sprintf("%.20q is not an interval", s), Hint: "use one of " + strings.Join(names, ", ")}
}

// Every is the time between two runs; 0 for the intervals that are no fixed time.
func (i Interval) Every() time.Duration {
	if i == Manual || i == Continuous || i == Daily || i == Weekly {
		return 0
	}
	d, err := time.ParseDuration(string(i))
	if err != nil {
		return 0
	}
	return d
}

// ClockTime is a time of day in minutes since midnight, as a clock on the wall shows
// it; written "18:00".
type ClockTime int

// ParseClockTime reads "18:00"; "24:00" is not a time of day.
func ParseClockTime(s string) (ClockTime, error) {
	t, err := time.Parse("15:04", s)
	if err != nil {
		return 0, &Error{Code: CodeInvalid, Field: "time", Msg: fmt.Sprintf("%.20q is not a time of day", s), Hint: `write hours and minutes, such as "18:00"; midnight is "00:00"`}
	}
	return ClockTime(t.Hour()*60 + t.Minute()), nil
}

func (c ClockTime) String() string { return fmt.Sprintf("%02d:%02d", int(c)/60, int(c)%60) }

// MarshalText writes "18:00".
func (c ClockTime) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalText reads "18:00".
func (c *ClockTime) UnmarshalText(b []byte) (err error) {
	*c, err = ParseClockTime(string(b))
	return err
}

// Weekday is a day of the week; written "mon".
type Weekday time.Weekday

var weekdayNames = [...]string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}

func (d Weekday) String() string { return weekdayNames[d] }

// MarshalText writes "mon".
func (d Weekday) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads "mon".
func (d *Weekday) UnmarshalText(b []byte) error {
	i := slices.Index(weekdayNames[:], strings.ToLower(string(b)))
	if i < 0 {
		return &Error{Code: CodeInvalid, Field: "days", Msg: fmt.Sprintf("%.20q is not a day of the week", b), Hint: "use mon, tue, wed, thu, fri, sat or sun"}
	}
	*d = Weekday(i)
	return nil
}

// Window is a time of certain days in which runs may begin. One whose To is not after
// its From goes on past midnight and belongs to the day on which it opens.
type Window struct {
	// Days on which the window opens; empty = every day.
	Days []Weekday `json:"days,omitempty"`
	From ClockTime `json:"from"`
	To   ClockTime `json:"to"`
	// Zone is a name of the time zone database, such as "Europe/London"; empty = UTC.
	Zone string `json:"zone,omitempty"`
}

// Schedule says when a sync type runs by itself.
type Schedule struct {
	Interval Interval `json:"interval"`
	// Windows in which a run may begin; empty = at any time.
	Windows []Window `json:"windows,omitempty"`
	// At is the time of day of daily and weekly runs without windows, in Zone; with
	// windows they begin when one opens.
	At   ClockTime `json:"at,omitempty"`
	Zone string    `json:"zone,omitempty"` // empty = UTC
}

// DefaultSchedule is how a sync type runs by itself until somebody decides otherwise.
func DefaultSchedule(t SyncType) Schedule {
	switch t {
	case SyncCRMMetadata:
		return Schedule{Interval: Daily, At: 2 * 60}
	case SyncScoring:
		return Schedule{Interval: Daily, At: 3 * 60}
	case SyncSuppressions, SyncUnsubscribes, SyncPreferences:
		return Schedule{Interval: "5m"}
	case SyncAddressBooksIn, SyncMarketingLists:
		return Schedule{Interval: Continuous}
	}
	return Schedule{Interval: "15m"}
}

// SyncState says whether a sync of one type waits or works now.
type SyncState string

// The states of a schedule's row.
const (
	SyncNone    SyncState = "none"
	SyncQueued  SyncState = "queued"
	SyncWorking SyncState = "in_process"
)

// SyncSchedule is the schedule of one sync type of one email account, and where it
// stands.
type SyncSchedule struct {
	Account string   `json:"account"`
	Type    SyncType `json:"type"`
	Schedule
	// Next is when the next run is due; zero: none is, by itself. One that is due begins
	// once nothing is in its way, see Waits.
	Next time.Time `json:"next,omitzero"`
	// Last is when the latest run began, whoever started it.
	Last  time.Time `json:"last,omitzero"`
	State SyncState `json:"state,omitempty"`
	// Waits says, for people, why nothing begins although it is due.
	Waits string `json:"waits,omitempty"`

	// Run is the run that the scheduler began last, Idle how many runs in a row found
	// nothing to do, and Pause how long the next one is put off; they are kept for continuous
	// schedules.
	Run   string        `json:"-"`
	Idle  int           `json:"-"`
	Pause time.Duration `json:"-"`
	// Again says that the CRM told of a change after that run was queued, which the run
	// may have come too early for. Earliest is the time before which such a word does
	// not start the next one.
	Again    bool      `json:"-"`
	Earliest time.Time `json:"-"`
}
