package trace

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"slices"

	"github.com/ksleuth/ksleuth/bpf"
	"github.com/ksleuth/ksleuth/bpfsys"
	"github.com/ksleuth/ksleuth/bpfview"
	"github.com/ksleuth/ksleuth/jit"
	"github.com/ksleuth/ksleuth/kernel"
	"github.com/ksleuth/ksleuth/tracee"
)

// Code is what the code of BPF functions says of tail calls.
type Code struct {
	progs map[int]*progCode
	slots map[int]*array // by id of the program array
}

// A progCode is the code of a program.
type progCode struct {
	prog  *bpf.Program
	funcs []funcCode
}

// A funcCode is what the code of a function says.
type funcCode struct {
	name   string
	sites  []bpf.TailCall
	always bool
	calls  []int  // functions of the program, by number
	entry  uint64 // where a tail call enters; 0 if that is not known
	body   uint64 // behind the place where a trampoline is called, and to which that returns
	shift  int    // of the count in the register that it is given in; -1 if that is not known
}

// An array is a program array.
type array struct {
	name  string
	progs map[int]*Program // by slot
	size  int
}

// maxCode bounds the programs whose code is read.
const maxCode = 1024

// ReadCode reads the code of the BPF programs that functions are of, the
// program arrays that it jumps through, and the code of the programs there; of
// these the same. With an error comes what was read.
func ReadCode(ctx context.Context, src bpfview.Source, funcs []*tracee.Function) (*Code, error) {
	c := &Code{progs: make(map[int]*progCode), slots: make(map[int]*array)}
	var ids []int
	for _, f := range funcs {
		if f.Prog != nil && !slices.Contains(ids, f.Prog.ID) {
			ids = append(ids, f.Prog.ID)
		}
	}
	var errs kernel.Errors
	for len(ids) > 0 && len(c.progs) < maxCode && ctx.Err() == nil {
		errs.Add(c.readProgs(ids))
		errs.Add(c.readArrays(ctx, src))
		ids = c.unread()
	}
	return c, errors.Join(ctx.Err(), errs.Err())
}

// readProgs reads the code of programs.
func (c *Code) readProgs(ids []int) error {
	var errs kernel.Errors
	for _, id := range ids {
		c.progs[id] = nil // not to be tried again
	}
	held, err := bpfsys.Programs(ids...)
	errs.Add(err)
	if held == nil {
		return errs.Err()
	}
	defer held.Close()
	for _, p := range held.Objects {
		code, err := bpfsys.CodeOf(held, p.ID)
		if err != nil {
			errs.Add(err)
			continue
		}
		c.progs[p.ID] = readProg(p, code)
	}
	return errs.Err()
}

// unread are the programs in program arrays whose code was not read.
func (c *Code) unread() (ids []int) {
	for _, a := range c.slots {
		if a == nil {
			continue
		}
		for _, p := range a.progs {
			if _, tried := c.progs[p.ID]; !tried && !slices.Contains(ids, p.ID) {
				ids = append(ids, p.ID)
			}
		}
	}
	slices.Sort(ids)
	return ids
}

// patchLen is how long the instruction is that becomes the call of a trampoline
// (X86_PATCH_SIZE).
const patchLen = 5

func readProg(p *bpf.Program, code *bpfsys.Code) *progCode {
	out := &progCode{prog: p}
	for i, fn := range code.Funcs {
		f := funcCode{name: fn.Name, shift: -1}
		if pro, ok := jit.ReadPrologue(fn.Text, uint64(fn.Addr)); ok {
			if fn.Addr != 0 {
				f.entry = uint64(fn.Addr) + uint64(pro.TailCallEntry)
				f.body = pro.Attach.Addr + patchLen
			}
			f.shift = countShift(fn.Text, pro)
		}
		insns := insnsOf(code, i)
		f.sites, f.calls = bpf.TailCalls(insns), bpf.Callees(insns)
		f.always = len(f.sites) > 0 && bpf.Unavoidable(insns)
		out.funcs = append(out.funcs, f)
	}
	return out
}

// countShift returns which part of the register that a function is given the
// tail-call count in counts, in bits: before ff672c67ee76 (5.19) a function
// pushed all of it, and read 4 bytes of that at the wrong end. It is -1 where
// the count is no number in a register.
func countShift(text []byte, pro jit.Prologue) int {
	if pro.CountBy != jit.CountValue {
		return -1
	}
	for _, shift := range []int{0, 32} {
		load := binary.LittleEndian.AppendUint32([]byte{0x8b, 0x85}, uint32(int32(pro.CountSlot+shift/8))) // mov disp32(%rbp),%eax
		if bytes.Contains(text, load) {
			return shift
		}
	}
	return -1
}

// insnsOf returns the instructions of one function; none where it is not known
// which they are.
func insnsOf(code *bpfsys.Code, i int) []byte {
	const size = 8 // of a struct bpf_insn
	start, end := code.Funcs[i].Insn, len(code.Insns)/size
	for _, g := range code.Funcs {
		if g.Insn > start {
			end = min(end, g.Insn)
		}
	}
	if start < 0 || start >= end {
		return nil
	}
	return code.Insns[start*size : end*size]
}

