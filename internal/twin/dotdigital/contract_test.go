package dotdigital

import (
	"bytes"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pb33f/libopenapi"
	validator "github.com/pb33f/libopenapi-validator"
	"github.com/pb33f/libopenapi-validator/config"
)

// contract is one of the service descriptions that answers are held against.
type contract struct {
	prefix, file string
	load         func() (validator.Validator, error)
}

var contracts = []contract{
	described("/v2", "dotdigital-v2.json"),
	described("/contacts/v3", "dotdigital-v3-contacts.json"),
	described("/configuration/v3", "dotdigital-v3-configuration.json"),
}

func described(prefix, file string) contract {
	return contract{prefix, file, sync.OnceValues(func() (validator.Validator, error) { return loadContract(file) })}
}

// loadContract finds the corrected service descriptions next to the checkout.
func loadContract(file string) (validator.Validator, error) {
	dir, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			break
		}
		if filepath.Dir(dir) == dir {
			return nil, fmt.Errorf("no go.mod above the test")
		}
		dir = filepath.Dir(dir)
	}
	path := filepath.Join(dir, "..", "shared", "contracts", "dotdigital", "normalised", file)
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("the contract test needs the corrected Dotdigital service descriptions: put the folder contracts/dotdigital/normalised under %s: %w",
			filepath.Join(dir, "..", "shared"), err)
	}
	doc, err := libopenapi.NewDocument(text)
	if err != nil {
		return nil, err
	}
	v, errs := validator.NewValidator(doc, config.WithFormatAssertions(), config.WithoutSecurityValidation())
	if len(errs) > 0 {
		return nil, fmt.Errorf("%s: %v", file, errs)
	}
	return v, nil
}

// verify holds every answer of the account against its contract and records
// which operation answered what.
func (a *account) verify(seen map[string][]int) {
	a.observe = func(req *http.Request, reqBody []byte, resp *http.Response, body []byte) {
		a.t.Helper()
		rt, _, known := a.routes.match(req)
		if known {
			key := rt.method + " " + rt.pattern
			if !slices.Contains(seen[key], resp.StatusCode) {
				seen[key] = append(seen[key], resp.StatusCode)
			}
		}
		path := strings.TrimSuffix(req.URL.Path, "/")
		for _, c := range contracts {
			if !strings.HasPrefix(path, c.prefix) {
				continue
			}
			v, err := c.load()
			if err != nil {
				a.t.Fatal(err)
			}
			plain := req.Clone(req.Context())
			// Clients use these names too, which the descriptions do not have.
			if rest, ok := strings.CutPrefix(path, "/v2/contact/"); ok {
				path = "/v2/contacts/" + rest
			} else if path == "/v2/preference" {
				path += "s"
			}
			plain.URL.Path = path
			plain.URL.RawPath = ""
			plain.Body = io.NopCloser(bytes.NewReader(reqBody))
			answer := *resp
			answer.Body = io.NopCloser(bytes.NewReader(body))
			ok, errs := v.ValidateHttpResponse(plain, &answer)
			if !ok {
				for _, e := range errs {
					a.t.Errorf("%s %s answered %d against the contract: %s: %s", req.Method, req.URL.RequestURI(), resp.StatusCode, e.Message, e.Reason)
					for _, s := range e.SchemaValidationErrors {
						a.t.Errorf("  %s at %s", s.Reason, s.FieldPath)
					}
				}
				a.t.Errorf("  answer: %.600s", body)
			}
			if len(body) == 0 && resp.StatusCode == http.StatusOK && rt.operation != "contacts.set-preferences" {
				a.t.Errorf("%s %s answered 200 without a body", req.Method, req.URL.RequestURI())
			}
		}
	}
}

// multipartFile posts a file as a browser would.
func (a *account) multipartFile(path, name, content string) answer {
	a.t.Helper()
	var buf bytes.Buffer
	w := multipart.NewWriter(&buf)
	part, err := w.CreateFormFile("file", name)
	if err != nil {
		a.t.Fatal(err)
	}
	io.WriteString(part, content)
	w.Close()
	req, err := http.NewRequest(http.MethodPost, a.url+path, bytes.NewReader(buf.Bytes()))
	if err != nil {
		a.t.Fatal(err)
	}
	req.Header.Set("Content-Type", w.FormDataContentType())
	req.SetBasicAuth(testUser, testPassword)
	return a.send(req, buf.Bytes())
}

