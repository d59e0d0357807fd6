package rerun

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/ksleuth/ksleuth/ctype"
	"github.com/ksleuth/ksleuth/emulate"
	"github.com/ksleuth/ksleuth/mem"
)

// A set is memory that was changed before the run.
type set struct {
	addr     uint64
	old, new []byte
	name     string
}

func (s set) change() Change {
	return Change{Addr: mem.Addr(s.addr), Name: s.name, Len: len(s.new), Old: hexBytes(s.old), New: hexBytes(s.new)}
}

// hexBytes is how changes show bytes.
func hexBytes(b []byte) string {
	const most = 64
	return hex.EncodeToString(b[:min(len(b), most)])
}

// A regSet is a register that Resume begins with.
type regSet struct {
	reg   int
	value uint64
}

// Set changes what runs find: "LVALUE = VALUE", both C expressions, or
// "%REGISTER = VALUE" for [Session.Resume]. Later ones see what earlier ones
// changed. The error is a [*SetError].
func (s *Session) Set(expr string) error {
	if err := s.set(expr); err != nil {
		return &SetError{expr, err}
	}
	return nil
}

func (s *Session) set(expr string) error {
	left, right, ok := splitAssign(expr)
	if !ok || left == "" || right == "" {
		return errors.New("a change is wanted: LVALUE = VALUE")
	}
	if len(s.sets) >= maxSets {
		return errFull
	}
	v, err := s.eval(context.Background(), right)
	if err != nil {
		return err
	}
	if reg, ok := strings.CutPrefix(left, "%"); ok {
		return s.setRegister(reg, v)
	}
	at, err := s.eval(context.Background(), left)
	if err != nil {
		return err
	}
	if at.BitSize() != 0 {
		return fmt.Errorf("%s is a bitfield: set the word that it lies in", left)
	}
	addr, err := at.Addr()
	if err != nil {
		return err
	}
	now, err := s.bytesFor(at.Type(), v)
	if err != nil {
		return err
	}
	old, err := mem.Bytes(s.view, addr, len(now))
	if err != nil {
		return err
	}
	s.sets = append(s.sets, set{addr: addr, old: old, new: now, name: left})
	return s.force(func() error { return s.view.WriteMem(now, addr) })
}

func (s *Session) setRegister(name string, v ctype.Value) error {
	u, err := v.Uint()
	if err != nil {
		return err
	}
	for i, n := range emulate.RegNames {
		if n == strings.ToLower(name) {
			if i == emulate.RSP {
				return errors.New("without its stack pointer a frame is lost")
			}
			s.regs = append(s.regs, regSet{i, u})
			return nil
		}
	}
	return fmt.Errorf("there is no register %%%s: there are %s", name, strings.Join(emulate.RegNames[:], ", "))
}

// bytesFor converts a value to what an object of a type holds.
func (s *Session) bytesFor(t *ctype.Type, v ctype.Value) ([]byte, error) {
	size, err := s.types.Sizeof(t)
	if err != nil {
		return nil, err
	}
	const most = 1 << 16
	if size > most {
		return nil, fmt.Errorf("%s has %d bytes: more than can be set", t, size)
	}
	switch {
	case t.Strip().Kind() == ctype.Array:
		b, err := v.Bytes()
		if err != nil {
			return nil, err
		}
		if len(b) > size {
			return nil, fmt.Errorf("%d bytes do not fit into %s", len(b), t)
		}
		return append(b[:len(b):len(b)], make([]byte, size-len(b))...), nil
	case t.IsRecord():
		if !ctype.Identical(t, v.Type()) {
			return nil, fmt.Errorf("a %s is wanted, not a %s: set its members", t, v.Type())
		}
		return v.Bytes()
	case scalar(t):
		if v.Type().IsRecord() {
			return nil, fmt.Errorf("a %s is wanted, not a %s", t, v.Type())
		}
		u, err := v.Uint()
		if err != nil {
			return nil, err
		}
		if t.IsBool() && u != 0 {
			u = 1
		}
		return little(u, size), nil
	}
	return nil, fmt.Errorf("a %s cannot be set: cast its address to a pointer to what is meant", t)
}

// splitAssign splits at the = that is not part of another operator, nor of a
// string.
func splitAssign(expr string) (left, right string, ok bool) {
	for i := 0; i < len(expr); i++ {
		switch c := expr[i]; {
		case c == '"' || c == '\'':
			for i++; i < len(expr) && expr[i] != c; i++ {
				if expr[i] == '\\' {
					i++
				}
			}
		case c != '=':
		case i+1 < len(expr) && expr[i+1] == '=':
			i++
		case i > 0 && strings.IndexByte("<>!=", expr[i-1]) >= 0:
		default:
			return strings.TrimSpace(expr[:i]), strings.TrimSpace(expr[i+1:]), true
		}
	}
	return "", "", false
}
