package unwind

import (
	"iter"
	"strings"

	"golang.org/x/arch/x86/x86asm"

	"github.com/ksleuth/ksleuth/cfg"
	"github.com/ksleuth/ksleuth/kernel"
	"github.com/ksleuth/ksleuth/mem"
	"github.com/ksleuth/ksleuth/x86"
)

// follow follows the code of a frame's function from its entry and returns what
// is known before the frame's instruction: the one at an exact PC, else the
// call in front of it, which changes none of what is asked for.
func (c *follower) follow(f Frame) (*state, bool) {
	pc := f.Lookup()
	sym, _, ok := c.k.Symbolize(pc)
	if !ok {
		return nil, false
	}
	// The kernel goes on behind the trap of a WARN. That few frames are there
	// is why it is tried last.
	for _, warn := range []bool{false, true} {
		g, err := c.graph(sym, pc, warn)
		if err != nil {
			return nil, false
		}
		at, ok := g.BlockAt(pc)
		if !ok || len(g.Blocks) > maxBlocks {
			continue
		}
		st, ok := before(g, flow(g)[at], at, pc)
		if ok && f.Exact && st.at != pc {
			return nil, false // within an instruction
		}
		return st, ok
	}
	return nil, false
}

// graph builds the graph of the function that pc is in, with the part of it
// that the compiler put elsewhere (foo.cold).
func (c *follower) graph(sym kernel.Symbol, pc uint64, warn bool) (*cfg.Graph, error) {
	o := cfg.Options{Warn: func(uint64) bool { return warn }, Limit: maxFunction}
	if parent, ok := c.parent(sym); ok {
		code, err := c.code(sym)
		if err != nil {
			return nil, err
		}
		o.Parts = []cfg.Part{{Addr: sym.Addr, Code: code}}
		return c.build(parent, o)
	}
	g, err := c.build(sym, o)
	if err != nil {
		return nil, err
	}
	cold, ok := c.cold(g, sym)
	if !ok {
		return g, nil
	}
	code, err := c.code(cold)
	if err != nil {
		return g, nil // it does not matter for most places
	}
	o.Parts = []cfg.Part{{Addr: cold.Addr, Code: code}}
	return c.build(sym, o)
}

func (c *follower) build(sym kernel.Symbol, o cfg.Options) (*cfg.Graph, error) {
	code, err := c.code(sym)
	if err != nil {
		return nil, err
	}
	return cfg.Build(code, sym.Addr, o)
}

func (c *follower) code(sym kernel.Symbol) ([]byte, error) {
	n := int(min(sym.Size, maxFunction))
	if c.decoded += n; c.decoded > maxDecoded {
		return nil, cfg.ErrLimit
	}
	return mem.Bytes(c.k.Mem(), sym.Addr, n)
}

const coldSuffix = ".cold" // GCC's, with a number behind it before GCC 9

// cold returns the part that a function jumps to.
func (c *follower) cold(g *cfg.Graph, sym kernel.Symbol) (cold kernel.Symbol, ok bool) {
	for to := range jumpsOut(g) {
		if s, _, ok := c.k.Symbolize(to); ok && strings.HasPrefix(s.Name, sym.Name+coldSuffix) {
			return s, true
		}
	}
	return kernel.Symbol{}, false
}

// jumpsOut gives the places a function jumps to outside of itself.
func jumpsOut(g *cfg.Graph) iter.Seq[uint64] {
	return func(yield func(uint64) bool) {
		for i := range g.Blocks {
			b := &g.Blocks[i]
			code := g.Code(i)
			if !b.Exit || b.Last-b.Start >= uint64(len(code)) {
				continue
			}
			in, err := x86.Decode(code[b.Last-b.Start:], b.Last)
			if err != nil {
				continue
			}
			if to, ok := in.Target(); ok && !yield(to) {
				return
			}
		}
	}
}

// parent returns the function that a cold part belongs to: of those with its
// name the one that jumps into it.
func (c *follower) parent(cold kernel.Symbol) (kernel.Symbol, bool) {
	name, _, ok := strings.Cut(cold.Name, coldSuffix)
	if !ok || cold.Kind != kernel.KindKernel && cold.Kind != kernel.KindModule {
		return kernel.Symbol{}, false
	}
	all, err := c.k.Match(name)
	if err != nil {
		return kernel.Symbol{}, false
	}
	for _, s := range all {
		if s.Module != cold.Module {
			continue
		}
		g, err := c.build(s, cfg.Options{Limit: maxFunction})
		if err != nil {
			continue
		}
		if got, ok := c.cold(g, s); ok && got.Addr == cold.Addr {
			return s, true
		}
	}
	return kernel.Symbol{}, false
}

