package rerun

import (
	"fmt"
	"slices"

	"github.com/ksleuth/ksleuth/ctype"
	"github.com/ksleuth/ksleuth/kernel"
)

// A perCPUArea is where the kernel's own per-CPU variables are linked.
type perCPUArea struct {
	start, end uint64
	syms       []kernel.Symbol // by address, where they are linked at 0
}

func (s *Session) findPerCPUArea() perCPUArea {
	syms := s.symbols()
	a := perCPUArea{start: syms["__per_cpu_start"].Addr, end: syms["__per_cpu_end"].Addr}
	if a.start == 0 {
		a.syms = slices.DeleteFunc(s.k.PerCPUSymbols(), func(sym kernel.Symbol) bool {
			return sym.Name == "__per_cpu_start" || sym.Name == "__per_cpu_end" || sym.Name == "fixed_percpu_data" && sym.Size == 0
		})
	}
	return a
}

// dataName names data by its symbol: "init_task+0x10", "per_cpu(runqueues,
// 1)+0x8".
func (s *Session) dataName(addr uint64) (string, bool) {
	a := s.areas()
	for cpu, off := range s.cpus {
		at := addr - off
		if at < a.start || at >= a.end {
			continue
		}
		sym, delta, ok := a.at(s, at)
		if !ok {
			break
		}
		return plus(fmt.Sprintf("per_cpu(%s, %d)", sym, cpu), delta), true
	}
	if sym, off, ok := s.k.Symbolize(addr); ok && sym.Kind != kernel.KindBPF && sym.Kind != kernel.KindTrampoline {
		return plus(sym.Name, off), true
	}
	return "", false
}

func plus(name string, off uint64) string {
	if off == 0 {
		return name
	}
	return fmt.Sprintf("%s+0x%x", name, off)
}

// at finds the variable at an address of the area as it is linked.
func (a perCPUArea) at(s *Session, addr uint64) (string, uint64, bool) {
	if a.start != 0 {
		sym, off, ok := s.k.Symbolize(addr)
		return sym.Name, off, ok
	}
	i, _ := slices.BinarySearchFunc(a.syms, addr, func(sym kernel.Symbol, at uint64) int {
		if at < sym.Addr {
			return 1
		}
		return -1
	})
	if i == 0 {
		return "", 0, false
	}
	return a.syms[i-1].Name, addr - a.syms[i-1].Addr, true
}

// A known is an object whose members can name memory.
type known struct {
	expr string // of a pointer to it
	typ  *ctype.Type
	addr uint64
	size uint64
}

// knownObjects are what the arguments point at, and the current task.
func (s *Session) knownObjects(t *Target) []known {
	var out []known
	add := func(expr string, ptr *ctype.Type, addr uint64) {
		if ptr == nil {
			return
		}
		p := ptr.Strip()
		if p.Kind() != ctype.Pointer || !p.Elem().IsRecord() {
			return
		}
		rec := s.types.Complete(p.Elem().Strip())
		if size, err := rec.Size(); err == nil && size > 0 {
			out = append(out, known{expr, rec, addr, uint64(size)})
		}
	}
	if t != nil {
		for i, a := range t.Args {
			if i < len(t.Typed) {
				expr := a.Expr
				if a.Name != "" {
					expr = a.Name
				}
				add(expr, t.Typed[i], uint64(a.Value))
			}
		}
	}
	if task, err := s.types.ParseType("struct task_struct *"); err == nil {
		add("current", task, s.task)
	}
	return out
}

// memberName names an address by a member of an object that is known.
func memberName(objs []known, addr uint64) (string, bool) {
	for _, o := range objs {
		if addr-o.addr < o.size {
			if path, ok := memberAt(o.typ, addr-o.addr); ok {
				return o.expr + "->" + path, true
			}
		}
	}
	return "", false
}

// memberAt returns the path of the innermost member at an offset in bytes.
func memberAt(t *ctype.Type, off uint64) (string, bool) {
	const most = 16
	path := ""
	for range most {
		switch t = t.Strip(); {
		case t.IsRecord():
			m, ok := holds(t, off)
			if !ok {
				return path, path != ""
			}
			if m.Name != "" {
				if path != "" {
					path += "."
				}
				path += m.Name
			}
			off -= uint64(m.Offset / 8)
			t = m.Type
		case t.Kind() == ctype.Array:
			size, err := t.Elem().Size()
			if err != nil || size <= 0 {
				return path, path != ""
			}
			path += fmt.Sprintf("[%d]", off/uint64(size))
			off %= uint64(size)
			t = t.Elem()
		default:
			if off != 0 {
				path += fmt.Sprintf("+0x%x", off)
			}
			return path, path != ""
		}
	}
	return path, path != ""
}

// holds returns the member of a record that an offset lies in; of a union the
// first.
func holds(t *ctype.Type, off uint64) (ctype.Member, bool) {
	for _, m := range t.Members() {
		size, err := m.Type.Size()
		start := uint64(m.Offset / 8)
		if err == nil && off >= start && off < start+uint64(size) {
			return m, true
		}
	}
	return ctype.Member{}, false
}
