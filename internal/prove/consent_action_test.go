package prove

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/app"
	"github.com/lockstep-sync/lockstep/internal/twin/dotdigital"
)

// preferences are the marketing preferences of the simulated company; their ids on
// the platform count from 1.
var preferences = []string{"News", "Offers"}

// consentActions are what people say about being mailed.
var consentActions = []action{
	{"opt out in the CRM", 5, func(w *people) string {
		r := w.someone()
		if r == nil {
			return ""
		}
		if w.rnd.IntN(4) == 0 { // somebody closes too what is closed already
			for _, x := range w.shuffled("contact", "lead", "account") {
				if x.cols["donotbulkemail"] == "true" && x.cols["donotemail"] != "true" {
					return w.edit(x, cols{"donotemail": true})
				}
			}
		}
		return w.edit(r, cols{pick(w.rnd, []string{"donotbulkemail", "donotbulkemail", "donotemail"}): true})
	}, false},
	{"opt in in the CRM", 3, func(w *people) string {
		var open *record
		of := w.rnd.IntN(2) == 0 // somebody whom the platform does not mail
		for _, r := range w.shuffled("contact", "lead", "account") {
			if !r.optedOut() {
				continue
			}
			if c := w.history.byEmail(r.email()); open == nil || of && c != nil && c.blocked() {
				open = r
			}
		}
		if open == nil {
			return ""
		}
		return w.edit(open, cols{"donotbulkemail": false, "donotemail": false})
	}, false},
	{"unsubscribe on the platform", 4, func(w *people) string {
		c := w.subscriber()
		if c == nil {
			return ""
		}
		w.mail("POST", "/v2/contacts/unsubscribe", cols{"email": c.email}, nil)
		return c.email + " unsubscribes"
	}, false},
	{"unsubscribe from a book", 4, func(w *people) string {
		c := w.subscriber()
		if c == nil || len(c.in) == 0 {
			return ""
		}
		book := pick(w.rnd, sortedKeys(c.in))
		w.mail("POST", "/v2/address-books/"+book+"/contacts/unsubscribe", cols{"email": c.email}, nil)
		return c.email + " unsubscribes from book " + book
	}, false},
	{"complain", 1, func(w *people) string { return w.does(w.subscriber(), dotdigital.Act{Kind: dotdigital.Complain}) }, false},
	{"bounce for good", 1, func(w *people) string { return w.does(w.subscriber(), dotdigital.Act{Kind: dotdigital.HardBounce}) }, false},
	{"bounce for now", 1, func(w *people) string {
		c := w.subscriber()
		if c == nil {
			return ""
		}
		for range 20 { // as many as the platform waits for
			w.mailer.Bounce(c.email, false)
		}
		return c.email + " bounces softly"
	}, false},
	{"subscribe again", 2, func(w *people) string {
		if c := w.unsubscribed(); c != nil {
			w.mail("POST", "/v2/contacts/resubscribe-with-no-challenge", cols{"unsubscribedContact": cols{"email": c.email}}, nil)
			return c.email + " subscribes again"
		}
		return ""
	}, false},
	{"subscribe again by a form", 2, func(w *people) string {
		return w.does(w.unsubscribed(), dotdigital.Act{Kind: dotdigital.Resubscribe})
	}, false},
	{"ask to be mailed again", 2, func(w *people) string {
		if w.during {
			return "" // the product is busy, and so is whoever would drive it
		}
		all, err := w.app.Suppressions(w.ctx, app.SuppressionFilter{Account: w.account, Limit: 1000})
		if err != nil {
			w.t.Fatal(err)
		}
		if w.rnd.IntN(2) == 0 { // while others have not heard of the opt-out yet
			all = slices.DeleteFunc(all, func(x app.Suppression) bool { return !x.Pending })
		}
		w.rnd.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		for _, x := range all {
			if x.Scope == lockstep.ScopeAccount && x.Released.IsZero() && x.Asked.IsZero() {
				w.queued = true
				err := w.work(func(ctx context.Context) error {
					_, err := w.app.Resubscribe(ctx, x.ID, "a letter of the person", "Kim Abel")
					return err
				})
				return fmt.Sprintf("%s wants to be mailed again: %v", x.Email, err)
			}
		}
		return ""
	}, false},
	{"confirm", 3, func(w *people) string {
		for _, c := range w.contacts() {
			if w.mailer.Act(dotdigital.Act{Email: c.email, Kind: dotdigital.Confirm}) == nil {
				return c.email + " confirms"
			}
		}
		return ""
	}, false},
	{"suppress in the product", 1, func(w *people) string {
		email := w.anyAddress()
		if w.during || email == "" {
			return ""
		}
		_, _, err := w.app.Suppress(w.ctx, app.SuppressRequest{
			Account: w.account, Email: email, Evidence: "a letter", Actor: "Kim Abel",
			Reason: pick(w.rnd, []string{"", "unsubscribed", "complained"}),
		})
		if err == nil {
			w.closed[email], w.queued = len(w.history.changes), true
		}
		return fmt.Sprintf("the product closes %s: %v", email, err)
	}, false},
	{"enter a suppression in the CRM", 2, func(w *people) string {
		email := w.anyAddress()
		if email == "" {
			return ""
		}
		c := cols{"lockstep_suppressionid": recordID(w.rnd), "lockstep_name": "by hand", "lockstep_email": email}
		if w.rnd.IntN(2) == 0 {
			c["lockstep_account"] = w.account
		}
		w.crm("POST", "lockstep_suppressions", c, nil)
		return "the CRM suppresses " + email
	}, false},
	{"take out a row about an opt-out", 1, func(w *people) string {
		for _, r := range w.shuffled(lockstep.SuppressionTable, lockstep.UnsubscriberTable) {
			w.crm("DELETE", r.table+"s("+r.id+")", nil, nil)
			return "the CRM loses the row " + r.id + " about " + r.cols["lockstep_email"]
		}
		return ""
	}, false},
	{"choose on the platform", 6, func(w *people) string {
		c := w.subscriber()
		return w.does(c, dotdigital.Act{Kind: dotdigital.Prefer, Preference: w.preference(), OptedIn: w.rnd.IntN(2) == 0})
	}, false},
	{"choose in the CRM", 6, func(w *people) string {
		rows := w.shuffled(lockstep.ChoiceTable)
		if w.rnd.IntN(4) == 0 { // of somebody who is closed to all mail
			for _, r := range rows {
				if c := w.history.byEmail(lower(r.cols["lockstep_email"])); c != nil && c.blocked() && r.cols["lockstep_optedin"] == "false" {
					return w.edit(r, cols{"lockstep_optedin": true})
				}
			}
		}
		if len(rows) > 0 && w.rnd.IntN(3) > 0 {
			return w.edit(rows[0], cols{"lockstep_optedin": rows[0].cols["lockstep_optedin"] != "true"})
		}
		r := w.someone()
		if r == nil || !usable(r.email()) {
			return ""
		}
		return w.choose(r.cols["emailaddress1"], w.preference(), w.rnd.IntN(2) == 0)
	}, false},
	{"choose differently on both sides", 3, func(w *people) string {
		r := w.linked()
		if r == nil {
			return ""
		}
		p, in := w.preference(), w.rnd.IntN(2) == 0
		c := w.history.byEmail(r.email())
		did := w.does(c, dotdigital.Act{Kind: dotdigital.Prefer, Preference: p, OptedIn: in})
		for _, row := range w.history.alive(lockstep.ChoiceTable) {
			if row.choice() == (choice{c.email, strconv.Itoa(int(p))}) {
				if row.cols["lockstep_optedin"] == strconv.FormatBool(!in) {
					return did // saying it again would be a newer word
				}
				return did + "; " + w.edit(row, cols{"lockstep_optedin": !in})
			}
		}
		return did + "; " + w.choose(c.email, p, !in)
	}, false},
	{"take out the row of a choice", 1, func(w *people) string {
		for _, r := range w.shuffled(lockstep.ChoiceTable) {
			w.crm("DELETE", r.table+"s("+r.id+")", nil, nil)
			return "the CRM loses the row " + r.id + " of a choice of " + r.cols["lockstep_email"]
		}
		return ""
	}, false},
	{"change the opt-in type", 3, func(w *people) string {
		c := w.subscriber()
		if c == nil {
			return ""
		}
		to := pick(w.rnd, []string{"unknown", "single", "double"})
		w.mail("PATCH", "/contacts/v3/contactId/"+c.id, cols{"channelProperties": cols{"email": cols{"optInType": to}}}, nil)
		return "contact " + c.id + " " + c.email + ": opt-in type " + to
	}, false},
}

