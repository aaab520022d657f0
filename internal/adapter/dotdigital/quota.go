package dotdigital

import (
	"bytes"
	"io"
	"net/http"
)

// quota tells two kinds of 429 apart. The usual one is a rate limit, which the
// layers above wait out, everybody at once. The other says that the account has
// as many jobs of a kind under way as it may: that concerns this call alone, and
// waiting is for the caller, who can watch the jobs meanwhile. It goes up as a
// conflict; its code says what it is.
type quota struct{ next http.RoundTripper }

func (q quota) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := q.next.RoundTrip(r)
	if err != nil || resp.StatusCode != http.StatusTooManyRequests {
		return resp, err
	}
	// An answer that breaks off here is a rate limit: the careful reading.
	body, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	switch readRefusal(resp.StatusCode, body).code {
	case "contacts:tooManyActiveImports", "contacts:tooManyBulkDeleteJobs", "ERROR_IMPORT_TOOMANYACTIVEIMPORTS":
		resp.StatusCode = http.StatusConflict
	}
	resp.Body = struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(body), resp.Body), resp.Body}
	return resp, nil
}
