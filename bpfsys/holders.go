//go:build linux

package bpfsys

import (
	"cmp"
	"context"
	"slices"

	"github.com/ksleuth/ksleuth/bpf"
)

// Holders returns which processes have descriptors of BPF objects, all or those
// of some kinds (prog, map, link, btf), by the kind and the id of the object,
// ordered by process id. What this process holds is among them.
//
// Processes that other users run show them only to CAP_SYS_PTRACE: without it
// the error is a [PermissionError], and comes with what was read.
func Holders(ctx context.Context, kinds ...string) (map[string]map[int][]bpf.Holder, error) {
	fds, err := scanFDs(ctx, kinds...)
	slices.SortFunc(fds, func(a, b procFD) int { return cmp.Compare(a.pid, b.pid) })
	all := make(map[string]map[int][]bpf.Holder)
	for _, o := range fds {
		if o.kind == perfFD || o.kind == netnsFD {
			continue
		}
		byID := all[o.kind]
		if byID == nil {
			byID = make(map[int][]bpf.Holder)
			all[o.kind] = byID
		}
		of := byID[o.id]
		if len(of) > 0 && of[len(of)-1].PID == o.pid {
			continue
		}
		byID[o.id] = append(of, bpf.Holder{PID: o.pid, Comm: o.comm})
	}
	return all, err
}
