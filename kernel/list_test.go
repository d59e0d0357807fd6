package kernel_test

import (
	"encoding/binary"
	"fmt"
	"slices"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/ksleuth/ksleuth/internal/example"
	"github.com/ksleuth/ksleuth/kernel"
)

// scratch returns the address of memory that tests may overwrite: the tables
// for unwinding, which they do not use.
func scratch(t *testing.T) uint64 {
	t.Helper()
	addr, err := example.Kernel(t).Addr("__start_orc_unwind")
	qt.Assert(t, qt.IsNil(err))
	return addr&^0xfff + 0x1000
}

func TestList(t *testing.T) {
	at := scratch(t)
	node := func(i uint64) uint64 { return at + 16*i }
	links := func(next ...uint64) []example.Change {
		var out []example.Change
		for i, n := range next {
			out = append(out, example.Words(node(uint64(i)), n))
		}
		return out
	}
	circle := make([]uint64, 100)
	for i := range circle {
		circle[i] = node(uint64(i) + 1)
	}
	circle[99] = node(70)
	for _, test := range []struct {
		name string
		next []uint64 // of each node; the first is the head
		want int      // nodes walked
		err  string   // "" for none
	}{
		{"empty", []uint64{node(0)}, 0, ""},
		{"three", []uint64{node(1), node(2), node(3), node(0)}, 3, ""},
		{"NULL", []uint64{node(1), node(2), 0}, 2, fmt.Sprintf("list at %#x, node 2 at %#x: next is NULL", at, node(2))},
		{"user address", []uint64{node(1), 0x1000}, 2, `list at 0x[0-9a-f]+, node 2: virtual address 0x1000: not mapped.*`},
		{"node points at itself", []uint64{node(1), node(2), node(2)}, 3, `.*does not return to its head: damaged`},
		{"circle without its head", circle, 200, `.*does not return to its head: damaged`},
	} {
		t.Run(test.name, func(t *testing.T) {
			k := example.Kernel(t, links(test.next...)...)
			n := 0
			var failed error
			for _, err := range k.List(at) {
				if failed = err; err != nil {
					break
				}
				n++
			}
			if test.err == "" {
				qt.Check(t, qt.IsNil(failed))
				qt.Check(t, qt.Equals(n, test.want))
				return
			}
			qt.Check(t, qt.ErrorMatches(failed, test.err))
			qt.Check(t, qt.IsTrue(n <= test.want), qt.Commentf("%d nodes", n))
		})
	}
}

// tree lays out nodes of an XArray from an address on: the slots of each are
// given by index, and may be other nodes.
type tree struct {
	k       *kernel.Kernel
	at      uint64
	changes []example.Change
}

func (x *tree) addr(i uint64) uint64 { return x.at + 1024*i }
func (x *tree) ref(i uint64) uint64  { return x.addr(i) | 2 }

func (x *tree) root(t *testing.T, head uint64) uint64 {
	off, err := x.k.Offset("xarray", "xa_head")
	qt.Assert(t, qt.IsNil(err))
	x.changes = append(x.changes, example.Words(x.at-256+off, head))
	return x.at - 256
}

func (x *tree) node(t *testing.T, i uint64, shift byte, slots map[uint64]uint64) {
	shiftAt, err1 := x.k.Offset("xa_node", "shift")
	slotsAt, err2 := x.k.Offset("xa_node", "slots")
	qt.Assert(t, qt.IsNil(err1))
	qt.Assert(t, qt.IsNil(err2))
	b := make([]byte, 1024)
	b[shiftAt] = shift
	for s, v := range slots {
		binary.LittleEndian.PutUint64(b[slotsAt+8*s:], v)
	}
	x.changes = append(x.changes, example.Write(x.addr(i), b))
}

