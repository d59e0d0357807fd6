package tracee_test

import (
	"bufio"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/ksleuth/ksleuth/bpfview"
	"github.com/ksleuth/ksleuth/ctype"
	"github.com/ksleuth/ksleuth/internal/dumptest"
	"github.com/ksleuth/ksleuth/internal/example"
	"github.com/ksleuth/ksleuth/kallsyms"
	"github.com/ksleuth/ksleuth/tracee"
)

// A dumped is a dump full of BPF objects, with what its kernel said of itself.
type dumped struct {
	src  tracee.Source
	addr map[string][]uint64 // of symbols, by name or module:name
	at   map[uint64]string   // BPF functions
}

func open(t *testing.T, kernel string) dumped {
	t.Helper()
	d := dumped{addr: make(map[string][]uint64), at: make(map[uint64]string)}
	f, err := os.Open(dumptest.Get(t, "bpf-"+kernel+".kallsyms"))
	qt.Assert(t, qt.IsNil(err))
	defer f.Close()
	for l, err := range kallsyms.ReadText(bufio.NewReader(f)) {
		qt.Assert(t, qt.IsNil(err))
		name := string(l.Name)
		if len(l.Module) > 0 && string(l.Module) != "bpf" {
			name = string(l.Module) + ":" + name
		}
		d.addr[name] = append(d.addr[name], l.Addr)
		if string(l.Module) == "bpf" {
			d.at[l.Addr] = name
		}
	}
	d.src = tracee.Source{
		BPF: bpfview.Source{Kernel: example.KernelOf(t, dumptest.Get(t, "bpf-"+kernel+".kdump"))},
		Gap: func(err error) { t.Errorf("gap: %v", err) },
	}
	d.src.Types, err = d.src.KernelTypes()
	qt.Assert(t, qt.IsNil(err))
	return d
}

const (
	xdpCtx = "(struct xdp_md * ctx) int in struct xdp_buff"
	skbCtx = "(struct __sk_buff * ctx) int in struct sk_buff"
)

// inDumps are what patterns name in the dumps of all kernels.
var inDumps = []struct {
	patterns string
	subprogs bool
	want     []string
}{
	{"prog:xdp_main", false, []string{"program xdp_main" + xdpCtx}},
	{"prog:xdp_main", true, []string{
		"program xdp_main" + xdpCtx,
		"subprogram module1" + xdpCtx + " refused",
		"extension fw_mod" + xdpCtx + " for module1 of xdp_main",
		"subprogram module2" + xdpCtx,
		"subprogram module3" + xdpCtx,
		"program xdp_mod" + xdpCtx + " prog_array[3]",
	}},
	{"prog:fw_mod", false, []string{"extension fw_mod" + xdpCtx + " for module1 of xdp_main"}},
	{"prog:xdp_main/module[23]", true, []string{"subprogram module2" + xdpCtx, "subprogram module3" + xdpCtx}},
	{"prog:xdp_main/module2 prog:xdp_mod prog:xdp_m??? prog:xdp_m??n", false, []string{
		"subprogram module2" + xdpCtx, "program xdp_mod" + xdpCtx + " prog_array[3]", "program xdp_main" + xdpCtx,
	}},
	{"module2", false, []string{"subprogram module2" + xdpCtx}},
	{"xdp_main", false, []string{"program xdp_main" + xdpCtx}},
	// Tail calls lead in rings.
	{"prog:entry2", true, []string{"program entry2" + skbCtx + " jmp2[0]", "subprogram subprog_c" + skbCtx}},
	{"prog:entry", true, []string{
		"program entry" + skbCtx, "subprogram subprog_a" + skbCtx, "subprogram subprog_b" + skbCtx,
		"program classifier_0" + skbCtx + " jmp[0]", "subprogram subprog_a" + skbCtx,
		"program classifier_1" + skbCtx + " jmp[1]", "subprogram subprog_b" + skbCtx,
	}},
	{"map:jmp", false, []string{"program classifier_0" + skbCtx + " jmp[0]", "program classifier_1" + skbCtx + " jmp[1]"}},
	{"xdp@lo", true, []string{"program zoo_xdp" + xdpCtx, "subprogram count(__u32 slot) void", "subprogram size_class(__u32 len) int"}},
	{"tc@zoo0:egress", false, []string{"program z_tc in struct sk_buff refused"}},
	{"cgroup@/zoo:inet4_connect", false, []string{"program z_cg_connect4 in struct bpf_sock_addr_kern refused"}},
	{"cgroup@/sys/fs/cgroup/zoo/:sysctl", false, []string{"program z_cg_sysctl in struct bpf_sysctl_kern refused"}},
	{"type:lwt_seg6local", false, []string{"program z_lwt_seg6local in struct sk_buff refused"}},
	{"tcp_connect", false, []string{"function tcp_connect(struct sock * sk) int"}},
	{"vmlinux:tcp_v4_connec?", false, []string{"function tcp_v4_connect(struct sock * sk, %s * uaddr, int addr_len) int"}},
	{"tp:net_dev_q*", false, []string{"tracepoint tracepoint:net_dev_queue(struct sk_buff * skb) void"}},
	{"tracepoint:net_dev_xmit", false, []string{
		"tracepoint tracepoint:net_dev_xmit(struct sk_buff * skb, int rc, struct net_device * dev, unsigned int skb_len) void",
	}},
	{"start_kernel", false, []string{"function start_kernel() void refused"}},
}

