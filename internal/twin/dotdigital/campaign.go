package dotdigital

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// campaign is an email campaign with the activity of its recipients. Figures
// are counted from the rows whenever they are read.
type campaign struct {
	id                int32
	name, subject     string
	fromName          string
	fromEmail         string
	html, text        string
	replyAction       string
	replyTo           string
	triggered         bool
	tags              []string
	scheduled, sentAt int64
	// lastActivity is the time of the newest send or event.
	lastActivity int64
	// targets are the lists and segments it was ever sent to, ascending.
	targets []int32

	mailed idSet
	rowOf  map[uint32]int32
	rows   []activity
	opens  []openEvent
	clicks []clickEvent
	views  []viewEvent
}

// activity is what became of one recipient.
type activity struct {
	contact                  uint32
	opens, clicks, views     int32
	sent, first, last        int64
	at                       int64
	firstIP                  string
	unsubscribed, soft, hard bool
}

type openEvent struct {
	contact   uint32
	at        int64
	ip, agent string
	client    string
}

type clickEvent struct {
	contact        uint32
	at             int64
	url, ip, agent string
}

type viewEvent struct {
	contact uint32
	at      int64
	url     string
}

// row returns the activity row of a recipient, making one if needed.
func (k *campaign) row(i uint32) *activity {
	if n, ok := k.rowOf[i]; ok {
		return &k.rows[n]
	}
	if k.rowOf == nil {
		k.rowOf = map[uint32]int32{}
	}
	k.rowOf[i] = int32(len(k.rows))
	k.rows = append(k.rows, activity{contact: i})
	k.mailed.add(i)
	return &k.rows[len(k.rows)-1]
}

func (s *Server) campaignStatus(k *campaign, now int64) string {
	switch {
	case k.triggered:
		return "Triggered"
	case k.sentAt == 0:
		return "Unsent"
	case now < k.sentAt+s.opt.SendTime.Milliseconds():
		return "Sending"
	}
	return "Sent"
}

type fromAddress struct {
	ID    int32  `json:"id"`
	Email string `json:"email"`
}

// campaignBody is a campaign in the answers. The last four members belong to
// the filtered listing or the details only.
type campaignBody struct {
	ID                 int32        `json:"id"`
	Name               string       `json:"name"`
	Subject            string       `json:"subject"`
	FromName           string       `json:"fromName"`
	FromAddress        *fromAddress `json:"fromAddress"`
	HTMLContent        *string      `json:"htmlContent"`
	PlainTextContent   *string      `json:"plainTextContent"`
	ReplyAction        string       `json:"replyAction"`
	ReplyToAddress     string       `json:"replyToAddress"`
	IsSplitTest        bool         `json:"isSplitTest"`
	Status             string       `json:"status"`
	CustomReplyAddress *string      `json:"customReplyToAddress"`

	Type          string  `json:"type,omitempty"`
	Tags          any     `json:"tags,omitempty"`
	SentDate      *string `json:"sentDate,omitempty"`
	ScheduledDate *string `json:"scheduledDate,omitempty"`
}

func (s *Server) campaignBody(k *campaign, now int64, content bool) campaignBody {
	b := campaignBody{
		ID: k.id, Name: k.name, Subject: k.subject, FromName: k.fromName,
		ReplyAction: orElse(k.replyAction, "Unset"), ReplyToAddress: k.replyTo, Status: s.campaignStatus(k, now),
	}
	if k.fromEmail != "" {
		b.FromAddress = &fromAddress{1, k.fromEmail}
	}
	if content {
		b.HTMLContent, b.PlainTextContent = &k.html, &k.text
	}
	return b
}

func (s *Server) campaignType(k *campaign) string {
	if k.triggered {
		return "Triggered"
	}
	return "Standard"
}

func optionalTime(ms int64) *string {
	if ms == 0 {
		return nil
	}
	t := formatTime(ms)
	return &t
}

func (s *Server) campaignOf(c *call) (*campaign, error) {
	id, err := c.id(0)
	if err != nil {
		return nil, err
	}
	if k := s.campaigns[id]; k != nil {
		return k, nil
	}
	return nil, v2Error("ERROR_CAMPAIGN_NOT_FOUND", "")
}

// listCampaigns answers one page of the campaigns that keep admits.
func (s *Server) listCampaigns(c *call, keep func(*campaign) bool, body func(*campaign) campaignBody) error {
	limit, skip, err := c.page(maxSelect)
	if err != nil {
		return err
	}
	skip, limit = s.pageFault(c, skip, limit)
	out := []campaignBody{}
	for _, id := range s.campOrder {
		k := s.campaigns[id]
		if !keep(k) {
			continue
		}
		if skip > 0 {
			skip--
			continue
		}
		if len(out) == limit {
			break
		}
		out = append(out, body(k))
	}
	c.reply(http.StatusOK, out)
	return nil
}

