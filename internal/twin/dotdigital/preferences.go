package dotdigital

import (
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// preference is a marketing preference that contacts opt into, or a category
// that groups preferences.
type preference struct {
	id                int32
	public, private   string
	category          bool
	parent            int32 // its category; 0 for none
	visible           bool  // in preference centres and sign-up forms
	created, modified int64
	// chosen are the contacts that ever said yes or no.
	chosen idSet
}

// choice is what a contact said about a preference, and when it last changed
// its mind.
type choice struct {
	in bool
	at int64
}

// preferenceSet holds the definitions. Siblings keep their order; the ids of the
// top level are the children of 0.
type preferenceSet struct {
	byID     map[int32]*preference
	children map[int32][]int32
	next     int32
}

func (ps *preferenceSet) init() {
	*ps = preferenceSet{byID: map[int32]*preference{}, children: map[int32][]int32{}, next: 1}
}

// choosable returns a preference that contacts can opt into; nil for categories.
func (ps *preferenceSet) choosable(id int32) *preference {
	if p := ps.byID[id]; p != nil && !p.category {
		return p
	}
	return nil
}

// place puts an entry among its siblings; a place beyond them is the last.
func (ps *preferenceSet) place(p *preference, at int) {
	siblings := ps.children[p.parent]
	ps.children[p.parent] = slices.Insert(siblings, min(at, len(siblings)), p.id)
}

func (ps *preferenceSet) displace(p *preference) {
	ps.children[p.parent] = slices.DeleteFunc(ps.children[p.parent], func(id int32) bool { return id == p.id })
}

func (ps *preferenceSet) add(p *preference, at int) *preference {
	p.id = ps.next
	ps.next++
	ps.byID[p.id] = p
	ps.place(p, at)
	return p
}

// named finds a preference by the words of an import column: its public name, or
// category and name with > between them.
func (ps *preferenceSet) named(path string) *preference {
	group, name, ok := strings.Cut(path, ">")
	parent := int32(0)
	if !ok {
		name = path
	} else {
		found := false
		for _, id := range ps.children[0] {
			if c := ps.byID[id]; c.category && strings.EqualFold(c.public, strings.TrimSpace(group)) {
				parent, found = id, true
			}
		}
		if !found {
			return nil
		}
	}
	for _, id := range ps.children[parent] {
		if p := ps.byID[id]; !p.category && strings.EqualFold(p.public, strings.TrimSpace(name)) {
			return p
		}
	}
	return nil
}

// lastPlace is a place behind all siblings.
const lastPlace = int(^uint32(0) >> 1)

// AddPreference creates a marketing preference outside of categories and returns
// its id.
func (s *Server) AddPreference(public, private string) int32 {
	id, _ := s.AddPreferenceIn(0, public, private)
	return id
}

// AddPreferenceIn creates a marketing preference in a category (0: in none) and
// returns its id; ok is false when there is no such category.
func (s *Server) AddPreferenceIn(category int32, public, private string) (id int32, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.prefs.byID[category]; category != 0 && (c == nil || !c.category) {
		return 0, false
	}
	now := s.now()
	return s.prefs.add(&preference{public: public, private: private, parent: category, visible: true, created: now, modified: now}, lastPlace).id, true
}

// AddCategory creates a category of marketing preferences and returns its id.
func (s *Server) AddCategory(public, private string) int32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	return s.prefs.add(&preference{public: public, private: private, category: true, visible: true, created: now, modified: now}, lastPlace).id
}

// choose notes what a contact says about a preference. Saying the same again
// changes nothing. The contact's modification time stays: only the preference's
// own reads tell.
func (w *writer) choose(i uint32, p *preference, in bool) {
	parts := w.s.at(i).parts()
	old, had := parts.prefs[p.id]
	if had && old.in == in {
		return
	}
	if parts.prefs == nil {
		parts.prefs = map[int32]choice{}
	}
	parts.prefs[p.id] = choice{in, w.now}
	p.chosen.add(i)
	was := ""
	if had {
		was = strconv.FormatBool(old.in)
	}
	w.changed("preference:"+strconv.Itoa(int(p.id)), was, strconv.FormatBool(in))
	w.record("preference", i, 0)
}

