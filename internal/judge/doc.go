// Package judge holds what ksleuth says of real dumps against what others say
// of the same: drgn and crash with debug info, the guest's own kernel just
// before the dump, and ksleuth itself on another form of the dump. It has tests
// only.
//
// Each difference that is allowed stands in a table with its reason.
package judge
