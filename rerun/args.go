package rerun

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/ksleuth/ksleuth/cexpr"
	"github.com/ksleuth/ksleuth/ctype"
	"github.com/ksleuth/ksleuth/emulate"
	"github.com/ksleuth/ksleuth/kobj"
	"github.com/ksleuth/ksleuth/mem"
)

// env lets the expressions of arguments name the kernel's variables, as a run
// finds them. It knows more functions than other expressions: buffer(N),
// N bytes of zeroes for a function to write to, and task(PID).
type env struct {
	ctx context.Context
	s   *Session
}

func (e env) Types() *ctype.Types { return e.s.types }
func (e env) Mem() mem.Reader     { return e.s.view }

func (e env) Ident(name string) (ctype.Value, error) {
	if name == "current" {
		if e.s.taskErr != nil {
			return ctype.Value{}, fmt.Errorf("current is not known: %w", e.s.taskErr)
		}
		task, err := e.s.types.ParseType("struct task_struct *")
		if err != nil {
			return ctype.Value{}, err
		}
		return e.s.types.Scalar(e.s.view, task, e.s.task, name), nil
	}
	v, err := e.s.k.Global(name)
	if err != nil {
		return v, fmt.Errorf("%w: %w", err, ctype.ErrNotFound)
	}
	addr, err := v.Addr()
	if err != nil {
		return v, err
	}
	return e.s.types.Object(e.s.view, v.Type(), addr, name), nil
}

// PerCPU implements [cexpr.PerCPU].
func (e env) PerCPU(addr uint64, cpu int) (uint64, error) { return e.s.k.PerCPU(addr, cpu) }

// Suggest implements [cexpr.Suggester].
func (e env) Suggest(name string) []string {
	var no interface{ Unwrap() []error }
	_, err := e.s.k.Find(name)
	if errors.As(err, &no) {
		return nil
	}
	return suggestions(err)
}

// Call implements [cexpr.Env].
func (e env) Call(name string, args []ctype.Value) (cexpr.Result, error) {
	one := func(want string) (uint64, error) {
		if len(args) != 1 {
			return 0, fmt.Errorf("%s(%s) takes 1 argument, not %d", name, want, len(args))
		}
		return args[0].Uint()
	}
	switch name {
	case "buffer":
		n, err := one("bytes")
		if err != nil {
			return cexpr.Result{}, err
		}
		addr, err := e.s.reserve(n)
		if err != nil {
			return cexpr.Result{}, fmt.Errorf("buffer of %d bytes: %w", n, err)
		}
		return e.pointer("void *", addr, "buffer")
	case "task":
		pid, err := one("pid")
		if err != nil {
			return cexpr.Result{}, err
		}
		t, err := kobj.FindTask(e.s.k, int(int32(pid)))
		if err != nil {
			return cexpr.Result{}, err
		}
		return e.pointer("struct task_struct *", uint64(t.Addr), fmt.Sprintf("task(%d)", pid))
	}
	return e.run(name, args)
}

// run calls a function of the kernel for an expression.
func (e env) run(name string, args []ctype.Value) (cexpr.Result, error) {
	t := &Target{Call: name}
	sym, err := e.s.symbol(name)
	if err != nil {
		return cexpr.Result{}, err
	}
	if err := e.s.findSymbol(t, sym); err != nil {
		return cexpr.Result{}, err
	}
	if t.Proto == nil || !scalar(t.Proto.Elem()) {
		return cexpr.Result{}, fmt.Errorf("what %s returns has no type here", name)
	}
	var exprs []string
	for _, v := range args {
		exprs = append(exprs, v.Path())
	}
	if err := e.s.pass(t, exprs, args); err != nil {
		return cexpr.Result{}, err
	}
	r, err := e.s.Run(e.ctx, t, nil)
	if err != nil {
		return cexpr.Result{}, err
	}
	if r.Stop.Outcome != emulate.Returned {
		return cexpr.Result{}, fmt.Errorf("%s did not return: %s", name, r.StopText())
	}
	v := Width(t.Proto.Elem(), r.Machine.GP[emulate.RAX])
	return cexpr.Single(e.s.types.Scalar(e.s.view, t.Proto.Elem(), v, name+"(...)")), nil
}

func (e env) pointer(typ string, addr uint64, name string) (cexpr.Result, error) {
	t, err := e.s.types.ParseType(typ)
	if err != nil {
		return cexpr.Result{}, err
	}
	return cexpr.Single(e.s.types.Scalar(e.s.view, t, addr, name)), nil
}

// eval evaluates an expression that must give one value. A string literal
// becomes one in memory.
func (s *Session) eval(ctx context.Context, src string) (ctype.Value, error) {
	x, err := cexpr.Parse(src, cexpr.IsType(s.types))
	if err != nil {
		return ctype.Value{}, err
	}
	if c, ok := x.Root.(*cexpr.Cast); ok {
		if lit, ok := c.X.(*cexpr.StringLit); ok {
			t, err := s.types.ParseType(c.Type.Text)
			if err != nil {
				return ctype.Value{}, err
			}
			v, err := s.literal(lit)
			if err != nil {
				return v, err
			}
			return v.Cast(t)
		}
	}
	if lit, ok := x.Root.(*cexpr.StringLit); ok {
		return s.literal(lit)
	}
	r, err := x.Eval(env{ctx, s})
	if err != nil {
		return ctype.Value{}, err
	}
	if r.Seq {
		return ctype.Value{}, fmt.Errorf("%s is a sequence of %d values: a list walk cannot be an argument", src, len(r.Values))
	}
	return r.Value()
}

