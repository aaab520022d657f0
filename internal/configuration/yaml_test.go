package configuration

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/lockstep-sync/lockstep"
)

// words are texts that writers and readers of YAML have been known to get wrong.
var words = []string{"", "yes", "No", "null", "~", "1e3", "0x1F", "018", "12:30", "2026-01-01", "- a", "a: b", "# c", "'", `"`, `\`, "a\nb", " a ", "\t", "{a}", "[a]", "*a", "&a", "!a", "|", ">", "%", "@", "`", "äöü", "😀", "\u2028", "\u0085", "\u007f", "a #b", "...", "---", "=", "<<", "true", "4h", "1_000", ".inf", "a,b", "O'Brien & <Söhne>: \"x\""}

func anyText() *rapid.Generator[string] {
	return rapid.OneOf(rapid.SampledFrom(words), rapid.StringN(0, 20, -1), rapid.StringMatching(`[a-zA-Z0-9 :#'"-]{0,12}`))
}

func some[T any](t *rapid.T, name string, g *rapid.Generator[T]) *T {
	v := g.Draw(t, name)
	return &v
}

func anyDocument(t *rapid.T) Document {
	d := Document{}
	for range rapid.IntRange(1, 2).Draw(t, "accounts") {
		a := Account{Name: anyText().Draw(t, "name"), Organization: anyText().Draw(t, "organization")}
		if rapid.Bool().Draw(t, "settings") {
			a.Settings = &Settings{
				Description: some(t, "description", anyText()), Priority: some(t, "priority", rapid.SliceOfN(anyText(), 1, 3)), CreateCap: some(t, "cap", rapid.Int()),
				Automatic: some(t, "automatic", rapid.Bool()), BulkOptOut: new(lockstep.BulkOptOut(anyText().Draw(t, "policy"))), AloneWithSuppressions: some(t, "alone", rapid.Bool()),
				GuardPercent: some(t, "percent", rapid.Int()), GuardRows: some(t, "rows", rapid.Int()), GuardFloor: some(t, "floor", rapid.Int()), ConfirmChanges: some(t, "confirm", rapid.Bool()),
			}
			if rapid.Bool().Draw(t, "default") {
				a.Settings.Default = new(true)
			}
		}
		if rapid.Bool().Draw(t, "labels") {
			a.Labels = rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Label {
				return Label{anyText().Draw(t, "name"), lockstep.FieldType(anyText().Draw(t, "type")), rapid.Bool().Draw(t, "private"), anyText().Draw(t, "default"), anyText().Draw(t, "description")}
			}), 0, 3).Draw(t, "labels")
		}
		if rapid.Bool().Draw(t, "mappings") {
			a.Mappings = rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Mapping {
				return Mapping{
					Label: anyText().Draw(t, "label"), Table: anyText().Draw(t, "table"), Direction: lockstep.ToCRM, Column: anyText().Draw(t, "column"), Winner: lockstep.WinnerHold,
					Empty: lockstep.EmptyKeep, Default: anyText().Draw(t, "default"), Truncate: rapid.Bool().Draw(t, "truncate"), AsNumber: rapid.Bool().Draw(t, "number"),
				}
			}), 0, 3).Draw(t, "mappings")
		}
		if rapid.Bool().Draw(t, "lists") {
			a.Lists = rapid.SliceOfN(rapid.Custom(func(t *rapid.T) List {
				return List{Name: anyText().Draw(t, "name"), CRMID: anyText().Draw(t, "id"), Activated: some(t, "activated", rapid.Bool()), MinOptIn: some(t, "opt-in", anyText()), SyncOrder: some(t, "order", rapid.Int())}
			}), 0, 3).Draw(t, "lists")
		}
		if rapid.Bool().Draw(t, "schedules") {
			a.Schedules = rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Schedule {
				s := Schedule{Type: lockstep.SyncScoring, Interval: anyText().Draw(t, "interval"), At: anyText().Draw(t, "at"), Zone: anyText().Draw(t, "zone")}
				for range rapid.IntRange(0, 2).Draw(t, "windows") {
					w := Window{From: anyText().Draw(t, "from"), To: anyText().Draw(t, "to"), Zone: anyText().Draw(t, "zone")}
					if rapid.Bool().Draw(t, "days") {
						w.Days = rapid.SliceOfN(anyText(), 1, 3).Draw(t, "days")
					}
					s.Windows = append(s.Windows, w)
				}
				return s
			}), 0, 3).Draw(t, "schedules")
		}
		d.Accounts = append(d.Accounts, a)
	}
	return d
}

