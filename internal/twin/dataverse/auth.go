package dataverse

import (
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/lockstep-sync/lockstep/internal/twin/dataverse/query"
	"github.com/lockstep-sync/lockstep/internal/twin/dataverse/schema"
	"github.com/lockstep-sync/lockstep/internal/twin/dataverse/store"
	"github.com/lockstep-sync/lockstep/internal/twin/dataverse/value"
)

// Token is what a bearer token proves.
type Token struct {
	// AppID is the client id of the application.
	AppID string
	// ObjectID is the directory object of a signed-in user; empty for a token of
	// an application alone.
	ObjectID string
	// Audience is the resource the token was issued for.
	Audience string
	// Tenant is the directory that issued it.
	Tenant string
	// Expires is the end of its life on the twins' clock.
	Expires time.Time
}

// TokenVerifier checks signature and form of a bearer token. The twin itself
// checks audience, directory and expiry.
type TokenVerifier interface {
	VerifyToken(token string) (Token, error)
}

// VerifierFunc makes a TokenVerifier of a function.
type VerifierFunc func(token string) (Token, error)

// VerifyToken calls f.
func (f VerifierFunc) VerifyToken(token string) (Token, error) { return f(token) }

// principal is the user on whose behalf a call runs.
type principal struct {
	id     value.ID
	real   value.ID // the caller behind an impersonation, else id
	unit   value.ID
	rights privileges
}

// privileges maps a privilege name to its depth mask: 1 user, 2 business unit,
// 4 parent and child units, 8 organization.
type privileges map[string]int

const (
	userDepth   = 1
	globalDepth = 8
)

// authenticate answers with the calling user, or with the refusal to send.
func (s *Server) authenticate(r *http.Request) (*principal, *answer) {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") || token == "" {
		return nil, s.challenge()
	}
	if _, hit := s.faults.Take("dataverse", "token-expire", operation(r)); hit {
		return nil, s.challenge()
	}
	proof, err := s.opt.Tokens.VerifyToken(strings.TrimSpace(token))
	if err != nil || !s.accepts(proof) {
		return nil, s.challenge()
	}
	u, refusal := s.principalOf(proof)
	if refusal != nil {
		return nil, s.refusal(refusal, strings.HasPrefix(r.URL.Path, "/api/data/v8"), nil)
	}
	return u, nil
}

func (s *Server) accepts(t Token) bool {
	if !t.Expires.IsZero() && !s.clock.Now().Before(t.Expires) {
		return false
	}
	if s.opt.TenantID != "" && !strings.EqualFold(t.Tenant, s.opt.TenantID) {
		return false
	}
	return strings.EqualFold(strings.TrimRight(t.Audience, "/"), s.BaseURL())
}

// challenge is the 401 answer from which clients learn the authority.
func (s *Server) challenge() *answer {
	return (&answer{status: http.StatusUnauthorized}).set("Www-Authenticate",
		fmt.Sprintf("Bearer authorization_uri=%s/oauth2/authorize, resource_id=%s/", strings.TrimSuffix(s.opt.Authority, "/"), s.BaseURL()))
}

// principalOf finds the user row of a token. The token of an application needs
// an application user, that of a person the person's user.
func (s *Server) principalOf(t Token) (*principal, *apiError) {
	column, id := "applicationid", t.AppID
	if t.ObjectID != "" {
		column, id = "azureactivedirectoryobjectid", t.ObjectID
	}
	notMember := fail(http.StatusForbidden, codeNotMember, "The user is not a member of the organization.")
	wanted, err := value.ParseID(id)
	if err != nil {
		return nil, notMember
	}
	users := s.sch.Load().Table("systemuser")
	ord := int(users.Column(column).Ord)
	for _, row := range s.store.View().Find(nil, "systemuser", columnIndex(column), store.Hash(value.GUID(wanted)), value.ID{}, 10) {
		if row.Value(ord).GUID() == wanted {
			return s.admitted(users, row)
		}
	}
	return nil, notMember
}

func (s *Server) admitted(users *schema.Table, row *store.Row) (*principal, *apiError) {
	if row.Value(int(users.Column("isdisabled").Ord)).Bool() {
		return nil, fail(http.StatusForbidden, codeUserDisabled, "The specified user(Id = %s) is disabled. Consider enabling this user.", row.ID)
	}
	rights, roles := s.rightsOf(row.ID)
	if roles == 0 {
		return nil, fail(http.StatusForbidden, codeNoRoles, "The user with id %s has not been assigned any roles. They need a role with the prvReadUser privilege.", row.ID)
	}
	return &principal{id: row.ID, real: row.ID, unit: row.Value(int(users.Column("businessunitid").Ord)).GUID(), rights: rights}, nil
}

// rightsOf adds up the privileges of a user's roles. The sums are kept until a
// role, an assignment or a grant changes.
func (s *Server) rightsOf(user value.ID) (privileges, int) {
	view := s.store.View()
	stamp := max(view.Touched("systemuserroles"), view.Touched("roleprivileges"))
	s.privMu.Lock()
	defer s.privMu.Unlock()
	if stamp != s.privAt {
		clear(s.privCache)
		s.privAt = stamp
	}
	sch := s.sch.Load()
	assigned, grants, names := sch.Table("systemuserroles"), sch.Table("roleprivileges"), sch.Table("privilege")
	roles := view.Find(nil, assigned.Name, columnIndex("systemuserid"), store.Hash(value.GUID(user)), value.ID{}, 100)
	if rights, ok := s.privCache[user]; ok {
		return rights, len(roles)
	}
	rights := privileges{}
	for _, a := range roles {
		role := a.Value(int(assigned.Column("roleid").Ord))
		for _, g := range view.Find(nil, grants.Name, columnIndex("roleid"), store.Hash(role), value.ID{}, 100_000) {
			p := view.Get("privilege", g.Value(int(grants.Column("privilegeid").Ord)).GUID())
			if p == nil {
				continue
			}
			rights[p.Value(int(names.Column("name").Ord)).Text()] |= int(g.Value(int(grants.Column("privilegedepthmask").Ord)).Int())
		}
	}
	s.privCache[user] = rights
	return rights, len(roles)
}

