// Package query parses and runs Dataverse queries: the OData options of the Web
// API and FetchXML. Both become one Query that one executor runs over a Source.
// The package knows no HTTP and holds no data.
package query
