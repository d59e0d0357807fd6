package main

import (
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/cilium/ebpf/btf"

	"github.com/ksleuth/ksleuth/internal/callscene/callgate"
)

// A row is one call. An argument is a number, an argument below, or a string or
// []byte, for which memory is made; a string gets its NUL.
type row struct {
	fn   string // or several names: the first that the kernel has is called
	args []any
	keep string // a name for what is returned, for kept
	ret  int    // size of the return type of a function that BTF does not have
}

func call(fn string, args ...any) row { return row{fn: fn, args: args} }

// as keeps what the call returns under a name.
func (r row) as(name string) row { r.keep = name; return r }

// returns says how many bytes are returned where BTF does not.
func (r row) returns(size int) row { r.ret = size; return r }

// each are calls of a function with one argument.
func each(fn string, args ...any) []row {
	var out []row
	for _, a := range args {
		out = append(out, call(fn, a))
	}
	return out
}

type (
	sym   string   // address of a symbol
	kept  string   // what a call returned
	space int      // so many bytes of zeroes
	words []uint64 // memory of 64-bit words
	ptrs  []any    // memory of pointers; an element is as an argument
)

type (
	// at is the address of a field, such as "idr.idr_rt", of an object.
	at struct {
		of         any
		typ, field string
	}
	// load is what such a field holds: an integer or a pointer.
	load struct {
		of         any
		typ, field string
	}
	// off is so many bytes behind what an argument is.
	off struct {
		of any
		n  int64
	}
	// deref is the word at an address.
	deref struct{ of any }
	// percpu is a CPU's instance of a per-CPU variable.
	percpu struct {
		name string
		cpu  int64
	}
	// idmap is what a mount that maps no owners has: since 6.2 a structure of
	// its own, before a user namespace.
	idmap struct{}
)

// A maker makes the arguments of one call.
type maker struct {
	*scene
	arg     int
	buffers []callgate.Buffer
	sizes   []int
}

// value returns the argument word.
func (m *maker) value(a any) (uint64, error) {
	switch a := a.(type) {
	case int:
		return uint64(a), nil
	case uint64:
		return a, nil
	case rune:
		return uint64(a), nil
	case bool:
		if a {
			return 1, nil
		}
		return 0, nil
	case string:
		return m.memory(append([]byte(a), 0))
	case []byte:
		return m.memory(a)
	case space:
		return m.memory(make([]byte, a))
	case words:
		return m.words(a)
	case ptrs:
		var w words
		for _, p := range a {
			v, err := m.value(p)
			if err != nil {
				return 0, err
			}
			w = append(w, v)
		}
		return m.words(w)
	case sym:
		_, addr, err := m.symbols.first(string(a))
		return addr, err
	case kept:
		v := m.kept[string(a)]
		if v == 0 {
			return 0, fmt.Errorf("nothing is kept as %s", a)
		}
		return v, nil
	case off:
		v, err := m.value(a.of)
		return v + uint64(a.n), err
	case deref:
		v, err := m.value(a.of)
		if err != nil {
			return 0, err
		}
		return m.word(v, 8)
	case idmap:
		_, addr, err := m.symbols.first("nop_mnt_idmap", "init_user_ns")
		return addr, err
	case percpu:
		v, err := m.value(sym(a.name))
		if err != nil {
			return 0, err
		}
		offset, err := m.value(deref{off{sym("__per_cpu_offset"), 8 * a.cpu}})
		return v + offset, err
	case at:
		addr, _, err := m.field(a.of, a.typ, a.field)
		return addr, err
	case load:
		addr, size, err := m.field(a.of, a.typ, a.field)
		if err != nil {
			return 0, err
		}
		return m.word(addr, size)
	}
	return 0, fmt.Errorf("an argument of type %T", a)
}

func (m *maker) words(w words) (uint64, error) {
	var b []byte
	for _, v := range w {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	return m.memory(b)
}

func (m *maker) memory(b []byte) (uint64, error) {
	addr, err := m.arena.put(b)
	m.buffers = append(m.buffers, callgate.Buffer{Arg: m.arg, Addr: hexWord(addr), Before: fmt.Sprintf("%x", b)})
	m.sizes = append(m.sizes, len(b))
	return addr, err
}

// word reads an integer of the kernel's memory.
func (m *maker) word(addr uint64, size int) (uint64, error) {
	var b [8]byte
	err := m.arena.read(addr, b[:size])
	return binary.LittleEndian.Uint64(b[:]), err
}

// field returns the address and size of a field of an object.
func (m *maker) field(of any, typ, path string) (uint64, int, error) {
	base, err := m.value(of)
	if err != nil {
		return 0, 0, err
	}
	if base == 0 {
		return 0, 0, fmt.Errorf("a %s at NULL", typ)
	}
	var s *btf.Struct
	if err := m.spec.TypeByName(typ, &s); err != nil {
		return 0, 0, fmt.Errorf("struct %s: %w", typ, err)
	}
	var t btf.Type = s
	for name := range strings.SplitSeq(path, ".") {
		member, offset, ok := findMember(t, name)
		if !ok {
			return 0, 0, fmt.Errorf("struct %s has no %s", typ, path)
		}
		base += uint64(offset)
		t = btf.UnderlyingType(member)
	}
	size, err := btf.Sizeof(t)
	return base, min(size, 8), err
}

// findMember finds a member of a structure, also of the anonymous ones in it.
func findMember(t btf.Type, name string) (btf.Type, uint32, bool) {
	var members []btf.Member
	switch t := btf.UnderlyingType(t).(type) {
	case *btf.Struct:
		members = t.Members
	case *btf.Union:
		members = t.Members
	}
	for _, m := range members {
		if m.Name == name {
			return m.Type, m.Offset.Bytes(), true
		}
		if m.Name == "" {
			if t, offset, ok := findMember(m.Type, name); ok {
				return t, m.Offset.Bytes() + offset, true
			}
		}
	}
	return nil, 0, false
}
