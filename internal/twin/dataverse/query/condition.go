package query

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/lockstep-sync/lockstep/internal/twin/dataverse/value"
)

// maxUnits bounds the number of a relative date such as last-x-days.
const maxUnits = 1_000_000

// odataFunctions maps the functions of Microsoft.Dynamics.CRM to the FetchXML
// operators with the same meaning.
var odataFunctions = map[string]string{
	"In": "in", "NotIn": "not-in", "Between": "between", "NotBetween": "not-between",
	"ContainValues": "contain-values", "DoesNotContainValues": "not-contain-values",
	"EqualUserId": "eq-userid", "NotEqualUserId": "ne-userid",
	"EqualBusinessId": "eq-businessid", "NotEqualBusinessId": "ne-businessid",
	"EqualUserTeams": "eq-userteams", "EqualUserOrUserTeams": "eq-useroruserteams",
	"EqualUserLanguage": "eq-userlanguage",
	"On":                "on", "OnOrAfter": "on-or-after", "OnOrBefore": "on-or-before", "NotOn": "not-on",
	"Today": "today", "Yesterday": "yesterday", "Tomorrow": "tomorrow",
	"Last7Days": "last-seven-days", "Next7Days": "next-seven-days",
	"ThisWeek": "this-week", "LastWeek": "last-week", "NextWeek": "next-week",
	"ThisMonth": "this-month", "LastMonth": "last-month", "NextMonth": "next-month",
	"ThisYear": "this-year", "LastYear": "last-year", "NextYear": "next-year",
	"LastXHours": "last-x-hours", "LastXDays": "last-x-days", "LastXWeeks": "last-x-weeks", "LastXMonths": "last-x-months", "LastXYears": "last-x-years",
	"NextXHours": "next-x-hours", "NextXDays": "next-x-days", "NextXWeeks": "next-x-weeks", "NextXMonths": "next-x-months", "NextXYears": "next-x-years",
	"OlderThanXMinutes": "olderthan-x-minutes", "OlderThanXHours": "olderthan-x-hours", "OlderThanXDays": "olderthan-x-days",
	"OlderThanXWeeks": "olderthan-x-weeks", "OlderThanXMonths": "olderthan-x-months", "OlderThanXYears": "olderthan-x-years",
	// Known to the service, not emulated here; condition says so.
	"EqualUserOrUserHierarchy": "eq-useroruserhierarchy", "EqualUserOrUserHierarchyAndTeams": "eq-useroruserhierarchyandteams",
	"Above": "above", "AboveOrEqual": "eq-or-above", "Under": "under", "UnderOrEqual": "eq-or-under", "NotUnder": "not-under",
	"InFiscalPeriod": "in-fiscal-period", "InFiscalYear": "in-fiscal-year", "InFiscalPeriodAndYear": "in-fiscal-period-and-year",
	"InOrBeforeFiscalPeriodAndYear": "in-or-before-fiscal-period-and-year", "InOrAfterFiscalPeriodAndYear": "in-or-after-fiscal-period-and-year",
	"ThisFiscalPeriod": "this-fiscal-period", "LastFiscalPeriod": "last-fiscal-period", "NextFiscalPeriod": "next-fiscal-period",
	"ThisFiscalYear": "this-fiscal-year", "LastFiscalYear": "last-fiscal-year", "NextFiscalYear": "next-fiscal-year",
	"LastXFiscalPeriods": "last-x-fiscal-periods", "LastXFiscalYears": "last-x-fiscal-years",
	"NextXFiscalPeriods": "next-x-fiscal-periods", "NextXFiscalYears": "next-x-fiscal-years",
}

// unemulated are the operators of the service that the twin does not have.
func unemulated(operator string) bool {
	switch operator {
	case "eq-useroruserhierarchy", "eq-useroruserhierarchyandteams",
		"above", "eq-or-above", "under", "eq-or-under", "not-under":
		return true
	}
	return strings.Contains(operator, "fiscal")
}

