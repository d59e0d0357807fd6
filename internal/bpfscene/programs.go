package main

import (
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"
)

// A trivial program does nothing but return a value that its type allows.
type trivial struct {
	name   string
	typ    ebpf.ProgramType
	attach ebpf.AttachType
	to     string // what it attaches to by BTF
	ret    int32
	flags  uint32
}

// trivials has a program of every type and attach type that zoo.bpf.c does not
// have.
var trivials = []trivial{
	{name: "socket", typ: ebpf.SocketFilter},
	{name: "kprobe", typ: ebpf.Kprobe},
	{name: "kprobe_multi", typ: ebpf.Kprobe, attach: ebpf.AttachTraceKprobeMulti},
	{name: "kprobe_session", typ: ebpf.Kprobe, attach: ebpf.AttachTraceKprobeSession},
	{name: "uprobe_multi", typ: ebpf.Kprobe, attach: ebpf.AttachTraceUprobeMulti},
	{name: "uprobe_sleepable", typ: ebpf.Kprobe, flags: unix.BPF_F_SLEEPABLE},
	{name: "tc", typ: ebpf.SchedCLS},
	{name: "tc_action", typ: ebpf.SchedACT},
	{name: "tcx_in", typ: ebpf.SchedCLS, attach: ebpf.AttachTCXIngress},
	{name: "tcx_out", typ: ebpf.SchedCLS, attach: ebpf.AttachTCXEgress},
	{name: "netkit_primary", typ: ebpf.SchedCLS, attach: ebpf.AttachNetkitPrimary},
	{name: "netkit_peer", typ: ebpf.SchedCLS, attach: ebpf.AttachNetkitPeer},
	{name: "tracepoint", typ: ebpf.TracePoint},
	{name: "xdp", typ: ebpf.XDP, ret: 2},
	{name: "xdp_native", typ: ebpf.XDP, ret: 2},
	{name: "xdp_frags", typ: ebpf.XDP, ret: 2, flags: unix.BPF_F_XDP_HAS_FRAGS},
	{name: "xdp_devmap", typ: ebpf.XDP, attach: ebpf.AttachXDPDevMap, ret: 2},
	{name: "xdp_cpumap", typ: ebpf.XDP, attach: ebpf.AttachXDPCPUMap, ret: 2},
	{name: "perf_event", typ: ebpf.PerfEvent},
	{name: "cg_skb_in", typ: ebpf.CGroupSKB, attach: ebpf.AttachCGroupInetIngress, ret: 1},
	{name: "cg_sock", typ: ebpf.CGroupSock, attach: ebpf.AttachCGroupInetSockCreate, ret: 1},
	{name: "cg_sock_release", typ: ebpf.CGroupSock, attach: ebpf.AttachCgroupInetSockRelease, ret: 1},
	{name: "cg_post_bind4", typ: ebpf.CGroupSock, attach: ebpf.AttachCGroupInet4PostBind, ret: 1},
	{name: "lwt_in", typ: ebpf.LWTIn},
	{name: "lwt_out", typ: ebpf.LWTOut},
	{name: "lwt_xmit", typ: ebpf.LWTXmit},
	{name: "lwt_seg6local", typ: ebpf.LWTSeg6Local},
	{name: "sock_ops", typ: ebpf.SockOps, attach: ebpf.AttachCGroupSockOps, ret: 1},
	{name: "skb_parser", typ: ebpf.SkSKB, attach: ebpf.AttachSkSKBStreamParser},
	{name: "skb_verdict", typ: ebpf.SkSKB, attach: ebpf.AttachSkSKBStreamVerdict, ret: 1},
	{name: "cg_device", typ: ebpf.CGroupDevice, attach: ebpf.AttachCGroupDevice, ret: 1},
	{name: "sk_msg", typ: ebpf.SkMsg, attach: ebpf.AttachSkMsgVerdict, ret: 1},
	{name: "raw_tp", typ: ebpf.RawTracepoint},
	{name: "raw_tp_writable", typ: ebpf.RawTracepointWritable},
	{name: "cg_bind4", typ: ebpf.CGroupSockAddr, attach: ebpf.AttachCGroupInet4Bind, ret: 1},
	{name: "cg_bind6", typ: ebpf.CGroupSockAddr, attach: ebpf.AttachCGroupInet6Bind, ret: 1},
	{name: "cg_connect4", typ: ebpf.CGroupSockAddr, attach: ebpf.AttachCGroupInet4Connect, ret: 1},
	{name: "cg_connect6", typ: ebpf.CGroupSockAddr, attach: ebpf.AttachCGroupInet6Connect, ret: 1},
	{name: "cg_sendmsg4", typ: ebpf.CGroupSockAddr, attach: ebpf.AttachCGroupUDP4Sendmsg, ret: 1},
	{name: "cg_recvmsg4", typ: ebpf.CGroupSockAddr, attach: ebpf.AttachCGroupUDP4Recvmsg, ret: 1},
	{name: "cg_getpeername4", typ: ebpf.CGroupSockAddr, attach: ebpf.AttachCgroupInet4GetPeername, ret: 1},
	{name: "cg_getsockname4", typ: ebpf.CGroupSockAddr, attach: ebpf.AttachCgroupInet4GetSockname, ret: 1},
	{name: "cg_connect_unix", typ: ebpf.CGroupSockAddr, attach: ebpf.AttachCgroupUnixConnect, ret: 1},
	{name: "sk_reuseport", typ: ebpf.SkReuseport, attach: ebpf.AttachSkReuseportSelect, ret: 1},
	{name: "flow_link", typ: ebpf.FlowDissector, attach: ebpf.AttachFlowDissector},
	{name: "flow_attach", typ: ebpf.FlowDissector, attach: ebpf.AttachFlowDissector},
	{name: "cg_sysctl", typ: ebpf.CGroupSysctl, attach: ebpf.AttachCGroupSysctl, ret: 1},
	{name: "cg_getsockopt", typ: ebpf.CGroupSockopt, attach: ebpf.AttachCGroupGetsockopt, ret: 1},
	{name: "cg_setsockopt", typ: ebpf.CGroupSockopt, attach: ebpf.AttachCGroupSetsockopt, ret: 1},
	{name: "lirc_mode2", typ: ebpf.LircMode2, attach: ebpf.AttachLircMode2},
	{name: "tp_btf", typ: ebpf.Tracing, attach: ebpf.AttachTraceRawTp, to: "task_rename"},
	{name: "fentry", typ: ebpf.Tracing, attach: ebpf.AttachTraceFEntry, to: "bpf_fentry_test4"},
	{name: "fexit", typ: ebpf.Tracing, attach: ebpf.AttachTraceFExit, to: "bpf_fentry_test4"},
	{name: "fmod_ret", typ: ebpf.Tracing, attach: ebpf.AttachModifyReturn, to: "security_task_getioprio"},
	{name: "fsession", typ: ebpf.Tracing, attach: traceFSession, to: "bpf_fentry_test5"},
	{name: "iter_task", typ: ebpf.Tracing, attach: ebpf.AttachTraceIter, to: "task"},
	{name: "iter_map_elem", typ: ebpf.Tracing, attach: ebpf.AttachTraceIter, to: "bpf_map_elem"},
	{name: "iter_sleepable", typ: ebpf.Tracing, attach: ebpf.AttachTraceIter, to: "task", flags: unix.BPF_F_SLEEPABLE},
	{name: "lsm", typ: ebpf.LSM, attach: ebpf.AttachLSMMac, to: "task_setioprio"},
	{name: "lsm_sleepable", typ: ebpf.LSM, attach: ebpf.AttachLSMMac, to: "inode_rename", flags: unix.BPF_F_SLEEPABLE},
	{name: "lsm_cgroup", typ: ebpf.LSM, attach: ebpf.AttachLSMCgroup, to: "socket_listen", ret: 1},
	{name: "sk_lookup", typ: ebpf.SkLookup, attach: ebpf.AttachSkLookup, ret: 1},
	{name: "syscall", typ: ebpf.Syscall, flags: unix.BPF_F_SLEEPABLE},
	{name: "netfilter", typ: ebpf.Netfilter, attach: ebpf.AttachNetfilter, ret: 1},
}