// literal puts a string into memory.
func (s *Session) literal(lit *cexpr.StringLit) (ctype.Value, error) {
	text := append([]byte(lit.Value), 0)
	addr, err := s.reserve(uint64(len(text)))
	if err != nil {
		return ctype.Value{}, fmt.Errorf("string literal: %w", err)
	}
	if err := s.view.WriteMem(text, addr); err != nil {
		return ctype.Value{}, err
	}
	t := ctype.ArrayOf(ctype.Builtin("char"), uint32(len(text)))
	return s.types.Object(s.view, t, addr, "string"), nil
}

// reserve adds n bytes to the memory for arguments. What lies behind them up to
// the next page is not used for other ones, so that running over is seen late
// but harms nothing.
func (s *Session) reserve(n uint64) (uint64, error) {
	const gap = 64
	size := (max(n, 1) + gap + 15) &^ 15
	if n > maxArgs || s.args+size > maxArgs {
		return 0, errFull
	}
	addr := argBase + s.args
	const page = 4096
	for at := (argBase + s.args + page - 1) &^ (page - 1); at < argBase+s.args+size; at += page {
		s.view.Map(at, page)
	}
	s.args += size
	s.made = append(s.made, [2]uint64{addr, n})
	return addr, nil
}

// argument converts a value to what a parameter gets in its register, or, for
// a small struct, in two.
func (s *Session) argument(v ctype.Value, param *ctype.Type) ([]uint64, error) {
	have := v.Type()
	if have.IsRecord() {
		return s.record(v, param)
	}
	if param != nil && param.IsRecord() {
		size, err := param.Size()
		if err != nil || size > 8 {
			return nil, fmt.Errorf("a %s is wanted: a number cannot stand for it", param)
		}
		u, err := v.Uint() // the bits of kuid_t and the like
		return []uint64{u & (1<<(8*uint(size)-1)<<1 - 1)}, err
	}
	if param != nil && scalar(param) && (have.IsInteger() || have.Strip().Kind() == ctype.Pointer) {
		c, err := v.Cast(param)
		if err != nil {
			return nil, err
		}
		v = c
	}
	u, err := v.Uint()
	return []uint64{u}, err
}

func scalar(t *ctype.Type) bool { return t.IsInteger() || t.Strip().Kind() == ctype.Pointer }

// record passes a struct by value: one of up to 16 bytes in registers (System
// V ABI, 3.2.3); kernel structs have no floating-point members.
func (s *Session) record(v ctype.Value, param *ctype.Type) ([]uint64, error) {
	if param != nil && !param.IsRecord() {
		return nil, fmt.Errorf("%s is a %s, where a %s is wanted: write &%s", v.Path(), v.Type(), param, v.Path())
	}
	b, err := v.Bytes()
	if err != nil {
		return nil, err
	}
	if len(b) > 16 {
		return nil, fmt.Errorf("%s has %d bytes: structs of more than 16 cannot be passed by value here", v.Type(), len(b))
	}
	var out []uint64
	for at := 0; at < len(b); at += 8 {
		var w [8]byte
		copy(w[:], b[at:])
		out = append(out, word(w[:]))
	}
	return out, nil
}

func word(b []byte) uint64 {
	var u uint64
	for i := len(b) - 1; i >= 0; i-- {
		u = u<<8 | uint64(b[i])
	}
	return u
}

// splitCall takes a call apart: the last parentheses are the arguments', so
// that what is called can be an expression itself.
func splitCall(call string) (fun string, args []string, err error) {
	call = strings.TrimSuffix(strings.TrimSpace(call), ";")
	if !strings.HasSuffix(call, ")") {
		return "", nil, &CallError{call, errors.New("a call is wanted: FUNCTION(ARGUMENT, ...)")}
	}
	// One pass from the front, as strings can hold parentheses.
	open, depth := -1, 0
	var commas []int
	for i := 0; i < len(call); i++ {
		switch c := call[i]; c {
		case '"', '\'':
			for i++; i < len(call) && call[i] != c; i++ {
				if call[i] == '\\' {
					i++
				}
			}
		case '(', '[', '{':
			if depth == 0 && c == '(' {
				open, commas = i, nil
			}
			depth++
		case ')', ']', '}':
			if depth--; depth < 0 {
				return "", nil, &CallError{call, errors.New("more parentheses are closed than opened")}
			}
		case ',':
			if depth == 1 {
				commas = append(commas, i)
			}
		}
	}
	if depth != 0 || open < 0 {
		return "", nil, &CallError{call, errors.New("the parentheses do not match")}
	}
	fun = strings.TrimSpace(call[:open])
	if fun == "" {
		return "", nil, &CallError{call, errors.New("no function is named")}
	}
	last := len(call) - 1
	if strings.TrimSpace(call[open+1:last]) == "" {
		return fun, nil, nil
	}
	start := open + 1
	for _, at := range append(commas, last) {
		arg := strings.TrimSpace(call[start:at])
		if arg == "" {
			return "", nil, &CallError{call, fmt.Errorf("argument %d is empty", len(args)+1)}
		}
		args = append(args, arg)
		start = at + 1
	}
	return fun, args, nil
}

// A CallError says what is wrong with a call asked for.
type CallError struct {
	Call string
	Err  error
}

// Error says what.
func (e *CallError) Error() string { return fmt.Sprintf("%s: %v", e.Call, e.Err) }

// Unwrap returns the reason.
func (e *CallError) Unwrap() error { return e.Err }
