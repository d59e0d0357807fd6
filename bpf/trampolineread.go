package bpf

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"github.com/ksleuth/ksleuth/kernel"
	"github.com/ksleuth/ksleuth/mem"
)

// trampolineTables are the hash tables of trampolines that kernels have had,
// with the list nodes that link a trampoline into them. Each has
// trampolineHeads lists. Newer kernels link every trampoline into two.
var trampolineTables = []struct{ symbol, node string }{
	{"trampoline_table", "hlist"},         // fec56f5890d9, 5.5
	{"trampoline_key_table", "hlist_key"}, // 7.0, by what is traced
	{"trampoline_ip_table", "hlist_ip"},   // 7.0, by its address
}

const (
	trampolineHeads = 1 << 10 // TRAMPOLINE_TABLE_SIZE
	maxTrampolines  = 1 << 16
	maxTrampProgs   = 256 // more than BPF_MAX_TRAMP_LINKS has been in any kernel
)

// trampolineFlags names the bits of bpf_trampoline.flags, which are macros and
// so not in BTF (BPF_TRAMP_F_*, include/linux/bpf.h). Bits do not change their
// meaning.
var trampolineFlags = []string{
	"restore_regs", "call_orig", "skip_frame", "ip_arg", "ret_fentry_ret",
	"orig_stack", "share_ipmodify", "tail_call_ctx", "indirect",
}

// trampolineKinds are the lists of a trampoline in the order they run, with
// their index (enum bpf_tramp_prog_type, the same in every kernel).
var trampolineKinds = []struct {
	index uint64
	when  string
}{{0, "fentry"}, {2, "fmod_ret"}, {1, "fexit"}}

// Trampolines returns the trampolines, and the other images of BPF that run
// programs: dispatchers and those of struct_ops maps; by image address. With an
// error comes what was read.
func Trampolines(k *kernel.Kernel) ([]*Trampoline, error) {
	r := newTrampolineReader(k)
	out := r.table()
	out = append(out, r.dispatchers()...)
	out = append(out, r.structOps()...)
	out = append(out, r.retired(out)...)
	slices.SortStableFunc(out, func(a, b *Trampoline) int {
		return cmp.Or(cmp.Compare(a.Image, b.Image), cmp.Compare(a.Addr, b.Addr))
	})
	return out, r.errs.Err()
}

// trampolineReader is one reading of the trampolines.
type trampolineReader struct {
	k     *kernel.Kernel
	errs  kernel.Errors
	progs map[uint64]*Program // by the address of the struct bpf_prog
	ids   map[int]*Program
	code  []ownedCode // by address
	text  []kernel.BPFText
	exact map[*Trampoline]bool // its Size is that of the code
	// partial: there may be trampolines, or images of them, that were not seen.
	partial bool
}

// ownedCode is the machine code of a subprogram.
type ownedCode struct {
	start, end uint64
	owner      Owner
}

func newTrampolineReader(k *kernel.Kernel) *trampolineReader {
	r := &trampolineReader{k: k, progs: make(map[uint64]*Program), ids: make(map[int]*Program), exact: make(map[*Trampoline]bool)}
	progs, _ := Programs(k) // their errors are for those who ask for programs
	for _, p := range progs {
		r.progs[uint64(p.Addr)] = p
		r.ids[p.ID] = p
		for i, s := range p.Subprogs {
			r.code = append(r.code, ownedCode{uint64(s.Addr), uint64(s.Addr) + uint64(s.Len), Owner{p, i}})
		}
	}
	slices.SortFunc(r.code, func(a, b ownedCode) int { return cmp.Compare(a.start, b.start) })
	var err error
	if r.text, err = k.BPFText(); err != nil {
		r.errs.Add(err)
	}
	return r
}

