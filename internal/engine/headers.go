package engine

import (
	"cmp"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/lockstep-sync/lockstep"
)

// verify compares who answers on both sides, by id and by address, with who was
// connected: a copied database or a moved account is not the original, and nothing may
// be written to it. When somebody else answers the account is locked, so that nothing
// is written by later runs either, whoever answers then, until a person has looked.
// Both sides are asked even when the first one does not answer: opt-outs are heard of
// the other one.
func (s *session) verify() error {
	was, wasAcc := s.org.Identity, s.account.Identity
	org, err := s.crm.Identity(s.ctx)
	if s.awayCRM = err; err != nil {
		org = was
	}
	acc, err := s.platform.Identity(s.ctx)
	if s.awayPlatform = err; err != nil {
		acc = wasAcc
	}
	stranger := &lockstep.Error{Code: lockstep.CodeGuarded, Op: "verify who answers"}
	switch {
	case another(was.ID, org.ID):
		stranger.Msg = fmt.Sprintf("another organization answers: %s instead of %s", org.ID, was.ID)
	case another(host(was.URL), host(org.URL)):
		stranger.Msg = fmt.Sprintf("the organization answers from another environment: %s instead of %s", host(org.URL), host(was.URL))
	}
	s.foreignCRM = stranger.Msg != ""
	switch {
	case another(wasAcc.ID, acc.ID):
		s.foreignPlatform = true
		stranger.Msg = fmt.Sprintf("another account answers: %s instead of %s", acc.ID, wasAcc.ID)
	case another(host(wasAcc.Endpoint), host(acc.Endpoint)):
		s.foreignPlatform = true
		stranger.Msg = fmt.Sprintf("the account answers from another address: %s instead of %s", host(acc.Endpoint), host(wasAcc.Endpoint))
	}
	if stranger.Msg != "" {
		stranger.Hint = "nothing was written and the account is locked: check what changed, connect anew what moved on purpose, then unlock the account with lockstep accounts unlock"
		if err := s.e.Store.LockAccount(s.ctx, s.account.ID, stranger.Msg); err != nil {
			return err
		}
		return stranger
	}
	if err := s.away(); err != nil {
		return err
	}
	s.verified = true
	s.e.sentinel.keep(s.account.ID, answered{crm: s.crm, platform: s.platform, org: s.org.Identity.ID, account: s.account.Identity.ID, at: s.e.Now()})
	return nil
}

// away is why one of the sides does not answer; nil when both did.
func (s *session) away() error {
	if s.awayCRM != nil {
		return s.awayCRM
	}
	return s.awayPlatform
}

func another(was, is string) bool { return was != "" && is != "" && was != is }

// host is the host of an address.
func host(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	return strings.ToLower(u.Host)
}

// verifyLately verifies unless that was done a few minutes ago over the same
// connections, so that frequent runs do not ask every time. Before anything is
// removed it is always done; see removeSome.
func (s *session) verifyLately() error {
	a, ok := s.e.sentinel.of(s.account.ID)
	age := s.e.Now().Sub(a.at)
	if ok && a.crm == s.crm && a.platform == s.platform && a.org == s.org.Identity.ID && a.account == s.account.Identity.ID && age >= 0 && age < verifyEvery {
		return nil
	}
	return s.verify()
}

// verifyEvery is the age at which an answer about who is connected is asked for
// again. A process asks before its first run, and after each one that failed.
const verifyEvery = 5 * time.Minute

// answered says who answered when, over which connections.
type answered struct {
	crm          lockstep.CRM
	platform     lockstep.Platform
	org, account string
	at           time.Time
	fieldsAt     time.Time // when the platform's data fields were compared
}

// sentinel remembers who answered last, by account.
type sentinel struct {
	mu   sync.Mutex
	last map[string]answered
}

func (n *sentinel) of(account string) (answered, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	a, ok := n.last[account]
	return a, ok
}

