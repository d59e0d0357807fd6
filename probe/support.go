package probe

import (
	"errors"
	"os"
	"unsafe"

	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"
)

// Supports returns why a mechanism cannot be used here; nil if it can. It asks
// the kernel, and leaves nothing behind.
func Supports(m Mechanism) error {
	switch m {
	case Trampoline, RawTP:
		if _, err := os.Stat("/sys/kernel/btf/vmlinux"); err != nil {
			return &UnsupportedError{What: "types (BTF)", Need: "CONFIG_DEBUG_INFO_BTF", Err: err}
		}
		return nil
	case Breakpoint:
		return nil // opening one tells
	case KprobeMulti:
		return supportsKprobeMulti()
	case FSession:
		return supportsFSession()
	}
	return &UnsupportedError{What: string(m), Need: "another mechanism"}
}

// Permitted returns why this process may not observe calls: a
// [*PermissionError], a [*LockdownError] or a [*MemlockError]; nil if it may. It
// loads a program that does nothing, and attaches it to nothing.
func Permitted() error {
	if err := raiseMemlock(); err != nil {
		return err
	}
	p := program{name: "ksleuth_ask", typ: typeKprobe, code: nothing()}
	fd, err := p.load(nil)
	if err == nil {
		unix.Close(fd)
	}
	return general("load a BPF program", err)
}

// raiseMemlock takes the limit of locked memory away, which maps and programs
// count against before 5.11. Who may not is told when it is too low.
func raiseMemlock() error {
	if err := rlimit.RemoveMemlock(); err != nil && !errors.Is(err, unix.EPERM) {
		return &MemlockError{err}
	}
	return nil
}

// nothing is a program that returns 0.
func nothing() []byte { return []byte{0xb7, 15: 0, 8: 0x95} }

// supportsFSession loads a program for a function that every kernel has.
func supportsFSession() error {
	unsupported := func(err error) error {
		return &UnsupportedError{What: "fsession program", Need: "Linux 7.0", Err: err}
	}
	types, err := btf.LoadKernelSpec()
	if err != nil {
		return unsupported(err)
	}
	var ask, target *btf.Func
	if err := types.TypeByName("bpf_session_is_return", &ask); err != nil {
		return unsupported(nil)
	}
	if err := types.TypeByName("bpf_fentry_test1", &target); err != nil {
		return unsupported(err)
	}
	id, err := types.TypeID(target)
	if err != nil {
		return unsupported(err)
	}
	p := program{name: "ksleuth_ask", typ: typeTracing, attach: attachFsession, btfID: uint32(id), code: nothing()}
	fd, err := p.load(nil)
	if g := general("load a program", err); g != nil {
		return g
	}
	if err != nil {
		return unsupported(err)
	}
	return unix.Close(fd)
}

// supportsKprobeMulti attaches a program that does nothing to a function that
// there is not: a kernel that looks for it has the link.
func supportsKprobeMulti() error {
	unsupported := func(err error) error {
		return &UnsupportedError{What: "kprobe-multi link", Need: "Linux 5.18 (0dcac2725406) with CONFIG_FPROBE", Err: err}
	}
	p := program{name: "ksleuth_ask", typ: typeKprobe, attach: attachKprobeMulti, code: nothing()}
	fd, err := p.load(nil)
	if g := general("load a program", err); g != nil {
		return g
	}
	if err != nil {
		return unsupported(err)
	}
	defer unix.Close(fd)
	symbol := []byte("vprintk\x00") // every kernel has it
	syms := [1]unsafe.Pointer{unsafe.Pointer(&symbol[0])}
	link, err := openKprobeMultiSyms(fd, syms[:])
	if err == nil {
		unix.Close(link)
		return nil
	}
	if g := general("attach a program", err); g != nil {
		return g
	}
	return unsupported(err)
}
