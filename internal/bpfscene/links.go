package main

import (
	"fmt"
	"os"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/ksleuth/ksleuth/internal/guest/rtnl"
)

// uprobed and uretprobed are targets of user probes. Nothing calls them.
//
//go:noinline
func uprobed() int { return 1 }

//go:noinline
func uretprobed() int { return 2 }

// probeTargets keeps the linker from dropping them.
var probeTargets = []func() int{uprobed, uretprobed}

const (
	uprobedSymbol    = "main.uprobed"
	uretprobedSymbol = "main.uretprobed"
)

// A maker makes a link of a program.
type maker struct {
	name string
	prog string
	make func(z *zoo, p *ebpf.Program) (link.Link, error)
}

// cgroupLink attaches to the zoo's cgroup.
func cgroupLink(attach ebpf.AttachType) func(*zoo, *ebpf.Program) (link.Link, error) {
	return func(z *zoo, p *ebpf.Program) (link.Link, error) {
		return link.AttachCgroup(link.CgroupOptions{Path: z.cgroup.Name(), Attach: attach, Program: p})
	}
}

// xdpLink attaches to a device.
func xdpLink(device string, mode link.XDPAttachFlags) func(*zoo, *ebpf.Program) (link.Link, error) {
	return func(z *zoo, p *ebpf.Program) (link.Link, error) {
		index, err := rtnl.Index(device)
		if err != nil {
			return nil, err
		}
		return link.AttachXDP(link.XDPOptions{Program: p, Interface: index, Flags: mode})
	}
}

func tcxLink(attach ebpf.AttachType) func(*zoo, *ebpf.Program) (link.Link, error) {
	return func(z *zoo, p *ebpf.Program) (link.Link, error) {
		return link.AttachTCX(link.TCXOptions{Interface: z.dummy.Index, Program: p, Attach: attach})
	}
}

func netkitLink(attach ebpf.AttachType) func(*zoo, *ebpf.Program) (link.Link, error) {
	return func(z *zoo, p *ebpf.Program) (link.Link, error) {
		index, err := rtnl.Index("zook0")
		if err != nil {
			return nil, err
		}
		return link.AttachNetkit(link.NetkitOptions{Interface: index, Program: p, Attach: attach})
	}
}

// btfLink attaches a program that was loaded for its target.
func btfLink(_ *zoo, p *ebpf.Program) (link.Link, error) {
	return link.AttachTracing(link.TracingOptions{Program: p})
}

func lsmLink(_ *zoo, p *ebpf.Program) (link.Link, error) {
	return link.AttachLSM(link.LSMOptions{Program: p})
}

// executable is the guest program as the target of user probes.
func executable(use func(*link.Executable, *ebpf.Program) (link.Link, error)) func(*zoo, *ebpf.Program) (link.Link, error) {
	return func(_ *zoo, p *ebpf.Program) (link.Link, error) {
		exe, err := link.OpenExecutable(os.Args[0])
		if err != nil {
			return nil, err
		}
		return use(exe, p)
	}
}

// multiTargets are functions for links that have several.
var multiTargets = []string{"bpf_fentry_test4", "bpf_fentry_test5", "bpf_fentry_test6"}

