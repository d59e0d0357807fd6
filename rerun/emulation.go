package rerun

import (
	"bytes"
	"cmp"
	"errors"
	"slices"
	"strconv"

	"github.com/ksleuth/ksleuth/ctype"
	"github.com/ksleuth/ksleuth/emulate"
	"github.com/ksleuth/ksleuth/mem"
)

// Emulation puts a run into the form that is shown, but for why it answered what
// it did, and its trace. t is nil for a run from registers.
func (s *Session) Emulation(t *Target, r *Result) *Emulation {
	e := &Emulation{
		Outcome: string(r.Stop.Outcome), Insns: r.Stop.Step, Args: []Arg{}, Why: []Reason{},
		Stubs: append([]Use{}, r.Uses...), Watch: r.Hits,
	}
	if t != nil {
		e.Call, e.Function, e.Addr, e.Args = t.Call, t.Name, mem.Addr(t.Addr), append(e.Args, t.Args...)
	} else if sym, off, ok := s.k.Symbolize(r.Start.RIP); ok {
		e.Function, e.Addr = s.Name(r.Start.RIP-off), mem.Addr(sym.Addr)
	} else {
		e.Addr = mem.Addr(r.Start.RIP)
	}
	if r.Stop.Outcome == emulate.Returned {
		s.answer(e, t, r)
	} else {
		e.Stop = s.stop(r)
	}
	for _, c := range s.sets {
		e.Set = append(e.Set, c.change())
	}
	e.Writes = s.Changes(t, r)
	for i := range e.Args {
		var typ *ctype.Type
		if t != nil && i < len(t.Typed) {
			typ = t.Typed[i]
		}
		e.Args[i].After = s.after(r, typ, uint64(e.Args[i].Value))
	}
	return e
}

// after says what a run left in the memory that an argument points at, if that
// was made for it and the run changed it.
func (s *Session) after(r *Result, t *ctype.Type, addr uint64) string {
	i := slices.IndexFunc(s.made, func(m [2]uint64) bool { return addr >= m[0] && addr < m[0]+m[1] })
	if i < 0 {
		return ""
	}
	const shown = 256
	n := int(min(shown, s.made[i][0]+s.made[i][1]-addr))
	before, err1 := mem.Bytes(s.view, addr, n)
	now, err2 := mem.Bytes(r.Machine.Mem, addr, n)
	if err1 != nil || err2 != nil || bytes.Equal(before, now) {
		return ""
	}
	if t != nil && t.Strip().Kind() == ctype.Pointer {
		to := t.Strip().Elem()
		if size, err := to.Size(); err == nil && scalar(to) && !to.IsChar() && size > 0 && size <= n {
			return s.valueText(r.Machine.Mem, to, word(now[:min(size, 8)]))
		}
	}
	if text, _, ok := bytes.Cut(now, []byte{0}); ok && len(text) > 0 && printable(string(text)) {
		return strconv.Quote(string(text))
	}
	for n > 0 && before[n-1] == now[n-1] {
		n--
	}
	return hexBytes(now[:n])
}

// answer fills in what a function returned.
func (s *Session) answer(e *Emulation, t *Target, r *Result) {
	rax := r.Machine.GP[emulate.RAX]
	e.Return = mem.Addr(rax)
	if t == nil || t.Proto == nil {
		e.Text = s.valueText(r.Machine.Mem, nil, rax)
		return
	}
	typ := t.Proto.Elem()
	e.Type = typ.String()
	e.Return = mem.Addr(Width(typ, rax))
	e.Text = s.valueText(r.Machine.Mem, typ, rax)
	if e.Text == "" { // void
		e.Return = 0
	}
}

// stop says where and why a run ended.
func (s *Session) stop(r *Result) *Stop {
	out := &Stop{Place: s.Place(r.Stop.RIP), Text: r.run.stopText(r.Stop), Calls: s.calls(r.Machine)}
	var x *emulate.Exception
	if errors.As(r.Stop.Err, &x) && (x.Vector == emulate.PageFault || x.Vector == emulate.GeneralProtect) {
		out.Fault, out.Access = mem.Addr(x.Addr), "read"
		if x.Write {
			out.Access = "write"
		}
		if x.Inst == nil {
			out.Access = "execute"
		}
	}
	return out
}

// StopText says why a run ended, in words.
func (r *Result) StopText() string { return r.run.stopText(r.Stop) }

// Changes returns what a run has changed in the target's memory, as far as it
// differs afterwards, with what was set beforehand left out.
func (s *Session) Changes(t *Target, r *Result) []Change {
	objs := s.knownObjects(t)
	out := []Change{}
	for _, c := range r.Machine.Mem.Changes() {
		for _, part := range s.differing(r, c) {
			ch := Change{Addr: mem.Addr(part.Addr), Len: len(part.New), Old: hexBytes(part.Old), New: hexBytes(part.New)}
			if name, ok := memberName(objs, part.Addr); ok {
				ch.Name = name
			} else if name, ok := s.dataName(part.Addr); ok {
				ch.Name = name
			}
			const below = 16 << 10
			sp := r.Start.GP[emulate.RSP]
			ch.Stack = part.Addr < sp && part.Addr >= sp-below
			out = append(out, ch)
		}
	}
	s.writers(r, out)
	return out
}

// writers names the last instruction that wrote each change, if the history
// reaches back to it.
func (s *Session) writers(r *Result, changes []Change) {
	h := r.Machine.History()
	if h == nil || len(changes) == 0 {
		return
	}
	open := len(changes)
	_, end := h.Span()
	for ev := range h.Backward(end) {
		for _, w := range ev.Writes {
			i, _ := slices.BinarySearchFunc(changes, w.Addr, func(c Change, at uint64) int {
				return cmp.Compare(uint64(c.Addr)+uint64(c.Len), at+1)
			})
			for ; i < len(changes) && uint64(changes[i].Addr) < w.Addr+uint64(w.N); i++ {
				if changes[i].By == nil {
					p := s.Place(ev.Inst.Addr)
					changes[i].By = &p
					open--
				}
			}
		}
		if open == 0 {
			return
		}
	}
}

// differing cuts what was written into what is different afterwards: parts that
// are a word or more apart are separate changes.
func (s *Session) differing(r *Result, c emulate.Change) []emulate.Change {
	const apart = 8
	before := bytes.Clone(c.Old)
	if err := s.view.ReadMem(before, c.Addr); err != nil {
		copy(before, c.Old)
	}
	if r.Stop.Outcome == emulate.Returned {
		for i := range c.New {
			if at := c.Addr + uint64(i); at >= r.run.dead[0] && at < r.run.dead[1] {
				before[i] = c.New[i]
			}
		}
	}
	for addr, n := range r.run.hidden {
		for i := range n {
			if at := addr + uint64(i) - c.Addr; at < uint64(len(before)) {
				before[at] = c.New[at]
			}
		}
	}
	var out []emulate.Change
	for i := 0; i < len(c.New); i++ {
		if before[i] == c.New[i] {
			continue
		}
		end := i + 1 // behind the last byte that differs
		for j := end; j < len(c.New) && j < end+apart; j++ {
			if before[j] != c.New[j] {
				end = j + 1
			}
		}
		out = append(out, emulate.Change{Addr: c.Addr + uint64(i), Old: before[i:end], New: c.New[i:end]})
		i = end
	}
	return out
}
