//go:build linux

package bpfsys

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/ksleuth/ksleuth/bpf"
	"github.com/ksleuth/ksleuth/kernel"
)

// Attachments returns the programs at work without a link: those of tc filters
// and actions, of XDP set by netlink, tcx and netkit in every network namespace
// that can be entered, of cgroups, of network namespaces themselves, of perf
// events that processes have descriptors of, and of sockmaps. Sockets, routes
// and the kernel's own users of programs are told by nothing but memory.
//
// A link that is being closed has no id any more a while before its program is
// off the hook: until then that program is at work without a link.
//
// With an error comes what was read.
func Attachments(ctx context.Context) ([]bpf.Attachment, error) {
	var errs kernel.Errors
	fds, err := scanFDs(ctx)
	errs.Add(err)
	links := make(map[int]*bpf.Link)
	errs.Add(addLinks(links))
	var all []bpf.Attachment
	for _, read := range attachReaders {
		found, err := read(ctx, fds)
		errs.Add(err)
		if len(found) == 0 || errors.Is(err, fs.ErrPermission) {
			continue
		}
		errs.Add(addLinks(links))
		if found = withoutLinks(found, links); len(found) == 0 {
			continue
		}
		// A link that was made and went away between the lists of links would
		// leave an attachment that never was one: what has no link is looked
		// at again.
		again, err := read(ctx, fds)
		errs.Add(err)
		errs.Add(addLinks(links))
		all = append(all, common(found, withoutLinks(again, links))...)
	}
	return all, errs.Err()
}

// attachReaders find programs at work, with links or without.
var attachReaders = [...]func(context.Context, []procFD) ([]bpf.Attachment, error){
	netPrograms, cgroupPrograms, perfPrograms, sockmapPrograms,
}

// common returns what is in both lists, as often as in both.
func common(a, b []bpf.Attachment) []bpf.Attachment {
	left := make(map[string]int)
	key := func(a bpf.Attachment) string { return fmt.Sprintf("%+v", a) }
	for _, x := range b {
		left[key(x)]++
	}
	return slices.DeleteFunc(a, func(x bpf.Attachment) bool {
		left[key(x)]--
		return left[key(x)] < 0
	})
}

// addLinks adds the links that there are, none on a kernel whose links have no
// ids.
func addLinks(links map[int]*bpf.Link) error {
	h, err := Links()
	if errors.Is(err, errors.ErrUnsupported) {
		err = nil
	}
	for _, l := range h.Objects {
		links[l.ID] = l
	}
	return errors.Join(err, h.Close())
}

// withoutLinks leaves out what links are behind, one for each link: the same
// program can also be on the same hook without one.
func withoutLinks(all []bpf.Attachment, links map[int]*bpf.Link) []bpf.Attachment {
	byProg := make(map[int][]*bpf.Link)
	for _, l := range links {
		byProg[l.ProgID] = append(byProg[l.ProgID], l)
	}
	return slices.DeleteFunc(all, func(a bpf.Attachment) bool {
		of := byProg[a.ProgID]
		i := slices.IndexFunc(of, func(l *bpf.Link) bool { return covers(l, a) })
		if i >= 0 && a.Kind != "perf_event" {
			byProg[a.ProgID] = slices.Delete(of, i, i+1)
		}
		return i >= 0
	})
}

// covers says whether a link may be what an attachment came from. Of perf
// events old kernels do not tell which one a link is of, and each is listed
// once however many descriptors or links it has.
func covers(l *bpf.Link, a bpf.Attachment) bool {
	if l.Type != a.Kind {
		return false
	}
	if len(l.Targets) == 0 {
		return a.Kind == "perf_event"
	}
	t := l.Targets[0]
	switch a.Kind {
	case "xdp":
		return t.Ifindex == a.Target.Ifindex
	case "cgroup":
		return l.Attach == a.Attach && t.Value == a.Target.Value
	case "netns":
		return l.Attach == a.Attach && t.Netns == a.Target.Netns
	case "sockmap":
		return l.Attach == a.Attach && t.MapID == a.Target.MapID
	case "perf_event":
		return t.Kind == a.Target.Kind && t.Name == a.Target.Name && t.Offset == a.Target.Offset && t.Return == a.Target.Return
	}
	return false
}

