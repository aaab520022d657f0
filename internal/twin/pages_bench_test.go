package twin

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"testing"
)

// BenchmarkPages reads a company's contacts page by page as the benchmark of the
// product does, over HTTP and with a narrow selection.
func BenchmarkPages(b *testing.B) {
	twins, err := Start(b.Context(), Options{Contacts: 50_000, Seed: 1, Plain: true})
	if err != nil {
		b.Fatal(err)
	}
	defer twins.Close() //nolint:errcheck // nothing is kept
	ready := twins.Ready().Dataverse
	res, err := http.PostForm(ready.TokenURL, url.Values{
		"grant_type": {"client_credentials"}, "client_id": {ready.ClientID}, "client_secret": {ready.ClientSecret}, "scope": {ready.Scope},
	})
	if err != nil {
		b.Fatal(err)
	}
	defer res.Body.Close()
	var grant struct {
		Token string `json:"access_token"`
	}
	if err := json.NewDecoder(res.Body).Decode(&grant); err != nil {
		b.Fatal(err)
	}
	const columns = "emailaddress1,firstname,lastname,fullname,jobtitle,telephone1,address1_city,address1_country,numberofchildren,donotbulkemail,modifiedon"
	var text bytes.Buffer
	page := func(address string, tracked bool) string {
		req, err := http.NewRequestWithContext(b.Context(), http.MethodGet, address, http.NoBody)
		if err != nil {
			b.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+grant.Token)
		req.Header.Set("Accept-Encoding", "identity") // as the product does on loopback
		req.Header.Set("Prefer", "odata.maxpagesize=5000")
		if tracked {
			req.Header.Set("Prefer", "odata.maxpagesize=5000,odata.track-changes")
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			b.Fatal(err)
		}
		defer res.Body.Close()
		text.Reset()
		if _, err := io.Copy(&text, res.Body); err != nil || res.StatusCode != http.StatusOK {
			b.Fatalf("%s %v", res.Status, err)
		}
		tail := text.Bytes()[max(0, text.Len()-4000):]
		i := bytes.Index(tail, []byte(`"@odata.nextLink":`))
		if i < 0 {
			return ""
		}
		var next string
		if err := json.Unmarshal(bytes.TrimSuffix(tail[i+len(`"@odata.nextLink":`):], []byte("}")), &next); err != nil {
			b.Fatal(err)
		}
		return next
	}
	for _, tracked := range []bool{false, true} {
		name := "plain"
		if tracked {
			name = "tracked"
		}
		b.Run(name, func(b *testing.B) {
			start := ready.API + "contacts?$select=" + columns
			next, n := start, int64(0)
			for b.Loop() {
				if next == "" {
					next = start
				}
				next = page(next, tracked)
				n += int64(text.Len())
			}
			b.SetBytes(n / int64(b.N))
		})
	}
}