func (n *sentinel) keep(account string, a answered) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.last == nil {
		n.last = map[string]answered{}
	}
	if was := n.last[account]; was.platform == a.platform {
		a.fieldsAt = was.fieldsAt
	}
	n.last[account] = a
}

// checked notes when the data fields were compared, if it is known who answers.
func (n *sentinel) checked(account string, at time.Time) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if a, ok := n.last[account]; ok {
		a.fieldsAt = at
		n.last[account] = a
	}
}

func (n *sentinel) forget(account string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.last, account)
}

// chooseLists reads the marketing lists, keeps the settings in step with them and
// picks those that this run is about. It makes no call to the platform.
func (s *session) chooseLists() error {
	s.stage("reading marketing lists")
	crmLists, err := s.crm.Lists(s.ctx)
	if err != nil {
		return err
	}
	settings, err := s.e.Store.Lists(s.ctx, s.account.ID)
	if err != nil {
		return err
	}
	byID := make(map[lockstep.ID]*lockstep.MarketingList, len(crmLists))
	for i := range crmLists {
		byID[crmLists[i].ID] = &crmLists[i]
	}
	var changed []lockstep.ListSettings
	known := make(map[lockstep.ID]bool, len(settings))
	for i := range settings {
		set := &settings[i]
		known[set.CRMID] = true
		was := *set
		if l := byID[set.CRMID]; l != nil {
			set.Name, set.MemberTable, set.Dynamic, set.Gone = l.Name, l.MemberTable, l.Dynamic, false
			s.idles(set, l)
		} else {
			set.Gone = true
		}
		if *set != was {
			changed = append(changed, *set)
		}
	}
	for i := range crmLists {
		if l := &crmLists[i]; !known[l.ID] && slices.Contains(MemberTables, l.MemberTable) {
			changed = append(changed, NewListSettings(s.account.ID, *l))
		}
	}
	if len(changed) > 0 && !s.dry() {
		if err := s.commit(lockstep.Commit{Lists: changed}); err != nil {
			return err
		}
	}
	chosen := false
	for i := range settings {
		set := settings[i]
		switch {
		case s.run.List != "" && set.ID != s.run.List:
			continue
		case s.run.List != "":
			chosen = true
			if !set.Activated {
				return &lockstep.Error{
					Code: lockstep.CodeInvalid, Op: "start run", Field: "list", Msg: fmt.Sprintf("the list %q is not activated for email", set.Name),
					Hint: "activate it first",
				}
			}
		case !set.Activated || set.ManualOnly:
			continue
		}
		if set.Gone {
			continue // detached: the address book stays as it is
		}
		if reserved(set.Name) {
			s.finding(lockstep.Finding{
				Code: lockstep.FindingNameReserved, Table: "list", Record: set.CRMID, List: set.ID,
				Message: fmt.Sprintf("the platform keeps the name %q for itself", set.Name), Hint: "rename the marketing list",
			})
			continue
		}
		s.sync.lists = append(s.sync.lists, &listState{set: set, crm: *byID[set.CRMID]})
	}
	if s.run.List != "" && !chosen {
		return &lockstep.Error{Code: lockstep.CodeNotFound, Op: "start run", Field: "list", Msg: fmt.Sprintf("there is no list %q in this account", s.run.List)}
	}
	slices.SortStableFunc(s.sync.lists, func(a, b *listState) int {
		return cmp.Or(cmp.Compare(a.set.SyncOrder, b.set.SyncOrder), cmp.Compare(a.set.Name, b.set.Name), cmp.Compare(a.set.ID, b.set.ID))
	})
	return nil
}

// NewListSettings are the settings of a marketing list that was just discovered:
// not activated.
func NewListSettings(account string, l lockstep.MarketingList) lockstep.ListSettings {
	return lockstep.ListSettings{
		ID: lockstep.NameID(l.ID, account).String(), Account: account, CRMID: l.ID, Name: l.Name, MemberTable: l.MemberTable, Dynamic: l.Dynamic,
		MembershipAction: lockstep.ActionIgnore, SubscriptionFilter: lockstep.FilterAnyOptOut, MirrorRemovals: true, SyncOrder: 1000,
	}
}

