package dataverse

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestSnapshot(t *testing.T) {
	w := newWorld(t)
	w.do("POST", "EntityDefinitions(LogicalName='contact')/Attributes", `{"@odata.type":"Microsoft.Dynamics.CRM.StringAttributeMetadata","SchemaName":"lsx_Code","MaxLength":20}`).must(204)
	w.do("POST", "EntityDefinitions(LogicalName='contact')/Keys", `{"SchemaName":"lsx_CodeKey","KeyAttributes":["lsx_code"]}`).must(204)
	for range 3 {
		w.get("EntityDefinitions(LogicalName='contact')/Keys").must(200)
	}
	w.load(50)
	id := w.create("contacts", `{"lastname":"King","lsx_code":"A","emailaddress1":"k@x.org"}`)
	_, _, delta := w.pages("contacts?$select=lastname", "Prefer", "odata.track-changes")
	gone := w.create("contacts", `{"lastname":"Gone"}`)
	w.do("DELETE", "contacts("+gone+")", "").must(204)
	before := w.get("contacts").rows()

	dir := filepath.Join(t.TempDir(), "twin")
	if err := newWorld(t).s.LoadSnapshot(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no snapshot: %v", err)
	}
	if err := w.s.SaveSnapshot(dir); err != nil {
		t.Fatal(err)
	}
	x := newWorld(t)
	if err := x.s.LoadSnapshot(dir); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, x.get("contacts").must(200).rows()); diff != "" {
		t.Error(diff)
	}
	x.get("contacts(lsx_code='A')").must(200)
	x.do("POST", "contacts", `{"lsx_code":"a"}`).refused(412, "0x80060892")
	if rows := x.get("contacts?$filter=emailaddress1%20eq%20'k@x.org'").rows(); len(rows) != 1 || rows[0]["contactid"] != id {
		t.Errorf("by index %v", rows)
	}
	ids, _, _ := x.pages(x.url + delta[len(w.url):])
	if diff := cmp.Diff([]string{"-" + gone}, ids); diff != "" {
		t.Errorf("delta over the restart: %s", diff)
	}
	if fresh := x.create("contacts", `{"lastname":"New"}`); fresh == id || fresh == gone {
		t.Error("an id was given out twice")
	}

	file := filepath.Join(dir, snapshotFile)
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{0, 10, len(whole) / 2, len(whole) - 1} {
		if err := os.WriteFile(file, whole[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		if err := newWorld(t).s.LoadSnapshot(dir); err == nil {
			t.Errorf("a snapshot cut at %d was taken", n)
		}
	}
}
