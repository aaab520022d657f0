package engine

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/lockstep-sync/lockstep"
)

// preferences are what a run of the type keeps in memory.
type preferences struct {
	keeper  lockstep.PreferenceKeeper
	defined map[string]lockstep.Preference
	order   []string
	// preview are choices as a run that applies would have stored them.
	preview map[lockstep.ID]lockstep.Choice
}

// marketingPreferences is the run of the type: what people choose for each marketing
// preference, both ways. What the two sides say is first noted, one choice an address
// and preference; then whatever they do not agree on is carried to the side that does
// not know it. A process that dies in between has noted it, and the next run goes on.
func (s *session) marketingPreferences() error {
	keeper, ok := s.platform.(lockstep.PreferenceKeeper)
	if !ok {
		return &lockstep.Error{Code: lockstep.CodeUnsupported, Op: "start run", Msg: "this email platform has no marketing preferences"}
	}
	if s.table(lockstep.PreferenceTable) == nil || s.table(lockstep.ChoiceTable) == nil {
		return &lockstep.Error{
			Code: lockstep.CodeInvalid, Op: "start run", Msg: "the CRM has no tables for marketing preferences",
			Hint: "run lockstep dynamics install, then crm-metadata",
		}
	}
	if err := s.verify(); err != nil {
		return err
	}
	if err := s.closeConsentBatches(); err != nil {
		return err
	}
	p := &preferences{keeper: keeper, defined: map[string]lockstep.Preference{}, preview: map[lockstep.ID]lockstep.Choice{}}
	s.stage("reading marketing preferences")
	if err := s.whole(func() error { return s.hearDefinitions(p) }); err != nil {
		return err
	}
	hear := func() error {
		if err := s.hearChoiceRows(p); err != nil {
			return err
		}
		for _, id := range p.order {
			if err := s.hearChoices(p, id); err != nil {
				return err
			}
		}
		return s.hearAddresses(p)
	}
	s.stage("reading choices of marketing preferences")
	if err := s.whole(hear); err != nil {
		return err
	}
	s.stage("telling choices of marketing preferences")
	if _, err := s.tellChoices(p, lockstep.OptedOut); err != nil {
		return err
	}
	waiting, err := s.tellChoices(p, lockstep.NoAnswer) // looks only
	if err != nil || waiting == 0 {
		return err
	}
	// Who opted out while this run was at work must not be opted in by it.
	if !s.dry() && s.locked == "" {
		if err := s.whole(hear); err != nil {
			return err
		}
		if _, err := s.tellChoices(p, lockstep.OptedOut); err != nil {
			return err
		}
	}
	_, err = s.tellChoices(p, lockstep.OptedIn)
	return err
}

// definitionsMark is the cursor that holds which preferences have rows.
const definitionsMark = "consent/preferences"

// rowsMark is the cursor of the rows in which the CRM's users choose.
const rowsMark = "consent/preferences/rows"

