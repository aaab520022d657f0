package twin

import (
	"fmt"
	"strconv"
	"time"

	"github.com/lockstep-sync/lockstep/internal/twin/dotdigital"
	"github.com/lockstep-sync/lockstep/internal/twin/population"
)

// emailAccount brings a population's contacts into the Dotdigital twin.
type emailAccount struct {
	server *dotdigital.Server
	loader *dotdigital.Loader
	books  map[string]int32
	next   dotdigital.NewContact
}

func newEmailAccount(s *dotdigital.Server) *emailAccount {
	return &emailAccount{server: s, loader: s.Loader(), books: map[string]int32{}}
}

func (e *emailAccount) DataField(name, kind string) error {
	return e.server.AddField(name, dotdigital.FieldType(kind))
}

func (e *emailAccount) AddressBook(name string) error {
	id, err := e.server.AddList(name, false)
	e.books[name] = id
	return err
}

// statuses are the words of the v2 API for those of a population.
var statuses = map[string]string{
	"subscribed": "Subscribed", "unsubscribed": "Unsubscribed", "suppressed": "Suppressed", "hardBounced": "HardBounced",
}

func (e *emailAccount) Contact(c population.PlatformContact) error {
	if _, known := e.server.FindContact(c.Email); known {
		return nil // an account has an address once; namesakes are rare
	}
	n := &e.next
	n.Email, n.OptIn, n.Created, n.Removed = c.Email, c.OptIn, c.Created, c.StatusAt
	n.Status = statuses[c.Status]
	n.Values, n.Lists = n.Values[:0], n.Lists[:0]
	for _, f := range c.Fields {
		n.Values = append(n.Values, dotdigital.Value{Name: f.Name, Text: literal(f.Value)})
	}
	for _, b := range c.Books {
		n.Lists = append(n.Lists, e.books[b])
	}
	_, err := e.loader.Contact(*n)
	return err
}

func (e *emailAccount) Campaign(c population.PlatformCampaign) error {
	e.server.AddCampaign(dotdigital.NewCampaign{
		Name: c.Name, Subject: c.Subject, FromName: c.FromName, FromEmail: "news@sales.example", HTML: c.HTML, Text: c.Text,
	})
	return nil
}

// literal writes a value the way an import file does.
func literal(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64)
	case bool:
		return strconv.FormatBool(v)
	case time.Time:
		return v.UTC().Format("2006-01-02T15:04:05")
	}
	return fmt.Sprint(v)
}
