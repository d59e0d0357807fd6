package tracee

import (
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/ksleuth/ksleuth/bpf"
	"github.com/ksleuth/ksleuth/ctype"
)

// function describes a function of a BPF program.
func (r *resolver) function(p *bpf.Program, i int) *Function {
	key := funcKey{p.ID, i}
	if f := r.bpfFuncs[key]; f != nil {
		return f
	}
	f := &Function{Kind: Subprogram, Name: p.Name, Prog: p, Subprog: i, BTF: p.BTF}
	r.bpfFuncs[key] = f
	var typeID uint32
	if i < len(p.Subprogs) { // a program that is not compiled may have none
		s := p.Subprogs[i]
		f.Name, f.Addr, f.Len, typeID = s.Name, s.Addr, s.Len, s.TypeID
	}
	if i == 0 {
		f.Kind = Program
		if arrays, err := r.arrays(); arrays != nil {
			f.Slots = arrays.slots[p.ID]
			r.gapOnce("arrays", err)
		}
	}
	f.Refused = r.describe(f, typeID)
	r.extension(f)
	f.Context = r.context(f)
	return f
}

// describe fills in what the program's BTF says of a function, and returns why
// it cannot be observed, if so.
func (r *resolver) describe(f *Function, typeID uint32) *Refusal {
	p := f.Prog
	if p.BTF == 0 {
		return &Refusal{
			fmt.Sprintf("program %d %s was loaded without BTF, by which alone its functions can be named to the kernel", p.ID, p.Name),
			"load it with BTF: compile with clang -g; libbpf and cilium/ebpf then pass it on",
		}
	}
	types, err := r.programTypes(p)
	if err != nil {
		return &Refusal{Reason: fmt.Sprintf("the BTF of program %d %s cannot be read: %v", p.ID, p.Name, err)}
	}
	f.Types = types
	t, err := types.ByID("", typeID)
	if typeID == 0 || err != nil || t.Kind() != ctype.Func {
		return &Refusal{
			fmt.Sprintf("the BTF of program %d %s does not describe %s", p.ID, p.Name, f.Name),
			"load it with the function info that clang -g puts into the section .BTF.ext",
		}
	}
	f.ID, f.Proto, f.Name = typeID, t, t.Name()
	if !p.Jited {
		return &Refusal{
			fmt.Sprintf("program %d %s is interpreted: it has no machine code to attach to", p.ID, p.Name),
			"sysctl net.core.bpf_jit_enable=1, and load it again",
		}
	}
	return nil
}

// context returns what the kernel has behind the first parameter: of a main
// function always its program's context, of another if its type is that
// context's. A freplace program has the context of what it stands in for.
func (r *resolver) context(f *Function) *ctype.Type {
	kernel, err := r.kernel()
	if kernel == nil {
		r.gapOnce("types", err)
		return nil
	}
	user, kern := contextTypes(kernel, r.contextOwner(f.Prog).Type)
	if kern == nil || f.Subprog == 0 && f.Kind != Extension {
		return kern
	}
	params := f.Params()
	if len(params) == 0 {
		return nil
	}
	t := params[0].Type.Strip()
	if t.Kind() != ctype.Pointer {
		return nil
	}
	if name := t.Elem().Strip().Name(); name == "" || name != user.Strip().Name() {
		return nil
	}
	return kern
}

// contextOwner is the program whose type tells the context: p, or what p, a
// freplace program, stands in for.
func (r *resolver) contextOwner(p *bpf.Program) *bpf.Program {
	for range maxExtensions {
		if p.Type != extType {
			break
		}
		of := r.extends().of[p.ID]
		if of == nil {
			break
		}
		p = of.target
	}
	return p
}

// extType is the type of freplace programs. They can stand in for functions of
// each other; maxExtensions bounds the depth to which that is followed.
const (
	extType       = "ext"
	maxExtensions = 64
)

// extensions are the freplace programs at work.
type extensions struct {
	of map[int]*replaced        // by id of the freplace program
	by map[funcKey]*bpf.Program // by the function that it stands in for
}

type replaced struct {
	target  *bpf.Program
	subprog int
}

// readExtensions finds what freplace programs stand in for, by their links: a
// program that was merely loaded for a function does not replace it.
func (r *resolver) readExtensions() *extensions {
	e := &extensions{make(map[int]*replaced), make(map[funcKey]*bpf.Program)}
	progs, _ := r.progs()
	byID := make(map[int]*bpf.Program, len(progs))
	unknown := 0
	for _, p := range progs {
		byID[p.ID] = p
		if p.Type == extType {
			unknown++
		}
	}
	if unknown == 0 {
		return e
	}
	links, err := r.links()
	r.gapOnce("links", err)
	for _, l := range links {
		p := byID[l.ProgID]
		if p == nil || p.Type != extType {
			continue
		}
		for _, t := range l.Targets {
			target := byID[t.ProgID]
			if t.Kind != bpf.TargetProgram || target == nil {
				continue
			}
			i := slices.IndexFunc(target.Subprogs, func(s bpf.Subprog) bool {
				if t.Type != 0 && s.TypeID != 0 {
					return s.TypeID == uint32(t.Type)
				}
				return s.Name == t.Name
			})
			if i < 0 {
				continue
			}
			unknown--
			if e.of[p.ID] == nil {
				e.of[p.ID] = &replaced{target, i}
			}
			e.by[funcKey{target.ID, i}] = p
		}
	}
	if unknown > 0 && len(e.of) == 0 && r.src.BPF.Kernel == nil {
		r.gap(errors.New("what freplace programs stand in for is not known: before Linux 5.13 the kernel's memory alone tells"))
	}
	return e
}

// extension marks a freplace program, and a function in whose place one runs.
func (r *resolver) extension(f *Function) {
	if f.Prog.Type == extType && f.Subprog == 0 {
		f.Kind = Extension
		if of := r.extends().of[f.Prog.ID]; of != nil {
			f.Stub = &Stub{ProgID: of.target.ID, ProgName: of.target.Name, Type: of.target.Type, Func: of.target.Subprogs[of.subprog].Name}
		}
	}
	if f.Prog.Extended != nil && !*f.Prog.Extended {
		return
	}
	if by := r.extends().by[funcKey{f.Prog.ID, f.Subprog}]; by != nil {
		f.Refused = &Refusal{
			fmt.Sprintf("%s is replaced by %s (prog %d) and not called", f.Name, by.Name, by.ID),
			"observe prog:" + strconv.Itoa(by.ID) + " in its place",
		}
	}
}

// expand adds all that belongs to a program: see [Options.Subprogs]. A function
// that is replaced is followed by what stands in for it.
func (r *resolver) expand(p *bpf.Program) error {
	if r.expanded[p.ID] {
		return r.ctx.Err()
	}
	r.expanded[p.ID] = true
	for i := range max(1, len(p.Subprogs)) {
		r.add(r.function(p, i))
		if by := r.extends().by[funcKey{p.ID, i}]; by != nil {
			if err := r.expand(by); err != nil {
				return err
			}
		}
	}
	arrays, _ := r.arrays() // the error has been told
	progs, _ := r.progs()
	for _, id := range p.MapIDs {
		for _, in := range arrays.progs[id] {
			i := slices.IndexFunc(progs, func(q *bpf.Program) bool { return q.ID == in.prog })
			if i < 0 {
				continue // it has gone since
			}
			if err := r.expand(progs[i]); err != nil {
				return err
			}
		}
	}
	return nil
}