func TestXArray(t *testing.T) {
	const entry = 0xffff888000001000
	full := func(v uint64) map[uint64]uint64 {
		m := make(map[uint64]uint64)
		for i := range uint64(64) {
			m[i] = v
		}
		return m
	}
	type e = kernel.XAEntry
	for _, test := range []struct {
		name  string
		build func(x *tree) (head uint64)
		want  []kernel.XAEntry
		err   string
	}{
		{"empty", func(*tree) uint64 { return 0 }, nil, ""},
		{"one entry and no node", func(*tree) uint64 { return entry }, []e{{0, entry}}, ""},
		{"one node", func(x *tree) uint64 {
			x.node(t, 0, 0, map[uint64]uint64{1: entry, 5: entry + 64, 63: entry + 128})
			return x.ref(0)
		}, []e{{1, entry}, {5, entry + 64}, {63, entry + 128}}, ""},
		{"two levels", func(x *tree) uint64 {
			x.node(t, 0, 6, map[uint64]uint64{0: x.ref(1), 2: x.ref(2)})
			x.node(t, 1, 0, map[uint64]uint64{3: entry})
			x.node(t, 2, 0, map[uint64]uint64{4: entry + 64})
			return x.ref(0)
		}, []e{{3, entry}, {2*64 + 4, entry + 64}}, ""},
		{"retry and sibling entries", func(x *tree) uint64 {
			x.node(t, 0, 0, map[uint64]uint64{0: 256<<2 | 2, 1: 2, 2: entry})
			return x.ref(0)
		}, []e{{2, entry}}, ""},
		{"node is its own child", func(x *tree) uint64 {
			x.node(t, 0, 6, map[uint64]uint64{0: x.ref(0)})
			return x.ref(0)
		}, nil, `xa_node at 0x[0-9a-f]+: the tree comes here again: damaged`},
		{"child is not below", func(x *tree) uint64 {
			x.node(t, 0, 6, map[uint64]uint64{0: x.ref(1)})
			x.node(t, 1, 6, nil)
			return x.ref(0)
		}, nil, `xa_node at 0x[0-9a-f]+: shift 6 below one of 6: damaged`},
		{"as wide as can be", func(x *tree) uint64 { // 64^8 paths
			for i := range uint64(8) {
				x.node(t, i, byte(6*(8-i)), full(x.ref(i+1)))
			}
			x.node(t, 8, 0, full(entry))
			return x.ref(0)
		}, nil, `.*the tree comes here again: damaged`},
		{"nowhere", func(*tree) uint64 { return 0x12345002 }, nil, `.*xa_node at 0x12345000.*shift.*not mapped.*`},
	} {
		t.Run(test.name, func(t *testing.T) {
			x := &tree{k: example.Kernel(t), at: scratch(t) + 4096}
			root := x.root(t, test.build(x))
			k := example.Kernel(t, x.changes...)
			var got []kernel.XAEntry
			var failed error
			for e, err := range k.XArray(root) {
				if err != nil {
					failed = err
					break
				}
				got = append(got, e)
			}
			if test.err != "" {
				qt.Check(t, qt.ErrorMatches(failed, test.err))
				return
			}
			qt.Check(t, qt.IsNil(failed))
			qt.Check(t, qt.DeepEquals(got, test.want))
			byIndex := make(map[uint64]uint64)
			for _, e := range test.want {
				byIndex[e.Index] = e.Entry
			}
			for _, i := range []uint64{0, 1, 2, 3, 5, 62, 63, 64, 2*64 + 4, 1 << 12, 1 << 63} {
				got, err := k.XALoad(root, i)
				qt.Check(t, qt.IsNil(err))
				qt.Check(t, qt.Equals(got, byIndex[i]), qt.Commentf("index %d", i))
			}
		})
	}
}

// TestXALoadDamaged: a way down that does not go down ends.
func TestXALoadDamaged(t *testing.T) {
	x := &tree{k: example.Kernel(t), at: scratch(t) + 4096}
	x.node(t, 0, 6, map[uint64]uint64{0: x.ref(0)})
	root := x.root(t, x.ref(0))
	_, err := example.Kernel(t, x.changes...).XALoad(root, 1)
	qt.Check(t, qt.ErrorMatches(err, `xa_node at 0x[0-9a-f]+: shift 6 below one of 6: damaged`))
	_, err = x.k.XALoad(0x1000, 1)
	qt.Check(t, qt.ErrorMatches(err, `.*xarray at 0x1000.*not mapped.*`))
}

// TestXArrayOfPrograms: the kernel's own tree.
func TestXArrayOfPrograms(t *testing.T) {
	k := example.Kernel(t)
	idr, err := k.Addr("prog_idr")
	qt.Assert(t, qt.IsNil(err))
	var ids []uint64
	for e, err := range k.XArray(idr) {
		qt.Assert(t, qt.IsNil(err))
		ids = append(ids, e.Index)
	}
	qt.Check(t, qt.DeepEquals(ids, []uint64{2, 3, 4, 5, 6, 7, 9}))
	qt.Check(t, qt.IsTrue(slices.IsSorted(ids)))
}

func TestErrors(t *testing.T) {
	var e kernel.Errors
	e.Add(nil)
	qt.Check(t, qt.IsNil(e.Err()))
	for i := range 40 {
		e.Add(fmt.Errorf("error %d", i))
	}
	qt.Check(t, qt.IsFalse(e.TooMany()))
	qt.Check(t, qt.ErrorMatches(e.Err(), `(?s)error 0\nerror 1\n.*error 31\nand 8 more`))
	for i := range 2000 {
		e.Add(fmt.Errorf("error %d", i))
	}
	qt.Check(t, qt.IsTrue(e.TooMany()))
	qt.Check(t, qt.ErrorMatches(e.Err(), `(?s).*given up after 1024 such errors`))
}
