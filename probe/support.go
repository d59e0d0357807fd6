package probe

import (
	"os"
	"unsafe"

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
	}
	return &UnsupportedError{What: string(m), Need: "Linux 7.0"}
}

// supportsKprobeMulti attaches a program that does nothing to a function that
// there is not: a kernel that looks for it has the link.
func supportsKprobeMulti() error {
	unsupported := func(err error) error {
		return &UnsupportedError{What: "kprobe-multi link", Need: "Linux 5.18 (0dcac2725406) with CONFIG_FPROBE", Err: err}
	}
	p := program{name: "ksleuth_ask", typ: typeKprobe, attach: attachKprobeMulti, code: []byte{
		0xb7, 0, 0, 0, 0, 0, 0, 0, // r0 = 0
		0x95, 0, 0, 0, 0, 0, 0, 0, // exit
	}}
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
