package disasm

import (
	"fmt"
	"strings"

	"github.com/ksleuth/ksleuth/kernel"
	"github.com/ksleuth/ksleuth/mem"
	"github.com/ksleuth/ksleuth/x86"
)

// A staticCall is a call whose target the kernel exchanges
// (include/linux/static_call.h).
type staticCall struct {
	key  uint64
	tail bool
}

// describe names the key and what is called now: by the instruction, not by
// the key, which is another thing while a change is under way.
func (s staticCall) describe(d *Disassembler, in *x86.Inst, _ []byte) string {
	what := "static call " + strings.TrimPrefix(d.keyName(s.key), "__SCK__")
	fn, err := mem.U64(d.k.Mem(), s.key)
	target, direct := in.Target()
	switch {
	case direct:
		if err == nil && fn != 0 && fn != target {
			what += ", though its key has " + d.k.FormatAddr(fn)
		}
		return what
	case in.Op == x86.RET:
		return what + ": no target now"
	case in.Op == x86.XOR:
		return what + ": __static_call_return0 now"
	case isNop(in):
		return what + ": no target now"
	case in.Flow() == x86.FlowTrap: // 7.x has one that only traps
		return what + ": a trap now"
	}
	return what
}

// A staticKey is a branch that the kernel turns on and off: a nop or a jump
// (include/linux/jump_label.h).
type staticKey struct {
	key, target uint64
	likely      bool // jumps if the key is off
}

// describe names the key and its state, and what the other state does.
func (s staticKey) describe(d *Disassembler, in *x86.Inst, _ []byte) string {
	what := "static key " + d.keyName(s.key)
	if name, ok := strings.CutPrefix(d.keyName(s.key), "__tracepoint_"); ok {
		what = "tracepoint " + strings.TrimSuffix(name, "+0x8")
	}
	jumps := in.Flow() == x86.FlowJump
	if !jumps && !isNop(in) {
		return what
	}
	state := [2]string{"off", "on"}
	on := jumps != s.likely
	now, then := state[b2i(on)], state[b2i(!on)]
	if enabled, err := mem.U32(d.k.Mem(), s.key); err == nil && (enabled != 0) != on {
		return fmt.Sprintf("%s is %s, but its code is as if %s", what, then, now)
	}
	other := "nop"
	if !jumps {
		other = "jmp " + d.near(in.Addr, s.target)
	}
	return fmt.Sprintf("%s %s (%s: %s)", what, now, then, other)
}

// near names an address, by its offset alone if it is in the same function.
func (d *Disassembler) near(from, addr uint64) string {
	s1, _, _ := d.k.Symbolize(from)
	if s2, off, ok := d.k.Symbolize(addr); ok && s1.Addr == s2.Addr {
		return fmt.Sprintf("+%#x", off)
	}
	return d.k.FormatAddr(addr)
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// keyName names a key by its symbol, or that of the variable it is part of.
func (d *Disassembler) keyName(addr uint64) string { return d.k.FormatAddr(addr) }

func isNop(in *x86.Inst) bool {
	return in.Op == x86.NOP || in.Op == x86.XCHG && in.NArgs == 2 && in.Args[0].Kind == x86.KindReg && in.Args[0].Reg == in.Args[1].Reg
}

// Prefixes of the symbols of thunks (arch/x86/lib/retpoline.S).
const (
	thunkPrefix      = "__x86_indirect_"
	staticTrampoline = "__SCT__"
)

// thunkNote says what a call or jump does that goes through code the kernel
// has put in between, or that has been taken out.
func (d *Disassembler) thunkNote(in *x86.Inst, next []byte) string {
	target, direct := in.Target()
	if !direct {
		return d.plainNote(in, next)
	}
	verb := "jmp"
	if in.Flow() == x86.FlowCall {
		verb = "call"
	}
	s, off, ok := d.syms.Symbolize(target)
	switch {
	case !ok && target>>63 == 1:
		if reg, _ := d.thunk(target); reg != 0 {
			return fmt.Sprintf("thunk: %s *%s", verb, regName(reg))
		}
	case !ok || off != 0:
	case s.Kind == kernel.KindTrampoline:
		return d.imageNote(target)
	case strings.HasSuffix(s.Name, "return_thunk"):
		return "return thunk: ret"
	case strings.HasPrefix(trueName(s, 0), thunkPrefix):
		if reg := thunkReg(trueName(s, 0)); reg != "" {
			_, how := d.thunk(target)
			return fmt.Sprintf("retpoline: %s *%%%s%s", verb, reg, how)
		}
	case strings.HasPrefix(s.Name, staticTrampoline) && d.k != nil:
		var t x86.Inst
		code := make([]byte, x86.MaxLen)
		if d.k.Mem().ReadMem(code, target) == nil && t.Decode(code, target) == nil {
			if to, ok := t.Target(); ok {
				return fmt.Sprintf("static call %s, now %s", strings.TrimPrefix(s.Name, staticTrampoline), d.k.FormatAddr(to))
			}
		}
	}
	return ""
}

// thunkReg is the register of a thunk: the last part of its name.
func thunkReg(name string) string {
	name, _, _ = strings.Cut(name, " ")
	reg := name[strings.LastIndexByte(name, '_')+1:]
	if len(reg) < 2 || len(reg) > 3 || reg[0] != 'r' {
		return ""
	}
	return reg
}

// thunk looks at the code of a thunk. Where mitigations are off, or others are
// on, the kernel has written a plain jump into it.
func (d *Disassembler) thunk(addr uint64) (x86.Reg, string) {
	code := make([]byte, 2*x86.MaxLen)
	if d.k == nil || d.k.Mem().ReadMem(code, addr) != nil {
		return 0, ""
	}
	fenced := ""
	var in x86.Inst
	for off := 0; off < x86.MaxLen && in.Decode(code[off:], addr+uint64(off)) == nil; off += in.Len {
		switch {
		case in.Op == x86.LFENCE:
			fenced = "lfence; "
		case in.Op == x86.ENDBR64 || isNop(&in):
		case in.Flow() == x86.FlowIndirectJump && in.Args[0].Kind == x86.KindReg:
			return in.Args[0].Reg, " (the thunk is now: " + fenced + "jmp *" + regName(in.Args[0].Reg) + ")"
		default:
			return 0, ""
		}
	}
	return 0, ""
}

// plainNote recognises an indirect call that took the place of one through a
// thunk: it is filled up with a nop to the length of that, which is five
// bytes, or six with a prefix.
func (d *Disassembler) plainNote(in *x86.Inst, next []byte) string {
	if in.Flow() != x86.FlowIndirectCall || in.NArgs == 0 || in.Args[0].Kind != x86.KindReg {
		return ""
	}
	var n x86.Inst
	if n.Decode(next, in.Addr+uint64(in.Len)) != nil || !isNop(&n) {
		return ""
	}
	if l := in.Len + n.Len; l != 5 && l != 6 {
		return ""
	}
	return "retpoline, replaced by a plain call"
}

func regName(r x86.Reg) string { return "%" + strings.ToLower(r.String()) }
