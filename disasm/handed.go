package disasm

import (
	"cmp"
	"fmt"
	"io/fs"
	"slices"

	"github.com/ksleuth/ksleuth/bpf"
	"github.com/ksleuth/ksleuth/bpfsys"
	"github.com/ksleuth/ksleuth/ctype"
	"github.com/ksleuth/ksleuth/kernel"
)

// Symbols name addresses of the kernel: [*kernel.Kernel] or [*kernel.Listed].
type Symbols interface {
	Symbolize(addr uint64) (s kernel.Symbol, off uint64, ok bool)
	Lookup(name string) (kernel.Symbol, bool)
}

// Handed is what the running kernel hands out where its memory cannot be read.
type Handed struct {
	Progs   []*bpf.Program // all there are
	Maps    []*bpf.Map     // for their names
	CodeOf  func(id int) (*bpfsys.Code, error)
	Symbols Symbols      // nil if they are not known
	Types   *ctype.Types // nil if they are not known
}

// NewHanded returns a disassembler of BPF programs alone, by the code that the
// kernel hands out of them. Data that the code refers to is not named, nor what
// a trampoline that it goes through does.
func NewHanded(h Handed) *Disassembler {
	d := &Disassembler{handed: &h, syms: h.Symbols}
	if d.syms == nil {
		d.syms = noSymbols{}
	}
	d.percpu = func() []kernel.Symbol { return nil }
	d.values = func() []mapRange { return nil }
	d.trampolines = func() []*bpf.Trampoline { return nil }
	d.symbols = func() map[string]kernel.Symbol {
		s, ok := d.syms.Lookup(callBase)
		if !ok {
			return nil
		}
		return map[string]kernel.Symbol{callBase: s}
	}
	return d
}

type noSymbols struct{}

func (noSymbols) Symbolize(uint64) (kernel.Symbol, uint64, bool) { return kernel.Symbol{}, 0, false }
func (noSymbols) Lookup(string) (kernel.Symbol, bool)            { return kernel.Symbol{}, false }

// A HiddenError says that the kernel does not show the machine code of a
// program. It is an [fs.ErrPermission].
type HiddenError struct{ ID int }

// Error says what would show it (bpf_dump_raw_ok in include/linux/filter.h).
func (e *HiddenError) Error() string {
	return fmt.Sprintf("the kernel hides the machine code of BPF prog %d; it takes CAP_SYSLOG and sysctl kernel.kptr_restrict below 2", e.ID)
}

// Unwrap returns [fs.ErrPermission].
func (e *HiddenError) Unwrap() error { return fs.ErrPermission }

// handedCode is the code of one function.
type handedCode struct {
	text  []byte
	lines handedLines
	code  *bpfsys.Code
	index int // of the function
}

// handProgram completes the codes of one program by what the kernel hands out.
func (d *Disassembler) handProgram(p *bpf.Program, code []Code) error {
	all, err := d.handed.CodeOf(p.ID)
	if err != nil {
		return err
	}
	for i := range code {
		n := code[i].owner.Subprog
		if n >= len(all.Funcs) || len(all.Funcs[n].Text) == 0 || all.Funcs[n].Addr == 0 {
			return &HiddenError{p.ID}
		}
		f := all.Funcs[n]
		c := &handedCode{text: f.Text[:min(len(f.Text), maxLen)], code: all, index: n}
		for _, l := range all.Lines {
			if l.Addr >= f.Addr && uint64(l.Addr) < uint64(f.Addr)+uint64(len(f.Text)) {
				c.lines = append(c.lines, l)
			}
		}
		slices.SortStableFunc(c.lines, func(a, b bpfsys.Line) int { return cmp.Compare(a.Addr, b.Addr) })
		code[i].Start, code[i].Len, code[i].handed = uint64(f.Addr), len(c.text), c
	}
	return nil
}

// A lineTable tells which source line machine code was generated from.
type lineTable interface {
	At(pc uint64) (bpf.Location, bool)
}

// handedLines are the lines of a function, by address.
type handedLines []bpfsys.Line

// At returns the source line of the last entry at or before pc.
func (l handedLines) At(pc uint64) (bpf.Location, bool) {
	i, _ := slices.BinarySearchFunc(l, pc, func(e bpfsys.Line, pc uint64) int {
		if uint64(e.Addr) <= pc {
			return -1
		}
		return 1
	})
	if i == 0 {
		return bpf.Location{}, false
	}
	return l[i-1].Location, true
}

// insns returns the BPF instructions of the function and the index of the first
// one in the program.
func (c *handedCode) insns() ([]byte, int, error) {
	all, f := c.code.Insns, c.code.Funcs[c.index]
	if len(all) == 0 {
		return nil, 0, fmt.Errorf("the kernel hides them: it takes CAP_BPF, and CAP_PERFMON or net.core.bpf_jit_harden below 2: %w", fs.ErrPermission)
	}
	start, end := f.Insn, len(all)/bpfInsnSize
	if c.index+1 < len(c.code.Funcs) {
		end = c.code.Funcs[c.index+1].Insn
	}
	if start < 0 || end < start || end > len(all)/bpfInsnSize {
		return nil, 0, fmt.Errorf("which ones are those of %s is not known", f.Name)
	}
	return all[start*bpfInsnSize : end*bpfInsnSize], start, nil
}

// firstInsn returns the index of the first instruction of function n.
func (c *handedCode) firstInsn(n int) (int, error) {
	if n >= len(c.code.Funcs) || c.code.Funcs[n].Insn < 0 {
		return 0, fmt.Errorf("where function %d begins is not known", n)
	}
	return c.code.Funcs[n].Insn, nil
}

// Second registers of 64-bit constants in what bpf(2) hands out, which has ids
// in place of addresses of maps (include/uapi/linux/bpf.h).
const (
	pseudoMapFD    = 1
	pseudoMapValue = 2
)

// handedConst names a 64-bit constant with a map's id: the low half is the id,
// the high half a place in its values.
func (d *Disassembler) handedConst(in bpfInsn, v uint64) string {
	if d.handed == nil || in.src != pseudoMapFD && in.src != pseudoMapValue {
		return ""
	}
	id, name := int(uint32(v)), ""
	for _, m := range d.handed.Maps {
		if m.ID == id {
			name = m.Name
		}
	}
	text := fmt.Sprintf("map[id:%d]", id)
	if in.src == pseudoMapValue {
		text = fmt.Sprintf("%s[0]+%d", text, v>>32)
	}
	return text + comment(name)
}
