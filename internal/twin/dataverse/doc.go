// Package dataverse is a faithful local emulator of one Dataverse organization:
// its Web API (versions 8.2 to 9.2) and the discovery service, with the tables
// that a marketing integration touches, real rows behind them, and real rules:
// users, roles and privileges, column lengths, ranges and options, alternate
// keys, row versions, change tracking, batches, bulk messages, marketing lists,
// definitions that can be extended, service protection limits.
//
// New makes an organization, AddApplicationUser lets a client in, Loader fills
// tables with many rows, Handler serves it all over HTTP. The data lives in
// memory (package store); SaveSnapshot and LoadSnapshot keep it between runs.
//
// # Readings chosen where the documentation is silent
//
// The stricter or for a client less comfortable reading was taken:
//
//   - Values sent for columns that the platform maintains (fullname, createdon,
//     modifiedon, owninguser …) are dropped without an error.
//   - An unknown property, a lookup under _name_value, a wrong type or a wrong
//     navigation name in a body is 400 0x80048d19; a wrong $select, $filter or
//     key predicate 0x80060888; an unknown set, property or message 404 0x8006088A.
//   - Unknown statecode and statuscode values are 0x80048408; a double out of
//     range 0x80061004, money 0x80040317.
//   - Money is rounded to the precision of its column and stored with four places.
//   - A record and its alternate key are compared as the database does: text
//     without regard to case. Rows with a null in a key column are free.
//   - A new alternate key goes from Pending over InProgress to Active, or Failed,
//     one step each time its definition is read.
//   - listmember and all other intersect tables cannot be tracked (0x80072492).
//     Tracking needs the right to read at organization depth. $count and $apply
//     are refused with tracking, beside the documented options.
//   - A delta token is void after the organization's retention (7 days), when the
//     schema changed behind it, and when its time lies in the future.
//   - Adding to and removing from a list needs Read, Write, Append and AppendTo on
//     list and Read, Append and AppendTo on the member table. A missing member is
//     404 0x80040217. The membership moves membercount and modifiedon of the list.
//   - A static list has no query; the query of a dynamic one must be FetchXML over
//     its member table. CopyDynamicListToStatic answers StaticListId.
//   - Rows of listmember cannot be read one by one, created or deleted directly.
//   - Associating list members through $ref is refused (0x80040315).
//   - In a batch, parts need Content-Transfer-Encoding binary, lines end with CRLF,
//     a change set part needs a Content-ID of its own; a bare relative URL is taken
//     from the service root.
//   - Bulk messages exist on user-owned tables (SetBulkMessages changes that) and
//     not on version 8 paths; DeleteMultiple answers 501 on every table.
//   - overriddencreatedon needs prvOverrideCreatedOnCreatedBy.
//   - Tokens of applications cannot enumerate instances in the discovery service.
//   - A right to read reaches the rows of its depth, where business units have no
//     children: others are left out of queries, and refused with 0x80040220 where they
//     are asked for by id. Rights to write reach every row.
//   - The creator of a table gets all privileges on it in the roles it has.
//   - GUIDs order by their bytes as written.
//   - A component that is made with MSCRM.SolutionUniqueName needs the prefix of that
//     solution's publisher; an unknown or managed solution is 0x80040203 or 0x8004023B.
//   - A publisher with solutions cannot be deleted. Deleting an unmanaged solution
//     leaves its components.
//   - A label in a language other than the organization's is refused.
//   - A webhook needs an https URL on port 443 or 80, or any URL on the loopback of the
//     twin's own machine, which stands for the internet. authvalue cannot be read. An
//     authvalue of the types 5 and 6 is <settings><setting name="…" value="…"/></settings>.
//     The contract cannot be changed, and an endpoint with steps cannot be deleted.
//   - A step needs stage, mode, rank and supporteddeployment. Filtering attributes must
//     exist, and an update counts when it was sent one of them, changed or not.
//   - A bulk message is delivered as one Create or Update for each row. Rows that the
//     platform changes of itself (the number of a list's members, links to deleted
//     rows) are no updates. Adding members that are in the list already is no message,
//     nor are CopyMembers and QualifyMember.
//   - An answer of 502, 503 or 504 is followed by one more attempt at once; redirects
//     are not followed. A delivery that failed stays as a system job.
//     Deliveries that wait are lost when the organization ends.
//   - What is committed after the registration of a step is delivered.
//
// # Faults
//
// Beside the transport faults, rules of these kinds act inside of the twin, with
// the arguments in parentheses: token-expire (the call answers 401), throttle
// (requests, seconds, concurrent lower the limits for the call; without any it is
// refused), delta-expired, row-poison (id or ids, code, message, status; without
// an id every row of the call), page-dup (variant rows, loop, host or empty),
// page-skip, page-drift (updates, inserts, deletes between two pages),
// metadata-change (table, column, change: remove, rename to, max-length
// max_length, option-remove option, option-relabel option to, tracking-off; delta
// tokens are void afterwards) and env-restore (writes to take back).
//
// # Not emulated
//
// These answer 501 and say so: the CSDL document $metadata, the query options
// sql, savedQuery and userQuery, importing and exporting solutions, RetrieveMetadataChanges,
// BulkDelete, synchronous steps, plug-ins, images of steps, service bus endpoints, steps
// of other messages than Create, Update, Delete, AddMember, AddListMembers and
// RemoveMember, global option sets, N:N and polymorphic relationships made by
// clients, activity tables made by clients, QualifyLead with an opportunity.
//
// Plug-ins and duplicate detection rules do not exist in this
// organization (the fault row-poison stands in for a rule that refuses a row),
// nor do sharing, teams as owners of privileges, column security, elastic and
// virtual tables, files and images, full and no OData metadata levels, languages
// other than English, NTLM and other on-premises sign-in. Publishing has nothing
// to do: changes are in force at once. RetrieveTotalRecordCount is exact where the
// service's answer may be a day old.
package dataverse
