package guard

import (
	"fmt"

	"github.com/ksleuth/ksleuth/cfg"
	"github.com/ksleuth/ksleuth/finding"
	"github.com/ksleuth/ksleuth/kernel"
	"github.com/ksleuth/ksleuth/mem"
	"github.com/ksleuth/ksleuth/tracee"
	"github.com/ksleuth/ksleuth/x86"
)

// ends are functions that never return (tools/objtool/noreturns.h has more):
// behind their calls compilers put what does not belong to them.
var ends = []string{
	"__stack_chk_fail", "do_exit", "do_group_exit", "do_task_dead", "kthread_complete_and_exit", "kthread_exit",
	"make_task_dead", "panic", "rewind_stack_and_make_dead", "x86_64_start_reservations",
}

// noReturn warns of kernel functions that never return, where a program is to
// be at their return: it would not be called, and what the trampoline keeps
// for the way back would never be freed.
func (c *checker) noReturn() {
	if c.src.Kernel == nil || !c.opts.Exit {
		return
	}
	o := cfg.Options{Warn: func(uint64) bool { return true }}
	for _, f := range c.funcs {
		if f.Kind != tracee.Kernel || f.Addr == 0 || c.unable(f) {
			continue
		}
		if o.NoReturn == nil {
			never := make(map[uint64]bool)
			for _, s := range c.src.Kernel.LookupAll(ends...) {
				never[s.Addr] = true
			}
			o.NoReturn = func(to uint64) bool { return never[to] }
		}
		n, ok := c.neverReturns(f, o)
		if !ok {
			continue
		}
		c.warn(f, Warning{
			ID: Noreturn, Severity: Unable,
			Title:    "it never returns: a program at its return would not be called, and its trampoline could never be freed",
			Evidence: []finding.Evidence{{Text: fmt.Sprintf("none of the %d blocks of its code that are reached ends in a return or a jump out of it", n), Addr: f.Addr, Symbol: f.Name}},
			Remedy:   entryOnly,
		})
	}
}

// neverReturns follows the code of a function: whether there is no way out of
// it, and how many blocks it has. Traps are taken to go on, as a WARN does.
func (c *checker) neverReturns(f *tracee.Function, o cfg.Options) (blocks int, ok bool) {
	k := c.src.Kernel
	size := uint64(f.Len)
	if s, off, ok := k.Symbolize(uint64(f.Addr)); ok && off == 0 && size == 0 {
		size = s.Size
	}
	code, ok := c.text(kernel.Symbol{Addr: uint64(f.Addr), Size: size})
	if !ok {
		return 0, false
	}
	if cold, ok := k.Lookup(f.Name + ".cold"); ok && cold.Module == f.Module {
		if b, ok := c.text(cold); ok {
			o.Parts = []cfg.Part{{Addr: cold.Addr, Code: b}}
		}
	}
	g, err := cfg.Build(code, uint64(f.Addr), o)
	if err != nil || len(g.Blocks) == 0 {
		return 0, false
	}
	for i, b := range g.Blocks {
		if b.Unknown || b.Exit && leaves(g, i) {
			return 0, false
		}
	}
	return len(g.Blocks), true
}

func (c *checker) text(s kernel.Symbol) ([]byte, bool) {
	if s.Size == 0 || s.Size > cfg.DefaultLimit {
		return nil, false
	}
	b, err := mem.Bytes(c.src.Kernel.Mem(), s.Addr, int(s.Size))
	return b, err == nil
}

// leaves says that a block leaves its function by an instruction that does so,
// and not by the end of the code: that is behind a call that does not return.
func leaves(g *cfg.Graph, block int) bool {
	b := g.Blocks[block]
	code := g.Code(block)
	if b.Last < b.Start || b.Last-b.Start >= uint64(len(code)) {
		return true
	}
	in, err := x86.Decode(code[b.Last-b.Start:], b.Last)
	if err != nil {
		return true
	}
	switch in.Flow() {
	case x86.FlowRet, x86.FlowJump, x86.FlowIndirectJump, x86.FlowCondJump:
		return true
	}
	return false
}
