package dataverse

import (
	"net/http"
	"path"
	"strconv"
	"strings"
)

// prefer is the parsed Prefer header.
type prefer struct {
	representation  bool
	track           bool
	continueOnError bool
	pageSize        int // 0: none wanted
	annotations     []string
	annotationText  string
}

// SetMaxPage bounds the pages that a client pages through with the preference
// odata.maxpagesize, below what it asks for: the preference is an upper bound, and
// the service may send less. 0 ends it. FetchXML's count is exact and not bounded.
func (s *Server) SetMaxPage(rows int) { s.maxPage.Store(int64(rows)) }

func (s *Server) parsePrefer(h http.Header) (prefer, *apiError) {
	p, err := parsePrefer(h)
	if m := int(s.maxPage.Load()); m > 0 && err == nil && (p.pageSize == 0 || p.pageSize > m) {
		p.pageSize = m
	}
	return p, err
}

func parsePrefer(h http.Header) (prefer, *apiError) {
	var p prefer
	for _, item := range splitQuoted(strings.Join(h.Values("Prefer"), ",")) {
		name, val, _ := strings.Cut(item, "=")
		val = strings.Trim(strings.TrimSpace(val), `"`)
		switch strings.ToLower(strings.TrimSpace(name)) {
		case "return":
			p.representation = val == "representation"
		case "odata.track-changes":
			p.track = true
		case "odata.continue-on-error", "continue-on-error":
			p.continueOnError = val == "" || val == "true"
		case "odata.maxpagesize", "maxpagesize":
			n, err := strconv.Atoi(val)
			if err != nil || n < 1 {
				return p, badRequest("The value '%.20s' of the preference odata.maxpagesize is not a positive number.", val)
			}
			p.pageSize = min(n, 5000)
		case "odata.include-annotations":
			p.annotationText = val
			for a := range strings.SplitSeq(val, ",") {
				p.annotations = append(p.annotations, strings.TrimSpace(a))
			}
		}
	}
	return p, nil
}

// splitQuoted cuts at commas outside of double quotes.
func splitQuoted(s string) []string {
	var out []string
	quoted, start := false, 0
	for i := 0; i <= len(s); i++ {
		if i < len(s) && s[i] == '"' {
			quoted = !quoted
		}
		if i == len(s) || s[i] == ',' && !quoted {
			if item := strings.TrimSpace(s[start:i]); item != "" {
				out = append(out, item)
			}
			start = i + 1
		}
	}
	return out
}

const (
	annFormatted  = "OData.Community.Display.V1.FormattedValue"
	annNav        = crm + "associatednavigationproperty"
	annLookup     = crm + "lookuplogicalname"
	annTotal      = crm + "totalrecordcount"
	annTotalLimit = crm + "totalrecordcountlimitexceeded"
	annMetadata   = crm + "globalmetadataversion"
	annCookie     = crm + "fetchxmlpagingcookie"
	annMore       = crm + "morerecords"
)

// wants reports whether an annotation was asked for; patterns may have * anywhere.
func (p *prefer) wants(annotation string) bool {
	for _, pattern := range p.annotations {
		if ok, err := path.Match(pattern, annotation); err == nil && ok || pattern == annotation {
			return true
		}
	}
	return false
}

// applied is the value of Preference-Applied; empty when nothing was asked.
func (p *prefer) applied(representation, page, track bool) string {
	var out []string
	if representation && p.representation {
		out = append(out, "return=representation")
	}
	if track && p.track {
		out = append(out, "odata.track-changes")
	}
	if page && p.pageSize > 0 {
		out = append(out, "odata.maxpagesize="+strconv.Itoa(p.pageSize))
	}
	if p.annotationText != "" {
		out = append(out, `odata.include-annotations="`+p.annotationText+`"`)
	}
	return strings.Join(out, ", ")
}
