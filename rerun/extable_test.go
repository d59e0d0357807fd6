package rerun

import (
	"context"
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/ksleuth/ksleuth/emulate"
	"github.com/ksleuth/ksleuth/mem"
	"github.com/ksleuth/ksleuth/x86"
)

// kernelFixup has the kernel's own fixup_exception change registers: those of a
// struct pt_regs.
func kernelFixup(t *testing.T, s *Session, fixup uint64, regs emulate.Regs, addr uint64) (emulate.Regs, bool) {
	t.Helper()
	r := s.newRun()
	m := r.m
	order := []int{
		emulate.R15, emulate.R14, emulate.R13, emulate.R12, emulate.RBP, emulate.RBX, emulate.R11, emulate.R10, emulate.R9,
		emulate.R8, emulate.RAX, emulate.RCX, emulate.RDX, emulate.RSI, emulate.RDI,
	}
	const at = stackBase + 512 // far below what runs on it
	var b []byte
	for _, n := range order {
		b = binary.LittleEndian.AppendUint64(b, regs.GP[n])
	}
	for _, v := range []uint64{^uint64(0), regs.RIP, 0x10, regs.Flags, regs.GP[emulate.RSP], 0x18} { // orig_ax, ip, cs, flags, sp, ss
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	qt.Assert(t, qt.IsNil(m.StoreBytes(at, b)))
	stop := m.Call(context.Background(), fixup, at, trapPF, 0, addr)
	if stop.Outcome != emulate.Returned || int32(m.GP[emulate.RAX]) == 0 {
		return regs, false
	}
	qt.Assert(t, qt.IsNil(m.Mem.ReadMem(b, at)))
	for i, n := range order {
		regs.GP[n] = binary.LittleEndian.Uint64(b[8*i:])
	}
	regs.RIP = binary.LittleEndian.Uint64(b[8*16:])
	regs.GP[emulate.RSP] = binary.LittleEndian.Uint64(b[8*19:])
	return regs, true
}

// TestFixup compares what is done about a fault with what the kernel's own code
// does about it, run on the machine: entries of every kind in the table.
func TestFixup(t *testing.T) {
	perKernel(t, "idle", func(t *testing.T, s *Session) {
		fixup := s.k.LookupAll("fixup_exception", "init_task")
		rng := rand.New(rand.NewPCG(1, 2))
		seen := map[uint8]int{}
		table := s.tables()[0]
		n := len(table.raw) / entrySize
		for range n * 4 {
			_, insn := table.word(rng.IntN(n), 0)
			entry, ok := s.exceptionEntry(insn)
			if !ok {
				continue
			}
			// These go on to change what is no general register, or to user space.
			const eretu = 21
			if entry.kind == eretu || entry.kind == exFPURestore || entry.kind == exClearFS || entry.kind == exWrmsrInMCE || entry.kind == exRdmsrInMCE || seen[entry.kind] >= 6 {
				continue
			}
			seen[entry.kind]++
			r := s.newRun()
			for i := range r.m.GP {
				if i != emulate.RSP { // addresses that can be read, for what loads again
					r.m.GP[i] = fixup["init_task"].Addr + uint64(rng.IntN(1000))
				}
			}
			r.m.RIP = insn
			before := r.m.Regs
			var in x86.Inst
			code := make([]byte, x86.MaxLen)
			qt.Assert(t, qt.IsNil(s.view.ReadMem(code, insn)))
			qt.Assert(t, qt.IsNil(in.Decode(code, insn)))
			addr := uint64(0xffff_8000_1234_5678)
			if entry.kind == exZeropad { // the next word
				addr = r.m.EA(&in, in.Args[1])&^7 + 8
			}
			want, wantOK := kernelFixup(t, s, fixup["fixup_exception"].Addr, before, addr)
			got := r.fixup(&emulate.Exception{Vector: emulate.PageFault, Addr: addr, Inst: &in, Err: &mem.Fault{Addr: addr, Cause: mem.Unmapped}}, trapPF)
			comment := qt.Commentf("%s: %s, kind %d register %d flags %d immediate %d", s.Name(insn), &in, entry.kind, entry.reg, entry.flags, entry.imm)
			qt.Check(t, qt.Equals(got, wantOK), comment)
			if got && wantOK {
				qt.Check(t, qt.Equals(r.m.GP, want.GP), comment)
				qt.Check(t, qt.Equals(r.m.RIP, want.RIP), comment)
			}
		}
		t.Log("entries by kind:", seen)
		qt.Check(t, qt.IsTrue(len(seen) >= 3))
	})
}
