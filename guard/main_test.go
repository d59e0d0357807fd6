package guard_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/rlimit"
	"github.com/go-quicktest/qt"

	"github.com/ksleuth/ksleuth/bpfview"
	"github.com/ksleuth/ksleuth/guard"
	"github.com/ksleuth/ksleuth/kernel"
	"github.com/ksleuth/ksleuth/live"
	"github.com/ksleuth/ksleuth/tracee"
)

func TestMain(m *testing.M) {
	if err := rlimit.RemoveMemlock(); err != nil { // counts before 5.11
		fmt.Println(err)
	}
	os.Exit(m.Run())
}

// guest returns the name of the kernel of the guest that the test runs in, or
// skips it.
func guest(t testing.TB) string {
	t.Helper()
	name := os.Getenv("KSLEUTH_GUEST")
	if name == "" {
		t.Skip("for a guest alone: it traces")
	}
	return name
}

// running opens the running kernel.
func running(t testing.TB) bpfview.Source {
	t.Helper()
	l, err := live.Open(t.Context())
	qt.Assert(t, qt.IsNil(err))
	t.Cleanup(func() { l.Close() })
	k, err := kernel.FromSource(t.Context(), l)
	qt.Assert(t, qt.IsNil(err))
	return bpfview.Source{Kernel: k, Running: true}
}

// A function of a program to load, by name.
type function struct {
	name   string
	global bool
	insns  asm.Instructions
}

// load loads a program, whose functions have types.
func load(t testing.TB, spec ebpf.ProgramSpec, funcs ...function) *ebpf.Program {
	t.Helper()
	spec.License = "GPL"
	spec.Instructions = nil
	ctx := &btf.Struct{Name: "xdp_md", Size: 4, Members: []btf.Member{{Name: "data", Type: &btf.Int{Name: "unsigned int", Size: 4}}}}
	for _, f := range funcs {
		typ := &btf.Func{Name: f.name, Linkage: btf.StaticFunc, Type: &btf.FuncProto{
			Return: &btf.Int{Name: "int", Size: 4, Encoding: btf.Signed},
			Params: []btf.FuncParam{{Name: "ctx", Type: &btf.Pointer{Target: ctx}}},
		}}
		if f.global {
			typ.Linkage = btf.GlobalFunc
		}
		insns := slices.Clone(f.insns)
		insns[0] = btf.WithFuncMetadata(insns[0].WithSymbol(f.name), typ)
		spec.Instructions = append(spec.Instructions, insns...)
	}
	spec.Name = funcs[0].name
	p, err := ebpf.NewProgram(&spec)
	qt.Assert(t, qt.IsNil(err))
	t.Cleanup(func() { p.Close() })
	return p
}

func xdp() ebpf.ProgramSpec { return ebpf.ProgramSpec{Type: ebpf.XDP} }

func returns(n int32) asm.Instructions {
	return asm.Instructions{asm.Mov.Imm(asm.R0, n), asm.Return()}
}

func calls(name string) asm.Instructions {
	return asm.Instructions{asm.Call.Label(name), asm.Return()}
}

// tailCalls is a body that makes a tail call, and else returns n.
func tailCalls(array *ebpf.Map, n int32) asm.Instructions {
	return append(asm.Instructions{asm.LoadMapPtr(asm.R2, array.FD()), asm.Mov.Imm(asm.R3, 0), asm.FnTailCall.Call()}, returns(n)...)
}

func newMap(t testing.TB, spec ebpf.MapSpec) *ebpf.Map {
	t.Helper()
	m, err := ebpf.NewMap(&spec)
	qt.Assert(t, qt.IsNil(err))
	t.Cleanup(func() { m.Close() })
	return m
}

func progArray(t testing.TB) *ebpf.Map {
	return newMap(t, ebpf.MapSpec{Name: "verdicts", Type: ebpf.ProgramArray, KeySize: 4, ValueSize: 4, MaxEntries: 1})
}

func run(t testing.TB, p *ebpf.Program, repeat uint32) uint32 {
	t.Helper()
	ret, err := p.Run(&ebpf.RunOptions{Data: make([]byte, 64), Repeat: repeat})
	qt.Assert(t, qt.IsNil(err))
	return ret
}

func idOf(t testing.TB, p *ebpf.Program) int {
	t.Helper()
	info, err := p.Info()
	qt.Assert(t, qt.IsNil(err))
	id, _ := info.ID()
	return int(id)
}

// functionsOf describes the functions of programs.
func functionsOf(t testing.TB, src bpfview.Source, progs ...*ebpf.Program) []*tracee.Function {
	t.Helper()
	var ids []int
	for _, p := range progs {
		ids = append(ids, idOf(t, p))
	}
	src.Kernel.Refresh()
	list, err := src.Programs(t.Context(), ids...)
	qt.Assert(t, qt.IsNil(err))
	var out []*tracee.Function
	for _, p := range list {
		for i, s := range p.Subprogs {
			f := &tracee.Function{Kind: tracee.Program, Name: s.Name, Addr: s.Addr, Len: s.Len, Prog: p, Subprog: i, BTF: p.BTF, ID: s.TypeID}
			if i > 0 {
				f.Kind = tracee.Subprogram
			}
			out = append(out, f)
		}
	}
	return out
}

// kernelFuncs resolves functions of the kernel; those it has not are left out.
func kernelFuncs(t testing.TB, src bpfview.Source, names ...string) []*tracee.Function {
	t.Helper()
	types, err := src.Kernel.Types()
	qt.Assert(t, qt.IsNil(err))
	names = slices.DeleteFunc(names, func(n string) bool {
		_, ok := src.Kernel.Lookup(n)
		_, err := types.FuncProto(n)
		return !ok || err != nil
	})
	out, err := tracee.Resolve(t.Context(), tracee.Source{BPF: src, Types: types}, names, tracee.Options{})
	qt.Assert(t, qt.IsNil(err))
	return out
}

// attach hangs a do-nothing program on a function of a program, for as long as
// the test takes or until it is told to end.
func attach(t testing.TB, target *ebpf.Program, name string, typ ebpf.AttachType) (detach func(), err error) {
	t.Helper()
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "tracer", Type: ebpf.Tracing, AttachType: typ, AttachTarget: target, AttachTo: name,
		License: "GPL", Instructions: returns(0),
	})
	if err != nil {
		return nil, err
	}
	l, err := link.AttachTracing(link.TracingOptions{Program: p})
	if err != nil {
		p.Close()
		return nil, err
	}
	detach = func() { l.Close(); p.Close() }
	t.Cleanup(detach)
	return detach, nil
}

// check is Check without counting runs.
func check(t testing.TB, src bpfview.Source, funcs []*tracee.Function, o guard.Options) []guard.Warning {
	t.Helper()
	o.Sample = -1
	ws, err := guard.Check(t.Context(), src, funcs, o)
	qt.Assert(t, qt.IsNil(err))
	return ws
}

// summary is one line a warning.
func summary(ws []guard.Warning) []string {
	out := []string{}
	for _, w := range ws {
		out = append(out, fmt.Sprintf("%s: %s %s", w.Function, w.Severity, w.ID))
	}
	return out
}

func evidence(w guard.Warning) string {
	var b strings.Builder
	for _, e := range w.Evidence {
		fmt.Fprintf(&b, "%s | %s | %s | %s\n", e.Symbol, e.Bytes, e.Insn, e.Text)
	}
	return b.String()
}