// appendPreferences prints the preferences that a contact has said something
// about, in order of their ids, as v3 does.
func (s *Server) appendPreferences(b []byte, said map[int32]choice) []byte {
	for k, id := range sortedKeys(said) {
		if k > 0 {
			b = append(b, ',')
		}
		p := s.prefs.byID[id]
		b = append(b, `{"id":`...)
		b = strconv.AppendInt(b, int64(id), 10)
		b = append(b, `,"isOptedIn":`...)
		b = strconv.AppendBool(b, said[id].in)
		b = append(b, `,"publicName":`...)
		b = appendQuoted(b, p.public)
		b = append(b, `,"privateName":`...)
		b = appendQuoted(b, p.private)
		b = append(b, '}')
	}
	return b
}

// preferenceBody is a definition as v2 answers it. order is text in reads and a
// number in the answers of writes.
type preferenceBody struct {
	ID              int32             `json:"id"`
	PublicName      string            `json:"publicName"`
	PrivateName     string            `json:"privateName"`
	IsPreference    bool              `json:"isPreference"`
	Order           any               `json:"order"`
	IsPublic        bool              `json:"isPublic"`
	CategoryID      int32             `json:"categoryId"`
	PreferenceCount int               `json:"preferenceCount"`
	Created         string            `json:"created"`
	LastModified    string            `json:"lastModified"`
	IsOptedIn       *bool             `json:"isOptedIn,omitempty"`
	Preferences     *[]preferenceBody `json:"preferences,omitempty"`
}

func (s *Server) preferenceBody(p *preference) preferenceBody {
	return preferenceBody{
		ID: p.id, PublicName: p.public, PrivateName: p.private, IsPreference: !p.category,
		Order: slices.Index(s.prefs.children[p.parent], p.id), IsPublic: p.visible, CategoryID: p.parent,
		PreferenceCount: len(s.prefs.children[p.id]), Created: formatTime(p.created), LastModified: formatTime(p.modified),
	}
}

// preferenceTree is the tree below parent, narrowed to the definitions that keep
// admits: one whose category is left out stands at the top.
func (s *Server) preferenceTree(parent int32, keep func(*preference) bool, said func(*preference) *bool) []preferenceBody {
	out := []preferenceBody{}
	for _, id := range s.prefs.children[parent] {
		p := s.prefs.byID[id]
		var below []preferenceBody
		if p.category {
			below = s.preferenceTree(id, keep, said)
		}
		if !keep(p) {
			out = append(out, below...)
			continue
		}
		body := s.preferenceBody(p)
		body.Order = strconv.Itoa(body.Order.(int))
		if p.category {
			body.Preferences = &below
		} else {
			body.IsOptedIn = said(p)
		}
		out = append(out, body)
	}
	return out
}

func definition(*preference) *bool { return nil }

func (s *Server) servePreferences(c *call) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	c.reply(http.StatusOK, s.preferenceTree(0, func(*preference) bool { return true }, definition))
	return nil
}

