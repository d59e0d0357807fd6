// Package kallsyms decodes the kernel's own symbol table, the one behind
// /proc/kallsyms, out of the memory of a running kernel or of a dump. It needs
// no System.map, no vmlinux and no debug info.
//
// The table is written by the kernel build (scripts/kallsyms.c) and read by
// kernel/kallsyms.c: a count, the names compressed with a table of 256 tokens,
// and one word per symbol from which its address follows. The names stay
// compressed here too: a [Table] of 200,000 symbols takes about 4 MB.
//
// Only x86-64 kernels are supported, 4.19 and later. The table covers the core
// kernel; modules, BPF programs and ftrace trampolines keep their symbols
// elsewhere.
package kallsyms

import (
	"errors"
	"fmt"

	"github.com/ksleuth/ksleuth/mem"
)

// A Symbol is one entry of the table.
type Symbol struct {
	Name string
	Addr uint64 // run-time address; before 6.15 an offset into the per-CPU area for per-CPU variables
	Type byte   // as nm(1) prints it: upper case is global, T text, D data, R read-only, B bss, W weak
	Size uint64 // bytes up to the next symbol with another address; 0 when there is none
}

// Locations holds the run-time addresses of the parts of the kernel's table.
// The zero value of a field means that the kernel has no such part, or that it
// is not known where it is.
type Locations struct {
	NumSyms      uint64 // kallsyms_num_syms
	Names        uint64 // kallsyms_names
	TokenTable   uint64 // kallsyms_token_table
	TokenIndex   uint64 // kallsyms_token_index
	Offsets      uint64 // kallsyms_offsets, 32 bits a symbol
	RelativeBase uint64 // kallsyms_relative_base; gone since 7.0 (a081b5789255)
	Addresses    uint64 // kallsyms_addresses, 64 bits a symbol; gone since 6.11 (64e166099b69)
}

// LocationsFrom fills Locations from symbol, which returns the run-time address
// of a name: for kernels since 6.0 (5fd8fea935a1, f09bddbd8661) the SYMBOL()
// lines of VMCOREINFO. It reports whether all that [Load] needs was there;
// where it was not, use [Scan].
func LocationsFrom(symbol func(name string) (addr uint64, ok bool)) (Locations, bool) {
	var loc Locations
	for _, part := range []struct {
		name string
		addr *uint64
	}{
		{"kallsyms_num_syms", &loc.NumSyms},
		{"kallsyms_names", &loc.Names},
		{"kallsyms_token_table", &loc.TokenTable},
		{"kallsyms_token_index", &loc.TokenIndex},
		{"kallsyms_offsets", &loc.Offsets},
		{"kallsyms_relative_base", &loc.RelativeBase},
		{"kallsyms_addresses", &loc.Addresses},
	} {
		if a, ok := symbol(part.name); ok {
			*part.addr = a
		}
	}
	return loc, loc.missing() == ""
}

// missing names the first part without which no table can be loaded.
func (l Locations) missing() string {
	switch {
	case l.NumSyms == 0:
		return "kallsyms_num_syms"
	case l.Names == 0:
		return "kallsyms_names"
	case l.TokenTable == 0:
		return "kallsyms_token_table"
	case l.TokenIndex == 0:
		return "kallsyms_token_index"
	case l.Offsets == 0 && l.Addresses == 0:
		return "kallsyms_offsets"
	}
	return ""
}

// An Anchor is a symbol whose run-time address is known from elsewhere, best
// _stext from the SYMBOL(_stext) line of VMCOREINFO. It tells which of the
// address encodings the kernel uses, and that the table is this kernel's. With
// the zero Anchor the encoding must put _etext, the end of the kernel's code,
// at most 1 GB below the table itself, which lies in the data behind the code.
type Anchor struct {
	Name string
	Addr uint64
}

// ErrNotFound is returned, wrapped, by [Scan] when memory holds no table.
var ErrNotFound = errors.New("no kallsyms table found")

// A FormatError says which part of the table contradicts what a kernel writes.
type FormatError struct {
	Part string // the kernel's name of the part: "kallsyms_names"
	Addr uint64 // address of what is wrong; 0 if the part was not found
	Why  string
}

// Error names the part, the address and what is wrong.
func (e *FormatError) Error() string {
	if e.Addr == 0 {
		return e.Part + ": " + e.Why
	}
	return fmt.Sprintf("%s at %#x: %s", e.Part, e.Addr, e.Why)
}

// Limits on what is believed of foreign memory. A large distribution kernel has
// 250,000 symbols and 4 MB of compressed names.
const (
	maxSyms  = 4 << 20
	maxNames = 64 << 20
	maxToken = 512  // KSYM_NAME_LEN since 6.1 (b8a94bfb3395); 128 before
	maxName  = 1024 // longer names are cut; none can be longer than KSYM_NAME_LEN
)

// stride is the number of symbols between two entries of [Table.marks]. The
// kernel's own kallsyms_markers uses 256.
const stride = 64

// A Table is a decoded symbol table, in the order of addresses. It does not
// change after [Load] and is safe for concurrent use.
type Table struct {
	names  []byte   // the kernel's compressed names, as they are in memory
	wide   bool     // lengths of 128 and more take two bytes
	marks  []uint32 // where in names every stride-th symbol starts
	tokens tokens
	addrs  []uint64 // ascending
	kernel int      // index of the first symbol in the kernel's half, past the per-CPU offsets
	enc    string
}

// Load reads the table at loc out of the kernel's virtual memory m. Errors are
// a [*FormatError] or wrap the [*mem.Fault] of the read that failed.
func Load(m mem.Reader, loc Locations, check Anchor) (*Table, error) {
	if part := loc.missing(); part != "" {
		return nil, &FormatError{Part: part, Why: "its address is not known"}
	}
	n, err := mem.U32(m, loc.NumSyms)
	if err != nil {
		return nil, fmt.Errorf("kallsyms_num_syms: %w", err)
	}
	if n == 0 || n > maxSyms {
		return nil, &FormatError{"kallsyms_num_syms", loc.NumSyms, fmt.Sprintf("%d symbols, expected 1 to %d", n, maxSyms)}
	}
	tok, err := loadTokens(m, loc)
	if err != nil {
		return nil, err
	}
	t, err := loadNames(m, loc, int(n), tok)
	if err != nil {
		return nil, err
	}
	if err := t.loadAddrs(m, loc, int(n), check); err != nil {
		return nil, err
	}
	return t, nil
}

// Len returns the number of symbols.
func (t *Table) Len() int { return len(t.addrs) }

// Encoding names how the kernel stores the addresses: "place-relative",
// "relative", "absolute-percpu" or "absolute".
func (t *Table) Encoding() string { return t.enc }