// TestContract calls every emulated route so that it succeeds, and validates
// every answer.
func TestContract(t *testing.T) {
	seen := map[string][]int{}
	a := open(t, Options{ImportTime: time.Second, JobTime: time.Second, SendTime: time.Second})
	a.verify(seen)

	a.get("/v2/account-info").want(200)
	a.get("/v2/server-time/").want(200)
	a.call("POST", "/v2/data-fields", `{"Name":"points","Type":"Numeric","DefaultValue":3}`).want(201)
	a.call("POST", "/v2/data-fields", `{"name":"born","type":"Date","visibility":"Public"}`).want(201)
	a.call("POST", "/v2/data-fields", `{"name":"vip","type":"Boolean","defaultValue":true}`).want(201)
	a.get("/v2/data-fields/").want(200, `"POINTS"`)
	a.call("POST", "/v2/data-fields", `{"name":"spare","type":"String","defaultValue":null}`).want(201)
	a.call("DELETE", "/v2/data-fields/Spare", nil).want(200, `"result":true`)
	a.call("POST", "/configuration/v3/customIdentifiers", `{"name":"crmid"}`).want(201)
	a.call("POST", "/configuration/v3/customIdentifiers", `{"name":"other"}`).want(201)
	a.get("/configuration/v3/customIdentifiers").want(200)
	a.call("DELETE", "/configuration/v3/customIdentifiers/other", nil).want(204)
	pref := a.AddPreference("Offers", "offers01")

	list := int32(a.call("POST", "/v2/address-books", `{"Name":"News","Visibility":"Public"}`).want(201).value("id").(float64))
	other := int32(a.call("POST", "/v2/address-books", `{"name":"Other"}`).want(201).value("id").(float64))
	books := fmt.Sprintf("/v2/address-books/%d", list)
	a.call("PUT", books, `{"name":"Newsletter"}`).want(200, `"Public"`)
	a.get("/v2/address-books/?Select=10&Skip=0").want(200)
	a.get("/v2/address-books/private").want(200)
	a.get("/v2/address-books/public").want(200)
	a.get(books).want(200)

	a.call("POST", "/contacts/v3", fmt.Sprintf(`{"identifiers":{"email":"ann@example.com","mobileNumber":"447700900123","crmid":"c-1"},
		"dataFields":{"FIRSTNAME":"Ann","POINTS":1.5,"BORN":"1980-01-31","VIP":true},"lists":[%d],
		"channelProperties":{"email":{"emailType":"html","optInType":"double"},"sms":{"status":"subscribed"},"whatsApp":{"status":"unsubscribed"}},
		"preferences":[{"id":%d,"isOptedIn":true}],
		"consentRecords":[{"text":"Yes","dateTimeConsented":"2024-01-31T09:00:00Z","url":"https://x.example","ipAddress":"192.0.2.1","userAgent":"t"}]}`, list, pref)).want(201)
	a.get("/contacts/v3/crmid/c-1").want(200, `"POINTS":1.5`)
	a.get("/contacts/v3/email/ANN%40example.com/").want(200)
	a.call("PATCH", "/contacts/v3/email/bob@example.com", `{"dataFields":{"FIRSTNAME":"Bob"}}`).want(201)
	a.call("PATCH", "/contacts/v3/email/bob@example.com?merge-option=overwrite-if-empty", `{"dataFields":{"FIRSTNAME":"Rob"}}`).want(200, `"Bob"`)
	a.call("PUT", "/contacts/v3/email/bob@example.com", `{"identifiers":{"email":"bob@example.com"},"dataFields":{"LASTNAME":"Jones"}}`).want(200, `"FIRSTNAME":null`)
	a.call("DELETE", "/contacts/v3/email/bob@example.com", nil).want(200)
	a.get("/contacts/v3/?limit=2&data-fields=[[ALL]]&include=channelProperties|lists|preferences|consentRecords").want(200)
	a.get("/contacts/v3?~modified=gte::2024-01-01T00:00:00%2B00:00").want(200)

	imp := a.call("PUT", "/contacts/v3/import", fmt.Sprintf(`{"mergeOption":"overwrite","contacts":[
		{"matchIdentifier":"email","identifiers":{"email":"cat@example.com"},"lists":[%d]},
		{"matchIdentifier":"contactId","identifiers":{"contactId":1001,"email":null}},
		{"matchIdentifier":"email","identifiers":{"email":"bad"}},
		{"matchIdentifier":"email","identifiers":{"email":"dan@example.com"},"lists":[77777]}]}`, list)).want(202).value("importId").(string)
	a.get("/contacts/v3/import/"+imp).want(200, "NotFinished")
	del := a.call("POST", "/contacts/v3/delete", `[{"email":"dan@example.com"},{"contactId":999999},{"email":"bad"}]`).want(202).value("deleteId").(string)
	a.get("/contacts/v3/delete/"+del).want(200, "NotFinished")
	a.time.Advance(time.Second)
	a.get("/contacts/v3/import/"+imp).want(200, `"Finished"`, `"newContacts":2`)
	a.get("/contacts/v3/delete/"+del).want(200, `"deletedContacts":1`, `"unknownContacts":1`, `"invalidEntries":1`)

	a.call("POST", "/v2/contacts", `{"Email":"eve@example.com","OptInType":"VerifiedDouble","DataFields":[{"Key":"firstname","Value":"Eve"},{"Key":"POINTS","Value":"7"}]}`).want(201, "PendingOptIn", `"Double"`)
	eve := int64(a.get("/v2/contacts/eve@example.com").want(200).value("id").(float64))
	a.call("PUT", fmt.Sprintf("/v2/contacts/%d", eve), `{"email":"eva@example.com"}`).want(200)
	a.get("/v2/contacts?withFullData=true&select=10").want(200)
	a.get("/v2/contacts/count").want(200)
	a.get("/v2/contacts/created-since/2024-01-01").want(200)
	a.get("/v2/contacts/modified-since/2024-01-01T00:00:00+0000?WithFullData=True").want(200)
	a.get("/v2/contacts/1001/address-books").want(200, "Newsletter")
	a.call("DELETE", fmt.Sprintf("/v2/contacts/%d", eve), nil).want(204)
	a.call("POST", "/v2/accounts/empty-recycle-bin", nil).want(202)

	csvID := a.multipartFile("/v2/contacts/import", "a.csv", "Email,FirstName,Unknown\nfay@example.com,Fay,x\nbad,B,y\n").want(202).value("id").(string)
	a.multipartFile(books+"/contacts/import", "a.csv", "email\ngus@example.com\n").want(202)
	a.call("POST", "/v2/contacts/import/with-merge-option/1", `{"fileName":"a.csv","data":"RW1haWwKaGFsQGV4YW1wbGUuY29tCg=="}`).want(202)
	a.call("POST", books+"/contacts/import/with-merge-option/OnlyOverwriteIfNotEmpty", `{"fileName":"a.csv","data":"RW1haWwKaGFsQGV4YW1wbGUuY29tCg=="}`).want(202)
	a.call("POST", "/v2/contacts/import-collection", fmt.Sprintf(`{"addressBookIds":[%d],"mergeOption":0,"contacts":[{"email":"ida@example.com","dataFields":[{"key":"VIP","value":"True"}]}]}`, other)).want(202)
	a.get("/v2/contacts/import/"+csvID).want(200, "NotFinished")
	a.get("/v2/contacts/import/"+csvID+"/report").want(400, "ERROR_IMPORT_REPORT_NOT_FOUND")
	a.time.Advance(time.Second)
	a.get("/v2/contacts/import/"+csvID).want(200, `"Finished"`)
	a.get("/v2/contacts/import/"+csvID+"/report").want(200, `"newContacts":1`, `"invalidEntries":1`)
	if got := string(a.get("/v2/contacts/import/" + csvID + "/report-faults").want(200).body); got != "Reason,Email,FirstName,Unknown\nInvalid Email,bad,B,y\n" {
		t.Errorf("fault report %q", got)
	}

	a.get(books+"/contacts?withFullData=true").want(200, "ann@example.com")
	a.get(books + "/contacts/modified-since/2024-01-01").want(200)
	a.call("POST", books+"/contacts", `{"email":"jon@example.com"}`).want(200)
	a.call("POST", books+"/contacts/unsubscribe", `{"email":"jon@example.com"}`).want(200, `"Subscribed"`)
	a.get(books+"/contacts/unsubscribed-since/2024-01-01").want(200, "jon@example.com")
	a.call("POST", books+"/contacts/resubscribe", `{"unsubscribedContact":{"email":"jon@example.com"},"preferredLocale":"de-DE"}`).want(200, "ContactChallenged")
	a.call("POST", books+"/contacts/resubscribe-with-no-challenge", `{"unsubscribedContact":{"email":"jon@example.com"}}`).want(200, "ContactAdded")
	a.call("DELETE", books+"/contacts/1001", nil).want(204)
	job := a.call("POST", books+"/contacts/delete", `[1001,999999]`).want(202, "Started").value("id").(string)
	a.get("/v2/contacts/deletion/"+job).want(200, "Started")
	a.time.Advance(time.Second)
	a.get("/v2/contacts/deletion/"+job).want(200, "Completed")
	a.call("POST", fmt.Sprintf("/v2/address-books/%d/contacts/delete-all", other), nil).want(202)
	a.call("DELETE", fmt.Sprintf("/v2/address-books/%d/contacts", other), nil).want(204)
	a.time.Advance(time.Second)
	a.call("DELETE", fmt.Sprintf("/v2/address-books/%d", other), nil).want(204)

	a.call("POST", "/v2/contacts/unsubscribe", `{"email":"fay@example.com"}`).want(200, `"reason":"Unsubscribed"`)
	a.call("POST", "/v2/contacts/unsubscribe", `{"email":"stranger@example.com"}`).want(200, `"reason":"Unsubscribed"`)
	a.call("PUT", "/v2/contacts/suppress-contacts", `[{"email":"gus@example.com"},{"id":999999}]`).want(200, `"notFound":[{"id":999999`)
	a.get("/v2/contacts/suppressed-since/2024-01-01").want(200, "gus@example.com", "fay@example.com")
	a.get("/v2/contacts/unsubscribed-since/2024-01-01").want(200, "fay@example.com")
	a.call("POST", "/v2/contacts/resubscribe", `{"unsubscribedContact":{"email":"fay@example.com"},"preferredLocale":"","returnUrlToUseIfChallenged":""}`).want(200, "ContactChallenged", `"Unsubscribed"`)
	a.call("POST", "/v2/contacts/resubscribe-with-no-challenge", `{"unsubscribedContact":{"email":"fay@example.com","dataFields":[{"key":"FIRSTNAME","value":"Faye"}]}}`).want(200, "ContactAdded")

	group := int32(a.call("POST", "/v2/preferences", `{"PublicName":"Contact method","PrivateName":"cm","IsPreference":false,"order":"top"}`).want(200, `"order":0`).value("id").(float64))
	mail := int32(a.call("POST", "/v2/preferences", fmt.Sprintf(`{"publicName":"Email","privateName":"em","isPreference":true,"isPublic":true,"categoryId":%d,"order":0}`, group)).want(200, `"categoryId":`+fmt.Sprint(group)).value("id").(float64))
	spare := int32(a.call("POST", "/v2/preferences", `{"publicName":"Spare","privateName":"sp","isPreference":true,"categoryId":null}`).want(200).value("id").(float64))
	a.call("PUT", fmt.Sprintf("/v2/preferences/%d", spare), fmt.Sprintf(`{"id":%d,"publicName":"Other","order":"bottom"}`, spare)).want(200, `"Other"`)
	a.get("/v2/preferences").want(200, `"order":"0"`, `"preferences":[`)
	a.get("/v2/preference").want(200)
	a.get("/v2/preferences/modified-since/2024-01-01").want(200, `"Other"`)
	for _, contact := range []string{"/v2/contacts/ida@example.com", "/v2/contact/ida@example.com"} {
		a.call("PUT", contact+"/preferences", fmt.Sprintf(`[{"id":%d,"isPreference":false,"preferences":[{"id":%d,"isPreference":true,"isOptedIn":true}]},{"id":%d,"isPreference":true,"isOptedIn":false}]`, group, mail, spare)).want(200)
		a.get(contact+"/preferences").want(200, `"isOptedIn":true`, `"isOptedIn":false`)
		a.get(contact+"/subscriptions").want(200, `"dateModifed":"20`)
	}
	a.call("POST", books+"/contacts", `{"email":"ida@example.com"}`).want(200)
	for _, scope := range []string{"/v2/contacts", books + "/contacts"} {
		with := fmt.Sprintf("%s/with-preference/%d", scope, mail)
		a.get(with).want(200, "ida@example.com")
		a.get(with+"/opt-ins-since/2024-01-01T00:00:00Z?MinContactId=0").want(200, "ida@example.com", `"isOptedIn":true`)
	}
	a.call("DELETE", fmt.Sprintf("/v2/preferences/%d", spare), nil).want(200, "deleted successfully")

	segment, err := a.AddSegment("VIPs", SegmentRule{Conditions: []Condition{{"FIRSTNAME", "filled", ""}}})
	if err != nil {
		t.Fatal(err)
	}
	a.get("/v2/segments").want(200, `"contacts":0`)
	refresh := fmt.Sprintf("/v2/segments/refresh/%d", segment)
	a.get(refresh).want(200, "NotStarted")
	a.call("POST", refresh, nil).want(202)
	a.get(refresh).want(200, "NotFinished")
	a.time.Advance(time.Second)
	a.get(refresh).want(200, "Finished")
	a.get(fmt.Sprintf("/contacts/v3?~segmentId=%d", segment)).want(200, "ann@example.com")

	created := a.call("POST", "/v2/campaigns", `{"name":"Spring","subject":"Hello","fromName":"Shop","fromAddress":{"id":1,"email":"shop@example.com"},
		"htmlContent":"<a href=\"http://$UNSUB$\">x</a>","plainTextContent":"http://$UNSUB$","replyAction":"Webmail"}`).want(201)
	id := int32(created.value("id").(float64))
	camp := fmt.Sprintf("/v2/campaigns/%d", id)
	a.call("PUT", camp, `{"name":"Spring 2","subject":"Hello","fromName":"Shop","htmlContent":"$UNSUB$","plainTextContent":"$UNSUB$"}`).want(200)
	a.call("POST", camp+"/copy", nil).want(201, "Copy of Spring 2")
	a.get(camp + "/summary").want(200)
	sendID := a.call("POST", "/v2/campaigns/send", fmt.Sprintf(`{"campaignID":%d,"addressBookIDs":[%d],"contactIDs":[1001],"sendDate":"2020-01-01"}`, id, segment)).want(202, "Scheduled").value("id").(string)
	a.get("/v2/campaigns/send/"+sendID).want(200, "Sending")
	a.time.Advance(time.Second)
	a.get("/v2/campaigns/send/"+sendID).want(200, `"Sent"`)
	if _, err := a.Recipients(id, Shares{Opens: 1, Clicks: 0.5, PageViews: 0.5}); err != nil {
		t.Fatal(err)
	}
	a.get("/v2/campaigns").want(200)
	a.get("/v2/campaigns/filtered?~statuses=Sent&~statuses=Sending&~sentDate=2024-01-01").want(200, `"Spring 2"`)
	a.get("/v2/campaigns/with-details").want(200)
	a.get("/v2/campaigns/with-activity-since/2024-01-01").want(200, `"Spring 2"`)
	a.get("/v2/campaigns/metrics?startDate=2024-01-01&endDate=2030-01-01").want(200, `"Spring 2"`)
	a.get(camp).want(200, "$UNSUB$")
	a.get(camp + "/with-details").want(200)
	a.get(camp + "/address-books").want(200)
	a.get(fmt.Sprintf("/v2/address-books/%d/campaigns", segment)).want(200, `"Spring 2"`)
	a.get("/v2/custom-from-addresses").want(200, "shop@example.com")
	for _, p := range []string{
		"/activities", "/activities/since-date/2024-01-01", "/activities/1001", "/opens", "/opens/since-date/2024-01-01", "/activities/1001/opens",
		"/clicks", "/clicks/since-date/2024-01-01", "/activities/1001/clicks", "/page-views/since-date/2024-01-01", "/activities/1001/page-views",
		"/hard-bouncing-contacts", "/summary", "/activities/1001/replies", "/roi-details/since-date/2024-01-01", "/activities/1001/roi-details",
		"/social-bookmark-views", "/activities/1001/social-bookmark-views",
	} {
		a.get(camp + p).want(200)
	}

	for _, rt := range routeTable() {
		key := rt.method + " " + rt.pattern
		if !slices.ContainsFunc(seen[key], func(status int) bool { return status < 300 }) {
			t.Errorf("%s never succeeded in this test: %v", key, seen[key])
		}
	}
}

