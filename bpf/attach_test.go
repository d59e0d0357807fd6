package bpf_test

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/ksleuth/ksleuth/bpf"
	"github.com/ksleuth/ksleuth/internal/example"
	"github.com/ksleuth/ksleuth/kernel"
)

// A builder puts structs of the kernel where the kernel's log was, to make up
// what the scene idle does not have.
type builder struct {
	t       *testing.T
	k       *kernel.Kernel
	at      uint64
	changes []example.Change
}

// newBuilder starts from the scene's kernel k.
func newBuilder(t *testing.T, k *kernel.Kernel) *builder {
	t.Helper()
	s, err := k.Find("__log_buf")
	qt.Assert(t, qt.IsNil(err))
	return &builder{t: t, k: k, at: s.Addr}
}

// bytes takes n bytes and zeroes them.
func (b *builder) bytes(n uint64) uint64 {
	at := b.at
	b.at += (n + 15) &^ 15
	b.changes = append(b.changes, example.Write(at, make([]byte, n)))
	return at
}

// record makes an empty struct.
func (b *builder) record(name string) *kernel.Object {
	return b.k.Object(name, b.bytes(b.k.Sizeof(name)))
}

func (b *builder) set(addr uint64, words ...uint64) {
	qt.Assert(b.t, qt.Not(qt.Equals(addr, 0)))
	b.changes = append(b.changes, example.Words(addr, words...))
}

// list makes the list_head at head one of a node, or of none.
func (b *builder) list(head, node uint64) {
	if node == 0 {
		node = head
	}
	b.set(head, node, node)
	b.set(node, head, head)
}

func (b *builder) kernel() *kernel.Kernel { return idle(b.t, b.changes...) }

// prog is a program of the scene: the one that is attached to the device lo.
func (b *builder) prog() (addr uint64, id int) {
	l := linksByType(b.t, b.k)["xdp"]
	return b.k.Object("bpf_link", uint64(l.Addr)).Ptr("prog"), l.ProgID
}

func (b *builder) device() *kernel.Object {
	l := linksByType(b.t, b.k)["xdp"]
	return b.k.Object("net_device", b.k.Object("bpf_xdp_link", uint64(l.Addr)).Ptr("dev"))
}

// filter makes a struct cls_bpf_prog, of which the scene has no BTF as the
// module is not loaded, on the device's egress hook.
func (b *builder) filter(prog uint64) (chain *kernel.Object) {
	miniq, block, chain, tp, ops := b.record("mini_Qdisc"), b.record("tcf_block"), b.record("tcf_chain"), b.record("tcf_proto"), b.record("tcf_proto_ops")
	b.set(b.device().At("miniq_egress"), miniq.Addr)
	b.set(miniq.At("filter_list"), tp.Addr)
	b.set(tp.At("chain"), chain.Addr)
	b.set(chain.At("block"), block.Addr)
	b.list(block.At("chain_list"), chain.At("list"))
	b.changes = append(b.changes, example.Write(chain.At("index"), []byte{3}))
	b.set(chain.At("filter_chain"), tp.Addr)
	b.changes = append(b.changes, example.Write(tp.At("prio"), []byte{0x00, 0x03, 0x01, 0xc0})) // protocol below
	b.changes = append(b.changes, example.Write(ops.At("kind"), []byte("bpf")))
	b.set(tp.At("ops"), ops.Addr)
	head, cls := b.bytes(64), b.bytes(256)
	b.set(tp.At("root"), head)
	const link, integrated, exts = 8, 40, 56 // as pahole has them
	handle := exts + b.k.Sizeof("tcf_exts")
	b.list(head, cls+link)
	b.set(cls, prog)
	b.changes = append(b.changes, example.Write(cls+integrated, []byte{1}), example.Write(cls+handle, []byte{0x21}))
	return chain
}

