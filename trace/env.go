package trace

import (
	"fmt"
	"slices"

	"github.com/ksleuth/ksleuth/bpfexpr"
	"github.com/ksleuth/ksleuth/ctype"
	"github.com/ksleuth/ksleuth/probe"
	"github.com/ksleuth/ksleuth/tracee"
)

// env gives the expressions of a trace the names of one function: its
// parameters, and what every call has.
type env struct {
	f     *tracee.Function
	types *ctype.Types // the kernel's
	vars  map[string]bpfexpr.Var
	names []string
}

// Names that every call has.
const (
	nameRet      = "ret"
	nameDuration = "duration"
)

// newEnv returns the names of a function. regs is how many arguments are to be
// had.
func newEnv(f *tracee.Function, types *ctype.Types, regs int) *env {
	e := &env{f: f, types: types, vars: make(map[string]bpfexpr.Var)}
	for i, p := range f.Params() {
		if i < regs && p.Name != "" {
			e.add(p.Name, bpfexpr.Var{Type: e.param(i, p.Type), Off: int16(probe.CallArgs + 8*i)})
		}
	}
	if f.Context != nil {
		context := bpfexpr.Var{Type: ctype.PointerTo(f.Context), Off: probe.CallArgs}
		e.add(kernelName(f.Context), context)
		if p := f.Params(); len(p) > 0 {
			context.Type = e.param(0, p[0].Type)
		}
		e.add("ctx", context)
	}
	for _, v := range everyCall {
		e.add(v.name, v.Var)
	}
	e.add(nameRet, bpfexpr.Var{Type: result(f), Off: probe.CallRet, Exit: true})
	return e
}

// everyCall are the names that all calls have but what they return.
var everyCall = []struct {
	name string
	bpfexpr.Var
}{
	{"pid", bpfexpr.Var{Type: ctype.Builtin("int"), Off: probe.CallPidTgid, Shift: 32}},
	{"tid", bpfexpr.Var{Type: ctype.Builtin("int"), Off: probe.CallPidTgid}},
	{"uid", bpfexpr.Var{Type: ctype.Builtin("unsigned int"), Off: probe.CallUidGid}},
	{"gid", bpfexpr.Var{Type: ctype.Builtin("unsigned int"), Off: probe.CallUidGid, Shift: 32}},
	{"cgroup", bpfexpr.Var{Type: ctype.Builtin("unsigned long"), Off: probe.CallCgroup}},
	{"cpu", bpfexpr.Var{Type: ctype.Builtin("int"), Off: probe.CallCPU}},
	{"comm", bpfexpr.Var{Type: ctype.ArrayOf(ctype.Builtin("char"), 16), Off: probe.CallComm}},
	{nameDuration, bpfexpr.Var{Expr: "now_ - start_", Exit: true}},
	{"start_", bpfexpr.Var{Type: ctype.Builtin("unsigned long"), Off: probe.CallStart}},
	{"now_", bpfexpr.Var{Type: ctype.Builtin("unsigned long"), Off: probe.CallNow, Exit: true}},
}

func (e *env) add(name string, v bpfexpr.Var) {
	if _, ok := e.vars[name]; ok || name == "" {
		return // what the function calls its own comes first
	}
	e.vars[name] = v
	if name[len(name)-1] != '_' {
		e.names = append(e.names, name)
	}
}

// param returns the type of a parameter. The context of a BPF program is taken
// from the kernel's types: a program may know but a part of it.
func (e *env) param(i int, t *ctype.Type) *ctype.Type {
	if i > 0 || e.f.Context == nil {
		return t
	}
	s := t.Strip()
	if s.Kind() != ctype.Pointer {
		return t
	}
	if full, err := e.types.Struct(s.Elem().Strip().Name()); err == nil {
		return ctype.PointerTo(full)
	}
	return t
}

// result returns the type that a function returns: long where nothing says.
func result(f *tracee.Function) *ctype.Type {
	if t := f.Result(); t != nil && t.Strip().Kind() != ctype.Void {
		return t
	}
	return ctype.Builtin("long")
}

// kernelName is what a context is called in the kernel's own terms.
func kernelName(t *ctype.Type) string {
	switch t.Strip().Name() {
	case "sk_buff":
		return "skb"
	case "xdp_buff":
		return "xdp"
	case "pt_regs":
		return "regs"
	}
	return ""
}

// Types implements [bpfexpr.Env].
func (e *env) Types() *ctype.Types { return e.types }

// Var implements [bpfexpr.Env].
func (e *env) Var(name string) (bpfexpr.Var, error) {
	if v, ok := e.vars[name]; ok {
		return v, nil
	}
	near := ctype.Suggest(name, e.names)
	if len(near) == 0 {
		near = slices.Clone(e.names)
	}
	return bpfexpr.Var{}, &ctype.NotFoundError{Kind: fmt.Sprintf("parameter or variable of %v", e.f), Name: name, Suggestions: near}
}

// Member implements [bpfexpr.Env]: members of what BPF programs see as their
// context, which the kernel has elsewhere. The empty expression stands for one
// that cannot be had.
func (e *env) Member(t *ctype.Type, member string) (string, bool) {
	user := t.Strip().Name()
	if e.f.Context == nil || user == e.f.Context.Strip().Name() || !e.userContext(user) {
		return "", false
	}
	if x, ok := e.f.CtxMember(user, member); ok {
		return x, true
	}
	if !e.types.HasMember(t, member) && e.types.HasMember(e.f.Context, member) {
		return "$->" + member, true
	}
	return "", true
}

// userContext reports whether a struct is what the function's context is to a
// BPF program.
func (e *env) userContext(name string) bool {
	p := e.f.Params()
	if len(p) == 0 {
		return false
	}
	t := p[0].Type.Strip()
	return t.Kind() == ctype.Pointer && t.Elem().Strip().Name() == name
}
