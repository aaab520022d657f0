// Package schedule works out when a sync type is due. It knows intervals, windows and
// time zones and nothing else: no clock, no storage, no runs.
//
// Times of day are those that a clock on the wall shows. Where the clocks are put
// forward, a time that they skip is the moment at which they are put; where they are
// put back, a time that they show twice is the first of the two. So something that is
// due once a day is due once on each day of the year.
package schedule

import (
	"fmt"
	"slices"
	"time"

	"github.com/lockstep-sync/lockstep"
)

// maxWindows bounds what a schedule can ask for.
const maxWindows = 50

// Plan is a schedule that can be asked for times. It is safe for concurrent use.
type Plan struct {
	interval lockstep.Interval
	windows  []window
	at       lockstep.ClockTime
	zone     *time.Location
}

type window struct {
	days     [7]bool
	from, to lockstep.ClockTime
	zone     *time.Location
}

// New checks a schedule. An error names the field and what to write instead.
func New(s lockstep.Schedule) (*Plan, error) {
	interval, err := lockstep.ParseInterval(string(s.Interval))
	if err != nil {
		return nil, err
	}
	p := &Plan{interval: interval, at: s.At}
	if p.zone, err = zone("zone", s.Zone); err != nil {
		return nil, err
	}
	if s.At < 0 || s.At >= 24*60 {
		return nil, invalid("at", "the time of day is outside a day", `write hours and minutes, such as "02:00"`)
	}
	if len(s.Windows) > maxWindows {
		return nil, invalid("windows", fmt.Sprintf("there are %d windows", len(s.Windows)), fmt.Sprintf("use at most %d", maxWindows))
	}
	for i, w := range s.Windows {
		v := window{from: w.From, to: w.To}
		if v.zone, err = zone(fmt.Sprintf("windows[%d].zone", i), w.Zone); err != nil {
			return nil, err
		}
		if w.From < 0 || w.From >= 24*60 || w.To < 0 || w.To >= 24*60 {
			return nil, invalid(fmt.Sprintf("windows[%d]", i), "the window begins or ends outside a day", `write hours and minutes, such as "18:00"; midnight is "00:00"`)
		}
		for _, d := range w.Days {
			if d < 0 || d > 6 {
				return nil, invalid(fmt.Sprintf("windows[%d].days", i), "there is no such day of the week", "use mon, tue, wed, thu, fri, sat or sun")
			}
			v.days[d] = true
		}
		if len(w.Days) == 0 {
			v.days = [7]bool{true, true, true, true, true, true, true}
		}
		p.windows = append(p.windows, v)
	}
	return p, nil
}

func invalid(field, msg, hint string) error {
	return &lockstep.Error{Code: lockstep.CodeInvalid, Field: field, Msg: msg, Hint: hint}
}

func zone(field, name string) (*time.Location, error) {
	if name == "" {
		return time.UTC, nil
	}
	z, err := time.LoadLocation(name)
	if err != nil || name == "Local" { // which zone that is depends on the machine
		return nil, invalid(field, fmt.Sprintf("%.40q is not a time zone", name), `use a name such as "Europe/London", or leave it out for UTC`)
	}
	return z, nil
}

// Next is when the run after one that began at last is due; false when none ever is.
func (p *Plan) Next(last time.Time) (time.Time, bool) {
	switch p.interval {
	case lockstep.Manual:
		return time.Time{}, false
	case lockstep.Daily:
		return p.daysAfter(last, 1), true
	case lockstep.Weekly:
		return p.daysAfter(last, 7), true
	}
	due := last.Add(p.interval.Every())
	if p.Open(due) {
		return due, true
	}
	return p.opening(due), true
}

// longGap is how far back times that were missed are counted one by one. A window opens
// at least once in it.
const longGap = 8 * 24 * time.Hour

// Following is when the run after one that was due at due is due, if it is now already:
// of the times that were missed meanwhile none is left. False when none ever is.
func (p *Plan) Following(due, now time.Time) (time.Time, bool) {
	if every := p.interval.Every(); every > 0 && now.Sub(due) > longGap {
		due = due.Add((now.Sub(due) - longGap).Truncate(every))
	}
	for {
		next, ok := p.Next(due)
		if !ok || next.After(now) || !next.After(due) {
			return next, ok
		}
		due = next
	}
}

