package emulate

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/ksleuth/ksleuth/x86"
)

// noise is a target that has memory everywhere, all of it different.
type noise struct {
	code []byte
	addr uint64
}

func (n noise) ReadMem(b []byte, addr uint64) error {
	for i := range b {
		a := addr + uint64(i)
		b[i] = byte(mix(a&^7, 0) >> (8 * (a & 7)))
		if a-n.addr < uint64(len(n.code)) {
			b[i] = n.code[a-n.addr]
		}
	}
	return nil
}

// A trial is one instruction executed once.
type trial struct {
	before, after Regs
	mem           *Memory
	entry         entry
	ok            bool
}

// A subject is an instruction whose effects are tried.
type subject struct {
	in   *x86.Inst
	eff  x86.Effects
	base *Memory
}

// try executes the instruction once.
func (s *subject) try(regs Regs, poke uint64) trial {
	m := New(s.base.Fork(), Options{History: 1})
	if poke != 0 {
		var b [1]byte
		m.Mem.ReadMem(b[:], poke)
		b[0] ^= 0xff
		m.Mem.WriteMem(b[:], poke)
	}
	m.Regs = regs
	t := trial{before: regs, mem: m.Mem}
	in, stop := m.decode(regs.RIP)
	if stop != nil {
		return t
	}
	u := m.translate(in)
	m.cur = &u
	m.RIP = u.next
	if !u.exec(m, &u) {
		return t
	}
	m.hist.add(m, &u)
	c := m.hist.at(1)
	t.ok = c.prev(&t.entry)
	t.after = m.Regs
	return t
}

// randomRegs returns registers with addresses far apart.
func randomRegs(r *rand.Rand) Regs {
	var g Regs
	for i := range g.GP {
		g.GP[i] = r.Uint64() & 0x00007fff_fffffff0
		if r.IntN(3) == 0 {
			g.GP[i] = uint64(r.IntN(1 << (8 * r.IntN(4))))
		}
		g.X[i] = [2]uint64{r.Uint64(), r.Uint64()}
	}
	g.GP[RSP] = 0x6000_0000_0000 + r.Uint64()&0xfff_fff0
	g.GP[RCX] &= 0xff07
	g.Flags = fixedFlags | r.Uint64()&(statusFlags|DF|AC|IF)
	g.RIP = codeAt
	g.GSBase, g.FSBase = 0x3000_0000_0000, 0x3100_0000_0000
	return g
}

// outByte says which bytes an output's byte i depends on.
type outByte struct {
	regs x86.RegSet
	mem  [2]uint64
}

func (s *subject) needs(t *trial, o *x86.Output, i int) outByte {
	var d outByte
	for in := range s.eff.In[:s.eff.NIn] {
		p := &s.eff.In[in]
		size := 0
		if p.Kind == x86.PlaceMem {
			_, size = t.entry.access(int(p.N))
		}
		m := s.eff.Needs(o, 1<<i, in, size)
		if m == 0 {
			continue
		}
		switch p.Kind {
		case x86.PlaceGP:
			d.regs.GP[p.N] |= uint8(m << p.Off)
		case x86.PlaceX:
			d.regs.X[p.N] |= uint16(m << p.Off)
		case x86.PlaceFlags:
			d.regs.Flags |= p.Flags
		case x86.PlaceMem:
			d.mem[p.N] |= m << p.Off
			if s.eff.Mem[p.N].Repeat {
				d.mem[p.N] = ^uint64(0)
			}
		}
	}
	return d
}

// value returns the bytes of an output after a trial; of flags one byte each.
func value(t *trial, o *x86.Output) []byte {
	var b [64]byte
	switch o.Kind {
	case x86.PlaceGP:
		binary.LittleEndian.PutUint64(b[:], t.after.GP[o.N])
	case x86.PlaceX:
		binary.LittleEndian.PutUint64(b[:], t.after.X[o.N][0])
		binary.LittleEndian.PutUint64(b[8:], t.after.X[o.N][1])
	case x86.PlaceFlags:
		binary.LittleEndian.PutUint64(b[:], t.after.Flags&uint64(o.Flags))
		return b[:8]
	case x86.PlaceMem:
		addr, n := t.entry.access(int(o.N))
		v := make([]byte, n)
		t.mem.ReadMem(v, addr)
		return v
	case x86.PlaceIP:
		binary.LittleEndian.PutUint64(b[:], t.after.RIP)
		return b[:8]
	}
	return b[o.Off : o.Off+o.Size]
}