func TestDumps(t *testing.T) {
	for _, kernel := range matrix {
		t.Run(kernel, func(t *testing.T) {
			d := open(t, kernel)
			for _, test := range inDumps {
				fs, err := tracee.Resolve(t.Context(), d.src, strings.Fields(test.patterns), tracee.Options{Subprogs: test.subprogs})
				comment := qt.Commentf("%s", test.patterns)
				qt.Assert(t, qt.IsNil(err), comment)
				want := slices.Clone(test.want)
				if _, err := d.src.Types.Struct("tcx_entry"); test.patterns == "tc@zoo0:egress" && err == nil { // since 6.6
					want = append([]string{"program z_tcx_out in struct sk_buff refused"}, want...)
				}
				for i := range want {
					want[i] = strings.Replace(want[i], "%s", map[bool]string{true: "struct sockaddr_unsized", false: "struct sockaddr"}[kernel == "7.2"], 1)
				}
				qt.Check(t, qt.DeepEquals(lines(fs), want), comment)
				d.check(t, fs)
			}
		})
	}
}

// check compares addresses with the kernel's own list.
func (d *dumped) check(t *testing.T, fs []*tracee.Function) {
	t.Helper()
	for _, f := range fs {
		switch {
		case f.Kind == tracee.Tracepoint:
		case f.Prog != nil:
			if at := d.at[uint64(f.Addr)]; f.Proto != nil && !strings.HasSuffix(at, "_"+f.Name) { // without BTF the name is cut
				t.Errorf("%s is at %v; the kernel has %s there", f, f.Addr, at)
			}
		default:
			if at := d.addr[f.String()]; !slices.Contains(at, uint64(f.Addr)) {
				t.Errorf("%s is at %v; the kernel says %x", f, f.Addr, at)
			}
		}
	}
}

// TestModules: modules have types since 5.11.
func TestModules(t *testing.T) {
	for _, kernel := range matrix {
		t.Run(kernel, func(t *testing.T) {
			d := open(t, kernel)
			fs, err := tracee.Resolve(t.Context(), d.src, []string{"veth:veth_xdp_*"}, tracee.Options{})
			exact, eerr := tracee.Resolve(t.Context(), d.src, []string{"veth_xmit"}, tracee.Options{})
			qt.Assert(t, qt.IsNil(eerr))
			qt.Check(t, qt.DeepEquals(names(exact), []string{"veth:veth_xmit"}))
			d.check(t, exact)
			if kernel == "5.10" {
				qt.Check(t, qt.ErrorMatches(err, `the kernel has no types \(BTF\) of module veth, by which its functions could be found`))
				qt.Check(t, qt.IsNotNil(exact[0].Refused))
				return
			}
			qt.Assert(t, qt.IsNil(err))
			qt.Check(t, qt.IsNil(exact[0].Refused))
			qt.Check(t, qt.IsTrue(slices.Contains(names(fs), "veth:veth_xdp_xmit")))
			d.check(t, fs)
			kind, arg, ok := exact[0].Packet()
			qt.Check(t, qt.IsTrue(kind == "sk_buff" && arg == 0 && ok))
		})
	}
}

// TestPacket: the first argument that is a packet, in the kernel's own terms.
func TestPacket(t *testing.T) {
	d := open(t, "6.12")
	for _, test := range []struct{ pattern, want string }{
		{"prog:xdp_main", "xdp_buff 0 true"},
		{"prog:xdp_main/module2", "xdp_buff 0 true"},
		{"prog:fw_mod", "xdp_buff 0 true"},
		{"prog:entry", "sk_buff 0 true"},
		{"prog:zoo_xdp/count", " 0 false"},
		{"prog:z_sock_ops", " 0 false"},
		{"tcp_connect", " 0 false"},
		{"tcp_conn_request", "sk_buff 3 true"},
		{"veth:veth_xdp_rcv_one", "xdp_frame 1 true"},
		{"xdp_do_redirect", "xdp_buff 1 true"},
		{"tp:net_dev_xmit", "sk_buff 0 true"},
		{"tp:net_dev_xmit_timeout", " 0 false"},
	} {
		fs, err := tracee.Resolve(t.Context(), d.src, []string{test.pattern}, tracee.Options{})
		qt.Assert(t, qt.IsNil(err))
		kind, arg, ok := fs[0].Packet()
		qt.Check(t, qt.Equals(fmt.Sprint(kind, " ", arg, " ", ok), test.want), qt.Commentf("%s", test.pattern))
	}
}

