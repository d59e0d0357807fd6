package tracee

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/ksleuth/ksleuth/ctype"
	"github.com/ksleuth/ksleuth/kernel"
	"github.com/ksleuth/ksleuth/mem"
)

// vmlinux is the name of the kernel's own BTF, and stands for the kernel
// without its modules in a pattern.
const vmlinux = "vmlinux"

// kernelFunctions returns the functions of the kernel and its modules, or of one
// of them, that fit a name, by the numbers of their types. A name in full that
// is no glob gives a function, with the reason why it is refused, also if the
// kernel knows it as a symbol alone.
func (r *resolver) kernelFunctions(module, name string) ([]*Function, error) {
	types, err := r.kernel()
	if types == nil {
		if isGlob(name) && module != "" {
			return nil, fmt.Errorf("functions of the kernel cannot be told: %w", err)
		}
		return r.undescribed(module, name, &Refusal{
			"the kernel has no types (BTF) to describe functions by: " + err.Error(), "a kernel with CONFIG_DEBUG_INFO_BTF",
		}), nil
	}
	fits := func(b []byte) bool { return string(b) == name }
	if isGlob(name) {
		fits = func(b []byte) bool { ok, _ := path.Match(name, string(b)); return ok }
	}
	var found []*ctype.Type
	n := 0
	for t := range types.Match(ctype.Func, fits) {
		if module != "" && module != t.Module() {
			continue
		}
		if n++; n <= r.o.Max {
			found = append(found, t)
		}
	}
	if n > r.o.Max {
		return nil, &LimitError{r.pattern, n, r.o.Max}
	}
	if len(found) == 0 {
		why := "the kernel's types (BTF) do not describe it: it is written in assembler, a copy that the compiler made, or was left out"
		if module != "" && module != vmlinux {
			why = fmt.Sprintf("the kernel has no types (BTF) of it in module %s", module)
		}
		return r.undescribed(module, name, &Refusal{why, ""}), nil
	}
	placed := r.place(name)
	var out []*Function
	for _, t := range found {
		if f := r.kernelFunction(types, t, placed); !slices.Contains(out, f) {
			out = append(out, f)
		}
	}
	return out, nil
}

// A placement tells where functions are.
type placement struct {
	syms   map[string][]kernel.Symbol // by the name that the module and the function have
	copies map[string][]string        // what the compiler made of a function, by the same
	err    error
}

// moduleOf is the name of what a symbol belongs to.
func moduleOf(s kernel.Symbol) string {
	if s.Kind == kernel.KindModule {
		return s.Module
	}
	return vmlinux
}

// copyMarks are what gcc and clang put behind the name of a function of which
// they made another.
var copyMarks = []string{".isra.", ".constprop.", ".part.", ".cold", ".llvm.", ".localalias"}

// place finds the symbols of the functions that fit a name.
func (r *resolver) place(name string) placement {
	p := placement{syms: make(map[string][]kernel.Symbol), copies: make(map[string][]string)}
	table, err := r.symbols()
	if err != nil {
		p.err = err
		return p
	}
	for _, pattern := range []string{name, name + ".*"} {
		syms, err := table.Match(pattern)
		if err != nil {
			p.err = err
			return p
		}
		for _, s := range syms {
			if s.Kind != kernel.KindKernel && s.Kind != kernel.KindModule || s.Addr>>63 == 0 {
				continue
			}
			if base, mark, ok := cutCopy(s.Name); ok {
				key := moduleOf(s) + ":" + base
				p.copies[key] = append(p.copies[key], base+mark)
				continue
			}
			key := moduleOf(s) + ":" + s.Name
			if !slices.ContainsFunc(p.syms[key], func(o kernel.Symbol) bool { return o.Addr == s.Addr }) {
				p.syms[key] = append(p.syms[key], s)
			}
		}
	}
	return p
}

// cutCopy takes the name of a copy apart.
func cutCopy(name string) (base, mark string, ok bool) {
	for _, m := range copyMarks {
		if i := strings.Index(name, m); i > 0 {
			return name[:i], name[i:], true
		}
	}
	return name, "", false
}

