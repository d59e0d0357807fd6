package main

import (
	"errors"
	"fmt"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/ksleuth/ksleuth/vm"
)

func TestSplitOutputs(t *testing.T) {
	args, outputs, dirs := splitOutputs([]string{"-test.v=true", "-test.gocoverdir=/tmp/d", "-test.testlogfile=/tmp/log", "-test.coverprofile=cover.out", "-test.trace=/tmp/t", "-test.cpuprofile=", "-own", "x"}, "/dir")
	qt.Assert(t, qt.DeepEquals(args, []string{"-test.v=true", "-test.gocoverdir=/tmp/d", "-test.coverprofile=/dir/cover.out", "-test.trace=/tmp/t", "-test.cpuprofile=", "-own", "x"}))
	qt.Assert(t, qt.DeepEquals(outputs, []string{"/dir/cover.out", "/tmp/t"}))
	qt.Assert(t, qt.DeepEquals(dirs, []string{"/tmp/d", "/dir", "/tmp"}))
}

func TestEnvironment(t *testing.T) {
	got := environment([]string{"HOME=/root", "KSLEUTH_UPDATE=1", "KSLEUTH_CACHE=/x", "KSLEUTH_REQUIRE_VM=1", "GODEBUG=a=b"}, "6.1")
	qt.Assert(t, qt.DeepEquals(got, []string{"KSLEUTH_GUEST=6.1", "KSLEUTH_UPDATE=1", "GODEBUG=a=b"}))
}

func TestStatus(t *testing.T) {
	for _, test := range []struct {
		err  error
		want int
	}{
		{nil, 0},
		{errors.Join(&vm.ExitError{Code: 3}, nil), 3},
		{&vm.ExitError{Code: -1, Signal: 9}, 137},
		{fmt.Errorf("no guest"), guestFailed},
	} {
		qt.Check(t, qt.Equals(status(test.err), test.want))
	}
}
