// Package lockstep is the language of the product: the nouns of the business
// (contacts, marketing lists, campaigns, consent), the nouns of the product
// (connections, mappings, changes, runs), the two ports through which the
// engine reaches a CRM and an email platform, and the errors that decide what
// happens next. It imports nothing but the standard library.
package lockstep