// table walks the hash tables.
func (r *trampolineReader) table() []*Trampoline {
	var out []*Trampoline
	seen := make(map[uint64]bool)
	found := false
	for _, t := range trampolineTables {
		head, err := r.k.Addr(t.symbol)
		if err != nil {
			continue // of other kernels
		}
		found = true
		node, err := r.k.Offset("bpf_trampoline", t.node)
		if err != nil {
			r.errs.Add(fmt.Errorf("trampolines: %w", err))
			continue
		}
		heads, err := r.heads(t.symbol, head)
		if err != nil {
			r.lost(err)
		}
		for i, first := range heads {
			for _, at := range r.hlist(fmt.Sprintf("%s[%d]", t.symbol, i), first, maxTrampolines) {
				if addr := at - node; !seen[addr] && len(seen) < maxTrampolines && !r.errs.TooMany() {
					seen[addr] = true
					out = append(out, r.trampoline(addr))
				}
			}
			if r.errs.TooMany() {
				r.partial = true
				return out
			}
		}
	}
	if !found && r.k.Sizeof("bpf_trampoline") != 0 {
		r.lost(fmt.Errorf("trampolines: %w", &kernel.NoSymbolError{Name: trampolineTables[0].symbol}))
	}
	return out
}

// heads reads the lists of a table: the first node of each. What can be read
// comes with the error.
func (r *trampolineReader) heads(table string, addr uint64) ([]uint64, error) {
	out := make([]uint64, trampolineHeads)
	var errs kernel.Errors
	for i := 0; i < len(out); {
		// Up to the end of the page: another may be there though this one is not.
		n := min(int(pageSize-(addr+uint64(8*i))%pageSize)/8, len(out)-i)
		b, err := mem.Bytes(r.k.Mem(), addr+uint64(8*i), 8*max(n, 1))
		if err != nil {
			errs.Add(fmt.Errorf("%s[%d] and %d more: %w", table, i, max(n, 1)-1, err))
		}
		for j := 0; j < len(b); j += 8 {
			out[i+j/8] = binary.LittleEndian.Uint64(b[j:])
		}
		i += max(n, 1)
	}
	return out, errs.Err()
}

// hlist returns the nodes of the hlist that begins with first, up to limit. A
// list that cannot be followed to its end is reported.
func (r *trampolineReader) hlist(what string, first uint64, limit int) []uint64 {
	var out []uint64
	seen := make(map[uint64]bool)
	for at := first; at != 0; {
		if seen[at] || len(out) == limit {
			r.lost(fmt.Errorf("%s: the list does not end: damaged", what))
			return out
		}
		next, err := mem.U64(r.k.Mem(), at)
		if err != nil {
			r.lost(fmt.Errorf("%s: %w", what, err))
			return out
		}
		seen[at] = true
		out = append(out, at)
		at = next
	}
	return out
}

// lost notes an error that may have kept trampolines from sight.
func (r *trampolineReader) lost(err error) {
	r.partial = true
	r.errs.Add(err)
}

// trampoline reads the struct bpf_trampoline at addr: all that can be read.
func (r *trampolineReader) trampoline(addr uint64) *Trampoline {
	o := r.k.Object("bpf_trampoline", addr)
	t := &Trampoline{Addr: mem.Addr(addr), Kind: "trampoline", Key: mem.Addr(o.Uint("key")), Progs: []TrampolineProg{}, Flags: []string{}}
	t.Target = r.trampolineTarget(o.Ptr("func.addr"), uint64(t.Key))
	if o.Has("flags") { // 00963a2e75a8, 6.0
		t.Flags = flagNames(o.Uint("flags"))
	}
	extension, heads, counts := o.Ptr("extension_prog"), o.At("progs_hlist"), o.At("progs_cnt")
	if err := o.Err(); err != nil {
		r.errs.Add(fmt.Errorf("trampoline at 0x%x: %w", addr, err))
		return t
	}
	r.image(t, o)
	if extension != 0 {
		if p := r.prog(extension); p != nil {
			t.Replaced = p.ID
			t.Progs = append(t.Progs, TrampolineProg{ID: p.ID, Name: p.Name, When: "replace"})
		}
	}
	for _, kind := range trampolineKinds {
		progs := r.attached(heads+8*kind.index, kind.when, addr)
		n, err := mem.U32(r.k.Mem(), counts+4*kind.index)
		if err == nil && int(n) != len(progs) {
			err = fmt.Errorf("its list of %s programs has %d, and it counts %d", kind.when, len(progs), n)
		}
		if err != nil {
			r.errs.Add(fmt.Errorf("trampoline at 0x%x: %w", addr, err))
		}
		t.Progs = append(t.Progs, progs...)
		// Programs at the return need the function called for them.
		t.Original = t.Original || len(progs) > 0 && kind.when != "fentry"
	}
	r.readCode(t)
	return t
}

