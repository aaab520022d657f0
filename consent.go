package lockstep

import (
	"context"
	"time"
)

// ConsentScope says what a statement of consent is about.
type ConsentScope string

// The scopes, the widest first.
const (
	ScopeAccount    ConsentScope = "account"    // all mail of an email account
	ScopeEmail      ConsentScope = "email"      // the CRM's "do not email" of a record; the object is "table/id"
	ScopeBulk       ConsentScope = "bulk_email" // the CRM's "do not bulk email" of a record; the object is "table/id"
	ScopeList       ConsentScope = "list"       // one marketing list; the object is the list's settings id
	ScopePreference ConsentScope = "preference" // one marketing preference; the object is its id on the platform
	ScopeOptIn      ConsentScope = "opt_in"     // the opt-in type
)

// ConsentAct is what happened to a permission.
type ConsentAct string

// The acts.
const (
	ActRestricted ConsentAct = "restricted" // an opt-out of any kind
	ActAllowed    ConsentAct = "allowed"    // an opt-in, or the end of a restriction
	ActAsked      ConsentAct = "asked"      // a resubscription was asked for and is not confirmed yet
	ActRefused    ConsentAct = "refused"    // the platform will not mail the address again
	ActTold       ConsentAct = "told"       // a system has been told of the entry named by About
	ActErased     ConsentAct = "erased"     // the person's values were erased
)

// ConsentSystem is a system that says something about consent or is told.
type ConsentSystem string

// The systems.
const (
	ConsentCRM      ConsentSystem = "crm"
	ConsentPlatform ConsentSystem = "platform"
	ConsentLockstep ConsentSystem = "lockstep" // a person using Lockstep's pages, API or command line
)

// AddressKey is a salted hash of a normalised address. The salt belongs to the
// installation, so that a key says nothing without it, and it stays when the person
// behind the address is erased.
type AddressKey [16]byte

// ConsentEntry is one row of the consent ledger: a statement about a permission, as
// it was seen or made. Entries are appended and never changed; only the values that
// name a person (Email, Ref, Contact, Actor, Evidence) are blanked by an erasure.
type ConsentEntry struct {
	// Seq is the place in the chain, from 1; the store gives it.
	Seq int64 `json:"seq"`
	// ID names the statement: the same statement seen again has the same id and is
	// not appended again. See ConsentID.
	ID      ID           `json:"id"`
	Account string       `json:"account"`
	Act     ConsentAct   `json:"act"`
	Scope   ConsentScope `json:"scope"`
	Object  string       `json:"object,omitempty"`
	Key     AddressKey   `json:"-"`
	Email   string       `json:"email,omitempty"` // normalised
	Ref     Ref          `json:"record,omitzero"`
	Contact ContactID    `json:"contact,omitempty"`
	// Reason is what the platform gives as the reason of a restriction of its
	// account.
	Reason Standing `json:"reason,omitempty"`
	// OptIn is the opt-in type that an entry of ScopeOptIn states.
	OptIn  OptInType     `json:"opt_in,omitempty"`
	System ConsentSystem `json:"system"`           // where the statement was made; for ActTold, who was told
	Target string        `json:"target,omitempty"` // for ActTold to a platform: the email account
	Actor  string        `json:"actor,omitempty"`
	// Evidence is what proves the statement, in words.
	Evidence string    `json:"evidence,omitempty"`
	At       time.Time `json:"at,omitzero"` // when it happened; zero = unknown
	Seen     time.Time `json:"seen"`        // when Lockstep saw or made it
	About    ID        `json:"about,omitzero"`
	// Run is the run that saw or made it; empty outside of runs.
	Run string `json:"run,omitempty"`
	// Prev and Hash chain the entries: Hash covers the entry's content and Prev.
	Prev [32]byte `json:"-"`
	Hash [32]byte `json:"-"`
}

// consentSpace is the name space of ConsentID.
var consentSpace = ID{0x6c, 0x6f, 0x63, 0x6b, 0x73, 0x74, 0x65, 0x70, 'c', 'o', 'n', 's', 'e', 'n', 't', '1'}

// ConsentID names a statement by what it says, of whom, where and when: account,
// act, scope, object, address, system, record, time, and the entry that it is about.
func ConsentID(e *ConsentEntry) ID {
	name := make([]byte, 0, 160)
	for _, part := range []string{e.Account, string(e.Act), string(e.Scope), e.Object, string(e.System), e.Target, e.Ref.Table, e.OptIn.String()} {
		name = append(name, part...)
		name = append(name, 0)
	}
	name = append(name, e.Key[:]...)
	name = append(name, e.Ref.ID[:]...)
	name = append(name, e.About[:]...)
	if !e.At.IsZero() {
		name = e.At.UTC().AppendFormat(name, time.RFC3339Nano)
	}
	return NameID(consentSpace, string(name))
}

