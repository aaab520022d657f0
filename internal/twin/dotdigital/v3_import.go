package dotdigital

import (
	"encoding/json"
	"errors"
	"math"
	"net/http"
	"slices"
	"strconv"
	"time"
)

// importJob is one bulk import of either API version. The rows are applied when
// the request is taken; their results show once the job has finished on the
// twins' clock.
type importJob struct {
	id       string
	v3       bool
	accepted int64
	finish   int64
	// status is the final status.
	status string
	// hidden is a fault: "no-report" finishes without results, "lost" is not
	// found any more.
	hidden string
	newContacts, updatedContacts, globallySuppressed,
	invalidEntries, duplicates int
	// created, updated and failures are the finished JSON arrays without their
	// brackets; faults is the v2 CSV.
	created, updated, failures, faults []byte
	byStatus                           [len(statusNames)]int
}

func (j *importJob) size() int {
	return len(j.created) + len(j.updated) + len(j.failures) + len(j.faults)
}

// importJobs keeps the jobs in order of acceptance. The results of the oldest
// finished ones are dropped once retainedResults bytes are held: the service
// keeps them for about a week.
type importJobs struct {
	byID  map[string]*importJob
	order []*importJob
	bytes int
	seq   uint32
	// taking are the imports whose rows are being applied right now.
	taking int
}

const retainedResults = 128 << 20

func (js *importJobs) active(now int64) int {
	n := js.taking
	for _, j := range js.order {
		if j.finish > now {
			n++
		}
	}
	return n
}

func (js *importJobs) keep(j *importJob, now int64) {
	js.taking--
	js.byID[j.id] = j
	js.order = append(js.order, j)
	js.bytes += j.size()
	week := now - (7 * 24 * time.Hour).Milliseconds()
	for len(js.order) > 1 && (js.bytes > retainedResults || js.order[0].accepted < week) && js.order[0].finish <= now {
		js.bytes -= js.order[0].size()
		delete(js.byID, js.order[0].id)
		js.order = js.order[1:]
	}
}

// bulkPartial are the args of the fault bulk-partial.
type bulkPartial struct {
	// Mode is "failures" (default), "stuck", "no-report", "lost" or "watchdog".
	Mode string `json:"mode"`
	// Share of the rows that fail in mode failures; 0.1 when zero.
	Share float64 `json:"share"`
}

// rowPoison are the args of the fault row-poison. Without any, the first row
// of an import or the contact of a single write is hit.
type rowPoison struct {
	Email     string   `json:"email"`
	Emails    []string `json:"emails"`
	ContactID int64    `json:"contactId"`
	Code      string   `json:"code"`
}

func (p *rowPoison) hits(in *contactInput, i uint32, found bool, row int) bool {
	switch {
	case p == nil:
		return false
	case p.Email != "":
		return equalFold(in.email, p.Email)
	case p.Emails != nil:
		return slices.ContainsFunc(p.Emails, func(e string) bool { return equalFold(in.email, e) })
	case p.ContactID != 0:
		return in.contactID == p.ContactID || found && contactID(i) == p.ContactID
	}
	return row == 0
}

func equalFold(b []byte, s string) bool {
	return len(b) == len(s) && string(lowerInto(nil, b)) == string(lowerInto(nil, []byte(s)))
}

func (s *Server) takePoison(operation string) *rowPoison {
	hit, ok := s.faults.Take(twinName, "row-poison", operation)
	if !ok {
		return nil
	}
	p := &rowPoison{}
	if len(hit.Args) > 0 {
		_ = json.Unmarshal(hit.Args, p)
	}
	if p.Code == "" {
		p.Code = "InvalidContact"
	}
	return p
}

// plan decides before the rows are applied what becomes of an import.
type importPlan struct {
	job    *importJob
	share  float64
	apply  bool
	poison *rowPoison
}

// beginImport admits one more import or refuses it; it draws the faults that
// are planned for it. The caller holds the lock.
func (s *Server) beginImport(operation string, rows int, v3 bool, now int64) (importPlan, error) {
	_, forced := s.faults.Take(twinName, "too-many-imports", operation)
	if forced || s.imports.active(now) >= s.opt.MaxActiveImports {
		if v3 {
			return importPlan{}, v3Error(http.StatusTooManyRequests, "tooManyActiveImports",
				"Your import request cannot be accepted as too many imports are being processed for your account. Please wait for an import to complete and then resubmit.")
		}
		return importPlan{}, v2Error("ERROR_IMPORT_TOOMANYACTIVEIMPORTS", "Too many imports are being processed for the account.")
	}
	took := s.opt.ImportTime + time.Duration(rows)*s.opt.ImportRowTime
	p := importPlan{apply: true, poison: s.takePoison(operation), job: &importJob{
		id: s.newID(), v3: v3, accepted: now, finish: now + took.Milliseconds(), status: "Finished",
	}}
	s.imports.seq++
	s.imports.taking++
	if hit, ok := s.faults.Take(twinName, "bulk-partial", operation); ok {
		var args bulkPartial
		if len(hit.Args) > 0 {
			_ = json.Unmarshal(hit.Args, &args)
		}
		switch args.Mode {
		case "stuck":
			p.job.finish = never
		case "watchdog":
			p.job.status, p.apply = "RejectedByWatchdog", false
		case "lost":
			p.job.hidden, p.apply = "lost", false
		case "no-report":
			p.job.hidden = "no-report"
		default:
			if p.share = args.Share; p.share <= 0 {
				p.share = 0.1
			}
		}
	}
	if s.opt.ContactAllowance > 0 && s.alive.n+rows > s.opt.ContactAllowance {
		p.job.status, p.apply = "ExceedsAllowedContactLimit", false
	}
	return p, nil
}