// condition builds the test of one column by a FetchXML operator.
func condition(o operand, operator string, values []string) (node, error) {
	c := o.column
	if len(values) > MaxValues {
		return nil, refuse(CodeTooManyValues, "The condition on '%s' has %d values; at most %d are allowed.", c.LogicalName, len(values), MaxValues)
	}
	count := func(least, most int) error {
		if len(values) < least || len(values) > most {
			return refuse(CodeInvalidArgument, "The condition operator '%s' on '%s' does not take %d values.", operator, c.LogicalName, len(values))
		}
		return nil
	}
	wantKind := func(kinds ...value.Kind) error {
		if slices.Contains(kinds, c.Kind) {
			return nil
		}
		return refuse(CodeInvalidArgument, "The condition operator '%s' is not valid for the column '%s'.", operator, c.LogicalName)
	}

	if op, ok := relationNames[operator]; ok {
		if err := count(1, 1); err != nil {
			return nil, err
		}
		if (op != eq && op != ne) && (c.Kind == value.KindBool || c.Kind == value.KindGUID || c.Kind == value.KindMultiSelect) {
			return nil, wantKind()
		}
		v, err := fetchValue(c, values[0])
		if err != nil {
			return nil, err
		}
		return &compare{o, op, v}, nil
	}
	if f, ok := calendarSpans[operator]; ok {
		if err := count(0, 0); err != nil {
			return nil, err
		}
		if err := wantKind(value.KindDateTime, value.KindDate); err != nil {
			return nil, err
		}
		return &relativeTo{o: o, span: f}, nil
	}
	if unit, f, ok := countedSpan(operator); ok {
		if err := count(1, 1); err != nil {
			return nil, err
		}
		kinds := []value.Kind{value.KindDateTime, value.KindDate}
		if unit == "hours" || unit == "minutes" {
			kinds = kinds[:1]
		}
		if err := wantKind(kinds...); err != nil {
			return nil, err
		}
		n, err := strconv.Atoi(values[0])
		if err != nil || n < 1 || n > maxUnits {
			return nil, refuse(CodeInvalidArgument, "The condition operator '%s' on '%s' needs a whole number from 1 to %d.", operator, c.LogicalName, maxUnits)
		}
		return &relativeTo{o: o, span: func(e *Env) span { return f(e, unit, n) }}, nil
	}

	base, negated := operator, false
	switch operator {
	case "not-in", "not-between", "not-null", "not-on", "not-like", "not-contain-values":
		base, negated = operator[4:], true
	case "not-begin-with", "not-end-with":
		base, negated = strings.TrimSuffix(operator[4:], "-with")+"s-with", true
	case "ne-userid", "ne-businessid":
		base, negated = "eq"+operator[2:], true
	}
	switch base {
	case "null":
		if err := count(0, 0); err != nil {
			return nil, err
		}
		return &isNull{o, negated}, nil
	case "in":
		if err := count(1, MaxValues); err != nil {
			return nil, err
		}
		if c.Kind == value.KindMultiSelect {
			return nil, wantKind()
		}
		vs, err := fetchValues(c, values)
		if err != nil {
			return nil, err
		}
		return newIn(o, vs, negated), nil
	case "between":
		if err := count(2, 2); err != nil {
			return nil, err
		}
		if c.Kind == value.KindBool || c.Kind == value.KindGUID || c.Kind == value.KindMultiSelect {
			return nil, wantKind()
		}
		vs, err := fetchValues(c, values)
		if err != nil {
			return nil, err
		}
		return &between{o, vs[0], vs[1], negated}, nil
	case "like", "begins-with", "ends-with":
		if err := count(1, 1); err != nil {
			return nil, err
		}
		if err := wantKind(value.KindText); err != nil {
			return nil, err
		}
		text := values[0]
		if base == "ends-with" {
			text = "%" + text
		} else if base == "begins-with" {
			text += "%"
		}
		return &like{o, compileLike(text), negated}, nil
	case "contain-values":
		if err := count(1, MaxValues); err != nil {
			return nil, err
		}
		if err := wantKind(value.KindMultiSelect); err != nil {
			return nil, err
		}
		var options []int
		for _, s := range values {
			v, err := value.ParseText(s, value.KindInt)
			if err != nil {
				return nil, badValue(c, s)
			}
			options = append(options, int(v.Int()))
		}
		return &containsOptions{o, options, negated}, nil
	case "on", "on-or-after", "on-or-before":
		if err := count(1, 1); err != nil {
			return nil, err
		}
		if err := wantKind(value.KindDateTime, value.KindDate); err != nil {
			return nil, err
		}
		v, err := fetchValue(c, values[0])
		if err != nil {
			return nil, err
		}
		start := day(v.Time())
		s := spanOf(start, start.AddDate(0, 0, 1))
		switch base {
		case "on-or-after":
			s.to = forever
		case "on-or-before":
			s.from = ever
		}
		return &during{o: o, span: s, negated: negated, nulls: negated}, nil
	case "eq-userid", "eq-businessid", "eq-userteams", "eq-useroruserteams":
		if err := count(0, 0); err != nil {
			return nil, err
		}
		if err := wantKind(value.KindGUID); err != nil {
			return nil, err
		}
		return &ofUser{o, func(e *Env) []value.Value { return userIDs(e, base) }, negated}, nil
	case "eq-userlanguage":
		if err := count(0, 0); err != nil {
			return nil, err
		}
		if err := wantKind(value.KindInt); err != nil {
			return nil, err
		}
		return &ofUser{o, func(e *Env) []value.Value { return []value.Value{value.Int(int64(e.Language))} }, false}, nil
	}
	if unemulated(operator) {
		return nil, notEmulated("The condition operator '%s'", operator)
	}
	return nil, refuse(CodeInvalidArgument, "Invalid value '%.40s' for a condition operator.", operator)
}

