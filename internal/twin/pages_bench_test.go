package twin

import (
	"bytes"
	"encoding/json"
	"fmt"
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
	defer twins.Close()
	ready := twins.Ready().Dataverse
	token := benchToken(b, ready)
	const columns = "emailaddress1,firstname,lastname,fullname,jobtitle,telephone1,address1_city,address1_country,numberofchildren,donotbulkemail,modifiedon"
	var text bytes.Buffer
	page := func(address string, tracked bool) string {
		req, err := http.NewRequestWithContext(b.Context(), http.MethodGet, address, http.NoBody)
		if err != nil {
			b.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+token)
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
		_, link, more := bytes.Cut(tail, []byte(`"@odata.nextLink":`))
		if !more {
			return ""
		}
		var next string
		if err := json.Unmarshal(bytes.TrimSuffix(link, []byte("}")), &next); err != nil {
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

// BenchmarkCreates makes contacts through CreateMultiple, 1,000 a call.
func BenchmarkCreates(b *testing.B) {
	twins, err := Start(b.Context(), Options{Contacts: 50_000, Seed: 1, Plain: true})
	if err != nil {
		b.Fatal(err)
	}
	defer twins.Close()
	token := benchToken(b, twins.Ready().Dataverse)
	n := 0
	for b.Loop() {
		body := []byte(`{"Targets":[`)
		for j := range 1000 {
			if j > 0 {
				body = append(body, ',')
			}
			body = fmt.Appendf(body, `{"@odata.type":"Microsoft.Dynamics.CRM.contact","firstname":"Ada","lastname":"Number %d","emailaddress1":"ada.%d@bench.example","address1_city":"Oslo"}`, n, n)
			n++
		}
		req, err := http.NewRequestWithContext(b.Context(), http.MethodPost, twins.Ready().Dataverse.API+"contacts/Microsoft.Dynamics.CRM.CreateMultiple", bytes.NewReader(append(body, ']', '}')))
		if err != nil {
			b.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+token)
		req.Header.Set("Content-Type", "application/json")
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			b.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, res.Body)
		_ = res.Body.Close()
		if res.StatusCode != http.StatusOK {
			b.Fatal(res.Status)
		}
	}
}

// benchToken signs in.
func benchToken(b *testing.B, ready DataverseReady) string {
	b.Helper()
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
	return grant.Token
}