// outside returns what changed that is in no output.
func (s *subject) outside(t *trial, poke uint64) string {
	w := s.eff.Writes()
	var bad []string
	for r := range 16 {
		for i := range 8 {
			if (t.before.GP[r]^t.after.GP[r])>>(8*i)&0xff != 0 && w.GP[r]>>i&1 == 0 {
				bad = append(bad, fmt.Sprintf("%s:%d", gpNames[r], i))
			}
		}
		for i := range 16 {
			if (t.before.X[r][i/8]^t.after.X[r][i/8])>>(8*(i%8))&0xff != 0 && w.X[r]>>i&1 == 0 {
				bad = append(bad, fmt.Sprintf("xmm%d:%d", r, i))
			}
		}
	}
	if f := (t.before.Flags ^ t.after.Flags) &^ uint64(w.Flags); f != 0 {
		bad = append(bad, fmt.Sprintf("flags %#x", f))
	}
	for _, c := range t.mem.Changes() {
		for i := range c.New {
			a := c.Addr + uint64(i)
			in := a == poke && poke != 0
			t.entry.writes(func(addr uint64, n int) { in = in || a-addr < uint64(n) })
			if !in {
				bad = append(bad, fmt.Sprintf("[%x]", a))
			}
		}
	}
	return strings.Join(bad, " ")
}

// A mutation is a change before the instruction: of one byte or flag that it
// reads, or of all that it does not.
type mutation struct {
	name string
	regs Regs
	poke uint64
	in   func(d *outByte) bool // whether an output byte may depend on it
	read bool                  // it is among what is read
}

// mutations returns the changes to try before t: not of what makes an address.
func (s *subject) mutations(t *trial) []mutation {
	var out []mutation
	reads := s.eff.Reads()
	rest := mutation{name: "all else", regs: t.before, in: func(d *outByte) bool { return false }}
	for r := range 16 {
		for i := range 8 {
			switch {
			case s.eff.Address.GP[r] != 0:
			case reads.GP[r]>>i&1 == 0:
				rest.regs.GP[r] ^= 0xff << (8 * i)
			default:
				g := t.before
				g.GP[r] ^= 0xff << (8 * i)
				out = append(out, mutation{
					name: fmt.Sprintf("%s:%d", gpNames[r], i), regs: g, read: true,
					in: func(d *outByte) bool { return d.regs.GP[r]>>i&1 != 0 },
				})
			}
		}
		for i := range 16 {
			if reads.X[r]>>i&1 == 0 {
				rest.regs.X[r][i/8] ^= 0xff << (8 * (i % 8))
				continue
			}
			g := t.before
			g.X[r][i/8] ^= 0xff << (8 * (i % 8))
			out = append(out, mutation{
				name: fmt.Sprintf("xmm%d:%d", r, i), regs: g, read: true,
				in: func(d *outByte) bool { return d.regs.X[r]>>i&1 != 0 },
			})
		}
	}
	for _, f := range []uint64{CF, PF, AF, ZF, SF, OF, DF, AC, IF} {
		switch {
		case s.eff.Address.Flags&uint32(f) != 0:
		case reads.Flags&uint32(f) == 0:
			rest.regs.Flags ^= f
		default:
			g := t.before
			g.Flags ^= f
			out = append(out, mutation{
				name: fmt.Sprintf("flag %#x", f), regs: g, read: true,
				in: func(d *outByte) bool { return d.regs.Flags&uint32(f) != 0 },
			})
		}
	}
	out = append(out, rest)
	for k, m := range s.eff.Mem[:s.eff.NMem] {
		if m.Access&x86.Read == 0 {
			continue
		}
		addr, n := t.entry.access(k)
		for i := range n {
			out = append(out, mutation{
				name: fmt.Sprintf("mem%d:%d", k, i), regs: t.before, poke: addr + uint64(i),
				in:   func(d *outByte) bool { return d.mem[k]>>min(i, 63)&1 != 0 },
				read: true,
			})
		}
	}
	return out
}

