package bpf_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"testing"

	"github.com/cilium/ebpf/asm"
	"github.com/go-quicktest/qt"

	"github.com/ksleuth/ksleuth/bpf"
	"github.com/ksleuth/ksleuth/internal/dumptest"
	"github.com/ksleuth/ksleuth/internal/example"
)

// TestTailCalls: the arrays and slots are those in the source of
// internal/bpfscene, on every kernel, from memory.
func TestTailCalls(t *testing.T) {
	for _, version := range matrix {
		t.Run(version, func(t *testing.T) {
			k := example.KernelOf(t, dumptest.Get(t, "bpf-"+version+".kdump"))
			maps, err := bpf.Maps(k)
			qt.Assert(t, qt.IsNil(err))
			arrays := map[uint64]string{}
			for _, m := range maps {
				if m.Type == "prog_array" {
					arrays[uint64(m.Addr)] = m.Name
				}
			}
			var got []string
			for _, p := range programs(t, k) {
				for i, s := range p.Subprogs {
					insns, err := bpf.Owner{Prog: p, Subprog: i}.Insns(k)
					if err != nil {
						continue // another test's
					}
					for _, c := range bpf.TailCalls(insns) {
						qt.Check(t, qt.Not(qt.Equals(arrays[c.Map], "")), qt.Commentf("%s: map %#x", s.Name, c.Map))
						got = append(got, fmt.Sprintf("%s %s[%d]", s.Name, arrays[c.Map], c.Index))
					}
				}
			}
			slices.Sort(got)
			for _, want := range []string{
				"module3 prog_array[3]", "subprog_a jmp[0]", "subprog_b jmp[1]", "subprog_c jmp2[0]",
				"zoo_tc jumps[-1]", "zoo_tc jumps[3]",
			} {
				qt.Check(t, qt.IsTrue(slices.Contains(got, want)), qt.Commentf("%s among %q", want, got))
			}
		})
	}
}

// TestTailCallsUnsure: what another path could have set is not told.
func TestTailCallsUnsure(t *testing.T) {
	array := asm.LoadImm(asm.R2, 7, asm.DWord)
	call := asm.FnTailCall.Call()
	for _, test := range []struct {
		name  string
		insns asm.Instructions
		want  bpf.TailCall
	}{
		{"plain", asm.Instructions{array, asm.Mov.Imm(asm.R3, 3), call}, bpf.TailCall{Insn: 3, Map: 7, Index: 3}},
		{"other order", asm.Instructions{asm.Mov.Imm(asm.R3, 3), array, call}, bpf.TailCall{Insn: 3, Map: 7, Index: 3}},
		{"copied", asm.Instructions{asm.Mov.Imm32(asm.R6, 4), asm.FnGetPrandomU32.Call(), array, asm.Mov.Reg(asm.R3, asm.R6), call}, bpf.TailCall{Insn: 5, Map: 7, Index: 4}},
		{"lost in a call", asm.Instructions{asm.Mov.Imm(asm.R3, 3), asm.FnGetPrandomU32.Call(), array, call}, bpf.TailCall{Insn: 4, Map: 7, Index: -1}},
		{"two ways", asm.Instructions{
			asm.Mov.Imm(asm.R3, 3), asm.JEq.Imm(asm.R1, 0, "then"), asm.Mov.Imm(asm.R3, 4), array.WithSymbol("then"), call,
		}, bpf.TailCall{Insn: 5, Map: 7, Index: -1}},
		{"computed", asm.Instructions{asm.Mov.Imm(asm.R3, 3), asm.Add.Imm(asm.R3, 1), array, call}, bpf.TailCall{Insn: 4, Map: 7, Index: -1}},
		{"from memory", asm.Instructions{asm.LoadMem(asm.R3, asm.R1, 0, asm.Word), array, call}, bpf.TailCall{Insn: 3, Map: 7, Index: -1}},
		{"unset", asm.Instructions{array, call}, bpf.TailCall{Insn: 2, Map: 7, Index: -1}},
		{"gone round", asm.Instructions{asm.Mov.Imm(asm.R3, 3), asm.Ja.Label("back"), array, call.WithSymbol("back")}, bpf.TailCall{Insn: 4, Index: -1}},
	} {
		t.Run(test.name, func(t *testing.T) {
			qt.Check(t, qt.DeepEquals(bpf.TailCalls(assemble(t, test.insns)), []bpf.TailCall{test.want}))
		})
	}
}

// TestUnavoidable: whether a function can end without its tail call.
func TestUnavoidable(t *testing.T) {
	tail := asm.Instructions{asm.LoadImm(asm.R2, 7, asm.DWord), asm.Mov.Imm(asm.R3, 3), asm.FnTailCall.Call()}
	end := asm.Return().WithSymbol("end")
	for _, test := range []struct {
		name  string
		insns asm.Instructions
		want  bool
	}{
		{"straight", append(slices.Clone(tail), asm.Mov.Imm(asm.R0, 1), end), true},
		{"none", asm.Instructions{end}, false},
		{"jumped over", append(append(asm.Instructions{asm.JEq.Imm(asm.R1, 0, "end")}, tail...), end), false},
		{"on both ways", append(append(asm.Instructions{asm.JEq.Imm(asm.R1, 0, "other")}, tail...),
			asm.Ja.Label("end"), asm.FnTailCall.Call().WithSymbol("other"), end), true},
		{"cut off", tail[:2], false},
	} {
		t.Run(test.name, func(t *testing.T) {
			qt.Check(t, qt.Equals(bpf.Unavoidable(assemble(t, test.insns)), test.want))
		})
	}
}

// assemble writes instructions as the kernel has them.
func assemble(t *testing.T, insns asm.Instructions) []byte {
	t.Helper()
	var at int
	labels := map[string]int{}
	for _, in := range insns {
		if s := in.Symbol(); s != "" {
			labels[s] = at
		}
		at++
		if in.OpCode.IsDWordLoad() {
			at++
		}
	}
	at = 0
	insns = slices.Clone(insns)
	for i := range insns {
		in := &insns[i]
		if s := in.Reference(); s != "" {
			in.Offset = int16(labels[s] - at - 1)
			*in = in.WithReference("")
		}
		at++
		if in.OpCode.IsDWordLoad() {
			at++
		}
	}
	var b bytes.Buffer
	qt.Assert(t, qt.IsNil(insns.Marshal(&b, binary.LittleEndian)))
	return b.Bytes()
}
