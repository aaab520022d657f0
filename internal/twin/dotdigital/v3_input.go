package dotdigital

import (
	"bytes"
	"net/http"
	"strconv"
	"strings"
)

// contactInput is a contact as a v3 write names it. Its slices point into the
// request body and are reused from row to row.
type contactInput struct {
	match       []byte
	identifiers []byte
	contactID   int64
	email       []byte
	mobile      []byte
	custom      []customValue
	values      []fieldValue
	arena       []byte
	lists       []int32
	prefs       []prefValue
	consent     []consentRecord
	channels    channelInput
}

type customValue struct{ name, value []byte }

type prefValue struct {
	id  int32
	opt bool
}

type channelInput struct {
	emailType     emailType
	hasEmailType  bool
	optIn         optIn
	hasOptIn      bool
	status        []byte
	challenge     bool
	resubscribes  bool // resubscribeOptions are given
	sms, whatsApp []byte
}

// failure is one reason why a row, or a set that belongs to it, was refused.
type failure struct{ code, text string }

func (in *contactInput) reset() {
	*in = contactInput{
		custom: in.custom[:0], values: in.values[:0], arena: in.arena[:0],
		lists: in.lists[:0], prefs: in.prefs[:0],
	}
}

const maxListsPerContact = 100

// parse reads one contact object of a checked text. Names are case sensitive.
// The caller holds at least a read lock: values are checked against the fields.
func (in *contactInput) parse(fields *fieldSet, raw []byte) *failure {
	in.reset()
	if raw[0] != '{' {
		return &failure{"ApiSchemaViolation", "A contact must be an object."}
	}
	var first *failure
	sc := scanner{b: raw}
	for name, ok := sc.member(true); ok; name, ok = sc.member(false) {
		v := sc.value()
		var bad *failure
		switch string(name) {
		case "matchIdentifier":
			if v[0] != '"' {
				bad = &failure{"InvalidMatchIdentifier", "matchIdentifier must be the name of an identifier."}
			} else {
				in.match = unquote(v)
			}
		case "identifiers":
			in.identifiers = v
			bad = in.parseIdentifiers(v)
		}
		// After a failure only what identifies the row is of interest: the
		// failure report names it.
		if first == nil && bad == nil {
			bad = in.parseSet(fields, name, v)
		}
		if first == nil {
			first = bad
		}
	}
	return first
}

func (in *contactInput) parseSet(fields *fieldSet, name, v []byte) *failure {
	switch string(name) {
	case "dataFields":
		return in.parseValues(fields, v)
	case "lists":
		return in.parseLists(v)
	case "channelProperties":
		return in.parseChannels(v)
	case "preferences":
		return in.parsePreferences(v)
	case "consentRecords":
		return in.parseConsent(v)
	}
	return nil
}

func (in *contactInput) parseIdentifiers(raw []byte) *failure {
	if raw[0] != '{' {
		return &failure{"ApiSchemaViolation", "identifiers must be an object."}
	}
	sc := scanner{b: raw}
	for name, ok := sc.member(true); ok; name, ok = sc.member(false) {
		v := sc.value()
		if string(name) == "contactId" {
			n, err := strconv.ParseInt(string(v), 10, 64)
			if err != nil || n < 1 {
				return &failure{"InvalidContactId", "contactId must be a positive number."}
			}
			in.contactID = n
			continue
		}
		if v[0] == 'n' {
			// Null does not clear an identifier.
			continue
		}
		if v[0] != '"' {
			return &failure{"ApiSchemaViolation", "An identifier must be text."}
		}
		text := unquote(v)
		switch string(name) {
		case "email":
			if len(text) > 0 && !validEmail(text) {
				return &failure{"InvalidEmail", "Invalid value for 'email'"}
			}
			in.email = text
		case "mobileNumber":
			if len(text) > 0 && !validMobile(text) {
				return &failure{"InvalidPhoneNumber", "Invalid value for 'mobileNumber'"}
			}
			in.mobile = text
		default:
			if len(text) == 0 {
				continue
			}
			if len(text) > 256 {
				return &failure{"ApiSchemaViolation", "An identifier has at most 256 characters."}
			}
			in.custom = append(in.custom, customValue{name, text})
		}
	}
	return nil
}

