package bpf

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/ksleuth/ksleuth/kernel"
	"github.com/ksleuth/ksleuth/mem"
)

// maxTargets is MAX_KPROBE_MULTI_CNT, MAX_UPROBE_MULTI_CNT and what a
// tracing_multi link can have at most.
const maxTargets = 1 << 20

// count reads how many targets a link has.
func (r *linkReader) count(path string) (uint64, error) {
	n := r.o.Uint(path)
	if err := r.o.Err(); err != nil {
		return 0, err
	}
	if n > maxTargets {
		return 0, fmt.Errorf("the link at 0x%x has %d targets: damaged", r.o.Addr, n)
	}
	return n, nil
}

// multiAttach is the attach type of a link that does not keep it itself (before
// 6.17): that which its program was loaded with.
func (r *linkReader) multiAttach() {
	if r.base.Has("attach_type") {
		r.l.Attach = attachName(r.k, r.base.Uint("attach_type"))
		return
	}
	if prog := r.base.Ptr("prog"); prog != 0 {
		o := r.k.Object("bpf_prog", prog)
		if v := o.Uint("expected_attach_type"); o.Err() == nil {
			r.l.Attach = attachName(r.k, v)
		}
	}
}

// kprobeMulti reads the functions of a kprobe_multi link (0dcac2725406, 5.18);
// cookies: ca74823c6e16 (5.18). The kernel keeps addresses and cookies sorted
// alike.
func kprobeMulti(r *linkReader) ([]Target, error) {
	r.multiAttach()
	r.l.Missed = r.o.Uint("fp.nmissed")
	// The flags were not kept before 7ac8d0d26192 (6.6), only obeyed.
	ret := false
	if r.o.Has("flags") || r.base.Has("flags") {
		ret = r.flags()&multiReturn != 0
	} else {
		ret = r.o.Ptr("fp.exit_handler") != 0
	}
	n, err := r.count("cnt")
	if err != nil {
		return nil, err
	}
	addrs, err := words(r.k, r.o.Ptr("addrs"), n)
	if err != nil {
		return nil, fmt.Errorf("addresses: %w", err)
	}
	cookies, err := words(r.k, r.o.Ptr("cookies"), n)
	if err != nil {
		err = fmt.Errorf("cookies: %w", err)
	}
	out := make([]Target, len(addrs))
	for i, a := range addrs {
		out[i] = symbolTarget(r.k, TargetKprobe, a)
		out[i].Return = ret
		if i < len(cookies) {
			out[i].Cookie = cookies[i]
		}
	}
	return out, err
}

// uprobeMulti reads the places of a uprobe_multi link (89ae89f53d20, 6.6).
func uprobeMulti(r *linkReader) ([]Target, error) {
	r.multiAttach()
	n, err := r.count("cnt")
	if err != nil {
		return nil, err
	}
	all := Target{Kind: TargetUprobe, Return: r.flags()&multiReturn != 0}
	var errs []error
	if all.Name, err = r.k.Path(r.o.Field("path")); err != nil {
		errs = append(errs, fmt.Errorf("path: %w", err))
	}
	if task := r.o.Ptr("task"); task != 0 {
		o := r.k.Object("task_struct", task)
		all.PID = int(o.Uint("pid"))
		errs = append(errs, o.Err())
	}
	probes, err := records(r.k, "bpf_uprobe", r.o.Ptr("uprobes"), n, "offset", "ref_ctr_offset", "cookie")
	if err != nil {
		errs = append(errs, fmt.Errorf("offsets: %w", err))
	}
	out := make([]Target, len(probes))
	for i, p := range probes {
		out[i] = all
		out[i].Offset, out[i].RefCtr, out[i].Cookie = mem.Addr(p[0]), mem.Addr(p[1]), p[2]
	}
	return out, errors.Join(errs...)
}

// tracingMulti reads the functions of a tracing_multi link (7.2): each has its
// own trampoline.
func tracingMulti(r *linkReader) ([]Target, error) {
	n, err := r.count("nodes_cnt")
	if err != nil {
		return nil, err
	}
	nodes, err := records(r.k, "bpf_tracing_multi_node", r.o.At("nodes"), n, "trampoline", "node.cookie")
	if err != nil {
		return nil, err
	}
	var errs kernel.Errors
	var out []Target
	for i, node := range nodes {
		t, err := trampolineTarget(r.k, node[0], 0, 0)
		if err != nil {
			if errs.Add(fmt.Errorf("target %d: %w", i, err)); errs.TooMany() {
				break
			}
			continue
		}
		t.Cookie = node[1]
		out = append(out, t)
	}
	return out, errs.Err()
}

// records reads 64-bit members of the n structs of an array.
func records(k *kernel.Kernel, record string, addr, n uint64, members ...string) ([][]uint64, error) {
	size := k.Sizeof(record)
	offs := make([]uint64, len(members))
	for i, m := range members {
		off, err := k.Offset(record, m)
		if err != nil {
			return nil, err
		}
		if off+8 > size {
			return nil, fmt.Errorf("struct %s has %d bytes, but %s at %d: damaged", record, size, m, off)
		}
		offs[i] = off
	}
	var out [][]uint64
	buf := make([]byte, size)
	for i := range n {
		if err := k.Mem().ReadMem(buf, addr+i*size); err != nil {
			return out, fmt.Errorf("element %d: %w", i, err)
		}
		row := make([]uint64, len(offs))
		for j, off := range offs {
			row[j] = le64(buf[off:])
		}
		out = append(out, row)
	}
	return out, nil
}

func le64(b []byte) uint64 { return binary.LittleEndian.Uint64(b) }
