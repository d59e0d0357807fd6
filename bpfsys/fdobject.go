//go:build linux

package bpfsys

import (
	"errors"
	"fmt"
	"io/fs"

	"golang.org/x/sys/unix"

	"github.com/ksleuth/ksleuth/bpf"
)

// ObjectOf returns the BPF object that a descriptor of a process stands for, or
// nil for any other file. /proc/PID/fdinfo tells its kind, its id and its type,
// bpf(2) its name: with an error for the latter comes the object without it.
func ObjectOf(pid, fd int) (*bpf.Object, error) {
	dir, err := openFDInfoAt(unix.AT_FDCWD, fmt.Sprintf("/proc/%d/fdinfo", pid))
	if errors.Is(err, fs.ErrPermission) {
		err = &PermissionError{fmt.Sprintf("/proc/%d/fdinfo", pid), "CAP_SYS_PTRACE", err}
	}
	if err != nil {
		return nil, err
	}
	defer dir.close()
	text, err := dir.readFD(fd)
	if err != nil {
		return nil, err
	}
	o, prog := objectIn(text)
	if o == nil {
		return nil, nil
	}
	return o, nameObject(o, prog)
}

// objectIn is what fdinfo says of an object, nil if the file is none, and of a
// link its program, 0 if it has none.
func objectIn(text fields) (o *bpf.Object, prog int) {
	kind, id := objectOf(text)
	o = &bpf.Object{Kind: kind, ID: id}
	switch kind {
	case "":
		return nil, 0
	case "prog":
		o.Type = progType(uint32(text.uint("prog_type")))
	case "map":
		o.Type = mapType(uint32(text.uint("map_type")))
	case "link":
		o.Type, _ = text.get("link_type")
		prog = int(text.uint("prog_id"))
	}
	return o, prog
}

// nameObject asks bpf(2) for the name. An object that was freed meanwhile has
// none.
func nameObject(o *bpf.Object, prog int) error {
	var err error
	switch o.Kind {
	case "prog":
		o.Name, err = nameOf(Programs, o.ID, func(p *bpf.Program) string { return p.Name })
	case "map":
		o.Name, err = nameOf(Maps, o.ID, func(m *bpf.Map) string { return m.Name })
	case "btf":
		o.Name, err = nameOf(BTFs, o.ID, func(b *bpf.BTF) string { return b.Name })
	case "link":
		var typ string
		if typ, err = nameOf(Links, o.ID, func(l *bpf.Link) string { return l.Type }); err == nil && typ != "" {
			o.Type = typ // fdinfo has variants of some
		}
		if err == nil && prog != 0 {
			o.Name, err = nameOf(Programs, prog, func(p *bpf.Program) string { return p.Name })
		}
	}
	var gone *NotFoundError
	if errors.As(err, &gone) {
		return nil
	}
	return err
}

func nameOf[T any](list func(...int) (*Held[T], error), id int, name func(*T) string) (string, error) {
	h, err := list(id)
	o := h.Object(id)
	if cerr := h.Close(); o == nil {
		return "", errors.Join(err, cerr)
	}
	return name(o), nil
}