func TestWhatIsWrittenIsRead(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := anyDocument(t)
		text := d.Text()
		got, err := Parse(text)
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		if diff := cmp.Diff(d, got); diff != "" {
			t.Fatalf("(-written +read)\n%s\n%s", diff, text)
		}
		var sent Document
		if b, err := json.Marshal(d); err != nil {
			t.Fatal(err)
		} else if err := json.Unmarshal(b, &sent); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(d, sent); diff != "" {
			t.Fatalf("as JSON it is another document (-written +read)\n%s", diff)
		}
		if again := got.Text(); string(again) != string(text) {
			t.Fatalf("written again it is another text:\n%s\n%s", text, again)
		}
	})
}

func TestParseRefuses(t *testing.T) {
	for _, tc := range []struct{ text, want string }{
		{"", "the document is empty"},
		{"# nothing\n", "the document is empty"},
		{"accounts:\n  - name: A\n---\naccounts: []\n", "line 4: a second document begins here"},
		{"accounts:\n  - name: A\n    labels:\n    lists: []\n", "line 3: there is no value"},
		{"accounts:\n  - name: A\n    settings:\n      description: ~\n", "line 4: there is no value"},
		{"accounts:\n  - &a\n    name: A\n", "references and tags are not read"},
		{"accounts:\n  - name: !secret A\n", "line 2: references and tags are not read"},
		{"accounts:\n  - name: A\n    label: []\n", `[3:5] unknown field "label"`},
		{"accounts:\n  - name: A\n    lists:\n      - name: L\n        address_book_id: 42\n", `[5:9] unknown field "address_book_id"`},
		{"accounts:\n  - name: A\n    name: B\n", "[3:5] mapping key \"name\" already defined"},
		{"accounts:\n  - name: A\n    settings:\n      create_cap: many\n", "[4:19]"},
		{"accounts:\n  - name: A\n   labels: []\n", "[3:"},
		{"accounts: [\n", "["},
		{"accounts: 3\n", "[1:11]"},
		{"accounts:\n  - name: \xff\n", "not UTF-8"},
		{strings.Repeat("#", MaxText+1), "larger than 1 MiB"},
	} {
		d, err := Parse([]byte(tc.text))
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%.80q gives %v and %v, want %q", tc.text, d, err, tc.want)
		}
	}
}

func TestLines(t *testing.T) {
	text := []byte("# top\naccounts:\n  - name: A\n    labels:\n      - name: B\n        type: text\n      - {name: C, type: number}\n    schedules:\n      - type: undo\n        windows:\n          - from: 1:00\n            to: 2:00\n")
	line := Lines(text)
	for path, want := range map[string]int{
		"accounts": 3, "accounts[0].name": 3, "accounts[0].labels": 5, "accounts[0].labels[0]": 5, "accounts[0].labels[0].type": 6, "accounts[0].labels[0].default": 5,
		"accounts[0].labels[1].name": 7, "accounts[0].schedules[0].windows[0].to": 12, "accounts[0].schedules[0].windows[0].days[1]": 11, "accounts[3]": 3, "elsewhere": 0, "": 0, "$[[": 0,
	} {
		if got := line(path); got != want {
			t.Errorf("%q is on line %d, want %d", path, got, want)
		}
	}
	if got := Lines([]byte("a: ["))("a"); got != 0 {
		t.Errorf("a text that is no YAML has line %d", got)
	}
}