func (s *Server) serveCampaigns(c *call) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	now := s.now()
	return s.listCampaigns(c, func(*campaign) bool { return true }, func(k *campaign) campaignBody { return s.campaignBody(k, now, false) })
}

func (s *Server) serveCampaignsFiltered(c *call) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	now := s.now()
	var bounds [3]int64
	for n, name := range []string{"~sentDate", "~scheduledDateFrom", "~scheduledDateTo"} {
		bounds[n] = -never
		if v, ok := c.query(name); ok && v != "" {
			t, ok := parseDate(v)
			if !ok {
				return badParameter("A date filter is not an ISO 8601 date.")
			}
			bounds[n] = t.UnixMilli()
		}
	}
	kind, _ := c.query("~type")
	if kind != "" && !strings.EqualFold(kind, "Standard") && !strings.EqualFold(kind, "Triggered") {
		return badParameter("~type must be Standard or Triggered.")
	}
	tags, statuses := c.queryAll("~tags"), c.queryAll("~statuses")
	has := func(list []string, v string) bool {
		return slices.ContainsFunc(list, func(o string) bool { return strings.EqualFold(o, v) })
	}
	keep := func(k *campaign) bool {
		if kind != "" && !strings.EqualFold(kind, s.campaignType(k)) ||
			len(statuses) > 0 && !has(statuses, s.campaignStatus(k, now)) ||
			bounds[0] != -never && (k.sentAt == 0 || k.sentAt < bounds[0]) ||
			bounds[1] != -never && (k.scheduled == 0 || k.scheduled < bounds[1]) ||
			bounds[2] != -never && (k.scheduled == 0 || k.scheduled > bounds[2]) {
			return false
		}
		for _, t := range tags {
			if !has(k.tags, t) {
				return false
			}
		}
		return true
	}
	return s.listCampaigns(c, keep, func(k *campaign) campaignBody {
		b := s.campaignBody(k, now, false)
		b.Type = s.campaignType(k)
		b.Tags = append([]string{}, k.tags...)
		b.SentDate, b.ScheduledDate = optionalTime(k.sentAt), optionalTime(k.scheduled)
		return b
	})
}

func (s *Server) campaignDetails(k *campaign, now int64, content bool) campaignBody {
	b := s.campaignBody(k, now, content)
	b.Type = s.campaignType(k)
	type tag struct {
		Name string `json:"name"`
	}
	tags := []tag{}
	for _, t := range k.tags {
		tags = append(tags, tag{t})
	}
	b.Tags = tags
	b.SentDate = optionalTime(k.sentAt)
	return b
}

func (s *Server) serveCampaignsDetails(c *call) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	now := s.now()
	return s.listCampaigns(c, func(*campaign) bool { return true }, func(k *campaign) campaignBody { return s.campaignDetails(k, now, false) })
}

func (s *Server) serveCampaign(c *call) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	k, err := s.campaignOf(c)
	if err != nil {
		return err
	}
	c.reply(http.StatusOK, s.campaignBody(k, s.now(), true))
	return nil
}

func (s *Server) serveCampaignDetails(c *call) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	k, err := s.campaignOf(c)
	if err != nil {
		return err
	}
	c.reply(http.StatusOK, s.campaignDetails(k, s.now(), true))
	return nil
}

func (s *Server) serveCampaignsActive(c *call) error {
	since, err := c.since(0)
	if err != nil {
		return err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	now := s.now()
	return s.listCampaigns(c, func(k *campaign) bool { return k.sentAt > 0 && k.lastActivity >= since },
		func(k *campaign) campaignBody { return s.campaignBody(k, now, false) })
}

func (s *Server) serveCampaignTargets(c *call) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	k, err := s.campaignOf(c)
	if err != nil {
		return err
	}
	limit, skip, err := c.page(maxSelect)
	if err != nil {
		return err
	}
	out := []listBody{}
	for _, id := range k.targets {
		l := s.lists[id]
		if l == nil {
			continue
		}
		if skip > 0 {
			skip--
			continue
		}
		if len(out) == limit {
			break
		}
		out = append(out, s.listBody(l))
	}
	c.reply(http.StatusOK, out)
	return nil
}

