package dataverse

import (
	"net/url"
	"regexp"
	"slices"
	"sort"
	"strings"

	"github.com/lockstep-sync/lockstep/internal/twin/dataverse/query"
	"github.com/lockstep-sync/lockstep/internal/twin/dataverse/schema"
	"github.com/lockstep-sync/lockstep/internal/twin/dataverse/store"
	"github.com/lockstep-sync/lockstep/internal/twin/dataverse/value"
)

// memberSet is the members of one list in key order. The intersect table is
// ordered by its own key, so paging over the members of a large list would sort
// them anew for every page; the set is kept until a membership changes.
type memberSet struct {
	list  value.ID
	table string
	stamp int64
	ids   []value.ID
}

// maxMemberSets bounds how many sets are kept.
const maxMemberSets = 8

// fetch returns member rows after a key, in key order.
func (m *memberSet) fetch(view store.View, dst []*store.Row, after value.ID, n int) []*store.Row {
	i := 0
	if !after.IsZero() {
		i = sort.Search(len(m.ids), func(i int) bool { return m.ids[i].Compare(after) > 0 })
	}
	for ; i < len(m.ids) && len(dst) < n; i++ {
		if r := view.Get(m.table, m.ids[i]); r != nil {
			dst = append(dst, r)
		}
	}
	return dst
}

func (c *call) memberSet(list value.ID, table string) *memberSet {
	stamp := c.view.Touched("listmember")
	s := c.s
	s.memberMu.Lock()
	defer s.memberMu.Unlock()
	for _, m := range s.memberSets {
		if m.list == list && m.table == table && m.stamp == stamp {
			return m
		}
	}
	m := &memberSet{list: list, table: table, stamp: stamp, ids: c.members(list)}
	slices.SortFunc(m.ids, value.ID.Compare)
	m.ids = slices.Compact(m.ids)
	s.memberSets = slices.DeleteFunc(s.memberSets, func(o *memberSet) bool { return o.list == list && o.table == table })
	if s.memberSets = append(s.memberSets, m); len(s.memberSets) > maxMemberSets {
		s.memberSets = slices.Delete(s.memberSets, 0, 1)
	}
	return m
}

var (
	memberLink      = regexp.MustCompile(`<link-entity\s[^>]*\bname\s*=\s*["']listmember["'][^>]*>`)
	memberCondition = regexp.MustCompile(`<condition\s+attribute\s*=\s*["']listid["']\s+operator\s*=\s*["']eq["']\s+value\s*=\s*["']([^"']+)["']`)
)

// narrowToList recognises the two ways of reading the members of one list with
// their columns: the navigation property of the list, whose scope it then takes
// over, and the FetchXML join with listmember.
func (c *call) narrowToList(t *schema.Table, q *query.Query, opt *query.Options) *memberSet {
	if s := opt.Scope; s != nil {
		if s.Navigation.Intersect != "listmember" || s.Navigation.Near != "listid" {
			return nil
		}
		opt.Scope = nil
		return c.memberSet(s.ID, t.Name)
	}
	if !q.Fetch || q.Aggregate || !strings.Contains(c.query, "listmember") {
		return nil
	}
	values, err := url.ParseQuery(c.query)
	if err != nil {
		return nil
	}
	text := values.Get("fetchXml")
	links, conditions := memberLink.FindAllString(text, -1), memberCondition.FindAllStringSubmatch(text, -1)
	if len(links) != 1 || len(conditions) != 1 || strings.Contains(text, `"or"`) || strings.Contains(text, `'or'`) {
		return nil
	}
	plain := strings.NewReplacer(`'`, `"`, " ", "").Replace(links[0])
	if !strings.Contains(plain, `from="entityid"`) || !strings.Contains(plain, `to="`+t.PrimaryID+`"`) ||
		strings.Contains(plain, "link-type=") && !strings.Contains(plain, `link-type="inner"`) {
		return nil
	}
	id, err := value.ParseID(conditions[0][1])
	if err != nil {
		return nil
	}
	return c.memberSet(id, t.Name)
}