// Opening is the first moment, not before t, at which a run may begin.
func (p *Plan) Opening(t time.Time) time.Time {
	if p.Open(t) {
		return t
	}
	return p.opening(t)
}

// Times are the next n times after a moment.
func (p *Plan) Times(from time.Time, n int) []time.Time {
	var out []time.Time
	for len(out) < n {
		next, ok := p.Next(from)
		if !ok || !next.After(from) { // continuous
			if ok && len(out) == 0 {
				out = append(out, next)
			}
			break
		}
		out, from = append(out, next), next
	}
	return out
}

// Open reports whether a run may begin at t.
func (p *Plan) Open(t time.Time) bool {
	return len(p.windows) == 0 || slices.ContainsFunc(p.windows, func(w window) bool { return w.open(t) })
}

func (w window) open(t time.Time) bool {
	today := dateOf(t, w.zone)
	for _, d := range [...]date{today.add(-1), today} {
		opens, closes := w.on(d)
		if w.days[d.weekday()] && !t.Before(opens) && t.Before(closes) {
			return true
		}
	}
	return false
}

// on is the window that opens on a day.
func (w window) on(d date) (opens, closes time.Time) {
	end := d
	if w.to <= w.from {
		end = d.add(1)
	}
	return d.at(w.from, w.zone), end.at(w.to, w.zone)
}

// opening is the first moment, not before t, at which a window opens.
func (p *Plan) opening(t time.Time) time.Time {
	var first time.Time
	for _, w := range p.windows {
		for d, i := dateOf(t, w.zone).add(-1), 0; i < 10; d, i = d.add(1), i+1 {
			opens, closes := w.on(d)
			if !w.days[d.weekday()] || opens.Before(t) || !closes.After(opens) {
				continue
			}
			if first.IsZero() || opens.Before(first) {
				first = opens
			}
			break
		}
	}
	return first
}

// daysAfter is the time of day of a run that is due days after last: at the first
// opening of a window then or later, or at the schedule's own time of day.
func (p *Plan) daysAfter(last time.Time, days int) time.Time {
	if len(p.windows) == 0 {
		return dateOf(last, p.zone).add(days).at(p.at, p.zone)
	}
	// The day is that of the windows' zone; the first window's, if they differ.
	z := p.windows[0].zone
	return p.opening(dateOf(last, z).add(days).at(0, z))
}

// date is a day of the calendar.
type date struct {
	year  int
	month time.Month
	day   int
}

func dateOf(t time.Time, z *time.Location) date {
	y, m, d := t.In(z).Date()
	return date{y, m, d}
}

func (d date) noon() time.Time { return time.Date(d.year, d.month, d.day, 12, 0, 0, 0, time.UTC) }

func (d date) add(n int) date                        { return dateOf(d.noon().AddDate(0, 0, n), time.UTC) }
func (d date) weekday() time.Weekday                 { return d.noon().Weekday() }
func (d date) is(t time.Time, z *time.Location) bool { return dateOf(t, z) == d }

// at is the first moment of the day at which a clock in the zone shows c, or would
// have, had it not been put forward past it.
func (d date) at(c lockstep.ClockTime, z *time.Location) time.Time {
	wall := time.Date(d.year, d.month, d.day, int(c)/60, int(c)%60, 0, 0, time.UTC)
	// The zone's offsets on both sides of any change near that day.
	_, before := wall.Add(-36 * time.Hour).In(z).Zone()
	_, after := wall.Add(36 * time.Hour).In(z).Zone()
	early, late := wall.Add(-time.Duration(max(before, after))*time.Second), wall.Add(-time.Duration(min(before, after))*time.Second)
	for _, t := range [...]time.Time{early, late} {
		if l := t.In(z); d.is(t, z) && l.Hour()*60+l.Minute() == int(c) {
			return t
		}
	}
	_, change := early.In(z).ZoneBounds() // skipped: the clocks are put forward here
	if change.IsZero() || change.After(late) {
		return late
	}
	return change.UTC()
}