func TestAttachments(t *testing.T) {
	k := idle(t)
	for _, test := range []struct {
		name string
		make func(*builder, uint64)
		want string // JSON without the program's id
	}{
		{"none", func(*builder, uint64) {}, ``},
		{"xdp", func(b *builder, prog uint64) {
			b.set(b.device().At("xdp_state[0].prog"), prog, 0)
		}, `{"kind":"xdp","prog_id":%d,"attach_type":"xdpgeneric","target":{"kind":"netdev","name":"lo","ifindex":1,"netns_ino":4026531840}}`},
		{"netns", func(b *builder, prog uint64) {
			net, _ := b.k.Addr("init_net")
			b.set(b.k.Object("net", net).At("bpf.progs[0]"), prog)
		}, `{"kind":"netns","prog_id":%d,"attach_type":"flow_dissector","target":{"kind":"netns","netns_ino":4026531840}}`},
		{"cgroup", func(b *builder, prog uint64) {
			root, _ := b.k.Addr("cgrp_dfl_root")
			cgrp := b.k.Object("cgroup_root", root).Field("cgrp")
			entry := b.record("bpf_prog_list")
			b.set(entry.At("prog"), prog)
			b.set(cgrp.At("bpf.progs[1]"), entry.At("node"))
			b.changes = append(b.changes, example.Write(cgrp.At("bpf.flags[1]"), []byte{2}))
		}, `{"kind":"cgroup","prog_id":%d,"attach_type":"cgroup_inet_egress","target":{"kind":"cgroup","name":"/","value":1},"attach_flags":["multi"]}`},
		{"tc", func(b *builder, prog uint64) { b.filter(prog) },
			`{"kind":"tc","prog_id":%d,"attach_type":"egress","target":{"kind":"netdev","name":"lo","ifindex":1,"netns_ino":4026531840},"attach_flags":["direct_action"],"prio":49153,"handle":"0x21","chain":3}`},
		{"perf_event", func(b *builder, prog uint64) {
			event := b.record("perf_event")
			b.set(event.At("prog"), prog)
			b.set(event.At("attr.type"), 1)
			b.set(event.At("attr.config"), 2)
			ctx := b.record("perf_event_context")
			b.list(ctx.At("event_list"), event.At("event_entry"))
			b.set(b.first().At("perf_event_ctxp[1]"), ctx.Addr)
		}, `{"kind":"perf_event","prog_id":%d,"target":{"kind":"perf_event","name":"page-faults","value":2}}`},
		{"tracefs", func(b *builder, prog uint64) { // without an event, which a list may lack that is being changed
			array := b.bytes(256)
			off := offset(b.t, b.k, "bpf_prog_array", "items")
			b.set(array+off, prog)
			b.set(sysEnter(b).At("prog_array"), array)
		}, `{"kind":"perf_event","prog_id":%d,"target":{"kind":"tracepoint","name":"sys_enter"}}`},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := newBuilder(t, k)
			prog, id := b.prog()
			test.make(b, prog)
			got, err := bpf.Attachments(b.kernel())
			qt.Assert(t, qt.IsNil(err))
			if test.want == "" {
				qt.Check(t, qt.HasLen(got, 0))
				return
			}
			qt.Assert(t, qt.HasLen(got, 1))
			text, err := json.Marshal(got[0])
			qt.Assert(t, qt.IsNil(err))
			qt.Check(t, qt.Equals(string(text), fmt.Sprintf(test.want, id)))
		})
	}
}

// first is the task of process 1.
func (b *builder) first() *kernel.Object {
	init, err := b.k.Addr("init_task")
	qt.Assert(b.t, qt.IsNil(err))
	next := b.k.Object("task_struct", init).Ptr("tasks.next")
	return b.k.Object("task_struct", next-offset(b.t, b.k, "task_struct", "tasks"))
}

func offset(t *testing.T, k *kernel.Kernel, record, path string) uint64 {
	t.Helper()
	off, err := k.Offset(record, path)
	qt.Assert(t, qt.IsNil(err))
	return off
}

// sysEnter finds the event of the tracepoint sys_enter.
func sysEnter(b *builder) *kernel.Object {
	s, err := b.k.Find("event_sys_enter")
	qt.Assert(b.t, qt.IsNil(err))
	return b.k.Object("trace_event_call", s.Addr)
}

// TestAttachmentsDamaged: what cannot be read is said, and the search ends and
// goes on with the rest.
func TestAttachmentsDamaged(t *testing.T) {
	k := idle(t)
	for _, test := range []struct {
		name string
		make func(*builder, uint64)
		left int
		err  string
	}{
		{"filters in a circle", func(b *builder, prog uint64) {
			tp := b.record("tcf_proto")
			chain := b.filter(prog)
			b.set(chain.At("filter_chain"), tp.Addr)
			b.set(tp.At("next"), tp.Addr)
		}, 1, `(?s).*lo: egress filters: list at 0x[0-9a-f]+ has more than 65536 nodes: damaged.*`},
		{"program", func(b *builder, prog uint64) { b.filter(0x1000) }, 1, `(?s).*0x1000.*not mapped.*`},
		{"block", func(b *builder, prog uint64) {
			b.set(b.filter(prog).At("block"), 0x1000)
		}, 1, `(?s).*lo: egress filters: list at 0x.*not mapped.*`},
		{"cgroups", func(b *builder, prog uint64) {
			root, _ := b.k.Addr("cgrp_dfl_root")
			b.set(b.k.Object("cgroup_root", root).At("cgrp.self.children"), 0)
		}, 1, `children of the cgroup at 0x[0-9a-f]+: list at 0x[0-9a-f]+, node 0.*next is NULL`},
		{"events", func(b *builder, prog uint64) {
			call := sysEnter(b)
			b.set(call.At("prog_array"), 0x1000)
		}, 1, `(?s).*0x10[0-9a-f]+: not mapped.*`},
		{"threads", func(b *builder, prog uint64) {
			b.set(b.first().At("tasks"), 0x1000)
		}, 1, `(?s).*perf events: list at 0x.*not mapped.*`},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := newBuilder(t, k)
			prog, _ := b.prog()
			b.set(b.device().At("xdp_state[0].prog"), prog, 0) // is found all the same
			test.make(b, prog)
			got, err := bpf.Attachments(b.kernel())
			qt.Check(t, qt.ErrorMatches(err, test.err))
			qt.Check(t, qt.HasLen(got, test.left))
		})
	}
}
