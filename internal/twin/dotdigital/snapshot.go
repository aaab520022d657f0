package dotdigital

import (
	"bufio"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// snapshotFile is the name of a snapshot in its directory.
const snapshotFile = "dotdigital.gob"

const snapshotFormat = 1

// The snapshot is a head followed by the contacts in groups. Job results and
// counted calls are not part of it: after a restart an unread import is gone,
// as it is when the service drops its results.
type snapshotHead struct {
	Format              int
	Generator           []byte
	NextField           uint32
	NextList, NextCamp  int32
	NextPreference      int32
	Fields              []snapshotField
	Lists               []snapshotList
	Preferences         []snapshotPreference
	CustomIDs           []snapshotCustomID
	Campaigns           []snapshotCampaign
	Sends               []snapshotSend
	Contacts, ImportSeq uint32
}

type snapshotField struct {
	ID       uint32
	Name     string
	Type     FieldType
	Public   bool
	Standard bool
	Default  []byte
	Uses     []dependency
}

type snapshotList struct {
	ID        int32
	Name      string
	Public    bool
	System    systemList
	Rule      *SegmentRule
	Segment   []uint32
	Left      map[uint32]int64
	Refreshed int64
}

// Preferences are in the order of siblings.
type snapshotPreference struct {
	ID                int32
	Public, Private   string
	Category, Visible bool
	Parent            int32
	Created, Modified int64
}

type snapshotCustomID struct {
	Name    string
	Created int64
}

type snapshotCampaign struct {
	ID                                 int32
	Name, Subject, FromName, FromEmail string
	HTML, Text, ReplyAction, ReplyTo   string
	Triggered                          bool
	Tags                               []string
	Scheduled, SentAt, LastActivity    int64
	Targets                            []int32
	Rows                               []snapshotActivity
	Opens                              []snapshotEvent
	Clicks                             []snapshotEvent
	Views                              []snapshotEvent
}

type snapshotActivity struct {
	Contact                  uint32
	Opens, Clicks, Views     int32
	Sent, First, Last, At    int64
	FirstIP                  string
	Unsubscribed, Soft, Hard bool
}

type snapshotEvent struct {
	Contact                uint32
	At                     int64
	IP, Agent, Client, URL string
}

type snapshotSend struct {
	ID            string
	Campaign      int32
	Accepted, Due int64
	Lists         []int32
	Contacts      []int64
	Delivered     bool
	Recipients    []Recipient
}

type snapshotContact struct {
	Email, Values                         string
	Lists                                 []int32
	ListStatus                            []listStatus
	Mobile, SMS, WhatsApp                 string
	Custom                                map[string]string
	Preferences                           map[int32]bool
	Chosen                                map[int32]int64 // when, by preference
	Consent                               []consentRecord
	Created, Subscribed, Removed, Updated int64
	Status                                emailStatus
	OptIn                                 optIn
	EmailType                             emailType
	Life                                  life
	SoftBounces                           uint8
	Challenged                            bool
}

const snapshotGroup = 1000

// SaveSnapshot writes the account into dir, replacing an older snapshot only
// when the new one is complete. Writes wait meanwhile.
func (s *Server) SaveSnapshot(dir string) (err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settleSends(s.now())
	f, err := os.CreateTemp(dir, snapshotFile+".*")
	if err != nil {
		return fmt.Errorf("dotdigital twin: saving a snapshot: %w", err)
	}
	defer func() {
		if err != nil {
			_ = f.Close()
			_ = os.Remove(f.Name())
			err = fmt.Errorf("dotdigital twin: saving a snapshot: %w", err)
		}
	}()
	w := bufio.NewWriterSize(f, 1<<20)
	if err := s.encode(gob.NewEncoder(w)); err != nil {
		return err
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), filepath.Join(dir, snapshotFile))
}

func (s *Server) encode(enc *gob.Encoder) error {
	head, err := s.head()
	if err != nil {
		return err
	}
	if err := enc.Encode(head); err != nil {
		return err
	}
	group := make([]snapshotContact, 0, snapshotGroup)
	for i := range s.count {
		group = append(group, s.snapshotContact(i))
		if len(group) == snapshotGroup || i == s.count-1 {
			if err := enc.Encode(group); err != nil {
				return err
			}
			group = group[:0]
		}
	}
	return nil
}

