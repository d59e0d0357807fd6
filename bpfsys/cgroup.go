//go:build linux

package bpfsys

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ksleuth/ksleuth/bpf"
	"github.com/ksleuth/ksleuth/kernel"
)

// cgroupAttach are the attach types of the program types that go onto cgroups.
var cgroupAttach = map[string][]string{
	"cgroup_skb":    {"cgroup_inet_ingress", "cgroup_inet_egress"},
	"cgroup_sock":   {"cgroup_inet_sock_create", "cgroup_inet_sock_release", "cgroup_inet4_post_bind", "cgroup_inet6_post_bind"},
	"sock_ops":      {"cgroup_sock_ops"},
	"cgroup_device": {"cgroup_device"},
	"cgroup_sock_addr": {
		"cgroup_inet4_bind", "cgroup_inet6_bind", "cgroup_inet4_connect", "cgroup_inet6_connect", "cgroup_unix_connect",
		"cgroup_udp4_sendmsg", "cgroup_udp6_sendmsg", "cgroup_unix_sendmsg", "cgroup_udp4_recvmsg", "cgroup_udp6_recvmsg", "cgroup_unix_recvmsg",
		"cgroup_inet4_getpeername", "cgroup_inet6_getpeername", "cgroup_unix_getpeername",
		"cgroup_inet4_getsockname", "cgroup_inet6_getsockname", "cgroup_unix_getsockname",
	},
	"cgroup_sysctl":  {"cgroup_sysctl"},
	"cgroup_sockopt": {"cgroup_getsockopt", "cgroup_setsockopt"},
	"lsm":            {"lsm_cgroup"},
}

// cgroupFlags are BPF_F_ALLOW_OVERRIDE and BPF_F_ALLOW_MULTI, as bpftool calls
// them.
var cgroupFlags = [...]string{"override", "multi"}

// maxCgroups bounds the walk over the tree.
const maxCgroups = 1 << 20

// cgroupPrograms returns the programs attached to cgroups, by links or without.
func cgroupPrograms(ctx context.Context, _ []procFD) ([]bpf.Attachment, error) {
	used, err := progTypesInUse()
	if err != nil {
		return nil, err
	}
	var types []uint32
	for typ, names := range cgroupAttach {
		if used[typ] {
			types = append(types, attachTypesOf(names...)...)
		}
	}
	if len(types) == 0 {
		return nil, nil
	}
	trees, err := cgroupTrees(ctx)
	w := cgroupWalk{ctx: ctx, types: types, seen: make(map[uint64]bool)}
	w.errs.Add(err)
	for _, m := range trees {
		w.tree(m)
	}
	return w.found, w.errs.Err()
}

// cgroupTrees lists where the cgroup2 hierarchy is mounted. There is one, of
// which other mount namespaces can show other parts.
func cgroupTrees(ctx context.Context) ([]place, error) { return places(ctx, "cgroup2") }

type cgroupWalk struct {
	ctx   context.Context
	types []uint32
	seen  map[uint64]bool // cgroups, by id
	found []bpf.Attachment
	errs  kernel.Errors
}

func (w *cgroupWalk) tree(m place) {
	err := filepath.WalkDir(m.path, func(path string, d fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENODEV):
			return nil // removed meanwhile
		case err != nil:
			w.errs.Add(fmt.Errorf("cgroups: %w", err))
			return nil
		case w.ctx.Err() != nil:
			return w.ctx.Err()
		case !d.IsDir():
			return nil
		case len(w.seen) >= maxCgroups || w.errs.TooMany():
			return fs.SkipAll
		}
		w.cgroup(path, m.cgroupPath(path))
		return nil
	})
	w.errs.Add(err)
}

// cgroupPath is the path in the hierarchy of a directory below the mount.
func (m place) cgroupPath(dir string) string {
	return filepath.Join("/", m.root, strings.TrimPrefix(dir, m.path))
}

// cgroup asks for the programs of one cgroup. A type that the kernel does not
// know is not asked for again.
func (w *cgroupWalk) cgroup(dir, name string) {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil || w.seen[st.Ino] {
		return
	}
	w.seen[st.Ino] = true
	for i := 0; i < len(w.types); i++ {
		progs, err := query(fd, w.types[i], false)
		switch {
		case unsupported(err):
			w.types = append(w.types[:i:i], w.types[i+1:]...)
			i--
		case errors.Is(err, unix.EPERM):
			w.errs.Add(classify(progQuery, err))
			w.types = nil
		case err != nil: // removed meanwhile
		}
		for _, p := range progs {
			a := bpf.Attachment{
				Kind: "cgroup", ProgID: p.prog, Attach: attachType(w.types[i]),
				Target: bpf.Target{Kind: bpf.TargetCgroup, Name: name, Value: int64(st.Ino)},
			}
			for bit, flag := range cgroupFlags {
				if p.flags>>bit&1 != 0 {
					a.Flags = append(a.Flags, flag)
				}
			}
			w.found = append(w.found, a)
		}
	}
}

// kernfsHandle is FILEID_KERNFS of include/linux/exportfs.h: a file handle that
// is the id of a kernfs node.
const kernfsHandle = 0xfe

// cgroupName returns the path in the hierarchy of the cgroup with an id, "" if
// it cannot be told.
func cgroupName(trees []place, id uint64) string {
	for _, m := range trees {
		dir, err := unix.Open(m.path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			continue
		}
		fd, err := unix.OpenByHandleAt(dir, unix.NewFileHandle(kernfsHandle, binary.LittleEndian.AppendUint64(nil, id)), unix.O_PATH|unix.O_CLOEXEC)
		unix.Close(dir)
		if err != nil {
			continue
		}
		path, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
		unix.Close(fd)
		if below, ok := strings.CutPrefix(path, m.point); err == nil && ok {
			return filepath.Join("/", m.root, strings.TrimSuffix(below, " (deleted)"))
		}
	}
	return ""
}
