package e2e

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/app"
	"github.com/lockstep-sync/lockstep/internal/twin/fault"
)

// everyWrite prepares a run that has to make every kind of write: a data field, an
// address book, contacts, places in books, records, places in lists, removals.
func everyWrite(t *testing.T) (*world, *haste) {
	t.Helper()
	h := newHaste()
	o := worldOptions{cfg: app.Config{Now: h.ours, Sleep: h.sleep}}
	o.twins.Clock, o.twins.Wrap = h.Clock, h.wrap
	w := reference(t, o)
	if _, err := w.app.SaveLabel(t.Context(), lockstep.DataLabel{Account: w.account.ID, Name: "SHOESIZE", Type: lockstep.FieldNumber}); err != nil {
		t.Fatal(err)
	}
	w.bearer()
	w.resetCalls()
	return w, h
}

// fieldsNamed counts the data fields of the platform with a name.
func (w *world) fieldsNamed(name string) (n int) {
	w.t.Helper()
	var fields []struct{ Name string }
	w.mail("GET", "/v2/data-fields", nil, &fields)
	for _, f := range fields {
		if strings.EqualFold(f.Name, name) {
			n++
		}
	}
	return n
}

// try carries out a run that may fail.
func (w *world) try(typ lockstep.SyncType) {
	w.t.Helper()
	run, err := w.app.StartRun(w.t.Context(), app.RunRequest{Account: w.account.ID, Type: typ})
	if err != nil {
		w.t.Fatal(err)
	}
	if run, err = w.app.Wait(w.t.Context(), run.ID); err != nil && run.Status != lockstep.RunFailed {
		w.t.Fatal(err)
	}
}

// A write whose answer is lost, or that is carried out only after it was reported to
// have failed, takes effect once, on every route that writes.
func TestWritesTakeEffectOnce(t *testing.T) {
	t.Parallel()
	w, _ := everyWrite(t)
	w.run(lockstep.SyncDataLabels)
	w.sync()
	w.sync()
	want := w.bothSides()
	writing := map[string][]string{}
	for _, name := range []string{fault.Dataverse, fault.Dotdigital} {
		for op := range w.calls(name) {
			if writes(map[string]int64{op: 1}) > 0 {
				writing[name] = append(writing[name], op)
			}
		}
	}
	t.Logf("routes that write: %v", writing)
	for _, x := range []storm{
		{kind: fault.AckLost},
		{kind: fault.LateApply, args: `{"delay":"1ms"}`},
		{kind: fault.LateApply, args: `{"code":504,"delay":"2s","clock":"twin"}`},
		{kind: fault.LateApply, args: `{"code":500,"delay":"2h","clock":"twin"}`},
		{kind: fault.Garbage, args: `{"variant":"html","apply":true}`},
		{kind: fault.Garbage, args: `{"variant":"empty","apply":true}`},
	} {
		t.Run(x.String(), func(t *testing.T) {
			t.Parallel()
			w, h := everyWrite(t)
			for name, ops := range writing {
				for _, op := range ops {
					if err := w.twins.Faults.Add(fault.Fault{Twin: name, Kind: x.kind, Operation: op, Count: 1, Args: json.RawMessage(x.args)}); err != nil {
						t.Fatal(err)
					}
				}
			}
			for range 10 {
				before := len(w.twins.Faults.Active())
				w.try(lockstep.SyncDataLabels)
				w.try(lockstep.SyncMarketingLists)
				if left := len(w.twins.Faults.Active()); left == 0 || left == before {
					break
				}
			}
			for _, f := range w.twins.Faults.Active() {
				t.Errorf("%s of %s was never hit", f.Operation, f.Twin)
			}
			w.twins.Faults.Clear()
			h.Advance(3 * time.Hour)
			w.twins.Faults.Settle()
			w.run(lockstep.SyncDataLabels)
			w.sync()
			w.sync()
			if diff := cmp.Diff(want, w.bothSides()); diff != "" {
				t.Errorf("differs from the undisturbed runs (-) as follows:\n%s", diff)
			}
			if n := w.fieldsNamed("SHOESIZE"); n != 1 {
				t.Errorf("%d data fields SHOESIZE", n)
			}
			w.silent(x.String())
		})
	}
}
