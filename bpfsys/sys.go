//go:build linux

package bpfsys

import (
	"structs"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A command is a command of bpf(2).
type command uintptr

// The commands used here (enum bpf_cmd, include/uapi/linux/bpf.h).
const (
	mapLookup      command = 1
	mapNextKey     command = 4
	objGet         command = 7
	progNextID     command = 11
	mapNextID      command = 12
	progFD         command = 13
	mapFD          command = 14
	objInfo        command = 15
	progQuery      command = 16
	btfFD          command = 19
	taskFDQuery    command = 20
	btfNextID      command = 23
	mapLookupBatch command = 24
	linkFD         command = 30
	linkNextID     command = 31
)

// commands: the name, the capability without which the kernel refuses it, and
// the first kernel to know it, where EINVAL can only mean that it does not.
// CAP_BPF (5.8) is not enough to find objects by id.
var commands = map[command]struct{ name, capability, since string }{
	mapLookup:      {"BPF_MAP_LOOKUP_ELEM", "a descriptor that may be read", ""},
	mapNextKey:     {"BPF_MAP_GET_NEXT_KEY", "a descriptor that may be read", ""},
	objGet:         {"BPF_OBJ_GET", "permission to read and write the file", ""},
	progNextID:     {"BPF_PROG_GET_NEXT_ID", "CAP_SYS_ADMIN", "Linux 4.13 (34ad5580f8f9)"},
	mapNextID:      {"BPF_MAP_GET_NEXT_ID", "CAP_SYS_ADMIN", "Linux 4.13 (34ad5580f8f9)"},
	progFD:         {"BPF_PROG_GET_FD_BY_ID", "CAP_SYS_ADMIN", "Linux 4.13 (b16d9aa4c2b9)"},
	mapFD:          {"BPF_MAP_GET_FD_BY_ID", "CAP_SYS_ADMIN", "Linux 4.13 (bd5f5f4ecb78)"},
	objInfo:        {"BPF_OBJ_GET_INFO_BY_FD", "a descriptor", ""},
	progQuery:      {"BPF_PROG_QUERY", "CAP_NET_ADMIN", ""},
	btfFD:          {"BPF_BTF_GET_FD_BY_ID", "CAP_SYS_ADMIN", "Linux 4.18 (78958fca7ead)"},
	taskFDQuery:    {"BPF_TASK_FD_QUERY", "CAP_SYS_ADMIN", "Linux 4.18 (41bdc4b40ed6)"},
	btfNextID:      {"BPF_BTF_GET_NEXT_ID", "CAP_SYS_ADMIN", "Linux 5.4 (1b9ed84ecf26)"},
	mapLookupBatch: {"BPF_MAP_LOOKUP_BATCH", "a descriptor that may be read", ""},
	linkFD:         {"BPF_LINK_GET_FD_BY_ID", "CAP_SYS_ADMIN", "Linux 5.8 (2d602c8cf40d)"},
	linkNextID:     {"BPF_LINK_GET_NEXT_ID", "CAP_SYS_ADMIN", "Linux 5.8 (2d602c8cf40d)"},
}

// The members of union bpf_attr used here. Pointers are typed so that the
// garbage collector sees what the kernel is given. Padding has names: the
// kernel wants it to be zero, and of blank fields Go does not promise that.
type (
	attrID struct {
		_               structs.HostLayout
		id, next, flags uint32
	}
	attrInfo struct {
		_        structs.HostLayout
		fd, size uint32
		info     unsafe.Pointer
	}
	attrObjGet struct {
		_         structs.HostLayout
		path      unsafe.Pointer
		fd, flags uint32
	}
	attrElem struct {
		_     structs.HostLayout
		fd    uint32
		pad1  uint32
		key   unsafe.Pointer
		value unsafe.Pointer // or the next key
		flags uint64
	}
	attrBatch struct {
		_                     structs.HostLayout
		in, out, keys, values unsafe.Pointer
		count, fd             uint32
		elemFlags, flags      uint64
	}
	attrQuery struct {
		_                  structs.HostLayout
		target, attachType uint32
		queryFlags, flags  uint32
		progIDs            unsafe.Pointer
		count              uint32
		pad2               uint32
		progFlags          unsafe.Pointer // 6.0
		linkIDs            unsafe.Pointer // 6.6
		linkFlags          unsafe.Pointer // 6.6
		revision           uint64         // 6.6
	}
	attrTaskFD struct {
		_                      structs.HostLayout
		pid, fd, flags, bufLen uint32
		buf                    unsafe.Pointer
		progID, fdType         uint32
		offset, addr           uint64
	}
)

// call makes the system call. EINTR and EAGAIN of a signal are tried again.
func call[T any](c command, attr *T) (int, error) {
	return callSized(c, attr, unsafe.Sizeof(*attr))
}

// callSized passes only the first n bytes of attr: those that older kernels
// know, where a test for what stands behind is not wanted.
func callSized[T any](c command, attr *T, n uintptr) (int, error) {
	for {
		r, _, errno := unix.Syscall(unix.SYS_BPF, uintptr(c), uintptr(unsafe.Pointer(attr)), n)
		if errno == unix.EINTR {
			continue
		}
		if errno != 0 {
			return 0, errno
		}
		return int(r), nil
	}
}

// nextID returns the lowest id above id.
func nextID(c command, id uint32) (uint32, error) {
	a := attrID{id: id}
	_, err := call(c, &a)
	return a.next, err
}

// fdByID returns a descriptor of the object with an id.
func fdByID(c command, id uint32) (int, error) {
	a := attrID{id: id}
	return call(c, &a)
}

// info fills the struct of a type of object and returns how much of it the
// kernel knows. What lies behind must be zero, or the kernel refuses.
func info[T any](fd int, into *T) (int, error) {
	a := attrInfo{fd: uint32(fd), size: uint32(unsafe.Sizeof(*into)), info: unsafe.Pointer(into)}
	_, err := call(objInfo, &a)
	return int(a.size), err
}

// first returns a pointer to the first element for the kernel, nil if none.
func first[T any](s []T) unsafe.Pointer { return unsafe.Pointer(unsafe.SliceData(s)) }

// cstr is the text up to the first zero byte.
func cstr(b []byte) string { return unix.ByteSliceToString(b) }