// load loads a trivial program.
func (t *trivial) load() (*ebpf.Program, error) {
	switch t.attach {
	case traceFSession, traceFEntryMulti:
		return t.loadRaw("")
	case ebpf.AttachLSMCgroup:
		return t.loadRaw("bpf_lsm_")
	}
	return ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "z_" + t.name, Type: t.typ, AttachType: t.attach, AttachTo: t.to, Flags: t.flags, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, t.ret), asm.Return()},
	})
}

// makePrograms loads trivials, and one that uses an arena.
func (z *zoo) makePrograms() error {
	for i := range trivials {
		t := &trivials[i]
		z.try(fmt.Sprintf("program %s (%v, %v)", t.name, t.typ, t.attach), func() error {
			p, err := t.load()
			if err == nil {
				z.progs[t.name] = p
			}
			return err
		})
	}
	z.try("program arena_user (arena)", z.loadArenaUser)
	return nil
}

// loadArenaUser loads a program that would store into the arena: the JIT has
// code of its own for that (6082b6c328b5, 6.9).
func (z *zoo) loadArenaUser() error {
	m := z.maps["arena"]
	if m == nil {
		return fmt.Errorf("map arena: %w", errAbsent)
	}
	const addrSpaceCast, toKernel = 1, 1 // offset and immediate of the cast
	cast := asm.Mov.Reg(asm.R2, asm.R2)
	cast.Offset, cast.Constant = addrSpaceCast, toKernel
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "z_arena_user", Type: ebpf.Syscall, Flags: unix.BPF_F_SLEEPABLE, License: "GPL",
		Instructions: asm.Instructions{
			asm.LoadMapPtr(asm.R1, m.FD()),
			asm.Mov.Imm(asm.R2, 64),
			cast,
			asm.StoreImm(asm.R2, 0, 7, asm.Word),
			asm.LoadMem(asm.R3, asm.R2, 8, asm.Word),
			asm.Mov.Imm(asm.R0, 0),
			asm.Return(),
		},
	})
	if err == nil {
		z.progs["arena_user"] = p
	}
	return err
}
