package dotdigital

import (
	"strings"
	"time"

	"github.com/lockstep-sync/lockstep"
)

// typed makes a value of the text that the service keeps for a field of this
// type. A text that does not fit the type is delivered as text: it is what stands
// there, and a conversion that cannot use it becomes a finding that a person sees.
func typed(t lockstep.FieldType, s string) lockstep.Value {
	switch t {
	case lockstep.FieldNumber:
		if v, ok := lockstep.ParseNumber(s); ok {
			return v
		}
	case lockstep.FieldDate:
		if at, ok := parseInstant(s); ok {
			if at.Year() <= 1 {
				return lockstep.NullValue() // 0001-01-01 is the service's "never"
			}
			return lockstep.TimeValue(at)
		}
	case lockstep.FieldBool:
		switch {
		case strings.EqualFold(s, "true"):
			return lockstep.BoolValue(true)
		case strings.EqualFold(s, "false"):
			return lockstep.BoolValue(false)
		}
	}
	return lockstep.TextValue(s)
}

// parseInstant reads a time in any form that the service writes: a T or a blank
// between day and clock, the clock with or without a fraction or missing, the zone
// as Z, +01:00, +0100 or missing. Without a zone it is UTC.
func parseInstant(s string) (t time.Time, ok bool) {
	if len(s) < 10 || len(s) > 40 || s[4] != '-' || s[7] != '-' {
		return t, false
	}
	year, ok1 := digits(s[0:4])
	month, ok2 := digits(s[5:7])
	day, ok3 := digits(s[8:10])
	if !ok1 || !ok2 || !ok3 || month < 1 || month > 12 || day < 1 || day > 28 && day > daysIn(year, month) {
		return t, false
	}
	if len(s) == 10 {
		return time.Date(year, time.Month(month), day, 0, 0, 0, 0, time.UTC), true
	}
	if len(s) < 16 || s[10] != 'T' && s[10] != ' ' || s[13] != ':' {
		return t, false
	}
	hour, ok1 := digits(s[11:13])
	minute, ok2 := digits(s[14:16])
	if !ok1 || !ok2 || hour > 23 || minute > 59 {
		return t, false
	}
	rest := s[16:]
	second, nanos := 0, 0
	if len(rest) >= 3 && rest[0] == ':' {
		if second, ok = digits(rest[1:3]); !ok || second > 59 {
			return t, false
		}
		rest = rest[3:]
		if len(rest) > 1 && rest[0] == '.' {
			i, scale := 1, 100_000_000
			for ; i < len(rest) && rest[i] >= '0' && rest[i] <= '9'; i++ {
				nanos += int(rest[i]-'0') * scale
				scale /= 10
			}
			if i == 1 {
				return t, false
			}
			rest = rest[i:]
		}
	}
	offset := 0
	switch {
	case rest == "" || rest == "Z" || rest == "z":
	case rest[0] == '+' || rest[0] == '-':
		zone := rest[1:]
		if len(zone) == 5 && zone[2] == ':' {
			zone = zone[:2] + zone[3:]
		}
		if len(zone) != 4 {
			return t, false
		}
		h, ok1 := digits(zone[:2])
		m, ok2 := digits(zone[2:])
		if !ok1 || !ok2 || h > 14 || m > 59 {
			return t, false
		}
		offset = h*3600 + m*60
		if rest[0] == '-' {
			offset = -offset
		}
	default:
		return t, false
	}
	return time.Date(year, time.Month(month), day, hour, minute, second, nanos, time.UTC).Add(-time.Duration(offset) * time.Second), true
}

func digits(s string) (n int, ok bool) {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
		n = n*10 + int(s[i]-'0')
	}
	return n, true
}

func daysIn(year, month int) int {
	return time.Date(year, time.Month(month)+1, 0, 0, 0, 0, 0, time.UTC).Day()
}

// standingOf reads the subscription status of the email channel, and the
// contact's own status where there is no channel. Both use the same words.
func standingOf(status string) lockstep.Standing {
	switch status {
	case "subscribed", "Subscribed":
		return lockstep.Subscribed
	case "":
		return lockstep.StandingUnknown
	}
	switch strings.ToLower(status) {
	case "subscribed":
		return lockstep.Subscribed
	case "unsubscribed":
		return lockstep.Unsubscribed
	case "softbounced":
		return lockstep.SoftBounced
	case "hardbounced":
		return lockstep.HardBounced
	case "ispcomplained", "directcomplaint", "knowncomplainer":
		return lockstep.Complained
	case "pendingoptin", "nosubscription":
		// Without a subscription nobody objected, but nobody agreed either: like a
		// holder who has not confirmed yet, the contact is not mailed.
		return lockstep.PendingOptIn
	case "suppressed":
		return lockstep.Suppressed
	case "deleted", "binned":
		return lockstep.ContactDeleted
	}
	// spamTrap, blockedlocalpart, sharedsuppression, sharedDomainSuppression,
	// domainSuppressed, purchased, knownLitigator, and whatever is added later.
	return lockstep.PlatformBlocked
}

func optInOf(s string) lockstep.OptInType {
	switch strings.ToLower(s) {
	case "single":
		return lockstep.OptInSingle
	case "double":
		return lockstep.OptInDouble
	case "verifieddouble":
		return lockstep.OptInVerifiedDouble
	}
	return lockstep.OptInUnknown
}
