package disasm

import (
	"encoding/binary"
	"errors"
	"io/fs"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/ksleuth/ksleuth/bpf"
	"github.com/ksleuth/ksleuth/bpfsys"
	"github.com/ksleuth/ksleuth/kernel"
	"github.com/ksleuth/ksleuth/mem"
)

const handedAddr = 0xffffffffc0400000

// oneSymbol is __bpf_call_base and nothing else.
type oneSymbol struct{}

func (oneSymbol) Lookup(name string) (kernel.Symbol, bool) {
	return kernel.Symbol{Name: callBase, Addr: 0xffffffff81000000}, name == callBase
}

func (oneSymbol) Symbolize(addr uint64) (kernel.Symbol, uint64, bool) {
	return kernel.Symbol{Name: "helper", Addr: addr}, 0, addr == 0xffffffff81000040
}

// bpfCode encodes instructions, of which a constant of 64 bits takes two.
func bpfCode(insns ...bpfInsn) (out []byte) {
	for _, in := range insns {
		out = append(out, in.code, in.dst|in.src<<4)
		out = binary.LittleEndian.AppendUint16(out, uint16(in.off))
		out = binary.LittleEndian.AppendUint32(out, uint32(in.imm))
	}
	return out
}

// handedProgram has two functions: push %rbp; ret and nop; ret.
func handedProgram() (*bpf.Program, *bpfsys.Code) {
	p := &bpf.Program{ID: 7, Name: "main", Tag: "0011223344556677", JitedLen: 4, Subprogs: []bpf.Subprog{
		{Name: "main", Addr: handedAddr, Len: 2}, {Name: "sub", Addr: handedAddr + 64, Len: 2},
	}}
	line := func(at mem.Addr, n, insn int) bpfsys.Line {
		return bpfsys.Line{Addr: at, Location: bpf.Location{File: "x.c", Line: n, Insn: insn}}
	}
	return p, &bpfsys.Code{
		Funcs: []bpfsys.Func{
			{Name: "main", Addr: handedAddr, Insn: 0, Text: []byte{0x55, 0xc3}},
			{Name: "sub", Addr: handedAddr + 64, Insn: 6, Text: []byte{0x90, 0xc3}},
		},
		Insns: bpfCode(
			bpfInsn{code: 0x18, dst: 1, src: pseudoMapFD, imm: 5}, bpfInsn{},
			bpfInsn{code: 0x18, dst: 1, src: pseudoMapValue, imm: 6}, bpfInsn{imm: 24},
			bpfInsn{code: 0x85, imm: 0x40}, bpfInsn{code: 0x85, src: pseudoCall, off: 0, imm: 1},
			bpfInsn{code: 0x85, imm: 12}, bpfInsn{code: 0x95},
		),
		Lines: []bpfsys.Line{line(handedAddr, 10, 0), line(handedAddr+1, 11, 5), line(handedAddr+64, 20, 6)},
	}
}

func handed(p *bpf.Program, c *bpfsys.Code, err error) *Disassembler {
	return NewHanded(Handed{
		Progs: []*bpf.Program{p}, Maps: []*bpf.Map{{ID: 5, Name: "five"}}, Symbols: oneSymbol{},
		CodeOf: func(int) (*bpfsys.Code, error) { return c, err },
	})
}

func TestHanded(t *testing.T) {
	p, c := handedProgram()
	d := handed(p, c, nil)
	o := Options{Xlated: true, Explain: true}
	for _, what := range []string{"prog:7", "prog:main", "prog:0011223344556677"} {
		code, err := d.Find(what, o)
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.HasLen(code, 2))
	}
	code, err := d.Find("prog:7", o)
	qt.Assert(t, qt.IsNil(err))
	var texts, xlated []string
	var lines []int
	for _, c := range code {
		l, err := d.Disassemble(c, o)
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.Equals(l.Err, ""))
		qt.Check(t, qt.Equals(l.Kind, kernel.KindBPF))
		for _, line := range l.Lines {
			texts = append(texts, line.Text)
			if line.Source != nil {
				lines = append(lines, line.Source.Line)
			}
			for _, x := range line.Xlated {
				xlated = append(xlated, x.Text)
			}
		}
	}
	qt.Check(t, qt.DeepEquals(texts, []string{"push %rbp", "ret", "nop", "ret"}))
	qt.Check(t, qt.DeepEquals(lines, []int{10, 11, 20}))
	qt.Check(t, qt.DeepEquals(xlated, []string{
		"(18) r1 = map[id:5]  # five", "(18) r1 = map[id:6][0]+24", "(85) call helper#64", "(85) call pc+0#sub",
		"(85) call bpf_tail_call#12", "(95) exit",
	}))
}

func TestHandedErrors(t *testing.T) {
	p, c := handedProgram()
	hidden := *c
	hidden.Funcs = []bpfsys.Func{{Name: "main"}, {Name: "sub"}}
	_, err := handed(p, &hidden, nil).Find("prog:7", Options{})
	qt.Check(t, qt.ErrorMatches(err, ".*CAP_SYSLOG.*"))
	qt.Check(t, qt.ErrorIs(err, fs.ErrPermission))

	broken := errors.New("broken")
	_, err = handed(p, nil, broken).Find("prog:7", Options{})
	qt.Check(t, qt.ErrorIs(err, broken))

	for what, want := range map[string]string{
		"prog:8":        "there is no BPF program with id 8; the nearest are 7 main",
		"prog:mian":     `there is no BPF program called "mian" \(did you mean main\?\)`,
		"prog:7/x":      `program 7 has no function "x"; it has main, sub`,
		"do_syscall_64": "do_syscall_64 is not handed out.*",
		"tramp:x":       "tramp:x is not handed out.*",
	} {
		_, err := handed(p, c, nil).Find(what, Options{})
		qt.Check(t, qt.ErrorMatches(err, want))
	}

	// Without the BPF instructions there is the machine code.
	blind := *c
	blind.Insns = nil
	d := handed(p, &blind, nil)
	code, err := d.Find("prog:7/sub", Options{})
	qt.Assert(t, qt.IsNil(err))
	l, err := d.Disassemble(code[0], Options{Xlated: true})
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.HasLen(l.Lines, 2))
	qt.Check(t, qt.StringContains(l.Err, "no BPF instructions: the kernel hides them"))
}
