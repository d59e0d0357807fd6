//go:build linux

package bpfsys

import (
	"fmt"
	"strconv"
	"strings"
	"structs"
	"unsafe"

	"github.com/ksleuth/ksleuth/bpf"
	"github.com/ksleuth/ksleuth/mem"
)

// tracing fills in the function that a tracing link hangs on. The kernel tells
// the id of what the function is part of, but not whether that is a program's
// or a BTF object's (bpf_trampoline_unpack_key); that the link's program knows.
func tracing(r *linkReader, l *bpf.Link) error {
	u := as[struct {
		_                structs.HostLayout
		attach, obj, typ uint32 // obj and typ: 441e8c66b23e, 5.13
		pad1             uint32
		cookie           uint64 // c7beb48344d2, 6.17
	}](r)
	l.Attach, l.Cookie = attachType(u.attach), u.cookie
	if u.typ == 0 || l.ProgID == 0 {
		return nil
	}
	p, err := r.prog(l.ProgID)
	if err != nil {
		return err
	}
	t := bpf.Target{Type: int(u.typ)}
	program := p.typ == "ext" || p.attach && p.attachBTF == 0
	if !program && !p.attach {
		if program, err = r.isProgram(u.obj, u.typ); err != nil {
			return err
		}
	}
	if !program {
		t.BTF = int(u.obj)
		err = r.btfs.nameTarget(&t, p.typ)
		l.Targets = []bpf.Target{t}
		return err
	}
	t.Kind, t.ProgID = bpf.TargetProgram, int(u.obj)
	target, err := r.prog(t.ProgID)
	if err == nil && target.btf != 0 {
		t.BTF = int(target.btf)
		typ, _, err2 := r.btfs.typeByID(target.btf, u.typ)
		if err = err2; err == nil {
			t.Name = typ.Name()
		}
	}
	l.Targets = []bpf.Target{t}
	return err
}

// isProgram tells a target that is a program's from one that is the kernel's
// where the program does not (before 6.0): only one of them has the type.
func (r *linkReader) isProgram(obj, typ uint32) (bool, error) {
	inProgram := false
	if p, err := r.prog(int(obj)); err == nil && p.btf != 0 {
		_, _, err := r.btfs.typeByID(p.btf, typ)
		inProgram = err == nil
	}
	_, btf, err := r.btfs.typeByID(obj, typ)
	inKernel := err == nil && btf.Kernel
	if inProgram == inKernel {
		return false, fmt.Errorf("its target, type %d of %d, may be the kernel's or a program's", typ, obj)
	}
	return inProgram, nil
}

// Kinds of events of a perf_event link (enum bpf_perf_event_type).
const (
	perfUprobe     = 1
	perfUretprobe  = 2
	perfKprobe     = 3
	perfKretprobe  = 4
	perfTracepoint = 5
	perfEvent      = 6
)

// probeText is the longest name or path of a probe.
const probeText = 4096

// perfLink fills in the event. Kernels before 1b715e1b0ec5 (6.6) do not tell
// it; kind is 0 there.
func perfLink(r *linkReader, l *bpf.Link) error {
	type header struct {
		_    structs.HostLayout
		kind uint32
		pad2 uint32
	}
	type probe struct {
		_ structs.HostLayout
		header
		name        unsafe.Pointer
		len, offset uint32
		rest        [3]uint64
	}
	kind := as[header](r).kind
	switch kind {
	case perfUprobe, perfUretprobe, perfKprobe, perfKretprobe, perfTracepoint:
	case perfEvent:
		e := as[struct {
			_ structs.HostLayout
			header
			config uint64
			typ    uint32
			pad3   uint32
			cookie uint64 // d5c16492c66f, 6.8
		}](r)
		l.Cookie = e.cookie
		l.Targets = []bpf.Target{{Kind: bpf.TargetEvent, Name: eventName(e.typ, e.config), Value: int64(e.config)}}
		return nil
	default:
		return nil
	}
	buf := make([]byte, probeText)
	u, err := ask(r, probe{name: first(buf), len: uint32(len(buf))})
	if err != nil {
		return err
	}
	t := bpf.Target{Name: cstr(buf), Offset: mem.Addr(u.offset), Return: kind == perfUretprobe || kind == perfKretprobe}
	switch kind {
	case perfUprobe, perfUretprobe:
		t.Kind, l.Cookie, t.RefCtr = bpf.TargetUprobe, u.rest[0], mem.Addr(u.rest[1])
	case perfKprobe, perfKretprobe:
		t.Kind, t.Addr, l.Missed, l.Cookie = bpf.TargetKprobe, mem.Addr(u.rest[0]), u.rest[1], u.rest[2]
		splitModule(&t)
	default:
		t.Kind, t.Offset, l.Cookie = bpf.TargetTracepoint, 0, u.rest[0]
	}
	l.Targets = []bpf.Target{t}
	return nil
}

