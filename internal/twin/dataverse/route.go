package dataverse

import (
	"net/http"
	"strings"
	"unicode"

	"github.com/lockstep-sync/lockstep/internal/twin/dataverse/schema"
)

// operationName is "<table>.<verb>" for rows and a plain name for the rest. The
// table is named by its set without the plural, because names must not depend
// on the schema of the moment.
func operationName(method, rest, query string, h http.Header) string {
	segs, err := splitPath(rest)
	if err != nil || len(segs) == 0 {
		return "other"
	}
	first := segs[0]
	switch first.name {
	case "":
		return "service-document"
	case "$metadata":
		return "metadata.read"
	case "$batch":
		return "batch"
	case "EntityDefinitions", "RelationshipDefinitions", "GlobalOptionSetDefinitions", "ManagedPropertyDefinitions":
		if method == http.MethodGet {
			return "metadata.read"
		}
		return "metadata.write"
	case "WhoAmI":
		return "whoami"
	case "AddListMembersList":
		return "list.add-members"
	}
	if first.name[0] >= 'A' && first.name[0] <= 'Z' {
		return kebab(first.name)
	}
	table := singular(first.name)
	last := segs[len(segs)-1]
	if m := last.message(); m != "" {
		switch m {
		case "AddMemberList":
			return "list.add-member"
		case "RemoveMemberList":
			return "list.remove-member"
		case "CopyMembersList":
			return "list.copy-members"
		}
		return table + "." + kebab(m)
	}
	switch {
	case last.name == "$count":
		if strings.Contains(query, "deltatoken=") {
			return table + ".delta"
		}
		return table + ".count"
	case last.name == "$ref" && method == http.MethodGet:
		return table + ".read"
	case last.name == "$ref" && method == http.MethodDelete:
		return table + ".disassociate"
	case last.name == "$ref":
		return table + ".associate"
	}
	switch method {
	case http.MethodGet:
		if strings.Contains(query, "deltatoken=") || strings.Contains(query, "istracking%3D%22True%22") || strings.Contains(query, "istracking%3d%22True%22") ||
			strings.Contains(strings.Join(h.Values("Prefer"), ","), "odata.track-changes") {
			return table + ".delta"
		}
		return table + ".read"
	case http.MethodPost:
		return table + ".create"
	case http.MethodPatch:
		if h.Get("If-Match") != "" {
			return table + ".update"
		}
		return table + ".upsert"
	case http.MethodPut:
		return table + ".update"
	case http.MethodDelete:
		if len(segs) > 1 {
			return table + ".update"
		}
		return table + ".delete"
	}
	return "other"
}

func singular(set string) string {
	switch {
	case strings.HasSuffix(set, "ies"):
		return strings.TrimSuffix(set, "ies") + "y"
	case strings.HasSuffix(set, "collection"):
		return strings.TrimSuffix(set, "collection")
	}
	return strings.TrimSuffix(set, "s")
}

func kebab(name string) string {
	var b strings.Builder
	for i, r := range name {
		if unicode.IsUpper(r) && i > 0 {
			b.WriteByte('-')
		}
		b.WriteRune(unicode.ToLower(r))
	}
	return b.String()
}

// otherSets are sets that every organization has and the twin does not emulate.
var otherSets = map[string]string{
	"serviceendpoints": "Registering webhooks in an organization made by an earlier version", "sdkmessageprocessingsteps": "Registering webhooks in an organization made by an earlier version",
	"sdkmessageprocessingstepimages": "Registering images of steps",
	"importjobs":                     "Importing solutions",
	"userqueries":                    "Working with personal views", "usersettingscollection": "Reading user settings", "fieldsecurityprofiles": "Column security", "fieldpermissions": "Column security",
	"emails": "Working with emails", "tasks": "Working with tasks", "phonecalls": "Working with phone calls", "appointments": "Working with appointments", "activitypointers": "Working with all activities at once",
	"activityparties": "Working with activity parties", "opportunities": "Working with opportunities", "incidents": "Working with cases", "webresourceset": "Working with web resources",
	"duplicaterules": "Duplicate detection", "bulkdeleteoperations": "Bulk deletion",
}

// route finds what a path means.
func (c *call) route() (*answer, error) {
	first := c.path[0]
	switch first.name {
	case "":
		return c.serviceDocument()
	case "$metadata":
		return nil, notEmulated("The CSDL document $metadata")
	case "$batch":
		return c.batch()
	case "EntityDefinitions":
		return c.entityDefinitions()
	case "RelationshipDefinitions":
		return c.relationshipDefinitions()
	case "GlobalOptionSetDefinitions", "ManagedPropertyDefinitions":
		return nil, notEmulated(first.name)
	}
	if first.name[0] >= 'A' && first.name[0] <= 'Z' {
		return c.unbound(first)
	}
	t := c.sch.Set(first.name)
	if t == nil {
		if what := otherSets[first.name]; what != "" {
			return nil, notEmulated(what)
		}
		return nil, noSegment(first.name)
	}
	if !first.parens {
		return c.collection(t)
	}
	return c.single(t, first)
}

// collection serves paths that begin with a set.
func (c *call) collection(t *schema.Table) (*answer, error) {
	if len(c.path) == 1 {
		switch c.method {
		case http.MethodGet:
			return c.list(t, nil)
		case http.MethodPost:
			return c.postRow(t)
		}
		return nil, wrongMethod(c.method)
	}
	if len(c.path) > 2 {
		return nil, noSegment(c.path[2].name)
	}
	second := c.path[1]
	if second.name == "$count" {
		if c.method != http.MethodGet {
			return nil, wrongMethod(c.method)
		}
		return c.count(t, nil)
	}
	if m := second.message(); m != "" {
		return c.bulk(t, m)
	}
	return nil, noSegment(second.name)
}

// single serves paths that begin with one row.
func (c *call) single(t *schema.Table, first segment) (*answer, error) {
	tg, err := c.resolve(t, first.inside)
	if err != nil {
		return nil, err
	}
	if len(c.path) == 1 {
		switch c.method {
		case http.MethodGet:
			return c.getRow(tg)
		case http.MethodPatch:
			return c.patchRow(tg)
		case http.MethodDelete:
			return c.deleteRow(tg)
		}
		return nil, wrongMethod(c.method)
	}
	if tg.id.IsZero() {
		return nil, keyNotFound(tg)
	}
	second := c.path[1]
	if m := second.message(); m != "" {
		if len(c.path) > 2 {
			return nil, noSegment(c.path[2].name)
		}
		return c.bound(tg, m)
	}
	return c.property(tg, second, c.path[2:])
}
