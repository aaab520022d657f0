package dotdigital

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
)

// Shares say how the audience of a send behaves; each is a part of it, 0 to 1.
type Shares struct {
	Opens        float64 `json:"opens"`
	Clicks       float64 `json:"clicks"`
	Bounces      float64 `json:"bounces"`
	Unsubscribes float64 `json:"unsubscribes"`
	PageViews    float64 `json:"pageviews"`
}

// Behaviour is what Recipients did: numbers of people.
type Behaviour struct {
	Audience     int `json:"audience"`
	Opened       int `json:"opened"`
	Clicked      int `json:"clicked"`
	Bounced      int `json:"bounced"`
	Unsubscribed int `json:"unsubscribed"`
	Viewed       int `json:"viewed"`
}

var mailClients = []struct{ name, agent string }{
	{"Apple Mail", "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15"},
	{"Outlook", "Mozilla/4.0 (compatible; MSIE 7.0; Windows NT 10.0; Microsoft Outlook 16.0)"},
	{"Gmail", "Mozilla/5.0 (Windows NT 5.1; rv:11.0) Gecko Firefox/11.0 (via ggpht.com GoogleImageProxy)"},
}

// Recipients makes the audience of the campaign's latest send behave by shares,
// at the twins' present time: exactly that part of it bounces hard, opens,
// clicks, views pages or unsubscribes, chosen by the seed. Clickers have opened
// as far as there are openers; who bounced does nothing else.
func (s *Server) Recipients(campaign int32, shares Shares) (Behaviour, error) {
	for _, v := range []float64{shares.Opens, shares.Clicks, shares.Bounces, shares.Unsubscribes, shares.PageViews} {
		if !(v >= 0 && v <= 1) {
			return Behaviour{}, errors.New("dotdigital twin: a share must be between 0 and 1")
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	s.settleSends(now)
	k := s.campaigns[campaign]
	if k == nil {
		return Behaviour{}, fmt.Errorf("dotdigital twin: no campaign %d", campaign)
	}
	var latest *send
	for _, sn := range s.sends {
		if sn.campaign == campaign && sn.delivered {
			latest = sn
		}
	}
	if latest == nil {
		return Behaviour{}, fmt.Errorf("dotdigital twin: campaign %d was not sent", campaign)
	}
	n := len(latest.recipients)
	// Each call draws anew, yet the same calls under the same seed draw alike.
	rng := rand.New(rand.NewPCG(s.rng.Uint64(), uint64(campaign)))
	order := rng.Perm(n)
	part := func(share float64, of int) int { return min(int(share*float64(n)+0.5), of) }
	bounced := part(shares.Bounces, n)
	active := n - bounced
	w := s.person("campaign")
	out := Behaviour{
		Audience: n, Bounced: bounced, Opened: part(shares.Opens, active), Clicked: part(shares.Clicks, active),
		Viewed: part(shares.PageViews, active), Unsubscribed: part(shares.Unsubscribes, active),
	}
	for place, at := range order {
		i := uint32(latest.recipients[at].ContactID - firstContactID)
		row := k.row(i)
		client := mailClients[rng.IntN(len(mailClients))]
		ip := fmt.Sprintf("192.0.2.%d", 1+rng.IntN(254))
		if place >= active {
			row.hard = true
			row.at = now
			w.bounce(i, true)
			continue
		}
		if place < out.Opened {
			for range 1 + rng.IntN(3) {
				k.opens = append(k.opens, openEvent{i, now, ip, client.agent, client.name})
				row.opens++
			}
			if row.first == 0 {
				row.first, row.firstIP = now, ip
			}
			row.last, row.at = now, now
		}
		if place < out.Clicked {
			k.clicks = append(k.clicks, clickEvent{i, now, fmt.Sprintf("https://shop.example/offers/%d", 1+rng.IntN(5)), ip, client.agent})
			row.clicks++
			row.at = now
		}
		if place < out.Viewed {
			k.views = append(k.views, viewEvent{i, now, fmt.Sprintf("https://shop.example/products/%d", 1+rng.IntN(20))})
			row.views++
			row.at = now
		}
		if place < out.Unsubscribed {
			row.unsubscribed = true
			row.at = now
			if s.at(i).life == live {
				w.block(i, unsubscribed)
			}
		}
	}
	if n > 0 {
		k.lastActivity = now
	}
	return out, nil
}

type activityBody struct {
	ContactID            int64   `json:"contactId"`
	Email                string  `json:"email"`
	NumOpens             int32   `json:"numOpens"`
	NumPageViews         int32   `json:"numPageViews"`
	NumClicks            int32   `json:"numClicks"`
	NumForwards          int32   `json:"numForwards"`
	NumEstimatedForwards int32   `json:"numEstimatedForwards"`
	NumReplies           int32   `json:"numReplies"`
	DateSent             string  `json:"dateSent"`
	DateFirstOpened      *string `json:"dateFirstOpened"`
	DateLastOpened       *string `json:"dateLastOpened"`
	FirstOpenIP          string  `json:"firstOpenIp"`
	Unsubscribed         bool    `json:"unsubscribed"`
	SoftBounced          bool    `json:"softBounced"`
	HardBounced          bool    `json:"hardBounced"`
}

func (s *Server) activityBody(r *activity) activityBody {
	return activityBody{
		ContactID: contactID(r.contact), Email: s.at(r.contact).email, NumOpens: r.opens, NumPageViews: r.views, NumClicks: r.clicks,
		DateSent: formatTime(r.sent), DateFirstOpened: optionalTime(r.first), DateLastOpened: optionalTime(r.last),
		FirstOpenIP: r.firstIP, Unsubscribed: r.unsubscribed, SoftBounced: r.soft, HardBounced: r.hard,
	}
}

func serveActivities(since bool) func(*Server, *call) error {
	return func(s *Server, c *call) error {
		from, byDefault := -never, maxSelect
		if since {
			var err error
			if from, err = c.since(1); err != nil {
				return err
			}
			byDefault = modifiedSinceDefault
		}
		limit, skip, err := c.page(byDefault)
		if err != nil {
			return err
		}
		s.mu.RLock()
		defer s.mu.RUnlock()
		k, err := s.campaignOf(c)
		if err != nil {
			return err
		}
		skip, limit = s.pageFault(c, skip, limit)
		out := []activityBody{}
		for i := range k.mailed.all(0) {
			r := &k.rows[k.rowOf[i]]
			// With a date only recipients that did something since are told.
			if since && (r.at == 0 || r.at < from) {
				continue
			}
			if skip > 0 {
				skip--
				continue
			}
			if len(out) == limit {
				break
			}
			out = append(out, s.activityBody(r))
		}
		c.reply(http.StatusOK, out)
		return nil
	}
}

// recipientOf returns the row of the contact that the path names second.
func (s *Server) recipientOf(c *call, k *campaign) (*activity, error) {
	id, err := c.id(1)
	if err != nil {
		return nil, err
	}
	i, ok := s.byID(int64(id))
	n, mailed := k.rowOf[i]
	if !ok || !mailed {
		return nil, v2Error("ERROR_CONTACT_NOT_FOUND", "")
	}
	return &k.rows[n], nil
}

func (s *Server) serveActivity(c *call) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	k, err := s.campaignOf(c)
	if err != nil {
		return err
	}
	r, err := s.recipientOf(c, k)
	if err != nil {
		return err
	}
	c.reply(http.StatusOK, s.activityBody(r))
	return nil
}

// scope is what part of a campaign's events a call reads.
type scope uint8

const (
	wholeCampaign scope = iota
	sinceDate
	oneContact
)

// serveEvents answers one page of a campaign's events in order of happening.
func serveEvents[E, B any](s *Server, c *call, sc scope, events func(*campaign) []E, key func(E) (uint32, int64), body func(E) B) error {
	from := -never
	if sc == sinceDate {
		var err error
		if from, err = c.since(1); err != nil {
			return err
		}
	}
	limit, skip, err := c.page(maxSelect)
	if err != nil {
		return err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	k, err := s.campaignOf(c)
	if err != nil {
		return err
	}
	var only *activity
	if sc == oneContact {
		if only, err = s.recipientOf(c, k); err != nil {
			return err
		}
	}
	skip, limit = s.pageFault(c, skip, limit)
	out := []B{}
	for _, e := range events(k) {
		contact, at := key(e)
		if at < from || only != nil && contact != only.contact {
			continue
		}
		if skip > 0 {
			skip--
			continue
		}
		if len(out) == limit {
			break
		}
		out = append(out, body(e))
	}
	if args, ok := s.takePage("reorder", c.route.operation); ok {
		slices.Reverse(out)
		if args.Mode == "duplicate" {
			out = append(out, out...)
		}
	}
	c.reply(http.StatusOK, out)
	return nil
}

type openBody struct {
	ContactID         int64  `json:"contactId"`
	Email             string `json:"email"`
	MailClient        string `json:"mailClient"`
	MailClientVersion string `json:"mailClientVersion"`
	IPAddress         string `json:"ipAddress"`
	UserAgent         string `json:"userAgent"`
	IsHTML            bool   `json:"isHtml"`
	IsForward         bool   `json:"isForward"`
	DateOpened        string `json:"dateOpened"`
}

func serveOpens(sc scope) func(*Server, *call) error {
	return func(s *Server, c *call) error {
		return serveEvents(s, c, sc, func(k *campaign) []openEvent { return k.opens },
			func(e openEvent) (uint32, int64) { return e.contact, e.at },
			func(e openEvent) openBody {
				return openBody{
					ContactID: contactID(e.contact), Email: s.at(e.contact).email, MailClient: e.client,
					IPAddress: e.ip, UserAgent: e.agent, IsHTML: true, DateOpened: formatTime(e.at),
				}
			})
	}
}

type clickBody struct {
	ContactID   int64  `json:"contactId"`
	Email       string `json:"email"`
	URL         string `json:"url"`
	IPAddress   string `json:"ipAddress"`
	UserAgent   string `json:"userAgent"`
	DateClicked string `json:"dateClicked"`
	Keyword     string `json:"keyword"`
}

func serveClicks(sc scope) func(*Server, *call) error {
	return func(s *Server, c *call) error {
		return serveEvents(s, c, sc, func(k *campaign) []clickEvent { return k.clicks },
			func(e clickEvent) (uint32, int64) { return e.contact, e.at },
			func(e clickEvent) clickBody {
				return clickBody{
					ContactID: contactID(e.contact), Email: s.at(e.contact).email, URL: e.url,
					IPAddress: e.ip, UserAgent: e.agent, DateClicked: formatTime(e.at),
				}
			})
	}
}

type viewBody struct {
	ContactID  int64  `json:"contactId"`
	Email      string `json:"email"`
	URL        string `json:"url"`
	DateViewed string `json:"dateViewed"`
}

func serveViews(sc scope) func(*Server, *call) error {
	return func(s *Server, c *call) error {
		return serveEvents(s, c, sc, func(k *campaign) []viewEvent { return k.views },
			func(e viewEvent) (uint32, int64) { return e.contact, e.at },
			func(e viewEvent) viewBody {
				return viewBody{contactID(e.contact), s.at(e.contact).email, e.url, formatTime(e.at)}
			})
	}
}

func (s *Server) serveHardBounces(c *call) error {
	limit, skip, err := c.page(maxSelect)
	if err != nil {
		return err
	}
	full, err := c.boolQuery("withFullData")
	if err != nil {
		return err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	k, err := s.campaignOf(c)
	if err != nil {
		return err
	}
	b, n := []byte{'['}, 0
	for i := range k.mailed.all(0) {
		if !k.rows[k.rowOf[i]].hard || s.at(i).email == "" {
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
		b = s.appendV2Contact(b, i, full)
		n++
	}
	c.write(http.StatusOK, append(b, ']'))
	return nil
}

// serveNoEvents answers the reads of events that never happen to this account:
// replies, sales and social bookmarks. Campaign and recipient must exist.
func serveNoEvents(sc scope) func(*Server, *call) error {
	return func(s *Server, c *call) error {
		return serveEvents(s, c, sc, func(*campaign) []viewEvent { return nil },
			func(e viewEvent) (uint32, int64) { return e.contact, e.at },
			func(viewEvent) viewBody { return viewBody{} })
	}
}
