// Package bpfview gives all BPF objects of a target in one form: those of a
// dump by its memory, those of the running kernel by bpf(2) and by memory, each
// filling the other's gaps.
//
// Objects of the running kernel come and go. Each is held by a descriptor
// before its memory is read, so that what is read is of that very object. What
// no descriptor can hold (trampolines, attachments without a link) is read
// until two readings agree.
package bpfview

import (
	"context"
	"errors"
	"io/fs"
	"slices"

	"github.com/ksleuth/ksleuth/bpf"
	"github.com/ksleuth/ksleuth/bpfsys"
	"github.com/ksleuth/ksleuth/kernel"
	"github.com/ksleuth/ksleuth/kobj"
)

// A Source is where BPF objects are looked at.
type Source struct {
	// Kernel gives memory; nil where that cannot be read.
	Kernel *kernel.Kernel
	// Running says that the target is the running kernel.
	Running bool
	// Users adds to each object who holds it and where it is pinned. That
	// takes a look at every descriptor of every process.
	Users bool
	// Brief leaves out of the running kernel's programs what costs as much as
	// the rest and a list does not show: the memory they take.
	Brief bool
}

// ErrNoMemory is the error for what memory alone tells, where it cannot be
// read.
var ErrNoMemory = errors.New("this is told by the kernel's memory alone, which cannot be read")

// Programs returns the loaded programs by id, all of them or those asked for.
// With an error comes what was read.
func (s Source) Programs(ctx context.Context, ids ...int) ([]*bpf.Program, error) {
	progs, err := s.programs(ids...)
	if s.Running && s.Kernel != nil && len(ids) == 0 {
		err = errors.Join(err, s.targets(progs))
	}
	if len(progs) == 0 || !s.Users {
		return progs, err
	}
	u, uerr := s.users(ctx, "prog")
	for _, p := range progs {
		p.Holders, p.Pins = u.holders[p.ID], u.pins[p.ID]
	}
	progs = slices.DeleteFunc(progs, func(p *bpf.Program) bool { return u.own[p.ID] })
	return progs, errors.Join(err, uerr)
}

// programs is [Source.Programs] without the users.
func (s Source) programs(ids ...int) ([]*bpf.Program, error) {
	if s.Running && s.Brief && len(ids) == 0 {
		return bpfsys.ListPrograms()
	}
	return objects(s, ids, programs)
}

// Lacking reports whether bpf(2) alone did not tell what a program was loaded
// for.
func Lacking(p *bpf.Program) bool {
	return forTarget[p.Type] && (p.Target == nil || p.Target.Name == "")
}

// forTarget are the types of programs that are loaded for one target.
var forTarget = map[string]bool{"tracing": true, "lsm": true, "ext": true, "struct_ops": true}

// Maps returns the maps by id, all of them or those asked for, each with the
// programs that use it. With an error comes what was read.
func (s Source) Maps(ctx context.Context, ids ...int) ([]*bpf.Map, error) {
	ms, err := objects(s, ids, maps)
	if len(ms) == 0 {
		return ms, err
	}
	users := s
	users.Brief = true
	progs, perr := users.programs()
	bpf.UsedBy(ms, progs)
	err = errors.Join(err, perr)
	if !s.Users {
		return ms, err
	}
	u, uerr := s.users(ctx, "map")
	for _, m := range ms {
		m.Holders, m.Pins = u.holders[m.ID], u.pins[m.ID]
	}
	ms = slices.DeleteFunc(ms, func(m *bpf.Map) bool { return u.own[m.ID] })
	return ms, errors.Join(err, uerr)
}

// Links returns the links by id, all of them or those asked for. With an error
// comes what was read.
func (s Source) Links(ctx context.Context, ids ...int) ([]*bpf.Link, error) {
	ls, err := objects(s, ids, links)
	if s.Kernel == nil {
		err = errors.Join(err, bpfsys.CompleteLinks(ctx, ls))
	}
	if len(ls) == 0 || !s.Users {
		return ls, err
	}
	u, uerr := s.users(ctx, "link")
	for _, l := range ls {
		l.Holders, l.Pins = u.holders[l.ID], u.pins[l.ID]
	}
	return ls, errors.Join(err, uerr)
}

// Attachments returns the programs at work without a link. Those of sockets
// are found by memory alone. With an error comes what was read.
func (s Source) Attachments(ctx context.Context) ([]bpf.Attachment, error) {
	read := func(k *kernel.Kernel) ([]bpf.Attachment, error) { return attachments(ctx, k) }
	switch {
	case s.Kernel == nil:
		return bpfsys.Attachments(ctx)
	case s.Running:
		return settled(ctx, s.Kernel, "attachments", read)
	}
	return read(s.Kernel)
}

func attachments(ctx context.Context, k *kernel.Kernel) ([]bpf.Attachment, error) {
	all, err := bpf.Attachments(k)
	seen := make(map[kobj.File]bool) // processes share files
	ferr := eachFile(ctx, k, func(_ kobj.Task, f kobj.File) error {
		f.FD = 0
		if seen[f] {
			return nil
		}
		seen[f] = true
		of, err := bpf.SocketAttachments(k, f.Ops, uint64(f.Private))
		all = append(all, of...)
		return err
	})
	return all, errors.Join(err, ferr)
}

// Trampolines returns the code that BPF generated to run programs.
func (s Source) Trampolines(ctx context.Context) ([]*bpf.Trampoline, error) {
	switch {
	case s.Kernel == nil:
		return nil, ErrNoMemory
	case s.Running:
		return settled(ctx, s.Kernel, "trampolines", bpf.Trampolines)
	}
	return bpf.Trampolines(s.Kernel)
}

// Inventory returns everything. With an error comes what was read.
func (s Source) Inventory(ctx context.Context) (bpf.Inventory, error) {
	var inv bpf.Inventory
	var errs [5]error
	inv.Programs, errs[0] = s.Programs(ctx)
	inv.Maps, errs[1] = s.Maps(ctx)
	inv.Links, errs[2] = s.Links(ctx)
	inv.Attachments, errs[3] = s.Attachments(ctx)
	if s.Kernel != nil {
		inv.Trampolines, errs[4] = s.Trampolines(ctx)
	}
	inv.Entries = make(map[int][]bpf.Entry)
	for _, m := range inv.Maps {
		if !refers[m.Type] {
			continue
		}
		es, err := s.Entries(ctx, m)
		inv.Entries[m.ID] = es
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // it has gone since
			errs[4] = errors.Join(errs[4], err)
		}
	}
	return inv, errors.Join(errs[:]...)
}

// refers are the types of maps whose values are programs or maps.
var refers = map[string]bool{
	"prog_array": true, "array_of_maps": true, "hash_of_maps": true,
	"devmap": true, "devmap_hash": true, "cpumap": true, // values may have a program
}
