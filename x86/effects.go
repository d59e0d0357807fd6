package x86

import "math/bits"

// Bits of RFLAGS, for [RegSet.Flags] and [Place.Flags].
const (
	FlagCF   uint32 = 1 << 0
	FlagPF   uint32 = 1 << 2
	FlagAF   uint32 = 1 << 4
	FlagZF   uint32 = 1 << 6
	FlagSF   uint32 = 1 << 7
	FlagTF   uint32 = 1 << 8
	FlagIF   uint32 = 1 << 9
	FlagDF   uint32 = 1 << 10
	FlagOF   uint32 = 1 << 11
	flagIOPL uint32 = 3 << 12
	FlagNT   uint32 = 1 << 14
	FlagRF   uint32 = 1 << 16
	FlagAC   uint32 = 1 << 18
	FlagID   uint32 = 1 << 21

	// FlagStatus are those that arithmetic sets.
	FlagStatus = FlagCF | FlagPF | FlagAF | FlagZF | FlagSF | FlagOF
	// flagPopped are those that popf may change.
	flagPopped = FlagStatus | FlagTF | FlagIF | FlagDF | flagIOPL | FlagNT | FlagAC | FlagID
)

// A RegSet is a set of register bytes and flags. Registers are numbered as
// instructions encode them.
type RegSet struct {
	GP    [16]uint8  // bit i: byte i of the general register
	X     [16]uint16 // bit i: byte i of xmm0 to xmm15
	Flags uint32
}

// A PlaceKind says what a [Place] is.
type PlaceKind uint8

// The kinds of places.
const (
	PlaceNone  PlaceKind = iota
	PlaceGP              // Size bytes of general register N, from byte Off on
	PlaceX               // the same of an xmm register
	PlaceFlags           // Flags
	PlaceMem             // memory: access N of [Effects.Mem]
	PlaceIP              // the instruction pointer
)

// A Place holds a value that an instruction reads or writes.
type Place struct {
	Kind  PlaceKind
	N     uint8
	Off   uint8 // of memory, too: the first byte of the access meant
	Size  uint8 // 0 for memory whose size the instruction does not tell
	Flags uint32
}

// A Class says how an output depends on its inputs. Bytes are those of output
// and input, counted from the start of each.
type Class uint8

// The classes.
const (
	Compute   Class = iota // every byte depends on every byte of the inputs
	Const                  // on nothing but the instruction and its address
	Copy                   // byte i is byte i of the input; if there are several, of the one that Cond selects
	Reverse                // byte i is byte Size-1-i of the input
	SignOf                 // every byte is made of the last byte of the input
	Bitwise                // byte i depends on bytes i of the inputs
	Carry                  // byte i depends on bytes 0 to i of the inputs
	Shift                  // the input's bits, moved up by Output.Shift (down where that is negative); zeros move in
	ShiftSign              // the same, copies of the sign move in
	Rotate                 // the same, what moves out moves in
	External               // what the processor or a device says: the time, an MSR, the CPU's features
	Undefined              // the SDM leaves it undefined: it may be anything, or stay
)

// An Output is a place that an instruction writes.
type Output struct {
	Place
	Class Class
	Shift int8   // bits
	From  uint8  // bit i: In[i] is an input of the value
	Cond  uint8  // bit i: In[i] decides which value it is, all of it
	Fixed uint16 // bytes that depend on nothing, whatever Class says
	Same  uint16 // bytes that are copies of the bytes with their numbers in the first input
}

// A MemAccess is an access to memory.
type MemAccess struct {
	Size   uint8  // in bytes, 0 where the instruction does not tell
	Access Access // of an access that reads and writes: both
	Arg    int8   // the operand, or -1 for the stack
	Repeat bool   // by a repeated string instruction: any number of times Size; outputs are those of one repetition
}

// Effects is what an instruction reads and writes, explicitly and implicitly, and
// how what it writes depends on what it reads. What cannot be told is
// not there: floating point registers, registers of the system, the upper parts
// of vector registers; and changes that privileged instructions make to the
// system.
type Effects struct {
	Known   bool // false: the instruction has no row; then its operands are all that is told
	NIn     uint8
	NOut    uint8
	NMem    uint8
	In      [8]Place
	Out     [6]Output
	Mem     [2]MemAccess // of two, the first is a read
	Address RegSet       // what the addresses of its memory are made of
}

