package culprit

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/ksleuth/ksleuth/ctype"
	"github.com/ksleuth/ksleuth/emulate"
	"github.com/ksleuth/ksleuth/kernel"
	"github.com/ksleuth/ksleuth/mem"
	"github.com/ksleuth/ksleuth/rerun"
	"github.com/ksleuth/ksleuth/typeflow"
	"github.com/ksleuth/ksleuth/x86"
)

// A witness watches a run go by up to an instruction, with the types of what it
// sees.
type witness struct {
	flow     *typeflow.Flow
	until    uint64 // step of the instruction
	frame    []seen // of the calls under way, outermost first
	store    string // what it stores to, as C
	saved    uint64 // step at which a register was saved
	savedFor uint64 // where the function that saved it returns to
	s        *Finder
}

// starts says whether a function begins at addr.
func (w *witness) starts(addr uint64) bool {
	_, off, ok := w.s.k.Symbolize(addr)
	return ok && off == 0
}

// calls names the functions under way, innermost first.
func (w *witness) calls() []string {
	out := []string{}
	for _, f := range slices.Backward(w.frame) {
		out = append(out, w.s.Name(f.entry))
	}
	return out
}

// event takes the name of what is stored to.
func (w *witness) event(e *typeflow.Event) {
	if e.Kind == typeflow.Store && e.Step == w.until && e.Place != nil {
		w.store = w.flow.Write(e.Place, e.Frame)
	}
}

// A seen is a call under way, with the registers it was entered with.
type seen struct {
	emulate.Frame
	entry uint64 // the function that got there, past thunks
	gp    [16]uint64
}

var errSeen = errors.New("seen")

// Before implements [emulate.Observer].
func (w *witness) Before(m *emulate.Machine, in *x86.Inst) {
	n := 0
	for n < len(w.frame) && n < len(m.Frames) && w.frame[n].Frame == m.Frames[n] {
		n++
	}
	w.frame = w.frame[:n]
	for _, f := range m.Frames[n:] {
		w.frame = append(w.frame, seen{f, f.Entry, m.GP})
	}
	if n = len(w.frame); n > 0 && m.GP[emulate.RSP] == w.frame[n-1].SP && m.RIP != w.frame[n-1].entry && w.starts(m.RIP) {
		w.frame[n-1].entry, w.frame[n-1].gp = m.RIP, m.GP // through a thunk, or a tail call
	}
	w.flow.Before(m, in)
	if m.Step == w.saved && len(w.frame) > 0 {
		w.savedFor = w.frame[len(w.frame)-1].Ret
	}
	if m.Step == w.until {
		m.Stop(errSeen)
	}
}

// Stub implements [emulate.Observer].
func (w *witness) Stub(m *emulate.Machine, s *emulate.Stub) { w.flow.Stub(m, s) }

// describe goes the same way again up to the store, and says what it was: of
// which object, through which pointer, and who passed that.
func (e *Entry) describe(ctx context.Context, cu *Culprit, o overwrite) error {
	s := e.finder
	flow, err := s.Flow(nil)
	if err != nil {
		return err
	}
	m := e.machine()
	w := &witness{flow: flow, until: o.store.Step, saved: o.saved.Step, s: s}
	w.flow.On = w.event
	m.Observer = w
	if stop := m.Run(ctx); !errors.Is(stop.Err, errSeen) {
		return fmt.Errorf("run a second time, %s went another way: %w", s.Name(e.Function), stop.Err)
	}
	cu.SavedValue = mem.Addr(valueAt(m, o.cell))
	cu.SavedFor = mem.Addr(s.callAt(w.savedFor))
	in := o.store.Inst
	cu.Store = rerun.Hit{Place: s.Place(in.Addr), Calls: w.calls(), Step: o.store.Step, Name: w.store}
	wr := o.store.Writes[len(o.store.Writes)-1]
	cu.Store.To = mem.Addr(wr.Addr)
	pointer, base := storePointer(m, in)
	sp := m.GP[emulate.RSP]
	m.Observer = nil
	m.Break(in.Addr + uint64(in.Len))
	m.Run(ctx)
	b, err := mem.Bytes(m.Mem, wr.Addr, min(wr.N, 64))
	if err != nil {
		return err
	}
	cu.Store.Bytes, cu.Store.Value = fmt.Sprintf("%x", b), mem.Addr(number(b))
	cu.Value = mem.Addr(valueAt(m, o.cell))
	if base {
		cu.Pointer = s.pointer(w.frame, sp, pointer)
	}
	return nil
}