// fails spreads the planned failures evenly over the rows.
func (p *importPlan) fails(row int) bool {
	return p.share > 0 && math.Floor(float64(row+1)*p.share) > math.Floor(float64(row)*p.share)
}

// rowsPerLock bounds how long an import keeps readers waiting.
const rowsPerLock = 500

func (s *Server) serveImport(c *call) error {
	if err := c.wantJSON(); err != nil {
		return err
	}
	pb, err := readAll(c.r, maxV3Import)
	if errors.Is(err, errTooLarge) {
		return v3Error(http.StatusRequestEntityTooLarge, "badRequest", "An import has at most 50 MB.")
	}
	if err != nil {
		return v3Error(http.StatusBadRequest, "badJson", "The request broke off.")
	}
	defer putBuffer(pb)
	body := *pb
	if !valid(body) {
		return v3Error(http.StatusBadRequest, "badJson", "The request JSON is badly formed")
	}
	rows, opt, err := splitImport(body)
	if err != nil {
		return err
	}
	s.mu.Lock()
	now := s.now()
	p, err := s.beginImport(c.route.operation, len(rows), true, now)
	if err != nil {
		s.mu.Unlock()
		return err
	}
	seq := s.imports.seq
	w := c.writer("import")
	w.now = now
	job := p.job
	if p.apply {
		var in contactInput
		var scratch []byte
		job.created = make([]byte, 0, len(rows)*64)
		for k, raw := range rows {
			if k > 0 && k%rowsPerLock == 0 {
				s.mu.Unlock()
				s.mu.Lock()
			}
			w.importRow(&p, &in, raw, k, seq, opt, &scratch)
		}
	}
	s.imports.keep(job, now)
	s.mu.Unlock()
	c.reply(http.StatusAccepted, struct {
		ImportID string `json:"importId"`
	}{job.id})
	return nil
}

// splitImport returns the raw contacts of a checked import body.
func splitImport(body []byte) ([][]byte, mergeOption, error) {
	bad := func(text string) ([][]byte, mergeOption, error) {
		return nil, 0, v3Error(http.StatusBadRequest, "badRequest", text)
	}
	sc := scanner{b: body}
	if sc.peek() != '{' {
		return bad("The request must be an object with contacts.")
	}
	opt := overwrite
	var rows [][]byte
	for name, ok := sc.member(true); ok; name, ok = sc.member(false) {
		switch string(name) {
		case "mergeOption":
			v := sc.value()
			known := v[0] == '"'
			if known {
				opt, known = parseMergeOption(string(unquote(v)), false)
			}
			if !known {
				return bad("mergeOption must be overwrite, overwriteIfNotEmpty or overwriteIfEmpty.")
			}
		case "contacts":
			if sc.peek() != '[' {
				return bad("contacts must be an array.")
			}
			rows = make([][]byte, 0, len(body)/300+1)
			for ok := sc.element(true); ok; ok = sc.element(false) {
				rows = append(rows, sc.value())
			}
		default:
			sc.value()
		}
	}
	if len(rows) == 0 {
		return nil, 0, v3Error(http.StatusBadRequest, "noContactsSpecified", "You must specify 1 or more contacts to be imported!")
	}
	return rows, opt, nil
}

// importRow applies one row and notes its result in the job.
func (w *writer) importRow(p *importPlan, in *contactInput, raw []byte, row int, seq uint32, opt mergeOption, scratch *[]byte) {
	s, job := w.s, p.job
	bad := in.parse(&s.fields, raw)
	var i uint32
	var found bool
	if bad == nil {
		switch {
		case len(in.match) == 0:
			bad = &failure{"InvalidMatchIdentifier", "matchIdentifier is missing."}
		case in.identifiers == nil:
			bad = &failure{"NoValidIdentifiers", "identifiers is missing."}
		default:
			i, found, bad = s.locate(string(in.match), in)
			if bad == nil && !found && string(in.match) == "contactId" {
				bad = &failure{"InvalidContactId", "No contact has this contactId."}
			}
		}
	}
	if bad == nil {
		bad = s.checkIdentifiers(i, found, in)
	}
	if bad == nil && found && s.at(i).importSeq == seq {
		bad = &failure{"Duplicate", "The import holds this contact more than once."}
	}
	if bad == nil && p.poison.hits(in, i, found, row) {
		bad = &failure{p.poison.Code, "The contact could not be written."}
	}
	if bad == nil && p.fails(row) {
		bad = &failure{"InvalidContact", "The contact could not be written."}
	}
	if bad != nil {
		if bad.code == "Duplicate" {
			job.duplicates++
		} else {
			job.invalidEntries++
		}
		job.fail(0, in, []failure{*bad})
		return
	}
	out := w.put(i, found, in, opt, scratch)
	s.at(out.index).importSeq = seq
	if out.created {
		job.newContacts++
		job.created = appendReference(job.created, out.index, in)
	} else {
		job.updatedContacts++
		job.updated = appendReference(job.updated, out.index, in)
	}
	if len(out.partial) > 0 {
		if out.partial[0].code == "GloballySuppressed" {
			job.globallySuppressed++
		}
		job.fail(contactID(out.index), in, out.partial)
	}
}

