package cli_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/ksleuth/ksleuth/bpf"
	"github.com/ksleuth/ksleuth/kernel"
	"github.com/ksleuth/ksleuth/kobj"
	"github.com/ksleuth/ksleuth/stack"
	"github.com/ksleuth/ksleuth/vmcore"
)

// A specimen is a dump file and the ways to damage it.
type specimen struct {
	file  []byte
	kinds []damageKind
}

// A damageKind is one way to damage a file. It changes file, which is its own,
// and says what it did.
type damageKind struct {
	name   string
	damage func(rng *rand.Rand, file []byte) ([]byte, string)
}

// makeSpecimens returns the example in three formats.
func makeSpecimens(t *testing.T) map[string]*specimen {
	t.Helper()
	raw, err := os.ReadFile(damagedDump())
	qt.Assert(t, qt.IsNil(err))
	core, err := vmcore.Open(damagedDump())
	qt.Assert(t, qt.IsNil(err))
	t.Cleanup(func() { core.Close() })
	elf, segments, notes := elfFile(t, core)
	flat := flatFile(raw, rand.New(rand.NewPCG(3, 4)))
	out := map[string]*specimen{
		"kdump":     {file: raw, kinds: kdumpKinds(raw)},
		"flattened": {file: flat, kinds: fileKinds(len(flat), []place{{"header", 0, 48}, {"records", 4096, 64 << 10}, {"all", 0, len(flat)}})},
		"elf":       {file: elf, kinds: fileKinds(len(elf), []place{{"header", 0, 64}, {"programs", 64, notes[0].off - 64}, {"notes", notes[0].off, notes[0].len}})},
	}
	out["elf"].kinds = append(out["elf"].kinds, memoryKinds(t, segments)...)
	return out
}

// A place is a named part of a file.
type place struct {
	name     string
	off, len int
}

func kdumpKinds(raw []byte) []damageKind {
	le := binary.LittleEndian
	sub, bitmap := int(le.Uint32(raw[432:])), int(le.Uint32(raw[436:]))
	const block = 4096
	at := (1 + sub) * block
	descs := at + bitmap*block
	return fileKinds(len(raw), []place{
		{"header", 0, 464}, {"subheader", block, 104}, {"notes", block + 104, sub*block - 104},
		{"bitmap", at, bitmap * block}, {"descriptors", descs, 24 * 2000}, {"pages", descs + 24*2000, len(raw) - descs - 24*2000},
	})
}

// fileKinds cut the file, and flip bits and overwrite words in its places.
func fileKinds(size int, places []place) []damageKind {
	kinds := []damageKind{
		{"truncate", func(rng *rand.Rand, file []byte) ([]byte, string) {
			n := rng.IntN(size)
			if rng.IntN(2) == 0 { // near a header
				p := places[rng.IntN(len(places))]
				n = min(size, max(0, p.off+[]int{-1, 0, 1, p.len - 1, p.len, 8, 100}[rng.IntN(7)]))
			}
			return file[:n], fmt.Sprintf("truncated to %#x bytes", n)
		}},
		{"zeros", func(rng *rand.Rand, file []byte) ([]byte, string) {
			at, n := rng.IntN(size), 1<<rng.IntN(20)
			clear(file[at:min(at+n, size)])
			return file, fmt.Sprintf("%#x zeros at %#x", n, at)
		}},
	}
	for _, p := range places {
		kinds = append(kinds, damageKind{p.name, func(rng *rand.Rand, file []byte) ([]byte, string) {
			var what []string
			for range 1 << rng.IntN(5) {
				at := p.off + rng.IntN(p.len)
				if rng.IntN(2) == 0 {
					file[at] ^= 1 << rng.IntN(8)
					what = append(what, fmt.Sprintf("bit flipped at %#x", at))
					continue
				}
				v := badWord(rng, nil)
				n := putWord(rng, file[at:], v)
				what = append(what, fmt.Sprintf("%d bytes of %#x at %#x", n, v, at))
			}
			return file, strings.Join(what, ", ")
		}})
	}
	return kinds
}

// badWord returns a value of the kind that breaks programs, or an address of
// one of the spans.
func badWord(rng *rand.Rand, spans []span) uint64 {
	if len(spans) > 0 && rng.IntN(2) == 0 {
		s := spans[rng.IntN(len(spans))]
		return s.addr + rng.Uint64N(s.len)&^7
	}
	switch rng.IntN(6) {
	case 0:
		return 0
	case 1:
		return ^uint64(0) >> rng.IntN(64)
	case 2:
		return 1 << rng.IntN(64)
	case 3:
		return uint64(rng.IntN(64))
	case 4:
		return -uint64(rng.IntN(1 << 16))
	}
	return rng.Uint64()
}

