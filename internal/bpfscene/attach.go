package main

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/ksleuth/ksleuth/internal/guest/rtnl"
)

// attachWithoutLinks attaches in the ways that leave no link.
func (z *zoo) attachWithoutLinks() error {
	for _, a := range []struct {
		name, prog string
		attach     func(z *zoo, p *ebpf.Program) error
	}{
		{"xdp on lo by netlink", "zoo_xdp", func(_ *zoo, p *ebpf.Program) error {
			const genericMode = 2 // XDP_FLAGS_SKB_MODE
			lo, err := rtnl.Index("lo")
			if err != nil {
				return err
			}
			return rtnl.AttachXDP(lo, p.FD(), genericMode)
		}},
		{"tc clsact ingress, direct action", "zoo_tc", func(z *zoo, p *ebpf.Program) error {
			if err := rtnl.AddClsact(z.dummy.Index); err != nil {
				return fmt.Errorf("clsact: %w", err)
			}
			return rtnl.AddFilter(z.dummy.Index, rtnl.IngressParent, 10, rtnl.U32(rtnl.TCABPFFD, uint32(p.FD())), rtnl.Str(rtnl.TCABPFName, "zoo_tc"), rtnl.U32(rtnl.TCABPFFlags, rtnl.BPFActDirect))
		}},
		{"tc clsact egress", "tc", func(z *zoo, p *ebpf.Program) error {
			return rtnl.AddFilter(z.dummy.Index, rtnl.EgressParent, 20, rtnl.U32(rtnl.TCABPFFD, uint32(p.FD())), rtnl.Str(rtnl.TCABPFName, "z_tc"))
		}},
		{"tc action of a filter", "tc_action", func(z *zoo, p *ebpf.Program) error {
			parms := make([]byte, 20) // struct tc_act_bpf: all defaults
			action := rtnl.Nest(1, rtnl.Str(rtnl.TCAActKind, "bpf"), rtnl.Nest(rtnl.TCAActOptions,
				rtnl.Bytes(rtnl.TCAActBPFParms, parms), rtnl.U32(rtnl.TCAActBPFFD, uint32(p.FD())), rtnl.Str(rtnl.TCAActBPFName, "z_tc_action")))
			return rtnl.AddFilter(z.dummy.Index, rtnl.EgressParent, 30, rtnl.U32(rtnl.TCABPFFD, uint32(z.progs["tc"].FD())), rtnl.Str(rtnl.TCABPFName, "z_tc"), rtnl.Nest(rtnl.TCABPFAct, action))
		}},
		{"tcx ingress", "tcx_in", func(z *zoo, p *ebpf.Program) error {
			lo, err := rtnl.Index("lo")
			if err != nil {
				return err
			}
			return link.RawAttachProgram(link.RawAttachProgramOptions{Target: lo, Program: p, Attach: ebpf.AttachTCXIngress})
		}},
		{"netkit peer", "netkit_peer", func(_ *zoo, p *ebpf.Program) error {
			index, err := rtnl.Index("zook0")
			if err != nil {
				return err
			}
			other, err := (&trivial{name: "netkit_raw", typ: ebpf.SchedCLS, attach: ebpf.AttachNetkitPeer}).load()
			if err != nil {
				return err
			}
			return link.RawAttachProgram(link.RawAttachProgramOptions{Target: index, Program: other, Attach: ebpf.AttachNetkitPeer})
		}},
		{"cgroup connect4", "cg_connect4", cgroupAttach(ebpf.AttachCGroupInet4Connect, 0)},
		{"cgroup sysctl, overridable", "cg_sysctl", cgroupAttach(ebpf.AttachCGroupSysctl, unix.BPF_F_ALLOW_OVERRIDE)},
		{"cgroup getsockopt, multi", "cg_getsockopt", cgroupAttach(ebpf.AttachCGroupGetsockopt, unix.BPF_F_ALLOW_MULTI)},
		{"cgroup device", "cg_device", cgroupAttach(ebpf.AttachCGroupDevice, unix.BPF_F_ALLOW_MULTI)},
		{"cgroup skb egress, with storage", "zoo_cgroup_storage", cgroupAttach(ebpf.AttachCGroupInetEgress, unix.BPF_F_ALLOW_MULTI)},
		{"cgroup sock_create", "cg_sock", cgroupAttach(ebpf.AttachCGroupInetSockCreate, unix.BPF_F_ALLOW_MULTI)},
		{"cgroup skb ingress, second", "cg_skb_in", cgroupAttach(ebpf.AttachCGroupInetIngress, unix.BPF_F_ALLOW_MULTI)},
		{"perf event by ioctl", "perf_event", attachPerf(unix.PerfEventAttr{
			Type: unix.PERF_TYPE_SOFTWARE, Config: unix.PERF_COUNT_SW_ALIGNMENT_FAULTS, Size: unix.PERF_ATTR_SIZE_VER5, Sample: 1000})},
		{"kprobe by ioctl", "kprobe", attachKprobe},
		{"sockmap parser", "skb_parser", mapAttach("sockets", ebpf.AttachSkSKBStreamParser)},
		{"sockmap verdict", "skb_verdict", mapAttach("sockets", ebpf.AttachSkSKBStreamVerdict)},
		{"sockhash message verdict", "sk_msg", mapAttach("sockets_hash", ebpf.AttachSkMsgVerdict)},
		{"netns flow dissector", "flow_attach", func(z *zoo, p *ebpf.Program) error {
			return z.inNewNetNs(func(int) error {
				return link.RawAttachProgram(link.RawAttachProgramOptions{Program: p, Attach: ebpf.AttachFlowDissector})
			})
		}},
		{"socket filter", "socket", func(z *zoo, p *ebpf.Program) error {
			c, err := net.ListenPacket("udp4", "127.0.0.1:0")
			if err != nil {
				return err
			}
			z.kept = append(z.kept, c)
			return link.AttachSocketFilter(c.(syscall.Conn), p)
		}},
	} {
		z.try("attachment "+a.name, func() error {
			p, err := z.prog(a.prog)
			if err != nil {
				return err
			}
			return a.attach(z, p)
		})
	}
	z.leftOut = append(z.leftOut, "left out: lightweight tunnels' programs are loaded, no route has one")
	return nil
}

