package vmcore

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/ksleuth/ksleuth/mem"
)

func TestWriteCounts(t *testing.T) {
	m := machine()
	pfns := append(m.pfns(), 0x70, 0x71, 2) // two that do not exist, one twice
	var f memFile
	w, err := Write(context.Background(), &f, m, pfns, machineMeta(Zlib))
	qt.Assert(t, qt.IsNil(err))
	zeros := 0
	for pfn := range m {
		if pfn%7 == 0 {
			zeros++
		}
	}
	qt.Check(t, qt.Equals(w, Written{Pages: len(m), Zeros: zeros, Skipped: 2, Bytes: int64(len(f.b))}))
	wantImage(t, open(t, f.b), m, m, 0)
}

// TestCapture copies what was touched of one dump into another.
func TestCapture(t *testing.T) {
	m := machine()
	src := open(t, writeDump(t, m, m.pfns(), machineMeta(Zlib)))
	r := NewRecorder(src, 100)
	touched := image{}
	for _, addr := range []uint64{0x2ff8, 0x10010010, 0x5fff8} {
		err := r.ReadMem(make([]byte, 16), addr)
		qt.Check(t, qt.Equals(err != nil, addr == 0x5fff8))
	}
	for _, pfn := range []uint64{2, 3, 0x5f, 0x10010} {
		touched[pfn] = m[pfn]
	}
	pfns, complete := r.Pages()
	qt.Check(t, qt.IsTrue(complete))
	qt.Check(t, qt.DeepEquals(pfns, touched.pfns()))

	c := open(t, writeDump(t, src, pfns, src.Meta()))
	wantImage(t, c, m, touched, mem.Excluded)
	qt.Check(t, qt.DeepEquals(c.CPUs(), src.CPUs()))
	h, _ := c.Header()
	g, _ := src.Header()
	g.DumpLevel = h.DumpLevel
	qt.Check(t, qt.Equals(h, g))

	r = NewRecorder(src, 2)
	qt.Assert(t, qt.IsNil(r.ReadMem(make([]byte, 4*pageSize), 0x2000)))
	pfns, complete = r.Pages()
	qt.Check(t, qt.DeepEquals(pfns, []uint64{2, 3}))
	qt.Check(t, qt.IsFalse(complete))
}

func TestWriteErrors(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	m := machine()
	var f memFile
	_, err := Write(ctx, &f, m, m.pfns(), machineMeta(Zlib))
	qt.Check(t, qt.ErrorIs(err, context.Canceled))
	_, err = New(asFiles(f.b)...)
	qt.Check(t, qt.ErrorIs(err, ErrNotDump))
	_, err = Write(context.Background(), &f, m, m.pfns(), Meta{Compression: 77})
	qt.Check(t, qt.IsNotNil(err))
	_, err = Write(context.Background(), &f, m, []uint64{1 << 50}, Meta{})
	qt.Check(t, qt.IsNotNil(err))
	_, err = Write(context.Background(), fullDisk{}, m, m.pfns(), Meta{})
	qt.Check(t, qt.ErrorIs(err, errFull))
}

var errFull = errors.New("no space left on device")

type fullDisk struct{}

func (fullDisk) WriteAt([]byte, int64) (int, error) { return 0, errFull }

