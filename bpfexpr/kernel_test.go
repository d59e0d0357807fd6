//go:build linux

package bpfexpr_test

import (
	"errors"
	"fmt"
	"os"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/rlimit"
	"github.com/go-quicktest/qt"
	"golang.org/x/sys/unix"

	"github.com/ksleuth/ksleuth/bpfexpr"
	"github.com/ksleuth/ksleuth/bpfsys"
)

func TestMain(m *testing.M) {
	if err := rlimit.RemoveMemlock(); err != nil { // counts before 5.11
		fmt.Println(err)
	}
	os.Exit(m.Run())
}

// A lab runs compiled code in the kernel without tracing: a program copies a
// call to its stack and calls the functions as those that observe do.
type lab struct {
	t           testing.TB
	arena, call *ebpf.Map
	world       *world
	insns       int // of the functions that were loaded
}

func newLab(t testing.TB) *lab {
	if os.Getuid() != 0 {
		t.Skip("loading programs takes root")
	}
	ts, err := bpfsys.KernelTypes()
	if ts == nil {
		t.Skip(err)
	}
	l := &lab{t: t}
	l.arena = l.array(arenaSize)
	l.call = l.array(callSize)
	result := l.array(8)
	p := l.load(&ebpf.ProgramSpec{Type: ebpf.XDP, License: "GPL", Instructions: append(append(append(
		lookup(l.arena, asm.R6), lookup(result, asm.R7)...), asm.StoreMem(asm.R7, 0, asm.R6, asm.DWord)), leave...)})
	l.test(p)
	l.world = newWorld(t, ts, le.Uint64(l.get(result)))
	l.put(l.arena, l.world.data)
	l.put(l.call, l.world.call[:])
	return l
}

// lookup puts the address of a map's only value into a register.
func lookup(m *ebpf.Map, dst asm.Register) asm.Instructions {
	return asm.Instructions{
		asm.StoreImm(asm.RFP, -4, 0, asm.Word),
		asm.LoadMapPtr(asm.R1, m.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, -4),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "leave"),
		asm.Mov.Reg(dst, asm.R0),
	}
}

var leave = asm.Instructions{asm.Mov.Imm(asm.R0, 2).WithSymbol("leave"), asm.Return()}

func (l *lab) array(size int) *ebpf.Map {
	m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: uint32(size), MaxEntries: 1})
	if errors.Is(err, unix.EPERM) {
		l.t.Skip(err)
	}
	qt.Assert(l.t, qt.IsNil(err))
	l.t.Cleanup(func() { m.Close() })
	return m
}

func (l *lab) get(m *ebpf.Map) []byte {
	b, err := m.LookupBytes(uint32(0))
	qt.Assert(l.t, qt.IsNil(err))
	return b
}

func (l *lab) put(m *ebpf.Map, b []byte) {
	qt.Assert(l.t, qt.IsNil(m.Put(uint32(0), b)))
}

func (l *lab) load(spec *ebpf.ProgramSpec) *ebpf.Program {
	l.t.Helper()
	p, err := ebpf.NewProgram(spec)
	if err != nil {
		var v *ebpf.VerifierError
		if errors.As(err, &v) {
			l.t.Logf("%s", v.Log[max(0, len(v.Log)-40):])
		}
		l.t.Fatalf("%v", err)
	}
	return p
}

func (l *lab) test(p *ebpf.Program) {
	defer p.Close()
	_, _, err := p.Test(make([]byte, 64))
	qt.Assert(l.t, qt.IsNil(err))
}

// An outcome is what came of a plan.
type outcome struct {
	wanted bool
	faults int
	slots  []byte
}

// Bounds of one program; the kernel allows 256 functions.
const (
	maxFuncs = 240
	maxInsns = 50_000
)

