package bpfview

import (
	"context"
	"errors"

	"github.com/ksleuth/ksleuth/bpf"
	"github.com/ksleuth/ksleuth/bpfsys"
)

// headOnly are the types of which bpf(2) shows no more than the next element.
var headOnly = map[string]bool{"queue": true, "stack": true}

// Entries returns the elements of a map. Those of the running kernel are read
// by bpf(2), which takes the map's own locks; types that it does not hand out,
// and dumps, by memory. With an error comes what was read.
func (s Source) Entries(ctx context.Context, m *bpf.Map) ([]bpf.Entry, error) {
	if !s.Running {
		return s.entriesInMemory(ctx, m)
	}
	held, err := bpfsys.Maps(m.ID)
	if err != nil {
		return nil, err
	}
	defer held.Close()
	if s.Kernel != nil && headOnly[m.Type] {
		return s.entriesInMemory(ctx, m)
	}
	var out []bpf.Entry
	for e, err := range bpfsys.Entries(held, m.ID) {
		if errors.Is(err, errors.ErrUnsupported) && s.Kernel != nil {
			return s.entriesInMemory(ctx, m)
		}
		if err != nil {
			return out, err
		}
		if ctx.Err() != nil {
			return out, ctx.Err()
		}
		out = append(out, e)
	}
	return out, nil
}

func (s Source) entriesInMemory(ctx context.Context, m *bpf.Map) ([]bpf.Entry, error) {
	s.Kernel.Refresh()
	var out []bpf.Entry
	for e, err := range bpf.Entries(s.Kernel, m) {
		if err != nil {
			return out, err
		}
		if ctx.Err() != nil {
			return out, ctx.Err()
		}
		out = append(out, e)
	}
	return out, nil
}
