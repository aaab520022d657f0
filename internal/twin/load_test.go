package twin

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lockstep-sync/lockstep/internal/twin/dotdigital"
	"github.com/lockstep-sync/lockstep/internal/twin/population"
)

func TestEmailAccountTakesWhatThePopulationSays(t *testing.T) {
	s := dotdigital.New(dotdigital.Options{})
	e := newEmailAccount(s)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for name, kind := range map[string]string{"SHOP_ORDERS": "Numeric", "LAST_ORDER": "Date", "WANTS_PRINT": "Boolean"} {
		must(e.DataField(name, kind))
	}
	must(e.AddressBook("Guests"))
	at := time.Date(2025, 3, 4, 5, 6, 7, 0, time.UTC)
	must(e.Contact(population.PlatformContact{
		Email: "zoe@inbox.example", Status: "subscribed", OptIn: "Double", Created: at, Updated: at, Books: []string{"Guests"},
		Fields: []population.PlatformField{{Name: "FIRSTNAME", Value: "Zoë"}, {Name: "SHOP_ORDERS", Value: 3.5}, {Name: "LAST_ORDER", Value: at}, {Name: "WANTS_PRINT", Value: true}},
	}))
	must(e.Contact(population.PlatformContact{Email: "gone@inbox.example", Status: "unsubscribed", StatusAt: at.Add(time.Hour), OptIn: "Single", Created: at, Updated: at}))
	must(e.Contact(population.PlatformContact{Email: "ZOE@inbox.example", Status: "suppressed", StatusAt: at, OptIn: "Single", Created: at, Updated: at}))

	zoe, _ := s.FindContact("zoe@inbox.example")
	want := map[string]string{"FIRSTNAME": `"Zoë"`, "SHOP_ORDERS": "3.5", "LAST_ORDER": `"2025-03-04T05:06:07"`, "WANTS_PRINT": "true"}
	if diff := cmp.Diff(want, zoe.Values); diff != "" {
		t.Error(diff)
	}
	if zoe.Status != "Subscribed" || zoe.OptIn != "Double" || len(zoe.Lists) != 1 || !zoe.Created.Equal(at) {
		t.Errorf("%+v", zoe)
	}
	gone, _ := s.FindContact("gone@inbox.example")
	if gone.Status != "Unsubscribed" || !gone.Removed.Equal(at.Add(time.Hour)) {
		t.Errorf("%+v", gone)
	}
	n := 0
	s.EachContact(func(dotdigital.Contact) bool { n++; return true })
	if n != 2 {
		t.Errorf("%d contacts", n)
	}
}
