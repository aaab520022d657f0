package dotdigital

import (
	"net/http"
	"strconv"
)

type property struct {
	Name  string `json:"name"`
	Type  string `json:"type"`
	Value string `json:"value"`
}

func (s *Server) serveAccount(c *call) error {
	s.mu.RLock()
	endpoint := s.endpoint
	s.mu.RUnlock()
	if endpoint == "" {
		endpoint = "http://" + c.r.Host
	}
	used, left := s.limits.hour(s.now())
	mail := "owner@example.com"
	if name, _, ok := c.r.BasicAuth(); ok {
		mail = name
	}
	c.reply(http.StatusOK, struct {
		ID         int32      `json:"id"`
		Properties []property `json:"properties"`
	}{s.opt.AccountID, []property{
		{"Name", "String", s.opt.AccountName},
		{"MainEmail", "String", mail},
		{"MainMobilePhoneNumber", "String", ""},
		{"ListManagedUsers", "String", ""},
		{"ApiEndpoint", "String", endpoint},
		{"ApiCallsInLastHour", "Int", strconv.Itoa(used)},
		{"ApiCallsRemaining", "Int", strconv.Itoa(left)},
		{"AvailableEmailSendsCredits", "Int", "1000000"},
		{"AvailableSmsSendsCredits", "Int", "0"},
		{"PremiumWalletBalance", "Decimal", "0.00"},
		{"APILocale", "String", "en-GB"},
		{"CurrencyCode", "String", "GBP"},
		{"TimeZoneIana", "String", "Europe/London"},
		{"CampaignEmailMtaPool", "String", "Default"},
		{"ShowClock", "Boolean", "False"},
	}})
	return nil
}

func (s *Server) serveTime(c *call) error {
	c.write(http.StatusOK, appendTime(nil, s.now()))
	return nil
}
