package query

import (
	"math"
	"strings"
	"time"
)

// span is a half-open stretch of time in seconds since 1970.
type span struct{ from, to int64 }

const (
	ever    = math.MinInt64
	forever = math.MaxInt64
)

func spanOf(from, to time.Time) span { return span{from.Unix(), to.Unix()} }

func day(t time.Time) time.Time {
	y, m, d := t.UTC().Date()
	return time.Date(y, m, d, 0, 0, 0, 0, time.UTC)
}

func (e *Env) week(t time.Time) time.Time {
	d := day(t)
	return d.AddDate(0, 0, -((int(d.Weekday()) - int(e.WeekStart) + 7) % 7))
}

func month(t time.Time) time.Time {
	return time.Date(t.Year(), t.Month(), 1, 0, 0, 0, 0, time.UTC)
}

func year(t time.Time) time.Time { return time.Date(t.Year(), 1, 1, 0, 0, 0, 0, time.UTC) }

// addMonths keeps to the end of a shorter month: 31 March less one month is the
// last of February.
func addMonths(t time.Time, n int) time.Time {
	first := time.Date(t.Year(), t.Month(), 1, t.Hour(), t.Minute(), t.Second(), 0, time.UTC).AddDate(0, n, 0)
	last := first.AddDate(0, 1, -1).Day()
	return first.AddDate(0, 0, min(t.Day(), last)-1)
}

// calendarSpans are the relative dates without a number.
var calendarSpans = map[string]func(*Env) span{
	"yesterday":       func(e *Env) span { d := day(e.Now); return spanOf(d.AddDate(0, 0, -1), d) },
	"today":           func(e *Env) span { d := day(e.Now); return spanOf(d, d.AddDate(0, 0, 1)) },
	"tomorrow":        func(e *Env) span { d := day(e.Now); return spanOf(d.AddDate(0, 0, 1), d.AddDate(0, 0, 2)) },
	"last-seven-days": func(e *Env) span { return last(e, "days", 7) },
	"next-seven-days": func(e *Env) span { return next(e, "days", 7) },
	"last-week":       func(e *Env) span { w := e.week(e.Now); return spanOf(w.AddDate(0, 0, -7), w) },
	"this-week":       func(e *Env) span { w := e.week(e.Now); return spanOf(w, w.AddDate(0, 0, 7)) },
	"next-week":       func(e *Env) span { w := e.week(e.Now); return spanOf(w.AddDate(0, 0, 7), w.AddDate(0, 0, 14)) },
	"last-month":      func(e *Env) span { m := month(e.Now); return spanOf(m.AddDate(0, -1, 0), m) },
	"this-month":      func(e *Env) span { m := month(e.Now); return spanOf(m, m.AddDate(0, 1, 0)) },
	"next-month":      func(e *Env) span { m := month(e.Now); return spanOf(m.AddDate(0, 1, 0), m.AddDate(0, 2, 0)) },
	"last-year":       func(e *Env) span { y := year(e.Now); return spanOf(y.AddDate(-1, 0, 0), y) },
	"this-year":       func(e *Env) span { y := year(e.Now); return spanOf(y, y.AddDate(1, 0, 0)) },
	"next-year":       func(e *Env) span { y := year(e.Now); return spanOf(y.AddDate(1, 0, 0), y.AddDate(2, 0, 0)) },
}

// countedSpan finds the relative date with a number: last-x-days and so on.
func countedSpan(operator string) (unit string, f func(*Env, string, int) span, ok bool) {
	for prefix, f := range map[string]func(*Env, string, int) span{"last-x-": last, "next-x-": next, "olderthan-x-": olderThan} {
		if unit, found := strings.CutPrefix(operator, prefix); found {
			switch unit {
			case "hours", "days", "weeks", "months", "years":
				return unit, f, true
			case "minutes":
				return unit, f, prefix == "olderthan-x-"
			}
		}
	}
	return "", nil, false
}

// shift moves t by n units; units of a day and more start at midnight, hours at
// the full hour.
func shift(t time.Time, unit string, n int) time.Time {
	switch unit {
	case "minutes":
		return t.Add(time.Duration(n) * time.Minute)
	case "hours":
		return t.Add(time.Duration(n) * time.Hour)
	case "days":
		return t.AddDate(0, 0, n)
	case "weeks":
		return t.AddDate(0, 0, 7*n)
	case "months":
		return addMonths(t, n)
	}
	return addMonths(t, 12*n)
}

func floor(t time.Time, unit string) time.Time {
	switch unit {
	case "minutes":
		return t
	case "hours":
		return t.Truncate(time.Hour)
	}
	return day(t)
}

// last is from the start of the day (or hour) n units ago up to and including
// now.
func last(e *Env, unit string, n int) span {
	return span{floor(shift(e.Now, unit, -n), unit).Unix(), e.Now.Unix() + 1}
}

// next is from now to the end of the day (or hour) in n units.
func next(e *Env, unit string, n int) span {
	end := floor(shift(e.Now, unit, n), unit)
	if unit == "hours" {
		end = end.Add(time.Hour)
	} else {
		end = end.AddDate(0, 0, 1)
	}
	return spanOf(e.Now, end)
}

// olderThan is everything before the start of the day n units ago; hours and
// minutes count to the second.
func olderThan(e *Env, unit string, n int) span {
	t := shift(e.Now, unit, -n)
	if unit != "hours" && unit != "minutes" {
		t = day(t)
	}
	return span{ever, t.Unix()}
}
