package culprit

import (
	"iter"

	"github.com/ksleuth/ksleuth/mem"
	"github.com/ksleuth/ksleuth/orc"
	"github.com/ksleuth/ksleuth/stack"
	"github.com/ksleuth/ksleuth/unwind"
)

// maxSurvivors bounds the stacks that are tried.
const maxSurvivors = 16

// survivors yields stacks that a crash with a lost stack pointer can have had:
// from each word above it that is a return address from which the stack leads
// to its outermost frame. They are guesses; only a run that comes to the same
// fault tells which is right.
func (s *Finder) survivors(c Crash) iter.Seq[stack.Stack] {
	return func(yield func(stack.Stack) bool) {
		top, end := c.Stack.Frames[0], s.stackEnd(c)
		tried := 0
		for at := c.RSP &^ 7; at+8 <= end && tried < maxSurvivors; at += 8 {
			ret, err := mem.U64(s.view, at)
			if err != nil {
				return
			}
			if !s.isReturn(ret) {
				continue
			}
			callee, ok := s.lostFrame(ret, at+8)
			if !ok {
				continue
			}
			regs := unwind.Callee(s.k, unwind.Stack{Frames: []unwind.Frame{top.Raw, callee.Raw, {PC: ret, SP: at + 8}}}, 2)
			st := stack.Behind(s.k, c.Task, ret, at+8, regs.RBP.Value)
			if st.End != nil || len(st.Frames) < 3 {
				continue
			}
			tried++
			for i := range st.Frames {
				st.Frames[i].Recovered = "by running the code again"
				st.Frames[i].Reliable = false
			}
			st.Frames = append([]stack.Frame{top, callee}, st.Frames...)
			if !yield(st) {
				return
			}
		}
	}
}

// lostFrame makes up the frame of the function that was called from in front
// of ret: where it stood in its code is not known, and any place behind a call
// does, for there it has saved its caller's registers.
func (s *Finder) lostFrame(ret, cfa uint64) (stack.Frame, bool) {
	in, ok := s.instAt(s.callAt(ret))
	if !ok {
		return stack.Frame{}, false
	}
	entry, ok := in.Target()
	if !ok {
		return stack.Frame{}, false
	}
	sym, off, ok := s.k.Symbolize(entry)
	if !ok || off != 0 {
		return stack.Frame{}, false
	}
	for at := entry; at < entry+sym.Size; {
		in, ok := s.instAt(at)
		if !ok {
			break
		}
		at += uint64(in.Len)
		if !calls(&in) {
			continue
		}
		e, ok, err := s.k.ORC(at - 1)
		if err != nil || !ok || e.Type != orc.Call || e.SP.Base != orc.SP {
			continue
		}
		raw := unwind.Frame{PC: at, SP: cfa - uint64(int64(e.SP.Offset)), CFA: cfa, Kind: sym.Kind}
		return stack.Frame{PC: mem.Addr(at), Symbol: sym.Name, Module: sym.Module, Kind: sym.Kind, Raw: raw}, true
	}
	return stack.Frame{}, false
}

// stackEnd returns the end of the task's stack that rsp is near.
func (s *Finder) stackEnd(c Crash) uint64 {
	const size = 16 << 10 // THREAD_SIZE, without KASAN
	o := s.k.Object("task_struct", uint64(c.Task.Addr))
	base := o.Ptr("stack")
	if o.Err() != nil || c.RSP < base || c.RSP >= base+size {
		return 0
	}
	return base + size
}

// isReturn says whether addr is behind a call, in code.
func (s *Finder) isReturn(addr uint64) bool {
	_, _, ok := s.k.Symbolize(addr - 1)
	return ok && s.callAt(addr) != addr
}
