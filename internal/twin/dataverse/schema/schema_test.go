package schema

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func standard() *Schema { return Standard(Apps{Sales: true, Subscriptions: true}) }

func TestDeclarationsAreConsistent(t *testing.T) {
	s := standard()
	codes := map[int]string{}
	for _, table := range s.Tables() {
		if other, twice := codes[table.Code]; twice {
			t.Errorf("%s and %s share the type code %d", table.Name, other, table.Code)
		}
		codes[table.Code] = table.Name
		if s.Set(table.Set) != table || table.At(IDOrd) != table.Column(table.PrimaryID) || table.At(VersionOrd).Name != "versionnumber" {
			t.Errorf("%s: set, primary key or version", table.Name)
		}
		if table.PrimaryName != "" && table.Column(table.PrimaryName) == nil {
			t.Errorf("%s: the primary name %s does not exist", table.Name, table.PrimaryName)
		}
		for _, c := range table.Columns() {
			switch {
			case c.Type == String && (c.MaxLength < 1 || c.MaxLength > 4000):
				t.Errorf("%s.%s: length %d", table.Name, c.Name, c.MaxLength)
			case (c.Type.IsOption() || c.Type == MultiSelect) && len(c.Options) == 0:
				t.Errorf("%s.%s has no options", table.Name, c.Name)
			case c.Type == Picklist && c.DefaultOption >= 0:
				if _, ok := c.Option(c.DefaultOption); !ok {
					t.Errorf("%s.%s: the default %d is no option", table.Name, c.Name, c.DefaultOption)
				}
			case c.Type == State:
				for _, o := range c.Options {
					if d, ok := table.Column("statuscode").Option(o.DefaultStatus); !ok || d.State != o.Value {
						t.Errorf("%s: state %d has the default status %d", table.Name, o.Value, o.DefaultStatus)
					}
				}
			case c.Type.IsLookup() && c.Type != Owner:
				for _, target := range c.Targets {
					if s.Table(target) == nil || table.NavFor(c.Name, target) == "" {
						t.Errorf("%s.%s: no way to %s", table.Name, c.Name, target)
					}
				}
			}
		}
		navs := map[string]bool{}
		for _, r := range table.ManyToOne {
			if navs[r.Nav] {
				t.Errorf("%s has two navigation properties %s", table.Name, r.Nav)
			}
			navs[r.Nav] = true
		}
		for _, r := range table.OneToMany {
			if navs[r.CollectionNav] {
				t.Errorf("%s has two navigation properties %s", table.Name, r.CollectionNav)
			}
			navs[r.CollectionNav] = true
		}
	}
	if n := len(s.Table("contact").Columns()); n < 100 {
		t.Errorf("contact has %d columns", n)
	}
}

func TestBareHasNoSalesTables(t *testing.T) {
	s := Standard(Apps{})
	for _, name := range []string{"lead", "list", "listmember", "campaign", "lsx_subscription"} {
		if s.Table(name) != nil {
			t.Errorf("%s exists", name)
		}
	}
}

func TestChangeLeavesThePublishedSchemaAlone(t *testing.T) {
	old := standard()
	before, err := old.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	next, err := old.Change(func(d *Draft) error {
		d.Table("contact").AddColumn(Text("lsx_Code", 20))
		d.Table("contact").RemoveColumn("jobtitle")
		d.Table("contact").Keys = append(d.Table("contact").Keys, &Key{Name: "k", Columns: []string{"lsx_code"}})
		table := NewCustomTable("lsx_Box", "UserOwned", Text("lsx_Name", 100))
		d.Add(table)
		d.RelateStandard(table)
		d.Remove("list")
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	after, err := old.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(before), string(after)); diff != "" {
		t.Error(diff)
	}
	if next.Version != old.Version+1 || next.Set("lsx_boxes") == nil || next.Table("contact").Column("jobtitle") != nil || next.Table("contact").WireColumn("lsx_code") == nil {
		t.Error("the change is not in the new schema")
	}
	if next.Table("contact").Many("listcontact_association") != nil {
		t.Error("a relationship outlives its table")
	}
}

func TestMarshalKeepsEverything(t *testing.T) {
	s, err := standard().Change(func(d *Draft) error { d.Table("contact").RemoveColumn("jobtitle"); return nil })
	if err != nil {
		t.Fatal(err)
	}
	first, err := s.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	back, err := Unmarshal(first)
	if err != nil {
		t.Fatal(err)
	}
	second, err := back.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if string(first) != string(second) {
		t.Error("a schema changes on its way through JSON")
	}
	c := back.Table("contact")
	if c.Column("jobtitle") != nil || c.Column("statuscode").Ord != s.Table("contact").Column("statuscode").Ord || c.Navigation("parentcustomerid_account") == nil {
		t.Error("positions or relationships are lost")
	}
}
