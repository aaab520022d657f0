package signin

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1" //nolint:gosec // AD FS names certificates by their SHA-1; it is a name, not a protection.
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"time"

	"github.com/lockstep-sync/lockstep"
)

type certificate struct {
	der []byte
	key *rsa.PrivateKey
}

func parseCertificate(text string) (*certificate, error) {
	bad := func(msg, hint string) error {
		return &lockstep.Error{Code: lockstep.CodeInvalid, Field: "certificate", Msg: msg, Hint: hint}
	}
	if len(text) > 1<<20 {
		return nil, bad("the certificate is longer than 1 MB", "paste the certificate and its key only")
	}
	c := &certificate{}
	for rest := []byte(text); ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		switch block.Type {
		case "CERTIFICATE":
			if c.der == nil {
				if _, err := x509.ParseCertificate(block.Bytes); err != nil {
					return nil, bad("the certificate cannot be read", "export it again as PEM")
				}
				c.der = block.Bytes
			}
		case "PRIVATE KEY":
			k, err := x509.ParsePKCS8PrivateKey(block.Bytes)
			key, ok := k.(*rsa.PrivateKey)
			if err != nil || !ok {
				return nil, bad("the certificate's key is not an RSA key", "the sign-in service accepts RSA certificates only")
			}
			c.key = key
		case "RSA PRIVATE KEY":
			key, err := x509.ParsePKCS1PrivateKey(block.Bytes)
			if err != nil {
				return nil, bad("the certificate's key cannot be read", "export it again as PEM without a password")
			}
			c.key = key
		case "ENCRYPTED PRIVATE KEY":
			return nil, bad("the certificate's key is encrypted", "export it without a password; it is kept sealed here")
		}
	}
	switch {
	case c.der == nil:
		return nil, bad("there is no certificate in the text", "paste the PEM block that begins with BEGIN CERTIFICATE, and the key")
	case c.key == nil:
		return nil, bad("the certificate's private key is missing", "paste the PEM block that begins with BEGIN PRIVATE KEY, too")
	}
	leaf, _ := x509.ParseCertificate(c.der)
	if pub, ok := leaf.PublicKey.(*rsa.PublicKey); !ok || !pub.Equal(&c.key.PublicKey) {
		return nil, bad("the private key does not belong to the certificate", "paste the key that the certificate was made with")
	}
	return c, nil
}

// assertion proves the possession of the key to the endpoint at audience, for ten
// minutes. AD FS knows only the older algorithm and name of the certificate.
func (c *certificate) assertion(audience, clientID string, now time.Time, onPremises bool) (string, error) {
	encode := func(v any) string {
		b, _ := json.Marshal(v) // maps of strings and numbers
		return base64.RawURLEncoding.EncodeToString(b)
	}
	header := map[string]string{"typ": "JWT"}
	if onPremises {
		sum := sha1.Sum(c.der) //nolint:gosec // see import
		header["alg"], header["x5t"] = "RS256", base64.RawURLEncoding.EncodeToString(sum[:])
	} else {
		sum := sha256.Sum256(c.der)
		header["alg"], header["x5t#S256"] = "PS256", base64.RawURLEncoding.EncodeToString(sum[:])
	}
	signed := encode(header) + "." + encode(map[string]any{
		"aud": audience, "iss": clientID, "sub": clientID, "jti": rand.Text(),
		"iat": now.Unix(), "nbf": now.Unix(), "exp": now.Add(10 * time.Minute).Unix(),
	})
	digest := sha256.Sum256([]byte(signed))
	var sig []byte
	var err error
	if onPremises {
		sig, err = rsa.SignPKCS1v15(rand.Reader, c.key, crypto.SHA256, digest[:])
	} else {
		sig, err = rsa.SignPSS(rand.Reader, c.key, crypto.SHA256, digest[:], &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash})
	}
	return signed + "." + base64.RawURLEncoding.EncodeToString(sig), err
}
