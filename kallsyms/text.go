package kallsyms

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"iter"
	"strconv"
)

// A Line is a line of /proc/kallsyms. The next line overwrites its texts.
type Line struct {
	Addr   uint64 // 0 where the kernel hides addresses
	Type   byte   // as [Symbol] has it
	Name   []byte
	Module []byte // without brackets: a module, or "bpf"; empty for the kernel itself
}

// ReadText reads symbols in the form of /proc/kallsyms, "address type name" and
// for those of modules a tab and "[module]". It ends with the first error, which
// says what line is none.
func ReadText(r io.Reader) iter.Seq2[Line, error] {
	return func(yield func(Line, error) bool) {
		text := bufio.NewScanner(r)
		for n := 1; text.Scan(); n++ {
			l, ok := parseLine(text.Bytes())
			if !ok {
				yield(Line{}, fmt.Errorf("line %d of kallsyms: %.80q is no symbol", n, text.Bytes()))
				return
			}
			if !yield(l, nil) {
				return
			}
		}
		if err := text.Err(); err != nil {
			yield(Line{}, fmt.Errorf("reading kallsyms: %w", err))
		}
	}
}

func parseLine(b []byte) (Line, bool) {
	addr, rest, _ := bytes.Cut(b, []byte(" "))
	n, err := strconv.ParseUint(string(addr), 16, 64)
	if err != nil || len(rest) < 3 || rest[1] != ' ' {
		return Line{}, false
	}
	l := Line{Addr: n, Type: rest[0]}
	name, module, inModule := bytes.Cut(rest[2:], []byte("\t"))
	l.Name = name
	if inModule {
		if len(module) < 3 || module[0] != '[' || module[len(module)-1] != ']' {
			return Line{}, false
		}
		l.Module = module[1 : len(module)-1]
	}
	return l, len(name) > 0
}

// Better reports whether a person would rather name an address by a than by b,
// both of which are there. [Table.At] chooses the same way.
func Better(a, b Symbol) bool { return rank(a) < rank(b) }
