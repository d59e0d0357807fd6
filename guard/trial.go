package guard

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/rlimit"

	"github.com/ksleuth/ksleuth/finding"
	"github.com/ksleuth/ksleuth/jit"
	"github.com/ksleuth/ksleuth/mem"
)

// A form is which programs are on a trampoline.
type form struct{ entry, exit bool }

// trial has the kernel make a trampoline on a program of our own, which is
// attached to nothing and never run, and judges by its code. Nothing of it
// stays.
func (c *checker) trial() (*verdict, error) {
	subject, err := newSubject()
	if err != nil {
		return nil, fmt.Errorf("no program could be loaded to try a trampoline on: %w", err)
	}
	defer subject.Close()
	want := form{c.opts.Entry, c.opts.Exit}
	v, err := c.tryForm(subject, want)
	if err != nil || v.keeps {
		return v, err
	}
	v.evidence = append([]finding.Evidence{{Text: "this kernel's trampolines lose that count: seen on one made now on a program of our own, which never ran"}}, v.evidence...)
	if want == (form{entry: true}) {
		return v, nil
	}
	if e, err := c.tryForm(subject, form{entry: true}); err == nil {
		v.entryKeeps = e.keeps
	}
	return v, nil
}

// tryForm attaches do-nothing programs to the subject, and reads the trampoline.
func (c *checker) tryForm(subject *ebpf.Program, want form) (*verdict, error) {
	for _, p := range []struct {
		wanted bool
		typ    ebpf.AttachType
	}{{want.entry, ebpf.AttachTraceFEntry}, {want.exit, ebpf.AttachTraceFExit}} {
		if !p.wanted {
			continue
		}
		prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
			Name: "ksleuth_trial", Type: ebpf.Tracing, AttachType: p.typ, AttachTarget: subject, AttachTo: subjectFunc,
			License: "GPL", Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
		})
		if err != nil {
			return nil, fmt.Errorf("no program could be loaded to try a trampoline with: %w", err)
		}
		defer prog.Close()
		l, err := link.AttachTracing(link.TracingOptions{Program: prog})
		if err != nil {
			return nil, fmt.Errorf("no trampoline could be tried: %w", err)
		}
		defer l.Close()
	}
	return c.readOwn(subject)
}

// subjectFunc is the function of the subject that is handed the count.
const subjectFunc = "ksleuth_sub"

// newSubject loads a program whose subprogram makes a tail call.
func newSubject() (*ebpf.Program, error) {
	if err := rlimit.RemoveMemlock(); err != nil { // counts before 5.11
		return nil, err
	}
	array, err := ebpf.NewMap(&ebpf.MapSpec{Name: "ksleuth_trial", Type: ebpf.ProgramArray, KeySize: 4, ValueSize: 4, MaxEntries: 1})
	if err != nil {
		return nil, err
	}
	defer array.Close() // the program keeps it
	function := func(name string, linkage btf.FuncLinkage) *btf.Func {
		return &btf.Func{Name: name, Linkage: linkage, Type: &btf.FuncProto{
			Return: &btf.Int{Name: "int", Size: 4, Encoding: btf.Signed},
			Params: []btf.FuncParam{{Name: "ctx", Type: &btf.Pointer{Target: &btf.Void{}}}},
		}}
	}
	begin := func(in asm.Instruction, f *btf.Func) asm.Instruction {
		return btf.WithFuncMetadata(in.WithSymbol(f.Name), f)
	}
	return ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "ksleuth_trial", Type: ebpf.XDP, License: "GPL",
		Instructions: asm.Instructions{
			begin(asm.Call.Label(subjectFunc), function("ksleuth_trial", btf.GlobalFunc)),
			asm.Return(),
			begin(asm.LoadMapPtr(asm.R2, array.FD()), function(subjectFunc, btf.StaticFunc)),
			asm.Mov.Imm(asm.R3, 0),
			asm.FnTailCall.Call(),
			asm.Mov.Imm(asm.R0, 0),
			asm.Return(),
		},
	})
}

// readOwn finds the trampoline by the call at the subject's attach point.
func (c *checker) readOwn(subject *ebpf.Program) (*verdict, error) {
	info, err := subject.Info()
	if err != nil {
		return nil, err
	}
	addrs, ok := info.JitedKsymAddrs()
	lens, ok2 := info.JitedFuncLens()
	if !ok || !ok2 || len(addrs) < 2 || len(lens) != len(addrs) || addrs[1] == 0 {
		return nil, errors.New("the kernel does not say where the code of a program is (net.core.bpf_jit_enable, kernel.kptr_restrict)")
	}
	k := c.src.Kernel
	k.Refresh()
	at := uint64(addrs[1])
	b, err := mem.Bytes(k.Mem(), at, int(min(lens[1], pageSize)))
	if err != nil {
		return nil, fmt.Errorf("the code of a program cannot be read: %w", err)
	}
	p, ok := jit.ReadPrologue(b, at)
	switch {
	case !ok:
		return nil, errors.New("the code of a program is not understood")
	case p.CountBy == jit.CountNone:
		return nil, errors.New("the code of a program that makes tail calls in a subprogram takes no count that is known here")
	case p.Attach.Target == 0:
		return nil, errors.New("no trampoline is called where one was attached")
	}
	// The image ends somewhere in its page: what follows does not matter.
	return c.readImage(p.Attach.Target, int(pageSize-p.Attach.Target%pageSize))
}

const pageSize = 4096
