// Package dotdigital emulates Dotdigital accounts over HTTP: lists, contacts in
// both API versions, bulk imports, removals, the suppression model, marketing
// preferences, data fields, custom identifiers, segments, campaigns, sends and
// their engagement.
// Everything it answers is computed from what was written; operations that it
// does not emulate answer 501 and say so.
//
// # Readings
//
// Where the vendor's documentation is silent or contradicts itself, the twin
// takes the reading that is harder on a client:
//
// Time. A contact's "updated" moves with every accepted write, also one that
// changes no value, and with joining or leaving a list, status changes and
// list-level unsubscribes. Simulated opens and clicks do not move it.
//
// Reads. The v3 listing returns every contact outside the recycle bin whatever
// its status, ascending by contactId; a contact in the bin is not found until a
// write by one of its identifiers restores it. The v2 contact reads leave out
// unsubscribed, suppressed and bounced contacts and those without an address.
// v2 pages are offsets into live data in order of id, so rows shift while a
// client pages. A v2 select above 1000 is refused, not cut. Blank data fields
// are printed as null.
//
// Suppression. suppressed-since holds one row a contact that is suppressed now,
// in order of id; the row vanishes with a resubscription, and unsubscribing
// somebody who already is keeps the first dateRemoved. A suppression by the
// account owner or a bounce ends all memberships as an unsubscribe does. They do
// not come back with a resubscription or out of the recycle bin, while a
// list-level opt-out survives both. Hard bounces and complaints cannot be
// undone through the API. An account-level unsubscribe adds no row to the
// unsubscribed-since of lists. A v3 write with status subscribed resubscribes
// an unsubscribed contact whether or not it carries resubscribeOptions.
//
// Writes. v3 values must have the JSON type of their field; v2 calls and files
// may send text. An unknown data field or a wrong value refuses the whole
// contact (failure code InvalidContact; 400 contacts:invalidContacts). Dates
// before 1753 overflow. A write with lists to a suppressed contact stores the
// data, joins no list, and is reported as GloballySuppressed; a list that the
// contact left by itself is not joined and reported as InvalidAddressBookIds,
// and one bad list keeps the contact out of all lists of its row. Contacts twice
// in one import: the second row fails as Duplicate. Names in v3 bodies are case
// sensitive, custom identifiers included; enum values are not. The opt-in type of
// a new contact is Unknown when absent. verifiedDouble makes a subscribed
// contact pendingOptIn until Confirm. Preferences and custom identifiers are
// additive. resubscribeOptions are closed and not taken by the creation of a contact.
//
// Preferences. Who never answered is shown as not opted in by the tree of a
// contact and not at all by v3, subscriptions and opt-ins-since. A preference
// that changes moves dateModifed when the answer is another one, and it does not
// move the contact's "updated" unless the write wrote something else too: reads of
// modified contacts do not tell. opt-ins-since tells answers either way.
// minContactId is the first id that may come, not the last one that came. These
// reads leave out contacts that other v2 reads leave out, and v2 refuses to write
// preferences of suppressed contacts, which v3 and the contacts themselves can.
// addressBookId is always 0. One bad entry refuses all of a call. Public names are
// unique among siblings and hold no >; categories are not nested. modified-since
// shows a changed preference without its category when that has not changed.
// order is text in reads and a number in the answers of writes. In files
// "Preference:Name" means one outside of categories, by public names; another word
// than true or false, and consent columns without a text, refuse the row.
//
// Challenges. A contact that was asked whether to resubscribe is as suppressed as
// before until it answers; leaving again takes the question back. Only who
// unsubscribed can come back by a form: a suppression by the owner, a bounce and a
// complaint are not the person's to end.
//
// Imports. Rows take effect when the request is answered; status and results
// show on the twins' clock. created and updated repeat the identifiers as they
// were sent. Results are kept for a week. A body over 50 MB answers 413. An
// import-collection that names an unknown data field is refused as a whole;
// unknown columns of a file are ignored. Spreadsheets answer 501.
//
// Errors. 429 carries {"message"} in v2 and contacts:tooManyRequests in v3,
// without Retry-After. A wrong region answers 403 in the shape of the API
// version. Deleting a data field in use answers 409. An unknown removal job
// answers 404 ERROR_IMPORT_NOT_FOUND. Lists of ids in one call are limited to
// 5,000.
//
// Sends. A send without a target is refused. A single recipient that is not
// subscribed refuses the send; in lists such members are passed over. sendDate
// without a zone is UTC. Who never opened has null as dateFirstOpened.
package dotdigital
