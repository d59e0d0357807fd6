//go:build linux

package bpfsys

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/ksleuth/ksleuth/ctype"
)

func TestKernelTypes(t *testing.T) {
	data, err := os.ReadFile(kernelBTFFile)
	if err != nil {
		t.Skip(err)
	}
	want, err := ctype.New(data)
	qt.Assert(t, qt.IsNil(err))
	wantTask, err := want.Struct("task_struct")
	qt.Assert(t, qt.IsNil(err))

	dir := t.TempDir()
	_, err = typesIn(dir)
	var none *UnsupportedError
	qt.Assert(t, qt.ErrorAs(err, &none))
	qt.Check(t, qt.ErrorIs(err, errors.ErrUnsupported))

	// A damaged module leaves the rest.
	qt.Assert(t, qt.IsNil(os.WriteFile(filepath.Join(dir, kernelBTF), data, 0o600)))
	qt.Assert(t, qt.IsNil(os.WriteFile(filepath.Join(dir, "nf_nat"), []byte("rubbish"), 0o600)))
	types, err := typesIn(dir)
	qt.Check(t, qt.ErrorMatches(err, "(?s).*BTF of module nf_nat: .*"))
	task, err := types.Struct("task_struct")
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(ctype.FormatType(task), ctype.FormatType(wantTask)))

	_, err = KernelTypes()
	qt.Check(t, qt.IsNil(err))
}