// Restriction is a standing opt-out: what the ledger's entries about one address add
// up to for one scope of one account. While it stands nobody with the address is
// added, mailed or allowed again in that scope.
type Restriction struct {
	// ID is made from account, scope, object and address. See RestrictionID.
	ID      ID           `json:"id"`
	Account string       `json:"account"`
	Scope   ConsentScope `json:"scope"`
	Object  string       `json:"object,omitempty"`
	Key     AddressKey   `json:"-"`
	// Email is normalised; empty when the person was erased, while Key goes on to
	// restrict the address.
	Email   string        `json:"email,omitempty"`
	Ref     Ref           `json:"record,omitzero"`
	Contact ContactID     `json:"contact,omitempty"`
	Reason  Standing      `json:"reason,omitempty"`
	System  ConsentSystem `json:"system"` // where it was made
	// Origin is the email account where it was made, when that is another one.
	Origin   string    `json:"origin,omitempty"`
	Actor    string    `json:"actor,omitempty"`
	Evidence string    `json:"evidence,omitempty"`
	At       time.Time `json:"at,omitzero"`
	Seen     time.Time `json:"seen"`
	// Entry is the ledger entry that made it.
	Entry ID `json:"entry"`
	// Told is when each destination had it: "crm" for the records' flags, "row" for
	// the row in the CRM, "platform" for the account, "books" for the address books.
	Told map[string]time.Time `json:"told,omitempty"`
	// Pending is set while a destination has to be told.
	Pending bool `json:"pending"`
	// Asked is when a resubscription was asked for that waits for the person.
	Asked time.Time `json:"asked,omitzero"`
	// Listed is when the account closed to the address, by the platform's own clock;
	// zero while the platform does not say it by itself.
	Listed time.Time `json:"listed,omitzero"`
	// Former are contacts that have had the address, and when the account closed to
	// them the time before: what it is closed to they take along to another address.
	Former map[ContactID]time.Time `json:"former,omitempty"`
	// Released is set once the person came back by the platform's own flow: it
	// restricts nothing any more and goes when everybody was told.
	Released time.Time `json:"released,omitzero"`
	// Stamp grows with every restriction that is stored; given by the store.
	Stamp int64 `json:"-"`
}

// ListedSince is when the platform closed to the address, by its own clock; zero = it was
// told to, and has not been read since.
func (r *Restriction) ListedSince() time.Time {
	if r.Listed.IsZero() && r.System == ConsentPlatform && r.Origin == "" {
		return r.At
	}
	return r.Listed
}

// RestrictionID names the restriction of an address.
func RestrictionID(account string, scope ConsentScope, object string, key AddressKey) ID {
	return NameID(consentSpace, account+"\x00"+string(scope)+"\x00"+object+"\x00"+string(key[:]))
}

// Suppression is one row of a platform's lists of people who may not be mailed.
type Suppression struct {
	Contact ContactID
	Email   string // as stored
	Reason  Standing
	At      time.Time // when it happened; zero = unknown
}

// Resubscribed is a platform's answer to the wish to mail an address again.
type Resubscribed uint8

// The answers.
const (
	ResubscribeDone       Resubscribed = iota + 1 // it may be mailed now
	ResubscribeChallenged                         // the person was asked to confirm; restricted until then
	ResubscribeImpossible                         // a complaint, or the platform's own block
)

// SuppressionKeeper is a platform that tells who may not be mailed and can be told.
type SuppressionKeeper interface {
	// Suppressions reads who was suppressed in the whole account, for any reason,
	// since a cursor; everybody with an empty one. Rows may come again.
	Suppressions(ctx context.Context, since Cursor, each func([]Suppression) error) (Cursor, error)
	// Unsubscribes reads who left one address book by unsubscribing from it.
	Unsubscribes(ctx context.Context, book BookID, since Cursor, each func([]Suppression) error) (Cursor, error)
	// Suppress blocks addresses in the account, known ones and unknown ones; one
	// that is blocked already is no error. One result for each address: nil, or why
	// it was refused. At most MaxSuppress addresses a call.
	Suppress(ctx context.Context, emails []string) ([]*Error, error)
	MaxSuppress() int
	// Resubscribe asks the platform to mail an address again, by its own flow.
	Resubscribe(ctx context.Context, email string) (Resubscribed, error)
}

// BookWatcher is a platform that tells cheaply where somebody may have unsubscribed.
type BookWatcher interface {
	// BooksOfChanged returns the address books to which the contacts that changed since
	// a cursor belong, or which they left by unsubscribing. all means that it may be
	// any: nothing is known since the cursor, or too much changed. An empty cursor begins.
	BooksOfChanged(ctx context.Context, since Cursor) (books []BookID, all bool, next Cursor, err error)
}

// Preference is one marketing preference that people can choose.
type Preference struct {
	ID       string `json:"id"`
	Name     string `json:"name"`     // as people see it
	Category string `json:"category"` // empty = none
	Public   bool   `json:"public"`
}

// PreferenceChoice is what one person chose.
type PreferenceChoice struct {
	Contact    ContactID
	Email      string // as stored
	Preference string
	OptedIn    bool
	At         time.Time // zero = unknown
}

