// Package unicorn binds libunicorn2, a CPU emulator that tests and benchmarks
// take as the judge of package emulate. The library is loaded at run time,
// without cgo. It is under GPL-2: nothing that ksleuth's binary is made of may
// import this package (package lint sees to it).
package unicorn

import (
	"errors"
	"fmt"
	"runtime"
	"syscall"
	"unsafe"

	"github.com/ebitengine/purego"
)

// library is the name that Debian's package libunicorn2 installs.
const library = "libunicorn.so.2"

// ErrMissing says that the library is not installed.
var ErrMissing = errors.New("libunicorn2 is not installed")

// From unicorn.h and x86.h.
const (
	archX86 = 4
	mode64  = 1 << 3

	ctlTBRemoveCache = 9 | 2<<26 | 1<<30

	hookIntr     = 1 << 0
	hookCode     = 1 << 2
	hookUnmapped = 1<<4 | 1<<5 | 1<<6
	protData     = 3 // read, write
	protAll      = 7
	regEFLAGS    = 25
	regRIP       = 41
	regXMM0      = 122
	regFSBase    = 250
	regGSBase    = 251
)

// regGP are the library's numbers of the general registers, in the order in
// which instructions encode them.
var regGP = [16]int32{35, 38, 40, 37, 44, 36, 43, 39, 106, 107, 108, 109, 110, 111, 112, 113}

// An Error is a code of the library.
type Error int

// The errors with which a run ends.
const (
	ReadUnmapped  Error = 6
	WriteUnmapped Error = 7
	FetchUnmapped Error = 8
	FetchProt     Error = 14 // of data
	InsnInvalid   Error = 10
	Exception     Error = 21
)

// Error names the common ones.
func (e Error) Error() string {
	names := map[Error]string{
		ReadUnmapped: "read of unmapped memory", WriteUnmapped: "write to unmapped memory",
		FetchUnmapped: "fetch from unmapped memory", InsnInvalid: "invalid instruction", Exception: "unhandled exception",
	}
	if s := names[e]; s != "" {
		return "unicorn: " + s
	}
	return fmt.Sprintf("unicorn: error %d", int(e))
}

// Regs are the registers that are exchanged with the library.
type Regs struct {
	GP             [16]uint64 // as instructions number them: rax, rcx, rdx, rbx, rsp ...
	RIP            uint64
	Flags          uint64
	FSBase, GSBase uint64
	X              [16][2]uint64
}

const numRegs = 16 + 4 + 16

// shared is memory that the library reads and writes; it is not Go's.
type shared struct {
	regs Regs
	ids  [numRegs]int32
	ptrs [numRegs]uintptr
	out  uintptr // what a function returns through a pointer
}

// An Engine is one emulated CPU with its memory. It is not safe for concurrent use.
type Engine struct {
	// Unmapped, if set, is called for an access to memory that is not mapped.
	// It returns true if it has mapped the memory.
	Unmapped func(addr uint64) bool
	// Vector is the number of the last interrupt or exception, -1 if there was none since Start.
	Vector int

	lib    *functions
	handle uintptr
	sh     *shared
	raw    []byte // sh's memory
	mapped map[uint64][]byte
	fresh  uintptr // a context: the CPU as New made it
}

// functions are the library's.
type functions struct {
	open, close, ctl, memMapPtr, memUnmap, regWriteBatch, regReadBatch, emuStart, emuStop, hookAdd, hookDel,
	contextAlloc, contextSave, contextRestore, free uintptr
}

func load() (*functions, error) {
	h, err := purego.Dlopen(library, purego.RTLD_NOW|purego.RTLD_GLOBAL)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMissing, err)
	}
	f := &functions{}
	for name, p := range map[string]*uintptr{
		"uc_open": &f.open, "uc_close": &f.close, "uc_ctl": &f.ctl,
		"uc_mem_map_ptr": &f.memMapPtr, "uc_mem_unmap": &f.memUnmap,
		"uc_reg_write_batch": &f.regWriteBatch, "uc_reg_read_batch": &f.regReadBatch,
		"uc_emu_start": &f.emuStart, "uc_emu_stop": &f.emuStop,
		"uc_hook_add": &f.hookAdd, "uc_hook_del": &f.hookDel,
		"uc_context_alloc": &f.contextAlloc, "uc_context_save": &f.contextSave,
		"uc_context_restore": &f.contextRestore, "uc_context_free": &f.free,
	} {
		if *p, err = purego.Dlsym(h, name); err != nil {
			return nil, err
		}
	}
	return f, nil
}

func code(r uintptr) error {
	if e := Error(int32(r)); e != 0 {
		return e
	}
	return nil
}

// New returns an engine in 64-bit mode, privileged. It has what its version of
// QEMU has of BMI, ADX, AES and SSE4, and no popcnt, whatever model it is asked
// for. The error is ErrMissing without the library.
func New() (*Engine, error) {
	lib, err := load()
	if err != nil {
		return nil, err
	}
	e := &Engine{Vector: -1, lib: lib, mapped: map[uint64][]byte{}}
	if e.raw, err = anonymous(int(unsafe.Sizeof(shared{}))); err != nil {
		return nil, err
	}
	e.sh = (*shared)(unsafe.Pointer(unsafe.SliceData(e.raw)))
	r, _, _ := purego.SyscallN(lib.open, archX86, mode64, uintptr(unsafe.Pointer(&e.sh.out)))
	if err := code(r); err != nil {
		return nil, err
	}
	e.handle = e.sh.out
	e.nameRegs()
	for _, h := range []struct {
		kind uintptr
		fn   any
	}{
		{hookUnmapped, func(_ uintptr, _ int32, addr uint64, _ int32, _ int64, _ uintptr) uintptr {
			if e.Unmapped != nil && e.Unmapped(addr) {
				return 1
			}
			return 0
		}},
		{hookIntr, func(_ uintptr, n uint32, _ uintptr) uintptr {
			e.Vector = int(n)
			purego.SyscallN(e.lib.emuStop, e.handle)
			return 0
		}},
	} {
		if _, err := e.hook(h.kind, purego.NewCallback(h.fn)); err != nil {
			return nil, err
		}
	}
	if err := e.call(lib.contextAlloc, uintptr(unsafe.Pointer(&e.sh.out))); err != nil {
		return nil, err
	}
	e.fresh = e.sh.out
	return e, e.call(lib.contextSave, e.fresh)
}

