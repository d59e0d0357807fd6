package vmcore

import (
	"os"
	"syscall"
)

// procMagic is PROC_SUPER_MAGIC of linux/magic.h.
const procMagic = 0x9fa0

// onProc reports whether f is a file of procfs, like /proc/kcore: its size
// means nothing and its content changes.
func onProc(f *os.File) bool {
	var st syscall.Statfs_t
	return syscall.Fstatfs(int(f.Fd()), &st) == nil && st.Type == procMagic
}
