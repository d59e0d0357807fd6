package emulate

import (
	"fmt"
	"math/bits"
	"slices"

	"github.com/ksleuth/ksleuth/x86"
)

// An Origin says where bytes came from: copies are looked through, down to
// single bytes.
type Origin struct {
	Of Locs // the bytes it is about, of those asked for
	// Made is what produced them, and Role how; no Made where nothing remembered did:
	// then Initial or Loads has the place that they are copies of.
	Made *Event
	Role Role
	// Copies are the instructions that moved the bytes since, newest first.
	Copies []Event
	// Loads are reads of memory that was not written in the run, of which the bytes are
	// made; Index is not set. Initial are registers and flags that were set from outside,
	// and places asked for that nothing wrote.
	Loads   []Load
	Initial Locs
	// Complete is as in [Slice].
	Complete bool
}

// Origins tells, byte by byte, what produced places and from which loads.
// Bytes with the same answer come together.
func (h *History) Origins(before uint64, want Locs) []Origin {
	s := &slicer{h: h, o: SliceOptions{Before: before, Limit: 1e6}, w: newWants(), out: &Slice{}}
	p := &passage{made: map[int32]int32{}, roles: map[int32]Role{}, direct: map[int32]int32{}, initial: map[int32]*Locs{}, loads: map[int32][]Load{}}
	s.through = p
	s.askBytes(&want)
	p.chains = make([][]int32, len(p.asked))
	s.walk()
	return s.origins()
}

// A passage looks through copies. Askers below 0 are bytes of the question.
type passage struct {
	asked   []Locs
	chains  [][]int32         // of each byte asked for, the copies
	made    map[int32]int32   // of each byte asked for, the step that produced it
	direct  map[int32]int32   // or the step that loaded it
	roles   map[int32]Role    // of each byte asked for, what the step did
	initial map[int32]*Locs   // of each asker, registers from outside
	loads   map[int32][]Load  // of each asker, memory
	sources map[int32][]int32 // of each step, those that made what it used
}

// askBytes is ask with an asker for each byte.
func (s *slicer) askBytes(l *Locs) {
	p := s.through
	asker := func(of Locs, mask uint32) node {
		p.asked = append(p.asked, of)
		return node{who: int32(-len(p.asked)), mask: mask, why: ForValue}
	}
	for r := range 16 {
		for m := l.GP[r]; m != 0; m &= m - 1 {
			var of Locs
			of.GP[r] = m & -m
			s.w.addGP(uint8(r), asker(of, uint32(m&-m)))
		}
		for m := l.X[r]; m != 0; m &= m - 1 {
			var of Locs
			of.X[r] = m & -m
			s.w.addX(uint8(r), asker(of, uint32(m&-m)))
		}
	}
	for f := uint32(l.Flags); f != 0; f &= f - 1 {
		s.w.addFlags(asker(Locs{Flags: uint64(f & -f)}, f&-f))
	}
	for _, run := range l.Mem.Runs() {
		for i := range run.N {
			a := run.Addr + uint64(i)
			s.w.addWord(a&^7, asker(LocsMem(a, 1), 1<<(a&7)))
		}
	}
}

// pass hands those who want copies on to where the copies were made from, and
// returns the other hits.
func (s *slicer) pass(e *entry, o *x86.Output, hits []hit) []hit {
	rest := hits[:0]
	repeat := o.Kind == x86.PlaceMem && e.info.Mem[o.N].Repeat
	for _, h := range hits {
		n := h.node
		n.via = s.now + 1
		moved := false
		if repeat {
			to, _ := e.access(int(o.N))
			for m := h.mask; m != 0; m &= m - 1 {
				off := h.word + uint64(bits.TrailingZeros32(m)) - to
				s.repeatedByte(e, bits.TrailingZeros8(o.From), to, off, n)
			}
			moved, h.bytes = true, 0
		}
		for b := h.bytes; b != 0; b &= b - 1 {
			i := bits.TrailingZeros64(b)
			in, from, ok := e.info.CopyOf(o, i)
			if e.info.cmov && !o.IsConst(i) { // looked through by what it took
				in, from, ok = 0, i, true
				if e.unmoved(0) {
					in = 1
				}
			}
			if !ok {
				continue
			}
			p := &e.info.In[in]
			var addr uint64
			if p.Kind == x86.PlaceMem {
				addr, _ = e.access(int(p.N))
			}
			if p.Kind == x86.PlaceFlags || p.Kind == x86.PlaceGP && p.N == RSP {
				continue
			}
			s.wantPlace(p, addr, 1<<from, n)
			h.bytes &^= 1 << i
			moved = true
		}
		if moved && h.who < 0 {
			k := -1 - h.who
			s.through.chains[k] = append(s.through.chains[k], s.now)
		}
		if h.bytes != 0 {
			if h.who < 0 {
				s.through.roles[h.who] = roleOf(&e.info.Effects, o, []hit{h})
			}
			rest = append(rest, h)
		}
	}
	return rest
}

