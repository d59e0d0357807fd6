package rerun

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/ksleuth/ksleuth/bpf"
	"github.com/ksleuth/ksleuth/ctype"
	"github.com/ksleuth/ksleuth/emulate"
	"github.com/ksleuth/ksleuth/jit"
	"github.com/ksleuth/ksleuth/kernel"
	"github.com/ksleuth/ksleuth/mem"
)

// A Target is a call to be run.
type Target struct {
	Call   string      // as asked
	Name   string      // of the function
	Addr   uint64      // where it begins
	Proto  *ctype.Type // nil if BTF does not have it
	Args   []Arg
	Values []uint64     // what goes into the registers, and behind the sixth onto the stack
	Prog   *bpf.Program // nil for kernel functions
	// Typed are the values of arguments with their types, for naming memory by
	// them; nil where an argument has none.
	Typed []*ctype.Type

	prologue *jit.Prologue // of a BPF function
	variadic bool
}

// Parse takes a call apart, finds the function and evaluates its arguments:
//
//	FUNC(ARG, ...)          a function of the kernel
//	MODULE:FUNC(ARG, ...)   of a module
//	prog:WHICH(CTX)         a BPF program, by its id, name or tag
//	prog:WHICH/SUBPROG(...) one of its functions, by name or number
//	EXPRESSION(ARG, ...)    what a pointer points at, an address
//
// Arguments are C expressions; besides the kernel's names they know current,
// buffer(N), which is memory for the function to write to, and task(PID).
func (s *Session) Parse(ctx context.Context, call string) (*Target, error) {
	fun, args, err := splitCall(call)
	if err != nil {
		return nil, err
	}
	t := &Target{Call: strings.TrimSpace(call)}
	if err := s.find(ctx, t, fun); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return t, s.arguments(ctx, t, args)
}

// find finds the function.
func (s *Session) find(ctx context.Context, t *Target, fun string) error {
	if rest, ok := strings.CutPrefix(fun, "prog:"); ok {
		return s.findProg(t, rest)
	}
	if isName(fun) {
		sym, err := s.symbol(fun)
		if err != nil {
			return err
		}
		return s.findSymbol(t, sym)
	}
	v, err := s.eval(ctx, fun)
	if err != nil {
		return fmt.Errorf("%s: %w", fun, err)
	}
	if t.Addr, err = v.Uint(); err != nil {
		return fmt.Errorf("%s: %w", fun, err)
	}
	t.Name, t.Proto = s.k.FormatAddr(t.Addr), proto(v.Type())
	if sym, off, ok := s.k.Symbolize(t.Addr); ok && off == 0 {
		p := t.Proto
		if err := s.findSymbol(t, sym); err != nil {
			return err
		}
		if p != nil {
			t.Proto = p
		}
	}
	return nil
}

// symbol finds a function by the name that it has in C. Some are macros over
// the function itself: kmalloc's family over NAME_noprof (6.10),
// printk over _printk (337015573718, 5.15).
func (s *Session) symbol(name string) (kernel.Symbol, error) {
	sym, err := s.k.Find(name)
	if err == nil {
		return sym, nil
	}
	for _, other := range []string{name + "_noprof", "_" + name} {
		if sym, ok := s.k.Lookup(other); ok {
			return sym, nil
		}
	}
	return sym, fmt.Errorf("%w; a function that the compiler inlined everywhere has no code of its own", err)
}

// suggestions returns the names that an error offers.
func suggestions(err error) []string {
	var no *kernel.NoSymbolError
	if errors.As(err, &no) {
		return no.Suggestions
	}
	return nil
}

// isName says whether a text is a symbol's name, with its module's before it.
func isName(s string) bool {
	mod, name, ok := strings.Cut(s, ":")
	if ok {
		return isIdent(mod) && isIdent(name)
	}
	return isIdent(s)
}

// isIdent says whether a text is a name. Compilers append to them: foo.isra.0.
func isIdent(s string) bool {
	for i := range len(s) {
		c := s[i]
		if c != '_' && c != '.' && (c|0x20 < 'a' || c|0x20 > 'z') && (c < '0' || c > '9' || i == 0) {
			return false
		}
	}
	return s != ""
}

