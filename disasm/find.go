package disasm

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/ksleuth/ksleuth/bpf"
	"github.com/ksleuth/ksleuth/ctype"
	"github.com/ksleuth/ksleuth/kernel"
)

// defaultLen is how much is listed from an address that begins no function.
const defaultLen = 64

// maxLen bounds a listing: no function comes near.
const maxLen = 16 << 20

// Code is a range of code to be listed.
type Code struct {
	Name   string
	Start  uint64
	Len    int
	owner  *bpf.Owner
	handed *handedCode // where memory cannot be read
}

// A NotFoundError says that there is no code of a name, or more than one.
type NotFoundError struct {
	What string // a sentence
}

// Error returns the sentence.
func (e *NotFoundError) Error() string { return e.What }

func notFound(format string, args ...any) error {
	return &NotFoundError{fmt.Sprintf(format, args...)}
}

// Find returns the code that what names: a symbol, with or without an offset, a
// number, prog:WHICH or prog:WHICH/SUBPROG, where WHICH is an id, a name or a
// tag, or tramp:WHICH, where WHICH is an address, what the image's name ends
// in, or what it hangs on. A program without a subprogram stands for all its
// functions.
func (d *Disassembler) Find(what string, o Options) ([]Code, error) {
	if prog, ok := strings.CutPrefix(what, "prog:"); ok {
		return d.findProgram(prog)
	}
	if tramp, ok := strings.CutPrefix(what, "tramp:"); ok && d.k != nil {
		return d.findTrampoline(tramp, o)
	}
	if d.k == nil {
		return nil, notFound("%s is not handed out: of programs alone is the code known where memory cannot be read", what)
	}
	addr, err := strconv.ParseUint(what, 0, 64)
	if err == nil {
		return d.mustBeCode(d.codeAt(addr, o), o)
	}
	s, err := d.findSymbol(what)
	if err == nil {
		return d.mustBeCode(Code{Name: s.String(), Start: s.Addr, Len: length(o, s, 0)}, o)
	}
	if name, offset, ok := strings.Cut(what, "+"); ok {
		off, err1 := strconv.ParseUint(offset, 0, 64)
		if s, err2 := d.findSymbol(name); err1 == nil && err2 == nil {
			return d.mustBeCode(d.codeAt(s.Addr+off, o), o)
		}
	}
	// A program may have been meant by its name alone.
	if code, err := d.findProgram(what); err == nil {
		return code, nil
	}
	return nil, d.suggest(err)
}

// mustBeCode refuses data, unless it is asked for with a length.
func (d *Disassembler) mustBeCode(c Code, o Options) ([]Code, error) {
	if m, err := d.k.Walk(c.Start); err == nil && !m.Exec && o.Len == 0 {
		return nil, notFound("%s is no code: its memory is not executable; with a length it is listed all the same", c.Name)
	}
	return []Code{c}, nil
}

// suggest adds near names of modules and BPF code to an error.
func (d *Disassembler) suggest(err error) error {
	const same = 3 // letters at the beginning
	var none *kernel.NoSymbolError
	if !errors.As(err, &none) || len(none.Name) <= same || strings.ContainsAny(none.Name, "*?[\\") {
		return err
	}
	syms, _ := d.k.Match(none.Name[:same] + "*")
	names := slices.Clone(none.Suggestions)
	for _, s := range syms {
		names = append(names, s.Name)
	}
	slices.Sort(names)
	names = slices.Compact(names)
	return &kernel.NoSymbolError{Name: none.Name, Suggestions: ctype.Suggest(none.Name, names)}
}

// findSymbol finds code by its symbol. The image of a dispatcher has the name
// of the variable that it belongs to.
func (d *Disassembler) findSymbol(name string) (kernel.Symbol, error) {
	text, _ := d.k.BPFText()
	for _, t := range text {
		if t.Name == name {
			s, _, _ := d.k.Symbolize(t.Start)
			return s, nil
		}
	}
	return d.k.Find(name)
}

// codeAt returns the code at an address.
func (d *Disassembler) codeAt(addr uint64, o Options) Code {
	s, off, ok := d.k.Symbolize(addr)
	if !ok {
		return Code{Name: fmt.Sprintf("%#x", addr), Start: addr, Len: length(o, kernel.Symbol{}, 1)}
	}
	return Code{Name: d.k.FormatAddr(addr), Start: addr, Len: length(o, s, off)}
}

func length(o Options, s kernel.Symbol, off uint64) int {
	switch {
	case o.Len > 0:
		return min(o.Len, maxLen)
	case off == 0 && s.Size > 0:
		return int(min(s.Size, maxLen))
	}
	return defaultLen
}

func (d *Disassembler) findProgram(arg string) ([]Code, error) {
	which, sub, one := strings.Cut(arg, "/")
	p, err := d.program(which)
	if err != nil {
		return nil, err
	}
	var out []Code
	for i, s := range p.Subprogs {
		if one && s.Name != sub && strconv.Itoa(i) != sub {
			continue
		}
		out = append(out, Code{Name: s.Name, Start: uint64(s.Addr), Len: min(s.Len, maxLen), owner: &bpf.Owner{Prog: p, Subprog: i}})
	}
	if len(out) == 0 {
		return nil, notFound("program %d has no function %q; it has %s", p.ID, sub, functions(p))
	}
	for _, c := range out {
		if c.Len == 0 || c.Start == 0 {
			return nil, d.noText(p)
		}
	}
	if d.handed != nil {
		return out, d.handProgram(p, out)
	}
	return out, nil
}

