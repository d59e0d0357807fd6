package main

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/cilium/ebpf"
)

// loadObject loads an object's maps and programs, except for what this kernel
// cannot have: a map of an unknown type and the programs that use it.
func (z *zoo) loadObject(name string, object []byte) error {
	spec, err := ebpf.LoadCollectionSpecFromReader(bytes.NewReader(object))
	if err != nil {
		return fmt.Errorf("reading the object %s: %w", name, err)
	}
	z.dropUnknown(spec)
	coll, err := ebpf.NewCollection(spec)
	if err != nil {
		return fmt.Errorf("loading the object %s: %w", name, err)
	}
	for n, m := range coll.Maps {
		z.maps[n] = m
		z.made = append(z.made, fmt.Sprintf("made: map %s (%v)", n, m.Type()))
	}
	for n, p := range coll.Programs {
		z.progs[n] = p
		z.made = append(z.made, fmt.Sprintf("made: program %s (%v)", n, p.Type()))
	}
	return nil
}

// dropUnknown removes maps that cannot be made and programs that use them.
func (z *zoo) dropUnknown(spec *ebpf.CollectionSpec) {
	for name, m := range spec.Maps {
		probe := m.Copy()
		probe.Contents = nil
		made, err := ebpf.NewMap(probe)
		if err == nil {
			made.Close()
			continue
		}
		z.leftOut = append(z.leftOut, fmt.Sprintf("left out: map %s (%v): %v", name, m.Type, err))
		delete(spec.Maps, name)
		for n, p := range spec.Programs {
			uses := slices.ContainsFunc(p.Instructions.FunctionReferences(), func(s string) bool { return s == name })
			for i := range p.Instructions {
				uses = uses || p.Instructions[i].Reference() == name
			}
			if uses {
				z.leftOut = append(z.leftOut, fmt.Sprintf("left out: program %s: it uses the map %s", n, name))
				delete(spec.Programs, n)
			}
		}
	}
}
