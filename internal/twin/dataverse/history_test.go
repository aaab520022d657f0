package dataverse

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lockstep-sync/lockstep/internal/twin/dataverse/value"
)

// TestHistoryTellsCallers sees who called, for whom and with which operation, also
// of the parts of a batch, of definitions and of a restored backup.
func TestHistoryTellsCallers(t *testing.T) {
	w := newWorld(t)
	user, err := w.s.AddApplicationUser(AppUser{ClientID: otherApp})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	names := map[value.ID]string{}
	w.s.OnWrite(func(x Write) {
		got = append(got, words(x.Operation, x.Kind, x.Table+x.Path, names[x.Caller], names[x.User], x.Undone))
	})
	me := value.MustID(w.get("WhoAmI").must(200).json()["UserId"].(string))
	names[me], names[value.MustID(user)], names[value.ID{}] = "me", "other", "nobody"

	w.do("POST", "contacts", `{"lastname":"x"}`, "MSCRMCallerID", user).must(204)
	w.batch(nil, changeSet(
		one("POST", "accounts", `{"name":"Acme"}`, "Content-ID", "1"),
		one("POST", "contacts", `{"lastname":"King"}`, "Content-ID", "2"),
	)).must(200)
	w.batch(nil, changeSet(
		one("POST", "contacts", `{"lastname":"Gone"}`, "Content-ID", "1"),
		one("POST", "contacts", `{"nope":1}`, "Content-ID", "2"),
	))
	w.s.Restore(1)
	w.s.changeMetadata([]byte(`{"table":"contact","column":"firstname","change":"max-length","max_length":7}`))
	want := []string{
		"contact.create create contact me other 0",
		"account.create create account me me 0",
		"contact.create create contact me me 0",
		"fault.env-restore restore  nobody nobody 1",
		"fault.metadata-change definition contact nobody nobody 0",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
