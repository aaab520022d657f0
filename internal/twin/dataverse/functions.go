package dataverse

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/lockstep-sync/lockstep/internal/twin/dataverse/value"
)

// serviceDocument lists the entity sets.
func (c *call) serviceDocument() (*answer, error) {
	if c.method != http.MethodGet {
		return nil, wrongMethod(c.method)
	}
	body := append([]byte(nil), `{"@odata.context":`...)
	body = value.AppendString(body, c.root()+"$metadata")
	body = append(body, `,"value":[`...)
	for i, t := range c.sch.Tables() {
		if i > 0 {
			body = append(body, ',')
		}
		body = append(body, `{"name":`...)
		body = value.AppendString(body, t.Set)
		body = append(body, `,"kind":"EntitySet","url":`...)
		body = append(value.AppendString(body, t.Set), '}')
	}
	return jsonAnswer(http.StatusOK, append(body, "]}"...)), nil
}

// parameters reads the inline parameters of a function call with their aliases
// resolved.
func (c *call) parameters(seg segment) (map[string]string, error) {
	pairs, err := splitPairs(seg.inside)
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	for _, p := range pairs {
		v := p.literal
		if strings.HasPrefix(v, "@") {
			values, err := url.ParseQuery(c.query)
			if err != nil {
				return nil, badRequest("The query of the URL is not valid.")
			}
			v = values.Get(v)
		}
		out[p.name] = v
	}
	return out, nil
}

// unbound serves functions and actions at the service root.
func (c *call) unbound(seg segment) (*answer, error) {
	if len(c.path) > 1 {
		return nil, noSegment(c.path[1].name)
	}
	functions := map[string]func(segment) (*answer, error){
		"WhoAmI":                      c.whoAmI,
		"RetrieveVersion":             c.retrieveVersion,
		"RetrieveCurrentOrganization": c.retrieveOrganization,
		"RetrieveTotalRecordCount":    c.totalRecordCount,
	}
	if f := functions[seg.name]; f != nil {
		if c.method != http.MethodGet {
			return nil, wrongMethod(c.method)
		}
		return f(seg)
	}
	actions := map[string]func([]prop) (*answer, error){
		"AddListMembersList": c.addListMembers,
		"PublishXml":         c.publishXML,
		"PublishAllXml":      c.publishAll,
		"Merge":              c.merge,
		"InsertOptionValue":  c.insertOption,
		"UpdateOptionValue":  c.updateOption,
		"DeleteOptionValue":  c.deleteOption,
	}
	if seg.name == "AddListMembersList" && c.sch.Table("list") == nil {
		return nil, noSegment(seg.name)
	}
	if f := actions[seg.name]; f != nil {
		if c.method != http.MethodPost {
			return nil, wrongMethod(c.method)
		}
		props, err := parseObject(c.body)
		if err != nil {
			return nil, err
		}
		return f(props)
	}
	switch seg.name {
	case "BulkDelete", "ImportSolution", "ImportSolutionAsync", "StageSolution", "ExportSolution", "RetrieveMetadataChanges",
		"CreateCustomerRelationships", "CreatePolymorphicLookupAttribute", "InsertStatusValue", "OrderOption":
		return nil, notEmulated(seg.name)
	}
	return nil, noSegment(seg.name)
}

func (c *call) whoAmI(segment) (*answer, error) {
	return c.response("WhoAmI", `"BusinessUnitId":"`+c.user.unit.String()+`","UserId":"`+c.user.id.String()+`","OrganizationId":"`+c.s.org.id.String()+`"`), nil
}

func (c *call) retrieveVersion(segment) (*answer, error) {
	return c.response("RetrieveVersion", `"Version":"`+organizationVersion+`"`), nil
}

func (c *call) retrieveOrganization(seg segment) (*answer, error) {
	params, err := c.parameters(seg)
	if err != nil {
		return nil, err
	}
	if v := params["AccessType"]; !strings.HasPrefix(v, crm+"EndpointAccessType'") {
		return nil, badRequest("The parameter AccessType of RetrieveCurrentOrganization is missing or not of the type EndpointAccessType.")
	}
	base := c.s.BaseURL() + "/"
	detail, jerr := json.Marshal(map[string]any{
		"OrganizationId": c.s.org.id.String(), "FriendlyName": c.s.opt.OrganizationName, "OrganizationVersion": organizationVersion,
		"EnvironmentId": c.s.org.id.String(), "DatacenterId": c.s.environmentID(), "Geo": "EMEA", "TenantId": c.s.opt.TenantID,
		"UrlName": c.s.opt.URLName, "UniqueName": c.s.opt.UniqueName, "State": "Enabled",
		"Endpoints": map[string]any{
			"Count": 3, "IsReadOnly": false, "Keys": []string{"WebApplication", "OrganizationService", "OrganizationDataService"},
			"Values": []string{base, base + "XRMServices/2011/Organization.svc", base + "XRMServices/2011/OrganizationData.svc"},
		},
	})
	if jerr != nil {
		return nil, jerr
	}
	return c.response("RetrieveCurrentOrganization", `"Detail":`+string(detail)), nil
}

// totalRecordCount answers exact counts; the service's may be a day old.
func (c *call) totalRecordCount(seg segment) (*answer, error) {
	params, err := c.parameters(seg)
	if err != nil {
		return nil, err
	}
	var names []string
	if json.Unmarshal([]byte(params["EntityNames"]), &names) != nil || len(names) == 0 {
		return nil, badRequest("The parameter EntityNames must be a JSON array of logical names, given through an alias.")
	}
	counts := make([]string, len(names))
	for i, n := range names {
		t := c.sch.Table(n)
		if t == nil {
			return nil, fail(http.StatusBadRequest, "0x80041102", "The entity with a name = '%.60s' was not found in the MetadataCache.", n)
		}
		if err := c.need("Read", t); err != nil {
			return nil, err
		}
		counts[i] = strconv.Itoa(c.view.Count(n))
	}
	keys, jerr := json.Marshal(names)
	if jerr != nil {
		return nil, jerr
	}
	return c.response("RetrieveTotalRecordCount", `"EntityRecordCountCollection":{"Count":`+strconv.Itoa(len(names))+
		`,"IsReadOnly":false,"Keys":`+string(keys)+`,"Values":[`+strings.Join(counts, ",")+`]}`), nil
}

// bound serves functions and actions of one row.
func (c *call) bound(tg *target, message string) (*answer, error) {
	if c.method != http.MethodPost {
		return nil, wrongMethod(c.method)
	}
	props, err := parseObject(c.body)
	if err != nil {
		return nil, err
	}
	switch {
	case tg.table.Name == "list":
		return c.listAction(tg.id, message, props)
	case tg.table.Name == "lead" && message == "QualifyLead":
		return c.qualifyLead(tg.id, props)
	case tg.table.Name == "role" && (message == "AddPrivilegesRole" || message == "ReplacePrivilegesRole"):
		return noContent(), c.write(func() error { return c.grant(tg.id, props, message == "ReplacePrivilegesRole") })
	}
	return nil, noSegment(crm + message)
}