// massActions do something to many at once, and setting things up anew belongs to
// them: what they lead to a guard has to look at.
var massActions = []action{
	{"empty a marketing list", 1, func(w *people) string {
		l := w.staticList()
		m := sortedKeys(w.history.members[l.id()])
		for _, id := range m {
			w.crm("POST", fmt.Sprintf("lists(%s)/Microsoft.Dynamics.CRM.RemoveMemberList", l.id()), cols{"EntityId": id}, nil)
		}
		return fmt.Sprintf("list %s loses all %d", l.name, len(m))
	}, false},
	{"clear a column of many", 1, func(w *people) string {
		n := 0
		for _, r := range w.shuffled("contact") {
			if r.cols["jobtitle"] != "" {
				w.edit(r, cols{"jobtitle": nil})
				n++
			}
		}
		return fmt.Sprintf("%d contacts have no job title any more", n)
	}, false},
	{"change a column of many", 1, func(w *people) string {
		all := w.shuffled("contact")
		for i, r := range all {
			w.edit(r, cols{"jobtitle": fmt.Sprint(w.word, " ", i)})
		}
		return fmt.Sprintf("%d contacts have another job title", len(all))
	}, false},
	{"break or mend the query of a dynamic list", 1, func(w *people) string {
		for _, l := range lists {
			if l.dynamic == "" {
				continue
			}
			var row struct{ Query string }
			w.crm("GET", "lists("+l.id()+")?$select=query", nil, &row)
			query := strings.ReplaceAll(row.Query, "address1_city", "address9_city")
			if query == row.Query {
				query = strings.ReplaceAll(row.Query, "address9_city", "address1_city")
			}
			w.crm("PATCH", "lists("+l.id()+")", cols{"query": query}, nil)
			return "list " + l.name + " asks " + query
		}
		return ""
	}, false},
	{"edit a mapping", 1, func(w *people) string {
		if w.during {
			return ""
		}
		all, err := w.app.Mappings(w.ctx, w.account)
		if err != nil {
			w.t.Fatal(err)
		}
		for _, m := range all {
			if m.Label == "COUNTRY" {
				return fmt.Sprintf("COUNTRY is not mapped any more: %v", w.app.DeleteMapping(w.ctx, m.ID))
			}
		}
		_, err = w.app.SaveMapping(w.ctx, lockstep.DataMapping{Account: w.account, Label: "COUNTRY", Table: "contact", Direction: lockstep.ToPlatform, Column: "address1_country"})
		return fmt.Sprintf("COUNTRY is mapped: %v", err)
	}, false},
	{"pause or resume", 2, func(w *people) string {
		switch {
		case w.during:
			return ""
		case w.paused != nil:
			w.resume()
			return "goes on"
		}
		if _, err := w.app.LockAccount(w.ctx, w.account, "somebody looks at something"); err != nil {
			w.t.Fatal(err)
		}
		w.paused = func() {
			if _, err := w.app.UnlockAccount(w.ctx, w.account, "Kim Abel", "nothing was wrong"); err != nil {
				w.t.Fatal(err)
			}
		}
		return "pauses"
	}, false},
}

