package tracee

import (
	"testing"

	"github.com/go-quicktest/qt"
)

// TestBeginsTraceable: the begin of a function tells whether ftrace can change
// it, and a call or jump of the function's own does not count.
func TestBeginsTraceable(t *testing.T) {
	const addr = 0xffffffff81000000
	names := map[uint64]string{addr + 0x105: "ftrace_caller", addr + 0x205: "bpf_trace_run3", addr + 0x309: "ftrace_regs_caller"}
	for _, test := range []struct {
		name string
		code []byte
		want bool
	}{
		{"no-op", []byte{0x0f, 0x1f, 0x44, 0, 0, 0x55}, true},
		{"old no-op", []byte{0x66, 0x66, 0x66, 0x66, 0x90}, true},
		{"behind a landing pad", []byte{0xf3, 0x0f, 0x1e, 0xfa, 0x0f, 0x1f, 0x44, 0, 0}, true},
		{"behind a sealed one", []byte{0x66, 0x0f, 0x1f, 0, 0x0f, 0x1f, 0x44, 0, 0}, true},
		{"call of ftrace", []byte{0xe8, 0, 1, 0, 0}, true},
		{"behind a landing pad, call of ftrace", []byte{0xf3, 0x0f, 0x1e, 0xfa, 0xe8, 0, 3, 0, 0}, true},
		{"call of a trampoline", []byte{0xe8, 0, 0, 1, 0}, true},
		{"tail call of its own", []byte{0xe9, 0, 2, 0, 0}, false},
		{"being changed", []byte{0xcc, 0x1f, 0x44, 0, 0}, true},
		{"frame", []byte{0x55, 0x48, 0x89, 0xe5, 0x5d}, false},
		{"cut off", []byte{0xe8, 0}, false},
		{"nothing", nil, false},
	} {
		got := beginsTraceable(test.code, addr, func(a uint64) string { return names[a] })
		qt.Check(t, qt.Equals(got, test.want), qt.Commentf("%s", test.name))
	}
}