// kernelFunction describes a function that has a type.
func (r *resolver) kernelFunction(types *ctype.Types, t *ctype.Type, p placement) *Function {
	key := t.Module() + ":" + t.Name()
	// Files can declare one function differently, and each way has a type of
	// its own: the first counts, as it does for the kernel.
	if f := r.kernFunc[key]; f != nil {
		return f
	}
	f := &Function{Kind: Kernel, Name: t.Name(), Types: types, BTF: r.btfs()[t.Module()], ID: t.ID(), Proto: t}
	if t.Module() != vmlinux {
		f.Module = t.Module()
	}
	r.kernFunc[key] = f
	syms := p.syms[key]
	switch {
	case p.err != nil:
		r.gapOnce("symbols", fmt.Errorf("where functions of the kernel are is not known: %w", p.err))
		return f
	case len(syms) == 0:
		f.Refused = gone(f, p.copies[key])
		return f
	case len(syms) > 1:
		addrs := make([]string, len(syms))
		for i, s := range syms {
			addrs[i] = mem.Addr(s.Addr).String()
		}
		f.Refused = &Refusal{fmt.Sprintf("%d symbols are called %s (at %s): the kernel cannot be told which", len(syms), f, strings.Join(addrs, ", ")), ""}
	}
	f.Addr, f.Len = mem.Addr(syms[0].Addr), int(syms[0].Size)
	if f.Refused == nil {
		f.Refused = r.untraceable(f)
	}
	return f
}

// gone says why a function that has a type has no symbol.
func gone(f *Function, copies []string) *Refusal {
	slices.Sort(copies)
	if copies = slices.Compact(copies); len(copies) > 0 {
		return &Refusal{fmt.Sprintf("the compiler made %s of %s, which takes other arguments or is a part of it", strings.Join(copies, " and "), f), "observe what calls it, or what it calls"}
	}
	return &Refusal{fmt.Sprintf("%s has no code of its own: it was inlined everywhere, or its code was freed after it had run once", f), "observe what calls it, or what it calls"}
}

// undescribed returns the functions of a name in full that have no type. Of
// globs there are none.
func (r *resolver) undescribed(module, name string, why *Refusal) []*Function {
	if isGlob(name) {
		return nil
	}
	var out []*Function
	p := r.place(name)
	for key, syms := range p.syms {
		if module != "" && key != module+":"+name {
			continue
		}
		f := &Function{Kind: Kernel, Name: name, Addr: mem.Addr(syms[0].Addr), Len: int(syms[0].Size), Refused: why}
		if m := moduleOf(syms[0]); m != vmlinux {
			f.Module = m
		}
		if known := r.kernFunc[key]; known != nil {
			f = known
		}
		r.kernFunc[key] = f
		out = append(out, f)
	}
	slices.SortFunc(out, func(a, b *Function) int { return strings.Compare(a.String(), b.String()) })
	return out
}

// noKernelFunction is the error for a name that is no function of the kernel's.
func (r *resolver) noKernelFunction(module, name string) error {
	if module != "" && module != vmlinux && !r.hasModule(module) {
		return r.notFound(nil, nil, "there is no module %s in the kernel, nor is %s: a way to name functions", module, module)
	}
	var near []string
	if !isGlob(name) {
		near = r.near(module, name)
		if p := r.place(name); len(p.copies) > 0 {
			for key, copies := range p.copies {
				if module == "" || key == module+":"+name {
					slices.Sort(copies)
					return r.notFound(nil, nil, "the compiler left no function %s: it made %s of it, which cannot be observed by name", name, strings.Join(slices.Compact(copies), " and "))
				}
			}
		}
	}
	switch {
	case module != "" && !r.hasTypes(module):
		return r.notFound(nil, nil, "the kernel has no types (BTF) of module %s, by which its functions could be found", module)
	case module != "":
		return r.notFound(nil, near, "%s has no function %s", module, name)
	case isGlob(name):
		return r.notFound(nil, near, "no function of the kernel and no BPF program fits %s", name)
	}
	return r.notFound(nil, near, "there is no function of the kernel and no BPF program called %s", name)
}

// hasModule reports whether the kernel has types or symbols of a module.
func (r *resolver) hasModule(module string) bool {
	if r.hasTypes(module) {
		return true
	}
	table, err := r.symbols()
	if err != nil {
		return false
	}
	syms, _ := table.Match("*")
	return slices.ContainsFunc(syms, func(s kernel.Symbol) bool { return s.Module == module })
}

func (r *resolver) hasTypes(module string) bool {
	types, _ := r.kernel()
	if types == nil {
		return false
	}
	_, err := types.ByID(module, 0)
	return err == nil
}

// near returns names of functions and of BPF programs that come near to one.
func (r *resolver) near(module, name string) []string {
	var names []string
	if types, _ := r.kernel(); types != nil {
		for t := range types.Match(ctype.Func, func(b []byte) bool { return abs(len(b)-len(name)) <= 3 }) {
			if module == "" || t.Module() == module {
				names = append(names, t.Name())
			}
		}
	}
	if module == "" {
		progs, _ := r.progs()
		for _, p := range progs {
			names = append(names, p.Name)
		}
	}
	return ctype.Suggest(name, names)
}

func abs(n int) int { return max(n, -n) }
