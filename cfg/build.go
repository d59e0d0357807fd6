package cfg

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/ksleuth/ksleuth/x86"
)

// Build builds the graph of the function whose code lies at entry and begins
// there. Bytes that control flow does not reach are in no block.
//
// Jumps out of the code and its [Options.Parts] leave the function. Calls do
// not end blocks, nor do hlt, int n and syscall, which go on behind.
func Build(code []byte, entry uint64, o Options) (*Graph, error) {
	b, err := newBuilder(code, entry, o)
	if err != nil {
		return nil, fmt.Errorf("control flow of the function at %#x: %w", entry, err)
	}
	b.follow(entry)
	b.cut()
	b.connect()
	g := b.g
	g.entry, _ = g.BlockAt(entry)
	g.lazily()
	return g, nil
}

// An end is what follows an instruction that ends a block.
type end struct {
	targets []uint64 // in the function or not
	behind  bool     // control can go on behind it
	Block            // Exit, NoReturn and Unknown
}

// A builder knows, by byte of code: whether an instruction begins there, and
// of what length; whether a block does; what follows the instruction there.
type builder struct {
	g     *Graph
	o     Options
	size  []uint8
	start []bool
	endOf []int32 // 1 + index into ends; 0 for none
	ends  []end
	from  []int32 // by block: 1 + the last block found to go to it
}

func newBuilder(code []byte, entry uint64, o Options) (*builder, error) {
	if len(code) == 0 {
		return nil, errors.New("no code")
	}
	g := &Graph{Entry: entry, parts: append([]Part{{entry, code}}, o.Parts...)}
	g.parts = slices.DeleteFunc(g.parts, func(p Part) bool { return len(p.Code) == 0 })
	slices.SortStableFunc(g.parts, func(a, b Part) int { return cmp.Compare(a.Addr, b.Addr) })
	n := 0
	for i, p := range g.parts {
		if p.end() < p.Addr {
			return nil, fmt.Errorf("the part at %#x goes over the end of the address space", p.Addr)
		}
		if i > 0 && g.parts[i-1].end() > p.Addr {
			return nil, fmt.Errorf("its parts at %#x and %#x overlap", g.parts[i-1].Addr, p.Addr)
		}
		g.base = append(g.base, n)
		n += len(p.Code)
	}
	if limit := cmp.Or(max(o.Limit, 0), DefaultLimit); n > limit {
		return nil, fmt.Errorf("%w: %d bytes, more than %d", ErrLimit, n, limit)
	}
	return &builder{g: g, o: o, size: make([]uint8, n), start: make([]bool, n), endOf: make([]int32, n)}, nil
}

// decode decodes the instruction at an address of the function.
func (b *builder) decode(in *x86.Inst, addr uint64) {
	for _, p := range b.g.parts {
		if addr >= p.Addr && addr < p.end() {
			in.Decode(p.Code[addr-p.Addr:], addr) // a failure leaves a BAD one
			return
		}
	}
}

// follow decodes what control flow reaches, each instruction once, and marks
// where blocks begin: at targets, behind ends, with parts, and where a way falls into
// instructions that another one has reached already.
func (b *builder) follow(entry uint64) {
	work := []uint64{entry}
	var in x86.Inst
	for len(work) > 0 {
		addr := work[len(work)-1]
		work = work[:len(work)-1]
		for first := true; ; first = false {
			i, ok := b.g.pos(addr)
			if !ok {
				break
			}
			seen := b.size[i] > 0
			b.start[i] = b.start[i] || first || seen || slices.Contains(b.g.base, i)
			if seen {
				break
			}
			b.decode(&in, addr)
			b.size[i] = uint8(in.Len)
			next := addr + uint64(in.Len)
			e, ends := b.classify(&in)
			_, inside := b.g.pos(next)
			if !ends && inside {
				addr = next
				continue
			}
			if !ends { // over the end of the code
				e = end{}
				if f := in.Flow(); f == x86.FlowCall || f == x86.FlowIndirectCall {
					e.NoReturn = true
				} else {
					e.Exit = true
				}
			}
			if e.behind {
				work = append(work, next)
			}
			work = append(work, e.targets...)
			b.ends = append(b.ends, e)
			b.endOf[i] = int32(len(b.ends))
			break
		}
	}
}