// makers are all links, in the order of their making.
var makers = []maker{
	{"raw_tracepoint", "raw_tp", func(_ *zoo, p *ebpf.Program) (link.Link, error) {
		return link.AttachRawTracepoint(link.RawTracepointOptions{Name: "task_newtask", Program: p})
	}},
	{"raw_tracepoint by BTF", "tp_btf", btfLink},
	{"tracing fentry", "fentry", btfLink},
	{"tracing fexit", "fexit", btfLink},
	{"tracing fmod_ret", "fmod_ret", btfLink},
	{"tracing fsession", "fsession", func(_ *zoo, p *ebpf.Program) (link.Link, error) {
		return link.AttachRawLink(link.RawLinkOptions{Program: p, Attach: traceFSession})
	}},
	{"tracing lsm", "lsm", lsmLink},
	{"tracing lsm, sleepable", "lsm_sleepable", lsmLink},
	{"cgroup lsm", "lsm_cgroup", cgroupLink(ebpf.AttachLSMCgroup)},
	{"cgroup skb ingress", "cg_skb_in", cgroupLink(ebpf.AttachCGroupInetIngress)},
	{"cgroup bind4", "cg_bind4", cgroupLink(ebpf.AttachCGroupInet4Bind)},
	{"cgroup sock_ops", "sock_ops", cgroupLink(ebpf.AttachCGroupSockOps)},
	{"cgroup connect_unix", "cg_connect_unix", cgroupLink(ebpf.AttachCgroupUnixConnect)},
	{"iter task", "iter_task", func(_ *zoo, p *ebpf.Program) (link.Link, error) {
		return link.AttachIter(link.IterOptions{Program: p})
	}},
	{"iter bpf_map_elem", "iter_map_elem", func(z *zoo, p *ebpf.Program) (link.Link, error) {
		return link.AttachIter(link.IterOptions{Program: p, Map: z.maps["records"]})
	}},
	{"netns sk_lookup", "sk_lookup", func(_ *zoo, p *ebpf.Program) (link.Link, error) {
		ns, err := os.Open("/proc/self/ns/net")
		if err != nil {
			return nil, err
		}
		defer ns.Close()
		return link.AttachNetNs(int(ns.Fd()), p)
	}},
	{"xdp generic", "xdp", xdpLink("zoo0", link.XDPGenericMode)},
	{"xdp native", "xdp_native", xdpLink("zoov0", link.XDPDriverMode)},
	{"perf_event tracepoint", "tracepoint", func(_ *zoo, p *ebpf.Program) (link.Link, error) {
		return link.Tracepoint("task", "task_newtask", p, &link.TracepointOptions{Cookie: cookie()})
	}},
	{"perf_event kprobe", "kprobe", func(_ *zoo, p *ebpf.Program) (link.Link, error) {
		return link.Kprobe("bpf_fentry_test1", p, &link.KprobeOptions{Cookie: cookie()})
	}},
	{"perf_event kretprobe", "kprobe", func(_ *zoo, p *ebpf.Program) (link.Link, error) {
		return link.Kretprobe("bpf_fentry_test2", p, nil)
	}},
	{"perf_event kprobe, second", "zoo_private_stack", func(_ *zoo, p *ebpf.Program) (link.Link, error) {
		return link.Kprobe("bpf_fentry_test1", p, nil)
	}},
	{"perf_event uprobe", "kprobe", executable(func(x *link.Executable, p *ebpf.Program) (link.Link, error) {
		return x.Uprobe(uprobedSymbol, p, nil)
	})},
	{"perf_event uretprobe", "kprobe", executable(func(x *link.Executable, p *ebpf.Program) (link.Link, error) {
		return x.Uretprobe(uretprobedSymbol, p, nil)
	})},
	{"perf_event software", "perf_event", func(z *zoo, p *ebpf.Program) (link.Link, error) {
		fd, err := softwareEvent()
		if err != nil {
			return nil, err
		}
		z.kept = append(z.kept, os.NewFile(uintptr(fd), "perf"))
		return link.AttachRawLink(link.RawLinkOptions{Target: fd, Program: p, Attach: ebpf.AttachPerfEvent})
	}},
	{"kprobe_multi", "kprobe_multi", func(_ *zoo, p *ebpf.Program) (link.Link, error) {
		return link.KprobeMulti(p, link.KprobeMultiOptions{Symbols: multiTargets, Cookies: []uint64{7, 8, 9}})
	}},
	{"kretprobe_multi", "kprobe_multi", func(_ *zoo, p *ebpf.Program) (link.Link, error) {
		return link.KretprobeMulti(p, link.KprobeMultiOptions{Symbols: multiTargets[:2]})
	}},
	{"kprobe_multi session", "kprobe_session", func(_ *zoo, p *ebpf.Program) (link.Link, error) {
		return link.KprobeMulti(p, link.KprobeMultiOptions{Symbols: multiTargets, Session: true})
	}},
	{"netfilter", "netfilter", func(_ *zoo, p *ebpf.Program) (link.Link, error) {
		return link.AttachNetfilter(link.NetfilterOptions{
			Program: p, ProtocolFamily: link.NetfilterProtoIPv4, Hook: link.NetfilterInetForward, Priority: -128,
		})
	}},
	{"tcx ingress", "tcx_in", tcxLink(ebpf.AttachTCXIngress)},
	{"tcx egress", "tcx_out", tcxLink(ebpf.AttachTCXEgress)},
	{"netkit primary", "netkit_primary", netkitLink(ebpf.AttachNetkitPrimary)},
	{"netkit peer", "netkit_peer", netkitLink(ebpf.AttachNetkitPeer)},
	{"uprobe_multi", "uprobe_multi", executable(func(x *link.Executable, p *ebpf.Program) (link.Link, error) {
		return x.UprobeMulti([]string{uprobedSymbol, uretprobedSymbol}, p, &link.UprobeMultiOptions{Cookies: []uint64{3, 4}})
	})},
	{"uretprobe_multi", "uprobe_multi", executable(func(x *link.Executable, p *ebpf.Program) (link.Link, error) {
		return x.UretprobeMulti([]string{uretprobedSymbol}, p, nil)
	})},
	{"sockmap", "sk_msg", func(z *zoo, p *ebpf.Program) (link.Link, error) {
		m := z.maps["sockets_linked"]
		if m == nil {
			return nil, errAbsent
		}
		return link.AttachRawLink(link.RawLinkOptions{Target: m.FD(), Program: p, Attach: ebpf.AttachSkMsgVerdict})
	}},
}

