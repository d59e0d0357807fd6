package rerun

import (
	"errors"
	"fmt"
	"strings"

	"github.com/ksleuth/ksleuth/bpf"
	"github.com/ksleuth/ksleuth/emulate"
	"github.com/ksleuth/ksleuth/mem"
	"github.com/ksleuth/ksleuth/x86"
)

// tracerStubs has the calls of tracers at the beginning of functions return at
// once: ftrace's (arch/x86/kernel/ftrace_64.S), those of its tracers' own copies
// of it, and trampolines of BPF programs that only look on. A trampoline whose programs can change what a
// function answers (fmod_ret, lsm) runs.
func (s *Session) tracerStubs(out map[uint64]stubAt) {
	ts, _ := bpf.Trampolines(s.k)
	replacers := map[uint64]uint64{} // images by where their functions go on
	for _, t := range ts {
		if t.Kind == "trampoline" && t.Image != 0 && !looksOn(t) && len(t.Progs) > 0 {
			replacers[s.behindSite(uint64(t.Target.Addr))] = uint64(t.Image)
		}
	}
	tracers := stubRow{why: "tracers of the function are left out", jumps: true, run: func(r *run, c *call) error {
		ret, err := c.m.Load(c.m.GP[emulate.RSP], 8)
		if image := replacers[ret]; err == nil && image != 0 {
			c.m.RIP = image // as ftrace would have it called
			return nil
		}
		return errors.Join(err, leaveOut(c, ret))
	}}
	for _, name := range []string{"ftrace_caller", "ftrace_regs_caller", "ftrace_graph_caller"} {
		sym, ok := s.symbols()[name]
		if !ok {
			continue
		}
		out[sym.Addr] = stubAt{name, &tracers}
	}
	for _, addr := range s.ftraceTrampolines() {
		out[addr] = stubAt{"ftrace trampoline", &tracers}
	}
	for _, t := range ts {
		if t.Kind != "trampoline" || t.Image == 0 || !looksOn(t) {
			continue
		}
		var names []string
		for _, p := range t.Progs {
			names = append(names, fmt.Sprintf("%s %s (prog %d)", p.When, p.Name, p.ID))
		}
		row := &stubRow{why: "tracing programs are left out: " + strings.Join(names, ", "), jumps: true}
		body := s.behindSite(uint64(t.Target.Addr))
		row.run = func(r *run, c *call) error { return leaveOut(c, body) }
		out[uint64(t.Image)] = stubAt{t.Name, row}
	}
}

// behindSite returns where a function goes on behind the place at its beginning
// where tracers are called: five bytes, behind an endbr64.
func (s *Session) behindSite(fun uint64) uint64 {
	const site = 5
	if in, err := x86.DecodeAt(s.view, fun); err == nil && in.Op == x86.ENDBR64 {
		fun += uint64(in.Len)
	}
	return fun + site
}

// leaveOut goes on in the function whose trampoline was entered: by a call
// that returns there, or, for those that may be entered so (7.0), by a jump.
func leaveOut(c *call, body uint64) error {
	m := c.m
	ret, err := m.Load(m.GP[emulate.RSP], 8)
	if err != nil {
		return err
	}
	m.RIP = body
	if ret != body {
		return nil
	}
	m.GP[emulate.RSP] += 8
	if n := len(m.Frames); n > 0 && m.Frames[n-1].SP < m.GP[emulate.RSP] {
		m.Frames = m.Frames[:n-1]
	}
	return nil
}

// looksOn says whether all programs of a trampoline only see the function.
func looksOn(t *bpf.Trampoline) bool {
	for _, p := range t.Progs {
		if p.When != "fentry" && p.When != "fexit" && p.When != "fsession" {
			return false
		}
	}
	return len(t.Progs) > 0
}

// ftraceTrampolines returns the code that ftrace made for single tracers
// (ftrace_ops.trampoline).
func (s *Session) ftraceTrampolines() []uint64 {
	list, ok := s.symbols()["ftrace_ops_list"]
	if !ok {
		return nil
	}
	at, err := mem.U64(s.view, list.Addr)
	var out []uint64
	const most = 1 << 12
	for n := 0; err == nil && at != 0 && n < most; n++ {
		o := s.k.Object("ftrace_ops", at)
		if t := o.Ptr("trampoline"); t != 0 && o.Err() == nil {
			out = append(out, t)
		}
		at, err = o.Ptr("next"), o.Err()
	}
	return out
}
