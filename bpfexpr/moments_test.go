//go:build linux

package bpfexpr_test

import (
	"fmt"
	"runtime"
	"testing"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/go-quicktest/qt"

	"github.com/ksleuth/ksleuth/bpfexpr"
	"github.com/ksleuth/ksleuth/cexpr"
)

// TestRunningKernelMoments changes memory between a call's entry and its
// return: each part of an expression is as it was at its moment.
func TestRunningKernelMoments(t *testing.T) {
	l := newLab(t)
	w := l.world
	for _, test := range []struct {
		filter string
		wanted bool
		faults int // at the return
	}{
		{"skb->len == 1234 && ret == 33", true, 0},
		{"ret == 33 && skb->len == 1234", true, 0},
		{"(ret == 33) == (skb->len == 1234)", true, 0},
		{"exit(skb->len) == 99", true, 0},
		{"exit(skb->len) == skb->len", false, 0},
		{"skb->len - exit(skb->len) == 1135", true, 0},
		{"ret == 33 && exit(skb->dev) == NULL && skb->dev", true, 0},
		{"ret == 32 || skb->dev->ifindex == 7", true, 0},
		{"ret == 33 && exit(skb->dev->ifindex) == 7", false, 1},
		{"ret == 32 ? skb->next->len : skb->len == 1234", true, 0},
		{"ret == 33 ? skb->next->len : skb->len == 1234", false, 1},
		{"ret + skb->next->len", false, 1},
		{"ret == 32 && skb->next->len + ret", false, 0},
		{"skb->cb[ret - 33] == 'B'", true, 0}, // the index is known only then
		{"(char)skb->cb[0] == 'A' && ret", true, 0},
		{`exit(skb->cb) == "B" && ret == 33`, true, 0},
		{`(skb->cb == "A") == (ret == 33)`, true, 0},
	} {
		c := qt.Commentf("%s", test.filter)
		w.put("skb", "len", 1234)
		w.put("skb", "dev", w.addr("dev"))
		w.text("skb", "cb", "A")
		l.put(l.arena, w.data)
		p, err := bpfexpr.Compile(w, bpfexpr.Input{Filter: w.parse(test.filter), Show: []*cexpr.Expr{
			w.parse("skb->len"), w.parse("exit(skb->len)"), w.parse("ret + skb->len"), w.parse("exit(skb->cb)"), w.parse("skb->cb"),
		}}, bpfexpr.Options{Faults: faultsAt})
		qt.Assert(t, qt.IsNil(err), c)
		results := l.array(16 + p.Bytes)
		r := l.into(results, []*bpfexpr.Plan{{Filter: p.Filter, Show: p.Show, Bytes: p.Bytes}}, false)[0]
		qt.Assert(t, qt.IsTrue(r.wanted), c)
		qt.Check(t, qt.Equals(r.faults, 0), c)

		w.put("skb", "len", 99)
		w.put("skb", "dev", 0)
		w.text("skb", "cb", "B")
		l.put(l.arena, w.data)
		r = l.into(results, []*bpfexpr.Plan{{ExitFilter: p.ExitFilter, ExitShow: p.ExitShow, Bytes: p.Bytes}}, false)[0]
		results.Close()
		qt.Check(t, qt.Equals(r.wanted, test.wanted), c)
		qt.Check(t, qt.Equals(r.faults, test.faults), c)
		if !r.wanted {
			continue
		}
		for i, want := range []string{"1234", "99", fmt.Sprint(33 + 1234), "B", "A"} {
			v, err := p.Slots[i].Value(w.ts, r.slots)
			qt.Assert(t, qt.IsNil(err), c)
			if p.Slots[i].Form == bpfexpr.String {
				s, err := v.CString()
				qt.Assert(t, qt.IsNil(err), c)
				qt.Check(t, qt.Equals(s, want), c)
				continue
			}
			u, err := v.Uint()
			qt.Assert(t, qt.IsNil(err), c)
			qt.Check(t, qt.Equals(fmt.Sprint(u), want), c)
		}
	}
}

