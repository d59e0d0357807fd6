package x86

import "fmt"

// A RangeError says that an address lies outside the code given.
type RangeError struct {
	PC         uint64
	Start, End uint64 // of the code, End exclusive
}

// Error names the address and the bounds.
func (e *RangeError) Error() string {
	return fmt.Sprintf("address %#x is outside the code at %#x-%#x", e.PC, e.Start, e.End)
}

// Around disassembles code, which lies at start, and returns up to before
// instructions ahead of pc, the one at pc, and up to after instructions behind
// it. Machine code cannot be decoded backwards, so start must be the start of an
// instruction, best of the function.
//
// A listing never stops: a byte that begins no known instruction becomes a [BAD]
// one of one byte, and so do the bytes before pc of an instruction that would run
// across it, for pc is known to begin one. The error is a [*RangeError].
func Around(code []byte, start, pc uint64, before, after int) ([]Inst, error) {
	end := start + uint64(len(code))
	if pc < start || pc-start >= uint64(len(code)) {
		return nil, &RangeError{PC: pc, Start: start, End: end}
	}
	head := lastBefore(code[:pc-start], start, max(before, 0))
	list := head
	left := max(after, 0)
	for off := pc - start; off < uint64(len(code)); {
		var in Inst
		in.Decode(code[off:], start+off) // a failure leaves a BAD one, which is what is wanted
		list = append(list, in)
		off += uint64(in.Len)
		if left == 0 {
			break
		}
		left--
	}
	return list, nil
}

// lastBefore decodes code and returns the last n instructions of it.
func lastBefore(code []byte, start uint64, n int) []Inst {
	if n == 0 {
		return nil
	}
	var list []Inst
	for off := 0; off < len(code); {
		var in Inst
		in.Decode(code[off:], start+uint64(off))
		off += in.Len
		if len(list) >= 2*n { // forget the first half
			list = list[:copy(list, list[n:])]
		}
		list = append(list, in)
	}
	return list[max(len(list)-n, 0):]
}