// appendReference notes a written row with the identifiers as they were sent,
// so that the client finds its row again.
func appendReference(b []byte, i uint32, in *contactInput) []byte {
	if len(b) > 0 {
		b = append(b, ',')
	}
	b = append(b, `{"contactId":`...)
	b = strconv.AppendInt(b, contactID(i), 10)
	b = append(b, `,"identifiers":`...)
	b = append(b, in.identifiers...)
	return append(b, '}')
}

func (j *importJob) fail(id int64, in *contactInput, why []failure) {
	b := j.failures
	if len(b) > 0 {
		b = append(b, ',')
	}
	b = append(b, '{')
	if id != 0 {
		b = append(b, `"contactId":`...)
		b = strconv.AppendInt(b, id, 10)
		b = append(b, ',')
	}
	if validIdentifierName(in.match) {
		b = append(b, `"matchIdentifier":`...)
		b = appendQuoted(b, in.match)
		b = append(b, ',')
	}
	b = append(b, `"identifiers":`...)
	b = appendSentIdentifiers(b, in)
	b = append(b, `,"failures":[`...)
	for k, f := range why {
		if k > 0 {
			b = append(b, ',')
		}
		b = append(b, `{"failureCode":`...)
		b = appendQuoted(b, f.code)
		b = append(b, `,"description":`...)
		b = appendQuoted(b, f.text)
		b = append(b, '}')
	}
	b = append(b, ']', '}')
	j.failures = b
}

// appendSentIdentifiers echoes the identifiers of a refused row as far as they
// have the documented types: the answer keeps its shape whatever was sent.
func appendSentIdentifiers(b []byte, in *contactInput) []byte {
	b = append(b, '{')
	if len(in.identifiers) > 0 && in.identifiers[0] == '{' {
		start := len(b)
		sc := scanner{b: in.identifiers}
		for name, ok := sc.member(true); ok; name, ok = sc.member(false) {
			v := sc.value()
			if string(name) == "contactId" {
				if n, err := strconv.ParseInt(string(v), 10, 64); err != nil || n < 0 {
					continue
				}
			} else if v[0] != '"' && v[0] != 'n' {
				continue
			}
			if len(b) > start {
				b = append(b, ',')
			}
			b = appendQuoted(b, name)
			b = append(b, ':')
			b = append(b, v...)
		}
	}
	return append(b, '}')
}

func (s *Server) serveImportStatus(c *call) error {
	s.mu.RLock()
	j := s.imports.byID[c.params[0]]
	s.mu.RUnlock()
	// A job does not change once it is kept.
	if j == nil || !j.v3 || j.hidden == "lost" {
		return v3Error(http.StatusNotFound, "importNotFound", "The import request could not be found!")
	}
	b := append([]byte(nil), `{"importId":`...)
	b = appendQuoted(b, j.id)
	status, done := j.status, j.finish <= s.now()
	if !done {
		status = "NotFinished"
	}
	b = append(b, `,"status":`...)
	b = appendQuoted(b, status)
	if !done || j.hidden == "no-report" || status != "Finished" {
		b = append(b, `,"summary":null,"created":null,"updated":null,"failures":null}`...)
		c.write(http.StatusOK, b)
		return nil
	}
	for _, n := range []struct {
		name  string
		value int
	}{
		{`,"summary":{"newContacts":`, j.newContacts},
		{`,"updatedContacts":`, j.updatedContacts},
		{`,"globallySuppressed":`, j.globallySuppressed},
		{`,"invalidEntries":`, j.invalidEntries},
		{`,"duplicateIdentifiers":`, j.duplicates},
	} {
		b = append(b, n.name...)
		b = strconv.AppendInt(b, int64(n.value), 10)
	}
	b = append(b, `},"created":[`...)
	b = append(b, j.created...)
	b = append(b, `],"updated":[`...)
	b = append(b, j.updated...)
	b = append(b, `],"failures":[`...)
	b = append(b, j.failures...)
	b = append(b, `]}`...)
	c.write(http.StatusOK, b)
	return nil
}
