package dotdigital

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// modelContact is what a person who reads the documentation expects.
type modelContact struct {
	id     int64
	status string
	binned bool
	in     map[int32]bool
	left   map[int32]bool
}

func (m *modelContact) blocked() bool { return m.status != "Subscribed" }

func (m *modelContact) block(status string) {
	m.status = status
	clear(m.in)
}

// TestWritesAgreeWithModel applies any sequence of writes through the API and
// compares counters, members and suppressions with a naive model.
func TestWritesAgreeWithModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		a := open(t, Options{})
		people := map[string]*modelContact{}
		lists := map[int32]bool{a.addList("One"): true, a.addList("Two"): true}
		emails := []string{"a@example.com", "b@example.com", "c@example.com", "d@example.com"}
		// person returns the contact as a write leaves it: known, out of the bin.
		person := func(email string) *modelContact {
			p := people[email]
			if p == nil {
				p = &modelContact{status: "Subscribed", in: map[int32]bool{}, left: map[int32]bool{}}
				people[email] = p
			}
			p.binned = false
			if c, ok := a.FindContact(email); ok {
				p.id = c.ID
			}
			return p
		}
		pick := func(rt *rapid.T) (string, int32) {
			return rapid.SampledFrom(emails).Draw(rt, "email"), rapid.SampledFrom(slices.Sorted(maps.Keys(lists))).Draw(rt, "list")
		}
		known := func(email string) *modelContact {
			if p := people[email]; p != nil && !p.binned {
				return p
			}
			return nil
		}
		rt.Repeat(map[string]func(*rapid.T){
			"import": func(rt *rapid.T) {
				email, list := pick(rt)
				a.importRows(fmt.Sprintf(`{"contacts":[{"matchIdentifier":"email","identifiers":{"email":%q},"lists":[%d]}]}`, email, list))
				if p := person(email); !p.blocked() && !p.left[list] {
					p.in[list] = true
				}
			},
			"import-unsubscribed": func(rt *rapid.T) {
				email, list := pick(rt)
				a.importRows(fmt.Sprintf(`{"contacts":[{"matchIdentifier":"email","identifiers":{"email":%q},"lists":[%d],"channelProperties":{"email":{"status":"unsubscribed"}}}]}`, email, list))
				person(email).block("Unsubscribed")
			},
			"add": func(rt *rapid.T) {
				email, list := pick(rt)
				r := a.call("POST", fmt.Sprintf("/v2/address-books/%d/contacts", list), fmt.Sprintf(`{"email":%q}`, email))
				if p := people[email]; p != nil && (p.blocked() || p.left[list]) {
					r.want(400, "ERROR_CONTACT_SUPPRESSED")
					return
				}
				r.want(200)
				person(email).in[list] = true
			},
			"remove": func(rt *rapid.T) {
				email, list := pick(rt)
				if p := people[email]; p != nil {
					a.call("POST", fmt.Sprintf("/v2/address-books/%d/contacts/delete", list), []int64{p.id}).want(202)
					delete(p.in, list)
				}
			},
			"unsubscribe": func(rt *rapid.T) {
				email, _ := pick(rt)
				a.call("POST", "/v2/contacts/unsubscribe", fmt.Sprintf(`{"email":%q}`, email)).want(200)
				person(email).block("Unsubscribed")
			},
			"suppress": func(rt *rapid.T) {
				email, _ := pick(rt)
				a.call("PUT", "/v2/contacts/suppress-contacts", fmt.Sprintf(`[{"email":%q}]`, email)).want(200)
				if p := known(email); p != nil {
					p.block("Suppressed")
				}
			},
			"leave": func(rt *rapid.T) {
				email, list := pick(rt)
				a.call("POST", fmt.Sprintf("/v2/address-books/%d/contacts/unsubscribe", list), fmt.Sprintf(`{"email":%q}`, email)).want(200)
				p := person(email)
				delete(p.in, list)
				p.left[list] = true
			},
			"resubscribe": func(rt *rapid.T) {
				email, _ := pick(rt)
				r := a.call("POST", "/v2/contacts/resubscribe-with-no-challenge", fmt.Sprintf(`{"unsubscribedContact":{"email":%q}}`, email))
				switch p := known(email); {
				case p == nil:
					r.want(404)
				case !p.blocked():
					r.want(400)
				default:
					r.want(200, "ContactAdded")
					p.status = "Subscribed"
				}
			},
			"return": func(rt *rapid.T) {
				email, list := pick(rt)
				r := a.call("POST", fmt.Sprintf("/v2/address-books/%d/contacts/resubscribe-with-no-challenge", list), fmt.Sprintf(`{"unsubscribedContact":{"email":%q}}`, email))
				if p := known(email); p != nil && !p.blocked() && p.left[list] {
					r.want(200, "ContactAdded")
					delete(p.left, list)
					p.in[list] = true
				} else if r.status < 400 {
					rt.Fatalf("resubscribed to a list without having left it: %s", r.body)
				}
			},
			"delete": func(rt *rapid.T) {
				email, _ := pick(rt)
				r := a.call("DELETE", "/contacts/v3/email/"+email, nil)
				if p := known(email); p != nil {
					r.want(200)
					p.binned = true
					clear(p.in)
				} else {
					r.want(404)
				}
			},
			"empty-bin": func(*rapid.T) {
				a.call("POST", "/v2/accounts/empty-recycle-bin", nil).want(202)
				maps.DeleteFunc(people, func(_ string, p *modelContact) bool { return p.binned })
			},
			"drop-list": func(rt *rapid.T) {
				_, list := pick(rt)
				a.call("DELETE", fmt.Sprintf("/v2/address-books/%d", list), nil).want(204)
				delete(lists, list)
				for _, p := range people {
					delete(p.in, list)
					delete(p.left, list)
				}
				lists[a.addList(fmt.Sprintf("List after %d", list))] = true
			},
			"": func(rt *rapid.T) { compare(rt, a, people, lists) },
		})
	})
}

