package dotdigital

import (
	"net/http"
	"slices"
	"time"
)

// send is one accepted campaign send.
type send struct {
	id       string
	campaign int32
	accepted int64
	due      int64
	lists    []int32
	contacts []int64
	// delivered is set once the recipients are fixed, which happens at due.
	delivered  bool
	recipients []Recipient
}

type sendBody struct {
	ID               *string `json:"id"`
	CampaignID       int32   `json:"campaignId"`
	AddressBookIDs   []int32 `json:"addressBookIds"`
	ContactIDs       []int64 `json:"contactIds"`
	SendDate         *string `json:"sendDate"`
	SplitTestOptions *struct {
		TestMetric      string `json:"testMetric"`
		TestPercentage  int    `json:"testPercentage"`
		TestPeriodHours int    `json:"testPeriodHours"`
	} `json:"splitTestOptions"`
	Status string `json:"status,omitempty"`
}

const maxSendContacts = 10

func (s *Server) serveSend(c *call) error {
	var in sendBody
	if err := c.decode(&in, maxSmallBody); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.campaigns[in.CampaignID]
	if k == nil {
		return v2Error("ERROR_CAMPAIGN_NOT_FOUND", "")
	}
	invalid := func(text string) error { return v2Error("ERROR_CAMPAIGN_SEND_INVALID", text) }
	switch {
	case k.triggered:
		return invalid("A triggered campaign is sent by its program.")
	case in.SplitTestOptions != nil:
		return invalid("The campaign is no split test.")
	case len(in.AddressBookIDs)+len(in.ContactIDs) == 0:
		return invalid("A send needs at least one address book, segment or contact.")
	case len(in.ContactIDs) > maxSendContacts:
		return invalid("A send takes at most 10 contacts.")
	}
	for _, id := range in.AddressBookIDs {
		if s.lists[id] == nil {
			return v2Error("ERROR_ADDRESSBOOK_NOT_FOUND", "")
		}
	}
	for _, id := range in.ContactIDs {
		i, ok := s.byID(id)
		if !ok || s.at(i).life != live {
			return v2Error("ERROR_CONTACT_NOT_FOUND", "")
		}
		if s.at(i).status != subscribed {
			return errV2Suppressed
		}
	}
	now := s.now()
	sn := &send{
		id: s.newID(), campaign: k.id, accepted: now, due: now,
		lists: slices.Clone(in.AddressBookIDs), contacts: slices.Clone(in.ContactIDs),
	}
	if in.SendDate != nil && *in.SendDate != "" {
		t, ok := parseDate(*in.SendDate)
		if !ok {
			return badParameter("SendDate is not an ISO 8601 date.")
		}
		sn.due = max(now, t.UnixMilli())
	}
	k.scheduled = sn.due
	s.sends = append(s.sends, sn)
	s.sendByID[sn.id] = sn
	s.dueSend = min(s.dueSend, sn.due)
	c.note("send-create", sn.id, "", k.name)
	out := s.sendBody(sn, now)
	out.Status = "Scheduled"
	s.settleSends(now)
	c.reply(http.StatusAccepted, out)
	return nil
}

func (s *Server) sendStatus(sn *send, now int64) string {
	switch {
	case now < sn.due:
		return "Scheduled"
	case now < sn.due+s.opt.SendTime.Milliseconds():
		return "Sending"
	}
	return "Sent"
}

func (s *Server) sendBody(sn *send, now int64) sendBody {
	return sendBody{ID: &sn.id, CampaignID: sn.campaign, SendDate: optionalTime(sn.due), Status: s.sendStatus(sn, now)}
}

func (s *Server) serveSendStatus(c *call) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	sn := s.sendByID[c.params[0]]
	if sn == nil {
		return &apiError{status: http.StatusNotFound, code: "ERROR_CAMPAIGN_SEND_INVALID", text: "There is no such send."}
	}
	c.reply(http.StatusOK, s.sendBody(sn, s.now()))
	return nil
}

// settleSends fixes the recipients of every send that has become due. The
// caller holds the lock.
func (s *Server) settleSends(now int64) {
	s.dueSend = never
	for _, sn := range s.sends {
		switch {
		case sn.delivered:
		case sn.due > now:
			s.dueSend = min(s.dueSend, sn.due)
		default:
			s.deliver(sn)
		}
	}
}

func (s *Server) deliver(sn *send) {
	sn.delivered = true
	k := s.campaigns[sn.campaign]
	var to idSet
	for _, id := range sn.lists {
		if l := s.lists[id]; l != nil {
			for i := range s.audience(l).all(0) {
				to.add(i)
			}
			if !slices.Contains(k.targets, id) {
				k.targets = append(k.targets, id)
			}
		}
	}
	slices.Sort(k.targets)
	for _, id := range sn.contacts {
		if i, ok := s.byID(id); ok {
			to.add(i)
		}
	}
	for i := range to.all(0) {
		// Suppressed and unconfirmed members are passed over in silence.
		if c := s.at(i); c.life != live || c.status != subscribed {
			continue
		}
		sn.recipients = append(sn.recipients, Recipient{contactID(i), s.at(i).email})
		k.row(i).sent = sn.due
	}
	k.sentAt = max(k.sentAt, sn.due)
	k.lastActivity = max(k.lastActivity, sn.due)
}

// Recipient is one person that a send mailed, with the address of that time.
type Recipient struct {
	ContactID int64  `json:"contactId"`
	Email     string `json:"email"`
}

// Send is one accepted campaign send: the ground truth of who was mailed.
type Send struct {
	ID           string      `json:"id"`
	Campaign     int32       `json:"campaign"`
	CampaignName string      `json:"campaignName"`
	Accepted     time.Time   `json:"accepted"`
	Due          time.Time   `json:"due"`
	Status       string      `json:"status"`
	AddressBooks []int32     `json:"addressBooks"`
	Contacts     []int64     `json:"contacts"`
	Recipients   []Recipient `json:"recipients"`
}

// Sends returns every accepted send in order of acceptance. A send whose time
// has not come has no recipients yet.
func (s *Server) Sends() []Send {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	s.settleSends(now)
	out := make([]Send, 0, len(s.sends))
	for _, sn := range s.sends {
		out = append(out, Send{
			ID: sn.id, Campaign: sn.campaign, CampaignName: s.campaigns[sn.campaign].name,
			Accepted: dateOf(sn.accepted), Due: dateOf(sn.due), Status: s.sendStatus(sn, now),
			AddressBooks: slices.Clone(sn.lists), Contacts: slices.Clone(sn.contacts), Recipients: slices.Clone(sn.recipients),
		})
	}
	return out
}
