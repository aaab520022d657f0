package configuration

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"

	"github.com/lockstep-sync/lockstep"
)

// MaxText is the longest text of a document, in bytes.
const MaxText = 1 << 20

// plain are strings that YAML reads as themselves without quotes, in any of its
// versions: no number, no time of day, no word that means true or nothing.
var plain = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.-]*( [A-Za-z0-9_.-]+)*$`)

var meaning = []string{"y", "n", "yes", "no", "on", "off", "true", "false", "null", "nan", "inf"}

// interval is written without quotes too: no reader takes it for a number.
var interval = regexp.MustCompile(`^[0-9]+[mh]$`)

// scalar writes a string as YAML.
func scalar(s string) string {
	if plain.MatchString(s) && !slices.Contains(meaning, strings.ToLower(s)) || interval.MatchString(s) {
		return s
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b) // a JSON string is one of YAML
	enc.SetEscapeHTML(false)
	_ = enc.Encode(s)
	return strings.TrimSpace(b.String())
}

func flow(words []string) string {
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = scalar(w)
	}
	return "[" + strings.Join(quoted, ", ") + "]"
}

// Text writes a document as YAML. The same configuration gives the same bytes.
func (d *Document) Text() []byte {
	var b bytes.Buffer
	if d.Installation != nil {
		b.WriteString("installation:\n")
		writeFields(&b, "  ", "  ", d.Installation.fields())
		b.WriteString("\n")
	}
	if len(d.Organizations) > 0 {
		b.WriteString("organizations:\n")
		for i := range d.Organizations {
			writeFields(&b, "  - ", "    ", d.Organizations[i].fields())
		}
		b.WriteString("\n")
	}
	b.WriteString("accounts:")
	if len(d.Accounts) == 0 {
		b.WriteString(" []")
	}
	b.WriteString("\n")
	for i := range d.Accounts {
		a := &d.Accounts[i]
		fmt.Fprintf(&b, "  - name: %s\n", scalar(a.Name))
		if a.Organization != "" {
			fmt.Fprintf(&b, "    organization: %s\n", scalar(a.Organization))
		}
		if a.Settings != nil {
			b.WriteString("\n    settings:\n")
			writeFields(&b, "      ", "      ", a.Settings.fields())
		}
		writeSection(&b, "labels", a.Labels != nil, items(a.Labels))
		writeSection(&b, "mappings", a.Mappings != nil, items(a.Mappings))
		writeSection(&b, "lists", a.Lists != nil, items(a.Lists))
		writeSection(&b, "schedules", a.Schedules != nil, items(a.Schedules))
	}
	return b.Bytes()
}

func writeSection(b *bytes.Buffer, name string, present bool, all []item) {
	switch {
	case !present:
	case len(all) == 0:
		fmt.Fprintf(b, "\n    %s: []\n", name)
	default:
		fmt.Fprintf(b, "\n    %s:\n", name)
		for _, it := range all {
			writeFields(b, "      - ", "        ", it.fields())
		}
	}
}

// writeFields writes what is not at its default, one key a line; first goes before the
// first key.
func writeFields(b *bytes.Buffer, first, indent string, all []field) {
	for _, f := range all {
		if f.quiet {
			continue
		}
		b.WriteString(first + f.name + ":")
		first = indent
		switch v := f.value.(type) {
		case string:
			b.WriteString(" " + scalar(v) + "\n")
		case []string:
			b.WriteString(" " + flow(v) + "\n")
		case []Window:
			b.WriteString("\n")
			for _, w := range v {
				var keys []field
				if len(w.Days) > 0 {
					keys = append(keys, field{name: "days", value: w.Days})
				}
				writeFields(b, indent+"  - ", indent+"    ", append(keys,
					field{name: "from", value: w.From}, field{name: "to", value: w.To}, field{name: "zone", value: w.Zone, quiet: w.Zone == ""}))
			}
		default:
			b.WriteString(" " + f.text() + "\n")
		}
	}
}

// Parse reads a document that is written as YAML. A key that it does not know, a key
// without a value and whatever else can only be a mistake is refused with its line.
func Parse(text []byte) (Document, error) {
	var d Document
	if len(text) > MaxText {
		return d, refuse("the document is larger than 1 MiB", "part it by account")
	}
	if !utf8.Valid(text) {
		return d, refuse("the document is not UTF-8", "save it in this encoding")
	}
	file, err := parser.ParseBytes(text, 0)
	if err != nil {
		return d, unreadable(err)
	}
	file.Docs = slices.DeleteFunc(file.Docs, func(doc *ast.DocumentNode) bool { return doc.Body == nil })
	switch {
	case len(file.Docs) == 0:
		return d, refuse("the document is empty", "it begins with accounts:")
	case len(file.Docs) > 1:
		return d, atLine(file.Docs[1].Body, "a second document begins here", "one file holds one document; name several accounts in it")
	}
	if err := plainNodes(file.Docs[0].Body); err != nil {
		return d, err
	}
	if err := yaml.NewDecoder(bytes.NewReader(text), yaml.Strict()).Decode(&d); err != nil && !errors.Is(err, io.EOF) {
		return d, unreadable(err)
	}
	return d, nil
}

func refuse(msg, hint string) error {
	return &lockstep.Error{Code: lockstep.CodeInvalid, Msg: msg, Hint: hint}
}

func atLine(n ast.Node, msg, hint string) error {
	return refuse(fmt.Sprintf("line %d: %s", n.GetToken().Position.Line, msg), hint)
}

// unreadable shows what the reader of YAML says with the line that it is about.
func unreadable(err error) error {
	return refuse(strings.TrimRight(yaml.FormatError(err, false, true), "\n"), "")
}

// plainNodes refuses what a document has no use for: references, which make a few lines
// stand for very many, and keys without a value, which could mean that something is to
// be deleted or to be left alone.
func plainNodes(root ast.Node) error {
	var found error
	ast.Walk(visitor(func(n ast.Node) bool {
		switch n.Type() {
		case ast.AnchorType, ast.AliasType, ast.MergeKeyType, ast.TagType:
			found = cmp.Or(found, atLine(n, "references and tags are not read", "write the values out"))
		case ast.NullType:
			found = cmp.Or(found, atLine(n, "there is no value", `leave the key out to leave it alone; write [] for an empty list and "" for an empty text`))
		}
		return found == nil
	}), root)
	return found
}

type visitor func(ast.Node) bool

// Visit is called by ast.Walk.
func (v visitor) Visit(n ast.Node) ast.Visitor {
	if !v(n) {
		return nil
	}
	return v
}

// Lines finds the lines of a document that paths, such as accounts[0].labels[2].name,
// are about. It returns a function that is 0 for what it cannot find; a path whose last
// key is not there has the line of what it would be in.
func Lines(text []byte) func(path string) int {
	file, err := parser.ParseBytes(text, 0)
	if err != nil {
		return func(string) int { return 0 }
	}
	return func(path string) int {
		for path != "" {
			if p, err := yaml.PathString("$." + path); err == nil {
				if n, err := p.FilterFile(file); err == nil && n != nil {
					return firstLine(n)
				}
			}
			cut := max(strings.LastIndexByte(path, '.'), strings.LastIndexByte(path, '['), 0)
			path = path[:cut]
		}
		return 0
	}
}

// firstLine is the line on which a node begins; that of a mapping is its first key's.
func firstLine(n ast.Node) int {
	switch v := n.(type) {
	case *ast.MappingNode:
		if len(v.Values) > 0 {
			return v.Values[0].Key.GetToken().Position.Line
		}
	case *ast.MappingValueNode:
		return v.Key.GetToken().Position.Line
	case *ast.SequenceNode:
		if len(v.Values) > 0 {
			return firstLine(v.Values[0])
		}
	}
	return n.GetToken().Position.Line
}

// Path names a place in a document.
func Path(account int, section string, index int, key string) string {
	p := "accounts[" + strconv.Itoa(account) + "]"
	if section != "" {
		p += "." + section
	}
	if index >= 0 {
		p += "[" + strconv.Itoa(index) + "]"
	}
	if key != "" {
		p += "." + key
	}
	return p
}
