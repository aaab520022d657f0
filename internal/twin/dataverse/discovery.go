package dataverse

import (
	"encoding/json"
	"net/http"
	"strings"

	"github.com/lockstep-sync/lockstep/internal/twin/dataverse/value"
)

// discovery serves the global discovery service: the instances a signed-in
// person may use. Tokens of applications cannot enumerate instances.
func (s *Server) discovery(r *http.Request, rest string) *answer {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") || token == "" {
		return s.challenge()
	}
	proof, err := s.opt.Tokens.VerifyToken(strings.TrimSpace(token))
	if err != nil || !s.accepts(proof) {
		return s.challenge()
	}
	if r.Method != http.MethodGet {
		return s.refusal(wrongMethod(r.Method), false, nil)
	}
	if proof.ObjectID == "" {
		return s.refusal(fail(http.StatusForbidden, codeNotMember, "The discovery service needs the token of a user."), false, nil)
	}
	segs, aerr := splitPath(rest)
	if aerr != nil {
		return s.refusal(aerr, false, nil)
	}
	if len(segs) != 1 || segs[0].name != "Instances" {
		return s.refusal(noSegment(rest), false, nil)
	}
	if r.URL.Query().Has("$filter") {
		return s.refusal(notEmulated("$filter of the discovery service"), false, nil)
	}
	instance, jerr := json.Marshal(map[string]any{
		"Id": s.org.id.String(), "UniqueName": s.opt.UniqueName, "UrlName": s.opt.URLName, "FriendlyName": s.opt.OrganizationName, "State": 0,
		"Version": organizationVersion, "Url": s.BaseURL(), "ApiUrl": s.BaseURL(), "TenantId": s.opt.TenantID, "EnvironmentId": s.org.id.String(),
		"DatacenterId": s.environmentID(), "DatacenterName": "TWIN", "Region": "EMEA", "OrganizationType": 0, "Purpose": "", "SchemaType": "Full",
		"StatusMessage": 0, "IsUserSysAdmin": false, "LastUpdated": s.clock.Now().Format("2006-01-02T15:04:05Z"), "TrialExpirationDate": nil,
	})
	if jerr != nil {
		return s.refusal(asAPIError(jerr), false, nil)
	}
	context := s.BaseURL() + "/api/discovery/v2.0/$metadata#Instances"
	_, principalRefusal := s.principalOf(proof)
	if segs[0].parens {
		key := segs[0].inside
		if name, ok := strings.CutPrefix(key, "UniqueName="); ok {
			key, _ = unquote(name)
		} else if id, err := value.ParseID(key); err == nil && id == s.org.id {
			key = s.opt.UniqueName
		}
		if key != s.opt.UniqueName || principalRefusal != nil {
			return s.refusal(fail(http.StatusNotFound, codeObjectDoesNotExist, "There is no such instance."), false, nil)
		}
		return jsonAnswer(http.StatusOK, []byte(`{"@odata.context":"`+context+`/$entity",`+string(instance[1:])))
	}
	list := string(instance)
	if principalRefusal != nil {
		list = ""
	}
	return jsonAnswer(http.StatusOK, []byte(`{"@odata.context":"`+context+`","value":[`+list+`]}`))
}