// flow returns what is known at the start of each block, nil for those that
// are not reached.
func flow(g *cfg.Graph) []*state {
	at := make([]*state, len(g.Blocks))
	first, _ := g.BlockAt(g.Entry)
	at[first] = entryState()
	queued := make([]bool, len(g.Blocks))
	work := []int{first}
	for len(work) > 0 {
		i := work[len(work)-1]
		work = work[:len(work)-1]
		queued[i] = false
		out, _ := before(g, at[i], i, g.Blocks[i].End)
		for _, s := range g.Blocks[i].Succs {
			changed := true
			if at[s] == nil {
				at[s] = out.clone()
			} else {
				changed = at[s].meet(out)
			}
			if changed && !queued[s] {
				queued[s] = true
				work = append(work, s)
			}
		}
	}
	return at
}

// before returns what is known before the instruction of a block that pc lies
// in, or behind the block if pc is its end.
func before(g *cfg.Graph, start *state, block int, pc uint64) (*state, bool) {
	if start == nil {
		return nil, false
	}
	st := start.clone()
	st.at = g.Blocks[block].Start
	code := g.Code(block)
	var in x86.Inst
	for off := 0; off < len(code); {
		if in.Decode(code[off:], st.at) != nil {
			return st, true // the block ends here, and with it what is known
		}
		if pc-st.at < uint64(in.Len) {
			return st, true
		}
		st.step(&in, g.Entry)
		off += in.Len
		st.at += uint64(in.Len)
	}
	return st, true
}

// An origin says what a value was made from.
type origin int32

const (
	nowhere  origin = iota // not known
	entryOf                // what a register held at the function's entry
	fromCFA                // an address: the canonical frame address and an offset
	fromHere               // and above: one of other bases, of what rsp was set to at some instruction
)

// A value is what is known of a register or a word on the stack.
type value struct {
	of origin
	n  int64 // the register, or the offset
}

func (v value) isAddr() bool { return v.of >= fromCFA }

func (v value) plus(n int64) value { return value{v.of, v.n + n} }

// A cell is a word on the stack whose content is known.
type cell struct {
	base origin
	off  int64
	v    value
}

// A state is what is known before an instruction.
type state struct {
	at  uint64 // the instruction's address; not part of what is compared
	reg [16]value
	// cells are few: a function saves six registers, and may do so twice.
	cells []cell
	// noted is the word that has been put where a register of unknown value
	// points: how a stack is left for another is to push the old stack's
	// pointer on the new one.
	noted struct {
		reg x86.Reg
		v   value
	}
}

const (
	// maxCells bounds the cells of a state, and maxBlocks their number.
	maxCells  = 24
	maxBlocks = 1 << 17
)

func entryState() *state {
	st := &state{}
	for _, r := range calleeSaved {
		st.reg[r-x86asm.RAX] = value{entryOf, int64(r)}
	}
	st.reg[x86asm.RSP-x86asm.RAX] = value{fromCFA, -8}
	return st
}

func (st *state) clone() *state {
	out := *st
	out.cells = append([]cell(nil), st.cells...)
	return &out
}

// meet keeps what holds in both states, and says whether that is less.
func (st *state) meet(with *state) (changed bool) {
	for i := range st.reg {
		if st.reg[i].of != nowhere && st.reg[i] != with.reg[i] {
			st.reg[i], changed = value{}, true
		}
	}
	if st.noted.reg != 0 && st.noted != with.noted {
		st.noted.reg, changed = 0, true
	}
	kept := st.cells[:0]
	for _, c := range st.cells {
		if with.load(value{c.base, c.off}) == c.v {
			kept = append(kept, c)
		} else {
			changed = true
		}
	}
	st.cells = kept
	return changed
}

func general(r x86.Reg) bool { return r >= x86asm.RAX && r <= x86asm.R15 }

func (st *state) get(r x86.Reg) value {
	if !general(r) {
		return value{}
	}
	return st.reg[r-x86asm.RAX]
}

func (st *state) set(r x86.Reg, v value) {
	if !general(r) {
		return
	}
	st.reg[r-x86asm.RAX] = v
	if st.noted.reg == r {
		st.noted.reg = 0
	}
}

// forget is for code after which nothing is known.
func (st *state) forget() { *st = state{at: st.at} }

func (st *state) load(addr value) value {
	for _, c := range st.cells {
		if c.base == addr.of && c.off == addr.n {
			return c.v
		}
	}
	return value{}
}

// store notes that size bytes at addr are overwritten by v.
func (st *state) store(addr value, size int64, v value) {
	if !addr.isAddr() {
		return // the compiler knows that this is not where it saved registers
	}
	st.drop(addr.of, addr.n-7, addr.n+size)
	if size == 8 && v.of != nowhere && len(st.cells) < maxCells {
		st.cells = append(st.cells, cell{addr.of, addr.n, v})
	}
}

// drop forgets the cells of a base that begin at from or above, but below to.
func (st *state) drop(base origin, from, to int64) {
	kept := st.cells[:0]
	for _, c := range st.cells {
		if c.base != base || c.off < from || c.off >= to {
			kept = append(kept, c)
		}
	}
	st.cells = kept
}
