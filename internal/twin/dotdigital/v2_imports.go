package dotdigital

import (
	"bytes"
	"encoding/base64"
	"encoding/csv"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
)

// v2Rows is a v2 import that has been read: a header and rows of text, which
// the fault report repeats.
type v2Rows struct {
	header []string
	rows   []v2Row
}

type v2Row struct {
	in    *contactInput
	bad   string
	cells []string
}

type mergeNumber struct{ opt mergeOption }

var mergeNames = [...]string{"Overwrite", "OnlyOverwriteIfNotEmpty", "OnlyOverwriteIfContactDataNotPopulated"}

func parseMergeV2(v string) (mergeOption, bool) {
	for k, name := range mergeNames {
		if strings.EqualFold(v, name) || v == string(rune('0'+k)) {
			return mergeOption(k), true
		}
	}
	return 0, false
}

func (m *mergeNumber) UnmarshalJSON(b []byte) error {
	text := strings.Trim(string(b), `"`)
	if text == "null" {
		return nil
	}
	opt, ok := parseMergeV2(text)
	if !ok {
		return errors.New("unknown merge option")
	}
	m.opt = opt
	return nil
}

func (s *Server) serveImportCollection(c *call) error {
	var body struct {
		Contacts       []bulkContact `json:"contacts"`
		AddressBookIDs []int32       `json:"addressBookIds"`
		MergeOption    mergeNumber   `json:"mergeOption"`
	}
	if err := c.decode(&body, maxV2Import); err != nil {
		return err
	}
	if len(body.Contacts) == 0 {
		return v2Error("ERROR_CONTACTS_ARE_NOT_SPECIFIED", "No contact is given.")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	data := v2Rows{header: []string{"Email", "OptInType", "EmailType"}}
	var names []string
	for k := range body.Contacts {
		for _, v := range body.Contacts[k].DataFields {
			name := strings.ToUpper(v.Key)
			if column := s.importColumn(v.Key); column.kind == unknownColumn {
				return &apiError{status: http.StatusBadRequest, code: "ERROR_DATAFIELD_NOTFOUND", text: "Data field " + shortName([]byte(name)) + " does not exist."}
			}
			if !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	data.header = append(data.header, names...)
	for k := range body.Contacts {
		in := &body.Contacts[k]
		row := v2Row{cells: make([]string, len(data.header))}
		row.cells[0] = in.Email
		if in.OptInType != nil {
			row.cells[1] = *in.OptInType
		}
		if in.EmailType != nil {
			row.cells[2] = *in.EmailType
		}
		var special specialCells
		plain := *in.v2Contact()
		plain.DataFields = nil
		for _, v := range in.DataFields {
			name := strings.ToUpper(v.Key)
			text := string(v.Value)
			if len(v.Value) > 0 && v.Value[0] == '"' {
				text = string(unquote(v.Value))
			}
			row.cells[3+slices.Index(names, name)] = text
			if column := s.importColumn(v.Key); column.kind == fieldColumn {
				plain.DataFields = append(plain.DataFields, v)
			} else {
				special.add(column, text)
			}
		}
		for _, v := range in.ConsentFields {
			text := string(v.Value)
			if len(v.Value) > 0 && v.Value[0] == '"' {
				text = string(unquote(v.Value))
			}
			special.add(s.importColumn(v.Key), text)
		}
		row.check(s, &plain, &special)
		data.rows = append(data.rows, row)
	}
	return s.importV2(c, &data, body.AddressBookIDs, body.MergeOption.opt)
}

func (r *v2Row) check(s *Server, c *v2Contact, special *specialCells) {
	in, err := s.v2Input(c)
	if refused, ok := errors.AsType[*apiError](err); ok {
		r.bad = "Invalid Entries"
		switch {
		case refused.code == "ERROR_EMAIL_BANNED":
			r.bad = "Domain Suppressed"
		case strings.HasPrefix(refused.text, "Email"):
			r.bad = "Invalid Email"
		}
		return
	}
	if !special.into(in, s.now()) {
		r.bad = "Invalid Entries"
		return
	}
	r.in = in
}

// importFile serves the four file imports.
func importFile(intoList, withOption bool) func(*Server, *call) error {
	return func(s *Server, c *call) error {
		var lists []int32
		opt := overwrite
		if intoList {
			id, err := c.id(0)
			if err != nil {
				return err
			}
			lists = []int32{id}
		}
		if withOption {
			var ok bool
			if opt, ok = parseMergeV2(c.params[len(c.params)-1]); !ok {
				return badParameter("The merge option must be 0, 1 or 2 or its name.")
			}
		}
		name, data, err := c.readFile()
		if err != nil {
			return err
		}
		switch strings.ToLower(filepath.Ext(name)) {
		case ".csv":
		case ".xls", ".xlsx":
			return &apiError{status: http.StatusNotImplemented, bare: true, text: "Spreadsheet imports are not emulated by the Dotdigital twin."}
		default:
			return v2Error("ERROR_IMPORT_UNSUPPORTED_FORMAT", "The file must be .csv, .xls or .xlsx.")
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		rows, err := s.readCSV(data)
		if err != nil {
			return err
		}
		return s.importV2(c, rows, lists, opt)
	}
}

// readFile returns the uploaded file of a multipart or JSON request.
func (c *call) readFile() (name string, data []byte, err error) {
	mt, params, _ := mime.ParseMediaType(c.r.Header.Get("Content-Type"))
	if mt != "multipart/form-data" {
		var body struct {
			FileName string `json:"fileName"`
			Data     string `json:"data"`
		}
		if err := c.decode(&body, maxV2Import*4/3); err != nil {
			return "", nil, err
		}
		data, err := base64.StdEncoding.DecodeString(body.Data)
		if err != nil || body.FileName == "" || len(data) == 0 || len(data) > maxV2Import {
			return "", nil, badParameter("The file must have a name and at most 10 MB of base64 data.")
		}
		return body.FileName, data, nil
	}
	reader := multipart.NewReader(io.LimitReader(c.r.Body, maxV2Import+64<<10), params["boundary"])
	for {
		part, err := reader.NextPart()
		if err != nil {
			return "", nil, &apiError{status: http.StatusBadRequest, text: "file must be valid", bare: true}
		}
		if part.FormName() != "file" {
			continue
		}
		if part.FileName() == "" {
			return "", nil, &apiError{status: http.StatusBadRequest, text: "file must be valid", bare: true}
		}
		data, err := io.ReadAll(io.LimitReader(part, maxV2Import+1))
		if err != nil || len(data) > maxV2Import {
			return "", nil, badParameter("The file must have at most 10 MB.")
		}
		return part.FileName(), data, nil
	}
}

func (s *Server) readCSV(data []byte) (*v2Rows, error) {
	r := csv.NewReader(bytes.NewReader(bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))))
	r.FieldsPerRecord = -1
	r.ReuseRecord = false
	header, err := r.Read()
	if err != nil {
		return nil, v2Error("ERROR_IMPORT_UNSUPPORTED_FORMAT", "The file has no header row.")
	}
	out := &v2Rows{header: header}
	email := -1
	for k, h := range header {
		header[k] = strings.TrimSpace(h)
		if strings.EqualFold(header[k], "Email") {
			email = k
		}
	}
	columns := make([]importColumn, len(header))
	for k, h := range header {
		columns[k] = s.importColumn(h)
	}
	if email < 0 {
		return nil, v2Error("ERROR_NO_EMAIL_COLUMN", "The file has no column Email.")
	}
	for {
		cells, err := r.Read()
		if err == io.EOF {
			return out, nil
		}
		if err != nil {
			return nil, v2Error("ERROR_IMPORT_UNSUPPORTED_FORMAT", "The file is not well-formed CSV.")
		}
		row := v2Row{cells: make([]string, len(header))}
		copy(row.cells, cells)
		if len(cells) > len(header) {
			row.bad = "Invalid Entries"
			out.rows = append(out.rows, row)
			continue
		}
		var in v2Contact
		var special specialCells
		for k, v := range row.cells {
			switch name := strings.ToUpper(header[k]); name {
			case "EMAIL":
				in.Email = strings.TrimSpace(v)
			case "EMAILTYPE":
				in.EmailType = &row.cells[k]
			case "OPTINTYPE":
				in.OptInType = &row.cells[k]
			default:
				// Columns that name nothing are ignored.
				if columns[k].kind == fieldColumn {
					in.DataFields = append(in.DataFields, v2Value{name, appendQuoted(nil, v)})
				} else {
					special.add(columns[k], v)
				}
			}
		}
		row.check(s, &in, &special)
		out.rows = append(out.rows, row)
	}
}

// importV2 applies checked rows and answers the job. The caller holds the lock.
func (s *Server) importV2(c *call, data *v2Rows, lists []int32, opt mergeOption) error {
	for _, id := range lists {
		if _, err := s.writable(id); err != nil {
			return err
		}
	}
	now := s.now()
	p, err := s.beginImport(c.route.operation, len(data.rows), false, now)
	if err != nil {
		return err
	}
	job := p.job
	var faults bytes.Buffer
	out := csv.NewWriter(&faults)
	_ = out.Write(append([]string{"Reason"}, data.header...))
	if p.apply {
		w := c.writer("import")
		w.now = now
		var scratch []byte
		for k := range data.rows {
			row := &data.rows[k]
			if reason := w.importV2Row(&p, row, k, lists, opt, &scratch); reason != "" {
				_ = out.Write(append([]string{reason}, row.cells...))
			}
		}
	}
	out.Flush()
	job.faults = faults.Bytes()
	s.imports.keep(job, now)
	c.reply(http.StatusAccepted, jobBody{job.id, "NotFinished"})
	return nil
}

// importV2Row applies one row and returns the reason why it was not.
func (w *writer) importV2Row(p *importPlan, row *v2Row, k int, lists []int32, opt mergeOption, scratch *[]byte) string {
	s, job := w.s, p.job
	if row.bad != "" {
		if row.bad == "Domain Suppressed" {
			job.byStatus[domainSuppression]++
		} else {
			job.invalidEntries++
		}
		return row.bad
	}
	i, found := s.findEmail(row.in.email)
	switch {
	case found && s.at(i).importSeq == s.imports.seq:
		job.duplicates++
		return "Duplicate"
	case p.poison.hits(row.in, i, found, k), p.fails(k):
		job.invalidEntries++
		return "Invalid Entries"
	case found && s.at(i).status.blocked():
		job.byStatus[s.at(i).status]++
		return blockedReasons[s.at(i).status]
	}
	res := w.put(i, found, row.in, opt, scratch)
	s.at(res.index).importSeq = s.imports.seq
	if res.created {
		job.newContacts++
	} else {
		job.updatedContacts++
	}
	if s.at(res.index).status == pendingOptIn {
		job.byStatus[pendingOptIn]++
	}
	for _, id := range lists {
		if !w.join(res.index, s.lists[id]) {
			return "Unsubscribed"
		}
	}
	return ""
}

var blockedReasons = [len(statusNames)]string{
	unsubscribed: "Unsubscribed", suppressed: "Suppressed by you", softBounced: "Soft bounced", hardBounced: "Hard bounced",
	ispComplained: "Isp Complaints", mailBlocked: "Mail blocked", directComplaint: "Globally Suppressed",
	sharedSuppression: "Globally Suppressed", domainSuppression: "Domain Suppressed",
}

func (s *Server) v2Job(c *call) (*importJob, bool, error) {
	s.mu.RLock()
	j := s.imports.byID[c.params[0]]
	s.mu.RUnlock()
	if j == nil || j.v3 || j.hidden == "lost" {
		return nil, false, v2Error("ERROR_IMPORT_NOT_FOUND", "")
	}
	return j, j.finish <= s.now(), nil
}

func (s *Server) serveImportStatusV2(c *call) error {
	j, done, err := s.v2Job(c)
	if err != nil {
		return err
	}
	status := "NotFinished"
	if done {
		status = j.status
	}
	c.reply(http.StatusOK, jobBody{j.id, status})
	return nil
}

func (s *Server) reportOf(c *call) (*importJob, error) {
	j, done, err := s.v2Job(c)
	if err != nil {
		return nil, err
	}
	if !done || j.status != "Finished" || j.hidden == "no-report" {
		return nil, v2Error("ERROR_IMPORT_REPORT_NOT_FOUND", "Import is not processed yet or completed with error.")
	}
	return j, nil
}

func (s *Server) serveImportReport(c *call) error {
	j, err := s.reportOf(c)
	if err != nil {
		return err
	}
	n := &j.byStatus
	c.reply(http.StatusOK, map[string]int{
		"newContacts": j.newContacts, "updatedContacts": j.updatedContacts, "globallySuppressed": n[sharedSuppression] + n[directComplaint],
		"invalidEntries": j.invalidEntries, "duplicateEmails": j.duplicates, "blocked": 0, "unsubscribed": n[unsubscribed],
		"hardBounced": n[hardBounced], "softBounced": n[softBounced], "ispComplaints": n[ispComplained], "mailBlocked": n[mailBlocked],
		"domainSuppressed": n[domainSuppression], "pendingDoubleOptin": n[pendingOptIn], "failures": 0, "suppressedContacts": n[suppressed],
	})
	return nil
}

func (s *Server) serveImportFaults(c *call) error {
	j, err := s.reportOf(c)
	if err != nil {
		return err
	}
	c.w.Header().Set("Content-Type", "text/csv; charset=utf-8")
	c.write(http.StatusOK, j.faults)
	return nil
}