// splitModule takes "module:function" apart.
func splitModule(t *bpf.Target) {
	if mod, fn, ok := strings.Cut(t.Name, ":"); ok {
		t.Module, t.Name = mod, fn
	}
}

// multiReturn is BPF_F_KPROBE_MULTI_RETURN and BPF_F_UPROBE_MULTI_RETURN.
const multiReturn = 1

// maxTargets is MAX_KPROBE_MULTI_CNT and MAX_UPROBE_MULTI_CNT.
const maxTargets = 1 << 20

// kprobeMulti fills in addresses and cookies, sorted alike. The kernel tells
// them since 7ac8d0d26191 (6.6), the cookies since 9fd112b1f82b (6.9).
func kprobeMulti(r *linkReader, l *bpf.Link) error {
	type member struct {
		_            structs.HostLayout
		addrs        unsafe.Pointer
		count, flags uint32
		missed       uint64
		cookies      unsafe.Pointer
	}
	n := min(as[member](r).count, maxTargets)
	if n == 0 {
		return nil
	}
	addrs, cookies := make([]uint64, n), make([]uint64, n)
	u, err := ask(r, member{addrs: first(addrs), count: n, cookies: first(cookies)})
	if err != nil {
		return err
	}
	l.Missed = u.missed
	for i, a := range addrs {
		l.Targets = append(l.Targets, bpf.Target{
			Kind: bpf.TargetKprobe, Addr: mem.Addr(a), Return: u.flags&multiReturn != 0, Cookie: cookies[i],
		})
	}
	return nil
}

// uprobeMulti fills in the places (e56fdbfb06e2, 6.8).
func uprobeMulti(r *linkReader, l *bpf.Link) error {
	type member struct {
		_                               structs.HostLayout
		path, offsets, refCtrs, cookies unsafe.Pointer
		pathSize, count, flags, pid     uint32
	}
	n := min(as[member](r).count, maxTargets)
	if n == 0 {
		return nil
	}
	path := make([]byte, probeText)
	offsets, refs, cookies := make([]uint64, n), make([]uint64, n), make([]uint64, n)
	u, err := ask(r, member{
		path: first(path), pathSize: uint32(len(path)),
		offsets: first(offsets), refCtrs: first(refs), cookies: first(cookies), count: n,
	})
	if err != nil {
		return err
	}
	for i := range offsets {
		l.Targets = append(l.Targets, bpf.Target{
			Kind: bpf.TargetUprobe, Name: cstr(path), PID: int(u.pid), Return: u.flags&multiReturn != 0,
			Offset: mem.Addr(offsets[i]), RefCtr: mem.Addr(refs[i]), Cookie: cookies[i],
		})
	}
	return nil
}

// tracingMulti reads the functions of a tracing_multi link (7.2), which the
// kernel tells in /proc only: the attach type, and a table
//
//	obj-id  btf-id  cookie  func
//	1       23456   0       vfs_read+0x0/0x2f0
func tracingMulti(r *linkReader, l *bpf.Link) error {
	text, err := r.fields()
	if err != nil {
		return err
	}
	if _, ok := text.get("attach_type"); ok {
		l.Attach = attachType(uint32(text.uint("attach_type")))
	}
	var cols []string
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) < 4 || strings.HasSuffix(f[0], ":") {
			continue
		}
		if cols == nil {
			cols = f
			continue
		}
		t := bpf.Target{Kind: bpf.TargetFunction}
		for i, col := range cols[:min(len(cols), len(f))] {
			n, _ := strconv.ParseUint(f[i], 10, 64)
			switch col {
			case "obj-id":
				t.BTF = int(n)
			case "btf-id":
				t.Type = int(n)
			case "cookie":
				t.Cookie = n
			case "func":
				t.Name, _, _ = strings.Cut(f[i], "+")
				if i+1 < len(f) {
					t.Module = strings.Trim(f[i+1], "[]")
				}
			}
		}
		l.Targets = append(l.Targets, t)
	}
	return nil
}
