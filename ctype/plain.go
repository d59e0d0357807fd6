package ctype

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
)

// An Object is the plain form of a record: its members in the order of C.
type Object []NamedValue

// A NamedValue is a member of an [Object].
type NamedValue struct {
	Name  string
	Value any
}

// MarshalJSON writes a JSON object whose keys keep their order.
func (o Object) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, f := range o {
		if i > 0 {
			b.WriteByte(',')
		}
		key, err := json.Marshal(f.Name)
		if err != nil {
			return nil, err
		}
		val, err := json.Marshal(f.Value)
		if err != nil {
			return nil, err
		}
		b.Write(key)
		b.WriteByte(':')
		b.Write(val)
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// Get returns the value of a member.
func (o Object) Get(name string) (any, bool) {
	for _, f := range o {
		if f.Name == name {
			return f.Value, true
		}
	}
	return nil, false
}

// Unreadable stands in a plain value for what could not be read. As JSON it is
// {"error": reason}.
type Unreadable struct {
	Err error `json:"-"`
}

// MarshalJSON writes the reason.
func (u Unreadable) MarshalJSON() ([]byte, error) {
	return json.Marshal(map[string]string{"error": u.Err.Error()})
}

// Plain returns the value as data fit for JSON: an [Object] for a record, []any
// for an array (without its tail of zeroes), string for text and for the name of
// an enum's value, int64 or uint64 for a number, bool, "0x..." for a pointer,
// and [Unreadable] for what could not be read. Records deeper than
// o.Depth are nil.
func (v Value) Plain(o FormatOptions) any {
	if v.typ == nil {
		return nil
	}
	if loaded, err := v.Load(); err == nil {
		v = loaded
	}
	p := plainer{o: o, budget: maxVisits}
	return p.value(v, o.depth())
}

type plainer struct {
	o      FormatOptions
	budget int // members and values that may still be looked at
}

func (p *plainer) value(v Value, depth int) any {
	p.budget--
	s := v.types.Complete(v.typ).Strip()
	switch s.kind {
	case Struct, Union:
		if depth == 0 || p.budget < 0 {
			return nil
		}
		return p.record(nil, v, s, depth, maxDepth)
	case Array:
		return p.array(v, s, depth)
	case Void:
		return nil
	}
	u, err := v.Uint()
	if err != nil {
		if b, berr := v.Bytes(); berr == nil {
			return littleHex(b)
		}
		return Unreadable{err}
	}
	switch {
	case s.kind == Pointer || s.kind == Func || s.kind == FuncProto:
		return fmt.Sprintf("%#x", u)
	case s.kind == Enum || s.kind == Enum64:
		for _, e := range s.Enumerators() {
			if e.Value == u {
				return e.Name
			}
		}
	case s.IsBool() && u <= 1:
		return u != 0
	}
	if s.IsSigned() {
		return int64(u)
	}
	return u
}

func (p *plainer) record(out Object, v Value, s *Type, depth, nest int) Object {
	if out == nil {
		out = Object{}
	}
	for _, m := range s.Members() {
		if p.budget--; p.budget < 0 {
			break
		}
		mv, err := v.at(m.place(), m.Name)
		switch {
		case m.Name == "" && m.Type.IsRecord():
			if err == nil && nest > 0 {
				out = p.record(out, mv, m.Type.Strip(), depth, nest-1)
			}
		case m.Name == "": // an unnamed bitfield is padding
		case err != nil:
			out = append(out, NamedValue{m.Name, Unreadable{err}})
		default:
			out = append(out, NamedValue{m.Name, p.value(mv, depth-1)})
		}
	}
	return out
}

func (p *plainer) array(v Value, s *Type, depth int) any {
	if s.Elem().IsChar() && s.nelems != 0 {
		_, ok, err := v.text(s)
		if err != nil {
			return Unreadable{err}
		}
		if ok {
			str, _ := v.CString()
			return str
		}
	}
	if err := v.absent(); err != nil {
		return Unreadable{err}
	}
	n, _ := p.o.shown(v, s)
	out := []any{}
	for i := 0; i < n && p.budget >= 0; i++ {
		e, err := v.Index(int64(i))
		if err != nil {
			var a *AccessError
			if errors.As(err, &a) {
				err = a.Err
			}
			out = append(out, Unreadable{err})
			break
		}
		out = append(out, p.value(e, depth-1))
	}
	return out
}
