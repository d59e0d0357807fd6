package disasm

import (
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/ksleuth/ksleuth/internal/dumptest"
	"github.com/ksleuth/ksleuth/kernel"
	"github.com/ksleuth/ksleuth/mem"
	"github.com/ksleuth/ksleuth/vmcore"
	"github.com/ksleuth/ksleuth/x86"
)

func openScene(t *testing.T, scene string) *Disassembler {
	t.Helper()
	core, err := vmcore.Open(dumptest.Get(t, scene+".kdump"))
	qt.Assert(t, qt.IsNil(err))
	t.Cleanup(func() { core.Close() })
	k, err := kernel.FromSource(t.Context(), core)
	qt.Assert(t, qt.IsNil(err))
	return New(k)
}

// kallsyms returns symbols as the kernel of a scene printed them.
func kallsyms(t *testing.T, scene string) func(name string) uint64 {
	t.Helper()
	addrs := make(map[string]uint64)
	for _, s := range dumptest.Kallsyms(t, scene) {
		addrs[s.Name] = s.Addr
	}
	return func(name string) uint64 {
		qt.Assert(t, qt.IsTrue(addrs[name] != 0), qt.Commentf("%s", name))
		return addrs[name]
	}
}

// inst decodes the instruction at addr.
func (d *Disassembler) inst(t *testing.T, addr uint64) *x86.Inst {
	t.Helper()
	code, err := mem.Bytes(d.k.Mem(), addr, x86.MaxLen)
	qt.Assert(t, qt.IsNil(err))
	in := new(x86.Inst)
	qt.Assert(t, qt.IsNil(in.Decode(code, addr)), qt.Commentf("%#x", addr))
	return in
}

// TestSites holds every static call and static key of idle kernels against the
// code that stands there: the one is read from the tables and keys, the other is
// what the kernel made of it.
func TestSites(t *testing.T) {
	sizes := map[string]uint64{"static calls": 8, "static keys": 16}
	for _, scene := range dumptest.Idle {
		t.Run(scene, func(t *testing.T) {
			d, sym := openScene(t, scene), kallsyms(t, scene)
			text := kernel.Range{Start: sym("_stext"), End: sym("_etext")}
			fail := func(what string, err error) { qt.Check(t, qt.IsNil(err), qt.Commentf("%s", what)) }
			for _, table := range siteTables {
				members, size, err := d.members(table)
				qt.Assert(t, qt.IsNil(err))
				qt.Check(t, qt.Equals(size, sizes[table.what]))
				start, stop := sym(table.start), sym(table.stop)
				var list siteList
				for _, l := range d.siteLists(text.Start, text.End, fail) {
					if l.table.what == table.what {
						list = l
					}
				}
				raw, err := list.bytes(d.k, size)
				qt.Assert(t, qt.IsNil(err))
				n := uint64(0)
				sites := make(map[uint64]site)
				for ; n*size < uint64(len(raw)); n++ {
					addr, s := table.read(entry{list.addr + n*size, raw[n*size:], members})
					if !text.Contains(addr) {
						continue // of initialisation, and gone
					}
					sites[addr] = s
				}
				states := make(map[string]int)
				for _, addr := range slices.Sorted(maps.Keys(sites)) { // in order the dump is read fastest
					states[checkSite(t, d, addr, sites[addr])]++
				}
				qt.Check(t, qt.Equals(n, (stop-start)/size))
				qt.Check(t, qt.IsTrue(len(sites) > int(n)/2))
				t.Log(table.what, n, len(sites), states)
			}
		})
	}
}

var (
	keyNote  = regexp.MustCompile(`^(static key|tracepoint) .* (on|off) \((on|off): (nop|jmp .*)\)$`)
	callNote = regexp.MustCompile(`^static call [^ ]+( \[.*\])?(: .* now)?$`)
)

