package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/ksleuth/ksleuth/bpf"
	"github.com/ksleuth/ksleuth/bpfsys"
	"github.com/ksleuth/ksleuth/ctype"
	"github.com/ksleuth/ksleuth/disasm"
	"github.com/ksleuth/ksleuth/kernel"
	"github.com/ksleuth/ksleuth/live"
)

// symbols finds symbols: in the target's memory or as the running kernel lists
// them.
type symbols interface {
	Find(name string) (kernel.Symbol, error)
	Match(pattern string) ([]kernel.Symbol, error)
	Symbolize(addr uint64) (s kernel.Symbol, off uint64, ok bool)
}

// openSymbols returns the target's symbols. Where the running kernel's memory
// cannot be read they are those of /proc/kallsyms.
func (a *app) openSymbols() (symbols, error) {
	k, err := a.open()
	var closed *live.Error
	if !errors.As(err, &closed) {
		return k, err
	}
	l, err := listedSymbols()
	if err != nil {
		return nil, err
	}
	return &listedSource{Listed: l, app: a, closed: closed}, nil
}

// listedSource says of sizes that they are not the true ones, once.
type listedSource struct {
	*kernel.Listed
	app    *app
	closed *live.Error
	said   bool
}

func (l *listedSource) Find(name string) (kernel.Symbol, error) {
	s, err := l.Listed.Find(name)
	l.sized(s)
	return s, err
}

func (l *listedSource) Match(pattern string) ([]kernel.Symbol, error) {
	syms, err := l.Listed.Match(pattern)
	l.sized(syms...)
	return syms, err
}

func (l *listedSource) Symbolize(addr uint64) (kernel.Symbol, uint64, bool) {
	s, off, ok := l.Listed.Symbolize(addr)
	l.sized(s)
	return s, off, ok
}

func (l *listedSource) sized(syms ...kernel.Symbol) {
	for _, s := range syms {
		if s.Kind != kernel.KindKernel && s.Name != "" && !l.said {
			l.said = true
			l.app.note("sizes in modules and BPF code are the distances to the next symbol of /proc/kallsyms, 0 where that is another module's: " + l.closed.Error())
		}
	}
}

// listedSymbols reads /proc/kallsyms.
func listedSymbols() (*kernel.Listed, error) {
	f, err := os.Open("/proc/kallsyms")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &statusError{StatusUnsupported, fmt.Errorf("%w: it takes a kernel with CONFIG_KALLSYMS, and proc mounted at /proc", err)}
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return kernel.ReadListed(f)
}

// openTypes returns the target's types, and what is wrong with those of
// modules. Where the running kernel's memory cannot be read they are those of
// sysfs.
func (a *app) openTypes() (types *ctype.Types, modules func() error, err error) {
	k, err := a.open()
	var closed *live.Error
	if errors.As(err, &closed) {
		types, err := bpfsys.KernelTypes()
		if types == nil {
			return nil, nil, err
		}
		return types, func() error { return err }, nil
	}
	if err != nil {
		return nil, nil, err
	}
	types, err = k.Types()
	return types, k.ModuleTypesError, err
}

// withoutMemory reports whether err says that the running kernel's memory
// cannot be read, so that something else is to answer; it says so, once.
func (a *app) withoutMemory(told string, err error) bool {
	var closed *live.Error
	if !errors.As(err, &closed) {
		return false
	}
	if !a.memoryless {
		a.note(told + " alone: " + closed.Error())
	}
	a.memoryless = true
	return true
}

// openDisassembler returns a disassembler for what the command line names.
// Where the running kernel's memory cannot be read, bpf(2) hands out BPF
// programs. What it needs is let go of by done.
func (a *app) openDisassembler(what string, o disasm.Options) (d *disasm.Disassembler, done func(), err error) {
	k, err := a.open()
	if err == nil {
		return disasm.New(k), func() {}, nil
	}
	if !strings.HasPrefix(what, "prog:") || !a.withoutMemory("BPF code, without what it refers to in memory, is told by bpf(2)", err) {
		return nil, nil, err
	}
	progs, err := bpfsys.Programs()
	done = func() { progs.Close() }
	if err != nil && (progs == nil || len(progs.Objects) == 0) {
		done()
		return nil, nil, err
	}
	a.gap(err)
	h := disasm.Handed{Progs: progs.Objects, CodeOf: func(id int) (*bpfsys.Code, error) { return bpfsys.CodeOf(progs, id) }}
	if syms, err := listedSymbols(); err == nil {
		h.Symbols = syms
	} else {
		a.gap(err)
	}
	if o.Xlated {
		h.Maps = a.mapNames()
		h.Types, err = bpfsys.KernelTypes()
		a.gap(err)
	}
	return disasm.NewHanded(h), done, nil
}

// mapNames returns the maps, which need not be held: their names stay.
func (a *app) mapNames() []*bpf.Map {
	maps, err := bpfsys.Maps()
	a.gap(err)
	if maps == nil {
		return nil
	}
	a.gap(maps.Close())
	return maps.Objects
}
