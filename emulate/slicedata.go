package emulate

import (
	"cmp"
	"math/bits"
	"slices"

	"github.com/ksleuth/ksleuth/x86"
)

func sortLoads(l []Load) {
	slices.SortFunc(l, func(a, b Load) int {
		return cmp.Or(cmp.Compare(a.Step, b.Step), cmp.Compare(a.Addr, b.Addr))
	})
}

// writesWanted says at little cost whether an instruction may write what is wanted.
func (w *wants) writesWanted(i *instInfo) bool {
	return i.gp&w.gpAny != 0 || i.x&w.xAny != 0 || i.flags&w.flagMask != 0 || i.write && len(w.mem) > 0
}

// data follows values through the entry: the wanted places that it wrote give
// way to those that it made them of.
func (s *slicer) data(e *entry) {
	if !s.w.writesWanted(e.info) {
		return
	}
	any := false
	for i := range e.info.Out[:e.info.NOut] {
		s.hits[i] = s.taken(e, &e.info.Out[i], s.hits[i][:0])
		any = any || len(s.hits[i]) > 0
	}
	if e.info.stub != nil {
		s.stub(e)
		return
	}
	if !any {
		return
	}
	// All that was written is taken before what was read is wanted: xchg.
	for i := range e.info.Out[:e.info.NOut] {
		if len(s.hits[i]) > 0 {
			s.made(e, &e.info.Out[i], s.hits[i])
		}
	}
	if s.o.Address {
		s.addresses(e, s.hits[:e.info.NOut])
	}
}

// taken takes what an output gives.
func (s *slicer) taken(e *entry, o *x86.Output, out []hit) []hit {
	switch o.Kind {
	case x86.PlaceGP:
		return s.w.takeGP(&o.Place, out)
	case x86.PlaceX:
		return s.w.takeX(&o.Place, out)
	case x86.PlaceFlags:
		return s.w.takeFlags(o.Flags, out)
	case x86.PlaceMem:
		addr, n := e.access(int(o.N))
		return s.w.takeMem(addr, n, out)
	}
	return out
}

// made includes the entry for one output, and wants what that was made of.
func (s *slicer) made(e *entry, o *x86.Output, hits []hit) {
	repeat := o.Kind == x86.PlaceMem && e.info.Mem[o.N].Repeat
	role := RoleCopy
	if !repeat {
		role = roleOf(&e.info.Effects, o, hits)
	}
	s.include(e, role, 0)
	if role == RoleCompute {
		s.steps[s.now].Role = role
	}
	if s.through != nil {
		if hits = s.pass(e, o, hits); len(hits) == 0 {
			return
		}
	}
	var bytes uint64
	var why Why
	for _, h := range hits {
		s.used(h.who, h.why)
		bytes |= h.bytes
		why |= h.why
	}
	if repeat {
		s.repeated(e, o, hits)
		return
	}
	for in := range e.info.In[:e.info.NIn] {
		s.input(e, o, in, bytes)
	}
}

// roleOf says what an output is to its wanted bytes.
func roleOf(e *x86.Effects, o *x86.Output, hits []hit) Role {
	copies, consts := true, true
	if o.Class == x86.External {
		return RoleExternal
	}
	for _, h := range hits {
		for b := h.bytes; b != 0; b &= b - 1 {
			i := bits.TrailingZeros64(b)
			if !o.IsConst(i) {
				consts = false
				_, _, ok := e.CopyOf(o, i)
				copies = copies && (ok || o.Class == x86.Copy)
			}
		}
	}
	switch {
	case consts:
		return RoleConst
	case copies && o.Kind != x86.PlaceFlags:
		return RoleCopy
	}
	return RoleCompute
}

// input wants what some bytes of an output need of an input.
func (s *slicer) input(e *entry, o *x86.Output, in int, bytes uint64) {
	if (o.From|o.Cond)>>in&1 == 0 || e.unmoved(in) {
		return
	}
	p := &e.info.In[in]
	size := 0
	var addr uint64
	if p.Kind == x86.PlaceMem {
		addr, size = e.access(int(p.N))
		if e.info.Mem[p.N].Repeat { // of cmps and scas: all of it decides
			s.wantMem(addr, size, node{who: s.now, why: ForValue})
			return
		}
	}
	n := node{who: s.now, why: ForValue}
	if o.Cond>>in&1 != 0 || o.Kind == x86.PlaceIP {
		n.why = ForCondition
	}
	s.wantPlace(p, addr, e.info.Needs(o, bytes, in, size), n)
}

