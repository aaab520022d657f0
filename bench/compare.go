package main

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/bench/work"
)

// compare reads everything from both twins, without any code of the product, and
// fails unless each of the n contacts says what its CRM record says.
func (t *twins) compare(n int) error {
	want := make(map[string]map[string]any, n)
	columns := []string{work.Email}
	for _, f := range work.Fields {
		columns = append(columns, f.Column)
	}
	for next := "contacts?$select=" + strings.Join(columns, ","); next != ""; {
		var page struct {
			Value []map[string]any
			Next  string `json:"@odata.nextLink"`
		}
		if err := t.crm(http.MethodGet, next, nil, &page); err != nil {
			return err
		}
		for _, r := range page.Value {
			fields := map[string]any{}
			for _, f := range work.Fields {
				v := r[f.Column]
				if text, ok := v.(string); ok && f.Type == lockstep.FieldDate {
					v = strings.TrimSuffix(text, "Z") // the platform writes no zone; both are UTC
				}
				fields[f.Label] = v
			}
			email, _ := r[work.Email].(string)
			want[strings.ToLower(email)] = fields
		}
		next = page.Next
	}
	if len(want) != n {
		return fmt.Errorf("the CRM has %d contacts with an address of their own, not %d", len(want), n)
	}
	for marker := ""; ; {
		var page struct {
			Items []struct {
				Identifiers struct{ Email string }
				DataFields  map[string]any
			} `json:"_items"`
			Links map[string]struct{ Marker string } `json:"_links"`
		}
		path := "/contacts/v3?limit=5000&data-fields=" + url.QueryEscape("[[ALL]]")
		if marker != "" {
			path += "&marker=" + url.QueryEscape(marker)
		}
		if err := t.mail(http.MethodGet, path, nil, &page); err != nil {
			return err
		}
		for _, c := range page.Items {
			email := strings.ToLower(c.Identifiers.Email)
			fields, ok := want[email]
			if !ok {
				return errors.New("a contact is nobody of the CRM, or there twice")
			}
			for label, v := range fields {
				got := c.DataFields[label]
				if text, ok := got.(string); ok && v != got {
					got = strings.TrimSuffix(text, "Z")
				}
				if got != v {
					return fmt.Errorf("field %s of a contact is %v and should be %v", label, got, v)
				}
			}
			delete(want, email)
		}
		if marker = page.Links["next"].Marker; marker == "" || len(page.Items) == 0 {
			break
		}
	}
	if len(want) > 0 {
		return fmt.Errorf("%d contacts are missing", len(want))
	}
	return nil
}