func (s *Server) head() (*snapshotHead, error) {
	generator, err := s.pcg.MarshalBinary()
	if err != nil {
		return nil, err
	}
	h := &snapshotHead{
		Format: snapshotFormat, Generator: generator, NextField: s.fields.nextID, NextList: s.nextListID,
		NextCamp: s.nextCamp, Contacts: s.count, ImportSeq: s.imports.seq,
	}
	for _, f := range s.fields.order {
		h.Fields = append(h.Fields, snapshotField{f.id, f.name, f.typ, f.public, f.standard, f.def, f.uses})
	}
	for _, id := range s.listOrder {
		l := s.lists[id]
		out := snapshotList{ID: id, Name: l.name, Public: l.public, System: l.system, Rule: l.rule, Left: l.left.at, Refreshed: l.refreshed}
		if l.rule != nil {
			for i := range l.members.all(0) {
				out.Segment = append(out.Segment, i)
			}
		}
		h.Lists = append(h.Lists, out)
	}
	h.NextPreference = s.prefs.next
	for _, parent := range sortedKeys(s.prefs.children) {
		for _, id := range s.prefs.children[parent] {
			p := s.prefs.byID[id]
			h.Preferences = append(h.Preferences, snapshotPreference{p.id, p.public, p.private, p.category, p.visible, p.parent, p.created, p.modified})
		}
	}
	for _, id := range s.customIDs {
		h.CustomIDs = append(h.CustomIDs, snapshotCustomID{id.name, id.created})
	}
	for _, id := range s.campOrder {
		h.Campaigns = append(h.Campaigns, s.campaigns[id].snapshot())
	}
	for _, sn := range s.sends {
		h.Sends = append(h.Sends, snapshotSend{sn.id, sn.campaign, sn.accepted, sn.due, sn.lists, sn.contacts, sn.delivered, sn.recipients})
	}
	return h, nil
}

func (k *campaign) snapshot() snapshotCampaign {
	out := snapshotCampaign{
		ID: k.id, Name: k.name, Subject: k.subject, FromName: k.fromName, FromEmail: k.fromEmail, HTML: k.html, Text: k.text,
		ReplyAction: k.replyAction, ReplyTo: k.replyTo, Triggered: k.triggered, Tags: k.tags, Scheduled: k.scheduled,
		SentAt: k.sentAt, LastActivity: k.lastActivity, Targets: k.targets,
	}
	for _, r := range k.rows {
		out.Rows = append(out.Rows, snapshotActivity{r.contact, r.opens, r.clicks, r.views, r.sent, r.first, r.last, r.at, r.firstIP, r.unsubscribed, r.soft, r.hard})
	}
	for _, e := range k.opens {
		out.Opens = append(out.Opens, snapshotEvent{Contact: e.contact, At: e.at, IP: e.ip, Agent: e.agent, Client: e.client})
	}
	for _, e := range k.clicks {
		out.Clicks = append(out.Clicks, snapshotEvent{Contact: e.contact, At: e.at, IP: e.ip, Agent: e.agent, URL: e.url})
	}
	for _, e := range k.views {
		out.Views = append(out.Views, snapshotEvent{Contact: e.contact, At: e.at, URL: e.url})
	}
	return out
}

func (s *Server) snapshotContact(i uint32) snapshotContact {
	c := s.at(i)
	out := snapshotContact{
		Email: c.email, Values: c.values, Created: c.created, Subscribed: c.subscribedAt, Removed: c.removedAt, Updated: s.updated[i],
		Status: c.status, OptIn: c.optIn, EmailType: c.emailType, Life: c.life, SoftBounces: c.softBounces, Challenged: c.challenged,
	}
	for _, m := range c.lists {
		out.Lists = append(out.Lists, m.list)
		out.ListStatus = append(out.ListStatus, m.status)
	}
	if r := c.rare; r != nil {
		out.Mobile, out.SMS, out.WhatsApp = r.mobile, r.sms, r.whatsApp
		out.Custom, out.Consent = r.custom, r.consent
		if len(r.prefs) > 0 {
			out.Preferences, out.Chosen = map[int32]bool{}, map[int32]int64{}
		}
		for id, v := range r.prefs {
			out.Preferences[id], out.Chosen[id] = v.in, v.at
		}
	}
	return out
}

// LoadSnapshot fills a server that New just returned with the snapshot in dir.
// It reports os.ErrNotExist when there is none.
func (s *Server) LoadSnapshot(dir string) error {
	f, err := os.Open(filepath.Join(dir, snapshotFile))
	if err != nil {
		return fmt.Errorf("dotdigital twin: loading a snapshot: %w", err)
	}
	defer f.Close() //nolint:errcheck // it was only read
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.count > 0 || len(s.campaigns) > 0 || len(s.lists) > 2 {
		return errors.New("dotdigital twin: a snapshot is loaded into a new account only")
	}
	if err := s.restore(gob.NewDecoder(bufio.NewReaderSize(f, 1<<20))); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return fmt.Errorf("dotdigital twin: loading a snapshot: %w", err)
	}
	return nil
}