// hearDefinitions reads which preferences there are and brings their rows in the CRM
// up to date. A row whose preference is gone is closed; what was chosen for it stays
// as it was.
func (s *session) hearDefinitions(p *preferences) error {
	had, err := s.e.Store.Cursor(s.ctx, s.account.ID, definitionsMark)
	if err != nil {
		return err
	}
	all, err := p.keeper.Preferences(s.ctx)
	if err == nil && len(all) == 0 && had != "" {
		all, err = p.keeper.Preferences(s.ctx) // all gone at once is more likely a wrong answer
	}
	if err != nil {
		return err
	}
	for _, d := range all {
		p.defined[d.ID] = d
		p.order = append(p.order, d.ID)
	}
	if s.locked != "" {
		return nil
	}
	wanted := slices.Clone(p.order)
	var gone []string
	for id := range strings.FieldsSeq(string(had)) {
		if _, ok := p.defined[id]; !ok {
			gone = append(gone, id)
		}
	}
	names := map[lockstep.ID]string{}
	ids := make([]lockstep.ID, 0, len(wanted)+len(gone))
	for _, id := range slices.Concat(wanted, gone) {
		row := lockstep.PreferenceID(s.account.ID, id)
		names[row] = id
		ids = append(ids, row)
	}
	there := map[string]bool{}
	closed := map[string]bool{}
	same := map[string]bool{}
	q := lockstep.RecordQuery{Table: lockstep.PreferenceTable, Columns: []string{lockstep.NameColumn, lockstep.CategoryColumn}}
	if len(ids) > 0 {
		err = s.crm.Records(s.ctx, q, ids, func(page []lockstep.Record) error {
			for i := range page {
				r := &page[i]
				id := names[r.ID]
				d := p.defined[id]
				there[id], closed[id] = true, r.Inactive
				same[id] = len(r.Values) == 2 && r.Values[0].Text() == fit(d.Name, 0) && r.Values[1].Text() == fit(d.Category, categoryLength)
			}
			return nil
		})
	}
	if err != nil {
		return err
	}
	var made, changed []lockstep.RecordWrite
	for _, id := range wanted {
		d := p.defined[id]
		w := lockstep.RecordWrite{ID: lockstep.PreferenceID(s.account.ID, id), Create: !there[id], Fields: []lockstep.ColumnValue{
			{Column: lockstep.NameColumn, Value: lockstep.TextValue(fit(d.Name, 0))},
			{Column: lockstep.AccountColumn, Value: lockstep.TextValue(s.account.ID)},
			{Column: lockstep.PreferenceColumn, Value: lockstep.TextValue(id)},
			{Column: lockstep.CategoryColumn, Value: lockstep.TextValue(fit(d.Category, categoryLength))},
		}}
		switch {
		case !there[id]:
			made = append(made, w)
		case closed[id]:
			w.Fields = append(w.Fields, lockstep.ColumnValue{Column: lockstep.StateColumn, Value: lockstep.CanonicalValue(lockstep.Number, "0")})
			changed = append(changed, w)
		case !same[id]:
			changed = append(changed, w)
		}
	}
	for _, id := range gone {
		if there[id] && !closed[id] {
			changed = append(changed, lockstep.RecordWrite{ID: lockstep.PreferenceID(s.account.ID, id), Fields: []lockstep.ColumnValue{
				{Column: lockstep.StateColumn, Value: lockstep.CanonicalValue(lockstep.Number, "1")},
			}})
		}
	}
	refused := false
	for _, set := range [][]lockstep.RecordWrite{made, changed} {
		for rows := range slices.Chunk(set, consentPage) {
			bad, err := s.writeDefinitions(rows, names)
			if err != nil {
				return err
			}
			refused = refused || bad
		}
	}
	now := lockstep.Cursor(strings.Join(slices.Sorted(maps.Keys(p.defined)), " "))
	if refused || s.dry() || now == had {
		return nil
	}
	cursors := map[string]lockstep.Cursor{definitionsMark: now}
	for id := range p.defined {
		if !slices.Contains(strings.Fields(string(had)), id) {
			cursors[rowsMark] = "" // rows about it said nothing to us before
		}
	}
	for _, id := range gone {
		cursors[choicesMark(id)] = ""
	}
	return s.commit(lockstep.Commit{Cursors: cursors})
}

// categoryLength is how many characters CategoryColumn holds.
const categoryLength = 200

// fit cuts a text to n characters; 0 = as many as a name has room for.
func fit(text string, n int) string {
	if n == 0 {
		n = 320
	}
	if r := []rune(text); len(r) > n {
		return string(r[:n])
	}
	return text
}

func (s *session) writeDefinitions(rows []lockstep.RecordWrite, names map[lockstep.ID]string) (refused bool, err error) {
	changes := make([]lockstep.Change, len(rows))
	for i, w := range rows {
		changes[i] = lockstep.Change{
			Kind: lockstep.KeepRow, State: lockstep.Planned, Ref: lockstep.Ref{Table: lockstep.PreferenceTable, ID: w.ID}, Name: names[w.ID],
			Why: "the marketing preferences of the email account",
		}
		for _, f := range w.Fields {
			changes[i].Fields = append(changes[i].Fields, lockstep.FieldChange{Name: f.Column, New: f.Value})
		}
	}
	err = s.carryOut(changes, func() error {
		results, err := s.crm.WriteRecords(s.ctx, lockstep.PreferenceTable, rows)
		if err != nil {
			return err
		}
		for i, e := range results {
			if e != nil {
				refused = true
				s.choiceRefused(&changes[i], "the CRM refused the row of a marketing preference", e)
				continue
			}
			changes[i].State = lockstep.Acknowledged
		}
		return nil
	})
	return refused, err
}

