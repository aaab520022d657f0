// Package dataverse is a faithful local emulator of a Dataverse organization's
// Web API, versions 8.2 to 9.2, with the tables a marketing integration touches.
package dataverse
