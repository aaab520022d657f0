package signin

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/oauth2"

	"github.com/lockstep-sync/lockstep"
)

func asRetrieve(err error) (*oauth2.RetrieveError, bool) {
	var re *oauth2.RetrieveError
	ok := errors.As(err, &re)
	return re, ok
}

// codeInText finds the number in "AADSTS7000215: …".
func codeInText(s string) (n int) {
	_, after, ok := strings.Cut(s, "AADSTS")
	if !ok {
		return 0
	}
	for _, c := range after {
		if c < '0' || c > '9' || n > 1e8 {
			break
		}
		n = n*10 + int(c-'0')
	}
	return n
}

type advice struct {
	field, msg, hint string
	code             lockstep.Code // empty = unauthorized
}

// advices are Entra's codes by number. Microsoft reserves the right to change
// them: they choose the words, while the kind of failure follows from OAuth's own
// error names.
var advices = map[int]advice{
	7000215: {"client_secret", "the client secret is wrong", "paste the secret's Value, not its Secret ID; create a new secret if the value is lost", ""},
	7000222: {"client_secret", "the client secret or certificate has expired", "create a new one under Certificates & secrets of the app registration and enter it here", ""},
	7000218: {"client_secret", "the sign-in service expects a secret or certificate", "enter a client secret or a certificate", ""},
	700016:  {"client_id", "the sign-in service knows no application with this client id in this tenant", "check client id and tenant against the app registration", ""},
	7000112: {"client_id", "the application is disabled in this tenant", "enable it under Enterprise applications", ""},
	700027:  {"certificate", "the certificate's signature is not accepted", "upload the certificate (without its key) to the app registration", ""},
	700024:  {"certificate", "the signed assertion is not valid at this time", "set the clock of this machine", ""},
	50012:   {"certificate", "the certificate's assertion is not accepted", "check that this certificate is the uploaded one and that the clock of this machine is right", ""},
	50013:   {"certificate", "the certificate's assertion is not accepted", "check that this certificate is the uploaded one and that the clock of this machine is right", ""},
	90002:   {"tenant", "the sign-in service knows no such tenant", "check the tenant id or domain, and whether the authority is that of the right cloud", ""},
	900023:  {"tenant", "the tenant is neither an id nor a domain", "enter the Directory (tenant) ID of the app registration", ""},
	500011:  {"url", "the tenant knows no Dynamics organization at this address", "check the organization's address and that the tenant is the organization's own", ""},
	50001:   {"url", "the tenant knows no Dynamics organization at this address", "check the organization's address and that the tenant is the organization's own", ""},
	70011:   {"url", "the sign-in service does not accept the organization's address as a scope", "enter the address without anything after the host", ""},
	65001:   {"client_id", "nobody has consented to the application in this tenant", "let an administrator grant consent to the app registration", lockstep.CodeForbidden},
	53003:   {"client_id", "a Conditional Access policy blocks the application", "exempt this workload identity from the policy or add this machine's address to it", lockstep.CodeForbidden},
	50158:   {"client_id", "a policy asks for something that an application cannot do", "exempt this workload identity from the policy", lockstep.CodeForbidden},
}

func advise(e *lockstep.Error, oauthError string, codes []int) *lockstep.Error {
	for _, n := range codes {
		if a, ok := advices[n]; ok {
			e.Field, e.Msg, e.Hint, e.Upstream = a.field, a.msg, a.hint, fmt.Sprintf("AADSTS%d", n)
			if a.code != "" {
				e.Code = a.code
			}
			return e
		}
	}
	if len(codes) > 0 {
		e.Upstream = fmt.Sprintf("AADSTS%d", codes[0])
	}
	switch oauthError {
	case "invalid_client", "unauthorized_client":
		e.Msg, e.Hint = "the sign-in service does not accept the application's credential", "check client id, tenant and secret or certificate"
	case "invalid_scope", "invalid_resource":
		e.Field, e.Msg, e.Hint = "url", "the sign-in service does not know the organization's address", "check the address and that the tenant is the organization's own"
	case "":
		e.Code, e.Msg, e.Hint = lockstep.CodeUnavailable, "what answers at the authority is not a sign-in service", "check the authority"
	default:
		e.Msg, e.Hint = "the sign-in service refused to issue a token", "check the app registration"
	}
	if e.Upstream != "" {
		e.Msg += " (" + e.Upstream + ")"
	}
	return e
}
