// Package query parses and runs Dataverse queries: the OData options of the Web
// API and FetchXML. Both become one Query that one executor runs over a Source.
// The package knows no HTTP and holds no data.
//
// # Running
//
// A run looks at the rows that an indexed condition, a scope or an inner link
// leads to, else at all rows in key order. It keeps one page: results in key
// order are taken as they come, others through a bounded selection. A page is
// continued by key (the order columns, the primary key and the keys of joined
// rows), never by offset, so rows written or deleted between two pages neither
// hide nor repeat others. Only results that no key describes page by number:
// those ordered by a link-entity column, distinct results without their primary
// key, and aggregates.
//
// # Not emulated
//
// These are refused with status 501: the condition operators of hierarchies
// (above, eq-or-above, under, eq-or-under, not-under, eq-useroruserhierarchy,
// eq-useroruserhierarchyandteams) and of fiscal periods (all with "fiscal"), the
// fiscal date groupings, rowaggregate, datasource, and a condition with
// entityname on a deeper link inside a link that only tests for existence. The
// virtual name columns of choices and lookups (statecodename, owneridname) exist
// only where the schema has them.
//
// # Readings
//
// Where Microsoft's documentation is silent, this package takes the stricter or
// the following reading:
//
//   - Negations match nulls for ne, not-like, not-begin-with, not-end-with,
//     not-in, not-on, ne-userid, ne-businessid and not-contain-values (ne is
//     reported by users of the service); not-between and negated order and date
//     comparisons do not.
//   - OData eq and ne honour LIKE wildcards in text; FetchXML eq and ne do not.
//     An unclosed bracket in a pattern matches nothing.
//   - A Boolean column alone is no $filter; constants are compared with their
//     column's own type, so a quoted GUID or number is refused; a date literal is
//     taken for a date-time column as its midnight, not the reverse.
//   - Microsoft.Dynamics.CRM functions take a lookup by its logical name and as
//     _name_value.
//   - $top=0, $select=* and any unknown query parameter, also one without $, are
//     refused. $apply excludes all other options. OData filters share the limit
//     of 500 conditions; a condition has at most 2,000 values.
//   - Choices sort by their number in both languages, lookups by the primary name
//     of their record, nulls first; GUIDs by their bytes as written.
//   - last-x-days (weeks, months, years) run from midnight so many units ago to
//     now, last-x-hours from the full hour; next-x from now to the end of the last
//     day or hour; olderthan-x is before that midnight, for hours and minutes to
//     the second. All dates are UTC. Weeks start on Env.WeekStart, and week 1 is
//     the one with 1 January.
//   - An average of whole numbers is a whole number; sums and averages of nothing
//     are null. Aggregates come ordered by their group keys unless ordered by
//     alias.
//   - A link needs both from and to; an inner link below an outer one drops rows
//     without a match. FetchXML without any attribute returns all columns of a
//     query without links. Linked lookups are named alias.column without
//     underscores.
//   - link-type all means that linked rows exist and none passes the filter, not
//     all is any, as Microsoft documents the two.
//   - Unknown XML elements are refused, unknown XML attributes ignored.
package query
