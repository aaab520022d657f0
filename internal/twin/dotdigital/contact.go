package dotdigital

import (
	"bytes"
	"slices"
	"strings"
)

// firstContactID is the id of the first contact; further ones count up.
const firstContactID = 1001

const never = int64(1) << 62

// emailStatus is the state of a contact's email channel.
type emailStatus uint8

const (
	subscribed emailStatus = iota
	noSubscription
	pendingOptIn
	unsubscribed
	suppressed
	softBounced
	hardBounced
	ispComplained
	mailBlocked
	directComplaint
	sharedSuppression
	domainSuppression
)

// statusNames are the words of the two API versions: the v2 contact status, the
// v3 email channel status, and the v3 contact status.
var statusNames = [...]struct{ v2, channel, contact string }{
	subscribed:        {"Subscribed", "subscribed", "subscribed"},
	noSubscription:    {"NotAvailableInThisVersion", "noSubscription", "noSubscription"},
	pendingOptIn:      {"PendingOptIn", "pendingOptIn", "pendingOptIn"},
	unsubscribed:      {"Unsubscribed", "unsubscribed", "unsubscribed"},
	suppressed:        {"Suppressed", "suppressed", "suppressed"},
	softBounced:       {"SoftBounced", "softBounced", "suppressed"},
	hardBounced:       {"HardBounced", "hardBounced", "suppressed"},
	ispComplained:     {"IspComplained", "ispComplained", "suppressed"},
	mailBlocked:       {"MailBlocked", "blockedlocalpart", "suppressed"},
	directComplaint:   {"DirectComplaint", "directComplaint", "suppressed"},
	sharedSuppression: {"SharedSuppression", "sharedsuppression", "suppressed"},
	domainSuppression: {"DomainSuppression", "domainSuppressed", "suppressed"},
}

func (e emailStatus) blocked() bool { return e >= unsubscribed }

// reversible reports whether an API call may subscribe the contact again.
func (e emailStatus) reversible() bool {
	return e == unsubscribed || e == suppressed || e == softBounced
}

type optIn uint8

const (
	optInUnknown optIn = iota
	optInSingle
	optInDouble
	optInVerified
)

var optInNames = [...]string{"Unknown", "Single", "Double", "VerifiedDouble"}

func parseOptIn(s string) (optIn, bool) {
	for i, n := range optInNames {
		if strings.EqualFold(s, n) {
			return optIn(i), true
		}
	}
	return 0, false
}

// emailType is a place in emailTypeNames.
type emailType uint8

var emailTypeNames = [...]string{"Html", "PlainText"}

func parseEmailType(s string) (emailType, bool) {
	for i, n := range emailTypeNames {
		if strings.EqualFold(s, n) {
			return emailType(i), true
		}
	}
	return 0, false
}

type life uint8

const (
	live life = iota
	binned
	destroyed
)

// contact is one person. Its id is its place in the store. The struct and its
// strings are kept small: a million of them with a dozen values each have to
// fit beside the rest of the demo on a laptop.
type contact struct {
	email string
	// values are the packed data fields.
	values string
	lists  []membership
	rare   *rareParts

	created, subscribedAt, removedAt int64
	// importSeq is the import that touched the contact last: a second row for
	// the same contact in one import is a duplicate.
	importSeq   uint32
	status      emailStatus
	optIn       optIn
	emailType   emailType
	life        life
	softBounces uint8
	// challenged is set while a resubscribe challenge is unanswered.
	challenged bool
}

type membership struct {
	list   int32
	status listStatus
}

type listStatus uint8

const (
	inList listStatus = iota
	leftList
	challengedList
)

// rareParts are what few contacts have.
type rareParts struct {
	mobile        string
	sms, whatsApp string
	custom        map[string]string
	prefs         map[int32]choice
	consent       []consentRecord
}

type consentRecord struct {
	Text              string `json:"text"`
	DateTimeConsented string `json:"dateTimeConsented"`
	URL               string `json:"url,omitempty"`
	IPAddress         string `json:"ipAddress,omitempty"`
	UserAgent         string `json:"userAgent,omitempty"`
	DateTimeCreated   string `json:"dateTimeCreated"`
}

const chunkSize = 4096

// contacts is the store: contacts in order of id, and their indexes.
type contacts struct {
	chunks []*[chunkSize]contact
	count  uint32
	// updated is kept apart from the contacts so that a read of "what changed"
	// scans eight bytes a contact.
	updated  []int64
	byEmail  map[string]uint32
	byMobile map[string]uint32
	byCustom map[customKey]uint32
	// alive are the contacts outside the recycle bin; blockedSet those of them
	// whose email channel is suppressed for any reason.
	alive      idSet
	blockedSet idSet
}