// resume takes back what a person paused.
func (s *sim) resume() {
	if s.paused != nil {
		s.paused()
		s.paused = nil
	}
}

// does has the holder of a contact's address do something without any API.
func (w *people) does(c *contact, a dotdigital.Act) string {
	if c == nil {
		return ""
	}
	a.Email = c.email
	err := w.mailer.Act(a)
	did := fmt.Sprintf("%s does %s", c.email, a.Kind)
	if a.Kind == dotdigital.Prefer {
		did += fmt.Sprintf(" %d %t", a.Preference, a.OptedIn)
	}
	if err != nil {
		did += " REFUSED " + err.Error()
	}
	return did
}

func (w *people) unsubscribed() *contact {
	for _, c := range w.contacts() {
		if c.status == "unsubscribed" {
			return c
		}
	}
	return nil
}

// anyAddress is one that either side knows.
func (w *people) anyAddress() string {
	if c := w.contacts(); w.rnd.IntN(2) == 0 && len(c) > 0 {
		return c[0].email
	}
	if r := w.someone(); r != nil && usable(r.email()) {
		return r.email()
	}
	return ""
}

func (w *people) preference() int32 { return int32(1 + w.rnd.IntN(len(preferences))) }

// choose enters a choice in the CRM.
func (w *people) choose(email string, preference int32, in bool) string {
	w.crm("POST", "lockstep_preferencechoices", cols{
		"lockstep_preferencechoiceid": recordID(w.rnd), "lockstep_name": "by hand", "lockstep_email": email, "lockstep_account": w.account,
		"lockstep_preferencekey": strconv.Itoa(int(preference)), "lockstep_optedin": in,
	}, nil)
	return fmt.Sprintf("the CRM says of %s and preference %d: %t", email, preference, in)
}

// choice is one address and preference.
type choice struct{ email, preference string }

// choice is what a row of our table is about.
func (r *record) choice() choice {
	return choice{lower(r.cols["lockstep_email"]), r.cols["lockstep_preferencekey"]}
}

// blocked reports whether the account may not mail the contact.
func (c *contact) blocked() bool { return blocking(c.status) }

func blocking(status string) bool {
	return !slices.Contains([]string{"", "subscribed", "softBounced", "pendingOptIn", "noSubscription"}, status)
}

// chosen returns what a contact said of a preference: "true", "false" or "".
func (c *contact) chosen(preference string) string { return c.fields["preference:"+preference] }

func isChoice(name string) (preference string, ok bool) {
	return strings.CutPrefix(name, "preference:")
}

// poison chooses the record that a plug-in guards, where the plan wants one: a person
// in a list, so that there is something to write. Nothing of it may keep the others
// from being written.
func (s *sim) poison() {
	if !s.plan.Poison {
		return
	}
	for _, r := range s.history.alive("contact") {
		for _, in := range s.history.members {
			if in[r.id] && r.email() != "" {
				s.injector.poisoned = r.id
				return
			}
		}
	}
}