func TestVMCoreInfo(t *testing.T) {
	v := ParseVMCoreInfo(machineInfo + "CRASHTIME=5\nno value\nSYMBOL(bad)=xyz\nNUMBER(u)=18446744073709551615\nSIZE(page)=65\n\x00junk=1\n")
	type result struct {
		n  int64
		ok bool
	}
	r := func(n int64, ok bool) result { return result{n, ok} }
	u := func(n uint64, ok bool) result { return result{int64(n), ok} }
	for _, test := range []struct {
		name string
		got  result
		want result
	}{
		{"symbol", u(v.Symbol("_stext")), r(-0x7f000000, true)},
		{"bad symbol", u(v.Symbol("bad")), r(0, false)},
		{"no symbol", u(v.Symbol("none")), r(0, false)},
		{"decimal", r(v.Number("phys_base")), r(-606076928, true)},
		{"hexadecimal", r(v.Number("X")), r(-0x80000000, true)},
		{"unsigned", r(v.Number("u")), r(-1, true)},
		{"no number", r(v.Number("none")), r(0, false)},
		{"size, corrected", r(v.Size("page")), r(65, true)},
		{"offset", r(v.Offset("list_head.next")), r(0, true)},
		{"length", r(v.Length("free_area.free_list")), r(5, true)},
		{"kernel offset", u(v.KernelOffset()), r(0x36e00000, true)},
	} {
		qt.Check(t, qt.Equals(test.got, test.want), qt.Commentf("%s", test.name))
	}
	qt.Check(t, qt.Equals(v.OSRelease(), "6.1.0-test"))
	s, ok := v.Get("PAGESIZE")
	qt.Check(t, qt.Equals(s, "4096"))
	qt.Check(t, qt.IsTrue(ok))
	_, ok = v.Get("junk")
	qt.Check(t, qt.IsFalse(ok))
	_, ok = VMCoreInfo{}.KernelOffset()
	qt.Check(t, qt.IsFalse(ok))
}

// TestFindVMCoreInfo searches the memory of a dump without notes: there is the
// start of a text, a text of another kernel, and the right one.
func TestFindVMCoreInfo(t *testing.T) {
	m := machine()
	place := func(pfn uint64, b []byte) {
		m[pfn] = make([]byte, pageSize)
		copy(m[pfn], b)
	}
	old := bytes.ReplaceAll([]byte(machineInfo), []byte("6.1.0-test"), []byte("5.10.0-old"))
	place(0x20, []byte("OSRELEASE=half"))
	place(0x30, old)
	place(0x10020, note("VMCOREINFO", 0, []byte(machineInfo)))
	meta := machineMeta(Zlib)
	meta.VMCoreInfo, meta.Notes = "", nil
	dump := writeDump(t, m, m.pfns(), meta)
	c := open(t, dump)
	_, ok := c.NotedVMCoreInfo()
	qt.Check(t, qt.IsFalse(ok))
	for range 20 { // the first in memory, whoever finds it first
		v, err := open(t, dump).VMCoreInfo()
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.Equals(v.OSRelease(), "5.10.0-old"))
	}
	ranges, err := c.Ranges()
	qt.Assert(t, qt.IsNil(err))
	v, err := FindVMCoreInfo(context.Background(), c, ranges, func(addr uint64, _ VMCoreInfo) bool { return addr == 0x10020000 })
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(v.Raw(), machineInfo))
	_, err = FindVMCoreInfo(context.Background(), c, ranges[:0], nil)
	qt.Check(t, qt.ErrorIs(err, ErrNoVMCoreInfo))
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err = FindVMCoreInfo(ctx, c, ranges, nil)
	qt.Check(t, qt.ErrorIs(err, context.Canceled))
}

func TestResolve(t *testing.T) {
	for _, test := range []struct{ in, want []span }{
		{nil, nil},
		{[]span{{0, 10, 100}, {10, 20, 110}, {20, 30, 500}}, []span{{0, 20, 100}, {20, 30, 500}}},
		{[]span{{10, 20, 0}, {0, 5, 50}}, []span{{0, 5, 50}, {10, 20, 0}}},
		{[]span{{0, 30, 100}, {10, 20, 500}}, []span{{0, 10, 100}, {10, 20, 500}, {20, 30, 120}}},
		{[]span{{10, 20, 500}, {0, 30, 100}}, []span{{0, 30, 100}}},
		{[]span{{0, 20, 100}, {10, 30, 500}, {5, 5, 1}}, []span{{0, 10, 100}, {10, 30, 500}}},
		{[]span{{0, 10, noFile}, {10, 20, noFile}, {5, 15, 7}}, []span{{0, 5, noFile}, {5, 15, 7}, {15, 20, noFile}}},
		{[]span{{0, 4, 0}, {2, 6, 100}, {4, 8, 200}}, []span{{0, 2, 0}, {2, 4, 100}, {4, 8, 200}}},
	} {
		got := resolve(append([]span(nil), test.in...))
		qt.Check(t, qt.IsTrue(slices.Equal(got, test.want)), qt.Commentf("%v: %v", test.in, got))
	}
}