// netPrograms returns what hangs on network devices and namespaces, by links
// or without; of what tells its links, only what has none.
func netPrograms(ctx context.Context, fds []procFD) ([]bpf.Attachment, error) {
	namespaces, err := openNetns(ctx, fds)
	defer closeNetns(namespaces)
	var errs kernel.Errors
	errs.Add(err)
	var all []bpf.Attachment
	for _, ns := range namespaces {
		if err := ctx.Err(); err != nil {
			errs.Add(err)
			break
		}
		errs.Add(ns.do(func() error {
			found, err := ns.devicePrograms()
			all = append(all, found...)
			if err != nil {
				err = fmt.Errorf("network namespace %d: %w", ns.ino, err)
			}
			return err
		}))
		for _, name := range netnsAttach {
			progs, err := query(ns.fd, attachTypesOf(name)[0], false)
			if errors.Is(err, unix.EPERM) {
				errs.Add(classify(progQuery, err))
			}
			for _, p := range progs {
				all = append(all, bpf.Attachment{
					Kind: "netns", ProgID: p.prog, Attach: name, Target: bpf.Target{Kind: bpf.TargetNetns, Netns: ns.ino},
				})
			}
		}
	}
	return all, errs.Err()
}

// Attach types of network namespaces and devices. Those of devices tell their
// links (6.6 and 6.7).
var (
	netnsAttach  = [...]string{"flow_dissector", "sk_lookup"}
	tcxAttach    = []string{"tcx_ingress", "tcx_egress"}
	netkitAttach = []string{"netkit_primary", "netkit_peer"}
)

// devicePrograms is called in the namespace.
func (n netns) devicePrograms() ([]bpf.Attachment, error) {
	socket, err := openNetlink()
	if err != nil {
		return nil, err
	}
	defer socket.close()
	devs, err := socket.netdevs()
	if err != nil {
		return nil, err
	}
	targets := make(map[int]bpf.Target)
	var all []bpf.Attachment
	hooks := func(d netdev, kind string, names []string) {
		for _, name := range names {
			progs, err := query(d.ifindex, attachTypesOf(name)[0], true)
			if err != nil {
				return
			}
			for _, p := range progs {
				if p.link == 0 {
					all = append(all, bpf.Attachment{Kind: kind, ProgID: p.prog, Attach: name, Target: targets[d.ifindex]})
				}
			}
		}
	}
	for _, d := range devs {
		t := bpf.Target{Kind: bpf.TargetNetdev, Name: d.name, Ifindex: d.ifindex, Netns: n.ino}
		targets[d.ifindex] = t
		for _, x := range d.xdp {
			all = append(all, bpf.Attachment{Kind: "xdp", ProgID: x.id, Attach: x.mode, Target: t})
		}
		hooks(d, "tcx", tcxAttach)
		if d.kind == "netkit" {
			hooks(d, "netkit", netkitAttach)
		}
	}
	filters, err := socket.filters(func(ifindex int) bpf.Target {
		if t, ok := targets[ifindex]; ok {
			return t
		}
		return bpf.Target{Kind: bpf.TargetNetdev, Ifindex: ifindex, Netns: n.ino} // younger than the list
	})
	return append(all, filters...), err
}

// sockmapAttach are the attach types of sockmaps, which can be asked for since
// 748cd5729ac7 (5.18).
var sockmapAttach = [...]string{"sk_msg_verdict", "sk_skb_stream_parser", "sk_skb_stream_verdict", "sk_skb_verdict"}

// sockmapPrograms returns the programs of sockmaps, by links or without.
func sockmapPrograms(ctx context.Context, _ []procFD) ([]bpf.Attachment, error) {
	var all []bpf.Attachment
	used, err := progTypesInUse()
	if err != nil || !used["sk_msg"] && !used["sk_skb"] {
		return nil, err
	}
	maps, err := Maps()
	defer func() { maps.Close() }()
	for _, m := range maps.Objects {
		if ctx.Err() != nil {
			break
		}
		if m.Type != "sockmap" && m.Type != "sockhash" {
			continue
		}
		fd, err := maps.Open(m.ID)
		if err != nil {
			return all, err
		}
		for _, name := range sockmapAttach {
			progs, err := query(fd, attachTypesOf(name)[0], false)
			if err != nil {
				continue
			}
			for _, p := range progs {
				all = append(all, bpf.Attachment{
					Kind: "sockmap", ProgID: p.prog, Attach: name, Target: bpf.Target{Kind: bpf.TargetMap, MapID: m.ID},
				})
			}
		}
		unix.Close(fd)
	}
	return all, errors.Join(err, ctx.Err())
}
