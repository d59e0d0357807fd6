package cli

import (
	"errors"

	"github.com/ksleuth/ksleuth/bpfview"
)

// bpfSource returns where BPF objects are looked at. On the running kernel
// memory is not needed for most of what there is to say: where it cannot be
// read, that is said and bpf(2) tells the rest.
func (a *app) bpfSource() (bpfview.Source, error) {
	k, err := a.open()
	if a.withoutMemory("BPF objects are told by bpf(2)", err) {
		return bpfview.Source{Running: true, Users: true}, nil
	}
	if err != nil {
		return bpfview.Source{}, err
	}
	src := bpfview.Source{Kernel: k, Running: k.Live(), Users: true}
	if _, err := k.Addr("prog_idr"); err != nil && src.Running {
		a.note("BPF objects are told by bpf(2) alone: this kernel's symbol table has no variables (CONFIG_KALLSYMS_ALL is not set), so that they cannot be found in its memory")
		src.Kernel = nil
	}
	return src, nil
}

// quickly tries to answer without opening the running kernel's memory, which
// takes longer than the rest, and reports whether that did.
func (a *app) quickly(list func(bpfview.Source) bool) bool {
	if len(a.dumps) > 0 || a.kernel != nil {
		return false
	}
	return list(bpfview.Source{Running: true, Users: true, Brief: true})
}

// partly goes on with what was read where an error came with it, and ends the
// command where nothing was.
func partly[T any](a *app, objs []T, err error) ([]T, error) {
	if err != nil && len(objs) == 0 && !isChanged(err) {
		return nil, err
	}
	a.gap(err)
	return objs, nil
}

// isChanged reports whether err says that objects came and went while they
// were read.
func isChanged(err error) bool {
	var changed *bpfview.ChangedError
	return errors.As(err, &changed)
}

// pickAll returns the objects that the arguments name, by one of bpf.Pick*.
func pickAll[T any](pick func([]*T, string) ([]*T, error), all []*T, args []string) ([]*T, error) {
	var out []*T
	for _, arg := range args {
		picked, err := pick(all, arg)
		if err != nil {
			return out, usage(err)
		}
		out = append(out, picked...)
	}
	return out, nil
}
