package webapi

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/adaptertest"
)

func (w *world) fixture() adaptertest.CRMFixture {
	return adaptertest.CRMFixture{
		OrganizationID: w.org.OrganizationID(), PageRows: pageRows,
		NewList: func(_ testing.TB, name, table, query string) lockstep.ID { return w.newList(name, table, query) },
		LockList: func(_ testing.TB, list lockstep.ID) {
			w.post(http.MethodPatch, "lists("+list.String()+")", `{"lockstatus":true}`)
		},
		Delete: func(_ testing.TB, table string, id lockstep.ID) {
			w.post(http.MethodDelete, table+"s("+id.String()+")", "")
		},
		Deactivate: func(_ testing.TB, table string, id lockstep.ID) {
			w.post(http.MethodPatch, table+"s("+id.String()+")", `{"statecode":1}`)
		},
		ExpireCursor: func(testing.TB) { w.fault("delta-expired", "", 1, "") },
		Refuse: func(_ testing.TB, id lockstep.ID) {
			w.fault("row-poison", "", 0, fmt.Sprintf(`{"id":%q}`, id))
		},
		LoseAnswer: func(testing.TB) { w.fault("ack-lost", "", 1, "") },
		Revoke: func(t testing.TB, table string) {
			if err := w.org.SetPrivilege(appID, "prvRead"+strings.ToUpper(table[:1])+table[1:], false); err != nil {
				t.Fatal(err)
			}
			w.clock.Advance(time.Minute)
		},
		Untracked: "listmember",
		Pass:      func(d time.Duration) { w.clock.Advance(d) },
	}
}

func TestConformance(t *testing.T) {
	adaptertest.CRM(t, func(t *testing.T) (lockstep.CRM, adaptertest.CRMFixture) {
		w := newWorld(t, options{})
		return w.openForSchema(), w.fixture()
	})
}

// On-premises 2016 serves version 8.2 only and has no bulk messages.
func TestConformanceBefore9(t *testing.T) {
	adaptertest.CRM(t, func(t *testing.T) (lockstep.CRM, adaptertest.CRMFixture) {
		w := newWorld(t, options{wrap: func(h http.Handler) http.Handler {
			return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				switch {
				case r.Header.Get("User-Agent") == "fixture" || r.Header.Get("Authorization") == "":
				case strings.HasPrefix(r.URL.Path, "/api/data/v9"), strings.Contains(r.URL.Path, "Multiple"), strings.Contains(r.URL.Path, "RetrieveTotalRecordCount"):
					rw.Header().Set("Content-Type", "application/json")
					rw.WriteHeader(http.StatusNotFound)
					_, _ = io.WriteString(rw, `{"error":{"code":"0x8006088A","message":"Resource not found for the segment.","innererror":{"message":"x","type":"y","stacktrace":"z"}}}`)
					return
				case strings.HasSuffix(r.URL.Path, "/RetrieveVersion()"):
					rw.Header().Set("Content-Type", "application/json")
					_ = json.NewEncoder(rw).Encode(map[string]string{"Version": "8.2.0.749"})
					return
				}
				h.ServeHTTP(rw, r)
			})
		}})
		return w.openForSchema(), w.fixture()
	})
}
