//go:build linux

package bpfsys

import (
	"errors"
	"fmt"
	"strings"
	"structs"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/ksleuth/ksleuth/bpf"
)

// linkReaders fill in what the links of one type tell. A link that lost its
// target has none. The members of the union name the commit that brought them,
// where the type of link is older.
var linkReaders = map[string]func(*linkReader, *bpf.Link) error{
	"raw_tracepoint": rawTracepoint,
	"tracing":        tracing,
	"cgroup":         cgroupLink,
	"iter":           iterator,
	"netns":          namespaceLink,
	"xdp":            xdpLink,
	"perf_event":     perfLink,
	"kprobe_multi":   kprobeMulti,
	"uprobe_multi":   uprobeMulti,
	"tracing_multi":  tracingMulti,
	"struct_ops":     structOps,
	"netfilter":      netfilter,
	"tcx":            netdevLink,
	"netkit":         netdevLink,
	"sockmap":        sockmapLink,
}

func rawTracepoint(r *linkReader, l *bpf.Link) error {
	type member struct {
		_      structs.HostLayout
		name   unsafe.Pointer
		len    uint32
		pad1   uint32
		cookie uint64 // 2fe99eb0ccf2, 6.17
	}
	buf := make([]byte, 128)
	u, err := ask(r, member{name: first(buf), len: uint32(len(buf))})
	l.Cookie = u.cookie
	if err == nil {
		l.Targets = []bpf.Target{{Kind: bpf.TargetTracepoint, Name: cstr(buf)}}
	}
	return err
}

func cgroupLink(r *linkReader, l *bpf.Link) error {
	u := as[struct {
		_      structs.HostLayout
		id     uint64
		attach uint32
		pad2   uint32
	}](r)
	l.Attach = attachType(u.attach)
	if u.id != 0 {
		l.Targets = []bpf.Target{{Kind: bpf.TargetCgroup, Value: int64(u.id)}}
	}
	return nil
}

// cgroupOrders are enum bpf_cgroup_iter_order.
var cgroupOrders = [...]string{"order_unspec", "self_only", "descendants_pre", "descendants_post", "ancestors_up", "children"}

func iterator(r *linkReader, l *bpf.Link) error {
	type member struct {
		_      structs.HostLayout
		name   unsafe.Pointer
		len    uint32
		mapID  uint32
		detail uint64 // a cgroup's id, or tid and pid: 21fb6f2aa389, 6.1
		order  uint32
		pad3   uint32
	}
	buf := make([]byte, 128)
	u, err := ask(r, member{name: first(buf), len: uint32(len(buf))})
	if err != nil {
		return err
	}
	t := bpf.Target{Kind: bpf.TargetIterator, Name: cstr(buf), MapID: int(u.mapID)}
	switch {
	case t.Name == "cgroup":
		t.Value = int64(u.detail)
		t.Flags = []string{named(cgroupOrders[:], u.order)}
	case strings.HasPrefix(t.Name, "task"):
		if t.PID = int(uint32(u.detail)); t.PID == 0 {
			t.PID = int(u.detail >> 32)
		}
	}
	l.Targets = []bpf.Target{t}
	return nil
}

// pair is the shape of several members: what, and the attach type.
type pair struct {
	_          structs.HostLayout
	of, attach uint32
}

func namespaceLink(r *linkReader, l *bpf.Link) error {
	u := as[pair](r)
	l.Attach = attachType(u.attach)
	if u.of != 0 {
		l.Targets = []bpf.Target{{Kind: bpf.TargetNetns, Netns: uint64(u.of)}}
	}
	return nil
}

func netdevLink(r *linkReader, l *bpf.Link) error {
	l.Attach = attachType(as[pair](r).attach)
	return xdpLink(r, l)
}

func xdpLink(r *linkReader, l *bpf.Link) error {
	if u := as[pair](r); u.of != 0 {
		l.Targets = []bpf.Target{{Kind: bpf.TargetNetdev, Ifindex: int(u.of)}}
	}
	return nil
}

func sockmapLink(r *linkReader, l *bpf.Link) error {
	u := as[pair](r)
	l.Attach = attachType(u.attach)
	if u.of != 0 {
		l.Targets = []bpf.Target{{Kind: bpf.TargetMap, MapID: int(u.of)}}
	}
	return nil
}

func structOps(r *linkReader, l *bpf.Link) error {
	id := as[pair](r).of
	if id == 0 {
		return nil
	}
	t := bpf.Target{Kind: bpf.TargetStructOps, MapID: int(id)}
	var err error
	t.Name, err = r.structOpsName(id)
	l.Targets = []bpf.Target{t}
	return err
}

// structOpsName returns which of the kernel's structs a map implements.
func (r *linkReader) structOpsName(id uint32) (string, error) {
	fd, err := openID(mapKind, id)
	if errors.Is(err, unix.ENOENT) {
		return "", nil // detached meanwhile
	}
	if err != nil {
		return "", fmt.Errorf("map %d: %w", id, err)
	}
	defer unix.Close(fd)
	m := &mapReader{btfs: r.btfs}
	shape, err := m.read(int(id), fd)
	if err != nil {
		return "", fmt.Errorf("map %d: %w", id, err)
	}
	return strings.TrimPrefix(strings.TrimPrefix(shape.ValueType, "struct "), structOpsType), nil
}

// The protocol families that a netfilter link can have, and their hooks
// (include/uapi/linux/netfilter.h).
var (
	nfProtos = map[uint32]string{2: "ipv4", 10: "ipv6"}
	nfHooks  = [...]string{"prerouting", "input", "forward", "output", "postrouting"}
)

// nfDefrag is BPF_F_NETFILTER_IP_DEFRAG (91721c2d02d3, 6.6).
const nfDefrag = 1

func netfilter(r *linkReader, l *bpf.Link) error {
	u := as[struct {
		_        structs.HostLayout
		pf, hook uint32
		prio     int32
		flags    uint32
	}](r)
	family, ok := nfProtos[u.pf]
	if !ok {
		family = fmt.Sprintf("pf %d", u.pf)
	}
	hook := fmt.Sprintf("hook %d", u.hook)
	if u.hook < uint32(len(nfHooks)) {
		hook = nfHooks[u.hook]
	}
	t := bpf.Target{Kind: bpf.TargetNetfilter, Name: family + " " + hook, Value: int64(u.prio)}
	if u.flags&nfDefrag != 0 {
		t.Flags = []string{"defrag"}
	}
	l.Targets = []bpf.Target{t}
	return nil
}