// readArrays reads the program arrays that the code jumps through.
func (c *Code) readArrays(ctx context.Context, src bpfview.Source) error {
	var ids []int
	for _, p := range c.progs {
		if p == nil {
			continue
		}
		for _, f := range p.funcs {
			for _, s := range f.sites {
				if _, tried := c.slots[int(s.Map)]; s.Map != 0 && !tried {
					c.slots[int(s.Map)] = nil
					ids = append(ids, int(s.Map))
				}
			}
		}
	}
	if len(ids) == 0 {
		return nil
	}
	slices.Sort(ids)
	src.Users = false
	maps, err := src.Maps(ctx, ids...)
	var errs kernel.Errors
	errs.Add(err)
	progs, err := src.Programs(ctx)
	errs.Add(err)
	byID := make(map[int]*bpf.Program)
	for _, p := range progs {
		byID[p.ID] = p
	}
	for _, m := range maps {
		a := &array{name: m.Name, progs: make(map[int]*Program), size: int(m.MaxEntries)}
		entries, err := src.Entries(ctx, m)
		errs.Add(err)
		for _, e := range entries {
			if len(e.Key) < 4 || e.Object == nil {
				continue
			}
			p := &Program{ID: e.Object.ID}
			if full := byID[p.ID]; full != nil {
				p.Name, p.Type, p.Tag = full.Name, full.Type, full.Tag
			}
			a.progs[int(binary.LittleEndian.Uint32(e.Key))] = p
		}
		c.slots[m.ID] = a
	}
	return errs.Err()
}

// of returns the code of a function; nil if it was not read.
func (c *Code) of(f *tracee.Function) *funcCode {
	if c == nil || f.Prog == nil || c.progs[f.Prog.ID] == nil || f.Subprog >= len(c.progs[f.Prog.ID].funcs) {
		return nil
	}
	return &c.progs[f.Prog.ID].funcs[f.Subprog]
}

// Entry returns where a tail call enters a program: behind the place where its
// trampoline is called. It is 0 if that is not known.
func (c *Code) Entry(f *tracee.Function) uint64 {
	if code := c.of(f); code != nil {
		return code.entry
	}
	return 0
}

// Endless reports whether tail calls that begin in a function's program can go
// round, so that only their count ends them; or whether that is not known.
func (c *Code) Endless(f *tracee.Function) bool {
	const under, done = 1, 2
	state := make(map[int]int)
	var round func(prog int) bool
	round = func(prog int) bool {
		p := c.progs[prog]
		if p == nil || state[prog] == under {
			return true
		}
		if state[prog] == done {
			return false
		}
		state[prog] = under
		for i := range p.funcs {
			for _, j := range c.targets(&p.funcs[i], func(int) bool { return false }) {
				if j.Prog != nil && round(j.Prog.ID) {
					return true
				}
			}
		}
		state[prog] = done
		return false
	}
	return round(f.Prog.ID)
}

// Body returns where a trampoline enters a function; 0 if that is not known.
func (c *Code) Body(f *tracee.Function) uint64 {
	if code := c.of(f); code != nil {
		return code.body
	}
	return 0
}

// Count returns the tail-call count in the register that a function was given,
// if its code takes it as a number.
func (c *Code) Count(f *tracee.Function, rax uint64) (uint32, bool) {
	code := c.of(f)
	if code == nil || code.shift < 0 {
		return 0, false
	}
	return uint32(rax >> code.shift), true
}

// Jumps returns the tail calls that a function can make; nil if it makes none.
// observed tells the functions whose own records are to be had, watched the
// programs whose entry by tail call is seen.
func (c *Code) Jumps(f *tracee.Function, observed func(prog, subprog int) bool, watched func(prog int) bool) *Jumps {
	code := c.of(f)
	if code == nil {
		return nil
	}
	out := &Jumps{To: c.targets(code, watched), Always: code.always}
	out.Most = c.most(out.To, nil)
	p := c.progs[f.Prog.ID]
	seen := map[int]bool{f.Subprog: true}
	todo := slices.Clone(code.calls)
	for len(todo) > 0 {
		n := todo[0]
		todo = todo[1:]
		if n < 0 || n >= len(p.funcs) || seen[n] || observed(f.Prog.ID, n) {
			continue
		}
		seen[n] = true
		if to := c.targets(&p.funcs[n], watched); len(to) > 0 {
			out.Inner = append(out.Inner, Inner{p.funcs[n].name, to})
			if m := c.most(to, nil); m < 0 || out.Most < 0 {
				out.Most = -1
			} else {
				out.Most += m
			}
		}
		todo = append(todo, p.funcs[n].calls...)
	}
	if len(out.To) == 0 && len(out.Inner) == 0 {
		return nil
	}
	return out
}

// most returns how many tail calls one can lead to, of which these are the
// targets: itself, and those that the main functions of the programs entered
// make in turn. It is -1 where they go round, or code was not read.
func (c *Code) most(to []Jump, way []int) int {
	most := 0
	for _, j := range to {
		if j.Prog == nil {
			continue
		}
		p := c.progs[j.Prog.ID]
		if p == nil || len(p.funcs) == 0 || slices.Contains(way, j.Prog.ID) {
			return -1
		}
		on := c.most(c.targets(&p.funcs[0], func(int) bool { return false }), append(slices.Clone(way), j.Prog.ID))
		if on < 0 {
			return -1
		}
		most = max(most, 1+on)
	}
	return most
}

// targets are the elements of program arrays that a function jumps to.
func (c *Code) targets(f *funcCode, watched func(prog int) bool) (out []Jump) {
	for _, s := range f.sites {
		a := c.slots[int(s.Map)]
		if a == nil {
			continue
		}
		slots := []int{s.Index}
		if s.Index < 0 {
			slots = filled(a)
		}
		for _, i := range slots {
			j := Jump{Map: a.name, MapID: int(s.Map), Index: i, Prog: a.progs[i]}
			j.Watched = j.Prog != nil && watched(j.Prog.ID)
			if !slices.Contains(out, j) {
				out = append(out, j)
			}
		}
	}
	return out
}

func filled(a *array) (out []int) {
	for i := range a.progs {
		out = append(out, i)
	}
	slices.Sort(out)
	return out
}