// check tries mutations and returns what contradicts the effects.
func (s *subject) check(r *rand.Rand) string {
	regs := randomRegs(r)
	if s.eff.NMem > 0 && s.eff.Mem[0].Repeat {
		regs.GP[RCX] = uint64(r.IntN(5))
	}
	t := s.try(regs, 0)
	if !t.ok {
		return ""
	}
	if bad := s.outside(&t, 0); bad != "" {
		return "writes " + bad
	}
	for _, m := range s.mutations(&t) {
		u := s.try(m.regs, m.poke)
		if !u.ok {
			if !m.read {
				return "fails by " + m.name
			}
			continue
		}
		if bad := s.outside(&u, m.poke); bad != "" {
			return "writes " + bad
		}
		if bad := s.influenced(&t, &u, &m); bad != "" {
			return bad
		}
	}
	return ""
}

// influenced returns an output that a mutation changed though it should not.
func (s *subject) influenced(t, u *trial, m *mutation) string {
	for k := range s.eff.Out[:s.eff.NOut] {
		o := &s.eff.Out[k]
		if o.Class == x86.Undefined || o.Class == x86.External {
			continue
		}
		a, b := value(t, o), value(u, o)
		for i := range a {
			at := i
			switch {
			case o.Kind == x86.PlaceFlags || o.Kind == x86.PlaceIP:
				at = 0
			case o.Kind == x86.PlaceMem && s.eff.Mem[o.N].Repeat:
				at = i % int(o.Size)
			}
			if i < len(b) && a[i] == b[i] {
				continue
			}
			if d := s.needs(t, o, min(at, 63)); !m.in(&d) {
				return fmt.Sprintf("%s changes byte %d of output %+v", m.name, i, *o)
			}
			if in, from, ok := s.eff.CopyOf(o, at); ok && at == i && i < len(b) && !s.copied(t, in, from, a[i]) {
				return fmt.Sprintf("byte %d of %+v is no copy of byte %d of input %d", i, *o, from, in)
			}
		}
	}
	return ""
}

// copied says whether byte i of an input was v.
func (s *subject) copied(t *trial, in, i int, v byte) bool {
	p := &s.eff.In[in]
	switch p.Kind {
	case x86.PlaceGP:
		return byte(t.before.GP[p.N]>>(8*(int(p.Off)+i))) == v
	case x86.PlaceX:
		k := int(p.Off) + i
		return byte(t.before.X[p.N][k/8]>>(8*(k%8))) == v
	case x86.PlaceMem:
		var b [1]byte
		addr, _ := t.entry.access(int(p.N))
		s.base.Fork().ReadMem(b[:], addr+uint64(p.Off)+uint64(i))
		return b[0] == v || s.eff.Mem[p.N].Repeat
	}
	return true
}

// TestEffects judges x86.Effects by the machine: of every form of instruction
// in the text of the kernels, what is not among the places it writes must stay,
// and changing a byte must change no output that does not depend on it.
func TestEffects(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	tried, unknown := 0, map[x86.Op]bool{}
	bad := map[x86.Op]int{}
	for _, f := range kernelForms(t) {
		for i := range f.Insts[:min(2, len(f.Insts))] {
			in := &f.Insts[i]
			if _, ok := ops[in.Op]; !ok {
				continue
			}
			moved := x86.Inst{}
			if moved.Decode(in.Bytes(), codeAt) != nil {
				t.Fatal(in)
			}
			s := &subject{in: &moved, eff: moved.Effects(), base: NewMemory(noise{in.Bytes(), codeAt})}
			if !s.eff.Known {
				unknown[in.Op] = true
			}
			tried++
			for range 2 {
				if why := s.check(r); why != "" {
					bad[in.Op]++
					if bad[in.Op] < 3 {
						t.Errorf("%s (% x): %s", moved.String(), moved.Bytes(), why)
					}
					break
				}
			}
		}
	}
	t.Logf("%d instructions tried", tried)
	if len(unknown) > 0 {
		t.Errorf("executed, but their effects are not known: %v", unknown)
	}
}
