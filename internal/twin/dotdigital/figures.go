package dotdigital

import "net/http"

// figures are a campaign's numbers, counted from its rows.
type figures struct {
	sent, delivered, opened, opens, clicked, clicks, views int
	hard, soft, unsubscribed                               int
}

func (k *campaign) figures() figures {
	f := figures{sent: len(k.rows), opens: len(k.opens), clicks: len(k.clicks), views: len(k.views)}
	for i := range k.rows {
		r := &k.rows[i]
		count := func(yes bool, n *int) {
			if yes {
				*n++
			}
		}
		count(r.opens > 0, &f.opened)
		count(r.clicks > 0, &f.clicked)
		count(r.hard, &f.hard)
		count(r.soft && !r.hard, &f.soft)
		count(r.unsubscribed, &f.unsubscribed)
	}
	f.delivered = f.sent - f.hard - f.soft
	return f
}

func percentage(part, whole int) float64 {
	if whole == 0 {
		return 0
	}
	return float64(part*10000/whole) / 100
}

func (s *Server) serveSummary(c *call) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	k, err := s.campaignOf(c)
	if err != nil {
		return err
	}
	f := k.figures()
	out := map[string]any{
		"numForwards": 0, "numTextForwards": 0,
		"numRecipientsClicked":    f.clicked,
		"percentageDelivered":     percentage(f.delivered, f.sent),
		"percentageUniqueOpens":   percentage(f.opened, f.delivered),
		"percentageOpens":         percentage(f.opens, f.delivered),
		"percentageUnsubscribes":  percentage(f.unsubscribed, f.delivered),
		"percentageReplies":       0,
		"percentageHardBounces":   percentage(f.hard, f.sent),
		"percentageSoftBounces":   percentage(f.soft, f.sent),
		"percentageUsersClicked":  percentage(f.clicked, f.delivered),
		"percentageClicksToOpens": percentage(f.clicked, f.opened),
		"revenue":                 "0", "assistedRevenue": "0", "conversionRate": 0, "numOrders": 0, "numAssistedOrders": 0,
	}
	// Every mail of the twin is HTML: the figures of the text part are zero.
	for name, n := range map[string]int{
		"UniqueOpens": f.opened, "Opens": f.opens, "Clicks": f.clicks, "PageViews": f.views, "EstimatedForwards": 0, "Replies": 0,
		"HardBounces": f.hard, "SoftBounces": f.soft, "Unsubscribes": f.unsubscribed, "IspComplaints": 0, "MailBlocks": 0,
		"Sent": f.sent, "Delivered": f.delivered,
	} {
		out["num"+name] = n
		out["numTotal"+name] = n
		text := "numText" + name
		if name == "UniqueOpens" {
			text = "numUniqueTextOpens"
		}
		out[text] = 0
	}
	if k.sentAt > 0 {
		out["dateSent"] = formatTime(k.sentAt)
	}
	c.reply(http.StatusOK, out)
	return nil
}

func (s *Server) serveMetrics(c *call) error {
	limit, skip, err := c.page(maxSelect)
	if err != nil {
		return err
	}
	from, to := -never, never
	for name, bound := range map[string]*int64{"startDate": &from, "endDate": &to} {
		if v, ok := c.query(name); ok && v != "" {
			t, ok := parseDate(v)
			if !ok {
				return badParameter(name + " is not an ISO 8601 date.")
			}
			*bound = t.UnixMilli()
		}
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	out := []map[string]any{}
	for _, id := range s.campOrder {
		k := s.campaigns[id]
		if k.sentAt == 0 || k.lastActivity < from || k.sentAt > to {
			continue
		}
		if skip > 0 {
			skip--
			continue
		}
		if len(out) == limit {
			break
		}
		out = append(out, s.metrics(k))
	}
	c.reply(http.StatusOK, out)
	return nil
}

func (s *Server) metrics(k *campaign) map[string]any {
	f := k.figures()
	return map[string]any{
		"campaignId": k.id, "dateSent": formatTime(k.sentAt), "campaignName": k.name, "campaignType": s.campaignType(k),
		"sent": f.sent, "delivered": f.delivered, "uniqueOpens": f.opened, "clicks": f.clicks, "hardBounces": f.hard,
		"softBounces": f.soft, "replies": 0, "unsubscribes": f.unsubscribed, "forwards": 0, "uniqueClicks": f.clicked,
		"sendStatusFails": 0, "mailBlocks": 0, "opens": f.opens, "complaints": 0, "pageViews": f.views,
		"percentageDelivered": percentage(f.delivered, f.sent), "percentageUniqueOpens": percentage(f.opened, f.delivered),
		"percentageHardBounces": percentage(f.hard, f.sent), "percentageSoftBounces": percentage(f.soft, f.sent), "percentageReplies": 0,
		"percentageUnsubscribes": percentage(f.unsubscribed, f.delivered), "percentageUniqueClicks": percentage(f.clicked, f.delivered),
		"percentageUniqueClicksToOpens": percentage(f.clicked, f.opened), "revenue": 0, "conversionRate": 0, "assistedRevenue": 0,
		"orders": 0, "assistedOrders": 0, "tags": append([]string{}, k.tags...), "subjectLine": k.subject, "fromName": k.fromName,
		"fromAddress": k.fromEmail, "isSplitTest": false,
	}
}