func (s *session) choiceRefused(c *lockstep.Change, what string, refused *lockstep.Error) {
	c.State, c.Cause = lockstep.Refused, refused.Msg
	s.finding(lockstep.Finding{
		Code: lockstep.FindingRejected, Table: c.Ref.Table, Record: c.Ref.ID, Contact: c.Contact, Field: c.Name,
		Message: what + ": " + refused.Msg, Hint: refused.Hint,
	})
}

func choicesMark(preference string) string { return "consent/preferences/" + preference }

// hearChoices notes what people chose on the platform.
func (s *session) hearChoices(p *preferences, preference string) error {
	name := choicesMark(preference)
	since, err := s.e.Store.Cursor(s.ctx, s.account.ID, name)
	if err != nil {
		return err
	}
	next, err := p.keeper.Choices(s.ctx, preference, since, func(page []lockstep.PreferenceChoice) error {
		for part := range slices.Chunk(page, optInPage) {
			if err := s.heardChoices(p, part); err != nil {
				return err
			}
		}
		return s.ctx.Err()
	})
	if lockstep.CodeOf(err) == lockstep.CodeNotFound {
		return nil // deleted since the preferences were read
	}
	return s.heard(name, since, next, err, func() error { return s.hearChoices(p, preference) })
}

func (s *session) heardChoices(p *preferences, page []lockstep.PreferenceChoice) error {
	keys := make([]lockstep.AddressKey, 0, len(page))
	for i := range page {
		keys = append(keys, s.e.Store.AddressKey(page[i].Email))
	}
	known, err := s.choicesOf(p, keys)
	if err != nil {
		return err
	}
	var n lockstep.Counts
	changed := map[lockstep.ID]bool{}
	strangers := map[string][]lockstep.ID{}
	for i := range page {
		said := &page[i]
		n.Read++
		email := lockstep.NormalizeEmail(said.Email)
		if problem := lockstep.CheckEmail(email); problem != "" {
			n.Rejected++
			continue // nobody in the CRM has it
		}
		id := lockstep.ChoiceID(s.account.ID, said.Preference, keys[i])
		c, ok := known[id]
		if !ok {
			c = lockstep.Choice{ID: id, Account: s.account.ID, Preference: said.Preference, Key: keys[i], Email: email}
		}
		switch answer := lockstep.AnswerOf(said.OptedIn); {
		case c.Platform.Answer != answer:
			c.Platform, c.Contact = lockstep.Said{Answer: answer, At: said.At}, said.Contact
			changed[id] = true
			if !c.Known {
				strangers[email] = append(strangers[email], id)
			}
			n.Written++
		case answer == lockstep.OptedOut && (c.Platform.At.IsZero() || later(said.At, c.Platform.At)):
			// Said again: somebody opted in, in between, or it is their first word and
			// what was known came from their saying nothing.
			c.Platform.At, c.Contact = said.At, said.Contact
			changed[id] = true
			n.Equal++
		case c.Contact != said.Contact:
			c.Contact = said.Contact
			changed[id] = true
			n.Equal++
		default:
			n.Equal++
		}
		known[id] = c
	}
	if err := s.haveRecords(strangers, func(id lockstep.ID) {
		c := known[id]
		c.Known = true
		known[id] = c
	}); err != nil {
		return err
	}
	s.count(n)
	return s.keepChoices(p, known, changed)
}