// noText says why a program has no machine code.
func (d *Disassembler) noText(p *bpf.Program) error {
	if d.handed != nil && p.JitedLen > 0 {
		return &HiddenError{p.ID}
	}
	return notFound("program %d has no machine code: the kernel interprets it", p.ID)
}

// program returns the program with an id, else the only one with a name or tag.
// A program of which something cannot be read is listed all the same.
func (d *Disassembler) program(which string) (*bpf.Program, error) {
	id, notID := strconv.Atoi(which)
	if d.handed != nil {
		for _, p := range d.handed.Progs {
			if notID == nil && p.ID == id {
				return p, nil
			}
		}
		return oneNamed(d.handed.Progs, which)
	}
	if notID == nil {
		p, err := d.programs(id)
		switch {
		case len(p) == 1:
			return p[0], nil
		case err != nil:
			return nil, err
		}
	}
	progs, err := d.programs()
	p, none := oneNamed(progs, which)
	// Of a running kernel, what cannot be read has gone.
	if p == nil && err != nil && !d.k.Live() && len(progs) < d.countPrograms() {
		return nil, fmt.Errorf("there is no BPF program %s among the %d that could be read: %w", which, len(progs), err)
	}
	return p, none
}

// oneNamed returns the only program with a name or tag.
func oneNamed(progs []*bpf.Program, which string) (*bpf.Program, error) {
	p, err := bpf.Select(progs, which)
	if err != nil {
		return nil, &NotFoundError{err.Error()}
	}
	return p, nil
}

// programs returns the programs, or those with the ids.
func (d *Disassembler) programs(ids ...int) (progs []*bpf.Program, err error) {
	err = d.k.Retry(func() (err error) {
		progs, err = bpf.Programs(d.k, ids...)
		return err
	})
	return progs, err
}

// countPrograms returns how many programs there are, readable or not.
func (d *Disassembler) countPrograms() int {
	idr, err := d.k.Addr("prog_idr")
	if err != nil {
		return 0
	}
	n := 0
	for _, err := range d.k.XArray(idr) {
		if n++; err != nil {
			return n
		}
	}
	return n
}

func functions(p *bpf.Program) string {
	var out []string
	for _, s := range p.Subprogs {
		out = append(out, s.Name)
	}
	return strings.Join(out, ", ")
}

// findTrampoline returns the images that arg names. Those of a struct_ops map
// are several.
func (d *Disassembler) findTrampoline(arg string, o Options) ([]Code, error) {
	tramps, err := bpf.Trampolines(d.k)
	addr, numErr := strconv.ParseUint(arg, 0, 64)
	var found []*bpf.Trampoline
	var bare *bpf.Trampoline
	for _, t := range tramps {
		switch {
		case !matches(t, arg, addr, numErr == nil):
		case t.Image == 0:
			bare = t
		default:
			found = append(found, t)
		}
	}
	// The one in use stands before those that were replaced.
	if current := slices.DeleteFunc(slices.Clone(found), func(t *bpf.Trampoline) bool { return t.Kind == "retired" }); len(current) > 0 {
		found = current
	}
	several := len(found) > 1 && slices.ContainsFunc(found, func(t *bpf.Trampoline) bool { return t.Kind != "struct_ops" })
	switch {
	case several:
		var names []string
		for _, t := range found {
			names = append(names, "tramp:"+t.Image.String())
		}
		return nil, notFound("%d trampolines fit %s: name one by its address, %s", len(found), arg, strings.Join(names, ", "))
	case len(found) > 0:
		var out []Code
		for _, t := range found {
			out = append(out, trampolineCode(t, o))
		}
		return out, nil
	case bare != nil:
		return nil, notFound("the trampoline of %s has no code: %s", bare.Target.Name, runs(bare))
	case numErr == nil && addr>>63 == 1:
		return []Code{d.codeAt(addr, o)}, nil
	case err != nil:
		return nil, fmt.Errorf("there is no trampoline %s among the %d that could be read: %w", arg, len(tramps), err)
	}
	return nil, notFound("there is no trampoline %s; %s", arg, trampolineNames(tramps))
}

// matches says whether an argument means a trampoline.
func matches(t *bpf.Trampoline, arg string, addr uint64, number bool) bool {
	if number {
		start := uint64(t.Image)
		if start != 0 && addr >= start && addr < start+uint64(t.Size) || addr == uint64(t.Addr) && addr != 0 || addr == uint64(t.Key) && addr != 0 {
			return true
		}
	}
	switch {
	case arg == "":
		return false
	case arg == t.Name, arg == t.Target.Name, t.Member != "" && arg == t.Target.Name+"."+t.Member:
		return true
	}
	return strings.HasPrefix(t.Name, "bpf_") && strings.HasSuffix(t.Name, "_"+arg)
}

func trampolineCode(t *bpf.Trampoline, o Options) Code {
	name := t.Name
	if name == "" && t.Member != "" {
		name = t.Target.Name + "." + t.Member
	}
	c := Code{Name: name, Start: uint64(t.Image), Len: min(t.Size, maxLen)}
	if o.Len > 0 {
		c.Len = min(o.Len, maxLen)
	} else if c.Len == 0 {
		c.Len = defaultLen
	}
	return c
}

func trampolineNames(tramps []*bpf.Trampoline) string {
	const most = 8
	var names []string
	for _, t := range tramps {
		name := t.Name
		if t.Target.Name != "" {
			name = t.Target.Name
		}
		if t.Image != 0 && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return "this kernel has none"
	}
	more := ""
	if len(names) > most {
		names, more = names[:most], ", ..."
	}
	return "there are those of " + strings.Join(names, ", ") + more
}
