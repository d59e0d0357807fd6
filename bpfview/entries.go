package bpfview

import (
	"bytes"
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
	if s.Kernel != nil && inWords[m.Type] {
		return out, s.addWords(ctx, m, out)
	}
	return out, nil
}

// inWords are the types of which memory tells in words what the values stand
// for.
var inWords = map[string]bool{
	"prog_array": true, "array_of_maps": true, "hash_of_maps": true, "struct_ops": true, "devmap": true, "devmap_hash": true, "cpumap": true,
	"sockmap": true, "sockhash": true, "reuseport_sockarray": true,
}

// addWords adds what memory alone tells to elements that are still the same
// there.
func (s Source) addWords(ctx context.Context, m *bpf.Map, es []bpf.Entry) error {
	read, err := s.entriesInMemory(ctx, m)
	byKey := make(map[string]*bpf.Entry, len(read))
	for i := range read {
		byKey[string(read[i].Key)] = &read[i]
	}
	for i := range es {
		if e := byKey[string(es[i].Key)]; e != nil && bytes.Equal(e.Value, es[i].Value) {
			fill(&es[i], e)
		}
	}
	return err
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
