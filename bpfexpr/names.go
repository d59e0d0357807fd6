package bpfexpr

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/ksleuth/ksleuth/cexpr"
	"github.com/ksleuth/ksleuth/ctype"
)

// ident finds a name: a variable of the call, an enumerator, or one of the
// constants that are macros in the kernel.
func (c *checker) ident(n *cexpr.Ident) (operand, error) {
	if c.self != nil && n.Name == selfIdent {
		return *c.self, nil
	}
	v, err := c.env.Var(n.Name)
	if err == nil {
		return c.variable(n, v)
	}
	if !errors.Is(err, ctype.ErrNotFound) {
		return operand{}, err
	}
	if e, t, err := c.ts.Enumerator(n.Name); err == nil {
		// An enumerator is an int if it fits (C17 6.7.2.2p3).
		if int64(e.Value) == int64(int32(e.Value)) {
			t = ctype.Builtin("int")
		}
		return number(t, constant(e.Value)), nil
	}
	switch n.Name {
	case "NULL":
		return number(ctype.PointerTo(ctype.Builtin("void")), constant(0)), nil
	case "true":
		return number(ctype.Builtin("bool"), constant(1)), nil
	case "false":
		return number(ctype.Builtin("bool"), constant(0)), nil
	}
	return operand{}, err
}

func (c *checker) variable(n *cexpr.Ident, v Var) (operand, error) {
	if v.Exit {
		c.exit++
		defer func() { c.exit-- }()
	}
	if v.Expr != "" {
		o, err := c.expand(n.At, v.Expr, nil)
		if err == nil && v.Type != nil {
			o, err = c.cast(o, v.Type)
		}
		return o, c.fail(n.At, err)
	}
	if v.Type == nil {
		return operand{}, fmt.Errorf("the type of %s is not known", n.Name)
	}
	return operand{place: inCall, typ: v.Type, off: int(v.Off), shift: v.Shift, exit: v.Exit}, nil
}

// expand checks an expression that stands for a name at a position.
func (c *checker) expand(at int, src string, self *operand) (operand, error) {
	if c.depth++; c.depth > maxDepth {
		return operand{}, c.errorf(at, "names stand for each other more than %d deep", maxDepth)
	}
	x, err := cexpr.Parse(src, cexpr.IsType(c.ts))
	if err != nil {
		return operand{}, c.errorf(at, "in %q: %w", src, err)
	}
	pinned, outer := c.pinned, c.self
	if c.pinned < 0 {
		c.pinned = at
	}
	c.self = self
	o, err := c.check(x.Root)
	c.pinned, c.self = pinned, outer
	c.depth--
	return o, err
}

// rewritten returns what stands for a member of an object.
func (c *checker) rewritten(o operand, name, src string) (operand, error) {
	if src == "" {
		return operand{}, fmt.Errorf("%s of %s is made up for BPF programs: the kernel has it nowhere", name, o.typ)
	}
	t := o.typ
	if real, ok := kernelContext[t.Strip().Name()]; ok {
		if k, err := c.ts.Struct(real); err == nil {
			t = k
		}
	}
	self := number(ctype.PointerTo(t), o.n)
	self.user, self.exit = o.user, o.exit
	return c.expand(c.at, strings.ReplaceAll(src, "$", selfIdent), &self)
}

// selfIdent is the name that stands for the $ of [Env.Member], which is not in
// the language.
const selfIdent = "__ksleuth_self"

// kernelContext has what the contexts that BPF programs see are in the kernel
// (include/linux/bpf_types.h). Those that are the same are left out.
var kernelContext = map[string]string{
	"__sk_buff":           "sk_buff",
	"xdp_md":              "xdp_buff",
	"bpf_sock":            "sock",
	"bpf_sock_addr":       "bpf_sock_addr_kern",
	"bpf_sock_ops":        "bpf_sock_ops_kern",
	"sk_msg_md":           "sk_msg",
	"sk_reuseport_md":     "sk_reuseport_kern",
	"bpf_sk_lookup":       "bpf_sk_lookup_kern",
	"bpf_sockopt":         "bpf_sockopt_kern",
	"bpf_sysctl":          "bpf_sysctl_kern",
	"bpf_perf_event_data": "bpf_perf_event_data_kern",
}

