//go:build linux

package bpfexpr_test

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/ksleuth/ksleuth/bpfexpr"
	"github.com/ksleuth/ksleuth/cexpr"
	"github.com/ksleuth/ksleuth/ctype"
	"github.com/ksleuth/ksleuth/mem"
)

const (
	arenaSize = 64 << 10
	callSize  = 168
	faultsAt  = 148
)

// A world is objects of the running kernel's types in memory that programs and
// tests see at the same address, and a call. It gives names to package cexpr
// and, by world.compiled, to this one.
type world struct {
	t    testing.TB
	ts   *ctype.Types
	base uint64
	data []byte
	end  uint64
	objs map[string]ctype.Value
	call [callSize]byte
	vars map[string]bpfexpr.Var
}

var le = binary.LittleEndian

// newWorld fills the memory at base.
func newWorld(t testing.TB, ts *ctype.Types, base uint64) *world {
	w := &world{t: t, ts: ts, base: base, data: make([]byte, arenaSize), end: base + 256, objs: make(map[string]ctype.Value), vars: make(map[string]bpfexpr.Var)}
	rnd := rand.New(rand.NewPCG(5, 10)) // what is not set below is whatever
	for i := range w.data {
		w.data[i] = byte(rnd.Uint32())
	}
	for _, o := range [][2]string{
		{"skb", "struct sk_buff"}, {"skb2", "struct sk_buff"}, {"dev", "struct net_device"}, {"task", "struct task_struct"},
		{"parent", "struct task_struct"}, {"xdp", "struct xdp_buff"}, {"rxq", "struct xdp_rxq_info"}, {"file", "struct file"},
		{"inode", "struct inode"}, {"sb", "struct super_block"}, {"dentry", "struct dentry"}, {"sk", "struct sock"}, {"cred", "struct cred"},
		{"packet", "char[256]"}, {"name", "char[16]"}, {"text", "char[160]"}, {"nothing", "char[8]"},
	} {
		w.object(o[0], o[1])
	}
	w.link()
	w.describe()
	w.variables()
	return w
}

func (w *world) typ(name string) *ctype.Type {
	w.t.Helper()
	t, err := w.ts.ParseType(name)
	qt.Assert(w.t, qt.IsNil(err))
	return t
}

func (w *world) object(name, typ string) {
	t := w.typ(typ)
	size, err := t.Size()
	qt.Assert(w.t, qt.IsNil(err))
	w.objs[name] = w.ts.Object(w.Mem(), t, w.end, name)
	w.end += uint64(size+63) &^ 63
	qt.Assert(w.t, qt.IsTrue(w.end < w.base+arenaSize-256))
}

func (w *world) addr(name string) uint64 {
	a, err := w.objs[name].Addr()
	qt.Assert(w.t, qt.IsNil(err), qt.Commentf("%s", name))
	return a
}

// put sets a member that is no bitfield.
func (w *world) put(obj, path string, v uint64) {
	w.t.Helper()
	p, err := w.ts.Member(w.objs[obj].Type(), path)
	qt.Assert(w.t, qt.IsNil(err))
	size, err := p.Type.Size()
	qt.Assert(w.t, qt.IsNil(err))
	at := w.addr(obj) + p.Offset - w.base
	copy(w.data[at:at+uint64(size)], le.AppendUint64(nil, v))
}

func (w *world) text(obj, path, s string) {
	at := w.addr(obj)
	if path != "" {
		p, err := w.ts.Member(w.objs[obj].Type(), path)
		qt.Assert(w.t, qt.IsNil(err))
		at += p.Offset
	}
	copy(w.data[at-w.base:], s+"\x00")
}

// link sets the pointers between objects.
func (w *world) link() {
	for _, l := range [][3]string{
		{"skb", "dev", "dev"}, {"skb", "sk", "sk"}, {"skb", "prev", "skb2"}, {"skb2", "prev", "skb"}, {"skb2", "next", "skb"}, {"skb2", "sk", "sk"},
		{"skb", "head", "packet"}, {"xdp", "rxq", "rxq"}, {"xdp", "data_hard_start", "packet"}, {"rxq", "dev", "dev"},
		{"file", "f_inode", "inode"}, {"inode", "i_sb", "sb"}, {"file", "f_path.dentry", "dentry"}, {"dentry", "d_name.name", "name"},
		{"file", "private_data", "text"}, {"task", "real_parent", "parent"}, {"task", "group_leader", "task"}, {"task", "cred", "cred"},
		{"parent", "real_parent", "parent"},
	} {
		w.put(l[0], l[1], w.addr(l[2]))
	}
	w.put("skb", "next", 0)
	w.put("skb", "destructor", 0)
	w.put("skb2", "dev", 0)
	w.put("task", "mm", 0)
	w.put("skb", "data", w.addr("packet")+64)
	w.put("xdp", "data", w.addr("packet")+64)
	w.put("xdp", "data_end", w.addr("packet")+164)
}

