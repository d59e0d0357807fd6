//go:build linux

// Package procfs reads what the running kernel tells of its tasks, their files
// and stacks, its modules and its log by way of /proc, /dev/kmsg and syslog(2):
// the answers that are left where its memory cannot be read. Types are those of
// packages kobj, kernel and stack; what needs memory, addresses above all, is
// zero in them.
//
// What is not permitted gives a [bpfsys.PermissionError], what the kernel lacks
// a [bpfsys.UnsupportedError].
package procfs

import (
	"errors"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"syscall"

	"github.com/ksleuth/ksleuth/bpfsys"
)

// gone reports whether err says that a task has ended.
func gone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH)
}

// needs types the refusal of an operation that a capability would permit.
func needs(op, capability string, err error) error {
	if !errors.Is(err, fs.ErrPermission) {
		return err
	}
	var path *fs.PathError
	if errors.As(err, &path) {
		err = path.Err
	}
	return &bpfsys.PermissionError{Op: op, Capability: capability, Err: err}
}

// numbers lists the entries of a directory that are numbers, ascending.
func numbers(dir string) ([]int, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	var out []int
	for _, name := range names {
		if n, err := strconv.Atoi(name); err == nil {
			out = append(out, n)
		}
	}
	slices.Sort(out)
	return out, err
}