// number reads up to eight bytes as a little-endian number.
func number(b []byte) uint64 {
	var w [8]byte
	copy(w[:], b)
	return binary.LittleEndian.Uint64(w[:])
}

func valueAt(m *emulate.Machine, addr uint64) uint64 {
	b, err := mem.Bytes(m.Mem, addr, 8)
	if err != nil {
		return 0
	}
	return binary.LittleEndian.Uint64(b)
}

// storePointer returns the register that a store's address is based on.
func storePointer(m *emulate.Machine, in *x86.Inst) (uint64, bool) {
	for _, a := range in.Args[:in.NArgs] {
		if n, ok := emulate.RegNumber(a.Reg); a.Kind == x86.KindMem && ok && a.Index == 0 {
			return m.GP[n], true
		}
	}
	return 0, false
}

// pointer says through which argument a pointer came to the function that used
// it, and from whom. sp is the stack pointer then.
func (s *Finder) pointer(frames []seen, sp, p uint64) *Pointer {
	out := &Pointer{Value: mem.Addr(p)}
	for i := len(frames) - 1; i >= 0 && p >= sp; i-- { // the frame it points into
		if f := frames[i]; f.SP > p {
			out.Owner = s.Name(f.entry)
			if sym, _, ok := s.k.Symbolize(f.entry); ok && sym.Kind == kernel.KindBPF { // only BPF code has frame pointers
				out.Below = int64(f.SP - 8 - p)
			}
			break
		}
	}
	for i := len(frames) - 1; i > 0; i-- { // the innermost call that has it as an argument
		f := frames[i]
		args := s.argsOf(f.entry, f.gp)
		for n, a := range args {
			if uint64(a.Value) != p {
				continue
			}
			// Of several with one value the last that has a size is meant: the
			// tuple and the options can be one buffer.
			if size := sizeOf(args, n); size != nil || out.Name == "" {
				out.Name, out.Size = a.Name, size
			}
		}
		if out.Name != "" {
			out.Callee, out.Args = s.Name(f.entry), args
			at := s.Place(s.callAt(f.Ret))
			out.Passed = &at
			break
		}
	}
	return out
}

// sizeOf returns the argument that says how large the memory behind argument n
// is, by the kernel's naming of parameters: x__sz (Documentation/bpf/kfuncs.rst),
// x_len, x_size, len.
func sizeOf(args []rerun.Arg, n int) *rerun.Arg {
	if n+1 >= len(args) {
		return nil
	}
	next := args[n+1]
	for _, suffix := range []string{"__sz", "__szk", "_len", "_size", "len", "size"} {
		if strings.HasSuffix(next.Name, suffix) {
			return &next
		}
	}
	return nil
}

// argsOf returns the arguments of a function by the registers it was entered
// with.
func (s *Finder) argsOf(entry uint64, gp [16]uint64) []rerun.Arg {
	t, ok := s.FunctionAt(entry)
	if !ok || t.Proto == nil {
		return nil
	}
	var args []rerun.Arg
	for i, p := range t.Proto.Params() {
		if i >= len(emulate.ArgRegs) || p.Type.Strip().Kind() == ctype.Void {
			break
		}
		reg := emulate.ArgRegs[i]
		a := rerun.Arg{Name: p.Name, Type: p.Type.String(), Value: mem.Addr(rerun.Width(p.Type, gp[reg]))}
		if gp[reg] == unknownValue(reg) {
			a.Text = "unknown"
		}
		args = append(args, a)
	}
	return args
}
