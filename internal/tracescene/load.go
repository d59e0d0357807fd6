package main

import (
	"bytes"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// An attached program is loaded for a function of another: to replace or to
// trace it.
type attached struct{ name, prog, function string }

// An object is a compiled file, of which some programs are loaded at first.
type object struct {
	spec  *ebpf.CollectionSpec
	later map[string]*ebpf.ProgramSpec
}

// load loads a compiled file but for the programs named.
func (s *scene) load(file []byte, later ...string) (*object, error) {
	spec, err := ebpf.LoadCollectionSpecFromReader(bytes.NewReader(file))
	if err != nil {
		return nil, fmt.Errorf("reading the object: %w", err)
	}
	o := &object{spec, map[string]*ebpf.ProgramSpec{}}
	for _, name := range later {
		o.later[name] = spec.Programs[name]
		delete(spec.Programs, name)
	}
	coll, err := ebpf.NewCollection(spec)
	if err != nil {
		return nil, fmt.Errorf("loading the object: %+v", err)
	}
	for n, p := range coll.Programs {
		s.progs[n] = p
	}
	for n, m := range coll.Maps {
		s.maps[n] = m
	}
	for n, v := range coll.Variables {
		s.vars[n] = v
	}
	return o, nil
}

// prepare loads one of the later programs, with the maps there are.
func (s *scene) prepare(o *object, a attached) (*ebpf.Program, error) {
	spec := o.spec.Copy()
	p := o.later[a.name].Copy()
	p.AttachTarget, p.AttachTo = s.progs[a.prog], a.function
	spec.Programs = map[string]*ebpf.ProgramSpec{a.name: p}
	spec.Variables = nil
	// Slots of program arrays are filled already.
	for _, m := range spec.Maps {
		m.Contents = nil
	}
	coll, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{MapReplacements: s.maps})
	if err != nil {
		return nil, err
	}
	return coll.DetachProgram(a.name), nil
}

// attach loads one of the later programs, and links it to its function.
func (s *scene) attach(o *object, a attached) (link.Link, error) {
	p, err := s.prepare(o, a)
	if err != nil {
		return nil, err
	}
	l, err := linkTo(p)
	if err != nil {
		p.Close()
		return nil, err
	}
	s.progs[a.name] = p
	return l, nil
}

// linkTo links a program to what it was loaded for.
func linkTo(p *ebpf.Program) (link.Link, error) {
	if p.Type() == ebpf.Extension {
		return link.AttachFreplace(nil, "", p)
	}
	return link.AttachTracing(link.TracingOptions{Program: p})
}
