// Package dynamics registers the Microsoft Dynamics adapter: the settings of a
// connection and how it is opened.
package dynamics

import (
	"context"

	"github.com/lockstep-sync/lockstep"
	"github.com/lockstep-sync/lockstep/internal/adapter"
	"github.com/lockstep-sync/lockstep/internal/adapter/dynamics/webapi"
)

// Step is one step of a connection test.
type Step = webapi.Step

// Tester is what an opened connection can do besides the CRM port: say which step
// of the connection fails, why, and what to do about it.
type Tester interface {
	ConnectTest(ctx context.Context) []Step
}

var _ Tester = (*webapi.Client)(nil)

// Kind describes the adapter to the register.
func Kind() adapter.Kind {
	return adapter.Kind{
		Name:  "dynamics",
		Title: "Microsoft Dynamics",
		Options: []adapter.Option{
			{
				Name: "url", Title: "Organization address", Type: adapter.URL, Required: true, Example: "https://contoso.crm4.dynamics.com",
				Help: "The address that the browser shows when Dynamics is open, up to the host name.",
			},
			{
				Name: "tenant", Title: "Tenant", Type: adapter.Text, Example: "contoso.onmicrosoft.com",
				Help: "The Directory (tenant) ID or domain. Leave it empty to have the organization name it.",
			},
			{
				Name: "client_id", Title: "Client id", Type: adapter.Text, Required: true, Example: "22222222-0000-0000-0000-000000000002",
				Help: "The Application (client) ID of the app registration that is an application user of the organization.",
			},
			{
				Name: "client_secret", Title: "Client secret", Type: adapter.Secret,
				Help: "The Value of a client secret of the app registration, not its Secret ID.",
			},
			{
				Name: "certificate", Title: "Certificate", Type: adapter.Secret,
				Help: "Instead of a secret: a certificate and its RSA private key in PEM form.",
			},
			{
				Name: "authority", Title: "Authority", Type: adapter.URL, Example: "https://login.microsoftonline.com",
				Help: "The sign-in service. Leave it empty to have the organization name it; AD FS needs its address, ending in /adfs.",
			},
		},
		OpenCRM: func(ctx context.Context, s adapter.Settings, env adapter.Env) (lockstep.CRM, error) {
			c, err := webapi.Open(ctx, s, env)
			if err != nil {
				return nil, err // not a nil *Client in a non-nil CRM
			}
			return c, nil
		},
	}
}
