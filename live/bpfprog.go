package live

import (
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/ksleuth/ksleuth/mem"
)

// window is the most that one run of the program copies, in bytes.
const window = 64 << 10

// A bpfReader reads the kernel's virtual memory by a BPF program that copies
// it into a map, which this process has mapped. The program hangs on nothing:
// BPF_PROG_TEST_RUN runs it (for raw tracepoints since 1b4d60ec162f, 5.10). It
// and the map go with their file descriptors.
type bpfReader struct {
	prog, mapfd int
	shared      []byte // the map's value

	mu sync.Mutex // one run at a time: the map is one
}

// newBPFReader loads the program. The error is a [*Refusal].
func newBPFReader() (*bpfReader, error) {
	b := &bpfReader{prog: -1, mapfd: -1}
	if err := b.load(); err != nil {
		_ = b.Close()
		return nil, err
	}
	return b, nil
}

func (b *bpfReader) load() (err error) {
	if b.mapfd, err = createMap(); err != nil {
		return refuseBPF("creating a map", err)
	}
	if b.prog, err = loadProgram(b.mapfd); err != nil {
		return refuseBPF("loading the program", err)
	}
	if b.shared, err = unix.Mmap(b.mapfd, 0, window, unix.PROT_READ, unix.MAP_SHARED); err != nil {
		return refuseBPF("mapping the map", err)
	}
	return nil
}

// Close lets go of the program and the map, which the kernel then frees.
func (b *bpfReader) Close() error {
	var errs []error
	if b.shared != nil {
		errs = append(errs, unix.Munmap(b.shared))
	}
	for _, fd := range []int{b.prog, b.mapfd} {
		if fd >= 0 {
			errs = append(errs, unix.Close(fd))
		}
	}
	return errors.Join(errs...)
}

// errNoCopy says that the kernel could not copy from an address.
var errNoCopy = errors.New("bpf_probe_read_kernel: bad address")

// ReadMem implements [mem.Reader] over virtual memory.
func (b *bpfReader) ReadMem(p []byte, addr uint64) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	for len(p) > 0 {
		n := min(len(p), window)
		if err := b.copy(p[:n], addr); err != nil {
			return b.pages(p[:n], addr)
		}
		p, addr = p[n:], addr+uint64(n)
	}
	return nil
}

// pages reads page by page up to the one that cannot be read.
func (b *bpfReader) pages(p []byte, addr uint64) error {
	for len(p) > 0 {
		n := min(len(p), int(pageSize-addr%pageSize))
		if err := b.copy(p[:n], addr); err != nil {
			cause := mem.IO
			if err == errNoCopy {
				cause = mem.Unmapped
			}
			return &mem.Fault{Addr: addr, Cause: cause, Err: err}
		}
		p, addr = p[n:], addr+uint64(n)
	}
	return nil
}

// copy reads up to a window; the caller holds the lock.
func (b *bpfReader) copy(p []byte, addr uint64) error {
	switch ret, err := runProgram(b.prog, addr, uint64(len(p))); {
	case err != nil:
		return fmt.Errorf("BPF_PROG_TEST_RUN: %w", err)
	case ret != 0:
		return errNoCopy
	}
	copy(p, b.shared)
	return nil
}

// current returns the address of the task_struct of this very task.
func (b *bpfReader) current() (uint64, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, err := runProgram(b.prog, 0, 0); err != nil {
		return 0, err
	}
	return binary.LittleEndian.Uint64(b.shared), nil
}

// What of linux/bpf.h the program uses.
const (
	helperCurrentTask = 35  // bpf_get_current_task
	helperProbeRead   = 113 // bpf_probe_read_kernel, since 6ae08ae3dea2 (5.5)
)

// program is the machine code: with the arguments (addr, n) it copies n bytes
// from addr to the map, or, if n is 0, puts the current task there. It returns
// what bpf_probe_read_kernel does.
func program(mapfd int) []byte {
	const (
		movX, movK, exit, call = 0xbf, 0xb7, 0x95, 0x85
		load64, store64, imm64 = 0x79, 0x7b, 0x18
		jgtK, jeqK             = 0x25, 0x15
		mapValue               = 2 // BPF_PSEUDO_MAP_VALUE
	)
	var code []byte
	insn := func(op, dst, src byte, off int16, imm int32) {
		code = append(code, op, dst|src<<4)
		code = binary.LittleEndian.AppendUint16(code, uint16(off))
		code = binary.LittleEndian.AppendUint32(code, uint32(imm))
	}
	insn(load64, 3, 1, 0, 0)    // r3 = addr
	insn(load64, 2, 1, 8, 0)    // r2 = n
	insn(jgtK, 2, 0, 8, window) // more than fits: to the last two
	insn(imm64, 1, mapValue, 0, int32(mapfd))
	insn(0, 0, 0, 0, 0)    // r1 = the map's value
	insn(jeqK, 2, 0, 2, 0) //
	insn(call, 0, 0, 0, helperProbeRead)
	insn(exit, 0, 0, 0, 0) //
	insn(movX, 6, 1, 0, 0) // n is 0
	insn(call, 0, 0, 0, helperCurrentTask)
	insn(store64, 6, 0, 0, 0) //
	insn(movK, 0, 0, 0, 0)    //
	insn(exit, 0, 0, 0, 0)
	return code
}

