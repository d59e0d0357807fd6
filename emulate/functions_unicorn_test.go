//go:build unicorn

package emulate

import (
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
)

// TestKernelFunctionsUnicorn calls functions of the four kernels, on the memory
// of a dump of each, here and on Unicorn: registers, memory written and number
// of instructions must be the same.
func TestKernelFunctionsUnicorn(t *testing.T) {
	for _, version := range formKernels {
		t.Run(version, func(t *testing.T) {
			w := newTwin(t, formKernel(t, "idle-"+version), Options{History: 1 << 16})
			functions, calls, total := 0, 0, uint64(0)
			var none, others []string
			for _, f := range functionTable {
				addr := w.function(f.name)
				if addr == 0 {
					none = append(none, f.name)
					continue
				}
				returned := false
				r := rand.New(rand.NewPCG(7, uint64(len(f.name))))
				for i, args := range f.calls {
					w.buf = twinBuf
					values, ok := w.values(t, args)
					if !ok {
						continue
					}
					s, differ := w.call(w.start(r), addr, values...)
					calls++
					total += s.Step
					returned = returned || s.Outcome == Returned
					if differ != "" {
						t.Errorf("%s, call %d: %s", f.name, i, differ)
					}
					if out := f.out; out != "" && i == 0 {
						w.said(t, f.name, values[0], out)
					}
				}
				if returned {
					functions++
				} else {
					others = append(others, f.name)
				}
			}
			t.Logf("ended otherwise on both: %s", strings.Join(others, " "))
			t.Logf("%d functions, %d calls, %d instructions; not in this kernel: %s", functions, calls, total, strings.Join(none, " "))
			qt.Check(t, qt.IsTrue(functions >= 150))
		})
	}
}

// function returns the address of a function, 0 if the kernel has none.
func (w *twin) function(names string) uint64 {
	for name := range strings.SplitSeq(names, "|") {
		if s, ok := w.k.Lookup(name); ok {
			return s.Addr
		}
	}
	return 0
}

// said checks that a function wrote a string: that it did what it is called for.
func (w *twin) said(t *testing.T, name string, at uint64, want string) {
	t.Helper()
	var b [256]byte
	qt.Assert(t, qt.IsNil(w.m.Mem.ReadMem(b[:], at)))
	got, _, _ := strings.Cut(string(b[:]), "\x00")
	qt.Check(t, qt.Equals(got, want), qt.Commentf("%s", name))
}

// Kinds of arguments in functionTable, besides numbers: a string or []byte is
// put into memory and its address passed.
type (
	sym      string // the address of a symbol, the first there is of several
	listOf   int    // a list of so many nodes, 64 bytes each
	treeOf   int    // a red-black tree of so many nodes, by rb_insert_color; passes the root
	treeNode int    // the node of that number of the tree before
)

// values turns arguments into numbers. It reports false if the kernel lacks a symbol.
func (w *twin) values(t *testing.T, args []any) (out []uint64, ok bool) {
	t.Helper()
	for _, a := range args {
		switch a := a.(type) {
		case int:
			out = append(out, uint64(a))
		case rune:
			out = append(out, uint64(a))
		case byte:
			out = append(out, uint64(a))
		case uint64:
			out = append(out, a)
		case string:
			out = append(out, w.put(t, append([]byte(a), 0)))
		case []byte:
			out = append(out, w.put(t, a))
		case sym:
			v := w.function(string(a))
			if v == 0 {
				return nil, false
			}
			out = append(out, v)
		case listOf:
			out = append(out, w.list(t, int(a)))
		case treeOf:
			out = append(out, w.tree(t, int(a)))
		case treeNode:
			out = append(out, twinBuf+16+uint64(a)*32)
		default:
			t.Fatalf("argument %T", a)
		}
	}
	return out, true
}

// list makes a circular list; the nodes' other words are pseudo-random.
func (w *twin) list(t *testing.T, n int) uint64 {
	t.Helper()
	r := rand.New(rand.NewPCG(uint64(n), 3))
	const size = 256
	at := (w.buf + size - 1) &^ (size - 1)
	w.buf = at
	words := make([]uint64, (n+1)*size/8)
	for i := range words {
		words[i] = r.Uint64N(32)
	}
	for i := range n + 1 {
		// the list_head in the middle, so that what container_of makes is mapped
		words[i*size/8+16] = at + uint64((i+1)%(n+1))*size + 128
		words[i*size/8+17] = at + uint64((i+n)%(n+1))*size + 128
	}
	w.put(t, encode(words))
	return at + 128
}

func encode(words []uint64) []byte {
	b := make([]byte, 0, len(words)*8)
	for _, v := range words {
		for i := range 8 {
			b = append(b, byte(v>>(8*i)))
		}
	}
	return b
}

// tree makes a red-black tree at the start of the buffers: the root, and nodes
// of 32 bytes: parent and color, right, left, key.
func (w *twin) tree(t *testing.T, n int) uint64 {
	t.Helper()
	insert := w.function("rb_insert_color")
	qt.Assert(t, qt.Not(qt.Equals(insert, 0)))
	w.buf = twinBuf
	w.put(t, make([]byte, 16+32*n))
	r := rand.New(rand.NewPCG(uint64(n), 4))
	load := func(a uint64) uint64 {
		v, err := w.m.Load(a, 8)
		qt.Assert(t, qt.IsNil(err))
		return v
	}
	store := func(a, v uint64) { // to both
		buf := w.buf
		w.buf = a
		w.put(t, encode([]uint64{v}))
		w.buf = buf
	}
	for i := range n {
		at := uint64(twinBuf) + 16 + 32*uint64(i)
		key := r.Uint64N(1000)
		store(at+24, key)
		link, parent := uint64(twinBuf), uint64(0)
		for p := load(link); p != 0; p = load(link) {
			parent = p
			if link = p + 16; key > load(p+24) {
				link = p + 8
			}
		}
		store(at, parent)
		store(link, at)
		if _, differ := w.call(w.start(r), insert, at, twinBuf); differ != "" {
			t.Errorf("rb_insert_color: %s", differ)
		}
	}
	return twinBuf
}