// cookie is a link's cookie, where links have one.
func cookie() uint64 {
	if _, err := os.Stat("/sys/kernel/btf/vmlinux"); err == nil && haveCookies() {
		return 0x1234
	}
	return 0
}

// haveCookies reports whether perf_event links exist (b89fbfbb854c, 5.15).
func haveCookies() bool {
	spec, err := btf.LoadKernelSpec()
	if err != nil {
		return false
	}
	var s *btf.Struct
	return spec.TypeByName("bpf_perf_link", &s) == nil
}

// makeLinks makes all of makers and those that need more than one step.
func (z *zoo) makeLinks() error {
	z.kept = append(z.kept, probeTargets)
	for _, m := range makers {
		z.try("link "+m.name, func() error {
			p, err := z.prog(m.prog)
			if err != nil {
				return err
			}
			l, err := m.make(z, p)
			return z.keepLink(m.name, l, err)
		})
	}
	z.try("link tracing_multi", z.linkTracingMulti)
	z.try("link netns flow_dissector", func() error {
		p, err := z.prog("flow_link")
		if err != nil {
			return err
		}
		return z.inNewNetNs(func(ns int) error {
			l, err := link.AttachNetNs(ns, p)
			return z.keepLink("netns flow_dissector", l, err)
		})
	})
	z.try("link xdp in another network namespace", func() error {
		p, err := z.prog("xdp")
		if err != nil {
			return err
		}
		return z.inNewNetNs(func(int) error {
			l, err := xdpLink("lo", link.XDPGenericMode)(z, p)
			return z.keepLink("xdp elsewhere", l, err)
		})
	})
	z.makeStructOps()
	return nil
}

// softwareEvent opens a perf event that never fires by itself.
func softwareEvent() (int, error) {
	return unix.PerfEventOpen(&unix.PerfEventAttr{
		Type: unix.PERF_TYPE_SOFTWARE, Config: unix.PERF_COUNT_SW_EMULATION_FAULTS, Size: unix.PERF_ATTR_SIZE_VER5, Sample: 1000,
	}, -1, 0, -1, unix.PERF_FLAG_FD_CLOEXEC)
}

// linkTracingMulti links one program to several functions at once, which the
// library does not know yet: BPF_LINK_TYPE_TRACING_MULTI (7.2).
func (z *zoo) linkTracingMulti() error {
	var ids []uint32
	for _, name := range []string{"bpf_fentry_test6", "bpf_fentry_test7"} {
		id, err := functionID(name)
		if err != nil {
			return err
		}
		ids = append(ids, uint32(id))
	}
	t := trivial{name: "fentry_multi", typ: ebpf.Tracing, attach: traceFEntryMulti}
	p, err := t.load()
	if err != nil {
		return err
	}
	z.progs[t.name] = p
	cookies := []uint64{61, 71}
	attr := struct {
		prog, target, attach, flags uint32
		ids, cookies                uint64
		count                       uint32
	}{prog: uint32(p.FD()), attach: uint32(traceFEntryMulti), ids: address(&ids[0]), cookies: address(&cookies[0]), count: uint32(len(ids))}
	fd, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_LINK_CREATE, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
	if errno != 0 {
		return fmt.Errorf("BPF_LINK_CREATE: %w", errno)
	}
	z.kept = append(z.kept, os.NewFile(fd, "tracing_multi"), ids, cookies)
	return nil
}
