package tracee

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/ksleuth/ksleuth/bpf"
	"github.com/ksleuth/ksleuth/ctype"
)

// A hooked is a program at work somewhere.
type hooked struct {
	prog   int
	attach string // type of attachment, if it tells more than the kind
	target bpf.Target
}

// byHook resolves KIND@TARGET and KIND@TARGET:ATTACH.
func (r *resolver) byHook(name string, kinds []string, target string) error {
	all, err := r.hooked(kinds)
	fits := r.onDevice
	if name == "cgroup" {
		fits = inCgroup
	}
	for _, split := range []bool{false, true} { // the path of a cgroup may have a colon
		want, attach := target, ""
		if i := strings.LastIndexByte(target, ':'); split && i >= 0 {
			want, attach = target[:i], target[i+1:]
		}
		var ids []int
		for _, h := range all {
			if fits(h.target, want) && attachFits(h.attach, attach) {
				ids = append(ids, h.prog)
			}
		}
		if len(ids) > 0 {
			r.gap(err)
			return r.addIDs(ids)
		}
	}
	return r.nothingHooked(name, target, all, err)
}

// attachFits compares a type of attachment, as tcx_ingress, with what a user
// calls it, as ingress.
func attachFits(attach, want string) bool {
	return want == "" || bpf.Fits(want, attach) || strings.HasSuffix(attach, "_"+want)
}

// hooked returns the programs at work by links and attachments of some kinds.
func (r *resolver) hooked(kinds []string) ([]hooked, error) {
	links, lerr := r.links()
	var out []hooked
	for _, l := range links {
		if l.ProgID == 0 || !slices.Contains(kinds, l.Type) {
			continue
		}
		for _, t := range l.Targets {
			out = append(out, hooked{l.ProgID, l.Attach, t})
		}
	}
	view := r.src.BPF
	if view.Running {
		view.Kernel = nil // netlink and bpf(2) have these, without a look at every socket
	}
	attachments, aerr := view.Attachments(r.ctx)
	for _, a := range attachments {
		if slices.Contains(kinds, a.Kind) {
			out = append(out, hooked{a.ProgID, a.Attach, a.Target})
		}
	}
	return out, errors.Join(lerr, aerr)
}

// onDevice reports whether a target is a device of this network namespace with
// a name or index.
func (r *resolver) onDevice(t bpf.Target, want string) bool {
	if t.Kind != bpf.TargetNetdev || t.Netns != r.netns() {
		return false
	}
	return bpf.Fits(want, t.Name, strconv.Itoa(t.Ifindex))
}

// netns returns the inode number of the network namespace that devices are
// named in: that of this process, or the first one of a dump. It is 0 if that
// cannot be told.
func (r *resolver) netns() uint64 {
	if !r.src.BPF.Running {
		k := r.src.BPF.Kernel
		addr, err := k.Addr("init_net")
		if err != nil {
			return 0
		}
		return k.Object("net", addr).Uint("ns.inum")
	}
	link, err := os.Readlink("/proc/self/ns/net") // net:[4026531840]
	if err != nil {
		return 0
	}
	n, _ := strconv.ParseUint(strings.Trim(strings.TrimPrefix(link, "net:"), "[]"), 10, 64)
	return n
}

// cgroupRoots are where the hierarchy with BPF programs is mounted by custom.
var cgroupRoots = []string{"/sys/fs/cgroup/unified", "/sys/fs/cgroup"}

// inCgroup reports whether a target is the cgroup of a path, from the root of
// the hierarchy or as a file.
func inCgroup(t bpf.Target, want string) bool {
	if t.Kind != bpf.TargetCgroup || t.Name == "" {
		return false
	}
	if bpf.Fits(want, t.Name) {
		return true
	}
	for _, root := range cgroupRoots {
		if rest, ok := strings.CutPrefix(want, root); ok {
			return bpf.Fits("/"+strings.Trim(rest, "/"), t.Name)
		}
	}
	return false
}

// nothingHooked says that nothing is at work at a place, and where there is.
func (r *resolver) nothingHooked(name, target string, all []hooked, err error) error {
	var places []string
	for _, h := range all {
		if h.target.Kind == bpf.TargetCgroup || h.target.Netns == r.netns() {
			places = append(places, h.target.Name)
		}
	}
	slices.Sort(places)
	places = slices.Compact(places)
	device, _, _ := strings.Cut(target, ":")
	if name != "cgroup" && r.src.BPF.Running && !isGlob(device) {
		if near, missing := noDevice(device); missing {
			return r.notFound(nil, near, "there is no network device %s in this network namespace", device)
		}
	}
	text := fmt.Sprintf("no %s program is attached to %s", name, target)
	if n := len(places); n > 0 {
		const most = 8
		text += "; there are some on " + strings.Join(places[:min(n, most)], ", ")
	}
	return r.notFound(err, nil, "%s", text)
}

// noDevice reports whether there is no device of a name or index, and names
// those that come near.
func noDevice(name string) (near []string, missing bool) {
	devices, err := net.Interfaces()
	if err != nil {
		return nil, false
	}
	var names []string
	for _, d := range devices {
		if d.Name == name || strconv.Itoa(d.Index) == name {
			return nil, false
		}
		names = append(names, d.Name)
	}
	return ctype.Suggest(name, names), true
}