// license lets the program use helpers that the kernel keeps for GPL programs.
const license = "Dual MIT/GPL\x00"

// createMap makes an array of one value that can be mapped (fc9702273e2e, 5.5).
func createMap() (int, error) {
	attr := struct {
		typ, keySize, valueSize, entries, flags uint32
		innerFD, numaNode                       uint32
		name                                    [16]byte
	}{typ: unix.BPF_MAP_TYPE_ARRAY, keySize: 4, valueSize: window, entries: 1, flags: unix.BPF_F_MMAPABLE}
	copy(attr.name[:], "ksleuth_read")
	return withMemlock(func() (int, error) { return bpf(unix.BPF_MAP_CREATE, unsafe.Pointer(&attr), unsafe.Sizeof(attr)) })
}

func loadProgram(mapfd int) (int, error) {
	code, lic := program(mapfd), []byte(license)
	attr := struct {
		typ, count        uint32
		insns, license    uint64
		logLevel, logSize uint32
		log               uint64
		version, flags    uint32
		name              [16]byte
	}{
		typ: unix.BPF_PROG_TYPE_RAW_TRACEPOINT, count: uint32(len(code) / 8),
		insns: addressOf(code), license: addressOf(lic),
	}
	copy(attr.name[:], "ksleuth_read")
	fd, err := withMemlock(func() (int, error) { return bpf(unix.BPF_PROG_LOAD, unsafe.Pointer(&attr), unsafe.Sizeof(attr)) })
	runtime.KeepAlive(code)
	runtime.KeepAlive(lic)
	return fd, err
}

// runProgram runs the program once and returns its result.
func runProgram(prog int, addr, n uint64) (int32, error) {
	args := [2]uint64{addr, n}
	attr := struct {
		prog, ret         uint32
		sizeIn, sizeOut   uint32
		dataIn, dataOut   uint64
		repeat, duration  uint32
		ctxIn, ctxOut     uint32
		ctxInAt, ctxOutAt uint64
		flags, cpu        uint32
	}{prog: uint32(prog), ctxIn: uint32(unsafe.Sizeof(args)), ctxInAt: uint64(uintptr(unsafe.Pointer(&args)))}
	_, err := bpf(unix.BPF_PROG_TEST_RUN, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	runtime.KeepAlive(&args)
	return int32(attr.ret), err
}

func addressOf(b []byte) uint64 { return uint64(uintptr(unsafe.Pointer(unsafe.SliceData(b)))) }

// bpf is bpf(2).
func bpf(cmd int, attr unsafe.Pointer, size uintptr) (int, error) {
	for {
		r, _, errno := unix.Syscall(unix.SYS_BPF, uintptr(cmd), uintptr(attr), size)
		switch errno {
		case 0:
			return int(r), nil
		case unix.EINTR, unix.EAGAIN: // the verifier gives way to signals
			continue
		}
		return -1, errno
	}
}

// withMemlock calls create, which makes a BPF object, again without a limit on
// locked memory if it is refused: before 5.11 that limit counted BPF objects.
func withMemlock(create func() (int, error)) (int, error) {
	fd, err := create()
	if err != unix.EPERM {
		return fd, err
	}
	var old unix.Rlimit
	free := unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY}
	if unix.Prlimit(0, unix.RLIMIT_MEMLOCK, &free, &old) != nil {
		return fd, err
	}
	fd, err = create()
	_ = unix.Prlimit(0, unix.RLIMIT_MEMLOCK, &old, nil)
	return fd, err
}

// refuseBPF says what a failed step lacked.
func refuseBPF(doing string, err error) error {
	r := &Refusal{Class: ErrUnsupported, Err: fmt.Errorf("%s: %w", doing, err)}
	missing := missingCaps(capBPF, capPerfmon)
	switch {
	case err == unix.ENOSYS:
		r.Enable = "a kernel with CONFIG_BPF_SYSCALL has bpf(2)"
	case err == unix.EPERM && missing != "" && missingCaps(capSysAdmin) != "":
		r.Class, r.Enable = ErrDenied, "it takes CAP_BPF and CAP_PERFMON (CAP_SYS_ADMIN before 5.8), and this process lacks "+missing
	case lockdown() == lockdownConfidentiality:
		r.Class, r.Err = ErrDenied, errors.New("kernel lockdown is in the mode confidentiality")
		r.Enable = "boot without lockdown=confidentiality"
	case err == unix.EPERM:
		r.Class, r.Enable = ErrDenied, "a seccomp filter, a security module or a user namespace forbids it: run ksleuth on the host"
	default:
		r.Enable = "it takes Linux 5.10, and no kernel lockdown of the kind confidentiality"
	}
	return r
}
