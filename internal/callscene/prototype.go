package main

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf/btf"

	"github.com/ksleuth/ksleuth/internal/callscene/callgate"
)

// A prototype is what a call needs of one.
type prototype struct {
	ret  string // the return type
	size int    // its size in bytes, at most that of a register; 0 for void
	args int    // argument registers, negative if there may be more
}

// prototype returns the prototype of a function that can be called by a row:
// prototypes change.
func (s *scene) prototype(name string, r row) (prototype, error) {
	if len(r.args) > callgate.MaxArgs {
		return prototype{}, fmt.Errorf("it is given more than %d arguments", callgate.MaxArgs)
	}
	var f *btf.Func
	p, known := unlisted[name]
	if err := s.spec.TypeByName(name, &f); err == nil {
		if p, err = prototypeOf(f); err != nil {
			return p, err
		}
	} else if r.ret != 0 {
		p = prototype{fmt.Sprintf("u%d", 8*r.ret), r.ret, len(r.args)}
	} else if !known {
		return p, fmt.Errorf("BTF: %w", err)
	}
	switch {
	case p.args >= 0 && p.args != len(r.args):
		return p, fmt.Errorf("it takes %d arguments", p.args)
	case p.size == 0:
		return p, errors.New("it returns nothing")
	}
	return p, nil
}

func prototypeOf(f *btf.Func) (prototype, error) {
	proto, ok := f.Type.(*btf.FuncProto)
	if !ok {
		return prototype{}, fmt.Errorf("BTF: %s is a %T", f.Name, f.Type)
	}
	const register = 8
	p := prototype{ret: typeName(proto.Return)}
	variadic := false
	for _, param := range proto.Params {
		if _, ok := param.Type.(*btf.Void); ok {
			variadic = true
			continue
		}
		size, err := btf.Sizeof(param.Type)
		if err != nil {
			return p, err
		}
		p.args += max(1, (size+register-1)/register) // a small structure lies in registers
	}
	if variadic {
		p.args = -p.args
	}
	if _, ok := btf.UnderlyingType(proto.Return).(*btf.Void); ok {
		return p, nil
	}
	size, err := btf.Sizeof(proto.Return)
	if err == nil && size > 2*register {
		err = errors.New("it returns a large structure")
	}
	p.size = min(size, register)
	return p, err
}

// typeName is the name of a type in C.
func typeName(t btf.Type) string {
	switch t := t.(type) {
	case *btf.Pointer:
		return typeName(t.Target) + " *"
	case *btf.Const:
		return "const " + typeName(t.Type)
	case *btf.Void:
		return "void"
	case *btf.Struct:
		return "struct " + t.Name
	case *btf.Enum:
		return "enum " + t.Name
	}
	return t.TypeName()
}
