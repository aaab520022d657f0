package lockstep

import (
	"context"
	"strings"
)

// SchemaAction is what happens to a component of the CRM.
type SchemaAction string

// The actions.
const (
	SchemaCreate  SchemaAction = "create"
	SchemaChange  SchemaAction = "change"  // in place, without loss
	SchemaWait    SchemaAction = "wait"    // for the CRM, which builds the index of a key
	SchemaPublish SchemaAction = "publish" // make what was changed visible to the CRM's users
	SchemaDelete  SchemaAction = "delete"
	SchemaBlocked SchemaAction = "blocked" // a difference that a person has to repair; Problem says why
)

// SchemaKind is a kind of component.
type SchemaKind string

// The kinds.
const (
	SchemaPublisher SchemaKind = "publisher"
	SchemaSolution  SchemaKind = "solution"
	SchemaTable     SchemaKind = "table"
	SchemaColumn    SchemaKind = "column"
	SchemaKey       SchemaKind = "key"
	SchemaWebhook   SchemaKind = "webhook" // an address that the CRM calls
	SchemaMessage   SchemaKind = "message" // what it calls it for: a message of a table
)

// SchemaStep is one step of adding our components to the CRM, or of removing them.
type SchemaStep struct {
	Action SchemaAction `json:"action"`
	Kind   SchemaKind   `json:"kind"`
	// Table is the table of a column or key; empty otherwise.
	Table  string `json:"table,omitempty"`
	Name   string `json:"name"`             // logical name
	Detail string `json:"detail,omitempty"` // in words: type, length, columns
	// Rows is how many rows of the CRM lose something by a deletion. It may be a day
	// old.
	Rows int64 `json:"rows,omitempty"`
	// Problem says why a step is blocked, and Hint what a person can do.
	Problem string `json:"problem,omitempty"`
	Hint    string `json:"hint,omitempty"`
}

// String describes the step in one line.
func (s SchemaStep) String() string {
	var b strings.Builder
	b.WriteString(string(s.Action) + " " + string(s.Kind) + " ")
	if s.Table != "" {
		b.WriteString(s.Table + ".")
	}
	b.WriteString(s.Name)
	if s.Detail != "" {
		b.WriteString(": " + s.Detail)
	}
	if s.Problem != "" {
		b.WriteString(": " + s.Problem)
	}
	return b.String()
}

// SchemaInstaller is a CRM that our tables and columns can be added to.
type SchemaInstaller interface {
	// PlanSchema compares the CRM with what we need and writes nothing. No steps
	// mean that everything is there.
	PlanSchema(ctx context.Context) ([]SchemaStep, error)
	// InstallSchema carries out what PlanSchema names, and does nothing when a step
	// is blocked. It can be stopped and begun again anywhere. each is told a step
	// before it is taken, and before each look at a key that is being built; an
	// error of it ends the work there and is returned as is.
	InstallSchema(ctx context.Context, each func(SchemaStep) error) error
	// PlanSchemaRemoval names what removing our components deletes, with the rows
	// that are lost.
	PlanSchemaRemoval(ctx context.Context) ([]SchemaStep, error)
	// RemoveSchema deletes our components and what is in them. each as in
	// InstallSchema.
	RemoveSchema(ctx context.Context, each func(SchemaStep) error) error
}

// OwnTables are the tables that we bring to the CRM.
var OwnTables = []string{SuppressionTable, UnsubscriberTable, PreferenceTable, ChoiceTable}
