package disasm

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/ksleuth/ksleuth/bpf"
	"github.com/ksleuth/ksleuth/ctype"
)

// xlated adds the BPF instructions to the code that was made from them. The
// kernel keeps no table of that for single instructions, but one by source
// lines: the instructions of an entry of it stand in front of the machine code
// of that entry. Without source lines all of them stand in front of the code.
func (w *writer) xlated() {
	owner := w.code.owner
	if !w.o.Xlated || owner == nil || len(w.list.Lines) == 0 {
		return
	}
	insns, err := w.d.bpfInsns(w.code)
	if err != nil {
		w.fail("no BPF instructions", err)
		return
	}
	first := 0
	if len(insns) > 0 {
		first = insns[0].Index
	}
	// upTo returns the instructions before one that have not been listed.
	upTo := func(index int) (out []Insn) {
		for len(insns) > 0 && insns[0].Index < index {
			out, insns = append(out, insns[0]), insns[1:]
		}
		return out
	}
	last := -1 // the line that the next instructions belong to
	at := first - 1
	for i := range w.list.Lines {
		loc, ok := w.lines.At(uint64(w.list.Lines[i].Addr))
		if !ok || loc.Insn == at || loc.Insn < first {
			continue
		}
		begin := upTo(loc.Insn)
		if last >= 0 {
			w.list.Lines[last].Xlated = begin
		} else if uint64(w.list.Lines[0].Addr) == uint64(owner.Prog.Subprogs[owner.Subprog].Addr) {
			w.list.Lines[0].Xlated = begin
		}
		last, at = i, loc.Insn
	}
	if last < 0 {
		last = 0
	}
	end := w.list.Lines[len(w.list.Lines)-1].Addr
	next, ok := w.nextInsn(uint64(end))
	if !ok {
		next = int(^uint(0) >> 1)
	}
	w.list.Lines[last].Xlated = append(w.list.Lines[last].Xlated, upTo(next)...)
}

// nextInsn returns the BPF instruction of the first source line behind an
// address, for a listing that ends inside a function.
func (w *writer) nextInsn(addr uint64) (int, bool) {
	s := w.code.owner.Prog.Subprogs[w.code.owner.Subprog]
	now, ok := w.lines.At(addr)
	for at := addr + 1; ok && at < uint64(s.Addr)+uint64(s.Len); at++ {
		if loc, ok := w.lines.At(at); ok && loc.Insn != now.Insn {
			return loc.Insn, true
		}
	}
	return 0, false
}

// bpfInsns returns the BPF instructions of a function as text.
func (d *Disassembler) bpfInsns(c Code) ([]Insn, error) {
	raw, first, err := d.rawInsns(c)
	if err != nil {
		return nil, err
	}
	o := *c.owner
	firsts := make(map[int]int)
	names := bpfNames{
		call: func(i int, in bpfInsn) string {
			if in.src == pseudoCall && in.code&0xf0 != jmpTailCall {
				return d.subprogName(c, i, in, firsts)
			}
			return d.callName(o, in)
		},
		const64: d.constName,
	}
	var out []Insn
	for i := 0; (i+1)*bpfInsnSize <= len(raw); i++ {
		in := decodeBPF(raw[i*bpfInsnSize:])
		n, hi := 1, int32(0)
		if in.code == modeIMM|classLD|0x18 && (i+2)*bpfInsnSize <= len(raw) {
			hi = decodeBPF(raw[(i+1)*bpfInsnSize:]).imm
			n = 2
		}
		out = append(out, Insn{first + i, in.format(first+i, hi, names)})
		i += n - 1
	}
	return out, nil
}

// rawInsns returns the BPF instructions of a function and the index of the
// first.
func (d *Disassembler) rawInsns(c Code) ([]byte, int, error) {
	if c.handed != nil {
		return c.handed.insns()
	}
	raw, err1 := c.owner.Insns(d.k)
	first, err2 := c.owner.FirstInsn(d.k)
	return raw, first, errors.Join(err1, err2)
}

// firstInsn returns the index of the first instruction of a function of the
// program that c is of.
func (d *Disassembler) firstInsn(c Code, n int) (int, error) {
	if c.handed != nil {
		return c.handed.firstInsn(n)
	}
	return bpf.Owner{Prog: c.owner.Prog, Subprog: n}.FirstInsn(d.k)
}

// Meanings of the second register of calls and of 64-bit constants
// (include/uapi/linux/bpf.h).
const (
	pseudoCall      = 1
	pseudoKfuncCall = 2
	pseudoFunc      = 4
)

// subprogName names the function of the program that an instruction calls. One
// field is its number, the other the distance: the constant and the offset,
// until some kernel of 7.x exchanged them. firsts remembers where functions
// begin.
func (d *Disassembler) subprogName(c Code, i int, in bpfInsn, firsts map[int]int) string {
	for _, f := range [][2]int{{int(in.off), int(in.imm)}, {int(in.imm), int(in.off)}} {
		distance, n := f[0], f[1]
		if n < 0 || n >= len(c.owner.Prog.Subprogs) {
			continue
		}
		first, known := firsts[n]
		if !known {
			var err error
			if first, err = d.firstInsn(c, n); err != nil {
				continue
			}
			firsts[n] = first
		}
		if first == i+distance+1 {
			return fmt.Sprintf("pc%+d#%s", distance, c.owner.Prog.Subprogs[n].Name)
		}
	}
	return fmt.Sprintf("pc%+d", in.off)
}

