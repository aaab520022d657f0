package dotdigital

import (
	"bytes"
	"net/http"
	"strconv"
)

// deleteJob is a v3 bulk delete; it is applied when taken and shows its result
// once finished on the twins' clock.
type deleteJob struct {
	id                                   string
	finish                               int64
	requested, deleted, unknown, invalid int
	deletedJSON, failuresJSON            []byte
}

const maxBulkDelete = 5000

func (s *Server) serveBulkDelete(c *call) error {
	pb, err := c.readSingle()
	if err != nil {
		return err
	}
	defer putBuffer(pb)
	body := bytes.TrimSpace(*pb)
	if body[0] != '[' {
		return v3Error(http.StatusBadRequest, "badRequest", "The request must be an array of identifiers.")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	active := 0
	for _, j := range s.deletes {
		if j.finish > now {
			active++
		}
	}
	if active >= s.opt.MaxActiveDeletes {
		return v3Error(http.StatusTooManyRequests, "tooManyBulkDeleteJobs",
			"Your bulk delete request cannot be accepted as too many bulk delete jobs are being processed for your account. Please wait for a bulk delete job to complete and then resubmit.")
	}
	var rows [][]byte
	sc := scanner{b: body}
	for ok := sc.element(true); ok; ok = sc.element(false) {
		rows = append(rows, sc.value())
	}
	if len(rows) == 0 {
		return v3Error(http.StatusBadRequest, "noContactsSpecified", "You must specify 1 or more contacts to be deleted!")
	}
	if len(rows) > maxBulkDelete {
		return v3Error(http.StatusBadRequest, "invalidContacts", "At most 5000 contacts are deleted in one call.")
	}
	for _, raw := range rows {
		if _, ok := oneMember(raw); !ok {
			return v3Error(http.StatusBadRequest, "invalidContacts", "Each contact is named by an object with exactly one identifier.")
		}
	}
	job := &deleteJob{id: s.newID(), finish: now + s.opt.JobTime.Milliseconds(), requested: len(rows)}
	w := c.writer("api")
	w.now = now
	for _, raw := range rows {
		w.deleteRow(job, raw)
	}
	s.deletes[job.id] = job
	c.reply(http.StatusAccepted, struct {
		DeleteID string `json:"deleteId"`
	}{job.id})
	return nil
}

// oneMember returns the name of the only member of an object whose value is
// text, or a number for contactId.
func oneMember(raw []byte) (string, bool) {
	if raw[0] != '{' {
		return "", false
	}
	sc := scanner{b: raw}
	name, ok := sc.member(true)
	if !ok {
		return "", false
	}
	v := sc.value()
	if string(name) == "contactId" {
		if n, err := strconv.ParseInt(string(v), 10, 64); err != nil || n < 0 {
			return "", false
		}
	} else if v[0] != '"' {
		return "", false
	}
	_, more := sc.member(false)
	return string(name), !more
}

func (w *writer) deleteRow(job *deleteJob, raw []byte) {
	s := w.s
	name, _ := oneMember(raw)
	var in contactInput
	in.reset()
	bad := in.parseIdentifiers(raw)
	var i uint32
	var found bool
	if bad == nil {
		i, found, bad = s.locate(name, &in)
	}
	switch {
	case bad != nil:
		job.invalid++
	case !found || s.at(i).life != live:
		job.unknown++
		bad = &failure{"contactNotFound", "The contact could not be found"}
	default:
		w.bin(i)
		job.deleted++
		if len(job.deletedJSON) > 0 {
			job.deletedJSON = append(job.deletedJSON, ',')
		}
		job.deletedJSON = append(job.deletedJSON, raw...)
		return
	}
	b := job.failuresJSON
	if len(b) > 0 {
		b = append(b, ',')
	}
	b = append(b, `{"identifier":`...)
	b = append(b, raw...)
	b = append(b, `,"failures":[{"failureCode":`...)
	b = appendQuoted(b, bad.code)
	b = append(b, `,"description":`...)
	b = appendQuoted(b, bad.text)
	b = append(b, `}]}`...)
	job.failuresJSON = b
}

func (s *Server) serveDeleteStatus(c *call) error {
	s.mu.RLock()
	j := s.deletes[c.params[0]]
	s.mu.RUnlock()
	if j == nil {
		return v3Error(http.StatusNotFound, "importNotFound", "The delete request could not be found!")
	}
	type summary struct {
		Requested int `json:"requestedContacts"`
		Deleted   int `json:"deletedContacts"`
		Unknown   int `json:"unknownContacts"`
		Invalid   int `json:"invalidEntries"`
	}
	out := struct {
		DeleteID string   `json:"deleteId"`
		Status   string   `json:"status"`
		Summary  *summary `json:"summary"`
		Deleted  rawJSON  `json:"deleted"`
		Failures rawJSON  `json:"failures"`
	}{DeleteID: j.id, Status: "NotFinished"}
	if j.finish <= s.now() {
		out.Status = "Finished"
		out.Summary = &summary{j.requested, j.deleted, j.unknown, j.invalid}
		out.Deleted = append(append([]byte{'['}, j.deletedJSON...), ']')
		out.Failures = append(append([]byte{'['}, j.failuresJSON...), ']')
	}
	c.reply(http.StatusOK, out)
	return nil
}