// wantPlace wants bytes of a place.
func (s *slicer) wantPlace(p *x86.Place, addr uint64, bytes uint64, n node) {
	if bytes == 0 {
		return
	}
	switch p.Kind {
	case x86.PlaceGP:
		if p.N == RSP && !s.o.StackPointer {
			return
		}
		n.mask = uint32(bytes) << p.Off
		s.w.addGP(p.N, n)
	case x86.PlaceX:
		n.mask = uint32(bytes) << p.Off
		s.w.addX(p.N, n)
	case x86.PlaceFlags:
		n.mask = p.Flags
		s.w.addFlags(n)
	case x86.PlaceMem:
		for bytes != 0 {
			a := addr + uint64(p.Off) + uint64(bits.TrailingZeros64(bytes))
			k := bits.TrailingZeros64(^(bytes >> bits.TrailingZeros64(bytes)))
			s.wantMem(a, k, n)
			lo := bits.TrailingZeros64(bytes)
			bytes &^= lowMask(lo + k)
		}
	}
}

func (s *slicer) wantMem(addr uint64, size int, n node) {
	for word, m := range words(addr, size) {
		n.mask = uint32(m)
		s.w.addWord(word, n)
	}
}

// repeated wants the sources of what rep movs or rep stos wrote.
func (s *slicer) repeated(e *entry, o *x86.Output, hits []hit) {
	to, _ := e.access(int(o.N))
	for _, h := range hits {
		for m := h.mask; m != 0; m &= m - 1 {
			off := h.word + uint64(bits.TrailingZeros32(m)) - to
			for in := range e.info.In[:e.info.NIn] {
				if o.From>>in&1 != 0 {
					s.repeatedByte(e, in, to, off, node{who: s.now, why: ForValue})
				}
			}
		}
	}
}

// repeatedByte wants the source of the byte off behind the start of what was written.
func (s *slicer) repeatedByte(e *entry, in int, to, off uint64, n node) {
	p := &e.info.In[in]
	size := uint64(e.info.inst.Args[0].Size)
	if p.Kind != x86.PlaceMem {
		n.mask = 1 << (off % size)
		s.w.addGP(p.N, n)
		return
	}
	from, total := e.access(int(p.N))
	if d := to - from; d != 0 && d < uint64(total) { // what is copied was copied before
		off %= d
	}
	s.wantMem(from+off, 1, n)
}

// addresses wants the registers that the addresses were made of, where memory
// gave or took what is wanted.
func (s *slicer) addresses(e *entry, hits [][]hit) {
	memory := false
	for i, h := range hits {
		if len(h) == 0 {
			continue
		}
		o := &e.info.Out[i]
		memory = memory || o.Kind == x86.PlaceMem
		for in := range e.info.In[:e.info.NIn] {
			memory = memory || (o.From|o.Cond)>>in&1 != 0 && !e.unmoved(in) && e.info.In[in].Kind == x86.PlaceMem
		}
	}
	if !memory {
		return
	}
	s.wantAddress(e)
}

func (s *slicer) wantAddress(e *entry) {
	n := node{who: s.now, why: ForAddress}
	for r, m := range e.info.Address.GP {
		if n.mask = uint32(m); m != 0 && (r != RSP || s.o.StackPointer) {
			s.w.addGP(uint8(r), n)
		}
	}
	if n.mask = e.info.Address.Flags; n.mask != 0 {
		s.w.addFlags(n)
	}
}

// stub follows values through a stub: what it writes depends on its arguments
// and on all memory that it read.
func (s *slicer) stub(e *entry) {
	all := s.hits[0]
	for _, r := range e.extra {
		if r.id&recWrite != 0 {
			all = s.w.takeMem(r.addr, int(r.n), all)
		}
	}
	s.hits[0] = all
	if len(all) == 0 {
		return
	}
	s.include(e, RoleStub, 0)
	for _, h := range all {
		s.used(h.who, h.why)
	}
	n := node{who: s.now, why: ForValue}
	for i := range e.info.In[:e.info.NIn] {
		s.wantPlace(&e.info.In[i], 0, 0xff, n)
	}
	for _, r := range e.extra {
		if r.id&recWrite == 0 {
			s.wantMem(r.addr, int(r.n), n)
		}
	}
}
