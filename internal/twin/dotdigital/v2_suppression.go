package dotdigital

import (
	"net/http"
)

// appendSuppression prints one row of the suppression reads.
func (s *Server) appendSuppression(b []byte, i uint32, at int64, reason string) []byte {
	b = append(b, `{"suppressedContact":`...)
	b = s.appendV2Contact(b, i, false)
	b = append(b, `,"dateRemoved":`...)
	b = appendTime(b, at)
	b = append(b, `,"reason":"`...)
	b = append(b, reason...)
	return append(b, '"', '}')
}

// listSuppressions answers one page of suppressions since a date, in order of
// contact id and by offset over live data. at returns 0 for other contacts.
func (s *Server) listSuppressions(c *call, set *idSet, since int64, at func(uint32) (int64, string)) error {
	limit, skip, err := c.page(maxSelect)
	if err != nil {
		return err
	}
	skip, limit = s.pageFault(c, skip, limit)
	b := []byte{'['}
	n := 0
	for i := range set.all(0) {
		when, reason := at(i)
		if when == 0 || when < since || s.at(i).email == "" {
			continue
		}
		if skip > 0 {
			skip--
			continue
		}
		if n == limit {
			break
		}
		if n > 0 {
			b = append(b, ',')
		}
		b = s.appendSuppression(b, i, when, reason)
		n++
	}
	c.write(http.StatusOK, append(b, ']'))
	return nil
}

