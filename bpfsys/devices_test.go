//go:build linux

package bpfsys_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/go-quicktest/qt"
	"golang.org/x/sys/unix"

	"github.com/ksleuth/ksleuth/bpf"
	"github.com/ksleuth/ksleuth/bpfsys"
)

// TestRunningKernelDevices: what ip and tc attach to a device of another
// network namespace is found, and this process stays in its own.
func TestRunningKernelDevices(t *testing.T) {
	mayAsk(t)
	need(t, "ip")
	need(t, "tc")
	run := func(args ...string) {
		t.Helper()
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%q: %v\n%s", args, err, out)
		}
	}
	dir := mountAt(t, "bpf")
	var ids []int
	pin := func(name string, typ ebpf.ProgramType) string {
		p := load(t, filterSpec(name, typ, 0))
		ids = append(ids, progID(t, p))
		path := filepath.Join(dir, name)
		qt.Assert(t, qt.IsNil(p.Pin(path)))
		return path
	}
	ns := fmt.Sprintf("ksleuth-test-%d", os.Getpid())
	run("ip", "netns", "add", ns)
	t.Cleanup(func() { exec.Command("ip", "netns", "del", ns).Run() })
	run("ip", "-n", ns, "link", "set", "lo", "xdpgeneric", "pinned", pin("net_xdp", ebpf.XDP))
	run("tc", "-n", ns, "qdisc", "add", "dev", "lo", "clsact")
	run("tc", "-n", ns, "filter", "add", "dev", "lo", "ingress", "prio", "7", "handle", "3", "chain", "2", "bpf", "da", "pinned", pin("net_in", ebpf.SchedCLS))
	run("tc", "-n", ns, "filter", "add", "dev", "lo", "egress", "prio", "9", "bpf", "pinned", pin("net_out", ebpf.SchedCLS))
	run("tc", "-n", ns, "qdisc", "add", "dev", "lo", "root", "handle", "5:", "htb")
	run("tc", "-n", ns, "class", "add", "dev", "lo", "parent", "5:", "classid", "5:1", "htb", "rate", "1mbit")
	run("tc", "-n", ns, "filter", "add", "dev", "lo", "parent", "5:1", "prio", "4", "bpf", "pinned", pin("net_class", ebpf.SchedCLS))

	var st unix.Stat_t
	qt.Assert(t, qt.IsNil(unix.Stat(filepath.Join("/run/netns", ns), &st)))
	lo := bpf.Target{Kind: bpf.TargetNetdev, Name: "lo", Ifindex: 1, Netns: st.Ino}
	want := []bpf.Attachment{
		{Kind: "xdp", ProgID: ids[0], Attach: "xdpgeneric", Target: lo},
		{Kind: "tc", ProgID: ids[1], Attach: "ingress", Target: lo, Flags: []string{"direct_action"}, Prio: 7, Handle: 3, Chain: 2},
		{Kind: "tc", ProgID: ids[2], Attach: "egress", Target: lo, Prio: 9, Handle: 1},
		{Kind: "tc", ProgID: ids[3], Attach: "htb", Target: lo, Prio: 4, Handle: 1},
	}
	own := netnsInode(t)
	for range 30 {
		all, err := bpfsys.Attachments(t.Context())
		qt.Assert(t, qt.IsNil(err))
		all = slices.DeleteFunc(all, func(a bpf.Attachment) bool { return !slices.Contains(ids, a.ProgID) })
		slices.SortFunc(all, func(a, b bpf.Attachment) int { return a.ProgID - b.ProgID })
		qt.Assert(t, qt.DeepEquals(all, want))
		qt.Assert(t, qt.Equals(netnsInode(t), own))
	}
}
