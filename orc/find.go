package orc

import (
	"encoding/binary"
	"fmt"
)

// window is how many addresses Find reads at once when it has come near.
const window = 64

// Find returns the entry for the code at pc, and false if the table does not
// cover pc. An entry of type [Undefined] covers pc: it is code, or space
// between functions, that cannot be unwound.
//
// A return address may already belong to the next function, when a call was the
// last instruction: look up return addresses less one, and only the pc of an
// interrupted frame as it is. See Entry.Signal.
func (t *Table) Find(pc uint64) (Entry, bool, error) {
	i, err := t.search(pc)
	if err != nil || i < 0 {
		return Entry{}, false, err
	}
	e, err := t.entry(i)
	if err != nil {
		return Entry{}, false, err
	}
	if i == t.n-1 && e.Type == Undefined {
		// objtool ends every section with such an entry: behind the last
		// one there is nothing of this table's.
		return Entry{}, false, nil
	}
	return e, true, nil
}

// search returns the index of the last entry at or below pc, or -1. Of several
// at one address the first ones end the section before, so the last counts.
func (t *Table) search(pc uint64) (int, error) {
	low, high := 0, t.n // entries below low are at or below pc, from high above
	var buf [window * ipSize]byte
	for low < high {
		first, n := low+(high-low)/2, 1
		if high-low <= window {
			first, n = low, high-low
		}
		addr := t.ip + uint64(first)*ipSize
		b := buf[:n*ipSize]
		if err := t.m.ReadMem(b, addr); err != nil {
			return -1, fmt.Errorf(".orc_unwind_ip: %w", err)
		}
		k := 0
		for k < n && address(b[k*ipSize:], addr+uint64(k)*ipSize) <= pc {
			k++
		}
		switch {
		case n > 1:
			return first + k - 1, nil
		case k == 1:
			low = first + 1
		default:
			high = first
		}
	}
	return low - 1, nil
}

// address decodes a self-relative address.
func address(b []byte, place uint64) uint64 {
	return place + uint64(int64(int32(binary.LittleEndian.Uint32(b))))
}

func (t *Table) entry(i int) (Entry, error) {
	var b [entrySize]byte
	addr := t.unwind + uint64(i)*entrySize
	if err := t.m.ReadMem(b[:], addr); err != nil {
		return Entry{}, fmt.Errorf(".orc_unwind: %w", err)
	}
	e, why := t.layout.decode(b)
	if why != (misfit{}) {
		return e, &FormatError{".orc_unwind", addr, why.String()}
	}
	return e, nil
}
