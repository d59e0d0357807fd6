package typeflow

import (
	"github.com/ksleuth/ksleuth/ctype"
	"github.com/ksleuth/ksleuth/emulate"
)

// boolType is what a comparison gives.
var boolType = ctype.Builtin("int")

// argRegs hold the first arguments of a call, in the C calling convention of
// x86-64; BPF programs pass theirs in the first five.
var argRegs = [...]int{emulate.RDI, emulate.RSI, emulate.RDX, emulate.RCX, emulate.R8, emulate.R9}

// enter follows a call of the function at RIP, or, with tail, a jump to it.
func (f *Flow) enter(tail bool) {
	m := f.m
	fr := &Frame{Entry: m.RIP, SP: m.GP[emulate.RSP], Step: m.Step, parent: f.frame}
	if f.frame != nil {
		fr.Depth = f.frame.Depth + 1
	}
	fn, ok := f.function(m.RIP)
	fr.Func = fn
	f.frame = fr
	if fr.parent == nil && f.Params != nil && (fn.Proto == nil || !fn.Exact) {
		fr.Func.Proto, fr.Func.Exact = ctype.FuncOf(ctype.Builtin("u64"), f.Params), true
		ok = true
	}
	if ok && fr.Func.Proto != nil && fr.Func.Exact {
		f.takeArgs(fr)
	}
	f.emitCall(Event{Kind: Call, Frame: fr})
}

func (f *Flow) emitCall(e Event) {
	in := f.in
	f.in = nil
	f.emit(e)
	f.in = in
}

// takeArgs gives the argument registers the names of the parameters.
func (f *Flow) takeArgs(fr *Frame) {
	reg := 0
	for _, p := range fr.Func.Proto.Params() {
		n, err := f.types.Sizeof(p.Type)
		if p.Type.Kind() == ctype.Void || err != nil || n > 16 || p.Type.Strip().Kind() == ctype.Float {
			fr.Args = append(fr.Args, Value{})
			if n > 16 || p.Type.Strip().Kind() == ctype.Float {
				continue
			}
			return
		}
		need := (n + 7) / 8
		if reg+need > len(argRegs) {
			return
		}
		r := argRegs[reg]
		reg += need
		if need > 1 || p.Type.IsRecord() {
			fr.Args = append(fr.Args, Value{})
			continue
		}
		size := uint8(n)
		v := f.use(r, size)
		if size == 8 || v.Expr == nil {
			v = f.use(r, 8).low(size)
		}
		fr.Args = append(fr.Args, f.typedConst(v, p.Type))
		if p.Name == "" {
			continue
		}
		root := newExpr(Expr{Op: OpParam, Name: p.Name, Type: p.Type, param: &param{frame: fr, value: v}})
		f.regs[r] = Value{Type: p.Type, Expr: root, Val: v.Val, Size: size, Step: f.m.Step}
		f.noteObject(f.regs[r])
	}
}

// typedConst gives a constant the type that it is used as.
func (f *Flow) typedConst(v Value, t *ctype.Type) Value {
	if v.Type == nil {
		v.Type = t
	}
	return v
}

// leave follows a return with the stack pointer at sp: of the frame whose
// return address lies there, and of those it jumped to. (A return can also be a
// jump, as in a retpoline.)
func (f *Flow) leave(sp uint64) {
	fr := f.frame
	for fr != nil && fr.SP != sp {
		fr = fr.parent
	}
	if fr == nil {
		return
	}
	for last := false; f.frame != nil; {
		done := f.frame
		if last = last || done == fr; last && done.SP != sp {
			return
		}
		f.returned(done)
		f.frame = done.parent
	}
}

// returned names what a function returned.
func (f *Flow) returned(fr *Frame) {
	v := f.use(emulate.RAX, 8)
	proto := fr.Func.Proto
	if proto == nil {
		f.emitCall(Event{Kind: Return, Frame: fr, Value: v})
		return
	}
	if proto.Kind() == ctype.Func {
		proto = proto.Elem()
	}
	t := proto.Elem()
	n, err := f.types.Sizeof(t)
	if err != nil || n > 8 || n == 0 { // void, or a record
		f.emitCall(Event{Kind: Return, Frame: fr, Value: Value{Type: t}})
		return
	}
	size := uint8(n)
	v = f.use(emulate.RAX, size)
	if v.Expr == nil && size == 8 {
		v = f.use(emulate.RAX, 8)
	}
	out := v
	if out.Type == nil || out.IsConst() || out.pointee() == nil {
		out.Type = t
	}
	f.emitCall(Event{Kind: Return, Frame: fr, Value: out})
	name := v.Expr != nil && v.Expr.path() && v.Off == 0
	r := Value{Type: t, Val: v.Val, Size: size, Addr: v.Addr, Step: f.m.Step}
	switch {
	case name:
		r.Expr = v.Expr
		switch {
		case v.pointee() == nil || ctype.Identical(t, v.Type):
		case better(f, t, v.Type):
			r.Expr = castExpr(t, v.Expr)
		default:
			r.Type = v.Type
		}
	case !fr.Func.Exact:
		r.Expr, r.Off = v.Expr, v.Off
		if v.Type != nil {
			r.Type = v.Type
		}
	case fr.Func.Name != "":
		r.Expr = newExpr(Expr{Op: OpCall, Name: fr.Func.Name, Args: fr.Args, Type: t, N: v.Val})
		r.Addr = 0
	}
	if fr.parent == nil {
		return // the answer of the run keeps its origin
	}
	f.regs[emulate.RAX] = r
	f.noteObject(r)
}

// better says whether pointers of type a tell more than those of type b.
func better(f *Flow, a, b *ctype.Type) bool {
	if b == nil {
		return true
	}
	x, err1 := f.types.Sizeof(a.Strip().Elem())
	y, err2 := f.types.Sizeof(b.Strip().Elem())
	return err1 == nil && (err2 != nil || x >= y)
}