func reserved(name string) bool {
	return slices.ContainsFunc(lockstep.ReservedBookNames, func(r string) bool { return strings.EqualFold(r, strings.TrimSpace(name)) })
}

// linkBooks finds or makes the address book of each list: by stored id only. A
// book that merely has the list's name is never taken over silently.
func (s *session) linkBooks() error {
	s.stage("comparing address books")
	byID := map[lockstep.BookID]lockstep.AddressBook{}
	byName := map[string]lockstep.AddressBook{}
	read := func() error {
		books, err := s.platform.Books(s.ctx)
		for _, b := range books {
			byID[b.ID] = b
			byName[strings.ToLower(b.Name)] = b
		}
		return err
	}
	if err := read(); err != nil {
		return err
	}
	// A book that is gone is made anew and filled again. One answer that leaves it out is
	// not enough to believe that.
	absent := func(l *listState) bool { _, exists := byID[l.set.Book]; return l.set.Book != "" && !exists }
	if slices.ContainsFunc(s.sync.lists, absent) {
		if err := read(); err != nil {
			return err
		}
	}
	settings, err := s.e.Store.Lists(s.ctx, s.account.ID)
	if err != nil {
		return err
	}
	owner := map[lockstep.BookID]string{}
	for _, set := range settings {
		if set.Book != "" && owner[set.Book] == "" {
			owner[set.Book] = set.ID
		}
	}
	var planned []lockstep.Change
	var adopted []lockstep.ListSettings
	state := map[lockstep.ID]*listState{}
	usable := s.sync.lists[:0]
	for _, l := range s.sync.lists {
		book, exists := byID[l.set.Book]
		switch {
		case l.set.Book != "" && exists && owner[l.set.Book] != l.set.ID:
			s.finding(lockstep.Finding{
				Code: lockstep.FindingNameTaken, Table: "list", Record: l.set.CRMID, List: l.set.ID,
				Message: fmt.Sprintf("the address book %s belongs to another marketing list already", l.set.Book), Hint: "link one of the two lists to another address book",
			})
			continue
		case exists:
			l.book = book
			if book.Name != l.set.Name {
				if other, taken := byName[strings.ToLower(l.set.Name)]; taken && other.ID != book.ID {
					s.finding(lockstep.Finding{
						Code: lockstep.FindingNameTaken, Table: "list", Record: l.set.CRMID, List: l.set.ID,
						Message: fmt.Sprintf("the address book keeps its name %q because another one is called %q", book.Name, l.set.Name), Hint: "rename one of them",
					})
				} else {
					planned = append(planned, lockstep.Change{
						Kind: lockstep.RenameBook, State: lockstep.Planned, List: l.set.CRMID, Book: book.ID, Name: l.set.Name, Why: "marketing list renamed",
						Fields: []lockstep.FieldChange{{Name: "name", Old: lockstep.TextValue(book.Name), New: lockstep.TextValue(l.set.Name)}},
					})
				}
			}
		default:
			if other, taken := byName[strings.ToLower(l.set.Name)]; taken && other.ID != "" && s.sync.madeBooks[l.set.CRMID] && owner[other.ID] == "" {
				// A process died between making the book and noting its id: the
				// name was free when it was planned, so this book is ours.
				if l.set.Book != "" {
					s.renew(l)
				}
				l.book, l.set.Book = other, other.ID
				adopted = append(adopted, l.set)
				break
			} else if taken {
				s.finding(lockstep.Finding{
					Code: lockstep.FindingNameTaken, Table: "list", Record: l.set.CRMID, List: l.set.ID,
					Message: fmt.Sprintf("an address book named %q exists (id %s) and is not linked to this list", other.Name, other.ID),
					Hint:    fmt.Sprintf("link it by setting address_book_id to %s after a look at a preview, or rename the list", other.ID),
				})
				continue
			}
			why := "marketing list without an address book"
			if l.set.Book != "" {
				why = "the address book was deleted on the platform"
				if s.dry() { // else once there is another one
					s.renew(l)
				}
			}
			planned = append(planned, lockstep.Change{Kind: lockstep.CreateBook, State: lockstep.Planned, List: l.set.CRMID, Name: l.set.Name, Why: why})
			byName[strings.ToLower(l.set.Name)] = lockstep.AddressBook{Name: l.set.Name}
			l.book = lockstep.AddressBook{ID: NewBook(l.set.ID), Name: l.set.Name}
		}
		state[l.set.CRMID] = l
		usable = append(usable, l)
	}
	s.sync.lists = usable
	planned = s.permitted(planned)
	if s.dry() {
		if len(planned) == 0 {
			return nil
		}
		return s.planOnly(planned)
	}
	if len(adopted) > 0 {
		if err := s.commit(lockstep.Commit{Lists: adopted}); err != nil {
			return err
		}
	}
	unmade := func(l *listState) bool { return isNew(l.book.ID) }
	if len(planned) == 0 {
		s.sync.lists = slices.DeleteFunc(s.sync.lists, unmade)
		return nil
	}
	var changed []lockstep.ListSettings
	err = s.callEach(planned, func(c *lockstep.Change) (*lockstep.Error, error) {
		l := state[c.List]
		var err error
		if c.Kind == lockstep.RenameBook {
			if err = s.platform.RenameBook(s.ctx, c.Book, c.Name); err == nil {
				return nil, nil
			}
		} else {
			var b lockstep.AddressBook
			if b, err = s.platform.CreateBook(s.ctx, c.Name); err == nil {
				if l.set.Book != "" {
					s.renew(l)
				}
				c.Book, l.book = b.ID, b
				l.set.Book = b.ID
				changed = append(changed, l.set)
				return nil, nil
			}
		}
		le := lockstep.AsError(err)
		if transient(err) || le.Scope == lockstep.ScopeConnection && le.Code != lockstep.CodeConflict && le.Code != lockstep.CodeInvalid {
			return nil, err
		}
		s.finding(lockstep.Finding{
			Code: lockstep.FindingNameTaken, Table: "list", Record: l.set.CRMID, List: l.set.ID,
			Message: "the platform refused the address book: " + le.Msg, Hint: le.Hint,
		})
		return le, nil
	}, func(end *lockstep.Commit) { end.Lists = changed })
	if err != nil {
		return err
	}
	s.sync.lists = slices.DeleteFunc(s.sync.lists, unmade)
	return nil
}

