//go:build linux

package bpfsys

import (
	"context"
	"slices"

	"github.com/ksleuth/ksleuth/bpf"
	"github.com/ksleuth/ksleuth/kernel"
)

// CompleteLinks adds what [Links] leaves open and bpf(2) alone does not tell:
// the names and namespaces of devices, with the mode of XDP, the paths of
// cgroups, and, on kernels that do not tell the events of perf_event links
// (before 6.6), those of the descriptors that processes have. What has no
// unambiguous answer is left open. With an error comes what was found.
func CompleteLinks(ctx context.Context, links []*bpf.Link) error {
	var errs kernel.Errors
	var devices, cgroups, events []*bpf.Link
	for _, l := range links {
		switch {
		case len(l.Targets) == 0:
			if l.Type == "perf_event" && l.ProgID != 0 {
				events = append(events, l)
			}
		case l.Targets[0].Kind == bpf.TargetNetdev && l.Targets[0].Name == "":
			devices = append(devices, l)
		case l.Type == "cgroup" && l.Targets[0].Name == "":
			cgroups = append(cgroups, l)
		}
	}
	var fds []procFD
	if len(devices)+len(events) > 0 {
		var err error
		fds, err = scanFDs(ctx)
		errs.Add(err)
	}
	if len(devices) > 0 {
		errs.Add(completeDevices(ctx, devices, fds))
	}
	if len(cgroups) > 0 {
		trees, err := cgroupTrees(ctx)
		errs.Add(err)
		for _, l := range cgroups {
			l.Targets[0].Name = cgroupName(trees, uint64(l.Targets[0].Value))
		}
	}
	if len(events) > 0 {
		found, err := perfPrograms(ctx, fds)
		errs.Add(err)
		completeEvents(events, found)
	}
	return errs.Err()
}

// A deviceMatch is a device that may be the one of a link.
type deviceMatch struct {
	t    bpf.Target
	mode string // of XDP
}

// completeDevices finds the devices of links. Every network namespace counts
// its devices for itself; that of a link is the one that runs its program, for
// XDP, or knows the link, for tcx and netkit.
func completeDevices(ctx context.Context, links []*bpf.Link, fds []procFD) error {
	namespaces, err := openNetns(ctx, fds)
	defer closeNetns(namespaces)
	var errs kernel.Errors
	errs.Add(err)
	matches := make(map[*bpf.Link][]deviceMatch)
	for _, ns := range namespaces {
		if err := ctx.Err(); err != nil {
			errs.Add(err)
			break
		}
		errs.Add(ns.do(func() error {
			socket, err := openNetlink()
			if err != nil {
				return err
			}
			defer socket.close()
			devs, err := socket.netdevs()
			for _, d := range devs {
				for _, l := range links {
					if l.Targets[0].Ifindex != d.ifindex {
						continue
					}
					if mode, ok := d.runs(l); ok {
						t := bpf.Target{Kind: bpf.TargetNetdev, Name: d.name, Ifindex: d.ifindex, Netns: ns.ino}
						matches[l] = append(matches[l], deviceMatch{t, mode})
					}
				}
			}
			return err
		}))
	}
	for l, m := range matches {
		if len(m) == 1 {
			l.Targets[0] = m[0].t
			if l.Type == "xdp" {
				l.Attach = m[0].mode
			}
		}
	}
	return errs.Err()
}

// runs says whether a device of this thread's namespace is that of a link.
func (d netdev) runs(l *bpf.Link) (mode string, ok bool) {
	if l.Type == "xdp" {
		for _, x := range d.xdp {
			if x.id == l.ProgID {
				return x.mode, true
			}
		}
		return "", false
	}
	types := attachTypesOf(l.Attach)
	if len(types) == 0 {
		return "", false
	}
	hook := d.ifindex
	if l.Attach == "netkit_peer" {
		hook = d.peer // the primary device keeps the programs of both
	}
	progs, err := query(hook, types[0], true)
	return "", err == nil && slices.ContainsFunc(progs, func(p attached) bool { return p.link == l.ID })
}

// completeEvents gives a link the event of its program, if its program has one
// event and one link.
func completeEvents(links []*bpf.Link, found []bpf.Attachment) {
	targets, count := make(map[int][]bpf.Target), make(map[int]int)
	for _, a := range found {
		targets[a.ProgID] = append(targets[a.ProgID], a.Target)
	}
	for _, l := range links {
		count[l.ProgID]++
	}
	for _, l := range links {
		if t := targets[l.ProgID]; len(t) == 1 && count[l.ProgID] == 1 {
			l.Targets = t
		}
	}
}
