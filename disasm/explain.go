package disasm

import (
	"slices"
	"strings"

	"github.com/ksleuth/ksleuth/bpf"
	"github.com/ksleuth/ksleuth/jit"
	"github.com/ksleuth/ksleuth/kernel"
)

// explain adds the notes on generated code.
func (w *writer) explain(parts []part) {
	kind := w.jitKind()
	if !w.o.Explain || kind == 0 || len(parts) == 0 {
		return
	}
	opts := jit.Options{Kind: kind, Sym: w.d.name, MapAt: func(addr uint64) string {
		name, _ := w.d.mapAt(addr)
		return name
	}}
	if kind == jit.Trampoline {
		opts.TailCallReachable = w.d.targetTailCalls(w.code.Start)
	}
	for _, n := range jit.Explain(parts[0].code, parts[0].addr, opts) {
		i, found := slices.BinarySearchFunc(w.list.Lines, parts[0].addr+uint64(n.Off), func(l Line, a uint64) int {
			switch {
			case uint64(l.Addr) < a:
				return -1
			case uint64(l.Addr) > a:
				return 1
			}
			return 0
		})
		if found {
			l := &w.list.Lines[i]
			site := l.Note
			l.Note, l.NoteLen = n.Text, n.Len
			l.note(site, 0)
		}
	}
}

// jitKind tells what sort of generated code is listed from its beginning; 0 is
// none, or only a part.
func (w *writer) jitKind() jit.Kind {
	if o := w.code.owner; o != nil {
		switch s := o.Prog.Subprogs[o.Subprog]; {
		case uint64(s.Addr) != w.code.Start:
			return 0
		case o.Subprog == 0:
			return jit.Program
		}
		return jit.Subprogram
	}
	for _, t := range w.d.trampolines() {
		if uint64(t.Image) != w.code.Start {
			continue
		}
		switch t.Kind {
		case "dispatcher":
			return jit.Dispatcher
		case "struct_ops":
			return jit.StructOps
		}
		return jit.Trampoline
	}
	if w.list.Kind == kernel.KindTrampoline && strings.HasPrefix(w.code.Name, "bpf_trampoline_") && w.base == w.code.Start {
		return jit.Trampoline
	}
	return 0
}

// targetTailCalls says whether the function that a trampoline hangs on is BPF
// code that gets a tail-call count.
func (d *Disassembler) targetTailCalls(image uint64) *bool {
	for _, t := range d.trampolines() {
		if uint64(t.Image) != image {
			continue
		}
		if o, ok := bpf.OwnerOf(d.k, uint64(t.Target.Addr)); ok {
			return o.Prog.TailCall
		}
		no := false
		if t.Target.ProgID == 0 && t.Target.Addr != 0 {
			return &no
		}
	}
	return nil
}