func (s *Server) serveSuppressedSince(c *call) error {
	since, err := c.since(0)
	if err != nil {
		return err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.listSuppressions(c, &s.blockedSet, since, func(i uint32) (int64, string) {
		ct := s.at(i)
		return ct.removedAt, statusNames[ct.status].v2
	})
}

func (s *Server) serveUnsubscribedSince(c *call) error {
	since, err := c.since(0)
	if err != nil {
		return err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.listSuppressions(c, &s.blockedSet, since, func(i uint32) (int64, string) {
		if ct := s.at(i); ct.status == unsubscribed {
			return ct.removedAt, "Unsubscribed"
		}
		return 0, ""
	})
}

func (s *Server) serveListUnsubscribedSince(c *call) error {
	id, err := c.id(0)
	if err != nil {
		return err
	}
	since, err := c.since(1)
	if err != nil {
		return err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	l, err := s.addressBook(id)
	if err != nil {
		return err
	}
	return s.listSuppressions(c, &l.left.set, since, func(i uint32) (int64, string) {
		if s.at(i).life != live {
			return 0, ""
		}
		return l.left.at[i], "Unsubscribed"
	})
}

func (s *Server) serveUnsubscribe(c *call) error {
	var body v2Contact
	if err := c.decode(&body, maxSmallBody); err != nil {
		return err
	}
	if !validEmail([]byte(body.Email)) {
		return badParameter("Email is not a valid email address.")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	w := c.writer("api")
	i := s.knownOrNew(w, &body)
	w.block(i, unsubscribed)
	ct := s.at(i)
	c.write(http.StatusOK, s.appendSuppression(nil, i, ct.removedAt, statusNames[ct.status].v2))
	return nil
}

// knownOrNew returns the contact with the address; an unknown one is created,
// a deleted one comes back: an opt-out must not get lost.
func (s *Server) knownOrNew(w *writer, body *v2Contact) uint32 {
	email := []byte(body.Email)
	i, ok := s.findEmail(email)
	if !ok {
		var scratch []byte
		return w.put(0, false, &contactInput{email: email}, overwrite, &scratch).index
	}
	if s.at(i).life == binned {
		w.restore(i)
	}
	return i
}

func (s *Server) serveListUnsubscribe(c *call) error {
	id, err := c.id(0)
	if err != nil {
		return err
	}
	var body v2Contact
	if err := c.decode(&body, maxSmallBody); err != nil {
		return err
	}
	if !validEmail([]byte(body.Email)) {
		return badParameter("Email is not a valid email address.")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	l, err := s.writable(id)
	if err != nil {
		return err
	}
	w := c.writer("api")
	i := s.knownOrNew(w, &body)
	w.leaveByChoice(i, l)
	c.write(http.StatusOK, s.appendSuppression(nil, i, l.left.at[i], "Unsubscribed"))
	return nil
}

type idAndEmail struct {
	ID    int32   `json:"id"`
	Email *string `json:"email"`
}

func (s *Server) serveSuppress(c *call) error {
	var rows []idAndEmail
	if err := c.decode(&rows, maxSmallBody); err != nil {
		return err
	}
	if len(rows) == 0 {
		return v2Error("ERROR_CONTACTS_ARE_NOT_SPECIFIED", "No contact is named.")
	}
	if len(rows) > maxRemoval {
		return v2Error("ERROR_CONTACT_TOOMANY", "Too many contacts are named in one call.")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	w := c.writer("api")
	out := struct {
		Suppressed []idAndEmail `json:"suppressed"`
		NotFound   []idAndEmail `json:"notFound"`
	}{[]idAndEmail{}, []idAndEmail{}}
	for _, row := range rows {
		i, ok := s.byID(int64(row.ID))
		if row.ID == 0 && row.Email != nil {
			i, ok = s.findEmail([]byte(*row.Email))
		}
		if !ok || s.at(i).life != live {
			out.NotFound = append(out.NotFound, row)
			continue
		}
		w.block(i, suppressed)
		out.Suppressed = append(out.Suppressed, row)
	}
	c.reply(http.StatusOK, out)
	return nil
}

type resubscription struct {
	UnsubscribedContact        *v2Contact `json:"unsubscribedContact"`
	PreferredLocale            *string    `json:"preferredLocale"`
	ReturnURLToUseIfChallenged *string    `json:"returnUrlToUseIfChallenged"`
}

var challengeLocales = map[string]bool{
	"": true, "cs-CS": true, "da-DA": true, "de-DE": true, "el-EL": true, "en-EN": true, "es-ES": true, "es": true, "fi-FI": true,
	"fr-FR": true, "hu-HU": true, "it-IT": true, "nl-NL": true, "nb-NO": true, "pl-PL": true, "pt-PT": true, "ru-RU": true,
	"se-SE": true, "sk-SK": true, "tr-TR": true, "zh-CN": true,
}

// resubscribe serves the four resubscribe calls.
func resubscribe(onList, challenge bool) func(*Server, *call) error {
	return func(s *Server, c *call) error {
		var body resubscription
		if err := c.decode(&body, maxSmallBody); err != nil {
			return err
		}
		if body.UnsubscribedContact == nil {
			return badParameter("UnsubscribedContact is missing.")
		}
		if challenge && body.PreferredLocale != nil && !challengeLocales[*body.PreferredLocale] {
			return badParameter("PreferredLocale is not a locale that challenge mails exist in.")
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		var l *list
		if onList {
			id, err := c.id(0)
			if err != nil {
				return err
			}
			if l, err = s.writable(id); err != nil {
				return err
			}
		}
		in, err := s.v2Input(body.UnsubscribedContact)
		if err != nil {
			return err
		}
		i, ok := s.findEmail(in.email)
		if !ok || s.at(i).life != live {
			return v2Error("ERROR_CONTACT_NOT_FOUND", "")
		}
		status, err := s.applyResubscribe(c.writer("api"), i, in, l, challenge)
		if err != nil {
			return err
		}
		b := append([]byte(nil), `{"contact":`...)
		b = s.appendV2Contact(b, i, false)
		b = append(b, `,"status":"`...)
		b = append(b, status...)
		c.write(http.StatusOK, append(b, '"', '}'))
		return nil
	}
}

func (s *Server) applyResubscribe(w *writer, i uint32, in *contactInput, l *list, challenge bool) (string, error) {
	ct := s.at(i)
	if ct.status.blocked() && !ct.status.reversible() {
		return "ContactCannotBeUnsuppressed", nil
	}
	if l != nil {
		if ct.status.blocked() {
			// The account-level opt-out has to be undone first.
			return "", errV2Suppressed
		}
		k := ct.membership(l.id)
		if k < 0 || ct.lists[k].status == inList {
			return "", v2Error("ERROR_CONTACT_RESUBSCRIPTION_INVALID", "The contact is not unsubscribed from the address book.")
		}
	} else if !ct.status.blocked() {
		return "", v2Error("ERROR_CONTACT_RESUBSCRIPTION_INVALID", "The contact is not suppressed.")
	}
	if challenge {
		if l != nil {
			w.challengeOnList(i, l)
		} else {
			w.challenge(i)
		}
		return "ContactChallenged", nil
	}
	in.email = nil
	in.channels = channelInput{}
	var scratch []byte
	if l != nil {
		w.returnToList(i, l)
	} else {
		w.setStatus(i, subscribed)
	}
	w.put(i, true, in, overwrite, &scratch)
	return "ContactAdded", nil
}