// findSymbol takes the function of a symbol.
func (s *Session) findSymbol(t *Target, sym kernel.Symbol) error {
	t.Name, t.Addr = sym.String(), sym.Addr
	if sym.Kind == kernel.KindBPF {
		if c := s.bpfAt(sym.Addr); c.ok {
			return s.setProg(t, c.Prog, c.Subprog)
		}
		return nil
	}
	if m, err := s.k.Walk(sym.Addr); err == nil && !m.Exec {
		return fmt.Errorf("%s at 0x%x is no function: its memory is not executable", sym, sym.Addr)
	}
	// foo.isra.0 has other parameters than foo.
	t.Proto = s.proto(sym.Name)
	return nil
}

// proto returns the prototype in the type of a function, of a pointer to one,
// or nil.
func proto(t *ctype.Type) *ctype.Type {
	for range 4 {
		if t = t.Strip(); t.Kind() == ctype.FuncProto {
			return t
		}
		if t.Kind() != ctype.Func && t.Kind() != ctype.Pointer {
			break
		}
		t = t.Elem()
	}
	return nil
}

// findProg finds a function of a BPF program: WHICH, WHICH/NAME or
// WHICH/NUMBER, where WHICH is the program's id, name or tag.
func (s *Session) findProg(t *Target, what string) error {
	which, sub, hasSub := strings.Cut(what, "/")
	var ids []int // none is all of them
	if id, err := strconv.Atoi(which); err == nil {
		ids = []int{id}
	}
	progs, unread := bpf.Programs(s.k, ids...)
	if len(ids) > 0 && len(progs) == 0 && unread == nil {
		progs, unread = bpf.Programs(s.k) // to say which there are
	}
	p, err := bpf.Select(progs, strings.TrimSpace(which))
	if err != nil {
		return errors.Join(&CallError{t.Call, err}, unread)
	}
	at := 0
	if hasSub {
		if at, err = subprogOf(p, sub); err != nil {
			return &CallError{t.Call, err}
		}
	}
	return s.setProg(t, p, at)
}

func subprogOf(p *bpf.Program, sub string) (int, error) {
	var names []string
	for i, f := range p.Subprogs {
		if f.Name == sub {
			return i, nil
		}
		names = append(names, f.Name)
	}
	if i, err := strconv.Atoi(sub); err == nil && i >= 0 && i < len(p.Subprogs) {
		return i, nil
	}
	return 0, fmt.Errorf("prog:%d has no function %s; it has %s", p.ID, sub, strings.Join(names, ", "))
}

// contexts are what programs of a type get as their argument.
var contexts = []struct{ types, ctx string }{
	{"sched_cls sched_act cgroup_skb socket_filter lwt_in lwt_out lwt_xmit lwt_seg6local sk_skb flow_dissector netfilter", "struct sk_buff *"},
	{"xdp", "struct xdp_buff *"},
	{"kprobe", "struct pt_regs *"},
	{"perf_event", "struct bpf_perf_event_data_kern *"},
	{"cgroup_sock", "struct sock *"},
	{"cgroup_sock_addr", "struct bpf_sock_addr_kern *"},
	{"sock_ops", "struct bpf_sock_ops_kern *"},
	{"sk_msg", "struct sk_msg *"},
	{"cgroup_device", "struct bpf_cgroup_dev_ctx *"},
	{"cgroup_sysctl", "struct bpf_sysctl_kern *"},
	{"cgroup_sockopt", "struct bpf_sockopt_kern *"},
	{"sk_lookup", "struct bpf_sk_lookup_kern *"},
	{"sk_reuseport", "struct sk_reuseport_kern *"},
	{"raw_tracepoint raw_tracepoint_writable tracing lsm struct_ops tracepoint", "u64 *"},
}