// impersonate replaces the call's user by the one its headers name.
func (c *call) impersonate() *apiError {
	var column string
	id := c.header.Get("CallerObjectId")
	if id != "" {
		column = "azureactivedirectoryobjectid"
	} else if id = c.header.Get("MSCRMCallerID"); id != "" {
		column = "systemuserid"
	}
	if id == "" {
		return nil
	}
	wanted, err := value.ParseID(id)
	if err != nil {
		return badRequest("The impersonated user '%.60s' is not a GUID.", id)
	}
	users := c.sch.Table("systemuser")
	row := c.view.Get("systemuser", wanted)
	if column != "systemuserid" {
		row = nil
		for _, r := range c.view.Find(nil, "systemuser", columnIndex(column), store.Hash(value.GUID(wanted)), value.ID{}, 10) {
			if r.Value(int(users.Column(column).Ord)).GUID() == wanted {
				row = r
			}
		}
	}
	if row == nil || c.user.rights["prvActOnBehalfOfAnotherUser"] == 0 {
		return fail(http.StatusForbidden, codeCannotActOnBehalf, "The user %s cannot act on behalf of the user %s.", c.user.id, wanted)
	}
	other, refusal := c.s.admitted(users, row)
	if refusal != nil {
		return refusal
	}
	both := privileges{}
	for name, depth := range other.rights {
		if own := c.user.rights[name]; own != 0 {
			both[name] = min(own, depth)
		}
	}
	other.rights, other.real = both, c.user.real
	c.user = other
	return nil
}

// privilegeName is the privilege that guards a verb on a table. Activities share
// one set of privileges, list members follow their list.
func privilegeName(verb string, t *schema.Table) string {
	switch {
	case t.Activity:
		return "prv" + verb + "Activity"
	case t.Name == "listmember":
		return "prv" + verb + "List"
	case t.Name == "systemuser":
		return "prv" + verb + "User"
	case t.Name == "systemuserroles" || t.Name == "roleprivileges" || t.Name == "privilege":
		return "prv" + verb + "Role"
	case t.Name == "campaignitem":
		return "prv" + verb + "Campaign"
	}
	return "prv" + verb + t.SchemaName
}

// need refuses a call whose user lacks a verb on a table.
func (c *call) need(verb string, t *schema.Table) *apiError {
	switch t.Name {
	case "sdkmessage", "sdkmessagefilter":
		if verb == "Read" {
			return nil // readable by everyone
		}
	}
	return c.needPrivilege(privilegeName(verb, t), t)
}

func (c *call) needPrivilege(name string, t *schema.Table) *apiError {
	if c.user.rights[name] != 0 {
		return nil
	}
	on := ""
	if t != nil {
		on = fmt.Sprintf(", entity '%s' (OTC=%d)", t.Name, t.Code)
	}
	return fail(http.StatusForbidden, codePrivilege,
		"Principal user (Id=%s, type=8, roleCount=1) is missing %s privilege on the organization%s.", c.user.id, name, on)
}

// reach returns which rows the caller's rights to read cover, nil when that is all of
// every table: at user depth those that the user owns, and at the depths of business units
// those of the user's own.
func (c *call) reach() func(table string, r query.Row) bool {
	limited := false
	for name, depth := range c.user.rights {
		limited = limited || depth < globalDepth && strings.HasPrefix(name, "prvRead")
	}
	if !limited {
		return nil
	}
	return func(table string, r query.Row) bool {
		t := c.sch.Table(table)
		depth := c.user.rights[privilegeName("Read", t)]
		owner, unit := t.Column("ownerid"), t.Column("owningbusinessunit")
		switch {
		case depth >= globalDepth || owner == nil || unit == nil:
			return true
		case depth == userDepth:
			return r.Value(int(owner.Ord)).GUID() == c.user.id
		}
		return r.Value(int(unit.Ord)).GUID() == c.user.unit
	}
}

// outOfReach refuses to show a row that there is.
func (c *call) outOfReach(t *schema.Table, id value.ID) *apiError {
	return fail(http.StatusForbidden, codePrivilege,
		"Principal user (Id=%s, type=8) is missing %s privilege at the depth that the row %s of entity '%s' needs.", c.user.id, privilegeName("Read", t), id, t.Name)
}

// bypass checks the right to the headers that switch customers' logic off. There
// is no such logic in the twin to skip.
func (c *call) bypass() *apiError {
	for header, privilege := range map[string]string{
		"MSCRM.BypassBusinessLogicExecution":            "prvBypassCustomBusinessLogic",
		"MSCRM.BypassBusinessLogicExecutionStepIds":     "prvBypassCustomBusinessLogic",
		"MSCRM.SuppressCallbackRegistrationExpanderJob": "prvBypassCustomBusinessLogic",
		"MSCRM.BypassCustomPluginExecution":             "prvBypassCustomPlugins",
	} {
		if c.header.Get(header) != "" {
			if err := c.needPrivilege(privilege, nil); err != nil {
				return err
			}
		}
	}
	return nil
}
