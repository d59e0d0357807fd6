//go:build linux

package bpfsys

import (
	"strings"

	"github.com/ksleuth/ksleuth/bpf"
	"github.com/ksleuth/ksleuth/ctype"
)

// Names that the kernel gives to what programs are attached to by BTF
// (check_attach_btf_id of kernel/bpf/verifier.c, DEFINE_BPF_ITER_FUNC).
const (
	tracepointType = "btf_trace_" // a typedef for each tracepoint
	iteratorFunc   = "bpf_iter_"  // a function for each iterator, gone after boot
	structOpsType  = "bpf_struct_ops_"
	multiFunc      = "bpf_multi_func" // stands for the functions that its link of many names (7.2)
)

// nameTarget fills in the kind and the name of the type t.Type of t.BTF, which
// a program of a type was loaded for.
func (b *btfs) nameTarget(t *bpf.Target, progType string) error {
	typ, btf, err := b.typeByID(uint32(t.BTF), uint32(t.Type))
	if err != nil {
		return err
	}
	name := typ.Name()
	t.Kind, t.Name, t.Module = bpf.TargetFunction, name, btf.module
	switch {
	case !btf.Kernel && (progType == "ext" || progType == "tracing"):
		t.Kind = bpf.TargetProgram
	case typ.Kind() == ctype.Typedef:
		if tp, ok := strings.CutPrefix(name, tracepointType); ok {
			t.Kind, t.Name = bpf.TargetTracepoint, tp
		}
	case progType == "struct_ops":
		t.Kind = bpf.TargetStructOps
	case progType == "tracing":
		if it, ok := strings.CutPrefix(name, iteratorFunc); ok {
			t.Kind, t.Name = bpf.TargetIterator, it
		}
	}
	return nil
}
