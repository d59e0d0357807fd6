//go:build linux

package bpfsys

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/ksleuth/ksleuth/bpf"
	"github.com/ksleuth/ksleuth/kernel"
	"github.com/ksleuth/ksleuth/mem"
)

// fdTypes are enum bpf_task_fd_type. Raw tracepoints are links.
var fdTypes = map[uint32]struct {
	kind bpf.TargetKind
	ret  bool
}{
	1: {bpf.TargetTracepoint, false},
	2: {bpf.TargetKprobe, false},
	3: {bpf.TargetKprobe, true},
	4: {bpf.TargetUprobe, false},
	5: {bpf.TargetUprobe, true},
}

// perfPrograms returns the programs of the perf events that the processes have
// descriptors of, by links or without. Of programs of type perf_event, and of
// events of other threads' descriptor tables, the kernel tells nothing.
func perfPrograms(ctx context.Context, fds []procFD) ([]bpf.Attachment, error) {
	type event struct {
		prog int
		kind bpf.TargetKind
		name string
		addr mem.Addr
		off  mem.Addr
		ret  bool
	}
	seen := make(map[event]bool)
	var out []bpf.Attachment
	var errs kernel.Errors
	for _, f := range fds {
		if f.kind != perfFD {
			continue
		}
		if err := ctx.Err(); err != nil {
			errs.Add(err)
			break
		}
		prog, t, err := taskFD(f.pid, f.fd)
		if errors.Is(err, unix.EPERM) {
			errs.Add(classify(taskFDQuery, err))
			break
		}
		if err != nil || t.Kind == "" {
			continue // no program, another type of event, or gone
		}
		// An event on every CPU has a descriptor for each.
		e := event{prog, t.Kind, t.Name, t.Addr, t.Offset, t.Return}
		if !seen[e] {
			seen[e] = true
			out = append(out, bpf.Attachment{Kind: "perf_event", ProgID: prog, Target: t})
		}
	}
	return out, errs.Err()
}

// taskFD asks which program a descriptor of a process runs, and on what.
func taskFD(pid, fd int) (prog int, t bpf.Target, err error) {
	buf := make([]byte, probeText)
	a := attrTaskFD{pid: uint32(pid), fd: uint32(fd), bufLen: uint32(len(buf)), buf: first(buf)}
	if _, err := call(taskFDQuery, &a); err != nil {
		return 0, t, fmt.Errorf("descriptor %d of process %d: %w", fd, pid, err)
	}
	typ := fdTypes[a.fdType]
	t = bpf.Target{Kind: typ.kind, Return: typ.ret, Name: cstr(buf)}
	switch typ.kind {
	case bpf.TargetKprobe:
		t.Offset, t.Addr = mem.Addr(a.offset), mem.Addr(a.addr)
		splitModule(&t)
	case bpf.TargetUprobe:
		t.Offset = mem.Addr(a.offset)
	}
	return int(a.progID), t, nil
}