func (in *contactInput) parseValues(fields *fieldSet, raw []byte) *failure {
	if raw[0] == 'n' {
		return nil
	}
	if raw[0] != '{' {
		return &failure{"ApiSchemaViolation", "dataFields must be an object."}
	}
	sc := scanner{b: raw}
	for name, ok := sc.member(true); ok; name, ok = sc.member(false) {
		v := sc.value()
		f := fields.find(name)
		if f == nil {
			return &failure{"InvalidContact", "Data field '" + shortName(name) + "' does not exist."}
		}
		if bad := in.addValue(f, v, false); bad != nil {
			return bad
		}
	}
	return nil
}

func (in *contactInput) addValue(f *field, lit []byte, loose bool) *failure {
	start := len(in.arena)
	arena, err := f.canon(in.arena, lit, loose)
	if err != nil {
		return &failure{"InvalidContact", valueProblem(f, err)}
	}
	in.arena = arena
	value := fieldValue{f, arena[start:len(arena):len(arena)]}
	for k := range in.values {
		if in.values[k].field == f {
			in.values[k] = value
			return nil
		}
	}
	in.values = append(in.values, value)
	return nil
}

func shortName(name []byte) string {
	if len(name) > 50 {
		name = name[:50]
	}
	return string(bytes.ToValidUTF8(name, nil))
}

func (in *contactInput) parseLists(raw []byte) *failure {
	if raw[0] == 'n' {
		return nil
	}
	if raw[0] != '[' {
		return &failure{"ApiSchemaViolation", "lists must be an array of list ids."}
	}
	sc := scanner{b: raw}
	for ok := sc.element(true); ok; ok = sc.element(false) {
		n, err := strconv.ParseInt(string(sc.value()), 10, 32)
		if err != nil {
			return &failure{"ApiSchemaViolation", "lists must be an array of list ids."}
		}
		if len(in.lists) == maxListsPerContact {
			return &failure{"ApiSchemaViolation", "A contact takes at most 100 lists a call."}
		}
		in.lists = append(in.lists, int32(n))
	}
	return nil
}

func (in *contactInput) parseChannels(raw []byte) *failure {
	if raw[0] == 'n' {
		return nil
	}
	wrong := &failure{"ApiSchemaViolation", "channelProperties is not as documented."}
	if raw[0] != '{' {
		return wrong
	}
	sc := scanner{b: raw}
	for channel, ok := sc.member(true); ok; channel, ok = sc.member(false) {
		v := sc.value()
		if v[0] == 'n' {
			continue
		}
		if v[0] != '{' {
			return wrong
		}
		props := scanner{b: v}
		for name, ok := props.member(true); ok; name, ok = props.member(false) {
			v := props.value()
			key := string(channel) + "." + string(name)
			if key == "email.resubscribeOptions" {
				if !in.parseResubscribe(v) {
					return wrong
				}
				continue
			}
			if v[0] != '"' {
				return wrong
			}
			text := unquote(v)
			switch key {
			case "email.emailType":
				if in.channels.emailType, in.channels.hasEmailType = parseEmailType(string(text)); !in.channels.hasEmailType {
					return wrong
				}
			case "email.optInType":
				if in.channels.optIn, in.channels.hasOptIn = parseOptIn(string(text)); !in.channels.hasOptIn {
					return wrong
				}
			case "email.status":
				in.channels.status = bytes.ToLower(text)
				switch string(in.channels.status) {
				case "subscribed", "unsubscribed", "suppressed":
				default:
					return &failure{"InvalidContactStatus", "The status of the email channel must be subscribed, unsubscribed or suppressed."}
				}
			case "sms.status", "whatsApp.status":
				switch string(text) {
				case "noSubscription", "subscribed", "unsubscribed", "suppressed":
				default:
					return &failure{"InvalidContactStatus", "The channel does not know this status."}
				}
				if key[0] == 's' {
					in.channels.sms = text
				} else {
					in.channels.whatsApp = text
				}
			default:
				// These objects are closed.
				return wrong
			}
		}
	}
	return nil
}

