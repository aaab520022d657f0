package lockstep

import "context"

// ContactQuery says which contacts and data fields to read.
type ContactQuery struct {
	// Since reads only contacts changed since this cursor; empty = all.
	Since Cursor
	// Book restricts to the members of one address book; empty = the account.
	Book BookID
	// Fields are the data fields wanted, in the order of Contact.Values.
	Fields []string
	// Memberships asks for Contact.Books.
	Memberships bool
}

// ContactWrite creates a contact or changes one.
type ContactWrite struct {
	// Contact is the contact to change; empty = the one with Email, created when
	// there is none.
	Contact ContactID
	// Email is the address: the match when Contact is empty, otherwise the
	// address the contact is to have (a rename when it had another), or empty
	// to leave it.
	Email string
	// Values has one value for each field of the import: Absent leaves the
	// platform's value alone, Null clears it.
	Values []Value
	// Books are address books to add the contact to.
	Books []BookID
}

// JobID names a job that the platform works on after its answer.
type JobID string

// ContactResult is what became of one ContactWrite.
type ContactResult struct {
	// Email and Contact name the row: Contact is set when the platform told its
	// id, Email is normalised and may be empty when Contact was the match.
	Email   string
	Contact ContactID
	Created bool
	// Fault says why the row, or a part of it, was refused; nil = accepted.
	Fault *Error
}

// Platform is what the engine needs of every email platform account. All methods
// are safe for concurrent use, obey ctx, and answer with *Error.
type Platform interface {
	// Identity asks who answers.
	Identity(ctx context.Context) (AccountIdentity, error)
	FieldKeeper
	BookKeeper
	ContactReader
	ContactImporter
}

// FieldKeeper reads and makes contact data fields.
type FieldKeeper interface {
	Fields(ctx context.Context) ([]DataField, error)
	// CreateField makes a field. One that exists with the same type is no error;
	// with another type it is CodeConflict.
	CreateField(ctx context.Context, f DataField) error
}

// BookKeeper reads and makes address books.
type BookKeeper interface {
	// Books reads all address books, the platform's own included.
	Books(ctx context.Context) ([]AddressBook, error)
	// CreateBook makes an address book. CodeConflict when the name is taken,
	// CodeInvalid when it is reserved or malformed.
	CreateBook(ctx context.Context, name string) (AddressBook, error)
	RenameBook(ctx context.Context, id BookID, name string) error
	// RemoveFromBook starts removing contacts from a book; they stay in the
	// account. At most MaxRemove contacts a call.
	RemoveFromBook(ctx context.Context, id BookID, contacts []ContactID) (JobID, error)
	// AwaitRemoval waits until a removal has ended. CodeUnavailable with
	// ctx.Err() as cause means that it has not; ask again later.
	AwaitRemoval(ctx context.Context, job JobID) error
	// MaxRemove is the most contacts that RemoveFromBook takes.
	MaxRemove() int
}

// ContactReader reads contacts.
type ContactReader interface {
	// Contacts reads contacts in pages and returns the cursor for the next time.
	// Reading may deliver a contact again that was delivered before; it never
	// leaves one out.
	Contacts(ctx context.Context, q ContactQuery, each func([]Contact) error) (Cursor, error)
	// Contact reads one contact by its normalised address. CodeNotFound.
	Contact(ctx context.Context, email string, fields []string) (Contact, error)
	// ContactByID reads one contact, whatever address it has now. CodeNotFound.
	ContactByID(ctx context.Context, id ContactID, fields []string) (Contact, error)
}

// ContactImporter writes contacts in bulk. An import is accepted first and
// carried out later: only AwaitImport tells what became of each row.
type ContactImporter interface {
	// Import hands rows over. The rows may be reused after it returns.
	// CodeThrottled when too many imports are under way.
	Import(ctx context.Context, fields []string, rows []ContactWrite) (JobID, error)
	// AwaitImport waits until the import has ended and reads its result and its
	// faults. A row that is mentioned in neither is delivered by nobody: the
	// caller must not count it as written. CodeUnavailable with ctx.Err() as
	// cause means that the import has not ended; CodeNotFound that the platform
	// does not know the job (any more).
	AwaitImport(ctx context.Context, job JobID, each func([]ContactResult) error) error
	// MaxImport is the most rows that Import takes.
	MaxImport() int
}