func (s *Server) servePreferencesModified(c *call) error {
	since, err := c.since(0)
	if err != nil {
		return err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	c.reply(http.StatusOK, s.preferenceTree(0, func(p *preference) bool { return p.modified >= since }, definition))
	return nil
}

// preferenceInput is the body of a definition's write; what is absent stays.
type preferenceInput struct {
	ID           int32   `json:"id"`
	PublicName   *string `json:"publicName"`
	PrivateName  *string `json:"privateName"`
	IsPreference *bool   `json:"isPreference"`
	Order        rawJSON `json:"order"`
	IsPublic     *bool   `json:"isPublic"`
	CategoryID   *int32  `json:"categoryId"`
}

func invalidPreference(text string) *apiError { return v2Error("ERROR_PREFERENCE_INVALID", text) }

const maxPreferenceName = 255

// apply checks the body against the definitions and writes it into p.
func (in *preferenceInput) apply(ps *preferenceSet, p *preference) (at int, err error) {
	next := *p
	for _, n := range []struct {
		to   *string
		from *string
	}{{&next.public, in.PublicName}, {&next.private, in.PrivateName}} {
		if n.from != nil {
			*n.to = strings.TrimSpace(*n.from)
		}
		if *n.to == "" || len(*n.to) > maxPreferenceName || strings.Contains(*n.to, ">") {
			return 0, invalidPreference("A public and a private name of 1 to 255 characters without > are needed.")
		}
	}
	if in.IsPublic != nil {
		next.visible = *in.IsPublic
	}
	if in.CategoryID != nil && *in.CategoryID != 0 {
		group := ps.byID[*in.CategoryID]
		switch {
		case group == nil:
			return 0, v2Error("ERROR_PREFERENCE_NOT_FOUND", "")
		case !group.category || p.category:
			return 0, invalidPreference("Only a preference can be in a category, and only in a category.")
		}
		next.parent = group.id
	} else if in.CategoryID != nil {
		next.parent = 0
	}
	for _, id := range ps.children[next.parent] {
		if o := ps.byID[id]; id != p.id && o.category == p.category && strings.EqualFold(o.public, next.public) {
			return 0, invalidPreference("The public name is in use already.")
		}
	}
	at = lastPlace
	if len(in.Order) > 0 && in.Order[0] != 'n' {
		text := strings.ToLower(strings.Trim(string(in.Order), `"`))
		switch text {
		case "top":
			at = 0
		case "bottom":
		default:
			if at, err = strconv.Atoi(text); err != nil || at < 0 {
				return 0, invalidPreference("order must be a position from 0, top or bottom.")
			}
		}
	} else if p.id != 0 && next.parent == p.parent {
		at = slices.Index(ps.children[p.parent], p.id)
	}
	p.public, p.private, p.visible = next.public, next.private, next.visible
	if p.id != 0 {
		ps.displace(p)
	}
	p.parent = next.parent
	return at, nil
}

func (s *Server) servePreferenceCreate(c *call) error {
	var in preferenceInput
	if err := c.decode(&in, maxSmallBody); err != nil {
		return err
	}
	if in.IsPreference == nil {
		return invalidPreference("isPreference is missing.")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	p := &preference{category: !*in.IsPreference, created: now, modified: now}
	at, err := in.apply(&s.prefs, p)
	if err != nil {
		return err
	}
	s.prefs.add(p, at)
	c.note("preference-create", strconv.Itoa(int(p.id)), "", p.public)
	c.reply(http.StatusOK, s.preferenceBody(p))
	return nil
}

// definitionOf finds the definition that the path names.
func (s *Server) definitionOf(c *call, param int) (*preference, error) {
	id, err := c.id(param)
	if err != nil {
		return nil, err
	}
	if p := s.prefs.byID[id]; p != nil {
		return p, nil
	}
	return nil, v2Error("ERROR_PREFERENCE_NOT_FOUND", "")
}

func (s *Server) servePreferenceUpdate(c *call) error {
	var in preferenceInput
	if err := c.decode(&in, maxSmallBody); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	p, err := s.definitionOf(c, 0)
	if err != nil {
		return err
	}
	if in.ID != 0 && in.ID != p.id || in.IsPreference != nil && *in.IsPreference == p.category {
		return invalidPreference("The id and whether it is a preference or a category cannot be changed.")
	}
	was := p.public
	at, err := in.apply(&s.prefs, p)
	if err != nil {
		return err
	}
	s.prefs.place(p, at)
	c.note("preference-update", strconv.Itoa(int(p.id)), was, p.public)
	p.modified = s.now()
	c.reply(http.StatusOK, s.preferenceBody(p))
	return nil
}

// servePreferenceDelete deletes a preference with what contacts said about it,
// or a category with its preferences.
func (s *Server) servePreferenceDelete(c *call) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, err := s.definitionOf(c, 0)
	if err != nil {
		return err
	}
	for _, id := range append(slices.Clone(s.prefs.children[p.id]), p.id) {
		gone := s.prefs.byID[id]
		for i := range gone.chosen.all(0) {
			delete(s.at(i).rare.prefs, id)
		}
		delete(s.prefs.byID, id)
		c.note("preference-delete", strconv.Itoa(int(id)), gone.public, "")
	}
	delete(s.prefs.children, p.id)
	s.prefs.displace(p)
	c.reply(http.StatusOK, "Preference or category (and preferences) were deleted successfully")
	return nil
}

// readableV2 finds the contact that the path names for a v2 read.
func (s *Server) readableV2(c *call) (uint32, error) {
	i, ok := s.findV2(c.params[0])
	if !ok || !s.v2Visible(i) {
		return 0, v2Error("ERROR_CONTACT_NOT_FOUND", "")
	}
	return i, nil
}

// said is what the contact answered; the zero choice before it did.
func (c *contact) said(preference int32) choice {
	if c.rare == nil {
		return choice{}
	}
	return c.rare.prefs[preference]
}

func (s *Server) serveContactPreferences(c *call) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	i, err := s.readableV2(c)
	if err != nil {
		return err
	}
	ct := s.at(i)
	c.reply(http.StatusOK, s.preferenceTree(0, func(*preference) bool { return true }, func(p *preference) *bool {
		v := ct.said(p.id)
		return &v.in
	}))
	return nil
}