// putWord stores 1, 2, 4 or 8 bytes of v.
func putWord(rng *rand.Rand, b []byte, v uint64) int {
	var w [8]byte
	binary.LittleEndian.PutUint64(w[:], v)
	return copy(b, w[:1<<rng.IntN(4)])
}

// A span is virtual memory that holds something of a kind.
type span struct{ addr, len uint64 }

// memoryKinds overwrite what a dump holds of the kernel's own structures.
func memoryKinds(t *testing.T, segments []segment) []damageKind {
	t.Helper()
	k := openKernel(t)
	var kinds []damageKind
	for _, s := range structures {
		spans := s.find(t, k)
		if len(spans) == 0 && damagedDump() != example {
			continue
		}
		qt.Assert(t, qt.Not(qt.HasLen(spans, 0)), qt.Commentf("%s", s.name))
		kinds = append(kinds, damageKind{"memory of " + s.name, func(rng *rand.Rand, file []byte) ([]byte, string) {
			var what []string
			for range 1 << rng.IntN(7) {
				sp := spans[rng.IntN(len(spans))]
				addr := sp.addr + rng.Uint64N(sp.len)
				if rng.IntN(4) > 0 {
					addr &^= 7
				}
				phys := addr // a physical address
				if addr>>63 != 0 {
					m, err := k.Walk(addr)
					if err != nil {
						continue
					}
					phys = m.Phys
				}
				at, ok := fileOffset(segments, phys)
				if !ok {
					continue
				}
				v := badWord(rng, spans)
				n := putWord(rng, file[at:], v)
				what = append(what, fmt.Sprintf("%d bytes of %#x at %#x", n, v, addr))
			}
			return file, strings.Join(what, ", ")
		}})
	}
	return kinds
}