func cgroupAttach(attach ebpf.AttachType, flags uint32) func(*zoo, *ebpf.Program) error {
	return func(z *zoo, p *ebpf.Program) error {
		return link.RawAttachProgram(link.RawAttachProgramOptions{Target: int(z.cgroup.Fd()), Program: p, Attach: attach, Flags: flags})
	}
}

func mapAttach(name string, attach ebpf.AttachType) func(*zoo, *ebpf.Program) error {
	return func(z *zoo, p *ebpf.Program) error {
		m := z.maps[name]
		if m == nil {
			return errAbsent
		}
		return link.RawAttachProgram(link.RawAttachProgramOptions{Target: m.FD(), Program: p, Attach: attach})
	}
}

// attachPerf opens an event and gives it a program by ioctl.
func attachPerf(attr unix.PerfEventAttr) func(*zoo, *ebpf.Program) error {
	return func(z *zoo, p *ebpf.Program) error {
		fd, err := unix.PerfEventOpen(&attr, -1, 0, -1, unix.PERF_FLAG_FD_CLOEXEC)
		if err != nil {
			return err
		}
		z.kept = append(z.kept, os.NewFile(uintptr(fd), "perf"))
		return unix.IoctlSetInt(fd, unix.PERF_EVENT_IOC_SET_BPF, p.FD())
	}
}

// attachKprobe opens a kprobe through its PMU.
func attachKprobe(z *zoo, p *ebpf.Program) error {
	b, err := os.ReadFile("/sys/bus/event_source/devices/kprobe/type")
	if err != nil {
		return err
	}
	typ, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return err
	}
	name := append([]byte("bpf_fentry_test3"), 0)
	z.kept = append(z.kept, name)
	return attachPerf(unix.PerfEventAttr{
		Type: uint32(typ), Size: unix.PERF_ATTR_SIZE_VER5, Ext1: uint64(uintptr(unsafe.Pointer(&name[0]))),
	})(z, p)
}
