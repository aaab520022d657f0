// Package architecture holds the rules of the repository as tests: who may import
// whom, and what each package and file must or must not contain. It has no code.
package architecture