// structures are what memoryKinds damage.
var structures = []struct {
	name string
	find func(*testing.T, *kernel.Kernel) []span
}{
	{"page tables", func(t *testing.T, k *kernel.Kernel) []span {
		pgd, _ := k.Info().Symbol("swapper_pg_dir")
		spans := []span{{pgd, 4096}}
		var page [4096]byte
		m, err := k.Walk(pgd)
		qt.Assert(t, qt.IsNil(err))
		tables := []uint64{m.Phys}
		for level := 0; level < 3; level++ {
			var next []uint64
			for _, table := range tables {
				if k.Phys().ReadMem(page[:], table) != nil {
					continue
				}
				for i := 0; i < len(page); i += 8 {
					e := binary.LittleEndian.Uint64(page[i:])
					if e&1 != 0 && e&0x80 == 0 && len(next) < 200 {
						next = append(next, e&0xf_ffff_ffff_f000)
						spans = append(spans, span{e & 0xf_ffff_ffff_f000, 4096})
					}
				}
			}
			tables = next
		}
		return spans
	}},
	{"kallsyms", func(_ *testing.T, k *kernel.Kernel) []span {
		var spans []span
		for _, name := range []string{"kallsyms_names", "kallsyms_num_syms", "kallsyms_token_table", "kallsyms_token_index", "kallsyms_offsets", "kallsyms_relative_base"} {
			if addr, ok := k.Info().Symbol(name); ok {
				spans = append(spans, span{addr, 4096}, span{addr, 8})
			}
		}
		return spans
	}},
	{"BTF header", func(_ *testing.T, k *kernel.Kernel) []span { return symbolSpan(k, "__start_BTF", 24) }},
	{"BTF", func(_ *testing.T, k *kernel.Kernel) []span { return symbolSpan(k, "__start_BTF", 4<<20) }},
	{"ORC", func(_ *testing.T, k *kernel.Kernel) []span {
		return append(symbolSpan(k, "__start_orc_unwind_ip", 2<<20), symbolSpan(k, "__start_orc_unwind", 3<<20)...)
	}},
	{"per-CPU data", func(_ *testing.T, k *kernel.Kernel) []span {
		spans := append(symbolSpan(k, "nr_cpu_ids", 4), symbolSpan(k, "__per_cpu_offset", 16)...)
		spans = append(spans, symbolSpan(k, "__cpu_present_mask", 8)...)
		for cpu := range 2 {
			rq, err := k.Addr("runqueues")
			if at, err2 := k.PerCPU(rq, cpu); err == nil && err2 == nil {
				spans = append(spans, span{at, k.Sizeof("rq")})
			}
		}
		return spans
	}},
	{"tasks", func(t *testing.T, k *kernel.Kernel) []span {
		var spans []span
		for _, task := range allTasks(t, k) {
			spans = append(spans, span{uint64(task.Addr), k.Sizeof("task_struct")})
			spans = append(spans, span{k.Object("task_struct", uint64(task.Addr)).Ptr("signal"), 64})
		}
		return spans
	}},
	{"task links", func(t *testing.T, k *kernel.Kernel) []span {
		var spans []span
		for _, task := range allTasks(t, k) {
			o := k.Object("task_struct", uint64(task.Addr))
			spans = append(spans, span{o.At("tasks"), 16}, span{o.At("thread_node"), 16}, span{o.At("signal"), 8}, span{o.Deref("signal").At("thread_head"), 16})
		}
		return spans
	}},
	{"stacks", func(t *testing.T, k *kernel.Kernel) []span {
		var spans []span
		for _, task := range allTasks(t, k) {
			for _, f := range stack.Of(k, task).Frames {
				if sp := uint64(f.SP); sp>>63 != 0 {
					spans = append(spans, span{sp - 8, 64})
				}
			}
		}
		return spans
	}},
	{"files", func(t *testing.T, k *kernel.Kernel) []span {
		pid, _ := strconv.Atoi(dumpCommands(t)[3][1])
		task, err := kobj.FindTask(k, pid)
		qt.Assert(t, qt.IsNil(err))
		fdt := k.Object("task_struct", uint64(task.Addr)).Deref("files").Deref("fdt")
		spans := []span{{fdt.Addr, k.Sizeof("fdtable")}, {fdt.Ptr("fd"), 256}, {fdt.Ptr("open_fds"), 8}}
		files, err := kobj.Files(k, task)
		qt.Assert(t, qt.IsNil(err))
		for _, f := range files {
			o := k.Object("file", uint64(f.Addr))
			spans = append(spans, span{uint64(f.Addr), k.Sizeof("file")},
				span{o.Ptr("f_path.dentry"), k.Sizeof("dentry")}, span{o.Ptr("f_path.mnt") - 32, k.Sizeof("mount")})
		}
		return spans
	}},
	{"modules", func(t *testing.T, k *kernel.Kernel) []span {
		mods, err := k.Modules()
		qt.Assert(t, qt.IsNil(err))
		spans := symbolSpan(k, "modules", 16)
		for _, m := range mods {
			o := k.Object("module", m.Addr)
			ks := o.Deref("kallsyms")
			spans = append(spans, span{m.Addr, k.Sizeof("module")}, span{o.At("list"), 16}, span{ks.Addr, 32},
				span{ks.Ptr("symtab"), 1024}, span{ks.Ptr("strtab"), 1024})
		}
		return append(spans, symbolSpan(k, "btf_modules", 16)...)
	}},
	{"BPF programs", func(t *testing.T, k *kernel.Kernel) []span {
		progs, _ := bpf.Programs(k) // of the example, their surroundings are missing
		spans := append(symbolSpan(k, "prog_idr", 24), symbolSpan(k, "bpf_kallsyms", 16)...)
		for _, p := range progs {
			aux := k.Object("bpf_prog", uint64(p.Addr)).Deref("aux")
			spans = append(spans, span{uint64(p.Addr), 64}, span{aux.Addr, k.Sizeof("bpf_prog_aux")},
				span{aux.At("ksym"), k.Sizeof("bpf_ksym")}, span{aux.Ptr("linfo"), 128}, span{aux.Ptr("jited_linfo"), 64})
			for _, s := range p.Subprogs {
				spans = append(spans, span{uint64(s.Addr), uint64(max(s.Len, 8))})
			}
		}
		return spans
	}},
	{"program tree", func(t *testing.T, k *kernel.Kernel) []span {
		idr, err := k.Addr("prog_idr")
		qt.Assert(t, qt.IsNil(err))
		head := k.Object("xarray", idr).Uint("xa_head")
		return append(symbolSpan(k, "prog_idr", 16), span{head &^ 3, k.Sizeof("xa_node")}, span{head &^ 3, 16})
	}},
	{"log", func(t *testing.T, k *kernel.Kernel) []span {
		prb, err := k.Addr("prb")
		qt.Assert(t, qt.IsNil(err))
		var spans []span
		types, err := k.Types()
		qt.Assert(t, qt.IsNil(err))
		if _, err := types.Struct("printk_ringbuffer"); err != nil {
			return []span{{readWord(t, k, prb), 256}}
		}
		ring := k.Object("printk_ringbuffer", readWord(t, k, prb))
		desc := ring.Field("desc_ring")
		spans = append(spans, span{prb, 8}, span{ring.Addr, k.Sizeof("printk_ringbuffer")},
			span{desc.Ptr("descs"), 4096}, span{desc.Ptr("infos"), 4096}, span{ring.Field("text_data_ring").Ptr("data"), 4096})
		qt.Assert(t, qt.IsNil(errors.Join(ring.Err(), desc.Err())))
		return spans
	}},
}

