package lockstep

import "context"

// WebhookHeader carries the secret of a webhook in each of its calls.
const WebhookHeader = "X-Lockstep-Key"

// Webhook says where the CRM shall tell that something changed, and of which changes.
// A call says no more than that: what changed is read from the CRM.
type Webhook struct {
	// ID is the installation's own name for the webhook. The registration's ids in the
	// CRM follow from it, so that registering twice is noticed.
	ID string
	// Base is the address under which the CRM reaches Lockstep, without a trailing
	// slash; URL, below it, is what the CRM calls.
	Base, URL string
	// Secret is sent in the header WebhookHeader: at least 256 random bits in the
	// characters of unpadded base64url.
	Secret string
	// Columns names the tables of people, and for each the columns whose updates are
	// worth a call.
	Columns map[string][]string
}

// WebhookInstaller is a CRM that can tell of changes at once.
type WebhookInstaller interface {
	// PlanWebhook compares what is registered with what the webhook wants, and writes
	// nothing. No steps mean that all is registered. CodeInvalid with the field url when
	// the CRM could not or should not call that address; CodeForbidden names what the
	// user of the connection lacks.
	PlanWebhook(ctx context.Context, w Webhook) ([]SchemaStep, error)
	// InstallWebhook carries out what PlanWebhook names. It can be stopped and begun
	// again anywhere. each is told a step before it is taken; an error of it ends the
	// work there and is returned as is.
	InstallWebhook(ctx context.Context, w Webhook, each func(SchemaStep) error) error
	// PlanWebhookRemoval names what of a webhook is registered.
	PlanWebhookRemoval(ctx context.Context, id string) ([]SchemaStep, error)
	// RemoveWebhook takes the registration of a webhook away. each as in InstallWebhook.
	RemoveWebhook(ctx context.Context, id string, each func(SchemaStep) error) error
}