// Reads returns the registers and flags that values depend on.
func (e *Effects) Reads() RegSet {
	var s RegSet
	for i := range e.In[:e.NIn] {
		s.add(&e.In[i])
	}
	return s
}

// Writes returns the registers and flags that are written.
func (e *Effects) Writes() RegSet {
	var s RegSet
	for i := range e.Out[:e.NOut] {
		s.add(&e.Out[i].Place)
	}
	return s
}

func (s *RegSet) add(p *Place) {
	m := uint16(1<<p.Size-1) << p.Off
	switch p.Kind {
	case PlaceGP:
		s.GP[p.N&15] |= uint8(m)
	case PlaceX:
		s.X[p.N&15] |= m
	case PlaceFlags:
		s.Flags |= p.Flags
	}
}

// lowBytes returns the mask of n bytes.
func lowBytes(n int) uint64 {
	if n >= 64 {
		return ^uint64(0)
	}
	return 1<<n - 1
}

// Needs returns which bytes of In[in] the bytes of an output, given as a mask,
// depend on; of flags all count as one byte. Size is that of a memory access
// whose size the effects do not tell.
func (e *Effects) Needs(o *Output, bytes uint64, in int, size int) uint64 {
	p := &e.In[in]
	n := int(p.Size)
	switch {
	case p.Kind == PlaceFlags || p.Kind == PlaceIP:
		n = 1
	case n == 0:
		n = size
	}
	all := lowBytes(n)
	if o.Cond>>in&1 != 0 {
		if bytes&^uint64(o.Fixed) == 0 {
			return 0
		}
		return all
	}
	if o.From>>in&1 == 0 {
		return 0
	}
	var need uint64
	if same := bytes & uint64(o.Same); same != 0 && bits.TrailingZeros8(o.From) == in {
		need = same & all
	}
	bytes &^= uint64(o.Fixed | o.Same)
	if bytes == 0 {
		return need
	}
	switch o.Class {
	case Const, External, Undefined:
		return need
	case Copy, Bitwise:
		return need | bytes&all
	case Reverse:
		return need | bits.Reverse64(bytes<<(64-n))&all
	case SignOf:
		return need | all&^(all>>1)
	case Carry:
		return need | lowBytes(bits.Len64(bytes))&all
	case Shift, ShiftSign, Rotate:
		return need | o.shifted(bytes, n)
	}
	return all
}

// shifted is Needs of shifts and rotations by a known number of bits.
func (o *Output) shifted(bytes uint64, n int) uint64 {
	var need uint64
	for b := bytes; b != 0; b &= b - 1 {
		lo := 8*bits.TrailingZeros64(b) - int(o.Shift)
		for _, bit := range [2]int{lo, lo + 7} {
			switch {
			case o.Class == Rotate:
				bit = (bit%(8*n) + 8*n) % (8 * n)
			case o.Class == ShiftSign && bit >= 8*n:
				bit = 8*n - 1
			case bit < 0 || bit >= 8*n:
				continue
			}
			need |= 1 << (bit >> 3)
		}
	}
	return need
}

// CopyOf returns the byte that byte i of an output is a copy of: the number of
// the input and of its byte. It reports false where the byte is computed, or is
// a copy of one of several.
func (e *Effects) CopyOf(o *Output, i int) (in, b int, ok bool) {
	in = bits.TrailingZeros8(o.From)
	if o.From == 0 || o.Fixed>>i&1 != 0 && i < 16 || o.Cond != 0 {
		return 0, 0, false
	}
	if i < 16 && o.Same>>i&1 != 0 {
		return in, i, true
	}
	if o.From&(o.From-1) != 0 {
		return 0, 0, false
	}
	n := int(e.In[in].Size)
	switch o.Class {
	case Copy:
		return in, i, n == 0 || i < n
	case Reverse:
		return in, n - 1 - i, i < n
	case Shift, ShiftSign, Rotate:
		if o.Shift%8 != 0 {
			return 0, 0, false
		}
		b = i - int(o.Shift)/8
		if o.Class == Rotate {
			b = (b%n + n) % n
		}
		return in, b, b >= 0 && b < n
	}
	return 0, 0, false
}

// IsConst says whether byte i of an output depends on nothing the program has.
func (o *Output) IsConst(i int) bool {
	return i < 16 && o.Fixed>>i&1 != 0 || o.Class == Const && (i >= 16 || o.Same>>i&1 == 0)
}
