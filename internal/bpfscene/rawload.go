package main

import (
	"fmt"
	"runtime"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"
)

// Attach types that the library does not know: enum bpf_attach_type.
const (
	traceFSession    ebpf.AttachType = 58 // one program for entry and exit (7.0)
	traceFEntryMulti ebpf.AttachType = 59 // many functions (7.2)
)

// loadRaw loads a trivial program with BPF_PROG_LOAD itself, for attach types
// whose targets the library does not look up. prefix makes the name of a
// function from what the program attaches to.
func (t *trivial) loadRaw(prefix string) (*ebpf.Program, error) {
	var id btf.TypeID
	if t.to != "" {
		var err error
		if id, err = functionID(prefix + t.to); err != nil {
			return nil, err
		}
	}
	insns := [2]uint64{0xb7 | uint64(uint32(t.ret))<<32, 0x95} // r0 = ret; exit
	license := append([]byte("GPL"), 0)
	log := make([]byte, 4096)
	attr := struct {
		typ, count              uint32
		insns, license          uint64
		logLevel, logSize       uint32
		log                     uint64
		version, flags          uint32
		name                    [16]byte
		ifindex, expectedAttach uint32
		btf, funcInfoSize       uint32
		funcInfo                uint64
		funcInfoCount, lineSize uint32
		lineInfo                uint64
		lineInfoCount, attachID uint32
		attachObject, reserved  uint32
	}{
		typ: uint32(t.typ), count: uint32(len(insns)), insns: address(&insns[0]), license: address(&license[0]),
		logLevel: 1, logSize: uint32(len(log)), log: address(&log[0]), flags: t.flags,
		expectedAttach: uint32(t.attach), attachID: uint32(id),
	}
	copy(attr.name[:15], "z_"+t.name)
	fd, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_LOAD, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
	runtime.KeepAlive(&insns)
	runtime.KeepAlive(license)
	runtime.KeepAlive(log)
	if errno != 0 {
		return nil, fmt.Errorf("BPF_PROG_LOAD: %w: %s", errno, unix.ByteSliceToString(log))
	}
	return ebpf.NewProgramFromFD(int(fd))
}

func address[T any](p *T) uint64 { return uint64(uintptr(unsafe.Pointer(p))) }

// functionID returns the kernel's BTF id of a function.
func functionID(name string) (btf.TypeID, error) {
	spec, err := btf.LoadKernelSpec()
	if err != nil {
		return 0, err
	}
	var f *btf.Func
	if err := spec.TypeByName(name, &f); err != nil {
		return 0, err
	}
	return spec.TypeID(f)
}
