package dotdigital

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestPeople(t *testing.T) {
	a := open(t, Options{})
	list, other := a.addList("News"), a.addList("Other")
	offers := a.AddPreference("Offers", "o")
	const email = "Ann@example.com"
	a.add(NewContact{Email: email, Lists: []int32{list, other}})
	state := func() string {
		c, _ := a.FindContact(email)
		return fmt.Sprint(c.Status, c.Lists, c.Left, c.Challenged, c.Preferences)
	}
	do := func(want string, act Act) {
		t.Helper()
		act.Email = strings.ToLower(email)
		if err := a.Act(act); err != nil {
			t.Fatalf("%s: %v", act.Kind, err)
		}
		if got := state(); got != want {
			t.Errorf("after %s: %s, want %s", act.Kind, got, want)
		}
	}
	refused := func(act Act, why string) {
		t.Helper()
		before := state()
		if act.Email == "" {
			act.Email = email
		}
		if err := a.Act(act); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%s: %v, want %q", act.Kind, err, why)
		}
		if diff := cmp.Diff(before, state()); diff != "" {
			t.Errorf("%s was refused and changed %s", act.Kind, diff)
		}
	}
	do("Subscribed[3 4] [] false map[1:true]", Act{Kind: Prefer, Preference: offers, OptedIn: true})
	do("Subscribed[3 4] [] false map[1:false]", Act{Kind: Prefer, Preference: offers})
	do("Subscribed[4] [3] false map[1:false]", Act{Kind: ListUnsubscribe, List: list})
	refused(Act{Kind: Confirm}, "no mail")
	do("Unsubscribed[] [3] false map[1:false]", Act{Kind: Unsubscribe})
	do("Unsubscribed[] [3] false map[1:false]", Act{Kind: Unsubscribe})
	do("Subscribed[] [3] false map[1:false]", Act{Kind: Resubscribe})
	do("IspComplained[] [3] false map[1:false]", Act{Kind: Complain})
	do("IspComplained[] [3] false map[1:false]", Act{Kind: Unsubscribe})
	refused(Act{Kind: Resubscribe}, "IspComplained")
	a.call("POST", "/v2/contacts/resubscribe", `{"unsubscribedContact":{"email":"ann@example.com"}}`).want(200, "ContactCannotBeUnsuppressed")

	refused(Act{Kind: "dance"}, "no act")
	refused(Act{Kind: Prefer, Preference: 99}, "no preference 99")
	refused(Act{Kind: ListUnsubscribe, List: 99}, "no list 99")
	refused(Act{Kind: ListUnsubscribe, List: other}, "not on list")
	refused(Act{Kind: Unsubscribe, Email: "nobody@example.com"}, "no contact")
	a.add(NewContact{Email: "bob@example.com"})
	if err := a.Act(Act{Email: "bob@example.com", Kind: HardBounce}); err != nil {
		t.Fatal(err)
	}
	if c, _ := a.FindContact("bob@example.com"); c.Status != "HardBounced" {
		t.Errorf("status %s", c.Status)
	}
}

func TestChallenge(t *testing.T) {
	a := open(t, Options{})
	list := a.addList("News")
	const email = "ann@example.com"
	a.add(NewContact{Email: email, Lists: []int32{list}})
	standing := func() string {
		c, _ := a.FindContact(email)
		return fmt.Sprint(c.Status, " ", c.Challenged, c.Lists)
	}
	want := func(when, state string) {
		t.Helper()
		if got := standing(); got != state {
			t.Errorf("%s: %s, want %s", when, got, state)
		}
	}
	act := func(kind ActKind) {
		t.Helper()
		if err := a.Act(Act{Email: email, Kind: kind, List: list}); err != nil {
			t.Fatal(err)
		}
	}
	v2 := `{"unsubscribedContact":{"email":"ann@example.com"},"preferredLocale":"de-DE"}`
	v3 := `{"channelProperties":{"email":{"status":"subscribed","resubscribeOptions":{"resubscribeWithNoChallenge":false,"preferredLocale":"de-DE","redirectUrlAfterChallenge":"https://x.example"}}}}`
	for _, ask := range []func(){
		func() {
			a.call("POST", "/v2/contacts/resubscribe", v2).want(200, "ContactChallenged", `"Unsubscribed"`)
		},
		func() { a.call("PATCH", "/contacts/v3/email/ann@example.com", v3).want(200, `"status":"unsubscribed"`) },
		func() {
			a.call("PUT", "/contacts/v3/import", `{"contacts":[{"matchIdentifier":"email","identifiers":{"email":"ann@example.com"},`+v3[1:]+`]}`).want(202)
		},
	} {
		act(Unsubscribe)
		ask()
		want("challenged", "Unsubscribed true []")
		act(Unsubscribe)
		want("left again", "Unsubscribed false []")
		if err := a.Act(Act{Email: email, Kind: Confirm}); err == nil {
			t.Error("a challenge is confirmed although the person left again after it")
		}
		ask()
		act(Confirm)
		want("confirmed", "Subscribed false []")
	}
	a.call("POST", fmt.Sprintf("/v2/address-books/%d/contacts", list), `{"email":"ann@example.com"}`).want(200)
	act(ListUnsubscribe)
	onList := fmt.Sprintf("/v2/address-books/%d/contacts/resubscribe", list)
	a.call("POST", onList, v2).want(200, "ContactChallenged")
	want("challenged on the list", "Subscribed false []")
	act(ListUnsubscribe)
	if err := a.Act(Act{Email: email, Kind: Confirm}); err == nil {
		t.Error("a list's challenge is confirmed although the person left again after it")
	}
	a.call("POST", onList, v2).want(200, "ContactChallenged")
	act(Confirm)
	want("confirmed on the list", fmt.Sprintf("Subscribed false [%d]", list))
}
