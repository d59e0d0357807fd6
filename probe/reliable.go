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
	load := []byte{0x79, 0x10, 8 * unreliableArgs, 7: 0}                 // r0 = *(u64 *)(r1 + 40)
	return l.try(f, attachFexit, append(load, nothing()...), nil) == nil // attaching says why not
}

// try loads a tracing program for a function, attaches it to nothing, and
// unloads it; log is for what the verifier says.
func (l *loader) try(f *tracee.Function, attach uint32, code, log []byte) error {
	target, err := l.target(f)
	if err != nil {
		return err
	}
	trial := program{name: "ksleuth_trial", typ: typeTracing, attach: attach, btfID: f.ID, targetFD: target, code: code}
	fd, err := trial.load(log)
	if err != nil {
		return newLoadError(f, log, err)
	}
	return unix.Close(fd)
}

// TryEntry and TryReturn have the verifier judge a program that does nothing,
// for the entry or the return of a function. Nothing is attached. The error of
// one that it refuses is a [*LoadError].
func TryEntry(f *tracee.Function) error { return tryNothing(f, attachFentry) }

// TryReturn is [TryEntry] for the return.
func TryReturn(f *tracee.Function) error { return tryNothing(f, attachFexit) }

func tryNothing(f *tracee.Function, attach uint32) error {
	const shortLog = 4096 // so little a program is judged in few words
	l := &loader{targets: make(map[target]int)}
	defer l.close()
	return l.try(f, attach, nothing(), make([]byte, shortLog))
}
