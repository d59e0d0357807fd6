package disasm

import (
	"fmt"
	"strings"

	"github.com/ksleuth/ksleuth/bpf"
	"github.com/ksleuth/ksleuth/kernel"
	"github.com/ksleuth/ksleuth/mem"
	"github.com/ksleuth/ksleuth/x86"
)

// An ftraceSite is the place in a function, at its beginning, where ftrace
// calls tracers: a nop while there are none.
type ftraceSite struct{ ip uint64 }

// describe says who is called. A trampoline belongs to one tracer; behind
// ftrace_caller there can be several.
func (s ftraceSite) describe(d *Disassembler, in *x86.Inst, _ []byte) string {
	target, direct := in.Target()
	switch {
	case !direct && isNop(in):
		return "ftrace: no tracer"
	case !direct:
		return "ftrace"
	}
	sym, _, ok := d.k.Symbolize(target)
	if ok && sym.Kind == kernel.KindTrampoline {
		return "ftrace: " + d.imageNote(target)
	}
	var names []string
	for _, o := range d.ftraceOps() {
		if o.trampoline != target && !o.hooks(d, s.ip) {
			continue
		}
		if t := d.trampolineOf(s.ip); t != nil && strings.Contains(o.name, "direct") {
			names = append(names, d.imageNote(uint64(t.Image)))
			continue
		}
		names = append(names, o.name)
	}
	if len(names) == 0 {
		return "ftrace: a tracer"
	}
	return "ftrace: " + strings.Join(names, ", ")
}

// An ftraceOps is a tracer: struct ftrace_ops (include/linux/ftrace.h).
type ftraceOps struct {
	name            string
	trampoline      uint64
	filter, notrace ftraceHash
}

// An ftraceHash is a set of functions: struct ftrace_hash.
type ftraceHash struct{ buckets, bits, n uint64 }

const (
	maxOps        = 1 << 12
	maxBucketBits = 24
	maxBucket     = 1 << 16
)

// ftraceOps reads the tracers at work: the list ends with one that does
// nothing, ftrace_list_end.
func (d *Disassembler) ftraceOps() []ftraceOps {
	list, ok := d.symbols()["ftrace_ops_list"]
	if !ok {
		return nil
	}
	at, err := mem.U64(d.k.Mem(), list.Addr)
	var out []ftraceOps
	for err == nil && at != 0 && len(out) < maxOps {
		o := d.k.Object("ftrace_ops", at)
		ops := ftraceOps{trampoline: o.Ptr("trampoline")}
		if s, off, ok := d.k.Symbolize(at); ok && off == 0 {
			ops.name = s.String()
		} else {
			ops.name = d.k.FormatAddr(o.Ptr("func"))
		}
		hashes := o.Deref("func_hash")
		ops.filter, ops.notrace = d.ftraceHash(hashes, "filter_hash"), d.ftraceHash(hashes, "notrace_hash")
		at = o.Ptr("next")
		if err = o.Err(); err == nil && at != 0 {
			out = append(out, ops)
		}
	}
	return out
}

func (d *Disassembler) ftraceHash(o *kernel.Object, member string) ftraceHash {
	if o.Ptr(member) == 0 {
		return ftraceHash{}
	}
	h := o.Deref(member)
	out := ftraceHash{h.Ptr("buckets"), h.Uint("size_bits"), h.Uint("count")}
	if h.Err() != nil || out.bits > maxBucketBits {
		return ftraceHash{}
	}
	return out
}

// hooks says whether the tracer wants a function: one of its filter, or any if
// that is empty, but none that it leaves out.
func (o ftraceOps) hooks(d *Disassembler, ip uint64) bool {
	return (o.filter.n == 0 || o.filter.has(d, ip)) && !o.notrace.has(d, ip)
}

// has looks a function up by its hash (ftrace_lookup_ip, hash_long).
func (h ftraceHash) has(d *Disassembler, ip uint64) bool {
	const goldenRatio = 0x61c8864680b583eb
	if h.n == 0 || h.buckets == 0 {
		return false
	}
	bucket := uint64(0)
	if h.bits > 0 {
		bucket = ip * goldenRatio >> (64 - h.bits)
	}
	node, err := mem.U64(d.k.Mem(), h.buckets+8*bucket)
	for n := 0; err == nil && node != 0 && n < maxBucket; n++ {
		e := d.k.Object("ftrace_func_entry", node) // begins with its hlist_node
		if e.Uint("ip") == ip && e.Err() == nil {
			return true
		}
		node, err = e.Ptr("hlist.next"), e.Err()
	}
	return false
}

// trampolineOf returns the BPF trampoline that hangs on the function with its
// site at ip: at its beginning, or behind an endbr64 there.
func (d *Disassembler) trampolineOf(ip uint64) *bpf.Trampoline {
	const endbr = 4
	for _, t := range d.trampolines() {
		if at := uint64(t.Target.Addr); t.Kind == "trampoline" && t.Image != 0 && (at == ip || at == ip-endbr) {
			return t
		}
	}
	return nil
}

// imageNote says what the trampoline or dispatcher with code at addr runs:
// "BPF fentry see_count_lo (prog 7)".
func (d *Disassembler) imageNote(addr uint64) string {
	for _, t := range d.trampolines() {
		if addr-uint64(t.Image) >= uint64(t.Size) {
			continue
		}
		if len(t.Progs) == 0 {
			return "BPF " + t.Kind
		}
		return "BPF " + runs(t)
	}
	return "BPF trampoline"
}

// runs names the programs of a trampoline.
func runs(t *bpf.Trampoline) string {
	var out []string
	for _, p := range t.Progs {
		out = append(out, fmt.Sprintf("%s %s (prog %d)", p.When, p.Name, p.ID))
	}
	if len(out) == 0 {
		return "it runs no program"
	}
	return strings.Join(out, ", ")
}