// checkSite holds a site against its key, and says in which state it is.
func checkSite(t *testing.T, d *Disassembler, addr uint64, s site) string {
	t.Helper()
	in := d.inst(t, addr)
	note := s.describe(d, in, nil)
	c := qt.Commentf("%#x %s: %s", addr, in, note)
	switch s := s.(type) {
	case staticKey:
		enabled, err := mem.U32(d.k.Mem(), s.key)
		qt.Assert(t, qt.IsNil(err))
		state := map[bool]string{false: "off", true: "on"}[enabled != 0]
		jumps := (enabled != 0) != s.likely
		qt.Check(t, qt.Equals(in.Flow() == x86.FlowJump, jumps), c)
		if target, ok := in.Target(); ok {
			qt.Check(t, qt.Equals(target, s.target), c)
		} else {
			qt.Check(t, qt.IsTrue(isNop(in)), c)
		}
		if !keyNote.MatchString(note) || !strings.Contains(note, " "+state+" (") {
			t.Errorf("%#x: %s", addr, note)
		}
		return state
	case staticCall:
		fn, err := mem.U64(d.k.Mem(), s.key)
		qt.Assert(t, qt.IsNil(err))
		if !callNote.MatchString(note) {
			t.Errorf("%#x: %s", addr, note)
		}
		switch target, direct := in.Target(); {
		case direct:
			qt.Check(t, qt.Equals(target, fn), c)
			return "call"
		case in.Op == x86.XOR || in.Op == x86.RET && fn != 0:
			qt.Check(t, qt.Equals(d.k.FormatAddr(fn), "__static_call_return0"), c)
			return "0"
		case in.Flow() == x86.FlowTrap:
			return "trap"
		}
		qt.Check(t, qt.Equals(fn, 0), c)
		return "none"
	}
	t.Errorf("a site of a type %T", s)
	return ""
}

// TestFtraceSites: the kernel itself says at boot how many functions ftrace can
// hook; those of initialisation it forgets afterwards.
func TestFtraceSites(t *testing.T) {
	for _, scene := range dumptest.Idle {
		t.Run(scene, func(t *testing.T) {
			d, sym := openScene(t, scene), kallsyms(t, scene)
			pages, err := d.records()
			qt.Assert(t, qt.IsNil(err))
			start, end := sym("_stext"), sym("_end")
			n := 0
			for _, p := range pages {
				if p.first >= start && p.last < end {
					n += int(p.n)
				}
			}
			b, err := os.ReadFile(dumptest.Get(t, scene+".dmesg"))
			qt.Assert(t, qt.IsNil(err))
			m := regexp.MustCompile(`ftrace: allocat(?:ing|ed) (\d+) entries`).FindSubmatch(b)
			qt.Assert(t, qt.IsNotNil(m))
			total, err := strconv.Atoi(string(m[1]))
			qt.Assert(t, qt.IsNil(err))
			qt.Check(t, qt.IsTrue(n <= total && n > total*9/10), qt.Commentf("%d of %d", n, total))
		})
	}
}

// TestTracers: of all functions that ftrace can hook, just those that a scene
// traces are not a nop.
func TestTracers(t *testing.T) {
	for _, idle := range dumptest.Idle {
		scene := strings.Replace(idle, "idle", "traced", 1)
		t.Run(scene, func(t *testing.T) {
			d, sym := openScene(t, scene), kallsyms(t, scene)
			sites := make(map[uint64]site)
			start, end := sym("_stext"), sym("_etext")
			d.ftraceSites(start, end, sites, func(what string, err error) { qt.Check(t, qt.IsNil(err), qt.Commentf("%s", what)) })
			qt.Check(t, qt.IsTrue(len(sites) > 20000))
			var got []string
			for _, addr := range slices.Sorted(maps.Keys(sites)) { // in order the dump is read fastest
				if note := sites[addr].describe(d, d.inst(t, addr), nil); note != "ftrace: no tracer" {
					fn, _, _ := d.k.Symbolize(addr)
					got = append(got, fmt.Sprintf("%s %s", fn, note))
				}
			}
			slices.Sort(got)
			want := []string{
				"do_nanosleep ftrace: graph_ops",
				"hrtimer_nanosleep ftrace: BPF fexit on_return (prog 9), kprobe_ftrace_ops",
			}
			if scene == "traced-5.10" { // later the dispatcher is called by a static call
				want = append([]string{"bpf_dispatcher_xdp_func ftrace: BPF dispatch count_lo (prog 6)"}, want...)
			}
			qt.Check(t, qt.DeepEquals(got, want))
		})
	}
}
