package probe

import (
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Package ebpf loads a program by parsing the types of what it attaches to and
// by describing its own; both are known here, once for all of hundreds of
// programs, so these few calls of bpf(2) are made directly.

// Numbers of include/uapi/linux/bpf.h.
const (
	cmdProgLoad    = 5
	cmdProgFDByID  = 13
	cmdObjInfo     = 15
	cmdRawTPOpen   = 17
	cmdBTFFDByID   = 19
	cmdLinkCreate  = 28
	cmdEnableStats = 32

	typeKprobe    = 2
	typePerfEvent = 7
	typeTracing   = 26

	attachRawTP       = 23
	attachFentry      = 24
	attachFexit       = 25
	attachKprobeMulti = 42
	attachFsession    = 58 // 7.0

	kprobeMultiReturn = 1 // BPF_F_KPROBE_MULTI_RETURN
	logLevelBranch    = 1 // BPF_LOG_LEVEL1
	statsRunTime      = 0 // BPF_STATS_RUN_TIME
)

// sysBPF is bpf(2).
func sysBPF(cmd uintptr, attr unsafe.Pointer, size uintptr) (int, error) {
	for {
		r, _, errno := unix.Syscall(unix.SYS_BPF, cmd, uintptr(attr), size)
		runtime.KeepAlive(attr)
		switch errno {
		case 0:
			return int(r), nil
		case unix.EAGAIN, unix.EINTR: // the verifier gives way to a signal
			continue
		}
		return -1, errno
	}
}

// progLoadAttr is the head of union bpf_attr for BPF_PROG_LOAD.
type progLoadAttr struct {
	progType           uint32
	insnCnt            uint32
	insns              unsafe.Pointer
	license            unsafe.Pointer
	logLevel           uint32
	logSize            uint32
	logBuf             unsafe.Pointer
	kernVersion        uint32
	progFlags          uint32
	progName           [16]byte
	progIfindex        uint32
	expectedAttachType uint32
	progBTF            uint32
	funcInfoRecSize    uint32
	funcInfo           uint64
	funcInfoCnt        uint32
	lineInfoRecSize    uint32
	lineInfo           uint64
	lineInfoCnt        uint32
	attachBTFID        uint32
	attachFD           uint32 // of a program, or of a module's BTF
	_                  uint32
}

// A program is one to be loaded.
type program struct {
	name     string // what the kernel calls it
	typ      uint32
	attach   uint32
	btfID    uint32
	targetFD int // 0: the kernel itself
	code     []byte
}

// load loads a program; log is for what the verifier says.
func (p *program) load(log []byte) (int, error) {
	license := []byte("Dual BSD/GPL\x00")
	attr := progLoadAttr{
		progType: p.typ, insnCnt: uint32(len(p.code) / 8), insns: unsafe.Pointer(unsafe.SliceData(p.code)),
		license: unsafe.Pointer(&license[0]), expectedAttachType: p.attach,
		attachBTFID: p.btfID, attachFD: uint32(p.targetFD),
	}
	copy(attr.progName[:15], p.name)
	if len(log) > 0 {
		attr.logLevel, attr.logSize, attr.logBuf = logLevelBranch, uint32(len(log)), unsafe.Pointer(&log[0])
	}
	fd, err := sysBPF(cmdProgLoad, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	runtime.KeepAlive(license)
	runtime.KeepAlive(p.code)
	return fd, err
}

// openRawTP attaches a tracing program where it was loaded for, on all kernels
// since 5.5.
func openRawTP(prog int) (int, error) {
	attr := struct {
		name uint64
		prog uint32
		_    uint32
	}{prog: uint32(prog)}
	return sysBPF(cmdRawTPOpen, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
}

// openKprobeMulti attaches a program to functions by their addresses.
func openKprobeMulti(prog int, ret bool, addrs, cookies []uint64) (int, error) {
	attr := struct {
		prog, target, attach, flags uint32
		multiFlags, count           uint32
		syms                        uint64
		addrs, cookies              unsafe.Pointer
	}{
		prog: uint32(prog), attach: attachKprobeMulti, count: uint32(len(addrs)),
		addrs: unsafe.Pointer(unsafe.SliceData(addrs)), cookies: unsafe.Pointer(unsafe.SliceData(cookies)),
	}
	if ret {
		attr.multiFlags = kprobeMultiReturn
	}
	fd, err := sysBPF(cmdLinkCreate, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	runtime.KeepAlive(addrs)
	runtime.KeepAlive(cookies)
	return fd, err
}

// openKprobeMultiSyms attaches a program to functions by their names, which end
// with 0.
func openKprobeMultiSyms(prog int, syms []unsafe.Pointer) (int, error) {
	attr := struct {
		prog, target, attach, flags uint32
		multiFlags, count           uint32
		syms                        unsafe.Pointer
		addrs, cookies              uint64
	}{prog: uint32(prog), attach: attachKprobeMulti, count: uint32(len(syms)), syms: unsafe.Pointer(unsafe.SliceData(syms))}
	fd, err := sysBPF(cmdLinkCreate, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	runtime.KeepAlive(syms)
	return fd, err
}

// openByID returns a descriptor of a program or BTF object.
func openByID(cmd uintptr, id int) (int, error) {
	attr := struct{ id, next, flags uint32 }{id: uint32(id)}
	return sysBPF(cmd, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
}

// enableStats has the kernel count runs until the descriptor is closed (5.8).
func enableStats() (int, error) {
	attr := struct{ typ uint32 }{statsRunTime}
	return sysBPF(cmdEnableStats, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
}

// progStats is what the kernel counted of a program.
type progStats struct {
	time, runs, missed uint64
}

// statsOf reads struct bpf_prog_info.
func statsOf(prog int) (progStats, error) {
	info := [216]byte{} // to recursion_misses (9ed9e9ba2337, 5.12)
	attr := struct {
		fd, size uint32
		info     unsafe.Pointer
	}{uint32(prog), uint32(len(info)), unsafe.Pointer(&info)}
	_, err := sysBPF(cmdObjInfo, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	at := func(off int) uint64 { return *(*uint64)(unsafe.Pointer(&info[off])) }
	return progStats{time: at(192), runs: at(200), missed: at(208)}, err
}