// A builtin is a function of the language.
type builtin struct {
	params int
	run    func(c *checker, n *cexpr.Call) (operand, error)
}

// builtins are the functions. The first ones are those of package cexpr.
func builtins() map[string]builtin {
	return map[string]builtin{
		"container_of": {3, (*checker).containerOf},
		"list_entry":   {3, (*checker).containerOf},
		"hlist_entry":  {3, (*checker).containerOf},
		"offsetof":     {2, (*checker).offsetof},
		"exit":         {1, (*checker).atExit},
		"user":         {1, (*checker).userSpace},
	}
}

func (c *checker) call(n *cexpr.Call) (operand, error) {
	known := builtins()
	b, ok := known[n.Fun.Name]
	if !ok {
		if _, ok := cexpr.Builtins()[n.Fun.Name]; ok {
			return operand{}, fmt.Errorf("%s() cannot be evaluated in the kernel, only by print", n.Fun.Name)
		}
		names := []string{"sizeof"}
		for name := range known {
			names = append(names, name)
		}
		slices.Sort(names)
		return operand{}, &ctype.NotFoundError{Kind: "function", Name: n.Fun.Name, Suggestions: ctype.Suggest(n.Fun.Name, names)}
	}
	if len(n.Args) != b.params {
		return operand{}, fmt.Errorf("%s() takes %d arguments, not %d", n.Fun.Name, b.params, len(n.Args))
	}
	return b.run(c, n)
}

// inType evaluates the arguments type and member.
func (c *checker) inType(typ, member cexpr.Node) (*ctype.Type, ctype.Place, error) {
	tn, ok := typ.(*cexpr.TypeName)
	if !ok {
		return nil, ctype.Place{}, c.errorf(typ.Pos(), "expected a type, as in struct task_struct")
	}
	t, err := c.typ(tn)
	if err != nil {
		return nil, ctype.Place{}, err
	}
	path, ok := cexpr.MemberPath(member)
	if !ok {
		return nil, ctype.Place{}, c.errorf(member.Pos(), "expected a member, as in tasks or se.group_node")
	}
	p, err := c.ts.Member(t, path)
	if err == nil && p.BitSize != 0 {
		err = errors.New("a bitfield has no offset in bytes")
	}
	return t, p, c.fail(member.Pos(), err)
}

func (c *checker) offsetof(n *cexpr.Call) (operand, error) {
	_, p, err := c.inType(n.Args[0], n.Args[1])
	return number(ctype.Builtin("unsigned long"), constant(p.Offset)), err
}

func (c *checker) containerOf(n *cexpr.Call) (operand, error) {
	t, p, err := c.inType(n.Args[1], n.Args[2])
	if err != nil {
		return operand{}, err
	}
	o, err := c.check(n.Args[0])
	if err != nil {
		return operand{}, err
	}
	get := o.value
	if o.typ.IsRecord() { // where C wants &head, head will do
		get = o.address
	}
	v, err := get()
	if err != nil {
		return operand{}, c.fail(n.Args[0].Pos(), err)
	}
	out := number(ctype.PointerTo(t), arith("-", false, v, constant(p.Offset)))
	out.user = o.user
	return out, nil
}

// atExit is exit(EXPR): EXPR as it is when the call returns.
func (c *checker) atExit(n *cexpr.Call) (operand, error) {
	c.exit++
	defer func() { c.exit-- }()
	return c.check(n.Args[0])
}

// userSpace is user(EXPR): what EXPR points to is in user space.
func (c *checker) userSpace(n *cexpr.Call) (operand, error) {
	o, err := c.check(n.Args[0])
	if err != nil {
		return operand{}, err
	}
	v, err := o.value()
	if err != nil || !isPointer(cexpr.Decay(o.typ)) {
		return operand{}, cmp.Or(err, fmt.Errorf("%s is not a pointer", o.typ))
	}
	out := number(cexpr.Decay(o.typ), v)
	out.user = true
	return out, nil
}