func (in *contactInput) parseResubscribe(raw []byte) bool {
	if raw[0] == 'n' {
		return true
	}
	if raw[0] != '{' {
		return false
	}
	in.channels.resubscribes = true
	sc := scanner{b: raw}
	for name, ok := sc.member(true); ok; name, ok = sc.member(false) {
		v := sc.value()
		switch string(name) {
		case "resubscribeWithNoChallenge":
			if v[0] != 't' && v[0] != 'f' {
				return false
			}
			in.channels.challenge = v[0] == 'f'
		case "preferredLocale":
			if v[0] != 'n' && (v[0] != '"' || !challengeLocales[string(unquote(v))]) {
				return false
			}
		case "redirectUrlAfterChallenge":
			if v[0] != 'n' && v[0] != '"' {
				return false
			}
		default:
			return false
		}
	}
	return true
}

func (in *contactInput) parsePreferences(raw []byte) *failure {
	if raw[0] == 'n' {
		return nil
	}
	wrong := &failure{"ApiSchemaViolation", "preferences must be an array of {id, isOptedIn}."}
	if raw[0] != '[' {
		return wrong
	}
	sc := scanner{b: raw}
	for ok := sc.element(true); ok; ok = sc.element(false) {
		v := sc.value()
		if v[0] != '{' {
			return wrong
		}
		var p prefValue
		seen := 0
		row := scanner{b: v}
		for name, ok := row.member(true); ok; name, ok = row.member(false) {
			v := row.value()
			switch string(name) {
			case "id":
				n, err := strconv.ParseInt(string(v), 10, 32)
				if err != nil {
					return wrong
				}
				p.id = int32(n)
				seen |= 1
			case "isOptedIn":
				if v[0] != 't' && v[0] != 'f' {
					return wrong
				}
				p.opt = v[0] == 't'
				seen |= 2
			}
		}
		if seen != 3 {
			return wrong
		}
		in.prefs = append(in.prefs, p)
	}
	return nil
}

func (in *contactInput) parseConsent(raw []byte) *failure {
	if raw[0] == 'n' {
		return nil
	}
	wrong := &failure{"ApiSchemaViolation", "consentRecords must be 1 to 5 records with text and dateTimeConsented."}
	if raw[0] != '[' {
		return wrong
	}
	sc := scanner{b: raw}
	for ok := sc.element(true); ok; ok = sc.element(false) {
		v := sc.value()
		if v[0] != '{' || len(in.consent) == 5 {
			return wrong
		}
		var r consentRecord
		row := scanner{b: v}
		for name, ok := row.member(true); ok; name, ok = row.member(false) {
			v := row.value()
			if v[0] != '"' {
				return wrong
			}
			text := string(unquote(v))
			switch string(name) {
			case "text":
				r.Text = text
			case "dateTimeConsented":
				t, ok := parseDate(text)
				if !ok {
					return wrong
				}
				r.DateTimeConsented = t.Format(wireTime)
			case "url":
				r.URL = text
			case "ipAddress":
				r.IPAddress = text
			case "userAgent":
				r.UserAgent = text
			default:
				return wrong
			}
		}
		if r.Text == "" || r.DateTimeConsented == "" {
			return wrong
		}
		in.consent = append(in.consent, r)
	}
	if len(in.consent) == 0 {
		return wrong
	}
	return nil
}

// locate finds the contact by one identifier. bad is set when the identifier
// itself cannot be used.
func (s *Server) locate(name string, in *contactInput) (i uint32, found bool, bad *failure) {
	switch name {
	case "contactId":
		if in.contactID == 0 {
			return 0, false, &failure{"NoValidIdentifiers", "identifiers lacks the contactId to match by."}
		}
		i, found = s.byID(in.contactID)
	case "email":
		if len(in.email) == 0 {
			return 0, false, &failure{"NoValidIdentifiers", "identifiers lacks the email to match by."}
		}
		i, found = s.findEmail(in.email)
	case "mobileNumber":
		if len(in.mobile) == 0 {
			return 0, false, &failure{"NoValidIdentifiers", "identifiers lacks the mobileNumber to match by."}
		}
		i, found = s.byMobile[string(in.mobile)]
	default:
		if s.customID(name) == nil {
			return 0, false, &failure{"InvalidMatchIdentifier", "The account has no identifier of this name."}
		}
		for _, v := range in.custom {
			if string(v.name) == name {
				i, found = s.byCustom[customKey{name, string(v.value)}]
				return i, found, nil
			}
		}
		return 0, false, &failure{"NoValidIdentifiers", "identifiers lacks the custom identifier to match by."}
	}
	return i, found, nil
}

