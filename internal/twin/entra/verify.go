package entra

import (
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"math/big"
	"net/http"
	"strings"
	"time"
)

// Why Verify refuses a token.
var (
	ErrSignature = errors.New("the token is not signed by this directory")
	ErrExpired   = errors.New("the token is expired or not yet valid")
	ErrTenant    = errors.New("the token was issued for another tenant")
	ErrAudience  = errors.New("the token was issued for another resource")
)

// Claims are what a token states.
type Claims struct {
	Audience  string // the resource as it was requested
	Issuer    string
	Tenant    string
	AppID     string // client id
	ObjectID  string // of the service principal
	IssuedAt  time.Time
	NotBefore time.Time
	Expires   time.Time
}

// maxVerified bounds the cache of checked signatures.
const maxVerified = 256

// Verify checks a token and returns its claims. It distinguishes ErrSignature,
// ErrTenant, ErrAudience and ErrExpired, in this order; the claims are returned
// with all but ErrSignature. The audience is compared without regard to case and
// trailing slash; an empty one is not checked. Times are those of the twins'
// clock without allowance, except that a token of a clock up to five minutes
// ahead is already valid.
func (s *Service) Verify(token, audience string) (Claims, error) {
	c, err := s.signedClaims(token)
	if err != nil {
		return Claims{}, err
	}
	now := s.clock.Now()
	switch {
	case !strings.EqualFold(c.Tenant, s.tenant):
		return c, ErrTenant
	case audience != "" && normalResource(audience) != normalResource(c.Audience):
		return c, ErrAudience
	case !now.Before(c.Expires), c.NotBefore.After(now.Add(skew)):
		return c, ErrExpired
	}
	return c, nil
}

// signedClaims checks the signature, once a token.
func (s *Service) signedClaims(token string) (Claims, error) {
	id := sha256.Sum256([]byte(token))
	s.mu.Lock()
	c, ok := s.verified[id]
	s.mu.Unlock()
	if ok {
		return c, nil
	}
	var head struct {
		Alg string `json:"alg"`
		Key string `json:"kid"`
	}
	var claims struct {
		Audience  string `json:"aud"`
		Issuer    string `json:"iss"`
		Tenant    string `json:"tid"`
		AppID     string `json:"appid"`
		ObjectID  string `json:"oid"`
		IssuedAt  int64  `json:"iat"`
		NotBefore int64  `json:"nbf"`
		Expires   int64  `json:"exp"`
	}
	signed, signature, err := splitJWT(token, &head, &claims)
	if err != nil || head.Alg != "RS256" || head.Key != s.keyID {
		return Claims{}, ErrSignature
	}
	digest := sha256.Sum256([]byte(signed))
	if rsa.VerifyPKCS1v15(&s.key.PublicKey, crypto.SHA256, digest[:], signature) != nil {
		return Claims{}, ErrSignature
	}
	at := func(n int64) time.Time { return time.Unix(n, 0).UTC() }
	c = Claims{
		Audience: claims.Audience, Issuer: claims.Issuer, Tenant: claims.Tenant, AppID: claims.AppID, ObjectID: claims.ObjectID,
		IssuedAt: at(claims.IssuedAt), NotBefore: at(claims.NotBefore), Expires: at(claims.Expires),
	}
	s.mu.Lock()
	if len(s.verified) >= maxVerified {
		clear(s.verified)
	}
	s.verified[id] = c
	s.mu.Unlock()
	return c, nil
}

// keys serves the public key as a JSON web key set.
func (s *Service) keys(w http.ResponseWriter, r *http.Request) {
	tenant := r.PathValue("tenant")
	if !s.isTenant(tenant) && !strings.EqualFold(tenant, "common") && !strings.EqualFold(tenant, "organizations") {
		s.refuse(w, s.unknownTenant(tenant))
		return
	}
	writeJSON(w, http.StatusOK, map[string]any{"keys": []map[string]any{{
		"kty": "RSA", "use": "sig", "alg": "RS256", "kid": s.keyID, "x5t": s.keyID,
		"n": base64.RawURLEncoding.EncodeToString(s.key.N.Bytes()),
		"e": base64.RawURLEncoding.EncodeToString(big.NewInt(int64(s.key.E)).Bytes()),
	}}})
}
