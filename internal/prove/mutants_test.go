package prove

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	mutantsFlag = flag.Bool("mutants", false, "plant every bug of the table and demand that the simulation catches it")
	mutantFlag  = flag.String("mutant", "", "plant only the bugs whose name fits this regular expression")
)

// mutant is one deliberate bug: a text of a source file that is replaced by another.
type mutant struct {
	name     string
	file     string // within the module
	old, new string // old occurs once
}

// mutants are planted one at a time. Each is a mistake that somebody could make.
//
// How soon they were seen when each was last tried, in seeds of 200 actions from 1 on:
//
//	within 10   a conflict is not noted; the platform's edit of a two-way field is overwritten; changes are told by time instead
//	            of by the base; an empty value never clears; a dynamic list keeps who left its query; the filter guards entry and
//	            not exit; strangers are never removed; addresses are compared with their case; do-not-bulk-email is not looked
//	            at; an opt-out does not count as a change of the record; inactive records are mailed; what the platform changed
//	            is taken for an echo; a removal is not remembered; new members whose record did not change are not looked at;
//	            an opt-out is heard and told to nobody; an opt-out that was heard is not kept; an opt-out is not written into
//	            the ledger; a soft bounce is an opt-out; who
//	            unsubscribed from a list stays in the marketing list; a suppression that a CRM user entered for every account
//	            is passed over; of two choices the older counts; of two choices of the same moment the opt-in counts; choices
//	            go to the CRM alone; a row that replaces a deleted one is taken for the deleted one; the opt-in type only
//	            rises; no number of removals is too large; clearing a column of everybody is nothing special
//	within 40   a refusal is taken for success (26); interrupted work is forgotten (34)
//	            a refused return ends the telling (13); what a batch says of opt-outs is stored after it (10); who comes back is
//	            opened although a CRM user closed the record (14); a choice in the CRM opts in who is closed to all mail (4); a
//	            preview writes (2); any call is repeated after a broken connection (14); a lost answer is taken for a call that
//	            was not sent (14); the first page is the whole feed (1); nothing is written in the CRM (1); who was taken out by
//	            hand is not put back (11)
//	within 60   a record is written although somebody edited it meanwhile (56)
//	within 200  one record for each look at a stranger (2); the change token moves before the changes are stored (14); of
//	            several records of one contact the first alone leaves (20); conflicts are stored after what they decided
//	            (131); a person deleted on the platform is made anew (196)
//	not in 200  a deleted record stays in the books; the counter of a list is believed although somebody joined meanwhile: why
//	            is not known; a batch is stored although one before it failed: what the later one stored hides the loss only where a call of the earlier one
//	            failed for good while the later one was under way with the last page; an account without data fields is
//	            believed, which shows where a run of data-labels met it late in a life
//	not tried   lately: whom a refusal kept out stays out when it moves on; a removal is carried out although its
//	            reason is gone; an address shared with one that refuses is mailed; whom the platform was not told of yet has
//	            come back; a new opt-out is not told to whom the last one was
//
// Those within 60 were looked for in lives in which nobody moves or shares an address, the
// others in all kinds of lives, as all are now.
var mutants = []mutant{
	{"a conflict is not noted", "internal/merge/field.go", "\tout.Conflict = true\n", "\tout.Conflict = false\n"},
	{"the platform's edit of a two-way field is overwritten", "internal/merge/field.go", "\tcase platform == in.Base:\n\t\treturn write(Platform", "\tcase true:\n\t\treturn write(Platform"},
	{"changes are told by time instead of by the base", "internal/merge/field.go", "\tcase crm == in.Base:\n\t\treturn write(CRM", "\tcase newer(in.PlatformAt, in.CRMAt):\n\t\treturn write(CRM"},
	{"an empty value never clears", "internal/merge/field.go", "\tif w.Required || w.Cautious && base.IsAbsent() {", "\tif true {"},
	{"a dynamic list keeps who left its query", "internal/merge/membership.go", "\tif in.Dynamic {", "\tif false {"},
	{"the filter guards entry and not exit", "internal/merge/membership.go", "\tcase in.Excluded != \"\" && in.InBook:", "\tcase false:"},
	{"strangers are never removed", "internal/merge/membership.go", "\tcase lockstep.ActionRemove:\n\t\tif in.FirstSeen {", "\tcase lockstep.ActionRemove:\n\t\tif true {"},
	{"addresses are compared with their case", "email.go", "\t\tif l := unicode.ToLower(r); unicode.ToUpper(l) == r {", "\t\tif l := unicode.ToLower(r); false && unicode.ToUpper(l) == r {"},
	{"do-not-bulk-email is not looked at", "internal/merge/consent.go", "\tbulk := optOut&lockstep.DoNotBulkEmail != 0\n\tswitch filter {", "\tbulk := false\n\tswitch filter {"},
	{"an opt-out does not count as a change of the record", "internal/engine/people.go", "transform.ContentHash(plan.t.Version(), p.email, r.OptOut, r.Inactive, p.vals)\n\t\tp.noEmail", "transform.ContentHash(plan.t.Version(), p.email, 0, r.Inactive, p.vals)\n\t\tp.noEmail"},
	{"inactive records are mailed", "internal/engine/people.go", "\t\tif !excluded && p.rec.Inactive {", "\t\tif false {"},
	{"what the platform changed is taken for an echo", "internal/engine/inward.go", "\t\tcase len(links) > 0 && same && !strange:", "\t\tcase len(links) > 0 && !strange:"},
	{"a refusal is taken for success", "internal/engine/writer.go", "\t\t\tr.state, r.cause = lockstep.Refused, r.result.Fault.Msg", "\t\t\tr.state = lockstep.Acknowledged"},
	{"a batch is stored although one before it failed", "internal/engine/writer.go", "\tif err := w.failed(); err != nil {\n\t\treturn err // an earlier", "\tif err := w.failed(); false {\n\t\treturn err // an earlier"},
	{"interrupted work is forgotten", "internal/engine/recover.go", "\tfor _, b := range open {\n", "\tfor _, b := range open[:0] {\n"},
	{"a removal is not remembered", "internal/engine/removal.go", "\t\t\tm.InBook, m.Former = false, false\n\t\t\tl.put(m)", "\t\t\tm.Former = false\n\t\t\tl.put(m)"},
	{"new members whose record did not change are not looked at", "internal/engine/outward.go", "\t\t\tfor _, id := range some {\n\t\t\t\twant(id)", "\t\t\tfor _, id := range some {\n\t\t\t\t_ = id"},
	{"a person deleted on the platform is made anew", "internal/engine/people.go", "\tif r.standing == lockstep.ContactDeleted {\n\t\t// Deleted", "\tif false {\n\t\t// Deleted"},
	{"a preview writes", "internal/engine/session.go", "func (s *session) dry() bool { return s.run.Mode == lockstep.ModePreview }", "func (s *session) dry() bool { return false }"},
	{"one record for each look at a stranger", "internal/engine/removal.go", "lockstep.NameID(l.set.CRMID, \"stranger/\"+s.account.ID+\"/\"+string(a.c.entry.Contact))", "lockstep.NewID(s.e.Now())"},
	{"conflicts are stored after what they decided", "internal/engine/session.go", "\tif len(c.Conflicts) == 0 {\n\t\treturn nil\n\t}\n\tc.Calls", "\tif true {\n\t\ts.mu.Lock()\n\t\ts.conflicts = append(s.conflicts, c.Conflicts...)\n\t\ts.mu.Unlock()\n\t\treturn nil\n\t}\n\tc.Calls"},
	{"of several records of one contact the first alone leaves", "internal/engine/guard.go", "\t\t\tout[at].also = append(out[at].also, slices.Concat([]crosswalk.Member{r.member}, r.also)...)", "\t\t\tout[at].also = slices.Concat(out[at].also, []crosswalk.Member{})"},
	{"any call is repeated after a broken connection", "internal/remote/retry.go", "\t\treturn st.call.Repeatable || !maybeSent(st, err), true", "\t\treturn true, true"},
	{"a lost answer is taken for a call that was not sent", "internal/remote/retry.go", "\treturn st.sent.Load()\n", "\treturn false\n"},
	{"the first page is the whole feed", "internal/adapter/dynamics/webapi/feed.go", "\t\tif p.next != \"\" {\n\t\t\tif next, err = c.link(p.next)", "\t\tif false {\n\t\t\tif next, err = c.link(p.next)"},
	{"the change token moves before the changes are stored", "internal/engine/writer.go", "\t<-before\n\tif err := w.failed(); err != nil {\n\t\treturn err // an earlier", "\tif false {\n\t\t<-before\n\t}\n\tif err := w.failed(); err != nil {\n\t\treturn err // an earlier"},
	{"a deleted record stays in the books", "internal/engine/outward.go", "\ts.leave(table, id)\n\ts.mu.Lock()\n\tl, ok :=", "\tif false {\n\t\ts.leave(table, id)\n\t}\n\ts.mu.Lock()\n\tl, ok :="},
	{"nothing is written in the CRM", "internal/merge/field.go", "\tcase crm == in.Base:\n\t\treturn write(CRM, platform, out)", "\tcase crm == in.Base:\n\t\treturn out"},
	{"who was taken out by hand is not put back", "internal/engine/removal.go", "\t\tm.InBook, m.Excluded = false, false\n\t\tif s.dry() {", "\t\tif s.dry() {"},
	{"the counter of a list is believed although somebody joined meanwhile", "internal/engine/finish.go", "l.sum.Dirty = raced ||", "l.sum.Dirty = false && raced ||"},
	{"whom a refusal kept out stays out when it moves on", "internal/engine/refusal.go", "\tif was.Email != crosswalk.EmailKey(p.email) {", "\tif false {"},
	{"a removal is carried out although its reason is gone", "internal/engine/people.go", "\t\tif ok && m.InBook && m.Excluded {", "\t\tif false {"},
	{"an address shared with one that refuses is mailed", "internal/engine/refusal.go", "\t\t\tall |= o.OptOut\n", "\t\t\t_ = o\n"},
	{"an opt-out is heard and told to nobody", "internal/engine/consent.go", "Told: map[string]time.Time{}, Pending: !st.quiet,", "Told: map[string]time.Time{}, Pending: false,"},
	{"an opt-out that was heard is not kept", "internal/engine/consent.go", "\t\tc.Restrictions = append(c.Restrictions, x)\n\t\tn.OptOutsSeen++", "\t\tn.OptOutsSeen++"},
	{"an opt-out is not written into the ledger", "internal/engine/consent.go", "\t\tc.Consent = append(c.Consent, *e)\n\t\tc.Restrictions", "\t\tc.Restrictions"},
	{"whom the platform was not told of yet has come back", "internal/engine/consent_back.go", "; !told || r.Scope", "; false && !told || r.Scope"},
	{"a soft bounce is an opt-out", "internal/engine/consent.go", "}, r.Reason != lockstep.SoftBounced", "}, true"},
	{"a new opt-out is not told to whom the last one was", "internal/engine/consent.go", "\t\tif at, ok := was.Told[toldRow]; ok {", "\t\tfor toldRow, at := range was.Told {"},
	{"a refused return ends the telling", "internal/engine/consent_back.go", "\t\tr.Asked, r.Pending = time.Time{}, pending\n", "\t\tr.Asked, r.Pending = time.Time{}, pending && false\n"},
	{"what a batch says of opt-outs is stored after it", "internal/engine/writer.go", "\tif err := w.s.remark(); err != nil {", "\tif err := w.failed(); err != nil {"},
	{"who unsubscribed from a list stays in the marketing list", "internal/engine/unsubscribes.go", "\t\tif !l.Dynamic && !l.Gone {", "\t\tif false {"},
	{"a suppression that a CRM user entered for every account is passed over", "internal/engine/consent.go", "a != \"\" && a != s.account.ID {", "a != s.account.ID {"},
	{"who comes back is opened although a CRM user closed the record", "internal/engine/consent_tell.go", "\t\t\t\tdelete(ours, e.Ref) // a user closed it too", "\t\t\t\t_ = e // a user closed it too"},
	{"of two choices the older counts", "internal/engine/choice.go", "\tcase later(p.at, c.at):\n\t\treturn p\n\tcase later(c.at, p.at):\n\t\treturn c", "\tcase later(p.at, c.at):\n\t\treturn c\n\tcase later(c.at, p.at):\n\t\treturn p"},
	{"of two choices of the same moment the opt-in counts", "internal/engine/choice.go", "\tcase p.answer == lockstep.OptedOut:\n\t\treturn p", "\tcase p.answer == lockstep.OptedIn:\n\t\treturn p"},
	{"choices go to the CRM alone", "internal/engine/preferences_tell.go", "\t\tif d.choice.Platform.Answer != d.answer {", "\t\tif false {"},
	{"a choice in the CRM opts in who is closed to all mail", "internal/engine/preferences_tell.go", "\t\tif d.answer == lockstep.OptedIn && closed[c.Key] {", "\t\tif false {"},
	{"a row that replaces a deleted one is taken for the deleted one", "internal/engine/choice.go", "c.Row, c.Lost, c.CRM = lockstep.ID{}, c.Row, lockstep.Said{}", "c.Lost = c.Row"},
	{"the opt-in type only rises", "internal/engine/optin.go", "\t\t\t\tif want == was[i] {", "\t\t\t\tif true {"},
	{"no number of removals is too large", "internal/engine/guard.go", "\tif len(held) <= limit {", "\tif len(held) >= 0 {"},
	{"clearing a column of everybody is nothing special", "internal/engine/guard.go", "\tif s.sync.unblanked || !p.linked", "\tif true || !p.linked"},
	{"a record is written although somebody edited it meanwhile", "internal/engine/crmwrite.go", "{ID: p.rec.ID, Version: p.rec.Version, Fields: p.toCRM}", "{ID: p.rec.ID, Fields: p.toCRM}"},
	{"an account without data fields is believed", "internal/adapter/dotdigital/fields.go", "func() bool { return len(rows) > 0 }", "func() bool { return true }"},
}