// TestRunningKernelTracing loads the functions in programs of the types that
// observe, where the kernel lets it.
func TestRunningKernelTracing(t *testing.T) {
	l := newLab(t)
	w := l.world
	var plans []*bpfexpr.Plan
	size := 0
	for _, src := range []string{
		`skb->dev->name == "eth0" && skb->len / 3 > 7 && task->comm == "nginx" && skb->pkt_type != 3`,
		"(skb->next && skb->next->len == ret) || n % (ret + 1) == 3",
		"duration > 1000 && ctx->ingress_ifindex == 7",
	} {
		p, err := bpfexpr.Compile(w, bpfexpr.Input{Filter: w.parse(src), Show: []*cexpr.Expr{
			w.parse("skb->dev->name"), w.parse("comm"), w.parse("sk->__sk_common"), w.parse("exit(skb->len) - skb->len"), w.parse("(char *)file->private_data"),
		}}, bpfexpr.Options{Faults: faultsAt})
		qt.Assert(t, qt.IsNil(err))
		plans = append(plans, p)
		size += 16 + p.Bytes
	}
	results := l.array(size)
	for _, spec := range []ebpf.ProgramSpec{
		{Type: ebpf.Kprobe},
		{Type: ebpf.TracePoint},
		{Type: ebpf.PerfEvent},
		{Type: ebpf.RawTracepoint},
		{Type: ebpf.Tracing, AttachType: ebpf.AttachTraceFEntry, AttachTo: "vfs_read"},
		{Type: ebpf.Tracing, AttachType: ebpf.AttachTraceFExit, AttachTo: "vfs_read"},
	} {
		t.Run(fmt.Sprint(spec.Type, spec.AttachType), func(t *testing.T) {
			spec.License = "GPL"
			spec.Instructions = l.program(plans, results, true)
			if spec.Type == ebpf.Tracing {
				for i, in := range spec.Instructions { // what fentry programs return
					if in.Symbol() == "leave" {
						spec.Instructions[i].Constant = 0
					}
				}
			}
			p, err := ebpf.NewProgram(&spec)
			if err != nil {
				spec.Instructions = asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()}
				if _, empty := ebpf.NewProgram(&spec); empty != nil {
					t.Skip("this kernel takes no such programs: ", empty)
				}
				t.Fatalf("%+v", err)
			}
			p.Close()
		})
	}
}

// TestRunningKernelUser reads this process's memory, which user() says it is:
// nothing else would find it.
func TestRunningKernelUser(t *testing.T) {
	l := newLab(t)
	w := l.world
	type node struct {
		next *node
		n    int32
		text [20]byte
	}
	second := &node{n: -7}
	first := &node{next: second, n: 5}
	var pins runtime.Pinner
	pins.Pin(first)
	pins.Pin(second)
	defer pins.Unpin()
	copy(first.text[:], "/etc/passwd")
	le.PutUint64(w.call[0:], uint64(uintptr(unsafe.Pointer(first))))
	l.put(l.call, w.call[:])
	w.vars["ptr"] = bpfexpr.Var{Type: w.typ("unsigned long *"), Off: 0}
	const text = "(char *)user(ptr) + 12"
	for src, want := range map[string]bool{
		text + ` == "/etc/passwd"`:                         true,
		text + ` == "/etc/passwd2"`:                        false,
		`(char *)ptr + 12 == "/etc/passwd"`:                false,
		"((int *)user(ptr))[2] == 5":                       true,
		"((int *)user(ptr)[0])[2] == -7":                   true, // what is in user space points there
		"((struct list_head *)user(ptr))->next->next == 0": true,
		"*(int *)ptr || 1":                                 false,
		"user(ptr) && !user((char *)ptr)[23]":              true,
		"ret && ((int *)(user(ptr) + 1))[0] + ret == 38":   true,
		"(user(ptr) ? ((int *)user(ptr))[2] : ret) == 5":   true,
		"*user((char *)dev) == 0 || 1":                     false, // it is not in user space
	} {
		p, err := bpfexpr.Compile(w, bpfexpr.Input{Filter: w.parse(src), Show: []*cexpr.Expr{w.parse(text), w.parse("*(struct list_head *)user(ptr)")}}, bpfexpr.Options{Faults: faultsAt})
		qt.Assert(t, qt.IsNil(err), qt.Commentf("%s", src))
		r := l.run([]*bpfexpr.Plan{p}, false)[0]
		qt.Check(t, qt.Equals(r.wanted, want), qt.Commentf("%s", src))
		if !r.wanted {
			continue
		}
		v, err := p.Slots[0].Value(w.ts, r.slots)
		qt.Assert(t, qt.IsNil(err))
		s, err := v.CString()
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.Equals(s, "/etc/passwd"))
		v, err = p.Slots[1].Value(w.ts, r.slots)
		qt.Assert(t, qt.IsNil(err))
		next, err := v.Field("next")
		qt.Assert(t, qt.IsNil(err))
		u, err := next.Uint()
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.Equals(u, uint64(uintptr(unsafe.Pointer(second)))))
	}
}