// TestContractErrors provokes the refusals and validates their shapes.
func TestContractErrors(t *testing.T) {
	a := open(t, Options{MaxCustomIdentifiers: 1, JobTime: time.Minute})
	a.verify(map[string][]int{})
	list := a.addList("News")
	segment, err := a.AddSegment("Seg", SegmentRule{Conditions: []Condition{{"POINTS", "above", "1"}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := a.AddField("POINTS", Numeric); err != nil {
		t.Fatal(err)
	}
	if err := a.AddField("SIZE", String); err != nil {
		t.Fatal(err)
	}
	if err := a.UseField("SIZE", "Campaign", 4); err != nil {
		t.Fatal(err)
	}
	a.add(NewContact{Email: "in@example.com", Lists: []int32{list}})
	a.add(NewContact{Email: "out@example.com", Status: "Unsubscribed"})
	a.add(NewContact{Email: "angry@example.com", Status: "IspComplained"})
	offers := a.AddPreference("Offers", "offers01")
	news := a.AddCategory("News", "news01")
	trig := a.AddCampaign(NewCampaign{Name: "T", Triggered: true})
	camp := a.AddCampaign(NewCampaign{Name: "C"})
	tests := []struct {
		method, path, body string
		status             int
		code               string
	}{
		{"POST", "/v2/data-fields", `{"name":"points","type":"String"}`, 400, "ERROR_NON_UNIQUE_DATAFIELD"},
		{"POST", "/v2/data-fields", `{"name":"a b","type":"String"}`, 400, "ERROR_DATAFIELD_INVALID"},
		{"POST", "/v2/data-fields", `{"name":"twenty_one_characters","type":"String"}`, 400, "ERROR_DATAFIELD_INVALID"},
		{"POST", "/v2/data-fields", `{"name":"email","type":"String"}`, 400, "reserved"},
		{"POST", "/v2/data-fields", `{"name":"x","type":"Money"}`, 400, "ERROR_DATAFIELD_INVALID"},
		{"POST", "/v2/data-fields", `{"name":"x","type":"Numeric","defaultValue":"much"}`, 400, "ERROR_DATAFIELD_INVALID"},
		{"DELETE", "/v2/data-fields/NOPE", ``, 404, "ERROR_DATAFIELD_NOTFOUND"},
		{"DELETE", "/v2/data-fields/FIRSTNAME", ``, 400, "ERROR_DATAFIELD_INVALID"},
		{"DELETE", "/v2/data-fields/SIZE", ``, 409, `"objectId":4`},
		{"DELETE", "/v2/data-fields/POINTS", ``, 409, `"AddressBook"`},
		{"POST", "/v2/address-books", `{"name":"NEWS"}`, 400, "ERROR_ADDRESSBOOK_DUPLICATE"},
		{"POST", "/v2/address-books", `{"name":"seg"}`, 400, "ERROR_ADDRESSBOOK_DUPLICATE"},
		{"POST", "/v2/address-books", `{"name":"all contacts"}`, 400, "ERROR_ADDRESSBOOK_INVALID"},
		{"POST", "/v2/address-books", `{"name":""}`, 400, "ERROR_ADDRESSBOOK_INVALID"},
		{"POST", "/v2/address-books", `{"name":"` + strings.Repeat("x", 129) + `"}`, 400, "ERROR_ADDRESSBOOK_INVALID"},
		{"POST", "/v2/address-books", `{"name":"v","visibility":"Hidden"}`, 400, "ERROR_PARAMETER_INVALID"},
		{"POST", "/v2/address-books", `{"name"`, 400, "ERROR_MALFORMED_REQUEST"},
		{"GET", "/v2/address-books/999", ``, 404, "Error: ERROR_ADDRESSBOOK_NOT_FOUND"},
		{"GET", fmt.Sprintf("/v2/address-books/%d", segment), ``, 404, "ERROR_ADDRESSBOOK_NOT_FOUND"},
		{"GET", "/v2/address-books/x", ``, 400, "ERROR_PARAMETER_INVALID"},
		{"PUT", "/v2/address-books/1", `{"name":"Mine"}`, 400, "ERROR_ADDRESSBOOK_NOTWRITABLE"},
		{"DELETE", "/v2/address-books/2", ``, 400, "ERROR_ADDRESSBOOK_NOTWRITABLE"},
		{"POST", "/v2/address-books/2/contacts/delete", `[1]`, 400, "ERROR_ADDRESSBOOK_NOTWRITABLE"},
		{"GET", "/v2/address-books?select=0", ``, 400, "ERROR_PARAMETER_INVALID"},
		{"GET", "/v2/address-books?Select=1001", ``, 400, "ERROR_PARAMETER_INVALID"},
		{"GET", "/v2/contacts?skip=-1", ``, 400, "ERROR_PARAMETER_INVALID"},
		{"GET", "/v2/contacts?withFullData=maybe", ``, 400, "ERROR_PARAMETER_INVALID"},
		{"GET", "/v2/contacts/modified-since/yesterday", ``, 400, "ERROR_PARAMETER_INVALID"},
		{"GET", "/v2/contacts/9999", ``, 404, "ERROR_CONTACT_NOT_FOUND"},
		{"GET", "/v2/contacts/out@example.com", ``, 404, "ERROR_CONTACT_NOT_FOUND"},
		{"POST", "/v2/contacts", `{"email":"out@example.com"}`, 400, "ERROR_CONTACT_SUPPRESSED"},
		{"POST", "/v2/contacts", `{"email":"nope"}`, 400, "Email is not a valid email address. ERROR_PARAMETER_INVALID"},
		{"POST", "/v2/contacts", `{"email":"n@example.com","dataFields":[{"key":"NOPE","value":1}]}`, 400, "ERROR_DATAFIELD_NOTFOUND"},
		{"POST", "/v2/contacts", `{"email":"n@example.com","dataFields":[{"key":"POINTS","value":"1234567890123456789"}]}`, 400, "ERROR_DATAFIELD_VALUE_OVERFLOW"},
		{"POST", "/v2/contacts", `{"email":"n@example.com","optInType":"Triple"}`, 400, "ERROR_PARAMETER_INVALID"},
		{"PUT", "/v2/contacts/1001", `{"email":"out@example.com"}`, 400, "ERROR_NON_UNIQUE_EMAIL"},
		{"GET", "/v2/contacts/import/none", ``, 404, "ERROR_IMPORT_NOT_FOUND"},
		{"GET", "/v2/contacts/deletion/none", ``, 404, "ERROR_IMPORT_NOT_FOUND"},
		{"POST", "/v2/contacts/import-collection", `{"contacts":[]}`, 400, "ERROR_CONTACTS_ARE_NOT_SPECIFIED"},
		{"POST", "/v2/contacts/import-collection", `{"contacts":[{"email":"a@example.com"}],"addressBookIds":[999]}`, 404, "ERROR_ADDRESSBOOK_NOT_FOUND"},
		{"POST", "/v2/contacts/import", `{"fileName":"a.txt","data":"YQ=="}`, 400, "ERROR_IMPORT_UNSUPPORTED_FORMAT"},
		{"POST", "/v2/contacts/import", `{"fileName":"a.csv","data":"YQ=="}`, 400, "ERROR_NO_EMAIL_COLUMN"},
		{"POST", "/v2/contacts/import", `{"fileName":"a.xlsx","data":"YQ=="}`, 501, "not emulated"},
		{"POST", "/v2/contacts/import/with-merge-option/3", `{}`, 400, "ERROR_PARAMETER_INVALID"},
		{"POST", "/v2/contacts/unsubscribe", `{"email":"nope"}`, 400, "ERROR_PARAMETER_INVALID"},
		{"PUT", "/v2/contacts/suppress-contacts", `[]`, 400, "ERROR_CONTACTS_ARE_NOT_SPECIFIED"},
		{"POST", "/v2/contacts/resubscribe", `{}`, 400, "ERROR_PARAMETER_INVALID"},
		{"POST", "/v2/contacts/resubscribe", `{"unsubscribedContact":{"email":"out@example.com"},"preferredLocale":"xx"}`, 400, "ERROR_PARAMETER_INVALID"},
		{"POST", "/v2/contacts/resubscribe", `{"unsubscribedContact":{"email":"in@example.com"}}`, 400, "ERROR_CONTACT_RESUBSCRIPTION_INVALID"},
		{"POST", "/v2/contacts/resubscribe-with-no-challenge", `{"unsubscribedContact":{"email":"angry@example.com"}}`, 200, "ContactCannotBeUnsuppressed"},
		{"GET", "/v2/segments/refresh/999", ``, 404, "ERROR_SEGMENT_NOT_FOUND"},
		{"POST", "/v2/preferences", `{"publicName":"x","privateName":"x"}`, 400, "ERROR_PREFERENCE_INVALID"},
		{"POST", "/v2/preferences", `{"publicName":"x","isPreference":true}`, 400, "ERROR_PREFERENCE_INVALID"},
		{"POST", "/v2/preferences", `{"publicName":"a>b","privateName":"x","isPreference":true}`, 400, "ERROR_PREFERENCE_INVALID"},
		{"POST", "/v2/preferences", `{"publicName":"x","privateName":"x","isPreference":true,"order":-1}`, 400, "ERROR_PREFERENCE_INVALID"},
		{"POST", "/v2/preferences", `{"publicName":"x","privateName":"x","isPreference":true,"categoryId":99}`, 404, "ERROR_PREFERENCE_NOT_FOUND"},
		{"POST", "/v2/preferences", fmt.Sprintf(`{"publicName":"x","privateName":"x","isPreference":true,"categoryId":%d}`, offers), 400, "ERROR_PREFERENCE_INVALID"},
		{"POST", "/v2/preferences", fmt.Sprintf(`{"publicName":"x","privateName":"x","isPreference":false,"categoryId":%d}`, news), 400, "ERROR_PREFERENCE_INVALID"},
		{"POST", "/v2/preferences", `{"publicName":"offers","privateName":"x","isPreference":true}`, 400, "in use"},
		{"PUT", fmt.Sprintf("/v2/preferences/%d", offers), `{"isPreference":false}`, 400, "ERROR_PREFERENCE_INVALID"},
		{"PUT", "/v2/preferences/99", `{"publicName":"x"}`, 404, "ERROR_PREFERENCE_NOT_FOUND"},
		{"DELETE", "/v2/preferences/99", ``, 404, "ERROR_PREFERENCE_NOT_FOUND"},
		{"GET", "/v2/contacts/nobody@example.com/preferences", ``, 404, "ERROR_CONTACT_NOT_FOUND"},
		{"GET", "/v2/contacts/out@example.com/preferences", ``, 404, "ERROR_CONTACT_NOT_FOUND"},
		{"GET", "/v2/contacts/out@example.com/subscriptions", ``, 404, "ERROR_CONTACT_NOT_FOUND"},
		{"PUT", "/v2/contacts/out@example.com/preferences", fmt.Sprintf(`[{"id":%d,"isOptedIn":true}]`, offers), 400, "ERROR_CONTACT_SUPPRESSED"},
		{"PUT", "/v2/contacts/in@example.com/preferences", `[{"id":99,"isOptedIn":true}]`, 404, "ERROR_PREFERENCE_NOT_FOUND"},
		{"PUT", "/v2/contacts/in@example.com/preferences", fmt.Sprintf(`[{"id":%d}]`, offers), 400, "ERROR_PREFERENCE_INVALID"},
		{"PUT", "/v2/contacts/in@example.com/preferences", fmt.Sprintf(`[{"id":%d,"isOptedIn":true}]`, news), 400, "ERROR_PREFERENCE_INVALID"},
		{"PUT", "/v2/contacts/in@example.com/preferences", fmt.Sprintf(`[{"id":%d,"isPreference":false,"isOptedIn":true}]`, offers), 400, "ERROR_PREFERENCE_INVALID"},
		{"PUT", "/v2/contacts/in@example.com/preferences", fmt.Sprintf(`[{"id":%d,"preferences":[{"id":%d,"isOptedIn":true}]}]`, news, offers), 400, "ERROR_PREFERENCE_INVALID"},
		{"GET", fmt.Sprintf("/v2/contacts/with-preference/%d", news), ``, 400, "ERROR_PREFERENCE_INVALID"},
		{"GET", "/v2/contacts/with-preference/99", ``, 404, "ERROR_PREFERENCE_NOT_FOUND"},
		{"GET", fmt.Sprintf("/v2/contacts/with-preference/%d?minContactId=x", offers), ``, 400, "ERROR_PARAMETER_INVALID"},
		{"GET", fmt.Sprintf("/v2/contacts/with-preference/%d/opt-ins-since/soon", offers), ``, 400, "ERROR_PARAMETER_INVALID"},
		{"GET", fmt.Sprintf("/v2/address-books/%d/contacts/with-preference/%d", segment, offers), ``, 404, "ERROR_ADDRESSBOOK_NOT_FOUND"},
		{"POST", "/contacts/v3", fmt.Sprintf(`{"identifiers":{"email":"n@example.com"},"preferences":[{"id":%d,"isOptedIn":true}]}`, news), 400, "contacts:invalidContacts"},
		{"POST", "/contacts/v3", `{"identifiers":{"email":"n@example.com"},"channelProperties":{"email":{"resubscribeOptions":{}}}}`, 400, "contacts:badRequest"},
		{"PATCH", "/contacts/v3/email/in@example.com", `{"channelProperties":{"email":{"resubscribeOptions":{"preferredLocale":"xx"}}}}`, 400, "contacts:badRequest"},
		{"PATCH", "/contacts/v3/email/in@example.com", `{"channelProperties":{"email":{"resubscribeOptions":{"silent":true}}}}`, 400, "contacts:badRequest"},
		{"GET", "/v2/campaigns/999", ``, 404, "ERROR_CAMPAIGN_NOT_FOUND"},
		{"GET", fmt.Sprintf("/v2/campaigns/%d/activities/1001", camp), ``, 404, "ERROR_CONTACT_NOT_FOUND"},
		{"POST", "/v2/campaigns", `{"name":"x","subject":"s","fromName":"f","htmlContent":"h","plainTextContent":"p"}`, 400, "ERROR_CAMPAIGN_INVALID"},
		{"POST", "/v2/campaigns/send", `{"campaignId":999,"addressBookIds":[2]}`, 404, "ERROR_CAMPAIGN_NOT_FOUND"},
		{"POST", "/v2/campaigns/send", fmt.Sprintf(`{"campaignId":%d,"addressBookIds":[]}`, camp), 400, "ERROR_CAMPAIGN_SEND_INVALID"},
		{"POST", "/v2/campaigns/send", fmt.Sprintf(`{"campaignId":%d,"addressBookIds":[2]}`, trig), 400, "ERROR_CAMPAIGN_SEND_INVALID"},
		{"POST", "/v2/campaigns/send", fmt.Sprintf(`{"campaignId":%d,"addressBookIds":[999]}`, camp), 404, "ERROR_ADDRESSBOOK_NOT_FOUND"},
		{"POST", "/v2/campaigns/send", fmt.Sprintf(`{"campaignId":%d,"contactIds":[1002]}`, camp), 400, "ERROR_CONTACT_SUPPRESSED"},
		{"POST", "/v2/campaigns/send", fmt.Sprintf(`{"campaignId":%d,"contactIds":[1,2,3,4,5,6,7,8,9,10,11]}`, camp), 400, "ERROR_CAMPAIGN_SEND_INVALID"},
		{"GET", "/v2/campaigns/send/none", ``, 404, "ERROR_CAMPAIGN_SEND_INVALID"},
		{"GET", "/v2/surveys", ``, 501, "not emulated"},

		{"GET", "/contacts/v3/email/nobody@example.com", ``, 404, "contacts:contactNotFound"},
		{"GET", "/contacts/v3/email/nobody", ``, 400, "contacts:invalidId"},
		{"GET", "/contacts/v3/contactId/x", ``, 400, "contacts:invalidId"},
		{"GET", "/contacts/v3/passport/1", ``, 400, "contacts:invalidId"},
		{"POST", "/contacts/v3", `{"identifiers":{"email":"IN@example.com"}}`, 409, "contacts:idAlreadyExists"},
		{"POST", "/contacts/v3", `{"identifiers":{}}`, 400, "contacts:invalidId"},
		{"POST", "/contacts/v3", `{"identifiers":{"email":"n@example.com"},"dataFields":{"NOPE":1}}`, 400, "contacts:invalidContacts"},
		{"POST", "/contacts/v3", `{"identifiers":{"email":"n@example.com"},"lists":[1]}`, 400, "contacts:invalidContacts"},
		{"POST", "/contacts/v3", `{"identifiers":`, 400, "contacts:badJson"},
		{"PATCH", "/contacts/v3/email/in@example.com", `{"identifiers":{"email":"out@example.com"}}`, 409, "contacts:idAlreadyExists"},
		{"PATCH", "/contacts/v3/email/in@example.com?merge-option=maybe", `{}`, 400, "contacts:badRequest"},
		{"PATCH", "/contacts/v3/contactId/9999", `{}`, 404, "contacts:contactNotFound"},
		{"PUT", "/contacts/v3/email/new@example.com", `{"identifiers":{"email":"new@example.com"}}`, 404, "contacts:contactNotFound"},
		{"PUT", "/contacts/v3/email/in@example.com", `{}`, 400, "contacts:badRequest"},
		{"DELETE", "/contacts/v3/email/new@example.com", ``, 404, "contacts:contactNotFound"},
		{"GET", "/contacts/v3?limit=0", ``, 400, "contacts:badRequest"},
		{"GET", "/contacts/v3?limit=5001", ``, 400, "contacts:badRequest"},
		{"GET", "/contacts/v3?marker=!!", ``, 400, "contacts:badRequest"},
		{"GET", "/contacts/v3?include=everything", ``, 400, "contacts:badRequest"},
		{"GET", "/contacts/v3?data-fields=NOPE", ``, 400, "contacts:badRequest"},
		{"GET", "/contacts/v3?~modified=2024-01-01T00:00:00Z", ``, 400, "contacts:invalidFilter"},
		{"GET", "/contacts/v3?~modified=gte::2024-01-01", ``, 400, "contacts:invalidFilter"},
		{"GET", "/contacts/v3?~modified=gte::2024-01-01T00:00:00Z&~created=gte::2024-01-01T00:00:00Z", ``, 400, "contacts:invalidFilter"},
		{"GET", "/contacts/v3?~listId=999", ``, 400, "contacts:invalidFilter"},
		{"GET", fmt.Sprintf("/contacts/v3?~listId=%d", segment), ``, 400, "contacts:invalidFilter"},
		{"GET", fmt.Sprintf("/contacts/v3?~listId=%d&~segmentId=%d", list, segment), ``, 400, "contacts:invalidFilter"},
		{"POST", "/contacts/v3/delete", `[]`, 400, "contacts:noContactsSpecified"},
		{"POST", "/contacts/v3/delete", `[{"email":"a@example.com","contactId":1}]`, 400, "contacts:invalidContacts"},
		{"GET", "/contacts/v3/delete/none", ``, 404, "contacts:importNotFound"},
		{"POST", "/configuration/v3/customIdentifiers", `{"name":"` + strings.Repeat("x", 51) + `"}`, 400, "customIdentifiers:nameTooLong"},
		{"POST", "/configuration/v3/customIdentifiers", `{"name":"email"}`, 409, "customIdentifiers:nameAlreadyExists"},
		{"POST", "/configuration/v3/customIdentifiers", `{"name":"crmid"}`, 201, ""},
		{"POST", "/configuration/v3/customIdentifiers", `{"name":"CRMID"}`, 409, "customIdentifiers:nameAlreadyExists"},
		{"POST", "/configuration/v3/customIdentifiers", `{"name":"second"}`, 412, ""},
		{"PATCH", "/contacts/v3/crmid/c-1", `{"identifiers":{"email":"c1@example.com"}}`, 201, ""},
		{"DELETE", "/configuration/v3/customIdentifiers/crmid", ``, 400, "customIdentifiers:inUse"},
		{"DELETE", "/configuration/v3/customIdentifiers/none", ``, 404, "customIdentifiers:notExist"},
		{"POST", fmt.Sprintf("/v2/address-books/%d/contacts/delete", list), `[1001]`, 202, "Started"},
		{"DELETE", fmt.Sprintf("/v2/address-books/%d", list), ``, 400, "ERROR_ADDRESSBOOK_IN_USE"},
	}
	for _, tt := range tests {
		t.Run(tt.method+" "+tt.path, func(t *testing.T) {
			a.t = t
			a.call(tt.method, tt.path, tt.body).want(tt.status, tt.code)
		})
	}
	a.t = t
	for _, path := range []string{"/v2/contacts", "/contacts/v3", "/configuration/v3/customIdentifiers"} {
		req, _ := http.NewRequest(http.MethodGet, a.url+path, nil)
		req.SetBasicAuth(testUser, "wrong")
		got := a.send(req, nil).want(401)
		if v3 := path != "/v2/contacts"; v3 != (len(got.body) == 0) {
			t.Errorf("%s: 401 body %q", path, got.body)
		}
	}
	req, _ := http.NewRequest(http.MethodPost, a.url+"/v2/contacts", strings.NewReader("email=a"))
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.SetBasicAuth(testUser, testPassword)
	a.send(req, nil).want(400, "ERROR_CONTENT_TYPE_IS_NOT_SUPPORTED")
	a.get("/nothing/here").want(404)
}
