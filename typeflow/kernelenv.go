package typeflow

import (
	"sort"
	"strings"

	"github.com/ksleuth/ksleuth/ctype"
	"github.com/ksleuth/ksleuth/kernel"
)

// A KernelEnv names what a kernel and its modules consist of.
type KernelEnv struct {
	k      *kernel.Kernel
	types  *ctype.Types
	offs   []uint64        // of each CPU's area
	percpu []kernel.Symbol // of a kernel whose per-CPU area is linked at 0
	start  uint64          // of the area as it is linked, for later ones
	end    uint64
	// vars are the types of variables already asked for, by address: to look
	// for a name that BTF does not have takes long.
	vars map[uint64]*ctype.Type
}

// ForKernel returns the names of a kernel.
func ForKernel(k *kernel.Kernel) (*KernelEnv, error) {
	types, err := k.Types()
	if err != nil {
		return nil, err
	}
	e := &KernelEnv{k: k, types: types, percpu: k.PerCPUSymbols(), vars: map[uint64]*ctype.Type{}}
	n, err := k.CPUs()
	if err != nil {
		return nil, err
	}
	for cpu := range n {
		off, err := k.PerCPU(0, cpu)
		if err != nil {
			return nil, err
		}
		e.offs = append(e.offs, off)
	}
	e.start, _ = k.Addr("__per_cpu_start")
	e.end, _ = k.Addr("__per_cpu_end")
	return e, nil
}

// Types implements [Env].
func (e *KernelEnv) Types() *ctype.Types { return e.types }

// copies are the endings of functions that the compiler made of others.
var copies = [...]string{".isra.", ".part.", ".constprop."}

// Func implements [Env].
func (e *KernelEnv) Func(addr uint64) (Func, bool) {
	s, off, ok := e.k.Symbolize(addr)
	if !ok || off != 0 || strings.Contains(s.Name, ".cold") {
		return Func{}, false
	}
	fn := Func{Name: s.Name, Exact: true}
	for _, c := range copies {
		if i := strings.Index(fn.Name, c); i >= 0 {
			fn.Name, fn.Exact = fn.Name[:i], false
		}
	}
	if s.Kind == kernel.KindBPF || s.Kind == kernel.KindTrampoline {
		return fn, true
	}
	fn.Proto = e.proto(s.Module, fn.Name)
	return fn, true
}

// proto returns the prototype of a function, by its module.
func (e *KernelEnv) proto(module, name string) *ctype.Type {
	var found *ctype.Type
	for _, t := range e.types.LookupAll(name) {
		if t.Kind() != ctype.Func || t.Module() != module && (module != "" || t.Module() != "vmlinux") {
			continue
		}
		if found != nil {
			return nil // of several functions of one name, which?
		}
		found = t.Elem()
	}
	return found
}

// Variable implements [Env].
func (e *KernelEnv) Variable(addr uint64) (Variable, bool) {
	for cpu, off := range e.offs {
		if v, ok := e.perCPU(addr, off, cpu); ok {
			return v, true
		}
	}
	if addr < 1<<63 {
		return Variable{}, false
	}
	s, off, ok := e.k.Symbolize(addr)
	if !ok || off >= max(s.Size, 1) || s.Kind != kernel.KindKernel && s.Kind != kernel.KindModule {
		return Variable{}, false
	}
	return Variable{Name: s.Name, Addr: s.Addr, Size: s.Size, CPU: -1, Type: e.typeOf(s)}, true
}

// typeOf returns the type of a variable, nil if it is not known.
func (e *KernelEnv) typeOf(s kernel.Symbol) *ctype.Type {
	t, ok := e.vars[s.Addr]
	if ok {
		return t
	}
	if g, err := e.k.Global(s.Name); err == nil {
		if at, err := g.Addr(); err == nil && at == s.Addr && sized(g.Type()) {
			t = g.Type()
		}
	}
	e.vars[s.Addr] = t
	return t
}

func sized(t *ctype.Type) bool {
	n, err := t.Size()
	return err == nil && n > 0
}

// perCPU returns the variable that addr lies in, in the area of one CPU.
func (e *KernelEnv) perCPU(addr, off uint64, cpu int) (Variable, bool) {
	at := addr - off
	var s kernel.Symbol
	switch {
	case len(e.percpu) > 0:
		i := sort.Search(len(e.percpu), func(i int) bool { return e.percpu[i].Addr > at })
		if i == 0 || at >= e.end-e.start && e.end > e.start {
			return Variable{}, false
		}
		s = e.percpu[i-1]
		for i--; i > 0 && e.percpu[i-1].Addr == s.Addr; i-- { // aliases: any that BTF knows
			if _, err := e.types.Lookup("var " + e.percpu[i-1].Name); err == nil {
				s = e.percpu[i-1]
			}
		}
	case at >= e.start && at < e.end:
		var ok bool
		if s, _, ok = e.k.Symbolize(at); !ok {
			return Variable{}, false
		}
	default:
		return Variable{}, false
	}
	v := Variable{Name: s.Name, Addr: s.Addr + off, Size: s.Size, CPU: cpu}
	v.Type = e.typeOf(s)
	if v.Type != nil {
		if n, err := v.Type.Size(); err == nil && addr-v.Addr < uint64(n) {
			return v, true
		}
	}
	return v, at-s.Addr < s.Size
}

// Symbol implements [Env].
func (e *KernelEnv) Symbol(addr uint64) string {
	s, off, ok := e.k.Symbolize(addr)
	if !ok || off >= max(s.Size, 1) {
		return ""
	}
	if off == 0 {
		return s.Name
	}
	return e.k.FormatAddr(addr)
}