func symbolSpan(k *kernel.Kernel, name string, size uint64) []span {
	addr, err := k.Addr(name)
	if err != nil {
		return nil
	}
	return []span{{addr, size}}
}

func readWord(t *testing.T, k *kernel.Kernel, addr uint64) uint64 {
	t.Helper()
	var b [8]byte
	qt.Assert(t, qt.IsNil(k.Mem().ReadMem(b[:], addr)))
	return binary.LittleEndian.Uint64(b[:])
}

func allTasks(t *testing.T, k *kernel.Kernel) []kobj.Task {
	t.Helper()
	tasks, err := kobj.Tasks(k, true)
	qt.Assert(t, qt.IsNil(err))
	return tasks
}

// A segment is a run of pages in an ELF file.
type segment struct {
	phys, len uint64
	off       int
}

func fileOffset(segments []segment, phys uint64) (int, bool) {
	for _, s := range segments {
		if phys >= s.phys && phys-s.phys < s.len {
			return s.off + int(phys-s.phys), true
		}
	}
	return 0, false
}

// elfFile writes an ELF core with the pages of a dump.
func elfFile(t *testing.T, core *vmcore.Core) (file []byte, segments []segment, notes []place) {
	t.Helper()
	ranges, err := core.Ranges()
	qt.Assert(t, qt.IsNil(err))
	var data []byte
	page := make([]byte, 4096)
	for _, r := range ranges {
		for addr := r.Start; addr < r.End; addr += 4096 {
			if core.ReadMem(page, addr) != nil {
				continue
			}
			if n := len(segments); n > 0 && segments[n-1].phys+segments[n-1].len == addr {
				segments[n-1].len += 4096
			} else {
				segments = append(segments, segment{addr, 4096, len(data)})
			}
			data = append(data, page...)
		}
	}
	note := core.Notes()
	info := core.Meta().VMCoreInfo
	le := binary.LittleEndian
	note = le.AppendUint32(note, 11)
	note = le.AppendUint32(note, uint32(len(info)))
	note = le.AppendUint32(note, 0)
	note = append(append(note, "VMCOREINFO\x00\x00"...), info...)
	n := len(segments) + 1
	noteOff := 64 + 56*n
	dataOff := noteOff + len(note)
	file = make([]byte, noteOff, dataOff+len(data))
	copy(file, "\x7fELF\x02\x01\x01")
	le.PutUint16(file[16:], 4)  // ET_CORE
	le.PutUint16(file[18:], 62) // EM_X86_64
	le.PutUint64(file[32:], 64)
	le.PutUint16(file[54:], 56)
	le.PutUint16(file[56:], uint16(n))
	program := func(i int, typ uint32, off int, phys, size uint64) {
		p := file[64+56*i:]
		le.PutUint32(p, typ)
		le.PutUint64(p[8:], uint64(off))
		le.PutUint64(p[24:], phys)
		le.PutUint64(p[32:], size)
		le.PutUint64(p[40:], size)
	}
	program(0, 4, noteOff, 0, uint64(len(note)))
	for i := range segments {
		s := &segments[i]
		s.off += dataOff
		program(i+1, 1, s.off, s.phys, s.len)
	}
	return append(append(file, note...), data...), segments, []place{{"notes", noteOff, len(note)}}
}

// flatFile writes the flattened form of a dump, its records in some order.
func flatFile(raw []byte, rng *rand.Rand) []byte {
	out := make([]byte, 4096)
	copy(out, "makedumpfile")
	be := binary.BigEndian
	be.PutUint64(out[16:], 1)
	be.PutUint64(out[24:], 1)
	const size = 10_000
	var starts []int
	for at := 0; at < len(raw); at += size {
		starts = append(starts, at)
	}
	rng.Shuffle(len(starts), func(i, j int) { starts[i], starts[j] = starts[j], starts[i] })
	for _, at := range starts {
		part := raw[at:min(at+size, len(raw))]
		out = be.AppendUint64(out, uint64(at))
		out = be.AppendUint64(out, uint64(len(part)))
		out = append(out, part...)
	}
	return append(out, bytes.Repeat([]byte{0xff}, 16)...)
}
