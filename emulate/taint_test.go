package emulate

import (
	"context"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/ksleuth/ksleuth/kernel"
)

// tainted are functions of 6.1 that compute, of which parts of what they are
// given matter to parts of what they return. B is a buffer of noise, S a
// sentence, C a copy of the sentence.
var tainted = []struct {
	name string
	args []any
}{
	{"strlen", []any{'S'}}, {"strcmp", []any{'S', 'C'}}, {"strncmp", []any{'S', 'C', 9}}, {"strcasecmp", []any{'S', 'C'}},
	{"strrchr", []any{'S', int('o')}}, {"strspn", []any{'S', 'C'}}, {"strcspn", []any{'S', 'C'}}, {"strstr", []any{'S', 'C'}},
	{"memcmp", []any{'B', 'B', 40}}, {"memchr_inv", []any{'B', 3, 40}}, {"memweight", []any{'B', 50}},
	{"__sw_hweight64", []any{0x123456789abcdef}}, {"__sw_hweight32", []any{0x89abcdef}}, {"__bitmap_weight", []any{'B', 200}},
	{"_find_first_bit", []any{'B', 512}}, {"_find_next_bit", []any{'B', 512, 100}}, {"_find_last_bit", []any{'B', 512}},
	{"__bitmap_equal", []any{'B', 'B', 130}}, {"__bitmap_subset", []any{'B', 'B', 130}}, {"__bitmap_intersects", []any{'B', 'S', 130}},
	{"crc32_le", []any{1, 'B', 60}}, {"crc32_be", []any{1, 'B', 60}}, {"__crc32c_le", []any{1, 'B', 61}}, {"crc16", []any{1, 'B', 33}},
	{"crc_ccitt", []any{1, 'B', 33}}, {"siphash_1u64", []any{77, 'B'}}, {"__siphash_unaligned", []any{'B', 23, 'S'}}, {"hsiphash_1u32", []any{77, 'B'}},
	{"int_sqrt", []any{0x12345678}}, {"int_pow", []any{3, 11}}, {"gcd", []any{0x123450, 0x678900}}, {"lcm", []any{0x1234, 0x567}},
	{"csum_partial", []any{'B', 77, 5}}, {"ip_compute_csum", []any{'B', 40}}, {"hex_to_bin", []any{int('c')}}, {"xxh64", []any{'B', 77, 3}},
	{"xxh32", []any{'B', 77, 3}}, {"full_name_hash", []any{3, 'S', 20}}, {"hashlen_string", []any{3, 'S'}}, {"glob_match", []any{'S', 'C'}},
	{"mul_u64_u64_div_u64", []any{1 << 40, 1 << 41, 12345}}, {"simple_strtoull", []any{'D', 0, 10}}, {"uuid_is_valid", []any{'S'}},
	{"__sysfs_match_string", []any{'B', 0, 'S'}}, {"reciprocal_value", []any{12345}}, {"rol32", []any{1, 2}}, {"des_ekey", []any{'B', 'S'}},
	{"__list_add_valid", []any{'B', 'B', 'B'}}, {"jhash", []any{'B', 33, 1}}, {"murmur_hash", []any{'B', 3}}, {"parity8", []any{3}},
}

const (
	noiseAt    = bufferAt + pageSize
	sentenceAt = bufferAt + 2*pageSize
	copyAt     = sentenceAt + 64
	digitsAt   = sentenceAt + 128
	inputBytes = 64 // of each
)

// A tainter runs one function again and again.
type tainter struct {
	m     *Machine // what others are forked from
	k     *kernel.Kernel
	entry uint64
	args  []uint64
}

// inputs are the places whose bytes are changed.
func (x *tainter) inputs() []Access {
	return []Access{{noiseAt, inputBytes}, {sentenceAt, inputBytes}, {copyAt, inputBytes}, {digitsAt, 8}}
}

// run executes the function after a bit of an argument, or of memory, was flipped.
func (x *tainter) run(t testing.TB, arg int, addr uint64, bit int) (*Machine, bool) {
	m := New(x.m.Mem.Clone(), Options{History: 200000, Steps: 100000})
	m.Regs = x.m.Regs
	args := slices.Clone(x.args)
	if arg >= 0 {
		args[arg] ^= 1 << bit
	} else if addr != 0 {
		var b [1]byte
		qt.Assert(t, qt.IsNil(m.Mem.ReadMem(b[:], addr)))
		b[0] ^= 1 << bit
		qt.Assert(t, qt.IsNil(m.Mem.WriteMem(b[:], addr)))
	}
	return m, m.Call(context.Background(), x.entry, args...).Err == nil
}

// path returns the addresses executed.
func path(m *Machine) []uint64 {
	var out []uint64
	for ev := range m.History().Forward(0) {
		out = append(out, ev.Inst.Addr)
	}
	return out
}