func (s *Server) serveListCampaigns(c *call) error {
	id, err := c.id(0)
	if err != nil {
		return err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.lists[id] == nil {
		return v2Error("ERROR_ADDRESSBOOK_NOT_FOUND", "")
	}
	now := s.now()
	return s.listCampaigns(c, func(k *campaign) bool { return slices.Contains(k.targets, id) },
		func(k *campaign) campaignBody { return s.campaignBody(k, now, false) })
}

func (s *Server) serveFromAddresses(c *call) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	limit, skip, err := c.page(maxSelect)
	if err != nil {
		return err
	}
	seen := map[string]bool{}
	out := []fromAddress{}
	for _, id := range s.campOrder {
		if e := s.campaigns[id].fromEmail; e != "" && !seen[e] {
			seen[e] = true
			out = append(out, fromAddress{int32(len(out) + 1), e})
		}
	}
	skip = min(skip, len(out))
	c.reply(http.StatusOK, out[skip:min(len(out), skip+limit)])
	return nil
}

type campaignInput struct {
	Name             string `json:"name"`
	Subject          string `json:"subject"`
	FromName         string `json:"fromName"`
	FromAddress      *fromAddress
	HTMLContent      string `json:"htmlContent"`
	PlainTextContent string `json:"plainTextContent"`
	ReplyAction      string `json:"replyAction"`
	ReplyToAddress   string `json:"replyToAddress"`
}

const unsubscribeLink = "$UNSUB$"

func (in *campaignInput) check() error {
	if n := utf8.RuneCountInString(in.Name); n < 1 || n > 255 {
		return v2Error("ERROR_CAMPAIGN_INVALID", "A campaign name has 1 to 255 characters.")
	}
	for _, part := range []struct{ name, text string }{
		{"Subject", in.Subject}, {"FromName", in.FromName}, {"HtmlContent", in.HTMLContent}, {"PlainTextContent", in.PlainTextContent},
	} {
		if part.text == "" {
			return v2Error("ERROR_CAMPAIGN_INVALID", part.name+" is missing.")
		}
	}
	if !strings.Contains(in.HTMLContent, unsubscribeLink) || !strings.Contains(in.PlainTextContent, unsubscribeLink) {
		return v2Error("ERROR_CAMPAIGN_INVALID", "The content needs the unsubscribe link "+unsubscribeLink+".")
	}
	switch strings.ToLower(in.ReplyAction) {
	case "", "unset", "webmailforward", "webmail", "delete":
	default:
		return v2Error("ERROR_CAMPAIGN_INVALID", "ReplyAction is not known.")
	}
	return nil
}

func (in *campaignInput) write(k *campaign) {
	k.name, k.subject, k.fromName = in.Name, in.Subject, in.FromName
	k.html, k.text, k.replyTo = in.HTMLContent, in.PlainTextContent, in.ReplyToAddress
	for _, a := range []string{"Unset", "WebMailForward", "Webmail", "Delete"} {
		if strings.EqualFold(a, in.ReplyAction) {
			k.replyAction = a
		}
	}
	if in.FromAddress != nil {
		k.fromEmail = in.FromAddress.Email
	}
}

func (s *Server) addCampaign(k *campaign) *campaign {
	k.id = s.nextCamp
	s.nextCamp++
	s.campaigns[k.id] = k
	s.campOrder = append(s.campOrder, k.id)
	return k
}

func (s *Server) serveCampaignCreate(c *call) error {
	var in campaignInput
	if err := c.decode(&in, maxSmallBody); err != nil {
		return err
	}
	if err := in.check(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	k := &campaign{}
	in.write(k)
	s.addCampaign(k)
	c.note("campaign-create", strconv.Itoa(int(k.id)), "", k.name)
	c.reply(http.StatusCreated, s.campaignBody(k, s.now(), true))
	return nil
}

func (s *Server) serveCampaignUpdate(c *call) error {
	var in campaignInput
	if err := c.decode(&in, maxSmallBody); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	k, err := s.campaignOf(c)
	if err != nil {
		return err
	}
	if k.sentAt > 0 || k.triggered {
		return v2Error("ERROR_CAMPAIGN_READONLY", "A campaign that was sent cannot be changed.")
	}
	if err := in.check(); err != nil {
		return err
	}
	was := k.name
	in.write(k)
	c.note("campaign-update", strconv.Itoa(int(k.id)), was, k.name)
	c.reply(http.StatusOK, s.campaignBody(k, s.now(), true))
	return nil
}

func (s *Server) serveCampaignCopy(c *call) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	k, err := s.campaignOf(c)
	if err != nil {
		return err
	}
	copied := s.addCampaign(&campaign{
		name: "Copy of " + k.name, subject: k.subject, fromName: k.fromName, fromEmail: k.fromEmail,
		html: k.html, text: k.text, replyAction: k.replyAction, replyTo: k.replyTo, tags: slices.Clone(k.tags),
	})
	c.note("campaign-create", strconv.Itoa(int(copied.id)), "", copied.name)
	c.reply(http.StatusCreated, s.campaignBody(copied, s.now(), true))
	return nil
}

