package pcapfilter

import (
	"fmt"
	"strings"

	"github.com/cilium/ebpf/asm"
	"github.com/cloudflare/cbpfc"
	"golang.org/x/net/bpf"
)

// An ABI says where the members of struct packet are, in bytes. The struct
// tells a filter about a packet in kernel memory.
type ABI struct {
	Start int16 // u64: address of the first byte
	Head  int16 // u32: bytes that stand there in one piece
	Len   int16 // u32: bytes of the packet in all
	Short int16 // u32: set to 1 when the answer is in bytes that could not be read
}

// Options are for [ToEBPF].
type Options struct {
	ABI    ABI
	Prefix string // of every label, to be unique in the program that gets the code
}

// StackSize is how many bytes of its BPF stack the code uses at most.
const StackSize = frameSize + 16*4

// The stack of the code, from the frame pointer down; the 16 words of classic
// BPF's scratch memory follow.
const (
	framePacket = -8  // address of struct packet
	frameStart  = -16 // address of the packet
	frameHead   = -20
	frameLen    = -24
	frameBytes  = -32 // bytes read from the packet
	frameSize   = 32
)

// Registers. Cbpfc is told that the packet starts at address 0, so that its
// addresses are offsets: unlike sums with a kernel address, they cannot wrap.
const (
	regA      = asm.R6
	regX      = asm.R7
	regSum    = asm.R8 // X and an offset
	regStart  = asm.R9 // 0
	regTmp    = asm.R2
	regEnd    = asm.R3 // only ever in code that is replaced
	regResult = asm.R0
)

// ToEBPF turns a classic program into the body of a function
//
//	int f(struct packet *p)
//
// for programs that may call bpf_probe_read_kernel (Linux 5.5): p points to the
// caller's stack, and the result is what the program returns, 0 for no match.
// It needs no maps and up to [StackSize] bytes of stack, and clobbers what
// functions may.
//
// Bytes behind the whole packet are no match, as in libpcap. For bytes in the
// packet that are not in the head, and for memory that cannot be read, Short is
// set to 1 and the result is 0: there, nothing is known. Short is never set to
// 0.
//
// Cbpfc translates, but what it makes for access to the packet is replaced: it
// takes the packet for one that a verifier knows the bounds of, treats an X of
// 2^31 and more as negative, and lets eBPF cut shifts to 5 bits.
func ToEBPF(prog []bpf.Instruction, o Options) (asm.Instructions, error) {
	if o.Prefix == "" {
		return nil, fmt.Errorf("packet filter: no prefix for the labels")
	}
	prog, err := isolate(prog)
	if err != nil {
		return nil, fmt.Errorf("packet filter: %w", err)
	}
	code, err := cbpfc.ToEBPF(prog, cbpfc.EBPFOpts{
		PacketStart: regStart, PacketEnd: regEnd, Result: regResult, ResultLabel: o.label("result"),
		Working: [4]asm.Register{regA, regX, regTmp, regSum}, StackOffset: frameSize, LabelPrefix: o.Prefix,
	})
	if err != nil {
		return nil, fmt.Errorf("packet filter: %w", err)
	}
	r := rewriter{o: o, in: code, out: o.prologue()}
	if err := r.rewrite(); err != nil {
		return nil, fmt.Errorf("packet filter: %w", err)
	}
	return withoutUnused(append(r.out, o.epilogue(r.loads > 0)...), o.Prefix), nil
}

func (o Options) label(name string) string { return o.Prefix + "_" + name }

// prologue keeps what is needed from struct packet. A head that is longer than
// the packet is cut.
func (o Options) prologue() asm.Instructions {
	head := o.label("head")
	return asm.Instructions{
		asm.StoreMem(asm.RFP, framePacket, asm.R1, asm.DWord),
		asm.LoadMem(asm.R2, asm.R1, o.ABI.Start, asm.DWord),
		asm.StoreMem(asm.RFP, frameStart, asm.R2, asm.DWord),
		asm.LoadMem(asm.R2, asm.R1, o.ABI.Len, asm.Word),
		asm.StoreMem(asm.RFP, frameLen, asm.R2, asm.Word),
		asm.LoadMem(asm.R3, asm.R1, o.ABI.Head, asm.Word),
		asm.JLE.Reg(asm.R3, asm.R2, head),
		asm.Mov.Reg(asm.R3, asm.R2),
		asm.StoreMem(asm.RFP, frameHead, asm.R3, asm.Word).WithSymbol(head),
		asm.Mov.Imm(regStart, 0),
	}
}

// epilogue has the places that loads fail to. Cbpfc has emitted the label
// nomatch before, if it was needed.
func (o Options) epilogue(loads bool) asm.Instructions {
	exit := asm.Return().WithSymbol(o.label("result"))
	if !loads {
		return asm.Instructions{exit}
	}
	return asm.Instructions{
		// R4 is the end of what was asked for, and lies behind the head.
		asm.LoadMem(asm.R5, asm.RFP, frameLen, asm.Word).WithSymbol(o.label("beyond")),
		asm.JGT.Reg(asm.R4, asm.R5, o.label("nomatch")),
		asm.LoadMem(asm.R1, asm.RFP, framePacket, asm.DWord).WithSymbol(o.label("short")),
		asm.StoreImm(asm.R1, o.ABI.Short, 1, asm.Word),
		asm.Mov.Imm(regResult, 0),
		exit,
	}
}

// withoutUnused drops labels that nothing jumps to.
func withoutUnused(code asm.Instructions, prefix string) asm.Instructions {
	used := code.ReferenceOffsets()
	for i, insn := range code {
		if s := insn.Symbol(); strings.HasPrefix(s, prefix+"_") && used[s] == nil {
			code[i] = insn.WithSymbol("")
		}
	}
	return code
}
