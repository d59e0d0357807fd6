package probe

import (
	"bytes"
	_ "embed"
	"encoding/binary"
	"fmt"
	"slices"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
)

//go:generate clang -O2 -g -target bpf -mcpu=v3 -Wall -Wno-unused-const-variable -Wno-unused-function -fdebug-compilation-dir=. -c probe.bpf.c -o probe.bpf.o
//go:generate llvm-strip -g probe.bpf.o

//go:embed probe.bpf.o
var object []byte

// generated are the functions whose bodies a program brings along, by their
// names in probe.bpf.c; nil leaves the template's.
type generated map[string]asm.Instructions

// The names of functions with generated bodies.
const (
	genFilter     = "gen_filter"
	genShow       = "gen_show"
	genExitFilter = "gen_exit_filter"
	genExitShow   = "gen_exit_show"
	genPacket     = "gen_packet"
	genRawPacket  = "gen_raw_packet"
)

// templates are the object's programs, bound to a session's maps.
type templates struct {
	progs map[string]asm.Instructions
	maps  map[string]*ebpf.Map
	// isReturn is the number of bpf_session_is_return in the kernel's BTF.
	isReturn btf.TypeID

	mu     sync.Mutex
	linked map[string][]byte // by name, without generated code
	pruned map[pruned][]byte // the same with constants, but for kPoint
}

// pruned names a program with constants.
type pruned struct {
	name string
	values
}

// loadTemplates parses the object. Members of the kernel's structs are placed
// by its types; with none the programs must not use them.
func loadTemplates(kernel *btf.Spec) (*templates, error) {
	spec, err := ebpf.LoadCollectionSpecFromReader(bytes.NewReader(object))
	if err != nil {
		return nil, fmt.Errorf("parse the programs: %w", err)
	}
	t := &templates{progs: make(map[string]asm.Instructions), linked: make(map[string][]byte), pruned: make(map[pruned][]byte)}
	if kernel != nil {
		var fn *btf.Func
		if kernel.TypeByName("bpf_session_is_return", &fn) == nil {
			t.isReturn, _ = kernel.TypeID(fn)
		}
	}
	for name, p := range spec.Programs {
		t.progs[name] = p.Instructions
		if kernel == nil {
			continue
		}
		if err := relocate(p.Instructions, kernel); err != nil {
			return nil, fmt.Errorf("place members of the kernel's structs: %w", err)
		}
	}
	return t, nil
}

// relocate places members by the kernel's types (CO-RE).
func relocate(insns asm.Instructions, kernel *btf.Spec) error {
	var relos []*btf.CORERelocation
	var at []int
	for i := range insns {
		if r := btf.CORERelocationMetadata(&insns[i]); r != nil {
			relos, at = append(relos, r), append(at, i)
		}
	}
	if len(relos) == 0 {
		return nil
	}
	noLocal := func(t btf.Type) (btf.TypeID, error) { return 0, fmt.Errorf("%v has no id", t) }
	fixups, err := btf.CORERelocate(relos, []*btf.Spec{kernel}, binary.LittleEndian, noLocal)
	if err != nil {
		return err
	}
	for i, f := range fixups {
		if err := f.Apply(&insns[at[i]]); err != nil {
			return err
		}
	}
	return nil
}

// link returns the bytes of a program with generated functions and constants.
// Programs that differ in the number of their point alone are made once.
func (t *templates) link(name string, gen generated, v *values) ([]byte, error) {
	key := pruned{name, *v}
	key.values[kPoint] = 0
	t.mu.Lock()
	code := t.pruned[key]
	t.mu.Unlock()
	if code == nil || len(gen) > 0 {
		full, err := t.code(name, gen)
		if err != nil {
			return nil, err
		}
		full = slices.Clone(full)
		if err := v.patch(full, kPoint); err != nil {
			return nil, err
		}
		if code, err = prune(full); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		if len(gen) == 0 {
			t.mu.Lock()
			t.pruned[key] = code
			t.mu.Unlock()
		}
	}
	code = slices.Clone(code)
	return code, v.patch(code, -1)
}

// code returns a program's bytes before its constants are put in. Those without
// generated functions are made once.
func (t *templates) code(name string, gen generated) ([]byte, error) {
	own := len(gen) > 0
	t.mu.Lock()
	defer t.mu.Unlock()
	if code := t.linked[name]; code != nil && !own {
		return code, nil
	}
	insns, ok := t.progs[name]
	if !ok {
		return nil, fmt.Errorf("the object has no program %s", name)
	}
	insns = replace(insns, gen)
	for i := range insns {
		ins := &insns[i]
		if ins.IsKfuncCall() { // there is but one
			ins.Constant, ins.Offset = int64(t.isReturn), 0
		}
		if !ins.IsLoadFromMap() {
			continue
		}
		m := t.maps[ins.Reference()]
		if m == nil {
			return nil, fmt.Errorf("%s uses map %q, which there is none of", name, ins.Reference())
		}
		if err := ins.AssociateMap(m); err != nil {
			return nil, err
		}
	}
	var buf bytes.Buffer
	if err := insns.Marshal(&buf, binary.LittleEndian); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if !own {
		t.linked[name] = buf.Bytes()
	}
	return buf.Bytes(), nil
}

// replace returns a copy of a program with other bodies for some of its
// functions.
func replace(insns asm.Instructions, gen generated) asm.Instructions {
	out := make(asm.Instructions, 0, len(insns))
	skip := false
	for _, ins := range insns {
		if sym := ins.Symbol(); sym != "" {
			body := gen[sym]
			skip = len(body) > 0
			out = append(out, localize(sym, body)...)
		}
		if !skip {
			out = append(out, ins)
		}
	}
	return out
}

// localize makes a function of a body: its labels become its own.
func localize(fn string, body asm.Instructions) asm.Instructions {
	out := slices.Clone(body)
	local := func(label string) string {
		if label == body[0].Symbol() {
			return fn
		}
		return fn + "." + label
	}
	for i := range out {
		ins := &out[i]
		if s := ins.Symbol(); s != "" && i > 0 {
			*ins = ins.WithSymbol(local(s))
		}
		if r := ins.Reference(); r != "" && !ins.IsLoadFromMap() {
			*ins = ins.WithReference(local(r))
		}
	}
	if len(out) > 0 {
		out[0] = out[0].WithSymbol(fn)
	}
	return out
}
