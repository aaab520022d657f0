package merge

import (
	"time"

	lockstep "github.com/lockstep-sync/lockstep"
)

// The reasons that Excluded gives.
const (
	ExcludedDoNotEmail   = "the record does not allow email"
	ExcludedBulkEmail    = "the record does not allow bulk email"
	ExcludedMaterial     = "the record does not allow marketing material"
	ExcludedUnsubscribed = "unsubscribed from this list"
	ExcludedSuppressed   = "in the account's suppression list"
	ExcludedOptIn        = "the opt-in type is lower than the list demands"
)

// Excluded applies a list's subscription filter to one person. A record that
// allows no email at all is excluded under every filter. minOptIn counts only
// with FilterOptInAtLeast. An unknown filter is treated as the default one.
func Excluded(filter lockstep.SubscriptionFilter, minOptIn lockstep.OptInType, optOut lockstep.OptOut, standing lockstep.Standing, listUnsubscribed bool, optIn lockstep.OptInType) (reason string, excluded bool) {
	if optOut&lockstep.DoNotEmail != 0 {
		return ExcludedDoNotEmail, true
	}
	bulk := optOut&lockstep.DoNotBulkEmail != 0
	switch filter {
	case lockstep.FilterNone:
	case lockstep.FilterMaterial:
		if !bulk && optOut&lockstep.DoNotMaterial != 0 {
			return ExcludedMaterial, true
		}
		if bulk {
			return ExcludedBulkEmail, true
		}
	case lockstep.FilterListUnsubscribers:
		if listUnsubscribed {
			return ExcludedUnsubscribed, true
		}
	case lockstep.FilterSuppressed:
		if standing >= lockstep.Unsubscribed {
			return ExcludedSuppressed, true
		}
	case lockstep.FilterOptInAtLeast:
		if optIn < minOptIn {
			return ExcludedOptIn, true
		}
	default: // bulk email and any opt-out: email as a whole was looked at above
		if bulk {
			return ExcludedBulkEmail, true
		}
	}
	return "", false
}

// Consent is how far a person allows to be mailed. Values are ordered: the
// greater one is the stricter one and wins.
type Consent uint8

// The steps, from free to blocked for good.
const (
	ConsentGiven Consent = iota
	ConsentUnconfirmed
	ConsentPreferenceRefused
	ConsentListRefused
	ConsentBulkRefused
	ConsentEmailRefused
	ConsentAllRefused // unsubscribed from everything
	ConsentBlocked    // complaint, hard bounce, or blocked by an owner
)

var consentNames = [...]string{"given", "unconfirmed", "preference_refused", "list_refused", "bulk_email_refused", "email_refused", "all_refused", "blocked"}

func (c Consent) String() string {
	if int(c) < len(consentNames) {
		return consentNames[c]
	}
	return "invalid"
}

// ConsentOf returns the strictest of what both systems say about one person.
func ConsentOf(standing lockstep.Standing, optOut lockstep.OptOut, listUnsubscribed, preferenceRefused bool) Consent {
	c := ConsentGiven
	switch standing {
	case lockstep.PendingOptIn:
		c = ConsentUnconfirmed
	case lockstep.Unsubscribed:
		c = ConsentAllRefused
	case lockstep.Suppressed, lockstep.HardBounced, lockstep.Complained, lockstep.PlatformBlocked, lockstep.ContactDeleted:
		c = ConsentBlocked
	}
	if optOut&lockstep.DoNotEmail != 0 {
		c = max(c, ConsentEmailRefused)
	}
	if optOut&lockstep.DoNotBulkEmail != 0 {
		c = max(c, ConsentBulkRefused)
	}
	if listUnsubscribed {
		c = max(c, ConsentListRefused)
	}
	if preferenceRefused {
		c = max(c, ConsentPreferenceRefused)
	}
	return c
}

// Act is one statement about consent: what, when, and whether the person's own
// explicit act proves it (a form, a confirmed opt-in, a consent record).
type Act struct {
	Consent  Consent
	At       time.Time // zero = unknown
	Evidence bool
}

// Prevailing returns the statement that counts of two. The stricter one does,
// unless the freer one is explicit, evidenced and known to be newer.
func Prevailing(a, b Act) Act {
	strict, free := a, b
	if b.Consent > a.Consent {
		strict, free = b, a
	}
	if free.Consent < strict.Consent && free.Evidence && newer(free.At, strict.At) {
		return free
	}
	return strict
}