// choiceInput is one entry of a contact's preferences write: a preference, or a
// category with preferences below it.
type choiceInput struct {
	ID           int32         `json:"id"`
	IsPreference *bool         `json:"isPreference"`
	IsOptedIn    *bool         `json:"isOptedIn"`
	Preferences  []choiceInput `json:"preferences"`
}

// choices flattens a write and checks all of it before anything is written.
func (s *Server) choices(in []choiceInput, category int32, out []prefValue) ([]prefValue, error) {
	for _, e := range in {
		p := s.prefs.byID[e.ID]
		switch {
		case p == nil:
			return nil, v2Error("ERROR_PREFERENCE_NOT_FOUND", "")
		case e.IsPreference != nil && *e.IsPreference == p.category:
			return nil, invalidPreference("isPreference does not say what " + strconv.Itoa(int(e.ID)) + " is.")
		case category != 0 && p.parent != category:
			return nil, invalidPreference("Preference " + strconv.Itoa(int(e.ID)) + " is not in the category that it is given under.")
		case p.category && e.IsOptedIn != nil, !p.category && (e.IsOptedIn == nil || len(e.Preferences) > 0):
			return nil, invalidPreference("A preference needs isOptedIn; a category has preferences only.")
		}
		if !p.category {
			out = append(out, prefValue{p.id, *e.IsOptedIn})
			continue
		}
		var err error
		if out, err = s.choices(e.Preferences, p.id, out); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (s *Server) serveContactPreferencesUpdate(c *call) error {
	var in []choiceInput
	if err := c.decode(&in, maxSmallBody); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	i, ok := s.findV2(c.params[0])
	if !ok {
		return v2Error("ERROR_CONTACT_NOT_FOUND", "")
	}
	if s.at(i).status.blocked() {
		return errV2Suppressed
	}
	said, err := s.choices(in, 0, nil)
	if err != nil {
		return err
	}
	if p := s.takePoison(c.route.operation); p.hits(&contactInput{email: []byte(s.at(i).email)}, i, true, 0) {
		return v2Error("ERROR_CONTACT_INVALID", "The contact could not be written.")
	}
	w := c.writer("api")
	for _, v := range said {
		w.choose(i, s.prefs.byID[v.id], v.opt)
	}
	return c.empty(http.StatusOK)
}

type optInBody struct {
	MarketingPreferenceID int32 `json:"marketingPreferenceId"`
	AddressBookID         int32 `json:"addressBookId"`
	IsOptedIn             bool  `json:"isOptedIn"`
	// DateModifed is misspelled in the service as well.
	DateModifed string `json:"dateModifed"`
}

type subscriptionBody struct {
	Contact json.RawMessage `json:"contact"`
	OptIns  []optInBody     `json:"marketingPreferenceOptIns"`
}

func (s *Server) subscription(i uint32, preferences ...int32) subscriptionBody {
	out := subscriptionBody{Contact: s.appendV2Contact(nil, i, false), OptIns: []optInBody{}}
	for _, id := range preferences {
		v := s.at(i).said(id)
		out.OptIns = append(out.OptIns, optInBody{MarketingPreferenceID: id, IsOptedIn: v.in, DateModifed: formatTime(v.at)})
	}
	return out
}

func (s *Server) serveSubscriptions(c *call) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	i, err := s.readableV2(c)
	if err != nil {
		return err
	}
	var said []int32
	if r := s.at(i).rare; r != nil {
		said = sortedKeys(r.prefs)
	}
	c.reply(http.StatusOK, s.subscription(i, said...))
	return nil
}

// withPreference collects a page of the contacts that said something about a
// preference, in order of id from minContactId on, that one included.
func (s *Server) withPreference(c *call, onList bool, admit func(choice) bool, emit func(uint32, *preference)) error {
	param := 0
	if onList {
		param = 1
	}
	from := uint32(0)
	if v, ok := c.query("minContactId"); ok && v != "" {
		n, err := strconv.ParseInt(v, 10, 32)
		if err != nil || n < 0 {
			return badParameter("minContactId must be a whole number of at least 0.")
		}
		from = uint32(max(0, n-firstContactID))
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	var members *idSet
	if onList {
		id, err := c.id(0)
		if err != nil {
			return err
		}
		l, err := s.addressBook(id)
		if err != nil {
			return err
		}
		members = s.audience(l)
	}
	p, err := s.definitionOf(c, param)
	if err != nil {
		return err
	}
	if p.category {
		return invalidPreference("It is a category; contacts opt into preferences.")
	}
	matches := func(i uint32) bool {
		return s.v2Visible(i) && admit(s.at(i).said(p.id)) && (members == nil || members.has(i))
	}
	kind := ""
	if from > 0 {
		kind = s.pageKind(c)
	}
	if kind == "dup" || kind == "loop" {
		for from > 0 {
			if from--; p.chosen.has(from) && matches(from) {
				break
			}
		}
	}
	n := 0
	for i := range p.chosen.all(from) {
		if !matches(i) {
			continue
		}
		if kind == "skip" {
			kind = ""
			continue
		}
		if n == maxSelect {
			break
		}
		emit(i, p)
		n++
	}
	return nil
}

// serveWithPreference serves the reads of those who are opted in.
func serveWithPreference(onList bool) func(*Server, *call) error {
	return func(s *Server, c *call) error {
		out := []idAndEmail{}
		err := s.withPreference(c, onList, func(v choice) bool { return v.in }, func(i uint32, _ *preference) {
			out = append(out, idAndEmail{int32(contactID(i)), &s.at(i).email})
		})
		if err != nil {
			return err
		}
		c.reply(http.StatusOK, out)
		return nil
	}
}

// serveOptInsSince serves the reads of those who changed their mind either way.
func serveOptInsSince(onList bool) func(*Server, *call) error {
	return func(s *Server, c *call) error {
		since, err := c.since(len(c.params) - 1)
		if err != nil {
			return err
		}
		out := []subscriptionBody{}
		err = s.withPreference(c, onList, func(v choice) bool { return v.at >= since }, func(i uint32, p *preference) {
			out = append(out, s.subscription(i, p.id))
		})
		if err != nil {
			return err
		}
		c.reply(http.StatusOK, out)
		return nil
	}
}

// preferenceRoutes lists the operations on preferences, under both of the paths
// that clients use.
func preferenceRoutes() []route {
	table := []route{
		get("/v2/preferences", "preferences.list", low, (*Server).servePreferences),
		get("/v2/preference", "preferences.list", low, (*Server).servePreferences),
		post("/v2/preferences", "preferences.create", medium, (*Server).servePreferenceCreate),
		get("/v2/preferences/modified-since/{date}", "preferences.modified-since", low, (*Server).servePreferencesModified),
		put("/v2/preferences/{id}", "preferences.update", medium, (*Server).servePreferenceUpdate),
		del("/v2/preferences/{id}", "preferences.delete", medium, (*Server).servePreferenceDelete),
		get("/v2/contacts/with-preference/{preferenceId}", "contacts.with-preference", low, serveWithPreference(false)),
		get("/v2/contacts/with-preference/{preferenceId}/opt-ins-since/{date}", "contacts.opt-ins-since", low, serveOptInsSince(false)),
		get("/v2/address-books/{id}/contacts/with-preference/{preferenceId}", "address-books.with-preference", low, serveWithPreference(true)),
		get("/v2/address-books/{id}/contacts/with-preference/{preferenceId}/opt-ins-since/{date}", "address-books.opt-ins-since", low, serveOptInsSince(true)),
	}
	for _, contact := range []string{"/v2/contacts/{idOrEmail}", "/v2/contact/{idOrEmail}"} {
		table = append(table,
			get(contact+"/preferences", "contacts.preferences", high, (*Server).serveContactPreferences),
			put(contact+"/preferences", "contacts.set-preferences", medium, (*Server).serveContactPreferencesUpdate),
			get(contact+"/subscriptions", "contacts.subscriptions", high, (*Server).serveSubscriptions),
		)
	}
	return table
}