// callName names the helper or kfunc that an instruction calls. The constant of
// a helper's call is the distance to it from __bpf_call_base.
func (d *Disassembler) callName(o bpf.Owner, in bpfInsn) string {
	// BPF_FUNC_tail_call, by which bpf(2) hands it out.
	if in.code&0xf0 == jmpTailCall || d.handed != nil && in.src == 0 && in.imm == 12 {
		return "bpf_tail_call#12"
	}
	if in.src == pseudoKfuncCall {
		if name := d.kfuncName(o, in); name != "" {
			return fmt.Sprintf("%s#%d", name, in.imm)
		}
		return fmt.Sprintf("kernel-function#%d", in.imm)
	}
	if base, ok := d.symbols()[callBase]; ok {
		if s, off, ok := d.syms.Symbolize(base.Addr + uint64(int64(in.imm))); ok && off == 0 {
			return fmt.Sprintf("%s#%d", s.Name, in.imm)
		}
	}
	return fmt.Sprintf("unknown#%d", in.imm)
}

// kfuncName names a kfunc. Its constant is the number of its type, in the
// kernel's BTF or that of a module which the program has a list of
// (1cf3bfc60f98, 6.4), and before that the distance of it, as of a helper.
func (d *Disassembler) kfuncName(o bpf.Owner, in bpfInsn) string {
	if base, ok := d.symbols()[callBase]; ok {
		if s, off, ok := d.syms.Symbolize(base.Addr + uint64(int64(in.imm))); ok && off == 0 && !d.kfuncAddrs() {
			return s.Name
		}
	}
	if name := d.describedKfunc(o, in); name != "" {
		return name
	}
	if types, err := d.types(); err == nil && in.off == 0 && in.imm > 0 {
		if t, err := types.ByID("", uint32(in.imm)); err == nil && t.Kind() == ctype.Func {
			return t.Name()
		}
	}
	return ""
}

// kfuncAddrs says whether this kernel lists the addresses of kfuncs.
func (d *Disassembler) kfuncAddrs() bool {
	if d.k != nil {
		return d.k.Object("bpf_kfunc_desc", 0).Has("addr")
	}
	types, err := d.types()
	if err != nil {
		return false
	}
	desc, err := types.Struct("bpf_kfunc_desc")
	return err == nil && slices.ContainsFunc(desc.Members(), func(m ctype.Member) bool { return m.Name == "addr" })
}

// describedKfunc names a kfunc by the program's list of them.
func (d *Disassembler) describedKfunc(o bpf.Owner, in bpfInsn) string {
	if d.k == nil {
		return ""
	}
	const maxDescs = 256
	tab := d.k.Object("bpf_prog", uint64(o.Prog.Addr)).Deref("aux").Deref("kfunc_tab")
	descs, n := tab.Field("descs"), min(tab.Uint("nr_descs"), maxDescs)
	for i := range int(n) {
		desc := descs.Elem(i)
		if int32(desc.Uint("func_id")) != in.imm || uint16(desc.Uint("offset")) != uint16(in.off) {
			continue
		}
		if s, off, ok := d.syms.Symbolize(desc.Ptr("addr")); ok && off == 0 {
			return s.Name
		}
	}
	return ""
}

// constName names a 64-bit constant: a map, a place in a map's values, a
// function. The kernel keeps their addresses; bpf(2) makes ids of them.
func (d *Disassembler) constName(in bpfInsn, v uint64) string {
	if in.src == pseudoFunc {
		return fmt.Sprintf("subprog[%+d]", in.imm)
	}
	if text := d.handedConst(in, v); text != "" {
		return text
	}
	if r, ok := d.mapRangeAt(v); ok {
		text := fmt.Sprintf("map[id:%d]", r.m.ID)
		if r.elem != 0 {
			text = fmt.Sprintf("%s[0]+%d", text, v-r.start)
		}
		return text + comment(r.m.Name)
	}
	if s, off, ok := d.syms.Symbolize(v); ok {
		return fmt.Sprintf("%#x", v) + comment(plus(s.String(), off))
	}
	return ""
}

// callBase is what calls of helpers are relative to.
const callBase = "__bpf_call_base"

// types returns the kernel's types.
func (d *Disassembler) types() (*ctype.Types, error) {
	switch {
	case d.k != nil:
		return d.k.Types()
	case d.handed.Types == nil:
		return nil, ctype.ErrNotFound
	}
	return d.handed.Types, nil
}

func comment(name string) string {
	if strings.TrimSpace(name) == "" {
		return ""
	}
	return "  # " + name
}
