// Package cfg builds the control flow graph of one function's machine code and
// answers the questions of the field about it: which blocks dominate which,
// which branches control an instruction, and where the loops are.
//
// The code is foreign bytes: whatever they are, building ends, in time that
// grows with their number alone, and without recursion.
package cfg

import (
	"errors"
	"sync"

	"github.com/ksleuth/ksleuth/x86"
)

// A Graph is the control flow graph of one function. It does not change once
// built, and may be used by several goroutines.
type Graph struct {
	Entry  uint64  // address of the function
	Blocks []Block // by address; those that control flow reaches from Entry

	parts   []Part  // by address
	base    []int   // where each part's bytes begin in blockOf
	blockOf []int32 // by byte of code: index of its block, -1 for none
	entry   int     // block of Entry

	dom, postdom func() *tree
}

// A Block is a run of instructions entered only at its start and left only at
// its end. (An instruction with a [Options.Fixup] ends a block, too.)
type Block struct {
	Start, End uint64 // End excluded
	Last       uint64 // address of its last instruction
	// Succs are the blocks control can go to from here: the one behind it
	// first, then the targets of its jump. Preds are those it can come from,
	// ascending. They are indices into Blocks, each at most once.
	Succs, Preds []int
	// Exit says that control can leave the function from here: by ret, by a
	// jump out of it, or over its end.
	Exit bool
	// NoReturn says that nothing follows the last instruction: a trap, bytes
	// that are no instruction, or a call that does not return (one that is the
	// function's very last instruction included).
	NoReturn bool
	// Unknown says that it ends in an indirect jump whose targets are not
	// known. Such a jump counts as a way out.
	Unknown bool
}

// A Part is a piece of a function's code that lies apart, as the compiler does
// with what is rarely run (foo.cold).
type Part struct {
	Addr uint64
	Code []byte
}

func (p Part) end() uint64 { return p.Addr + uint64(len(p.Code)) }

// Options say what the code alone does not tell. All fields are optional.
type Options struct {
	// NoReturn says of a call's (or jump's) target whether it never returns.
	NoReturn func(target uint64) bool
	// Targets gives the targets of an indirect jump (a jump table), nil if
	// they are not known.
	Targets func(in *x86.Inst) []uint64
	// Warn says of a ud2 or ud1 whether the kernel goes on behind it: WARN is
	// one, too (its struct bug_entry has BUGFLAG_WARNING). Without it every
	// trap is an end.
	Warn func(addr uint64) bool
	// Fixup gives the place where the kernel goes on if the instruction at
	// addr faults (its exception table).
	Fixup func(addr uint64) (to uint64, ok bool)
	// Parts are the function's other pieces. Jumps between them stay in the
	// function.
	Parts []Part
	// Limit is how many bytes of code are accepted, 0 for [DefaultLimit].
	Limit int
}

// DefaultLimit is more than any function of a kernel has. Only a BPF program of
// hundreds of thousands of instructions needs more.
const DefaultLimit = 1 << 20

// ErrLimit is in the error of [Build] for more code than [Options.Limit].
var ErrLimit = errors.New("too much code for one function")

// BlockAt returns the index of the block with the instruction that addr lies
// in. Where instructions overlap, the one that begins at addr counts.
func (g *Graph) BlockAt(addr uint64) (int, bool) {
	i, ok := g.pos(addr)
	if !ok || g.blockOf[i] < 0 {
		return 0, false
	}
	return int(g.blockOf[i]), true
}

// pos returns the place of an address in blockOf.
func (g *Graph) pos(addr uint64) (int, bool) {
	for i, p := range g.parts { // two or three
		if addr >= p.Addr && addr < p.end() {
			return g.base[i] + int(addr-p.Addr), true
		}
	}
	return 0, false
}

// Code returns the code of a block.
func (g *Graph) Code(block int) []byte {
	b := &g.Blocks[block]
	for _, p := range g.parts {
		if b.Start >= p.Addr && b.Start < p.end() {
			return p.Code[b.Start-p.Addr : min(b.End, p.end())-p.Addr]
		}
	}
	return nil
}

// Dominators returns of each block its immediate dominator: the last block that
// every way to it from the entry goes through. That of the entry is -1.
func (g *Graph) Dominators() []int { return append([]int(nil), g.dom().idom...) }

// Dominates says whether every way from the entry to block b goes through a.
func (g *Graph) Dominates(a, b int) bool { return g.dom().over(a, b) }

// PostDominators returns of each block its immediate post-dominator: the next
// block that every way from it out of the function goes through, -1 where there
// is none.
//
// Ways that end without leaving the function (see [Block.NoReturn], and endless
// loops) do not count for a block that has a way out. The blocks without one
// have post-dominators among themselves: there the ends count as ways out, and
// a loop that cannot be left is taken to be left at its latches.
func (g *Graph) PostDominators() []int {
	out := append([]int(nil), g.postdom().idom[:len(g.Blocks)]...)
	for i, p := range out {
		if p == len(g.Blocks) {
			out[i] = -1
		}
	}
	return out
}

// PostDominates says whether every way out of the function from block b goes
// through a, in the sense of [Graph.PostDominators].
func (g *Graph) PostDominates(a, b int) bool { return g.postdom().over(a, b) }

// lazily sets up what is computed when first asked for.
func (g *Graph) lazily() {
	g.dom = sync.OnceValue(func() *tree { return dominators(g.entry, g.succs()) })
	g.postdom = sync.OnceValue(g.postDominators)
}

func (g *Graph) succs() [][]int {
	out := make([][]int, len(g.Blocks))
	for i := range g.Blocks {
		out[i] = g.Blocks[i].Succs
	}
	return out
}
