//go:build linux

package bpfsys

import (
	"errors"
	"slices"

	"golang.org/x/sys/unix"
)

// attached is one answer of BPF_PROG_QUERY: a program, and the link that
// attached it, where the kernel tells; flags are those of the whole hook.
type attached struct {
	prog, link int
	flags      uint32
}

// maxAttached bounds an answer; the kernel's limit is 64 (BPF_CGROUP_MAX_PROGS,
// BPF_MPROG_MAX).
const maxAttached = 1 << 12

// query asks which programs are attached to a descriptor or device. links asks
// for links, too, which is for attach types of 6.6 and later.
func query(target int, attach uint32, links bool) ([]attached, error) {
	for n := 64; ; n *= 2 {
		progs, linkIDs := make([]uint32, n), make([]uint32, n)
		a := attrQuery{target: uint32(target), attachType: attach, progIDs: first(progs), count: uint32(n)}
		if links {
			a.linkIDs = first(linkIDs)
		}
		_, err := call(progQuery, &a)
		if errors.Is(err, unix.ENOSPC) && n < maxAttached {
			continue
		}
		if err != nil {
			return nil, err
		}
		var out []attached
		for i := range min(int(a.count), n) {
			out = append(out, attached{int(progs[i]), int(linkIDs[i]), a.flags})
		}
		return out, nil
	}
}

// attachTypesOf are the values of the attach types with the names.
func attachTypesOf(names ...string) []uint32 {
	var out []uint32
	for _, n := range names {
		if i := slices.Index(attachTypes[:], n); i >= 0 {
			out = append(out, uint32(i))
		}
	}
	return out
}

// progTypesInUse lists the types that the loaded programs have.
func progTypesInUse() (map[string]bool, error) {
	types := make(map[string]bool)
	for id := uint32(0); ; {
		next, err := nextID(progNextID, id)
		if errors.Is(err, unix.ENOENT) {
			return types, nil
		}
		if err != nil {
			return types, classify(progNextID, err)
		}
		id = next
		fd, err := openID(progKind, id)
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil {
			return types, err
		}
		var head struct{ typ, id uint32 }
		if _, err := info(fd, &head); err == nil {
			types[progType(head.typ)] = true
		}
		unix.Close(fd)
	}
}