func compare(rt *rapid.T, a *account, people map[string]*modelContact, lists map[int32]bool) {
	var counters []struct {
		ID, Contacts int32
		Name         string
	}
	a.get("/v2/address-books").want(200).into(&counters)
	alive, blocked := int32(0), map[string]string{}
	members, leavers := map[int32][]string{}, map[int32][]string{}
	for _, email := range slices.Sorted(maps.Keys(people)) {
		p := people[email]
		if p.binned {
			continue
		}
		alive++
		if p.blocked() {
			blocked[email] = p.status
		}
		for list := range p.in {
			members[list] = append(members[list], email)
		}
		for list := range p.left {
			leavers[list] = append(leavers[list], email)
		}
	}
	for _, row := range counters {
		want := int32(len(members[row.ID]))
		if row.Name == "All Contacts" {
			want = alive
		}
		if row.Contacts != want {
			rt.Fatalf("list %s counts %d, want %d", row.Name, row.Contacts, want)
		}
	}
	for list := range lists {
		var page struct {
			Items []struct{ Identifiers struct{ Email string } } `json:"_items"`
		}
		a.get(fmt.Sprintf("/contacts/v3?~listId=%d", list)).want(200).into(&page)
		var got []string
		for _, item := range page.Items {
			got = append(got, item.Identifiers.Email)
		}
		slices.Sort(got)
		if d := cmp.Diff(members[list], got); d != "" {
			rt.Fatalf("members of list %d: %s", list, d)
		}
		var rows []struct{ SuppressedContact struct{ Email string } }
		a.get(fmt.Sprintf("/v2/address-books/%d/contacts/unsubscribed-since/2000-01-01", list)).want(200).into(&rows)
		got = nil
		for _, row := range rows {
			got = append(got, row.SuppressedContact.Email)
		}
		slices.Sort(got)
		if d := cmp.Diff(leavers[list], got); d != "" {
			rt.Fatalf("who left list %d: %s", list, d)
		}
	}
	var rows []struct {
		SuppressedContact struct{ Email string }
		Reason            string
	}
	a.get("/v2/contacts/suppressed-since/2000-01-01").want(200).into(&rows)
	got := map[string]string{}
	for _, row := range rows {
		got[row.SuppressedContact.Email] = row.Reason
	}
	if d := cmp.Diff(blocked, got); d != "" {
		rt.Fatalf("suppressions: %s", d)
	}
	if n := string(a.get("/v2/contacts/count").want(200).body); n != fmt.Sprint(int(alive)-len(blocked)) {
		rt.Fatalf("count is %s, want %d", n, int(alive)-len(blocked))
	}
}
