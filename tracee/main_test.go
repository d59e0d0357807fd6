package tracee_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/cilium/ebpf/rlimit"

	"github.com/ksleuth/ksleuth/tracee"
)

//go:generate clang -O2 -g -target bpf -mcpu=v3 -Wall -Wno-unused-const-variable -fdebug-compilation-dir=. -I../internal/guest/include -c testdata/fw.bpf.c -o testdata/fw.bpf.o

// The kernels of the matrix.
var matrix = []string{"5.10", "6.1", "6.12", "7.2"}

// holdEnv makes the test binary a process that only holds what it was given.
const holdEnv = "KSLEUTH_TEST_HOLD"

func TestMain(m *testing.M) {
	if os.Getenv(holdEnv) != "" {
		fmt.Println("holding")
		os.Stdin.Read(make([]byte, 1))
		return
	}
	if err := rlimit.RemoveMemlock(); err != nil { // counts before 5.11
		fmt.Println(err)
	}
	os.Exit(m.Run())
}

// line describes a function without what differs from boot to boot.
func line(f *tracee.Function) string {
	s := fmt.Sprintf("%s %s", f.Kind, f)
	var params []string
	for _, p := range f.Params() {
		params = append(params, fmt.Sprintf("%s %s", p.Type, p.Name))
	}
	if f.Proto != nil {
		s += fmt.Sprintf("(%s) %s", strings.Join(params, ", "), f.Result())
	}
	if f.Context != nil {
		s += fmt.Sprintf(" in %s", f.Context)
	}
	for _, slot := range f.Slots {
		s += fmt.Sprintf(" %s[%d]", slot.Map, slot.Index)
	}
	if f.Stub != nil {
		s += fmt.Sprintf(" for %s of %s", f.Stub.Func, f.Stub.ProgName)
	}
	if f.Refused != nil {
		s += " refused"
	}
	return s
}

func lines(fs []*tracee.Function) []string {
	var out []string
	for _, f := range fs {
		out = append(out, line(f))
	}
	return out
}

func names(fs []*tracee.Function) []string {
	var out []string
	for _, f := range fs {
		out = append(out, f.String())
	}
	return out
}
