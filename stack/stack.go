// Package stack gives a task's stack its names: functions, modules, BPF
// programs with their source lines.
package stack

import (
	"fmt"

	"github.com/ksleuth/ksleuth/bpf"
	"github.com/ksleuth/ksleuth/kernel"
	"github.com/ksleuth/ksleuth/kobj"
	"github.com/ksleuth/ksleuth/mem"
	"github.com/ksleuth/ksleuth/unwind"
	"github.com/ksleuth/ksleuth/vmcore"
)

// A Frame is one activation of a function.
type Frame struct {
	PC     mem.Addr    `json:"pc"`
	Symbol string      `json:"symbol"` // of a BPF program its function's name; "" if unknown
	Offset mem.Addr    `json:"offset"`
	Kind   kernel.Kind `json:"kind"`
	Module string      `json:"module,omitempty"`
	// Reliable says that nothing was assumed to find this frame.
	Reliable  bool     `json:"reliable"`
	Recovered string   `json:"recovered,omitempty"` // past what damage the frame was found
	BPF       *BPF     `json:"bpf,omitempty"`
	SP        mem.Addr `json:"sp"`

	Raw unwind.Frame `json:"-"`
}

// BPF says which program a frame belongs to and where in its source it is.
type BPF struct {
	Name    string `json:"name"` // of the program
	Type    string `json:"type"`
	Tag     string `json:"tag"`
	ID      int    `json:"id"` // 0 if the program is being freed
	Subprog int    `json:"subprog"`
	File    string `json:"file,omitempty"`
	Line    int    `json:"line,omitempty"`
	Source  string `json:"source,omitempty"` // the line itself
	Insn    int    `json:"insn"`             // index of the BPF instruction, -1 if unknown
}

// Location returns "file:line", or "".
func (b *BPF) Location() string {
	if b == nil || b.File == "" {
		return ""
	}
	return fmt.Sprintf("%s:%d", b.File, b.Line)
}

// A Stack is a task's stack, innermost frame first.
type Stack struct {
	Frames []Frame
	Damage []unwind.Damage
	User   *vmcore.Regs // of the user program below, nil for kernel threads
	End    error        // why the stack stops before its outermost frame
}

// Of returns the stack of a task. A task that was running is unwound from the
// registers the dump has for its CPU.
func Of(k *kernel.Kernel, t kobj.Task) Stack {
	if !t.Running {
		return describe(k, unwind.Task(k, uint64(t.Addr)))
	}
	cpu, ok := k.Registers(t.CPU)
	if !ok {
		return Stack{End: fmt.Errorf("pid %d was running on CPU %d, whose registers are not in the dump", t.PID, t.CPU)}
	}
	return describe(k, unwind.From(k, uint64(t.Addr), cpu.Regs))
}

// Behind returns the stack behind a return address, as [unwind.Behind] does.
func Behind(k *kernel.Kernel, t kobj.Task, ret, sp, bp uint64) Stack {
	return describe(k, unwind.Behind(k, uint64(t.Addr), ret, sp, bp))
}

// At names an address as a frame that is about to execute it.
func At(k *kernel.Kernel, addr uint64) Frame {
	return (&namer{k: k}).name(unwind.Frame{PC: addr, Exact: true, Reliable: true})
}

func describe(k *kernel.Kernel, raw unwind.Stack) Stack {
	s := Stack{Damage: raw.Damage, User: raw.User, End: raw.End}
	n := &namer{k: k}
	for _, f := range raw.Frames {
		s.Frames = append(s.Frames, n.name(f))
	}
	return s
}

// A namer names the frames of one stack. It remembers what it found of BPF
// programs: to find one, all are read.
type namer struct {
	k     *kernel.Kernel
	progs map[uint64]code // by the start of the code
}

// code is what is known of generated code.
type code struct {
	bpf.Owner
	lines *bpf.Lines // nil if unreadable: a frame without its line is still a frame
	ok    bool
}

func (n *namer) program(sym kernel.Symbol) code {
	c, ok := n.progs[sym.Addr]
	if ok {
		return c
	}
	if c.Owner, c.ok = bpf.OwnerOf(n.k, sym.Addr); c.ok {
		c.lines, _ = c.Lines(n.k)
	}
	if n.progs == nil {
		n.progs = make(map[uint64]code)
	}
	n.progs[sym.Addr] = c
	return c
}

func (n *namer) name(raw unwind.Frame) Frame {
	f := Frame{
		PC: mem.Addr(raw.PC), Kind: raw.Kind, SP: mem.Addr(raw.SP),
		Reliable: raw.Reliable, Recovered: raw.Recovered, Raw: raw,
	}
	sym, _, ok := n.k.Symbolize(raw.Lookup())
	if !ok {
		return f
	}
	if f.Kind == "" {
		f.Kind = sym.Kind
	}
	f.Symbol, f.Module, f.Offset = sym.Name, sym.Module, mem.Addr(raw.PC-sym.Addr)
	if sym.Kind != kernel.KindBPF {
		return f
	}
	owner := n.program(sym)
	if !owner.ok {
		return f
	}
	sub := owner.Prog.Subprogs[owner.Subprog]
	f.Symbol, f.Offset = sub.Name, mem.Addr(raw.PC-uint64(sub.Addr))
	f.BPF = &BPF{
		Name: owner.Prog.Name, Type: owner.Prog.Type, Tag: owner.Prog.Tag, ID: owner.Prog.ID,
		Subprog: owner.Subprog, Insn: -1,
	}
	if owner.lines != nil {
		if loc, ok := owner.lines.At(raw.Lookup()); ok {
			f.BPF.File, f.BPF.Line, f.BPF.Source, f.BPF.Insn = loc.File, loc.Line, loc.Text, loc.Insn
		}
	}
	return f
}
