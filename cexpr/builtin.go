package cexpr

import (
	"errors"
	"fmt"
	"strconv"

	"github.com/ksleuth/ksleuth/ctype"
	"github.com/ksleuth/ksleuth/mem"
)

// maxList bounds a list walk.
const maxList = 1 << 20

// table lists the functions that every Env has. (A variable would depend on itself.) Their names are those of the
// kernel's macros (include/linux/list.h, container_of.h, percpu-defs.h);
// list_for_each is an expression here, whose value is the sequence of pointers
// that list_for_each_entry's cursor would take.
func table() map[string]builtin {
	return map[string]builtin{
		"container_of":         {"ptr, type, member", (*evaluator).containerOf},
		"list_entry":           {"ptr, type, member", (*evaluator).containerOf},
		"hlist_entry":          {"ptr, type, member", (*evaluator).containerOf},
		"offsetof":             {"type, member", (*evaluator).offsetof},
		"list_for_each":        {"head, type, member", (*evaluator).listForEach},
		"list_for_each_entry":  {"head, type, member", (*evaluator).listForEach},
		"hlist_for_each":       {"head, type, member", (*evaluator).listForEach},
		"hlist_for_each_entry": {"head, type, member", (*evaluator).listForEach},
		"per_cpu":              {"var, cpu", (*evaluator).perCPU},
		"per_cpu_ptr":          {"ptr, cpu", (*evaluator).perCPUPtr},
	}
}

// A builtin is a function of the language.
type builtin struct {
	params string // for messages; its commas count the parameters
	run    func(e *evaluator, n *Call) (Result, error)
}

// Builtins returns the names of the built-in functions with their parameters.
func Builtins() map[string]string {
	out := make(map[string]string)
	for name, b := range table() {
		out[name] = b.params
	}
	return out
}

func (e *evaluator) call(n *Call) (Result, error) {
	if b, ok := table()[n.Fun.Name]; ok {
		want := 1
		for i := range len(b.params) {
			if b.params[i] == ',' {
				want++
			}
		}
		if len(n.Args) != want {
			return Result{}, e.errorf(n.Fun.At, "%s(%s) takes %d arguments, not %d", n.Fun.Name, b.params, want, len(n.Args))
		}
		return b.run(e, n)
	}
	args := make([]ctype.Value, len(n.Args))
	for i, a := range n.Args {
		var err error
		if args[i], err = e.value(a); err != nil {
			return Result{}, err
		}
	}
	r, err := e.env.Call(n.Fun.Name, args)
	if errors.Is(err, ctype.ErrNotFound) {
		var missing *ctype.NotFoundError
		if !errors.As(err, &missing) || missing.Suggestions == nil {
			names := []string{"sizeof"}
			for name := range table() {
				names = append(names, name)
			}
			err = &ctype.NotFoundError{Kind: "function", Name: n.Fun.Name, Suggestions: ctype.Suggest(n.Fun.Name, names)}
		}
	}
	if err == nil {
		err = r.check()
	}
	return r, e.fail(n.Fun.At, err)
}

// check says what is wrong with a Result that an Env made.
func (r Result) check() error {
	if !r.Seq && len(r.Values) != 1 {
		return fmt.Errorf("the function gave %d values", len(r.Values))
	}
	for _, v := range r.Values {
		if v.Type() == nil {
			return errors.New("the function gave no value")
		}
	}
	return nil
}

// typeArg returns an argument that must be a type.
func (e *evaluator) typeArg(n Node) (*ctype.Type, error) {
	if t, ok := n.(*TypeName); ok {
		return e.typ(t)
	}
	return nil, e.errorf(n.Pos(), "expected a type, as in struct task_struct")
}

// MemberPath returns the path that an argument spells which names a member, as
// in offsetof: a.b[3], as [ctype.Types.Member] takes it.
func MemberPath(n Node) (path string, ok bool) {
	switch n := n.(type) {
	case *Ident:
		return n.Name, true
	case *TypeName: // a member may have the name of a typedef
		return n.Text, true
	case *Member:
		if path, ok := MemberPath(n.X); ok && !n.Arrow {
			return path + "." + n.Name, true
		}
	case *Index:
		i, lit := n.I.(*IntLit)
		if path, ok := MemberPath(n.X); ok && lit {
			return path + "[" + strconv.FormatUint(i.Value, 10) + "]", true
		}
	}
	return "", false
}

// place evaluates the arguments type and member.
func (e *evaluator) place(typ, member Node) (*ctype.Type, string, ctype.Place, error) {
	t, err := e.typeArg(typ)
	if err != nil {
		return nil, "", ctype.Place{}, err
	}
	path, ok := MemberPath(member)
	if !ok {
		return nil, "", ctype.Place{}, e.errorf(member.Pos(), "expected a member, as in tasks or se.group_node")
	}
	p, err := e.ts.Member(t, path)
	if err == nil && p.BitSize != 0 {
		err = errors.New("a bitfield has no offset in bytes")
	}
	return t, path, p, e.fail(member.Pos(), err)
}

func (e *evaluator) offsetof(n *Call) (Result, error) {
	_, _, p, err := e.place(n.Args[0], n.Args[1])
	return Single(e.ulong(p.Offset, "offsetof")), err
}