// describe sets what expressions are about.
func (w *world) describe() {
	for _, m := range []struct {
		obj, path string
		v         uint64
	}{
		{"skb", "len", 1234}, {"skb", "data_len", 2000}, {"skb", "skb_iif", ^uint64(100)}, {"skb", "mark", 0xcafe}, {"skb", "users.refs.counter", 1},
		{"skb", "protocol", 8}, {"skb", "mac_header", 65535}, {"skb", "network_header", 78}, {"skb", "transport_header", 98}, {"skb2", "len", 3},
		{"skb", "tail", 128}, {"skb", "hash", 0xdeadbeef},
		{"dev", "ifindex", 7}, {"dev", "mtu", 1500}, {"dev", "flags", 0x41}, {"dev", "num_tc", 0xffff}, {"dev", "tx_queue_len", 1000},
		{"sk", "__sk_common.skc_family", 2}, {"sk", "__sk_common.skc_num", 443}, {"sk", "__sk_common.skc_state", 1}, {"sk", "sk_err", ^uint64(0)},
		{"task", "pid", 4321}, {"task", "tgid", 4321}, {"task", "prio", 98}, {"task", "exit_code", 139}, {"cred", "uid.val", 1000},
		{"rxq", "queue_index", 3}, {"file", "f_flags", 0x8800}, {"file", "f_mode", 1}, {"file", "f_pos", 8192}, {"inode", "i_mode", 0100644},
		{"sb", "s_magic", 0xef53}, {"sb", "s_dev", 0x800001},
	} {
		w.put(m.obj, m.path, m.v)
	}
	w.text("dev", "name", "eth0")
	w.text("task", "comm", "nginx")
	w.text("parent", "comm", "systemd")
	w.text("name", "", "access.log")
	w.text("text", "", "a long text that does not fit in the sixty-four bytes that are compared at once, nor in those that are kept")
}

// variables sets the call.
func (w *world) variables() {
	off := 0
	add := func(name, typ string, v uint64) {
		w.vars[name] = bpfexpr.Var{Type: w.typ(typ), Off: int16(off)}
		le.PutUint64(w.call[off:], v)
		off += 8
	}
	for _, p := range [][2]string{{"skb", "struct sk_buff *"}, {"dev", "struct net_device *"}, {"task", "struct task_struct *"},
		{"xdp", "struct xdp_buff *"}, {"file", "struct file *"}, {"sk", "struct sock *"}} {
		add(p[0], p[1], w.addr(p[0]))
	}
	w.vars["ctx"] = bpfexpr.Var{Type: w.typ("struct xdp_md *"), Off: w.vars["xdp"].Off}
	add("n", "int", 0xabcd0000fffffffb) // above an int may stand anything
	add("u", "unsigned int", 0x12345678ee6b2800)
	add("l", "long", 1<<63)
	add("p", "void *", w.addr("dev"))
	w.vars["lh"] = bpfexpr.Var{Type: w.typ("struct list_head"), Off: w.vars["p"].Off}
	add("b", "bool", 0xff00|1)
	add("c", "s8", 0x1fd)
	for _, v := range []struct {
		name, typ string
		off       int16
		shift     int
		exit      bool
		value     uint64
	}{
		{"ret", "int", 96, 0, true, 33}, {"start_", "unsigned long", 104, 0, false, 5_000_000_000}, {"now_", "unsigned long", 112, 0, true, 5_000_123_456},
		{"tid", "int", 120, 0, false, 4321<<32 | 4322}, {"pid", "int", 120, 32, false, 4321<<32 | 4322},
		{"uid", "unsigned int", 128, 0, false, 100<<32 | 1000}, {"gid", "unsigned int", 128, 32, false, 100<<32 | 1000},
		{"cgroup", "unsigned long", 136, 0, false, 1<<33 | 77}, {"cpu", "unsigned int", 144, 0, false, 1},
	} {
		w.vars[v.name] = bpfexpr.Var{Type: w.typ(v.typ), Off: v.off, Shift: v.shift, Exit: v.exit}
		le.PutUint64(w.call[v.off:], v.value)
	}
	w.vars["duration"] = bpfexpr.Var{Expr: "now_ - start_", Exit: true}
	w.vars["comm"] = bpfexpr.Var{Type: w.typ("char[16]"), Off: 152}
	copy(w.call[152:], "curl\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00x")
}

// Types implements cexpr.Env and bpfexpr.Env.
func (w *world) Types() *ctype.Types { return w.ts }

// Mem implements cexpr.Env.
func (w *world) Mem() mem.Reader { return mem.Snapshot{Base: w.base, Data: w.data} }

// Ident implements cexpr.Env.
func (w *world) Ident(name string) (ctype.Value, error) {
	v, err := w.Var(name)
	if err != nil || v.Expr != "" {
		return ctype.Value{}, errors.Join(err, ctype.ErrNotFound)
	}
	if v.Type.IsRecord() || v.Type.Strip().Kind() == ctype.Array {
		return w.ts.Blob(w.Mem(), v.Type, w.call[v.Off:], name), nil
	}
	return w.ts.Scalar(w.Mem(), v.Type, le.Uint64(w.call[v.Off:])>>v.Shift, name), nil
}

// Call implements cexpr.Env.
func (w *world) Call(name string, _ []ctype.Value) (cexpr.Result, error) {
	return cexpr.Result{}, ctype.ErrNotFound
}

// Var implements bpfexpr.Env.
func (w *world) Var(name string) (bpfexpr.Var, error) {
	if v, ok := w.vars[name]; ok {
		return v, nil
	}
	var names []string
	for n := range w.vars {
		names = append(names, n)
	}
	return bpfexpr.Var{}, &ctype.NotFoundError{Kind: "variable", Name: name, Suggestions: ctype.Suggest(name, names)}
}

// Member implements bpfexpr.Env.
func (w *world) Member(t *ctype.Type, member string) (string, bool) {
	if t.Strip().Name() != "xdp_md" {
		return "", false
	}
	x, ok := map[string]string{
		"ingress_ifindex": "$->rxq->dev->ifindex", "rx_queue_index": "((struct xdp_buff *)$)->rxq->queue_index",
		"data": "(u64)$->data", "data_end": "(u64)$->data_end", "egress_ifindex": "",
	}[member]
	return x, ok
}

// parse parses an expression.
func (w *world) parse(src string) *cexpr.Expr {
	w.t.Helper()
	x, err := cexpr.Parse(src, cexpr.IsType(w.ts))
	qt.Assert(w.t, qt.IsNil(err), qt.Commentf("%s", src))
	return x
}