// origins reads the answers off after the walk.
func (s *slicer) origins() []Origin {
	p := s.through
	left := !s.w.empty()
	s.leftRegs()
	s.leftMem()
	p.sources = map[int32][]int32{}
	for _, e := range s.edges {
		if e.to < 0 {
			p.made[e.to] = e.from
		} else {
			p.sources[e.to] = append(p.sources[e.to], e.from)
		}
	}
	complete := !s.limited && !(left && s.h.Forgot())
	groups := map[string]int{}
	var out []Origin
	for k := range p.asked {
		who := int32(-1 - k)
		key := fmt.Sprint(p.key(who), p.chains[k])
		g, ok := groups[key]
		if !ok {
			g = len(out)
			groups[key] = g
			out = append(out, s.origin(who))
			out[g].Complete = complete
		} else if from := p.initial[who]; from != nil {
			out[g].Initial.add(from)
		}
		if ls := p.loads[who]; ok && len(ls) > 0 {
			out[g].Loads = append(out[g].Loads, ls...)
		}
		out[g].Of.add(&p.asked[k])
	}
	for i := range out {
		out[i].Loads = joinLoads(out[i].Loads)
	}
	return out
}

// key tells apart what bytes come from.
func (p *passage) key(who int32) string {
	if m, ok := p.made[who]; ok {
		return fmt.Sprint("made ", m, p.roles[who])
	}
	if d, ok := p.direct[who]; ok {
		return fmt.Sprint("loaded ", d)
	}
	if l := p.initial[who]; l != nil {
		for r := range 16 {
			if l.GP[r] != 0 {
				return gpNames[r]
			}
			if l.X[r] != 0 {
				return fmt.Sprint("x", r)
			}
		}
		if l.Flags != 0 {
			return "flags"
		}
		return "memory"
	}
	return ""
}

// origin returns the answer for one byte.
func (s *slicer) origin(who int32) Origin {
	p := s.through
	var o Origin
	for _, c := range p.chains[-1-who] {
		o.Copies = append(o.Copies, s.steps[c].Event)
	}
	from := []int32{who}
	if m, ok := p.made[who]; ok {
		ev := s.steps[m].Event
		if o.Made, o.Role = &ev, p.roles[who]; ev.Stub != nil {
			o.Role = RoleStub
		}
		if o.Role == RoleConst {
			return o
		}
		from[0] = m
	}
	seen := map[int32]bool{from[0]: true}
	for len(from) > 0 {
		at := from[len(from)-1]
		from = from[:len(from)-1]
		o.Loads = append(o.Loads, p.loads[at]...)
		if l := p.initial[at]; l != nil {
			o.Initial.add(l)
		}
		for _, next := range p.sources[at] {
			if !seen[next] {
				seen[next] = true
				from = append(from, next)
			}
		}
	}
	return o
}

// leftRegs notes the registers still wanted, by who wants them.
func (s *slicer) leftRegs() {
	all := Locs{Flags: ^uint64(0)}
	for r := range 16 {
		all.GP[r], all.X[r] = 0xff, 0xffff
	}
	s.w.takeRegs(&all, s.hits[0], s.initial)
}

// initialOf notes registers from outside for who wants them.
func (p *passage) initialOf(kind x86.PlaceKind, r int, hits []hit) {
	for _, h := range hits {
		l := p.initial[h.who]
		if l == nil {
			l = new(Locs)
			p.initial[h.who] = l
		}
		switch kind {
		case x86.PlaceGP:
			l.GP[r] |= uint8(h.mask)
		case x86.PlaceX:
			l.X[r] |= uint16(h.mask)
		default:
			l.Flags |= uint64(h.mask)
		}
	}
}

// leftMem notes the memory still wanted: the loads.
func (s *slicer) leftMem() {
	p := s.through
	for word, list := range s.w.mem {
		for i := list; i != 0; i = s.w.nodes[i].next {
			k := s.w.nodes[i]
			by := k.via - 1
			if by < 0 {
				by = k.who
			}
			if by < 0 { // asked for, and not written
				l := p.initial[k.who]
				if l == nil {
					l = new(Locs)
					p.initial[k.who] = l
				}
				l.add(&Locs{Mem: Bytes{word: uint8(k.mask)}})
				continue
			}
			if k.who < 0 {
				p.direct[k.who] = by
			}
			for _, r := range (Bytes{word: uint8(k.mask)}).Runs() {
				p.loads[k.who] = append(p.loads[k.who], Load{Step: s.steps[by].Step, Addr: r.Addr, N: r.N})
			}
		}
	}
}

// joinLoads sorts loads and joins those of one step that touch.
func joinLoads(l []Load) []Load {
	sortLoads(l)
	var out []Load
	for _, x := range l {
		if n := len(out); n > 0 && out[n-1].Step == x.Step && out[n-1].Addr+uint64(out[n-1].N) >= x.Addr {
			end := max(out[n-1].Addr+uint64(out[n-1].N), x.Addr+uint64(x.N))
			out[n-1].N = int(end - out[n-1].Addr)
			continue
		}
		out = append(out, x)
	}
	return slices.Clip(out)
}

// add adds the places of another set.
func (l *Locs) add(o *Locs) {
	for r := range 16 {
		l.GP[r] |= o.GP[r]
		l.X[r] |= o.X[r]
	}
	l.Flags |= o.Flags
	for w, m := range o.Mem {
		if l.Mem == nil {
			l.Mem = Bytes{}
		}
		l.Mem[w] |= m
	}
}