// image reads which code the trampoline runs now: the struct bpf_tramp_image
// (e21aa341785c, 5.12 and stable kernels), before it the half of a page that
// the selector tells.
func (r *trampolineReader) image(t *Trampoline, o *kernel.Object) {
	const half = 2048
	var ksym *kernel.Object
	switch {
	case o.Has("cur_image"):
		if o.Ptr("cur_image") == 0 {
			return // only a freplace program, or none
		}
		im := o.Deref("cur_image")
		t.Image = mem.Addr(im.Ptr("image"))
		if im.Has("size") { // 26ef208c209a, 6.8
			t.Size = int(int32(im.Uint("size")))
			r.exact[t] = true
		}
		ksym = im.Field("ksym")
		o = im
	case o.Ptr("image") != 0:
		t.Image = mem.Addr(o.Ptr("image") + o.Uint("selector")&1*half)
		t.Size = half
		ksym = o.Field("ksym")
	default:
		return
	}
	start, end := ksym.Uint("start"), ksym.Uint("end")
	t.Name, _ = mem.CString(r.k.Mem(), ksym.At("name"), maxSymbol)
	if err := cmp.Or(o.Err(), ksym.Err()); err != nil {
		r.lost(fmt.Errorf("image of the trampoline at %v: %w", t.Addr, err))
		return
	}
	if uint64(t.Image)-start >= max(end-start, 1) {
		r.lost(fmt.Errorf("image of the trampoline at %v: it is at %v, its symbol at 0x%x: damaged", t.Addr, t.Image, start))
	}
	if n := end - start; t.Size == 0 && n <= maxImage {
		t.Size = int(n)
	}
	if t.Size < 0 || t.Size > maxImage {
		r.errs.Add(fmt.Errorf("image of the trampoline at %v has %d bytes: damaged", t.Addr, t.Size))
		t.Size = 0
	}
}

const (
	maxSymbol = 512     // KSYM_NAME_LEN
	maxImage  = 1 << 16 // an image has a page
)

// attached reads one list of programs, in the order they run.
func (r *trampolineReader) attached(head uint64, when string, tramp uint64) []TrampolineProg {
	const (
		auxNode  = iota // 5.5: the program itself is listed
		linkNode        // f7e0beaf39d3, 5.19: its link
		tnode           // 7.x: a node of its link, which may have two
	)
	kind, rec, member := auxNode, "bpf_prog_aux", "tramp_hlist"
	if r.k.Sizeof("bpf_tramp_node") != 0 {
		kind, rec = tnode, "bpf_tramp_node"
	} else if r.k.Sizeof("bpf_tramp_link") != 0 {
		kind, rec = linkNode, "bpf_tramp_link"
	}
	what := fmt.Sprintf("%s programs of the trampoline at 0x%x", when, tramp)
	off, err := r.k.Offset(rec, member)
	if err != nil {
		r.errs.Add(fmt.Errorf("%s: %w", what, err))
		return nil
	}
	out := []TrampolineProg{}
	first, err := mem.U64(r.k.Mem(), head)
	if err != nil {
		r.errs.Add(fmt.Errorf("%s: %w", what, err))
		return nil
	}
	for _, node := range r.hlist(what, first, maxTrampProgs) {
		o := r.k.Object(rec, node-off)
		var prog, cookie uint64
		switch kind {
		case auxNode:
			prog = o.Ptr("prog")
		case linkNode:
			prog, cookie = o.Ptr("link.prog"), o.Uint("cookie")
		case tnode:
			link := o.Deref("link")
			prog, cookie = link.Ptr("prog"), o.Uint("cookie")
			err = link.Err()
		}
		if err = cmp.Or(o.Err(), err); err != nil {
			r.errs.Add(fmt.Errorf("%s: %w", what, err))
			continue
		}
		if tp, ok := r.trampolineProg(prog, when); ok {
			tp.Cookie = cookie
			out = append(out, tp)
		}
	}
	return out
}