// checkIdentifiers makes sure that no identifier belongs to somebody else.
// found is false for a contact that is about to be created.
func (s *Server) checkIdentifiers(i uint32, found bool, in *contactInput) *failure {
	taken := func(j uint32, ok bool) bool { return ok && (!found || j != i) }
	if in.contactID != 0 && (!found || contactID(i) != in.contactID) {
		return &failure{"InvalidContactId", "contactId is not the id of the matched contact."}
	}
	if len(in.email) > 0 {
		if taken(s.findEmail(in.email)) {
			return &failure{"Duplicate", "Duplicate identifier detected for email."}
		}
		if s.domainBlocked(in.email) {
			return &failure{"SuppressedByDomain", "The account suppresses this mail domain."}
		}
	}
	if len(in.mobile) > 0 {
		if j, ok := s.byMobile[string(in.mobile)]; taken(j, ok) {
			return &failure{"Duplicate", "Duplicate identifier detected for mobileNumber."}
		}
	}
	for _, v := range in.custom {
		if s.customID(string(v.name)) == nil {
			return &failure{"InvalidContact", "The account has no identifier '" + shortName(v.name) + "'."}
		}
		if j, ok := s.byCustom[customKey{string(v.name), string(v.value)}]; taken(j, ok) {
			return &failure{"Duplicate", "Duplicate identifier detected for a custom identifier."}
		}
	}
	if !found && len(in.email) == 0 && len(in.mobile) == 0 {
		return &failure{"NoValidIdentifiers", "A contact needs an email or a mobileNumber."}
	}
	return nil
}

// outcome is what one contact write did. partial are sets that did not follow
// although the contact was written.
type outcome struct {
	index   uint32
	created bool
	partial []failure
}

// put writes a checked input into the found contact, or into a new one.
func (w *writer) put(i uint32, found bool, in *contactInput, opt mergeOption, scratch *[]byte) outcome {
	s := w.s
	var out outcome
	if !found {
		i, _ = s.add(w.now)
		out.created = true
	}
	out.index = i
	c := s.at(i)
	if found && c.life == binned {
		w.restore(i)
	}
	if len(in.email) > 0 && c.email != string(in.email) {
		w.changedText("email", c.email, string(in.email))
		s.setEmail(i, in.email)
	}
	if len(in.mobile) > 0 && c.mobile() != string(in.mobile) {
		delete(s.byMobile, c.mobile())
		w.changedText("mobileNumber", c.mobile(), string(in.mobile))
		c.parts().mobile = string(in.mobile)
		s.byMobile[c.rare.mobile] = i
	}
	for _, v := range in.custom {
		p := c.parts()
		name := s.customID(string(v.name)).name
		w.changedText("identifier:"+name, p.custom[name], string(v.value))
		if old, ok := p.custom[name]; ok {
			delete(s.byCustom, customKey{name, old})
		} else if p.custom == nil {
			p.custom = map[string]string{}
		}
		p.custom[name] = string(v.value)
		s.byCustom[customKey{name, p.custom[name]}] = i
	}
	*scratch = w.merge(i, in.values, opt, *scratch)
	if ch := &in.channels; ch.hasEmailType && c.emailType != ch.emailType {
		w.changedText("emailType", emailTypeNames[c.emailType], emailTypeNames[ch.emailType])
		c.emailType = ch.emailType
	}
	challenge := in.channels.hasOptIn && in.channels.optIn == optInVerified && (out.created || c.optIn != optInVerified)
	if ch := &in.channels; ch.hasOptIn && c.optIn != ch.optIn {
		w.changedText("optInType", optInNames[c.optIn], optInNames[ch.optIn])
		c.optIn = ch.optIn
	}
	if len(in.channels.sms) > 0 {
		w.changedText("sms", c.parts().sms, string(in.channels.sms))
		c.rare.sms = string(in.channels.sms)
	}
	if len(in.channels.whatsApp) > 0 {
		w.changedText("whatsApp", c.parts().whatsApp, string(in.channels.whatsApp))
		c.rare.whatsApp = string(in.channels.whatsApp)
	}
	w.touch(i)
	kind := "update"
	if out.created {
		kind = "create"
	}
	w.record(kind, i, 0)
	if out.created && c.email == "" {
		c.status = noSubscription
	} else if c.status == noSubscription && c.email != "" {
		w.setStatus(i, subscribed)
	}
	if challenge && c.status == subscribed {
		w.setStatus(i, pendingOptIn)
	}
	switch string(in.channels.status) {
	case "unsubscribed":
		w.block(i, unsubscribed)
	case "suppressed":
		w.block(i, suppressed)
	case "subscribed":
		switch {
		case c.status.reversible() && in.channels.challenge:
			w.challenge(i)
		case c.status.reversible():
			w.setStatus(i, subscribed)
		case c.status.blocked():
			out.partial = append(out.partial, failure{"GloballySuppressed", "The contact is suppressed and cannot be subscribed through the API."})
		}
	}
	w.putSets(i, c, in, &out)
	return out
}