// setProg takes a function of a BPF program.
func (s *Session) setProg(t *Target, p *bpf.Program, at int) error {
	f := p.Subprogs[at]
	if f.Addr == 0 {
		return fmt.Errorf("prog:%d is not compiled to machine code: what the interpreter would do cannot be run", p.ID)
	}
	t.Prog, t.Addr = p, uint64(f.Addr)
	t.Name = fmt.Sprintf("%s (prog %d)", f.Name, p.ID)
	code := make([]byte, min(max(f.Len, 0), 256))
	if err := s.view.ReadMem(code, t.Addr); err == nil {
		if pro, ok := jit.ReadPrologue(code, t.Addr); ok {
			t.prologue = &pro
		}
	}
	if at != 0 || p.Type == "ext" {
		t.Proto = s.sourceProto(p, f.Name)
		return nil
	}
	ctx := ctype.PointerTo(ctype.Builtin("void"))
	for _, c := range contexts {
		for typ := range strings.FieldsSeq(c.types) {
			if typ == p.Type {
				if known, err := s.types.ParseType(c.ctx); err == nil {
					ctx = known
				}
			}
		}
	}
	t.Proto = ctype.FuncOf(ctype.Builtin("unsigned int"), []ctype.Param{{Name: "ctx", Type: ctx}})
	return nil
}

// sourceProto returns the prototype that the source of a program gives one of
// its functions, or nil.
func (s *Session) sourceProto(p *bpf.Program, name string) *ctype.Type {
	types, err := p.Types(s.k)
	if err != nil || types == nil {
		return nil
	}
	f, err := types.FuncProto(name)
	if err != nil {
		return nil
	}
	env, err := s.flowEnv()
	if err != nil {
		return nil
	}
	return env.inKernel(proto(f))
}

// arguments evaluates the arguments.
func (s *Session) arguments(ctx context.Context, t *Target, args []string) error {
	var values []ctype.Value
	for i, src := range args {
		v, err := s.eval(ctx, src)
		if err != nil {
			return fmt.Errorf("argument %d, %s: %w", i+1, src, err)
		}
		values = append(values, v)
	}
	return s.pass(t, args, values)
}

// pass gives the target its arguments, which were asked for by expressions.
func (s *Session) pass(t *Target, args []string, values []ctype.Value) error {
	var params []ctype.Param
	if t.Proto != nil {
		params = t.Proto.Params()
		if n := len(params); n > 0 && params[n-1].Type.Strip().Kind() == ctype.Void {
			params, t.variadic = params[:n-1], true
		}
		// Helpers have five parameters whatever they use: the others are
		// called __ur_1 and so on (include/linux/filter.h, BPF_CALL_x).
		for n := len(params); n > 0 && n > len(args) && strings.HasPrefix(params[n-1].Name, "__ur_"); n-- {
			params = params[:n-1]
		}
		if len(args) < len(params) || len(args) > len(params) && !t.variadic {
			return &CallError{t.Call, fmt.Errorf("%s takes %s, not %d: %s", t.Name, count(len(params), t.variadic), len(args), declare(t))}
		}
	}
	for i, src := range args {
		v := values[i]
		a := Arg{Expr: src, Type: v.Type().String()}
		typ := v.Type()
		var param *ctype.Type
		if i < len(params) {
			param = params[i].Type
			a.Name, a.Type = params[i].Name, param.String()
			// A void * says less than what it was given.
			if !isVoidPtr(param) {
				typ = param
			}
		}
		words, err := s.argument(v, param)
		if err != nil {
			return fmt.Errorf("argument %d, %s: %w", i+1, src, err)
		}
		// A struct in two registers goes onto the stack if only one is left.
		if n := len(t.Values); len(words) == 2 && n == len(emulate.ArgRegs)-1 {
			return &CallError{t.Call, fmt.Errorf("argument %d: structs on the stack cannot be passed here", i+1)}
		}
		a.Value = mem.Addr(words[0])
		a.Text = s.valueText(s.view, typ, words[0])
		t.Values = append(t.Values, words...)
		t.Args = append(t.Args, a)
		t.Typed = append(t.Typed, typ)
	}
	return nil
}

func isVoidPtr(t *ctype.Type) bool {
	t = t.Strip()
	return t.Kind() == ctype.Pointer && t.Elem().Strip().Kind() == ctype.Void
}

func count(n int, more bool) string {
	s := strconv.Itoa(n) + " argument"
	if n != 1 {
		s += "s"
	}
	if more {
		s += " or more"
	}
	return s
}

// declare returns the prototype in C.
func declare(t *Target) string {
	name, _, _ := strings.Cut(t.Name, " ")
	return ctype.Declare(t.Proto, name)
}
