package bpf

import (
	"errors"
	"fmt"

	"github.com/ksleuth/ksleuth/kernel"
	"github.com/ksleuth/ksleuth/mem"
)

const (
	insnSize = 8       // of a struct bpf_insn
	maxInsns = 1 << 22 // BPF_COMPLEXITY_LIMIT_INSNS is a million, before the verifier's rewrites
)

// Insns returns the function's BPF instructions as the verifier left them, an
// array of struct bpf_insn. They are as the kernel has them: unlike what
// bpf(2) hands out, instructions that load the address of a map have that
// address, calls of helpers the distance to them from __bpf_call_base, and tail
// calls an operation of the kernel's own (0xf5).
//
// They are the function's part of the whole program's, so that a call of
// another function has that one's number as its immediate; where constants
// were blinded (net.core.bpf_jit_harden) they are the blinded ones that the
// machine code was made from.
func (o Owner) Insns(k *kernel.Kernel) ([]byte, error) {
	r, err := o.insnRange(k)
	if err != nil {
		return nil, err
	}
	b, err := mem.Bytes(k.Mem(), r.addr, r.n*insnSize)
	if err != nil {
		return nil, fmt.Errorf("instructions of %s: %w", o.Prog.Subprogs[o.Subprog].Name, err)
	}
	return b, nil
}

// FirstInsn returns the index in the whole program of the function's first
// instruction; a [Location] counts the same way.
func (o Owner) FirstInsn(k *kernel.Kernel) (int, error) {
	r, err := o.insnRange(k)
	return r.first, err
}

// insnRange is where a function's instructions are.
type insnRange struct {
	addr     uint64
	n, first int
}

func (o Owner) insnRange(k *kernel.Kernel) (insnRange, error) {
	main := k.Object("bpf_prog", uint64(o.Prog.Addr))
	total, base := main.Uint("len"), main.At("insnsi")
	if err := main.Err(); err != nil {
		return insnRange{}, err
	}
	if total > maxInsns {
		return insnRange{}, fmt.Errorf("bpf_prog at 0x%x has %d instructions: damaged", main.Addr, total)
	}
	if len(o.Prog.Subprogs) <= 1 {
		return insnRange{base, int(total), 0}, nil
	}
	// The functions follow each other without a gap. Their own copies differ
	// from the program's in length only if they are blinded.
	var own insnRange
	first, sum := 0, 0
	for i, s := range o.Prog.Subprogs {
		f := k.Object("bpf_prog", s.prog)
		n, at := f.Uint("len"), f.At("insnsi")
		if err := f.Err(); err != nil {
			return insnRange{}, err
		}
		if n > maxInsns {
			return insnRange{}, fmt.Errorf("bpf_prog at 0x%x has %d instructions: damaged", s.prog, n)
		}
		if i == o.Subprog {
			own, first = insnRange{at, int(n), sum}, sum
		}
		sum += int(n)
	}
	hidden, err := o.hiddenInsns(k)
	if err != nil {
		return insnRange{}, err
	}
	if sum+hidden != int(total) {
		return own, nil
	}
	return insnRange{base + uint64(first)*insnSize, own.n, first}, nil
}

// hiddenInsns counts the instructions of the functions that the verifier added
// behind the others and that func_cnt leaves out (b9ae0c9dd0ac, 6.7).
func (o Owner) hiddenInsns(k *kernel.Kernel) (int, error) {
	aux := k.Object("bpf_prog_aux", o.Prog.aux)
	if !aux.Has("real_func_cnt") {
		return 0, aux.Err()
	}
	n, fn := aux.Uint("real_func_cnt"), aux.Ptr("func")
	if err := aux.Err(); err != nil {
		return 0, err
	}
	if n > maxSubprogs {
		return 0, fmt.Errorf("bpf_prog_aux at 0x%x has %d functions: damaged", aux.Addr, n)
	}
	sum := 0
	for i := uint64(len(o.Prog.Subprogs)); i < n; i++ {
		p, err := mem.U64(k.Mem(), fn+8*i)
		if err != nil {
			return 0, fmt.Errorf("function %d of bpf_prog_aux at 0x%x: %w", i, aux.Addr, err)
		}
		f := k.Object("bpf_prog", p)
		sum += int(f.Uint("len"))
		if err := errors.Join(f.Err()); err != nil || sum > maxInsns {
			return 0, err
		}
	}
	return sum, nil
}