// anonymous returns memory that does not move and that Go does not manage.
func anonymous(n int) ([]byte, error) {
	return syscall.Mmap(-1, 0, n, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_PRIVATE|syscall.MAP_ANON)
}

func (e *Engine) call(fn uintptr, args ...uintptr) error {
	r, _, _ := purego.SyscallN(fn, append([]uintptr{e.handle}, args...)...)
	return code(r)
}

func (e *Engine) hook(kind, fn uintptr) (uintptr, error) {
	// The bounds, begin above end, stand for everywhere.
	err := e.call(e.lib.hookAdd, uintptr(unsafe.Pointer(&e.sh.out)), kind, fn, 0, 1, 0)
	return e.sh.out, err
}

// nameRegs lists the registers of Regs for the library.
func (e *Engine) nameRegs() {
	r := &e.sh.regs
	n := 0
	add := func(id int32, p unsafe.Pointer) {
		e.sh.ids[n], e.sh.ptrs[n] = id, uintptr(p)
		n++
	}
	for i := range r.GP {
		add(regGP[i], unsafe.Pointer(&r.GP[i]))
	}
	for i := range r.X {
		add(regXMM0+int32(i), unsafe.Pointer(&r.X[i]))
	}
	add(regEFLAGS, unsafe.Pointer(&r.Flags))
	add(regFSBase, unsafe.Pointer(&r.FSBase))
	add(regGSBase, unsafe.Pointer(&r.GSBase))
	add(regRIP, unsafe.Pointer(&r.RIP)) // the last: it is read, not written
}

// Close frees the engine and its memory.
func (e *Engine) Close() error {
	purego.SyscallN(e.lib.free, e.fresh)
	err := e.call(e.lib.close)
	for _, b := range e.mapped {
		err = errors.Join(err, syscall.Munmap(b))
	}
	return errors.Join(err, syscall.Munmap(e.raw))
}

// Map makes n bytes at addr, multiples of 4096, memory, and returns them: what
// is written to the slice the CPU reads, and the other way round.
func (e *Engine) Map(addr uint64, n int) ([]byte, error) { return e.mapAs(addr, n, protAll) }

// MapData is Map for memory that is not executable.
func (e *Engine) MapData(addr uint64, n int) ([]byte, error) { return e.mapAs(addr, n, protData) }

func (e *Engine) mapAs(addr uint64, n int, prot uintptr) ([]byte, error) {
	b, err := anonymous(n)
	if err != nil {
		return nil, err
	}
	if err := e.call(e.lib.memMapPtr, uintptr(addr), uintptr(n), prot, uintptr(unsafe.Pointer(unsafe.SliceData(b)))); err != nil {
		return nil, errors.Join(err, syscall.Munmap(b))
	}
	e.mapped[addr] = b
	return b, nil
}

// Unmap takes back what Map made at addr.
func (e *Engine) Unmap(addr uint64) error {
	b := e.mapped[addr]
	if err := e.Forget(addr, addr+uint64(len(b))); err != nil {
		return err // without it code is executed that was there
	}
	if err := e.call(e.lib.memUnmap, uintptr(addr), uintptr(len(b))); err != nil {
		return err
	}
	delete(e.mapped, addr)
	return syscall.Munmap(b)
}

// Forget drops the translation of code that was changed.
func (e *Engine) Forget(start, end uint64) error {
	return e.call(e.lib.ctl, ctlTBRemoveCache, uintptr(start), uintptr(end))
}

// SetRegs sets all registers but RIP, which Start sets.
func (e *Engine) SetRegs(r *Regs) error {
	if e.Vector >= 0 { // or the CPU makes double faults of a second exception
		if err := e.call(e.lib.contextRestore, e.fresh); err != nil {
			return err
		}
	}
	e.sh.regs = *r
	return e.batch(e.lib.regWriteBatch, numRegs-1)
}

// Pages calls f with every run of memory that is mapped.
func (e *Engine) Pages(f func(addr uint64, b []byte)) {
	for addr, b := range e.mapped {
		f(addr, b)
	}
}

// Regs reads the registers.
func (e *Engine) Regs(r *Regs) error {
	err := e.batch(e.lib.regReadBatch, numRegs)
	*r = e.sh.regs
	return err
}

func (e *Engine) batch(fn uintptr, n int) error {
	r, _, _ := purego.SyscallN(fn, e.handle, uintptr(unsafe.Pointer(&e.sh.ids)), uintptr(unsafe.Pointer(&e.sh.ptrs)), uintptr(n))
	return code(r)
}

// Start executes from begin to until, at most count instructions unless it is 0.
func (e *Engine) Start(begin, until uint64, count int) error {
	e.Vector = -1
	r, _, _ := purego.SyscallN(e.lib.emuStart, e.handle, uintptr(begin), uintptr(until), 0, uintptr(count))
	runtime.KeepAlive(e)
	return code(r)
}
