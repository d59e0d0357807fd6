package probe

import (
	"golang.org/x/sys/unix"

	"github.com/ksleuth/ksleuth/tracee"
)

// unreliableArgs is how many arguments trampolines save of a function of a BPF
// program whose declaration does not tell how it is called, such as a static
// one (MAX_BPF_FUNC_REG_ARGS; btf_distill_func_proto in kernel/bpf/btf.c).
const unreliableArgs = 5

// unreliable has the points be observed with as many arguments as their
// trampolines save: what a function returned stands behind them.
func (l *loader) unreliable(points []Point) {
	parallel(workers(), len(points), func(i int) {
		p := &points[i]
		bpf := p.Func.Kind != tracee.Kernel && p.Func.Kind != tracee.Tracepoint
		if bpf && p.Exit && p.Mechanism != Breakpoint && registersOf(p) < unreliableArgs && l.saved(p.Func) {
			p.unreliable = unreliableArgs
		}
	})
}

// saved asks the verifier whether the context of an exit program has a return
// value behind so many arguments.
func (l *loader) saved(f *tracee.Function) bool {
	target, err := l.target(f)
	if err != nil {
		return false // attaching says why
	}
	trial := program{name: "ksleuth_try", typ: typeTracing, attach: attachFexit, btfID: f.ID, targetFD: target, code: []byte{
		0x79, 0x10, 8 * unreliableArgs, 0, 0, 0, 0, 0, // r0 = *(u64 *)(r1 + 40)
		0xb7, 0, 0, 0, 0, 0, 0, 0, // r0 = 0
		0x95, 0, 0, 0, 0, 0, 0, 0, // exit
	}}
	fd, err := trial.load(nil)
	if err != nil {
		return false
	}
	unix.Close(fd)
	return true
}