func (s *Server) restore(dec *gob.Decoder) error {
	var h snapshotHead
	if err := dec.Decode(&h); err != nil {
		return err
	}
	if h.Format != snapshotFormat {
		return fmt.Errorf("format %d, this program reads %d", h.Format, snapshotFormat)
	}
	if err := s.pcg.UnmarshalBinary(h.Generator); err != nil {
		return err
	}
	s.fields = fieldSet{byName: map[string]*field{}, nextID: h.NextField}
	for _, in := range h.Fields {
		f := &field{id: in.ID, name: in.Name, typ: in.Type, public: in.Public, standard: in.Standard, def: in.Default, uses: in.Uses}
		s.fields.byName[f.name] = f
		s.fields.order = append(s.fields.order, f)
	}
	clear(s.lists)
	clear(s.listNames)
	s.listOrder = nil
	for _, in := range h.Lists {
		l := &list{id: in.ID, name: in.Name, public: in.Public, system: in.System, rule: in.Rule, refreshed: in.Refreshed}
		for _, i := range in.Segment {
			l.members.add(i)
		}
		for i, at := range in.Left {
			l.left.note(i, at)
		}
		s.lists[l.id] = l
		s.listNames[strings.ToLower(l.name)] = l.id
		s.listOrder = append(s.listOrder, l.id)
	}
	s.nextListID, s.nextCamp, s.imports.seq = h.NextList, h.NextCamp, h.ImportSeq
	for _, p := range h.Preferences {
		def := &preference{id: p.ID, public: p.Public, private: p.Private, category: p.Category, parent: p.Parent, visible: p.Visible, created: p.Created, modified: p.Modified}
		s.prefs.byID[p.ID] = def
		s.prefs.place(def, lastPlace)
		s.prefs.next = max(s.prefs.next, p.ID+1, h.NextPreference)
	}
	for _, id := range h.CustomIDs {
		s.customIDs = append(s.customIDs, &customIdentifier{id.Name, id.Created})
	}
	for s.count < h.Contacts {
		var group []snapshotContact
		if err := dec.Decode(&group); err != nil {
			return err
		}
		for k := range group {
			if err := s.restoreContact(&group[k]); err != nil {
				return err
			}
		}
	}
	for k := range h.Campaigns {
		c := h.Campaigns[k].restore()
		s.campaigns[c.id] = c
		s.campOrder = append(s.campOrder, c.id)
	}
	for _, in := range h.Sends {
		sn := &send{in.ID, in.Campaign, in.Accepted, in.Due, in.Lists, in.Contacts, in.Delivered, in.Recipients}
		if s.campaigns[sn.campaign] == nil {
			return fmt.Errorf("send of unknown campaign %d", sn.campaign)
		}
		s.sends = append(s.sends, sn)
		s.sendByID[sn.id] = sn
		if !sn.delivered {
			s.dueSend = min(s.dueSend, sn.due)
		}
	}
	return nil
}

func (in *snapshotCampaign) restore() *campaign {
	k := &campaign{
		id: in.ID, name: in.Name, subject: in.Subject, fromName: in.FromName, fromEmail: in.FromEmail, html: in.HTML, text: in.Text,
		replyAction: in.ReplyAction, replyTo: in.ReplyTo, triggered: in.Triggered, tags: in.Tags, scheduled: in.Scheduled,
		sentAt: in.SentAt, lastActivity: in.LastActivity, targets: in.Targets,
	}
	for _, r := range in.Rows {
		*k.row(r.Contact) = activity{r.Contact, r.Opens, r.Clicks, r.Views, r.Sent, r.First, r.Last, r.At, r.FirstIP, r.Unsubscribed, r.Soft, r.Hard}
	}
	for _, e := range in.Opens {
		k.opens = append(k.opens, openEvent{e.Contact, e.At, e.IP, e.Agent, e.Client})
	}
	for _, e := range in.Clicks {
		k.clicks = append(k.clicks, clickEvent{e.Contact, e.At, e.URL, e.IP, e.Agent})
	}
	for _, e := range in.Views {
		k.views = append(k.views, viewEvent{e.Contact, e.At, e.URL})
	}
	return k
}

func (s *Server) restoreContact(in *snapshotContact) error {
	i, c := s.add(in.Updated)
	*c = contact{
		values: in.Values, created: in.Created, subscribedAt: in.Subscribed, removedAt: in.Removed, status: in.Status,
		optIn: in.OptIn, emailType: in.EmailType, life: in.Life, softBounces: in.SoftBounces, challenged: in.Challenged,
	}
	if in.Email != "" {
		s.setEmail(i, []byte(in.Email))
	}
	if c.life != live {
		s.alive.remove(i)
	} else if c.status.blocked() {
		s.blockedSet.add(i)
	}
	for k, id := range in.Lists {
		l := s.lists[id]
		if l == nil || k >= len(in.ListStatus) {
			return fmt.Errorf("contact %d is in an unknown list", contactID(i))
		}
		c.lists = append(c.lists, membership{id, in.ListStatus[k]})
		if in.ListStatus[k] == inList {
			l.members.add(i)
		}
	}
	if in.Mobile != "" || in.SMS != "" || in.WhatsApp != "" || in.Custom != nil || in.Preferences != nil || in.Consent != nil {
		c.rare = &rareParts{mobile: in.Mobile, sms: in.SMS, whatsApp: in.WhatsApp, custom: in.Custom, consent: in.Consent}
		for id, v := range in.Preferences {
			p := s.prefs.choosable(id)
			if p == nil {
				return fmt.Errorf("contact %d chose an unknown preference", contactID(i))
			}
			if c.rare.prefs == nil {
				c.rare.prefs = map[int32]choice{}
			}
			c.rare.prefs[id] = choice{v, in.Chosen[id]}
			p.chosen.add(i)
		}
		if in.Mobile != "" {
			s.byMobile[in.Mobile] = i
		}
		for n, v := range in.Custom {
			s.byCustom[customKey{n, v}] = i
		}
	}
	return nil
}
