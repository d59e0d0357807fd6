package guard

import (
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/ksleuth/ksleuth/bpf"
	"github.com/ksleuth/ksleuth/bpfview"
	"github.com/ksleuth/ksleuth/finding"
	"github.com/ksleuth/ksleuth/jit"
	"github.com/ksleuth/ksleuth/mem"
	"github.com/ksleuth/ksleuth/x86"
)

// keepsTailCalls finds out whether trampolines keep the count: by one that is
// there already, or by those of a program of our own.
func (c *checker) keepsTailCalls() *verdict {
	there := c.existing()
	if there != nil && there.keeps {
		return there
	}
	if c.src.Kernel == nil {
		return &verdict{err: bpfview.ErrNoMemory}
	}
	if !c.src.Running {
		if there == nil {
			return &verdict{err: errors.New("no trampoline is on a function that is handed the count, and on a dump none can be made")}
		}
		return there
	}
	own, err := c.trial()
	switch {
	case err == nil:
		return own
	case there != nil:
		return there
	}
	return &verdict{err: err}
}

// existing judges by the trampolines that the kernel has; nil if none of them
// hangs on a function that is handed the count.
func (c *checker) existing() *verdict {
	for _, tr := range c.tramps.all {
		if tr.Kind != "trampoline" || tr.Target.Kind != bpf.TargetProgram || tr.KeepsTailCalls == nil {
			continue
		}
		v, err := c.readImage(uint64(tr.Image), tr.Size)
		if err != nil {
			continue
		}
		if !v.keeps {
			v.evidence = append([]finding.Evidence{{Text: "this kernel's trampolines lose that count: seen on the one of " + tr.Target.Name}}, v.evidence...)
		}
		return v
	}
	return nil
}

// readImage judges by the code of a trampoline on a function that is handed
// the count.
func (c *checker) readImage(at uint64, size int) (*verdict, error) {
	b, err := mem.Bytes(c.src.Kernel.Mem(), at, size)
	if err != nil {
		return nil, fmt.Errorf("the code of a trampoline cannot be read: %w", err)
	}
	reachable := true
	code, err := jit.ReadTrampoline(b, at, jit.Options{Kind: jit.Trampoline, Sym: c.symbol, TailCallReachable: &reachable})
	if err != nil {
		return nil, fmt.Errorf("the code of a trampoline is not understood: %w", err)
	}
	if code.KeepsTailCalls == nil {
		return nil, errors.New("the code of a trampoline goes to no function")
	}
	v := &verdict{keeps: *code.KeepsTailCalls}
	v.evidence, v.lost = c.evidenceOf(code, b, at)
	return v, nil
}

// symbol names an address for packages jit and x86.
func (c *checker) symbol(addr uint64) (string, uint64, bool) {
	s, off, ok := c.src.Kernel.Symbolize(addr)
	return s.String(), off, ok
}

// insn shows the instruction at addr of an image that begins at start.
func (c *checker) insn(image []byte, start, addr uint64) (finding.Evidence, string) {
	e := finding.Evidence{Addr: mem.Addr(addr)}
	in, ok := decode(image, start, addr)
	if !ok {
		return e, ""
	}
	e.Bytes = hex.EncodeToString(in.Bytes())
	e.Insn = in.Op.String() + " " + c.callee(image, start, addr)
	if _, ok := in.Target(); !ok {
		e.Insn = string(in.AppendGNU(nil, c.symbol))
	}
	return e, c.name(addr)
}

func decode(image []byte, start, addr uint64) (x86.Inst, bool) {
	off := addr - start
	if off >= uint64(len(image)) {
		return x86.Inst{}, false
	}
	in, err := x86.Decode(image[off:], addr)
	return in, err == nil
}

// callee names the function that the instruction at addr goes to; "" if it
// goes to none.
func (c *checker) callee(image []byte, start, addr uint64) string {
	in, ok := decode(image, start, addr)
	if !ok {
		return ""
	}
	to, ok := in.Target()
	if !ok {
		return ""
	}
	return c.name(to)
}

// name is the symbol at an address, with the offset in it, or the address.
func (c *checker) name(addr uint64) string {
	s, off, ok := c.symbol(addr)
	switch {
	case !ok:
		return fmt.Sprintf("%#x", addr)
	case off == 0:
		return s
	}
	return fmt.Sprintf("%s+%#x", s, off)
}