// run runs plans; spilled says how the call gets onto the stack.
func (l *lab) run(plans []*bpfexpr.Plan, spilled bool) []outcome {
	l.t.Helper()
	var out []outcome
	for len(plans) > 0 {
		n, funcs, insns := 0, 0, 0
		for n < len(plans) && funcs+4 <= maxFuncs && insns < maxInsns {
			for _, f := range functions(plans[n]) {
				funcs++
				insns += len(f)
			}
			n++
		}
		out = append(out, l.batch(plans[:n], spilled)...)
		plans = plans[n:]
	}
	return out
}

func functions(p *bpfexpr.Plan) (fs []asm.Instructions) {
	for _, f := range []asm.Instructions{p.Filter, p.Show, p.ExitFilter, p.ExitShow} {
		if f != nil {
			fs = append(fs, f)
		}
	}
	return fs
}

func (l *lab) batch(plans []*bpfexpr.Plan, spilled bool) []outcome {
	l.t.Helper()
	size := 0
	for _, p := range plans {
		size += 16 + p.Bytes
	}
	results := l.array(size)
	defer results.Close()
	return l.into(results, plans, spilled)
}

// into runs plans with slots that may have been filled before.
func (l *lab) into(results *ebpf.Map, plans []*bpfexpr.Plan, spilled bool) []outcome {
	p := l.load(&ebpf.ProgramSpec{Type: ebpf.XDP, License: "GPL", Instructions: l.program(plans, results, spilled)})
	l.test(p)
	b := l.get(results)
	out := make([]outcome, len(plans))
	for i, p := range plans {
		out[i] = outcome{le.Uint64(b) == 1, int(le.Uint32(b[8:])), b[16 : 16+p.Bytes]}
		b = b[16+p.Bytes:]
	}
	return out
}

// program makes one of plans: as probes have it, Show follows where Filter
// wants the call, ExitFilter comes next, and then ExitShow.
func (l *lab) program(plans []*bpfexpr.Plan, results *ebpf.Map, spilled bool) asm.Instructions {
	main := append(lookup(l.call, asm.R7), lookup(results, asm.R6)...)
	if spilled {
		for off := int16(0); off < callSize; off += 8 {
			main = append(main, asm.LoadMem(asm.R1, asm.R7, off, asm.DWord), asm.StoreMem(asm.RFP, off-callSize, asm.R1, asm.DWord))
		}
	} else {
		main = append(main, asm.Mov.Reg(asm.R1, asm.RFP), asm.Add.Imm(asm.R1, -callSize), asm.Mov.Imm(asm.R2, callSize),
			asm.Mov.Reg(asm.R3, asm.R7), asm.FnProbeReadKernel.Call())
	}
	var funcs asm.Instructions
	at := int32(0)
	for i, p := range plans {
		end := fmt.Sprintf("end%d", i)
		main = append(main, asm.StoreImm(asm.RFP, faultsAt-callSize, 0, asm.Word), asm.Mov.Imm(asm.R7, 0))
		for j, f := range []asm.Instructions{p.Filter, p.Show, p.ExitFilter, p.ExitShow} {
			if f == nil {
				continue
			}
			name := fmt.Sprintf("f%d_%d", i, j)
			main = append(main, asm.Mov.Reg(asm.R1, asm.RFP), asm.Add.Imm(asm.R1, -callSize),
				asm.Mov.Reg(asm.R2, asm.R6), asm.Add.Imm(asm.R2, at+16), asm.Call.Label(name))
			if j%2 == 0 {
				main = append(main, asm.JEq.Imm(asm.R0, 0, end))
			}
			l.insns += len(f)
			f[0] = f[0].WithSymbol(name)
			funcs = append(funcs, f...)
		}
		main = append(main, asm.Mov.Imm(asm.R7, 1),
			asm.Mov.Reg(asm.R1, asm.R6).WithSymbol(end), asm.Add.Imm(asm.R1, at),
			asm.StoreMem(asm.R1, 0, asm.R7, asm.DWord),
			asm.LoadMem(asm.R2, asm.RFP, faultsAt-callSize, asm.Word),
			asm.StoreMem(asm.R1, 8, asm.R2, asm.DWord))
		at += int32(16 + p.Bytes)
	}
	return append(append(main, leave...), funcs...)
}
