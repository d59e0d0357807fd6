package tracee

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"strings"
	"sync"

	"github.com/ksleuth/ksleuth/bpf"
	"github.com/ksleuth/ksleuth/bpfsys"
	"github.com/ksleuth/ksleuth/bpfview"
	"github.com/ksleuth/ksleuth/ctype"
	"github.com/ksleuth/ksleuth/kernel"
)

// A resolver reads what it needs, once.
type resolver struct {
	ctx     context.Context
	src     Source
	o       Options
	pattern string // at work on

	out    []*Function
	there  map[*Function]bool // in out, or beyond its limit
	beyond int

	bpfFuncs map[funcKey]*Function
	kernFunc map[string]*Function // by module:name
	points   map[string]*Function // tracepoints by name
	expanded map[int]bool         // programs of which all was added
	told     map[string]bool      // gaps

	progs   func() ([]*bpf.Program, error)
	links   func() ([]*bpf.Link, error)
	maps    func() ([]*bpf.Map, error)
	arrays  func() (*arrays, error)
	extends func() *extensions
	kernel  func() (*ctype.Types, error)
	btfs    func() map[string]int // ids of the kernel's and the modules' BTF by name
	symbols func() (symbols, error)
	init    func() kernel.Range    // see readInit
	ftrace  func() map[string]bool // see filterFunctions
	types   map[int]programTypes   // by id of the BTF
}

type funcKey struct{ prog, subprog int }

type programTypes struct {
	types *ctype.Types
	err   error
}

// symbols are the kernel's, from memory or from /proc/kallsyms.
type symbols interface {
	Match(pattern string) ([]kernel.Symbol, error)
	Lookup(name string) (kernel.Symbol, bool)
}

func newResolver(ctx context.Context, src Source, o Options, patterns []string) *resolver {
	r := &resolver{
		ctx: ctx, src: src, o: o, there: make(map[*Function]bool), bpfFuncs: make(map[funcKey]*Function),
		kernFunc: make(map[string]*Function), points: make(map[string]*Function), expanded: make(map[int]bool), types: make(map[int]programTypes), told: make(map[string]bool),
	}
	view := src.BPF
	view.Users, view.Brief = needUsers(patterns), view.Kernel == nil && view.Running
	r.progs = sync.OnceValues(func() ([]*bpf.Program, error) { return view.Programs(ctx) })
	r.links = sync.OnceValues(func() ([]*bpf.Link, error) { return view.Links(ctx) })
	r.maps = sync.OnceValues(func() ([]*bpf.Map, error) { return view.Maps(ctx) })
	r.arrays = sync.OnceValues(r.readArrays)
	r.extends = sync.OnceValue(r.readExtensions)
	r.kernel = sync.OnceValues(src.KernelTypes)
	r.btfs = sync.OnceValue(r.readBTFs)
	r.symbols = sync.OnceValues(r.readSymbols)
	r.init = sync.OnceValue(r.readInit)
	r.ftrace = sync.OnceValue(filterFunctions)
	return r
}

// needUsers reports whether it matters who holds objects and where they are
// pinned, which costs much to find out.
func needUsers(patterns []string) bool {
	for _, p := range patterns {
		head, rest, _ := strings.Cut(p, ":")
		if head == "pid" || head == "pin" || forms[head] != nil && strings.HasPrefix(rest, "/") {
			return true
		}
	}
	return false
}

// KernelTypes returns the types of the kernel and its modules: those given, or
// those that memory has, or those that the running kernel shows. With the error
// for a module come the others' types.
func (s Source) KernelTypes() (*ctype.Types, error) {
	if s.Types != nil {
		return s.Types, nil
	}
	if s.BPF.Kernel != nil {
		t, err := s.BPF.Kernel.Types()
		if err == nil || !s.BPF.Running {
			return t, err
		}
	}
	if !s.BPF.Running {
		return nil, errors.New("there is no kernel to take types from")
	}
	t, err := bpfsys.KernelTypes()
	if t != nil && err != nil && s.Gap != nil {
		s.Gap(err)
		err = nil
	}
	return t, err
}

// programTypes returns the types of a program's own BTF.
func (r *resolver) programTypes(p *bpf.Program) (*ctype.Types, error) {
	if t, ok := r.types[p.BTF]; ok {
		return t.types, t.err
	}
	var t programTypes
	if r.src.BPF.Running {
		t.types, t.err = bpfsys.TypesOf(p.BTF)
	} else {
		t.types, t.err = p.Types(r.src.BPF.Kernel)
	}
	if t.err == nil && t.types == nil {
		t.err = errors.New("there is none")
	}
	r.types[p.BTF] = t
	return t.types, t.err
}

// readBTFs returns the ids of the BTF objects of the kernel and its modules,
// which have ids since 5329722057d4 (5.11).
func (r *resolver) readBTFs() map[string]int {
	var all []*bpf.BTF
	if r.src.BPF.Running {
		held, err := bpfsys.BTFs()
		if held == nil || err != nil && len(held.Objects) == 0 {
			return nil
		}
		held.Close()
		all = held.Objects
	} else {
		all, _ = bpf.BTFs(r.src.BPF.Kernel)
	}
	ids := make(map[string]int)
	for _, b := range all {
		if b.Kernel {
			ids[b.Name] = b.ID
		}
	}
	return ids
}

func (r *resolver) readSymbols() (symbols, error) {
	if k := r.src.BPF.Kernel; k != nil {
		return k, nil
	}
	f, err := os.Open("/proc/kallsyms")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return kernel.ReadListed(f)
}

// arrays are the contents of the program arrays.
type arrays struct {
	slots map[int][]Slot   // by id of the program in them
	progs map[int][]inSlot // by id of the map, in the order of the index
}

type inSlot struct{ index, prog int }

const progArray = "prog_array"

// readArrays reads the program arrays. With an error comes what was read.
func (r *resolver) readArrays() (*arrays, error) {
	a := &arrays{make(map[int][]Slot), make(map[int][]inSlot)}
	maps, err := r.maps()
	view := bpfview.Source{Kernel: r.src.BPF.Kernel, Running: r.src.BPF.Running}
	if view.Running {
		view.Kernel = nil // bpf(2) has it all
	}
	for _, m := range maps {
		if m.Type != progArray {
			continue
		}
		es, eerr := view.Entries(r.ctx, m)
		if eerr != nil && !errors.Is(eerr, os.ErrNotExist) { // it has gone since
			err = errors.Join(err, eerr)
		}
		for _, e := range es {
			if len(e.Key) < 4 || len(e.Value) < 4 {
				continue
			}
			in := inSlot{int(binary.LittleEndian.Uint32(e.Key)), int(binary.LittleEndian.Uint32(e.Value))}
			a.progs[m.ID] = append(a.progs[m.ID], in)
			a.slots[in.prog] = append(a.slots[in.prog], Slot{m.ID, m.Name, in.index})
		}
	}
	return a, err
}
