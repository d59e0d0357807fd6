package disasm

import (
	"errors"

	"github.com/ksleuth/ksleuth/kernel"
	"github.com/ksleuth/ksleuth/mem"
	"github.com/ksleuth/ksleuth/x86"
)

const pageSize = 4096

// A part is code without a gap.
type part struct {
	addr uint64
	code []byte
}

// maxGaps bounds the gaps of a listing: of memory that is hardly there, the
// rest is one gap.
const maxGaps = 64

// bytes returns code, read or handed out.
func (d *Disassembler) bytes(c Code) ([]part, []Gap, error) {
	if c.handed != nil {
		return []part{{c.Start, c.handed.text}}, nil, nil
	}
	return d.read(c.Start, c.Len)
}

// read reads n bytes, and where memory cannot be read goes on at the next page.
// The error is the first one.
func (d *Disassembler) read(start uint64, n int) ([]part, []Gap, error) {
	var parts []part
	var gaps []Gap
	var first error
	code := make([]byte, n)
	for off := 0; off < n; {
		at := start + uint64(off)
		err := d.k.Mem().ReadMem(code[off:], at)
		if err == nil {
			parts = append(parts, part{at, code[off:]})
			break
		}
		var f *mem.Fault
		if !errors.As(err, &f) || f.Addr < at || f.Addr-at >= uint64(n-off) {
			return nil, nil, err
		}
		if first == nil {
			first = err
		}
		bad := off + int(f.Addr-at)
		if bad > off {
			parts = append(parts, part{at, code[off:bad:bad]})
		}
		if off = min(bad+int(pageSize-f.Addr%pageSize), n); len(gaps) == maxGaps {
			off = n
		}
		if last := len(gaps) - 1; last >= 0 && uint64(gaps[last].Addr)+uint64(gaps[last].Len) == f.Addr {
			gaps[last].Len += off - bad
			continue
		}
		gaps = append(gaps, Gap{Addr: mem.Addr(f.Addr), Len: off - bad, Why: err.Error()})
	}
	return parts, gaps, first
}

// minPadding is how many equal bytes are padding. Fewer align the next
// function, or trap speculation behind a jump.
const minPadding = 32

// trimPadding cuts off what fills the memory of an image behind its code:
// traps, as the JIT puts them, or zeroes. It returns how many bytes that was.
// The length of a program's code is known.
func trimPadding(parts []part, kind kernel.Kind) ([]part, int) {
	if kind != kernel.KindTrampoline || len(parts) == 0 {
		return parts, 0
	}
	last := &parts[len(parts)-1]
	n := len(last.code)
	keep := n
	for keep > 0 && last.code[keep-1] == last.code[n-1] {
		keep--
	}
	if fill := last.code[n-1]; fill != 0xcc && fill != 0 || n-keep < minPadding || keep == 0 {
		return parts, 0
	}
	end := 0 // of the instruction that the last of the other bytes is part of
	for in := new(x86.Inst); end < keep; end += max(in.Len, 1) {
		_ = in.Decode(last.code[end:], last.addr+uint64(end))
	}
	last.code = last.code[:end]
	return parts, n - end
}
