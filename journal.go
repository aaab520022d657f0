package lockstep

// StoredBlob is one stored piece of an append-only log: link batches of an
// account, membership batches of a list. Later ids override earlier ones.
type StoredBlob struct {
	ID      int64
	Payload []byte
}

// BlobRange names Length bytes from Offset of a stored blob.
type BlobRange struct {
	Blob           int64
	Offset, Length int
}

// MemberBlob appends to the membership log of one list.
type MemberBlob struct {
	List    string // list settings id
	Payload []byte
}

// BatchEnd is the outcome of a journalled batch.
type BatchEnd struct {
	ID    int64
	State ChangeState
	// Payload replaces the planned payload when it is not nil: the same changes
	// with each one's own state and cause.
	Payload []byte
}

// Commit is everything that follows from one acknowledged step of a run. It is
// stored in one transaction: all of it or nothing. Cursors move only here.
type Commit struct {
	Run     string
	Account string

	Batches  []BatchEnd
	Links    [][]byte // new link batches
	LinkIDs  []int64  // when as long as Links: receives the ids under which they are stored
	Members  []MemberBlob
	Findings []Finding
	// Retries say when records are tried again that a side did not take; Taken are those
	// that wait no more.
	Retries []Retry
	Taken   []Ref
	// Conflicts are appended; one with the ID of an earlier, unresolved conflict
	// replaces it.
	Conflicts []Conflict
	// Cursors are set by name; an empty cursor forgets the name.
	Cursors map[string]Cursor

	// Consent is appended to the ledger; an entry that is there already, by id, is
	// left alone. Restrictions are replaced by id; Lifted are those that stand no
	// longer. One with a Stamp was read before: it is left as it is if it was stored
	// anew or lifted since, so that nobody's word is lost to what others did with the
	// one before it.
	Consent      []ConsentEntry
	Restrictions []Restriction
	Lifted       []Restriction
	// Choices are replaced by id.
	Choices []Choice

	Lists    []ListSettings // replaced by id
	Labels   []DataLabel    // replaced by id
	Mappings []DataMapping  // replaced by id

	// DropLinks and DropMembers are ids of blobs that Links and Members of the
	// same commit replace (compaction).
	DropLinks   []int64
	DropMembers []int64

	// Counts is added to the run's counts; Calls replaces the run's calls when it
	// is not zero; Stage replaces the run's stage when it is not empty.
	Counts Counts
	Calls  Calls
	Stage  string
	// Price, when set, is how many calls the run is expected to make.
	Price *Price
	// Progress replaces the engine's private state of the run when it is not nil.
	Progress []byte
}
