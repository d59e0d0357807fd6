package guard

import (
	"bytes"
	"structs"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/ksleuth/ksleuth/tracee"
)

// Numbers of include/uapi/linux/bpf.h.
const (
	bpfProgLoad      = 5  // enum bpf_cmd
	bpfProgFDByID    = 13 // enum bpf_cmd
	bpfBTFFDByID     = 19 // enum bpf_cmd
	progTypeTracing  = 26 // enum bpf_prog_type
	traceFentry      = 24 // enum bpf_attach_type
	traceFexit       = 25 // enum bpf_attach_type
	verifierLogBytes = 4096
)

// attrLoad is the part of union bpf_attr for BPF_PROG_LOAD used here.
type attrLoad struct {
	_           structs.HostLayout
	progType    uint32
	insnCnt     uint32
	insns       unsafe.Pointer
	license     unsafe.Pointer
	logLevel    uint32
	logSize     uint32
	logBuf      unsafe.Pointer
	kernVersion uint32
	progFlags   uint32
	name        [16]byte
	ifindex     uint32
	attachType  uint32
	btfFD       uint32
	funcRecSize uint32
	funcInfo    uint64
	funcCnt     uint32
	lineRecSize uint32
	lineInfo    uint64
	lineCnt     uint32
	attachBTFID uint32
	attachFD    uint32 // of the program, or (5.11) of a module's BTF
	pad         uint32
}

type attrID struct {
	_               structs.HostLayout
	id, next, flags uint32
}

// load has the verifier judge a program for a function that does nothing: it
// is loaded, attached to nothing, and unloaded. The log is what the verifier
// says.
func load(f *tracee.Function, attachType uint32) (log string, err error) {
	var target int
	switch {
	case f.Prog != nil:
		target, err = byID(bpfProgFDByID, f.Prog.ID)
	case f.Module != "":
		target, err = byID(bpfBTFFDByID, f.BTF)
	}
	if err != nil {
		return "", err
	}
	if target > 0 {
		defer unix.Close(target)
	}
	insns := [...]uint64{0xb7, 0x95} // r0 = 0; exit
	license := [...]byte{'G', 'P', 'L', 0}
	buf := make([]byte, verifierLogBytes)
	a := attrLoad{
		progType: progTypeTracing, insnCnt: uint32(len(insns)), insns: unsafe.Pointer(&insns), license: unsafe.Pointer(&license),
		logLevel: 1, logSize: uint32(len(buf)), logBuf: unsafe.Pointer(&buf[0]), attachType: attachType, attachBTFID: f.ID, attachFD: uint32(target),
	}
	copy(a.name[:], "ksleuth_trial")
	fd, err := bpfCall(bpfProgLoad, unsafe.Pointer(&a), unsafe.Sizeof(a)-4)
	if err != nil {
		log, _, _ := bytes.Cut(buf, []byte{0})
		return string(log), err
	}
	return "", unix.Close(fd)
}

func byID(cmd, id int) (int, error) {
	a := attrID{id: uint32(id)}
	return bpfCall(cmd, unsafe.Pointer(&a), unsafe.Sizeof(a))
}

// bpfCall makes the system call. The verifier can be interrupted by signals.
func bpfCall(cmd int, attr unsafe.Pointer, n uintptr) (int, error) {
	const tries = 30
	for i := 1; ; i++ {
		r, _, errno := unix.Syscall(unix.SYS_BPF, uintptr(cmd), uintptr(attr), n)
		switch {
		case errno == 0:
			return int(r), nil
		case (errno == unix.EAGAIN || errno == unix.EINTR) && i < tries:
			continue
		}
		return -1, errno
	}
}