func newTainter(t testing.TB, k *kernel.Kernel, args []any) *tainter {
	x := &tainter{m: kernelMachine(t, k, Options{}), k: k}
	noise := make([]byte, 1024)
	r := rand.New(rand.NewPCG(5, 6))
	for i := range noise {
		noise[i] = byte(r.Uint32())
	}
	for addr, b := range map[uint64][]byte{
		noiseAt: noise, digitsAt: []byte("123456789x"),
		sentenceAt: []byte("the quick brown fox jumps over the lazy dog"),
		copyAt:     []byte("the quick brown fox jumps under the lazy dog"),
	} {
		qt.Assert(t, qt.IsNil(x.m.Mem.WriteMem(b, addr)))
	}
	for _, a := range args {
		switch a := a.(type) {
		case rune:
			x.args = append(x.args, map[rune]uint64{'B': noiseAt, 'S': sentenceAt, 'C': copyAt, 'D': digitsAt}[a])
		case int:
			x.args = append(x.args, uint64(a))
		}
	}
	return x
}

// TestTaint judges slices by force: where a bit of what a function is given is
// not among what the slice of a byte of its result reaches, flipping it does not
// change that byte, as long as the same instructions are executed.
func TestTaint(t *testing.T) {
	k := formKernel(t, "idle-6.1")
	r := rand.New(rand.NewPCG(7, 8))
	ran, judged, outside, changed := 0, 0, 0, 0
	for _, f := range tainted {
		entry, err := k.Addr(f.name)
		if err != nil {
			continue
		}
		x := newTainter(t, k, f.args)
		x.entry = entry
		m, ok := x.run(t, -1, 0, 0)
		if !ok {
			continue
		}
		ran++
		var slices8 [8]*Slice
		for i := range 8 {
			slices8[i] = m.History().Slice(SliceOptions{Before: m.Step, Want: Locs{GP: [16]uint8{RAX: 1 << i}}, Address: true})
			qt.Check(t, qt.IsTrue(slices8[i].Complete))
		}
		checkOrigins(t, m)
		way := path(m)
		for range 60 {
			arg, addr, bit := -1, uint64(0), r.IntN(64)
			if r.IntN(3) == 0 {
				arg = r.IntN(len(x.args))
			} else {
				in := x.inputs()[r.IntN(4)]
				addr, bit = in.Addr+uint64(r.IntN(in.N)), bit&7
			}
			n, ok := x.run(t, arg, addr, bit)
			if !ok || !slices.Equal(path(n), way) {
				continue
			}
			judged++
			for i := range 8 {
				differs := (m.GP[RAX]^n.GP[RAX])>>(8*i)&0xff != 0
				in := slices8[i].reaches(arg, addr, bit)
				if differs && !in {
					t.Errorf("%s: byte %d of the result depends on bit %d of argument %d, or of [%x]", f.name, i, bit, arg, addr)
				}
				if !in {
					outside++
				} else if differs {
					changed++
				}
			}
		}
	}
	t.Logf("%d functions, %d changes with the same path; bytes not reached %d, reached and different %d", ran, judged, outside, changed)
	qt.Check(t, qt.IsTrue(ran >= 30))
	qt.Check(t, qt.IsTrue(judged >= 500 && outside >= 500 && changed >= 500))
}

// reaches says whether an argument's bit, or a byte of memory, is among what a slice begins with.
func (s *Slice) reaches(arg int, addr uint64, bit int) bool {
	if arg >= 0 {
		r := []int{RDI, RSI, RDX, RCX, R8, R9}[arg]
		return s.Initial.GP[r]>>(bit/8)&1 != 0
	}
	return slices.ContainsFunc(s.Loads, func(l Load) bool { return addr-l.Addr < uint64(l.N) })
}

// checkOrigins: looking through copies byte by byte leads to the same places as
// the slice of a byte does, but for what only chose between values.
func checkOrigins(t *testing.T, m *Machine) {
	origins := m.History().Origins(m.Step, LocsReg(RAX, 8))
	for i := range 8 {
		s := m.History().Slice(SliceOptions{Before: m.Step, Want: Locs{GP: [16]uint8{RAX: 1 << i}}})
		want := s.Initial.Clone()
		for _, l := range s.Loads {
			want.AddMem(l.Addr, l.N)
		}
		if slices.ContainsFunc(s.Steps, func(st SliceStep) bool { return st.Stub == nil && strings.HasPrefix(st.Inst.Op.String(), "cmov") }) {
			continue
		}
		at := slices.IndexFunc(origins, func(o Origin) bool { return o.Of.GP[RAX]>>i&1 != 0 })
		qt.Assert(t, qt.IsTrue(at >= 0))
		one := m.History().Origins(m.Step, Locs{GP: [16]uint8{RAX: 1 << i}})
		qt.Assert(t, qt.Equals(len(one), 1))
		got := one[0].Initial.Clone()
		for _, l := range one[0].Loads {
			got.AddMem(l.Addr, l.N)
		}
		qt.Check(t, qt.Equals(got.String(), want.String()))
		qt.Check(t, qt.Equals(one[0].Role, origins[at].Role))
	}
}