// NewCampaign is a campaign that AddCampaign adds.
type NewCampaign struct {
	Name, Subject       string
	FromName, FromEmail string
	HTML, Text          string
	Tags                []string
	// Triggered campaigns belong to programs and cannot be sent by a call.
	Triggered bool
}

// AddCampaign adds an unsent campaign and returns its id.
func (s *Server) AddCampaign(n NewCampaign) int32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.addCampaign(&campaign{
		name: n.Name, subject: n.Subject, fromName: n.FromName, fromEmail: n.FromEmail,
		html: n.HTML, text: n.Text, tags: n.Tags, triggered: n.Triggered,
	}).id
}

func campaignRoutes() []route {
	send := post("/v2/campaigns/send", "campaigns.send", free, (*Server).serveSend)
	send.uncounted = true
	return []route{
		get("/v2/campaigns", "campaigns.list", low, (*Server).serveCampaigns),
		get("/v2/campaigns/filtered", "campaigns.filtered", low, (*Server).serveCampaignsFiltered),
		get("/v2/campaigns/with-details", "campaigns.details", low, (*Server).serveCampaignsDetails),
		get("/v2/campaigns/with-activity-since/{date}", "campaigns.with-activity-since", low, (*Server).serveCampaignsActive),
		get("/v2/campaigns/metrics", "campaigns.metrics", low, (*Server).serveMetrics),
		get("/v2/campaigns/{id}", "campaigns.get", high, (*Server).serveCampaign),
		get("/v2/campaigns/{id}/with-details", "campaigns.get", high, (*Server).serveCampaignDetails),
		get("/v2/campaigns/{id}/summary", "campaigns.summary", high, (*Server).serveSummary),
		get("/v2/campaigns/{id}/address-books", "campaigns.address-books", high, (*Server).serveCampaignTargets),
		get("/v2/address-books/{id}/campaigns", "address-books.campaigns", high, (*Server).serveListCampaigns),
		get("/v2/custom-from-addresses", "custom-from-addresses", high, (*Server).serveFromAddresses),
		post("/v2/campaigns", "campaigns.create", medium, (*Server).serveCampaignCreate),
		put("/v2/campaigns/{id}", "campaigns.update", medium, (*Server).serveCampaignUpdate),
		post("/v2/campaigns/{id}/copy", "campaigns.copy", medium, (*Server).serveCampaignCopy),
		send,
		get("/v2/campaigns/send/{id}", "campaigns.send-status", free, (*Server).serveSendStatus),

		get("/v2/campaigns/{id}/activities", "campaigns.activities", low, serveActivities(false)),
		get("/v2/campaigns/{id}/activities/since-date/{date}", "campaigns.activities", low, serveActivities(true)),
		get("/v2/campaigns/{id}/activities/{contactId}", "campaigns.activity", high, (*Server).serveActivity),
		get("/v2/campaigns/{id}/opens", "campaigns.opens", low, serveOpens(wholeCampaign)),
		get("/v2/campaigns/{id}/opens/since-date/{date}", "campaigns.opens", low, serveOpens(sinceDate)),
		get("/v2/campaigns/{id}/activities/{contactId}/opens", "campaigns.opens", high, serveOpens(oneContact)),
		get("/v2/campaigns/{id}/clicks", "campaigns.clicks", low, serveClicks(wholeCampaign)),
		get("/v2/campaigns/{id}/clicks/since-date/{date}", "campaigns.clicks", low, serveClicks(sinceDate)),
		get("/v2/campaigns/{id}/activities/{contactId}/clicks", "campaigns.clicks", high, serveClicks(oneContact)),
		get("/v2/campaigns/{id}/page-views/since-date/{date}", "campaigns.page-views", low, serveViews(sinceDate)),
		get("/v2/campaigns/{id}/activities/{contactId}/page-views", "campaigns.page-views", high, serveViews(oneContact)),
		get("/v2/campaigns/{id}/activities/{contactId}/replies", "campaigns.replies", high, serveNoEvents(oneContact)),
		get("/v2/campaigns/{id}/roi-details/since-date/{date}", "campaigns.roi-details", low, serveNoEvents(sinceDate)),
		get("/v2/campaigns/{id}/activities/{contactId}/roi-details", "campaigns.roi-details", high, serveNoEvents(oneContact)),
		get("/v2/campaigns/{id}/social-bookmark-views", "campaigns.social-bookmark-views", low, serveNoEvents(wholeCampaign)),
		get("/v2/campaigns/{id}/activities/{contactId}/social-bookmark-views", "campaigns.social-bookmark-views", high, serveNoEvents(oneContact)),
		get("/v2/campaigns/{id}/hard-bouncing-contacts", "campaigns.hard-bounces", low, (*Server).serveHardBounces),
	}
}

func dateOf(ms int64) time.Time { return time.UnixMilli(ms).UTC() }