// haveRecords tells which of the addresses a record of the CRM has. Tables that were
// never read in full are left out: reading them tells.
func (s *session) haveRecords(byEmail map[string][]lockstep.ID, has func(lockstep.ID)) error {
	if len(byEmail) == 0 {
		return nil
	}
	emails := slices.Sorted(maps.Keys(byEmail))
	for _, table := range MemberTables {
		if s.table(table) == nil {
			continue
		}
		if mark, err := s.e.Store.Cursor(s.ctx, s.account.ID, addressesMark(table)); err != nil {
			return err
		} else if mark == "" {
			continue
		}
		err := s.crm.FindByEmail(s.ctx, lockstep.RecordQuery{Table: table, Inactive: true}, emails, func(page []lockstep.Record) error {
			for i := range page {
				for _, id := range byEmail[lockstep.NormalizeEmail(page[i].Email)] {
					has(id)
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func addressesMark(table string) string { return "consent/preferences/of/" + table }

// hearAddresses looks at the addresses of records that are new or changed: what was
// chosen with them on the platform before is shown from now on.
func (s *session) hearAddresses(p *preferences) error {
	for _, table := range MemberTables {
		if s.table(table) == nil {
			continue
		}
		if err := s.hearAddressesOf(p, table); err != nil {
			return err
		}
	}
	return nil
}

func (s *session) hearAddressesOf(p *preferences, table string) error {
	name := addressesMark(table)
	since, err := s.e.Store.Cursor(s.ctx, s.account.ID, name)
	if err != nil {
		return err
	}
	next, err := s.crm.Changes(s.ctx, lockstep.RecordQuery{Table: table}, since, func(page lockstep.RecordPage) error {
		keys := make([]lockstep.AddressKey, 0, len(page.Records))
		for i := range page.Records {
			if r := &page.Records[i]; !r.Deleted && r.Email != "" {
				keys = append(keys, s.e.Store.AddressKey(r.Email))
			}
		}
		known, err := s.choicesOf(p, keys)
		if err != nil {
			return err
		}
		changed := map[lockstep.ID]bool{}
		for id, c := range known {
			if !c.Known {
				c.Known = true
				known[id], changed[id] = c, true
			}
		}
		return s.keepChoices(p, known, changed)
	})
	return s.heard(name, since, next, err, func() error { return s.hearAddressesOf(p, table) })
}

// hearChoiceRows notes what the CRM's users say: in the rows of our table, which they
// edit, and add to by address and preference.
func (s *session) hearChoiceRows(p *preferences) error {
	since, err := s.e.Store.Cursor(s.ctx, s.account.ID, rowsMark)
	if err != nil {
		return err
	}
	q := lockstep.RecordQuery{Table: lockstep.ChoiceTable, Columns: []string{
		lockstep.EmailTextColumn, lockstep.AccountColumn, lockstep.PreferenceColumn, lockstep.OptedInColumn,
	}}
	if since == "" {
		if err := s.missRows(p); err != nil {
			return err
		}
	}
	next, err := s.crm.Changes(s.ctx, q, since, func(page lockstep.RecordPage) error { return s.heardRows(p, page.Records) })
	if err == nil && since == "" {
		// Before, so that a row which took the place of one that is gone is no second
		// one; and now, because a row may have gone before its page was read.
		err = s.missRows(p)
	}
	return s.heard(rowsMark, since, next, err, func() error { return s.hearChoiceRows(p) })
}

// missRows notes which of the rows that we know are gone: reading all rows, as has to be
// done when the CRM's token of changes has expired, does not tell.
func (s *session) missRows(p *preferences) error {
	var after lockstep.ID
	for {
		page, err := s.e.Store.ChoicesWithRows(s.ctx, s.account.ID, after, choicePage)
		if err != nil || len(page) == 0 {
			return err
		}
		after = page[len(page)-1].Row
		missing := make(map[lockstep.ID]bool, len(page))
		ids := make([]lockstep.ID, len(page))
		for i := range page {
			ids[i] = page[i].Row
			missing[ids[i]] = true
		}
		err = s.crm.Records(s.ctx, lockstep.RecordQuery{Table: lockstep.ChoiceTable}, ids, func(found []lockstep.Record) error {
			for i := range found {
				delete(missing, found[i].ID)
			}
			return nil
		})
		if err != nil {
			return err
		}
		known, changed := map[lockstep.ID]lockstep.Choice{}, map[lockstep.ID]bool{}
		for _, c := range page {
			if missing[c.Row] {
				lose(&c)
				known[c.ID], changed[c.ID] = c, true
			}
		}
		if err := s.keepChoices(p, known, changed); err != nil {
			return err
		}
	}
}

func (s *session) heardRows(p *preferences, page []lockstep.Record) error {
	rows := make([]lockstep.ID, 0, len(page))
	keys := make([]lockstep.AddressKey, len(page))
	var asked []lockstep.AddressKey
	for i := range page {
		r := &page[i]
		rows = append(rows, r.ID)
		if s.ours(r) && lockstep.CheckEmail(lockstep.NormalizeEmail(r.Values[0].Text())) == "" {
			keys[i] = s.e.Store.AddressKey(r.Values[0].Text())
			asked = append(asked, keys[i])
		}
	}
	known, err := s.choicesOf(p, asked)
	if err != nil {
		return err
	}
	shown, err := s.choicesShown(p, rows)
	if err != nil {
		return err
	}
	for id, c := range shown {
		if _, ok := known[id]; !ok {
			known[id] = c
		}
	}
	byRow := map[lockstep.ID]lockstep.ID{}
	for id, c := range known {
		if !c.Row.IsZero() {
			byRow[c.Row] = id
		}
	}
	var n lockstep.Counts
	changed := map[lockstep.ID]bool{}
	ids := make([]lockstep.ID, len(page))
	// Rows that are gone first: another row may have taken the place of one.
	for i := range page {
		r := &page[i]
		if keys[i] != (lockstep.AddressKey{}) {
			ids[i] = lockstep.ChoiceID(s.account.ID, r.Values[2].Text(), keys[i])
		}
		if was, ok := byRow[r.ID]; ok && was != ids[i] { // deleted, or shows something else now
			c := known[was]
			lose(&c)
			known[was], changed[was] = c, true
			delete(byRow, r.ID)
		}
	}
	for i := range page {
		r := &page[i]
		n.Read++
		id := ids[i]
		if !s.ours(r) || r.Values[3].Kind() != lockstep.Bool {
			n.Equal++ // says nothing to us
			continue
		}
		ref := r.Ref
		email := lockstep.NormalizeEmail(r.Values[0].Text())
		if problem := lockstep.CheckEmail(email); problem != "" {
			n.Rejected++
			s.finding(lockstep.Finding{
				Code: lockstep.FindingMalformedEmail, Table: ref.Table, Record: ref.ID, Field: lockstep.EmailTextColumn,
				Message: "a choice of a marketing preference names something that is no address: " + problem, Hint: "correct the address in the row",
			})
			continue
		}
		preference := r.Values[2].Text()
		if _, ok := p.defined[preference]; !ok {
			n.Rejected++
			s.finding(lockstep.Finding{
				Code: lockstep.FindingRejected, Table: ref.Table, Record: ref.ID, Field: lockstep.PreferenceColumn,
				Message: fmt.Sprintf("the email account has no marketing preference %q, so the choice is carried to nobody", fit(preference, 90)),
				Hint:    "give the key of one of the rows of " + lockstep.PreferenceTable,
			})
			continue
		}
		c, ok := known[id]
		if !ok {
			c = lockstep.Choice{ID: id, Account: s.account.ID, Preference: preference, Key: keys[i], Email: email}
		}
		answer := lockstep.AnswerOf(r.Values[3].Bool())
		if !c.Row.IsZero() && c.Row != r.ID {
			// A second row for the same choice. An opt-out counts wherever it is said.
			s.finding(lockstep.Finding{
				Code: lockstep.FindingDuplicate, Table: ref.Table, Record: ref.ID,
				Message: "another row is about the same address and marketing preference; of this one only an opt-out counts", Hint: "delete this row and edit the other one",
			})
			if answer == lockstep.OptedIn || c.CRM.Answer == answer || !c.Agreed.At.IsZero() && !later(r.Modified, c.Agreed.At) {
				n.Equal++ // or it is older than what was agreed
				continue
			}
			c.CRM = lockstep.Said{Answer: answer, At: r.Modified}
			known[id], changed[id] = c, true
			n.Written++
			continue
		}
		// A row that says no and was written since may have said yes in between.
		again := answer == lockstep.OptedOut && !c.Unread && later(r.Modified, c.CRM.At)
		if c.Row == r.ID && c.CRM.Answer == answer && c.Known && !again {
			n.Equal++
			if !c.Unread {
				continue
			}
		} else {
			n.Written++
		}
		c.Row, c.Known, c.Unread = r.ID, true, false
		if c.CRM.Answer != answer || again {
			c.CRM = lockstep.Said{Answer: answer, At: r.Modified}
		}
		byRow[r.ID] = id
		known[id], changed[id] = c, true
	}
	s.count(n)
	return s.keepChoices(p, known, changed)
}

// ours reports whether a row of ChoiceTable is about this account. A row without an
// account is about the organization's default one.
func (s *session) ours(r *lockstep.Record) bool {
	if r.Deleted || len(r.Values) < 4 {
		return false
	}
	account := r.Values[1].Text()
	return account == s.account.ID || account == "" && s.account.Default
}

// choicesOf returns what is known of addresses, by id.
func (s *session) choicesOf(p *preferences, keys []lockstep.AddressKey) (map[lockstep.ID]lockstep.Choice, error) {
	all, err := s.e.Store.Choices(s.ctx, s.account.ID, keys)
	if err != nil {
		return nil, err
	}
	known := make(map[lockstep.ID]lockstep.Choice, len(all))
	for _, c := range all {
		known[c.ID] = c
	}
	if len(p.preview) > 0 {
		asked := make(map[lockstep.AddressKey]bool, len(keys))
		for _, k := range keys {
			asked[k] = true
		}
		for id, c := range p.preview {
			if asked[c.Key] {
				known[id] = c
			}
		}
	}
	return known, nil
}

// choicesShown returns the choices that rows of the CRM show, by id.
func (s *session) choicesShown(p *preferences, rows []lockstep.ID) (map[lockstep.ID]lockstep.Choice, error) {
	all, err := s.e.Store.ChoicesShown(s.ctx, s.account.ID, rows)
	if err != nil {
		return nil, err
	}
	shown := make(map[lockstep.ID]lockstep.Choice, len(all))
	for _, c := range all {
		if now, ok := p.preview[c.ID]; ok {
			c = now
		}
		shown[c.ID] = c
	}
	return shown, nil
}

// keepChoices stores the choices that changed; in a preview it remembers them.
func (s *session) keepChoices(p *preferences, all map[lockstep.ID]lockstep.Choice, changed map[lockstep.ID]bool) error {
	var c lockstep.Commit
	for id := range changed {
		x := all[id]
		settle(&x)
		if _, defined := p.defined[x.Preference]; !defined {
			x.Pending = false
		}
		if x.Pending && decide(x.Agreed, x.Platform, x.CRM).answer == lockstep.OptedOut {
			c.Counts.OptOutsSeen++
		}
		c.Choices = append(c.Choices, x)
		if s.dry() {
			p.preview[id] = x
		}
	}
	if s.dry() || len(c.Choices) == 0 {
		s.count(c.Counts)
		return nil
	}
	slices.SortFunc(c.Choices, func(a, b lockstep.Choice) int { return bytes.Compare(a.ID[:], b.ID[:]) })
	return s.commit(c)
}

// choicePage is how many choices are carried to the other side at a time.
const choicePage = 1000

// pendingChoices returns a page of the choices that a side has to be told of.
func (s *session) pendingChoices(p *preferences, after lockstep.ID) ([]lockstep.Choice, error) {
	page, err := s.e.Store.PendingChoices(s.ctx, s.account.ID, after, choicePage)
	if err != nil || !s.dry() {
		return page, err
	}
	page = slices.DeleteFunc(page, func(c lockstep.Choice) bool { _, ok := p.preview[c.ID]; return ok })
	for _, c := range p.preview {
		if c.Pending && bytes.Compare(c.ID[:], after[:]) > 0 {
			page = append(page, c)
		}
	}
	slices.SortFunc(page, func(a, b lockstep.Choice) int { return bytes.Compare(a.ID[:], b.ID[:]) })
	return page[:min(len(page), choicePage)], nil
}
