package dotdigital

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// route is one emulated operation.
type route struct {
	method  string
	pattern string
	// operation is the name in counters and fault rules.
	operation string
	tier      tier
	// uncounted calls do not count under the flat scheme.
	uncounted bool
	serve     func(*Server, *call) error

	segments []string
}

// router finds the route of a request: literal segments win over parameters,
// trailing slashes and case do not matter, as the service has it. It is used
// instead of http.ServeMux because the API's paths overlap.
type router struct{ bySize map[int][]*route }

func newRouter(table []route) *router {
	rt := &router{bySize: map[int][]*route{}}
	for k := range table {
		r := &table[k]
		r.segments = strings.Split(strings.Trim(r.pattern, "/"), "/")
		rt.bySize[len(r.segments)] = append(rt.bySize[len(r.segments)], r)
	}
	return rt
}

var notEmulated = &route{operation: "not-emulated", tier: high}

func (rt *router) match(r *http.Request) (*route, []string, bool) {
	segments := strings.Split(strings.Trim(r.URL.EscapedPath(), "/"), "/")
	best, bestScore := notEmulated, -1
	for _, cand := range rt.bySize[len(segments)] {
		if cand.method != r.Method {
			continue
		}
		score := 0
		for k, want := range cand.segments {
			score <<= 1
			if want[0] == '{' {
				continue
			}
			if !strings.EqualFold(want, segments[k]) {
				score = -1
				break
			}
			score |= 1
		}
		if score > bestScore {
			best, bestScore = cand, score
		}
	}
	if bestScore < 0 {
		return best, nil, false
	}
	var params []string
	for k, want := range best.segments {
		if want[0] == '{' {
			v, err := url.PathUnescape(segments[k])
			if err != nil {
				return notEmulated, nil, false
			}
			params = append(params, v)
		}
	}
	return best, params, true
}

// verb returns a short way to write the routes of one HTTP method.
func verb(method string) func(string, string, tier, func(*Server, *call) error) route {
	return func(pattern, operation string, t tier, serve func(*Server, *call) error) route {
		return route{method: method, pattern: pattern, operation: operation, tier: t, serve: serve}
	}
}

var (
	get   = verb(http.MethodGet)
	post  = verb(http.MethodPost)
	put   = verb(http.MethodPut)
	patch = verb(http.MethodPatch)
	del   = verb(http.MethodDelete)
)