const (
	mutantSeeds = 200 // within which a planted bug must be caught
	mutantChunk = 10  // seeds a time
)

// TestMutants plants each bug and plays seeds until one that passes without it fails.
func TestMutants(t *testing.T) {
	root := moduleRoot(t)
	for _, m := range mutants {
		src, err := os.ReadFile(filepath.Join(root, m.file))
		if err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(string(src), m.old); n != 1 {
			t.Errorf("mutant %q: its text occurs %d times in %s", m.name, n, m.file)
		}
	}
	if !*mutantsFlag {
		return // the table is checked always, the bugs are planted on demand: that takes half an hour
	}
	dir := t.TempDir()
	sound, err := build(t, root, dir, "sound", mutant{})
	if err != nil {
		t.Fatal(err)
	}
	most := mutantSeeds
	if *seedsFlag > 0 {
		most = *seedsFlag
	}
	known := map[int]map[string]bool{} // seeds of the chunk from here on that fail without a bug
	caught := 0
	for i, m := range mutants {
		if !regexp.MustCompile(*mutantFlag).MatchString(m.name) {
			continue
		}
		bin, err := build(t, root, dir, fmt.Sprint("mutant", i), m)
		if err != nil {
			t.Error(err) // the others go on
			continue
		}
		seed, what := "", ""
		for base := 1; base <= most && seed == ""; base += mutantChunk {
			bad, out := failing(t, root, bin, base)
			if len(bad) > 0 && known[base] == nil {
				known[base], _ = failing(t, root, sound, base)
			}
			for s := range bad {
				if !known[base][s] && (seed == "" || len(s) < len(seed) || len(s) == len(seed) && s < seed) {
					seed, what = s, out[s]
				}
			}
		}
		_ = os.Remove(bin)
		if seed == "" {
			t.Errorf("%-62s NOT CAUGHT in %d seeds", m.name, most)
			continue
		}
		caught++
		t.Logf("%-62s seed %-4s %.110s", m.name, seed, what)
	}
	t.Logf("%d caught", caught)
}

