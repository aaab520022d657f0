package engine

import (
	"time"

	"github.com/lockstep-sync/lockstep"
)

// word is what a statement means for what stands against its address.
type word uint8

const (
	saidBefore word = iota // nothing new
	saidEcho               // the platform lists what it was told by us
	saidAnew               // a new act: it is noted, and everybody is told
	saidLate               // an act that the person's return has overtaken: its row is closed
)

// weigh says what a statement means, seen from what stands: r, nil when nothing does.
// noted is whether the ledger has this very statement already, and back when the
// person came back last, as far as that is known; zero = never.
//
// An act is new when the ledger does not have it, not when it is stricter than what
// stands: a person may have come back in between without anybody having seen it, and
// then everybody has to be told anew. Who said something when is compared within one
// system. Only whether a row of the CRM is older than the person's return on the
// platform is told by two clocks; the CRM tells whole seconds, and within one the
// opt-out counts.
func weigh(r *lockstep.Restriction, st *statement, noted bool, back time.Time) word {
	stands := r != nil && r.Released.IsZero()
	switch {
	case st.scope == lockstep.ScopeAccount && st.system == lockstep.ConsentPlatform:
		return weighListed(r, st, noted)
	case st.scope == lockstep.ScopeAccount && st.ref.Table == lockstep.SuppressionTable:
		switch {
		case stands && noted:
			return saidBefore
		case stands:
			return saidAnew
		case noted && !st.edited.Before(back.Truncate(time.Second)), !noted && !st.at.Before(back.Truncate(time.Second)):
			return saidAnew // a row that was closed and is open again was opened by a user
		case r != nil && noted:
			return saidBefore // it is about to be closed
		}
		return saidLate
	case r == nil:
		return saidAnew
	case stands && st.reason <= r.Reason:
		return saidBefore
	case !stands && st.at.Before(r.Released.Truncate(time.Second)) && !st.at.IsZero():
		return saidBefore
	}
	return saidAnew
}

// weighListed weighs that the platform lists an address among those which it does not
// mail.
func weighListed(r *lockstep.Restriction, st *statement, noted bool) word {
	switch {
	case noted && !st.at.IsZero():
		return saidBefore
	case r == nil:
		return saidAnew
	case !r.Released.IsZero():
		if !st.at.IsZero() && st.at.Before(r.Released) {
			return saidBefore
		}
		return saidAnew
	case st.reason > lockstep.Suppressed && st.reason > r.Reason:
		return saidAnew // a complaint is more than what we told
	}
	_, told := r.Told[toldPlatform]
	listed := r.ListedSince()
	switch {
	case !listed.IsZero() && !st.at.After(listed):
		return saidBefore
	case !told:
		return saidAnew
	case listed.IsZero():
		return saidEcho
	}
	return saidAnew
}