// routeTable lists every emulated operation.
func routeTable() []route {
	everyList := func(*list) bool { return true }
	table := []route{
		get("/v2/account-info", "account-info", high, (*Server).serveAccount),
		get("/v2/server-time", "server-time", high, (*Server).serveTime),
		post("/v2/accounts/empty-recycle-bin", "account.empty-recycle-bin", low, (*Server).serveEmptyBin),

		get("/v2/data-fields", "data-fields.list", medium, (*Server).serveFields),
		post("/v2/data-fields", "data-fields.create", medium, (*Server).serveFieldCreate),
		del("/v2/data-fields/{name}", "data-fields.delete", medium, (*Server).serveFieldDelete),

		get("/v2/address-books", "address-books.list", low, serveLists(everyList)),
		get("/v2/address-books/private", "address-books.list", low, serveLists(func(l *list) bool { return !l.public })),
		get("/v2/address-books/public", "address-books.list", low, serveLists(func(l *list) bool { return l.public })),
		post("/v2/address-books", "address-books.create", medium, (*Server).serveListCreate),
		get("/v2/address-books/{id}", "address-books.get", high, (*Server).serveList),
		put("/v2/address-books/{id}", "address-books.update", medium, (*Server).serveListUpdate),
		del("/v2/address-books/{id}", "address-books.delete", medium, (*Server).serveListDelete),
		get("/v2/address-books/{id}/contacts", "address-books.members", low, (*Server).serveMembers),
		get("/v2/address-books/{id}/contacts/modified-since/{date}", "address-books.members-modified", low, (*Server).serveMembersModified),
		get("/v2/address-books/{id}/contacts/unsubscribed-since/{date}", "address-books.unsubscribed-since", low, (*Server).serveListUnsubscribedSince),
		post("/v2/address-books/{id}/contacts", "address-books.add-member", medium, (*Server).serveMemberAdd),
		del("/v2/address-books/{id}/contacts", "address-books.clear", low, (*Server).serveMembersClear),
		del("/v2/address-books/{id}/contacts/{contactId}", "address-books.remove-member", medium, (*Server).serveMemberRemove),
		post("/v2/address-books/{id}/contacts/delete", "address-books.remove-members", low, (*Server).serveMembersRemove),
		post("/v2/address-books/{id}/contacts/delete-all", "address-books.remove-all", low, (*Server).serveMembersRemoveAll),
		post("/v2/address-books/{id}/contacts/unsubscribe", "address-books.unsubscribe", medium, (*Server).serveListUnsubscribe),
		post("/v2/address-books/{id}/contacts/resubscribe", "address-books.resubscribe", medium, resubscribe(true, true)),
		post("/v2/address-books/{id}/contacts/resubscribe-with-no-challenge", "address-books.resubscribe", medium, resubscribe(true, false)),
		post("/v2/address-books/{id}/contacts/import", "contacts.import-file", low, importFile(true, false)),
		post("/v2/address-books/{id}/contacts/import/with-merge-option/{option}", "contacts.import-file", low, importFile(true, true)),
		get("/v2/contacts/deletion/{id}", "address-books.removal-status", free, (*Server).serveRemovalStatus),
		get("/v2/contacts/{contactId}/address-books", "contacts.address-books", high, (*Server).serveContactLists),

		get("/v2/contacts", "contacts.list-v2", low, (*Server).serveV2Contacts),
		post("/v2/contacts", "contacts.create-v2", medium, (*Server).serveV2ContactCreate),
		get("/v2/contacts/count", "contacts.count", high, (*Server).serveContactCount),
		get("/v2/contacts/created-since/{date}", "contacts.created-since", low, (*Server).serveCreatedSince),
		get("/v2/contacts/modified-since/{date}", "contacts.modified-since", low, (*Server).serveModifiedSince),
		get("/v2/contacts/suppressed-since/{date}", "contacts.suppressed-since", low, (*Server).serveSuppressedSince),
		get("/v2/contacts/unsubscribed-since/{date}", "contacts.unsubscribed-since", low, (*Server).serveUnsubscribedSince),
		get("/v2/contacts/{idOrEmail}", "contacts.get-v2", high, (*Server).serveV2Contact),
		put("/v2/contacts/{id}", "contacts.update-v2", medium, (*Server).serveV2ContactUpdate),
		del("/v2/contacts/{id}", "contacts.delete-v2", medium, (*Server).serveV2ContactDelete),
		post("/v2/contacts/unsubscribe", "contacts.unsubscribe", medium, (*Server).serveUnsubscribe),
		put("/v2/contacts/suppress-contacts", "contacts.suppress", low, (*Server).serveSuppress),
		post("/v2/contacts/resubscribe", "contacts.resubscribe", medium, resubscribe(false, true)),
		post("/v2/contacts/resubscribe-with-no-challenge", "contacts.resubscribe", medium, resubscribe(false, false)),
		post("/v2/contacts/import", "contacts.import-file", low, importFile(false, false)),
		post("/v2/contacts/import/with-merge-option/{option}", "contacts.import-file", low, importFile(false, true)),
		post("/v2/contacts/import-collection", "contacts.import-collection", low, (*Server).serveImportCollection),
		get("/v2/contacts/import/{id}", "contacts.import-status-v2", free, (*Server).serveImportStatusV2),
		get("/v2/contacts/import/{id}/report", "contacts.import-report", free, (*Server).serveImportReport),
		get("/v2/contacts/import/{id}/report-faults", "contacts.import-faults", free, (*Server).serveImportFaults),

		get("/v2/segments", "segments.list", low, (*Server).serveSegments),
		post("/v2/segments/refresh/{id}", "segments.refresh", medium, (*Server).serveSegmentRefresh),
		get("/v2/segments/refresh/{id}", "segments.refresh-status", free, (*Server).serveSegmentStatus),

		get("/contacts/v3", "contacts.list", low, (*Server).serveContacts),
		post("/contacts/v3", "contacts.create", medium, (*Server).serveContactCreate),
		put("/contacts/v3/import", "contacts.import", low, (*Server).serveImport),
		get("/contacts/v3/import/{importId}", "contacts.import-status", free, (*Server).serveImportStatus),
		post("/contacts/v3/delete", "contacts.bulk-delete", low, (*Server).serveBulkDelete),
		get("/contacts/v3/delete/{deleteId}", "contacts.bulk-delete-status", free, (*Server).serveDeleteStatus),
		get("/contacts/v3/{identifier}/{value}", "contacts.get", high, (*Server).serveContact),
		patch("/contacts/v3/{identifier}/{value}", "contacts.update", medium, (*Server).serveContactPatch),
		put("/contacts/v3/{identifier}/{value}", "contacts.replace", medium, (*Server).serveContactReplace),
		del("/contacts/v3/{identifier}/{value}", "contacts.delete", medium, (*Server).serveContactDelete),

		get("/configuration/v3/customIdentifiers", "custom-identifiers.list", high, (*Server).serveCustomIDs),
		post("/configuration/v3/customIdentifiers", "custom-identifiers.create", medium, (*Server).serveCustomIDCreate),
		del("/configuration/v3/customIdentifiers/{name}", "custom-identifiers.delete", medium, (*Server).serveCustomIDDelete),
	}
	return slices.Concat(table, preferenceRoutes(), campaignRoutes())
}