// build compiles this package's tests with a bug planted. The error is the compiler's.
func build(t *testing.T, root, dir, name string, m mutant) (string, error) {
	t.Helper()
	bin := filepath.Join(dir, name)
	args := []string{"test", "-c", "-ldflags=-s -w", "-o", bin}
	if m.file != "" {
		src, err := os.ReadFile(filepath.Join(root, m.file))
		if err != nil {
			t.Fatal(err)
		}
		planted, overlay := filepath.Join(dir, name+".go"), filepath.Join(dir, name+".json")
		o, err := json.Marshal(map[string]any{"Replace": map[string]string{filepath.Join(root, m.file): planted}})
		if err != nil {
			t.Fatal(err)
		}
		for file, content := range map[string][]byte{planted: []byte(strings.Replace(string(src), m.old, m.new, 1)), overlay: o} {
			if err := os.WriteFile(file, content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		args = append(args, "-overlay", overlay)
	}
	cmd := exec.CommandContext(t.Context(), "go", append(args, "./internal/prove")...)
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%s: %w\n%s", m.name, err, out)
	}
	return bin, nil
}

var failedSeed = regexp.MustCompile(`--- FAIL: TestSeed/([0-9]+)`)

// failing plays a chunk of seeds and returns those that fail, with what they say. A
// process that ends in a panic or hangs has failed in all.
func failing(t *testing.T, root, bin string, base int) (map[string]bool, map[string]string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), bin, "-test.run=TestSeed", "-test.timeout=5m", fmt.Sprint("-base=", base), fmt.Sprint("-seeds=", mutantChunk))
	cmd.Dir = filepath.Join(root, "internal", "prove")
	out, err := cmd.CombinedOutput()
	bad, what := map[string]bool{}, map[string]string{}
	lines := strings.Split(string(out), "\n")
	for i, line := range lines {
		if m := failedSeed.FindStringSubmatch(line); m != nil {
			bad[m[1]] = true
			if i+1 < len(lines) {
				_, what[m[1]], _ = strings.Cut(strings.TrimSpace(lines[i+1]), ": ")
			}
		}
	}
	if err != nil && len(bad) == 0 {
		for i := range mutantChunk {
			s := fmt.Sprint(base + i)
			bad[s], what[s] = true, "the process ended: "+lines[0]
		}
	}
	return bad, what
}

func moduleRoot(t *testing.T) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		if filepath.Dir(dir) == dir {
			t.Fatal("there is no go.mod above this folder")
		}
		dir = filepath.Dir(dir)
	}
}