// classify says what follows an instruction, if it ends its block.
func (b *builder) classify(in *x86.Inst) (e end, ends bool) {
	e, ends = b.flow(in)
	if b.o.Fixup == nil {
		return e, ends
	}
	if to, ok := b.o.Fixup(in.Addr); ok {
		if !ends {
			e = end{behind: true}
		}
		e.targets = append(e.targets, to)
		ends = true
	}
	return e, ends
}

func (b *builder) flow(in *x86.Inst) (e end, ends bool) {
	target, _ := in.Target()
	noReturn := func() bool { return b.o.NoReturn != nil && b.o.NoReturn(target) }
	switch in.Flow() {
	case x86.FlowCall:
		if noReturn() {
			return end{Block: Block{NoReturn: true}}, true
		}
		return end{}, false
	case x86.FlowJump:
		if _, inside := b.g.pos(target); !inside && noReturn() {
			return end{Block: Block{NoReturn: true}}, true
		}
		return end{targets: []uint64{target}}, true
	case x86.FlowCondJump:
		if _, inside := b.g.pos(target); !inside && noReturn() {
			return end{behind: true}, true
		}
		return end{targets: []uint64{target}, behind: true}, true
	case x86.FlowIndirectJump:
		if b.o.Targets != nil {
			if t := b.o.Targets(in); len(t) > 0 {
				return end{targets: t}, true
			}
		}
		return end{Block: Block{Unknown: true}}, true
	case x86.FlowRet:
		return end{Block: Block{Exit: true}}, true
	case x86.FlowTrap:
		return b.trap(in)
	}
	return end{}, false
}

func (b *builder) trap(in *x86.Inst) (e end, ends bool) {
	switch in.Op {
	case x86.INT, x86.INT1, x86.SYSCALL, x86.SYSENTER:
		return end{}, false
	}
	if b.o.Warn != nil && b.o.Warn(in.Addr) {
		return end{}, false
	}
	return end{Block: Block{NoReturn: true}}, true
}

// cut makes the blocks.
func (b *builder) cut() {
	g := b.g
	g.blockOf = make([]int32, len(b.size))
	for i := range g.blockOf {
		g.blockOf[i] = -1
	}
	for n, p := range g.parts {
		for i := range p.Code {
			at := g.base[n] + i
			if !b.start[at] {
				continue
			}
			block := Block{Start: p.Addr + uint64(i)}
			for addr := block.Start; ; {
				g.blockOf[at] = int32(len(g.Blocks))
				block.Last = addr
				addr += uint64(b.size[at])
				block.End = addr
				ended := b.endOf[at] > 0
				var ok bool
				if at, ok = g.pos(addr); ended || !ok || b.start[at] {
					break
				}
			}
			g.Blocks = append(g.Blocks, block)
		}
	}
	b.fill()
}

// fill notes the block for the bytes of instructions behind their first.
func (b *builder) fill() {
	for i, n := range b.size {
		for j := i + 1; j < min(i+int(n), len(b.size)); j++ {
			if b.g.blockOf[j] < 0 {
				b.g.blockOf[j] = b.g.blockOf[i]
			}
		}
	}
}

// connect finds the successors and predecessors of the blocks.
func (b *builder) connect() {
	g := b.g
	b.from = make([]int32, len(g.Blocks))
	for i := range g.Blocks {
		block := &g.Blocks[i]
		at, _ := g.pos(block.Last)
		if b.endOf[at] == 0 {
			b.edge(i, block.End)
			continue
		}
		e := &b.ends[b.endOf[at]-1]
		block.Exit, block.NoReturn, block.Unknown = e.Exit, e.NoReturn, e.Unknown
		if e.behind {
			b.edge(i, block.End)
		}
		for _, t := range e.targets {
			b.edge(i, t)
		}
	}
	for i := range g.Blocks {
		for _, s := range g.Blocks[i].Succs {
			g.Blocks[s].Preds = append(g.Blocks[s].Preds, i)
		}
	}
}

func (b *builder) edge(from int, to uint64) {
	block := &b.g.Blocks[from]
	i, ok := b.g.pos(to)
	if !ok {
		block.Exit = true
		return
	}
	s := b.g.blockOf[i]
	if b.from[s] == int32(from)+1 { // as most of the thousand targets of a jump table
		return
	}
	b.from[s] = int32(from) + 1
	block.Succs = append(block.Succs, int(s))
}
