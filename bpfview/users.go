package bpfview

import (
	"context"
	"errors"
	"os"
	"slices"

	"github.com/ksleuth/ksleuth/bpf"
	"github.com/ksleuth/ksleuth/bpfsys"
	"github.com/ksleuth/ksleuth/kernel"
	"github.com/ksleuth/ksleuth/kobj"
)

// users says of the objects of a kind who holds each and where it is pinned.
type users struct {
	holders map[int][]bpf.Holder
	pins    map[int][]string
	own     map[int]bool // held by this process alone: a tool of its own, to read memory with
}

// users finds the users of the objects of a kind. In a dump pins are not
// looked for.
func (s Source) users(ctx context.Context, kind string) (users, error) {
	if !s.Running {
		h, err := holders(ctx, s.Kernel)
		return users{holders: h[kind]}, err
	}
	h, err1 := bpfsys.Holders(ctx, kind)
	p, err2 := bpfsys.Pins(ctx)
	u := users{holders: h[kind], pins: p[kind], own: make(map[int]bool)}
	for id, hs := range u.holders {
		u.holders[id] = slices.DeleteFunc(hs, func(h bpf.Holder) bool { return h.PID == os.Getpid() })
		u.own[id] = len(u.holders[id]) == 0 && len(u.pins[id]) == 0
	}
	return u, errors.Join(err1, err2)
}

// holders finds in memory which processes have a descriptor of which objects,
// by kind and id.
func holders(ctx context.Context, k *kernel.Kernel) (map[string]map[int][]bpf.Holder, error) {
	out := make(map[string]map[int][]bpf.Holder)
	err := eachFile(ctx, k, func(t kobj.Task, f kobj.File) error {
		o, err := bpf.ObjectOf(k, f.Ops, uint64(f.Private))
		if o == nil {
			return err
		}
		if out[o.Kind] == nil {
			out[o.Kind] = make(map[int][]bpf.Holder)
		}
		hs := out[o.Kind][o.ID]
		if h := (bpf.Holder{PID: t.PID, Comm: t.Comm}); !slices.Contains(hs, h) {
			out[o.Kind][o.ID] = append(hs, h)
		}
		return err
	})
	return out, err
}

// eachFile calls visit for every open file of every process, as memory has
// them.
func eachFile(ctx context.Context, k *kernel.Kernel, visit func(kobj.Task, kobj.File) error) error {
	tasks, err := kobj.Tasks(k, false)
	for _, t := range tasks {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if t.PID != t.TGID || t.Kernel {
			continue
		}
		files, ferr := kobj.Files(k, t)
		err = errors.Join(err, ferr)
		for _, f := range files {
			err = errors.Join(err, visit(t, f))
		}
	}
	return err
}
