package bpf_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/ksleuth/ksleuth/bpf"
	"github.com/ksleuth/ksleuth/internal/dumptest"
	"github.com/ksleuth/ksleuth/internal/example"
	"github.com/ksleuth/ksleuth/kernel"
	"github.com/ksleuth/ksleuth/mem"
	"github.com/ksleuth/ksleuth/vmcore"
)

// scene opens the kernel of a dump, and reads what bpf(2) said in it of its
// links: "link ID TYPE prog=ID", the type as a number of enum bpf_link_type.
func scene(t *testing.T, name string) (k *kernel.Kernel, links []string) {
	t.Helper()
	core, err := vmcore.Open(dumptest.Get(t, name+".kdump"))
	qt.Assert(t, qt.IsNil(err))
	t.Cleanup(func() { core.Close() })
	k, err = kernel.FromSource(t.Context(), core)
	qt.Assert(t, qt.IsNil(err))
	raw, err := os.ReadFile(dumptest.Get(t, name+".bpf"))
	qt.Assert(t, qt.IsNil(err))
	for line := range strings.Lines(string(raw)) {
		if strings.HasPrefix(line, "link ") {
			links = append(links, strings.TrimSpace(line))
		}
	}
	return k, links
}

// linkTypeNumbers are those of enum bpf_link_type (include/uapi/linux/bpf.h).
var linkTypeNumbers = map[string]int{"raw_tracepoint": 1, "tracing": 2, "xdp": 6}

// TestLinks: the links are those that the kernel itself told of, and act on
// what the scene attached them to.
func TestLinks(t *testing.T) {
	targets := map[string]string{
		"raw_tracepoint": "tracepoint sys_enter",
		"xdp":            "netdev lo xdpgeneric",
		"tracing":        "count_lo of prog %d trace_fentry",
	}
	for _, name := range dumptest.Scenes() {
		if !strings.HasPrefix(name, "idle-") && !strings.HasPrefix(name, "traced-") {
			continue
		}
		t.Run(name, func(t *testing.T) {
			k, want := scene(t, name)
			links, err := bpf.Links(k)
			qt.Assert(t, qt.IsNil(err))
			var got []string
			lo := 0 // the program on the device lo, which the tracing link is on
			for _, l := range links {
				got = append(got, fmt.Sprintf("link %d %d prog=%d", l.ID, linkTypeNumbers[l.Type], l.ProgID))
				qt.Assert(t, qt.HasLen(l.Targets, 1))
				target := l.Targets[0]
				if l.Type == "xdp" {
					lo = l.ProgID
					init, err := k.Addr("init_net")
					qt.Assert(t, qt.IsNil(err))
					qt.Check(t, qt.Equals(target.Ifindex, 1))
					qt.Check(t, qt.Equals(target.Netns, k.Object("net", init).Uint("ns.inum")))
				}
				text := targets[l.Type]
				if l.Type == "tracing" {
					text = fmt.Sprintf(text, lo)
				}
				if target.Kind == bpf.TargetFunction { // the fexit program of the scene traced
					text = "hrtimer_nanosleep trace_fexit"
					s, err := k.Find("hrtimer_nanosleep")
					qt.Assert(t, qt.IsNil(err))
					qt.Check(t, qt.Equals(target.Addr, mem.Addr(s.Addr)))
				}
				qt.Check(t, qt.Equals(strings.TrimSpace(target.String()+" "+l.Attach), text))
			}
			qt.Check(t, qt.DeepEquals(got, want))
		})
	}
}

// idle opens the kernel of a dump of 6.1, with changes.
func idle(t *testing.T, changes ...example.Change) *kernel.Kernel {
	t.Helper()
	return example.KernelOf(t, dumptest.Get(t, "idle-6.1.kdump"), changes...)
}

// TestLinksByID: of the links not asked for nothing is read.
func TestLinksByID(t *testing.T) {
	all := linksByType(t, idle(t))
	k := idle(t, example.Absent(uint64(all["tracing"].Addr)))
	links, err := bpf.Links(k, all["xdp"].ID, 1<<20)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.HasLen(links, 1))
	qt.Check(t, qt.DeepEquals(links[0], all["xdp"]))
}

func linksByType(t *testing.T, k *kernel.Kernel) map[string]*bpf.Link {
	t.Helper()
	links, err := bpf.Links(k)
	qt.Assert(t, qt.IsNil(err))
	out := make(map[string]*bpf.Link)
	for _, l := range links {
		out[l.Type] = l
	}
	return out
}

// TestLinkDamaged: of a link that cannot be read whole what can be read is
// listed, and what is wrong is said; a link whose target is gone has none.
func TestLinkDamaged(t *testing.T) {
	k := idle(t)
	links := linksByType(t, k)
	member := func(typ, record, path string) uint64 { return k.Object(record, uint64(links[typ].Addr)).At(path) }
	trampoline := k.Object("bpf_tracing_link", uint64(links["tracing"].Addr)).Ptr("trampoline")
	for _, test := range []struct {
		name    string
		change  example.Change
		typ     string // of the link that it concerns, as it is listed; "" if it is not
		targets int
		err     string // "" for none
	}{
		{"no device", example.Words(member("xdp", "bpf_xdp_link", "dev"), 0), "xdp", 0, ``},
		{"device", example.Words(member("xdp", "bpf_xdp_link", "dev"), 0x1000), "xdp", 1, `(?s)BPF link id \d+: xdp: .*0x1000.*not mapped.*`},
		{"tracepoint", example.Words(member("raw_tracepoint", "bpf_raw_tp_link", "btp"), 0), "raw_tracepoint", 1, `BPF link id \d+: raw_tracepoint: .*btp is NULL`},
		{"trampoline", example.Words(member("tracing", "bpf_tracing_link", "trampoline"), 0x1000), "tracing", 1, `(?s)BPF link id \d+: tracing: .*0x1000.*not mapped.*`},
		{"code of the target", example.Words(k.Object("bpf_trampoline", trampoline).At("func.addr"), 0), "tracing", 1, ``},
		{"program", example.Words(member("xdp", "bpf_link", "prog"), 0x1000), "xdp", 1, `(?s)BPF link id \d+: xdp: .*0x1000.*not mapped.*`},
		{"no program", example.Words(member("xdp", "bpf_link", "prog"), 0), "xdp", 1, ``},
		{"type", example.Write(member("xdp", "bpf_link", "type"), []byte{99}), "type 99", 0, ``},
		{"id", example.Write(member("xdp", "bpf_link", "id"), []byte{77}), "", 0, `BPF link id \d+: what the kernel's table leads to, at 0x[0-9a-f]+, has id 77`},
		{"page", example.Absent(uint64(links["tracing"].Addr)), "", 0, `(?s)BPF link id \d+: .*excluded from the dump.*`},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := bpf.Links(idle(t, test.change))
			if test.err == "" {
				qt.Check(t, qt.IsNil(err))
			} else {
				qt.Check(t, qt.ErrorMatches(err, test.err))
			}
			qt.Check(t, qt.Equals(len(got) < len(links), test.typ == ""))
			for _, l := range got {
				if l.Type == test.typ {
					qt.Check(t, qt.HasLen(l.Targets, test.targets))
					return
				}
			}
			qt.Check(t, qt.Equals(test.typ, ""))
		})
	}
}