func userIDs(e *Env, operator string) []value.Value {
	switch operator {
	case "eq-userid":
		return []value.Value{value.GUID(e.User)}
	case "eq-businessid":
		return []value.Value{value.GUID(e.BusinessUnit)}
	}
	var ids []value.Value
	if operator == "eq-useroruserteams" {
		ids = append(ids, value.GUID(e.User))
	}
	for _, t := range e.Teams {
		ids = append(ids, value.GUID(t))
	}
	return ids
}

func fetchValues(c Column, texts []string) ([]value.Value, error) {
	out := make([]value.Value, 0, len(texts))
	for _, s := range texts {
		v, err := fetchValue(c, s)
		if err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	return out, nil
}

// fetchValue reads a condition value: as value.ParseText, and Booleans also as 0
// and 1, date-times also without zone (then UTC).
func fetchValue(c Column, s string) (value.Value, error) {
	switch c.Kind {
	case value.KindBool:
		switch s {
		case "0":
			return value.Bool(false), nil
		case "1":
			return value.Bool(true), nil
		}
	case value.KindDateTime, value.KindDate:
		for _, layout := range [...]string{"2006-01-02T15:04:05", time.DateTime} {
			if t, err := time.Parse(layout, s); err == nil && !t.Before(value.MinTime) {
				return momentOf(c, value.DateTime(t)), nil
			}
		}
		if v, err := value.ParseDateTime(s); err == nil {
			return momentOf(c, v), nil
		}
		return value.Value{}, badValue(c, s)
	case value.KindDecimal, value.KindInt:
		// A whole-number column may be compared with a fraction.
		if v, err := value.ParseText(s, value.KindInt); err == nil {
			return v, nil
		}
		if v, err := value.ParseDecimal(s); err == nil {
			return v, nil
		}
		return value.Value{}, badValue(c, s)
	}
	v, err := value.ParseText(s, c.Kind)
	if err != nil || v.IsNull() {
		return value.Value{}, badValue(c, s)
	}
	return v, nil
}

func momentOf(c Column, v value.Value) value.Value {
	if c.Kind == value.KindDate {
		return value.DateOf(v.Time())
	}
	return v
}

func badValue(c Column, s string) error {
	return refuse(CodeInvalidArgument, "The value '%.40s' of the condition on '%s' is not a valid %s.", s, c.LogicalName, c.Kind)
}