// PreferenceKeeper is a platform with marketing preferences.
type PreferenceKeeper interface {
	// Preferences reads the preferences that there are.
	Preferences(ctx context.Context) ([]Preference, error)
	// Choices reads the choices for one preference that changed since a cursor, all
	// with an empty one. Rows may come again.
	Choices(ctx context.Context, preference string, since Cursor, each func([]PreferenceChoice) error) (Cursor, error)
	// Choose writes choices; At is ignored. One result for each: nil, or why it was
	// refused. It makes no contact: a choice of somebody unknown is CodeNotFound. It
	// can be repeated, and it subscribes nobody to mail.
	Choose(ctx context.Context, choices []PreferenceChoice) ([]*Error, error)
}

// Answer is what somebody said to the question that a marketing preference asks.
type Answer uint8

// The answers.
const (
	NoAnswer Answer = iota
	OptedOut
	OptedIn
)

// AnswerOf returns OptedIn or OptedOut.
func AnswerOf(in bool) Answer {
	if in {
		return OptedIn
	}
	return OptedOut
}

func (a Answer) String() string {
	switch a {
	case OptedIn:
		return "opted in"
	case OptedOut:
		return "opted out"
	}
	return "no answer"
}

// Said is an answer as one side holds it.
type Said struct {
	Answer Answer    `json:"answer,omitempty"`
	At     time.Time `json:"at,omitzero"` // when it was given; zero = unknown
}

// Choice is what is known of one address and one marketing preference: what each
// side says, and what they agreed on last.
type Choice struct {
	// ID is made from account, preference and address. See ChoiceID.
	ID         ID         `json:"id"`
	Account    string     `json:"account"`
	Preference string     `json:"preference"` // its id on the platform
	Key        AddressKey `json:"-"`
	Email      string     `json:"email"` // normalised
	Contact    ContactID  `json:"contact,omitempty"`
	// Row is the row of ChoiceTable that shows it; zero = there is none. Lost is a row
	// that was deleted, or shows something else now.
	Row  ID `json:"row,omitzero"`
	Lost ID `json:"lost,omitzero"`
	// Unread is set while what was last written to the row has not been read back: when
	// it comes, nobody has said it again.
	Unread bool `json:"unread,omitempty"`
	// Known is set once a record of the CRM has the address. Others get no row.
	Known    bool `json:"known,omitempty"`
	Platform Said `json:"platform,omitzero"`
	CRM      Said `json:"crm,omitzero"`
	Agreed   Said `json:"agreed,omitzero"`
	// Pending is set while a side has still to be told.
	Pending bool `json:"-"`
}

// ChoiceID names the choice of an address for a preference.
func ChoiceID(account, preference string, key AddressKey) ID {
	return NameID(consentSpace, account+"\x00choice\x00"+preference+"\x00"+string(key[:]))
}

// PreferenceID names the row of PreferenceTable for a preference of an account.
func PreferenceID(account, preference string) ID {
	return NameID(consentSpace, account+"\x00preference\x00"+preference)
}

// OptOutReader is a CRM that can be asked for the records whose users closed them to
// email, without reading all others.
type OptOutReader interface {
	// OptOuts reads the active and inactive records of a table that do not allow
	// email or bulk email and were modified since a cursor; all of them with an
	// empty one. Values are not filled. Records may come again.
	OptOuts(ctx context.Context, table string, since Cursor, each func([]Record) error) (Cursor, error)
}

// The tables that Lockstep brings to the CRM, by logical name, with their columns.
// Rows have ids of our choosing: RestrictionID for suppressions and unsubscribers.
const (
	SuppressionTable  = "lockstep_suppression"      // one row an address that an account may not mail
	UnsubscriberTable = "lockstep_listunsubscriber" // one row an address that left a marketing list
	PreferenceTable   = "lockstep_preference"       // one row a marketing preference of an account
	ChoiceTable       = "lockstep_preferencechoice" // one row an address and preference

	NameColumn       = "lockstep_name"    // primary name: the address; of a preference its name
	EmailTextColumn  = "lockstep_email"   // text, 320
	AccountColumn    = "lockstep_account" // text, 36: Lockstep's id of the email account
	ReasonColumn     = "lockstep_reason"  // text, 100
	OriginColumn     = "lockstep_origin"  // text, 100: where the opt-out was made
	SinceColumn      = "lockstep_since"   // date and time, independent of a time zone
	ListIDColumn     = "lockstep_listid"  // text, 36: the marketing list
	ListNameColumn   = "lockstep_listname"
	PreferenceColumn = "lockstep_preferencekey" // text, 90: the preference's id on the platform; lockstep_preferenceid is the row's own
	CategoryColumn   = "lockstep_category"
	OptedInColumn    = "lockstep_optedin"   // two options
	OptInTypeColumn  = "lockstep_optintype" // option set on contact, lead and account: 0 unknown … 3 verified double
)
