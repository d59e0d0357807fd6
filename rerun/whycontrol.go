package rerun

import (
	"strings"

	"github.com/ksleuth/ksleuth/cfg"
	"github.com/ksleuth/ksleuth/kernel"
	"github.com/ksleuth/ksleuth/mem"
)

// A controlGraphs tells on which branches an instruction depends, by the control flow
// graphs of the functions. It is an [emulate.Control].
type controlGraphs struct {
	s      *Session
	graphs map[uint64]*cfg.Graph // by start of the function; nil where there is none
	ends   map[uint64]bool       // functions that do not return

	deps    map[*cfg.Graph]map[uint64][]int
	written map[uint64]uint16 // by branch; see writes
	jumps   map[uint64]bool   // by jump; see leaves
}

// neverReturn are functions that the compiler knows not to return, of those
// that branches lead to often.
var neverReturn = []string{
	"panic", "__stack_chk_fail", "do_exit", "do_group_exit", "make_task_dead", "kthread_exit", "kthread_complete_and_exit",
	"__fortify_panic", "fortify_panic", "usercopy_abort", "rewind_stack_and_make_dead", "rewind_stack_do_exit",
	"__module_put_and_kthread_exit", "__module_put_and_exit", "complete_and_exit", "nmi_panic_self_stop", "machine_real_restart",
	"__ubsan_handle_builtin_unreachable", "xen_start_kernel", "bad_range",
}

func (s *Session) branches() *controlGraphs {
	c := &controlGraphs{s: s, graphs: map[uint64]*cfg.Graph{}, ends: map[uint64]bool{},
		deps: map[*cfg.Graph]map[uint64][]int{}, written: map[uint64]uint16{}, jumps: map[uint64]bool{}}
	for _, sym := range s.k.LookupAll(neverReturn...) {
		c.ends[sym.Addr] = true
	}
	return c
}

// Controls implements [emulate.Control].
func (c *controlGraphs) Controls(_, addr uint64) []uint64 {
	g := c.graph(addr)
	if g == nil {
		return nil
	}
	return g.Controls(addr)
}

// graph returns the graph of the function that addr lies in, or nil.
func (c *controlGraphs) graph(addr uint64) *cfg.Graph {
	sym, _, ok := c.s.k.Symbolize(addr)
	if !ok {
		return nil
	}
	// foo.cold is a part of foo.
	if i := strings.Index(sym.Name, ".cold"); i > 0 {
		if whole, ok := c.s.k.Lookup(sym.Name[:i]); ok && whole.Module == sym.Module {
			sym = whole
		}
	}
	g, ok := c.graphs[sym.Addr]
	if !ok {
		g = c.build(sym)
		c.graphs[sym.Addr] = g
	}
	return g
}

// build returns the graph of a function, nil if its code cannot be followed.
func (c *controlGraphs) build(sym kernel.Symbol) *cfg.Graph {
	if sym.Size == 0 || sym.Size > cfg.DefaultLimit {
		return nil
	}
	code, err := mem.Bytes(c.s.view, sym.Addr, int(sym.Size))
	if err != nil {
		return nil
	}
	o := cfg.Options{
		NoReturn: func(to uint64) bool { return c.ends[to] },
		Warn: func(at uint64) bool {
			b, ok := c.s.bugAt(at)
			return ok && b.warning
		},
	}
	if sym.Kind == kernel.KindKernel || sym.Kind == kernel.KindModule {
		if cold, ok := c.s.k.Lookup(sym.Name + ".cold"); ok && cold.Module == sym.Module && cold.Size < cfg.DefaultLimit {
			if b, err := mem.Bytes(c.s.view, cold.Addr, int(cold.Size)); err == nil {
				o.Parts = append(o.Parts, cfg.Part{Addr: cold.Addr, Code: b})
			}
		}
	}
	g, err := cfg.Build(code, sym.Addr, o)
	if err != nil {
		return nil
	}
	return g
}
