package unwind

import (
	"fmt"

	"github.com/ksleuth/ksleuth/mem"
	"github.com/ksleuth/ksleuth/orc"
)

// base returns the value an ORC rule starts from. Only rsp and rbp are known
// in every frame; the others where the frame was interrupted.
func (u *unwinder) base(r orc.Reg, cfa uint64) (uint64, error) {
	switch r {
	case orc.SP:
		return u.sp, nil
	case orc.BP:
		return u.bp, nil
	case orc.PrevSP:
		return cfa, nil
	}
	if u.regs == nil {
		return 0, fmt.Errorf("its frame is found through %s, which is not known here", r)
	}
	switch r {
	case orc.AX:
		return u.regs.RAX, nil
	case orc.DX:
		return u.regs.RDX, nil
	case orc.DI:
		return u.regs.RDI, nil
	case orc.R10:
		return u.regs.R10, nil
	case orc.R13:
		return u.regs.R13, nil
	}
	return 0, fmt.Errorf("its ORC entry names no register")
}

// apply evaluates a rule.
func (u *unwinder) apply(r orc.Rule, cfa uint64) (uint64, error) {
	v, err := u.base(r.Base, cfa)
	if err != nil {
		return 0, err
	}
	off := uint64(int64(r.Offset))
	switch r.Deref {
	case orc.Indirect:
		return mem.U64(u.k.Mem(), v+off)
	case orc.Through:
		v, err = mem.U64(u.k.Mem(), v)
		return v + off, err
	}
	return v + off, nil
}

func (u *unwinder) cfa(e orc.Entry) (uint64, error) { return u.apply(e.SP, 0) }

// restoreBP gives rbp the value it has in the caller.
func (u *unwinder) restoreBP(e orc.Entry, cfa uint64) error {
	if e.BP.Base == orc.None {
		return nil
	}
	cell, err := u.base(e.BP.Base, cfa)
	if err != nil {
		return err
	}
	cell += uint64(int64(e.BP.Offset))
	bp, err := mem.U64(u.k.Mem(), cell)
	if err != nil {
		return fmt.Errorf("frame pointer of the caller of %s: %w", u.k.FormatAddr(u.pc), err)
	}
	u.bp, u.bpCell = bp, cell
	return nil
}