// renew notes that a list's address book is another one, in which nobody is yet. It is
// stored together with the new book's id.
func (s *session) renew(l *listState) {
	l.renewed, l.stored = true, listSummary{Renewed: true}
	s.mu.Lock()
	s.owe(l)
	s.mu.Unlock()
}

const newBookPrefix = "new:"

// NewBook is the id by which a preview speaks of the address book that is still to be
// made for a list, by the id of its settings.
func NewBook(list string) lockstep.BookID { return lockstep.BookID(newBookPrefix + list) }

// estimate prices a run of which there was none yet: by the members of its lists, which
// may be in several of them, and without the records that are in no list. The records and
// members are read in pages and the contacts imported in portions; every book is made and
// asked who left it.
func (s *session) estimate() {
	if s.run.Price != nil {
		return
	}
	members, tables := 0, map[string]bool{}
	for _, l := range s.sync.lists {
		members += l.crm.Members
		tables[l.set.MemberTable] = true
	}
	p := &lockstep.Price{CRM: int64(1 + 2*len(tables) + 2*calls(members, membersOfPage)), Platform: int64(4 + 2*len(s.sync.lists)), Basis: "lists"}
	if s.run.Type == lockstep.SyncMarketingLists && !s.dry() {
		p.Platform += int64(calls(members, s.e.ImportRows))
	}
	s.run.Price, s.price = p, p
}