// trampolineProg names a program and when it runs. Those of LSM are listed as
// fexit or fmod_ret, by what the hook returns.
func (r *trampolineReader) trampolineProg(addr uint64, when string) (TrampolineProg, bool) {
	p := r.prog(addr)
	if p == nil {
		return TrampolineProg{}, false
	}
	o := r.k.Object("bpf_prog", addr)
	attach, _ := enumerator(r.k, "bpf_attach_type", "BPF_", o.Uint("expected_attach_type"))
	tp := TrampolineProg{ID: p.ID, Name: p.Name, When: when}
	switch {
	case p.Type == "lsm" && p.ID == 0: // stands for the programs of cgroups (cgroup_shim_alloc; 69fd337a975c, 6.0)
		tp.When = "lsm_cgroup"
		tp.Name = r.k.FormatAddr(o.Ptr("bpf_func"))
	case p.Type == "lsm":
		tp.When = "lsm"
	case strings.HasPrefix(attach, "BPF_TRACE_FSESSION"):
		tp.When = "fsession"
	}
	return tp, true
}

// prog returns the program at addr, also one that is being freed. It is nil,
// and reported, if it cannot be read.
func (r *trampolineReader) prog(addr uint64) *Program {
	p := r.progs[addr]
	if p == nil {
		o := r.k.Object("bpf_prog", addr)
		aux := o.Deref("aux")
		p = &Program{ID: int(aux.Uint("id")), Name: aux.Str("name"), Type: typeName(r.k, o.Uint("type"))}
		if err := cmp.Or(o.Err(), aux.Err()); err != nil {
			r.errs.Add(fmt.Errorf("program of a trampoline: %w", err))
			return nil
		}
		r.progs[addr] = p
	}
	return p
}

// trampolineTarget says which function a trampoline hangs on, by the address of
// the function and the key: the id of what has the type, and the type's number
// (bpf_trampoline_compute_key; types of kernel BTF have bit 31 set since
// 22dc4a0f5ed1, 5.11).
func (r *trampolineReader) trampolineTarget(addr, key uint64) Target {
	const kernelType = 1 << 31
	t := r.codeTarget(addr)
	switch id, typ := int(key>>32), uint32(key); {
	case key == 0: // a dispatcher has none
	case typ&kernelType != 0:
		t.BTF, t.Type = id, int(typ&^kernelType)
	default:
		t.Type = int(typ)
		if p := r.ids[id]; p != nil && id != 0 {
			t.Kind, t.ProgID, t.BTF = TargetProgram, id, p.BTF
		}
	}
	return t
}

// codeTarget names the function at addr, of the kernel or of a program.
func (r *trampolineReader) codeTarget(addr uint64) Target {
	t := Target{Kind: TargetFunction, Addr: mem.Addr(addr)}
	if o, ok := r.owner(addr); ok {
		t.Kind, t.ProgID, t.Name = TargetProgram, o.Prog.ID, o.Prog.Subprogs[o.Subprog].Name
		return t
	}
	if s, off, ok := r.k.Symbolize(addr); ok && addr != 0 {
		t.Name, t.Module, t.Offset = s.Name, s.Module, mem.Addr(off)
	}
	return t
}

// owner is [OwnerOf] without reading the programs again.
func (r *trampolineReader) owner(addr uint64) (Owner, bool) {
	i, found := slices.BinarySearchFunc(r.code, addr, func(c ownedCode, a uint64) int { return cmp.Compare(c.start, a) })
	if !found {
		i--
	}
	if i < 0 || addr >= r.code[i].end && !found {
		return Owner{}, false
	}
	return r.code[i].owner, true
}

func flagNames(flags uint64) []string {
	out := []string{}
	for bit := range 32 {
		switch {
		case flags>>bit&1 == 0:
		case bit < len(trampolineFlags):
			out = append(out, trampolineFlags[bit])
		default:
			out = append(out, fmt.Sprintf("bit_%d", bit))
		}
	}
	return out
}
