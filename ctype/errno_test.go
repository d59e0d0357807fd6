package ctype_test

import (
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/ksleuth/ksleuth/ctype"
)

// TestErrorName: errors of user space, of the kernel alone, and what is none.
func TestErrorName(t *testing.T) {
	for v, want := range map[int64]string{-22: "-EINVAL", -512: "-ERESTARTSYS", -524: "-ENOTSUPP", -4095: "", -4096: "", 0: "", 22: ""} {
		qt.Check(t, qt.Equals(ctype.ErrorName(v), want))
	}
}