// putSets writes lists, preferences and consent; a set that has a fault is left
// out as a whole.
func (w *writer) putSets(i uint32, c *contact, in *contactInput, out *outcome) {
	s := w.s
	if len(in.lists) > 0 {
		bad := ""
		for _, id := range in.lists {
			if l := s.lists[id]; l == nil || l.rule != nil || l.system != ordinary {
				bad = "No list with id " + strconv.Itoa(int(id)) + " can be joined."
			} else if k := c.membership(id); k >= 0 && c.lists[k].status != inList {
				bad = "The contact has unsubscribed from list " + strconv.Itoa(int(id)) + "."
			}
		}
		switch {
		case c.status.blocked():
			out.partial = append(out.partial, failure{"GloballySuppressed", "The contact is suppressed and joined no list."})
		case bad != "":
			out.partial = append(out.partial, failure{"InvalidAddressBookIds", bad})
		default:
			for _, id := range in.lists {
				w.join(i, s.lists[id])
			}
		}
	}
	if len(in.prefs) > 0 {
		known := true
		for _, p := range in.prefs {
			known = known && s.prefs.choosable(p.id) != nil
		}
		if known {
			for _, p := range in.prefs {
				w.choose(i, s.prefs.byID[p.id], p.opt)
			}
		} else {
			out.partial = append(out.partial, failure{"InvalidContact", "A preference does not exist or is a category."})
		}
	}
	if len(in.consent) > 0 {
		parts := c.parts()
		for _, r := range in.consent {
			r.DateTimeCreated = formatTime(w.now)
			parts.consent = append(parts.consent, r)
			w.changedText("consent", "", r.Text)
		}
		w.record("consent", i, 0)
	}
}

// refuse turns a failure of a single write into its HTTP answer.
func (f *failure) refuse() *apiError {
	switch f.code {
	case "Duplicate":
		return v3Error(http.StatusConflict, "idAlreadyExists", f.text+" All identifiers must be unique!")
	case "InvalidEmail", "InvalidPhoneNumber", "InvalidContactId", "NoValidIdentifiers", "InvalidMatchIdentifier":
		return v3Error(http.StatusBadRequest, "invalidId", f.text)
	case "ApiSchemaViolation":
		return v3Error(http.StatusBadRequest, "badRequest", f.text)
	}
	return v3Error(http.StatusBadRequest, "invalidContacts", f.text)
}

func parseMergeOption(v string, dashes bool) (mergeOption, bool) {
	if dashes {
		v = strings.ReplaceAll(v, "-", "")
	} else if strings.Contains(v, "-") {
		return 0, false
	}
	switch strings.ToLower(v) {
	case "", "overwrite":
		return overwrite, true
	case "overwriteifnotempty":
		return overwriteIfNotEmpty, true
	case "overwriteifempty":
		return overwriteIfEmpty, true
	}
	return 0, false
}