type customKey struct{ name, value string }

func (cs *contacts) init() {
	cs.byEmail = map[string]uint32{}
	cs.byMobile = map[string]uint32{}
	cs.byCustom = map[customKey]uint32{}
}

func (cs *contacts) at(i uint32) *contact { return &cs.chunks[i/chunkSize][i%chunkSize] }

// add returns a new blank contact.
func (cs *contacts) add(now int64) (uint32, *contact) {
	i := cs.count
	if i%chunkSize == 0 {
		cs.chunks = append(cs.chunks, new([chunkSize]contact))
	}
	cs.count++
	cs.updated = append(cs.updated, now)
	cs.alive.add(i)
	c := cs.at(i)
	c.created = now
	c.subscribedAt = now
	return i, c
}

func contactID(i uint32) int64 { return firstContactID + int64(i) }

// byID returns the index of an existing contact that is not destroyed.
func (cs *contacts) byID(id int64) (uint32, bool) {
	i := id - firstContactID
	if i < 0 || i >= int64(cs.count) || cs.at(uint32(i)).life == destroyed {
		return 0, false
	}
	return uint32(i), true
}

func (c *contact) parts() *rareParts {
	if c.rare == nil {
		c.rare = &rareParts{}
	}
	return c.rare
}

func (c *contact) mobile() string {
	if c.rare == nil {
		return ""
	}
	return c.rare.mobile
}

// findEmail looks an address up ignoring case.
func (cs *contacts) findEmail(email []byte) (uint32, bool) {
	var low [maxEmail]byte
	i, ok := cs.byEmail[string(lowerInto(low[:0], email))]
	return i, ok
}

func lowerInto(dst, email []byte) []byte {
	for _, c := range email {
		if c-'A' < 26 {
			c += 'a' - 'A'
		} else if c >= 0x80 {
			return bytes.ToLower(email)
		}
		dst = append(dst, c)
	}
	return dst
}

func (cs *contacts) setEmail(i uint32, email []byte) {
	c := cs.at(i)
	if c.email != "" {
		delete(cs.byEmail, strings.ToLower(c.email))
	}
	c.email = string(email)
	if c.email == "" {
		return
	}
	key := c.email
	var low [maxEmail]byte
	if l := lowerInto(low[:0], email); string(l) != key {
		key = string(l)
	}
	cs.byEmail[key] = i
}

const maxEmail = 254

// validEmail applies the checks that a mail platform makes without sending.
func validEmail(e []byte) bool {
	if len(e) > maxEmail {
		return false
	}
	at := bytes.IndexByte(e, '@')
	if at < 1 || at > 64 {
		return false
	}
	local, domain := e[:at], e[at+1:]
	if local[0] == '.' || local[at-1] == '.' {
		return false
	}
	var prev byte
	for _, c := range local {
		if c <= ' ' || c == 0x7f || c == '.' && prev == '.' || strings.IndexByte(`"(),:;<>@[\]`, c) >= 0 {
			return false
		}
		prev = c
	}
	dots, label := 0, 0
	prev = '.'
	for _, c := range domain {
		switch {
		case c == '.':
			if label == 0 || label > 63 || prev == '-' {
				return false
			}
			dots++
			label = 0
		case c == '-' && label > 0, c|0x20-'a' < 26, c-'0' <= 9, c >= 0x80:
			label++
		default:
			return false
		}
		prev = c
	}
	return dots > 0 && label >= 2 && label <= 63 && prev != '-'
}

// validMobile wants E.164 digits without the plus sign.
func validMobile(m []byte) bool {
	if len(m) < 7 || len(m) > 15 || m[0] == '0' {
		return false
	}
	for _, c := range m {
		if c-'0' > 9 {
			return false
		}
	}
	return true
}

func validIdentifierName(name []byte) bool {
	if len(name) == 0 || len(name) > 50 {
		return false
	}
	for _, c := range name {
		if c|0x20-'a' >= 26 && c-'0' > 9 && c != '_' && c != '-' {
			return false
		}
	}
	return true
}

func (c *contact) membership(list int32) int {
	for k := range c.lists {
		if c.lists[k].list == list {
			return k
		}
	}
	return -1
}

func (s *Server) domainBlocked(email []byte) bool {
	if len(s.opt.SuppressedDomains) == 0 {
		return false
	}
	domain := strings.ToLower(string(email[bytes.IndexByte(email, '@')+1:]))
	return slices.Contains(s.opt.SuppressedDomains, domain)
}