func (e *evaluator) containerOf(n *Call) (Result, error) {
	t, path, p, err := e.place(n.Args[1], n.Args[2])
	if err != nil {
		return Result{}, err
	}
	return e.each1(n.Args[0].Pos(), n.Args[0], func(v ctype.Value) (ctype.Value, error) {
		u, err := e.address(v)
		name := fmt.Sprintf("container_of(%s, %s, %s)", v.Path(), t, path)
		return e.ts.Scalar(e.env.Mem(), ctype.PointerTo(t), u-p.Offset, name), err
	})
}

// address returns the address in a pointer or number, or of a record: where
// C wants &head, head will do.
func (e *evaluator) address(v ctype.Value) (uint64, error) {
	if v.Type().IsRecord() {
		return v.Addr()
	}
	return e.scalar(v)
}

func (e *evaluator) perCPU(n *Call) (Result, error) {
	return e.each2(n.Fun.At, n.Args[0], n.Args[1], func(v, cpu ctype.Value) (ctype.Value, error) {
		addr, err := v.Addr()
		if err != nil {
			return ctype.Value{}, err
		}
		addr, i, err := e.perCPUAddr(addr, cpu)
		return e.ts.Object(e.env.Mem(), v.Type(), addr, fmt.Sprintf("per_cpu(%s, %d)", v.Path(), i)), err
	})
}

func (e *evaluator) perCPUPtr(n *Call) (Result, error) {
	return e.each2(n.Fun.At, n.Args[0], n.Args[1], func(v, cpu ctype.Value) (ctype.Value, error) {
		t := Decay(v.Type())
		if !isPointer(t) {
			return ctype.Value{}, fmt.Errorf("%s is not a pointer", t)
		}
		addr, err := e.uint(v)
		if err != nil {
			return ctype.Value{}, err
		}
		addr, i, err := e.perCPUAddr(addr, cpu)
		return e.ts.Scalar(e.env.Mem(), t, addr, fmt.Sprintf("per_cpu_ptr(%s, %d)", v.Path(), i)), err
	})
}

func (e *evaluator) perCPUAddr(addr uint64, cpu ctype.Value) (uint64, int64, error) {
	i, err := e.scalar(cpu)
	if err != nil {
		return 0, 0, err
	}
	p, ok := e.env.(PerCPU)
	if !ok {
		return 0, 0, errors.New("per-CPU areas are not known here")
	}
	if i > 1<<16 {
		return 0, 0, fmt.Errorf("there is no CPU %d", int64(i))
	}
	addr, err = p.PerCPU(addr, int(i))
	return addr, int64(i), err
}

// listForEach walks a list_head or hlist_head. An error after the first
// element leaves a sequence that says why it is not complete.
func (e *evaluator) listForEach(n *Call) (Result, error) {
	t, path, p, err := e.place(n.Args[1], n.Args[2])
	if err != nil {
		return Result{}, err
	}
	hv, err := e.value(n.Args[0])
	if err != nil {
		return Result{}, err
	}
	head, err := e.address(hv)
	if err != nil {
		return Result{}, e.fail(n.Args[0].Pos(), err)
	}
	out := Result{Seq: true}
	if e.dry > 0 {
		return out, nil
	}
	w := walker{mem: e.env.Mem(), head: head, hlist: isHlist(p.Type)}
	ptr := ctype.PointerTo(t)
	for {
		pos, done, err := w.next()
		if err != nil {
			err = fmt.Errorf("list at %#x, element %d: %w", head, len(out.Values), err)
			if len(out.Values) == 0 {
				return Result{}, e.fail(n.Args[0].Pos(), err)
			}
			out.Err = e.fail(n.Args[0].Pos(), err)
			return out, nil
		}
		if done {
			return out, nil
		}
		name := "container_of(" + strconv.FormatUint(pos, 16) + ", " + path + ")"
		if len(out.Values) == 0 {
			name = "container_of(" + hv.Path() + "->next, " + path + ")"
		}
		out.Values = append(out.Values, e.ts.Scalar(w.mem, ptr, pos-p.Offset, name))
	}
}

// isHlist says whether a list's link is of the kind that ends in NULL.
func isHlist(t *ctype.Type) bool {
	name := t.Strip().Name()
	return name == "hlist_node" || name == "hlist_nulls_node" || name == "llist_node"
}

// A walker follows next pointers, the first word of list_head, hlist_head and
// hlist_node alike. It finds loops with Brent's algorithm: one address is
// remembered, for twice as long each time.
type walker struct {
	mem   mem.Reader
	head  uint64
	pos   uint64
	hlist bool

	count, power int
	mark         uint64
}

// next returns the next link; done says that the list has ended.
func (w *walker) next() (pos uint64, done bool, err error) {
	if w.mem == nil {
		return 0, false, errors.New("no memory to read from")
	}
	from := w.pos
	if w.count == 0 {
		from = w.head
	}
	if w.pos, err = mem.U64(w.mem, from); err != nil {
		return 0, false, err
	}
	// An hlist_nulls ends in an odd value, an hlist in NULL.
	if w.hlist && (w.pos == 0 || w.pos&1 != 0) || !w.hlist && w.pos == w.head {
		return 0, true, nil
	}
	switch {
	case w.pos == 0:
		return 0, false, fmt.Errorf("next at %#x is NULL", from)
	case w.count > 0 && w.pos == w.mark:
		return 0, false, fmt.Errorf("the list runs in a circle through %#x that leaves out its head", w.pos)
	case w.count == maxList:
		return 0, false, fmt.Errorf("more than %d elements", maxList)
	}
	if w.count++; w.count > w.power {
		w.power = 2 * w.count
		w.mark = w.pos
	}
	return w.pos, false, nil
}
