//go:build linux

package procfs

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ksleuth/ksleuth/kernel"
	"github.com/ksleuth/ksleuth/kobj"
)

// fileTypes are the S_IFMT bits of a file's mode.
var fileTypes = map[uint32]string{
	unix.S_IFSOCK: "SOCK", unix.S_IFLNK: "LNK", unix.S_IFREG: "REG", unix.S_IFBLK: "BLK",
	unix.S_IFDIR: "DIR", unix.S_IFCHR: "CHR", unix.S_IFIFO: "FIFO",
}

// Files returns the open files of a process. With an error comes what was read.
func Files(pid int) ([]kobj.File, error) {
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	fds, err := numbers(dir)
	if err != nil {
		return nil, needs(dir, "CAP_SYS_PTRACE", err)
	}
	var out []kobj.File
	var errs kernel.Errors
	for _, fd := range fds {
		name := fmt.Sprintf("%s/%d", dir, fd)
		path, err := os.Readlink(name)
		if gone(err) {
			continue // closed meanwhile
		}
		if err != nil {
			errs.Add(needs(name, "CAP_SYS_PTRACE", err))
			break // it is as good for the others
		}
		f := kobj.File{FD: fd, Path: strings.TrimSuffix(path, " (deleted)")}
		var st unix.Stat_t
		switch err := unix.Stat(name, &st); {
		case strings.HasPrefix(path, "anon_inode:"):
			f.Type = "ANON"
		case err == nil:
			f.Type = fileTypes[st.Mode&unix.S_IFMT]
		case !gone(err):
			errs.Add(fmt.Errorf("%s: %w", name, err))
		}
		out = append(out, f)
	}
	return out, errs.Err()
}