// TestRefused: functions of which no good can be done say why.
func TestRefused(t *testing.T) {
	for _, kernel := range matrix {
		t.Run(kernel, func(t *testing.T) {
			d := open(t, kernel)
			types, err := d.src.KernelTypes()
			qt.Assert(t, qt.IsNil(err))
			described := make(map[string]bool)
			for f := range types.Match(ctype.Func, func([]byte) bool { return true }) {
				described[f.Name()] = true
			}
			var copied, twice string
			for name, at := range d.addr {
				base, _, isCopy := strings.Cut(name, ".constprop.")
				if isCopy && len(d.addr[base]) == 0 && !strings.Contains(base, ":") && (copied == "" || base < copied) {
					copied = base
				}
				if len(at) > 1 && described[name] && (twice == "" || name < twice) {
					twice = name
				}
			}
			qt.Assert(t, qt.IsTrue(copied != "" && twice != ""))
			fs, err := tracee.Resolve(t.Context(), d.src, []string{twice}, tracee.Options{})
			qt.Assert(t, qt.IsNil(err))
			qt.Check(t, qt.Matches(fs[0].Refused.Reason, `\d+ symbols are called .*: the kernel cannot be told which`))
			fs, err = tracee.Resolve(t.Context(), d.src, []string{copied}, tracee.Options{})
			if err == nil {
				qt.Check(t, qt.Matches(fs[0].Refused.Reason, `the compiler made .*constprop.*`), qt.Commentf("%s", copied))
			} else {
				qt.Check(t, qt.ErrorMatches(err, `the compiler left no function .*constprop.*`), qt.Commentf("%s", copied))
			}
			fs, err = tracee.Resolve(t.Context(), d.src, []string{"entry_SYSCALL_64"}, tracee.Options{})
			qt.Assert(t, qt.IsNil(err))
			qt.Check(t, qt.Matches(fs[0].Refused.Reason, `.*assembler.*`))
		})
	}
}

// TestNothing: what names nothing is said in a sentence.
func TestNothing(t *testing.T) {
	d := open(t, "6.1")
	for _, test := range []struct{ pattern, want string }{
		{"prog:9999", `there is no BPF program with id 9999 .*`},
		{"prog:xdp_mian", `there is no BPF program "xdp_mian"; did you mean xdp_main\?`},
		{"prog:xdp_main/nodule1", `BPF program \d+ xdp_main has no function nodule1; did you mean module1, module2, module3\?`},
		{"type:xdpp", `no BPF program of type xdpp is loaded; did you mean xdp\?`},
		{"pid:1000000", `process 1000000 holds no BPF program, nor a link of one`},
		{"pid:x", `"pid:x": behind pid: stands the number of a process`},
		{"pin:/none", `no BPF program is pinned at /none, nor a link or an array of programs`},
		{"link:9999", `there is no BPF link with id 9999 .*`},
		{"map:slots", `map \d+ slots is no program array but of type array`},
		{"map:slotz", `there is no BPF map "slotz"; did you mean slots\?`},
		{"xdp@zoo9", `no xdp program is attached to zoo9; there are some on lo, zoo0, zoov0`},
		{"tcx@lo", `no tcx program is attached to lo`},
		{"cgroup@/none", `no cgroup program is attached to /none; there are some on .*/zoo.*`},
		{"pin:/none@all", `no BPF program is pinned at /none@all, .*`},
		{"foo@bar", `"foo@bar": in front of @ stands one of .*`},
		{"tcp_conect", `there is no function of the kernel and no BPF program called tcp_conect; did you mean tcp_connect, .*`},
		{"tcp_nonesuch*", `no function of the kernel and no BPF program fits tcp_nonesuch\*`},
		{"vmlinux:veth_xmit", `vmlinux has no function veth_xmit`},
		{"prgo:xdp_main", `there is no module prgo in the kernel, nor is prgo: a way to name functions`},
		{"tp:net_dev_xmitt", `there is no tracepoint net_dev_xmitt; did you mean net_dev_xmit.*`},
		{"tp:net:net_dev_xmit", `.*categories of tracepoints are told by the running kernel alone.*`},
		{"tcp_[", `"tcp_\[": this is no pattern: .*`},
		{"", `"": this names nothing`},
		{"prog:", `"prog:": nothing stands behind the colon`},
		{"tcp_*", `tcp_\* names \d\d\d functions, more than the 100 that are allowed: name less`},
		{"type:*", `type:\* names \d\d\d functions, more than the 100 that are allowed: name less`},
	} {
		fs, err := tracee.Resolve(t.Context(), d.src, []string{test.pattern}, tracee.Options{Max: 100})
		qt.Check(t, qt.ErrorMatches(err, test.want), qt.Commentf("%s: %v", test.pattern, names(fs)))
	}
}
