// Package objects keeps BPF objects of several kinds alive: maps, a tail call
// table, programs with subprograms, a raw tracepoint, XDP and fentry link.
package objects

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"net"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

//go:generate clang -O2 -g -target bpf -mcpu=v3 -Wall -Wno-unused-const-variable -fdebug-compilation-dir=. -I../include -c objects.bpf.c -o objects.bpf.o

//go:embed objects.bpf.o
var object []byte

// Objects are the loaded programs, maps and links. They live until Close.
type Objects struct {
	closers []io.Closer
}

// Close releases everything, links first.
func (o *Objects) Close() error {
	var errs []error
	for i := len(o.closers) - 1; i >= 0; i-- {
		errs = append(errs, o.closers[i].Close())
	}
	o.closers = nil
	return errors.Join(errs...)
}

// Load loads and attaches all objects, and runs the classifier a few times so
// that the maps are not empty.
func Load() (*Objects, error) {
	spec, err := ebpf.LoadCollectionSpecFromReader(bytes.NewReader(object))
	if err != nil {
		return nil, fmt.Errorf("reading the object: %w", err)
	}
	o := new(Objects)
	if err := o.load(spec); err != nil {
		o.Close()
		return nil, err
	}
	return o, nil
}

func (o *Objects) load(spec *ebpf.CollectionSpec) error {
	// A tracer can be loaded only when its target is.
	tracer := spec.Programs["see_count_lo"]
	delete(spec.Programs, "see_count_lo")
	coll, err := ebpf.NewCollection(spec)
	if err != nil {
		return fmt.Errorf("loading the objects: %w", err)
	}
	o.closers = append(o.closers, closer(coll.Close))

	tracer.AttachTarget = coll.Programs["count_lo"]
	tracing, err := ebpf.NewCollectionWithOptions(&ebpf.CollectionSpec{
		Maps:      map[string]*ebpf.MapSpec{"packets": spec.Maps["packets"]},
		Programs:  map[string]*ebpf.ProgramSpec{"see_count_lo": tracer},
		Types:     spec.Types,
		ByteOrder: spec.ByteOrder,
	}, ebpf.CollectionOptions{MapReplacements: map[string]*ebpf.Map{"packets": coll.Maps["packets"]}})
	if err != nil {
		return fmt.Errorf("loading the tracer: %w", err)
	}
	o.closers = append(o.closers, closer(tracing.Close))
	return o.attach(coll, tracing)
}

func (o *Objects) attach(coll, tracing *ebpf.Collection) error {
	lo, err := net.InterfaceByName("lo")
	if err != nil {
		return err
	}
	add := func(l link.Link, err error) error {
		if err == nil {
			o.closers = append(o.closers, l)
		}
		return err
	}
	if err := add(link.AttachRawTracepoint(link.RawTracepointOptions{Name: "sys_enter", Program: coll.Programs["count_syscalls"]})); err != nil {
		return fmt.Errorf("attaching count_syscalls: %w", err)
	}
	if err := add(link.AttachXDP(link.XDPOptions{Program: coll.Programs["count_lo"], Interface: lo.Index, Flags: link.XDPGenericMode})); err != nil {
		return fmt.Errorf("attaching count_lo: %w", err)
	}
	if err := add(link.AttachTracing(link.TracingOptions{Program: tracing.Programs["see_count_lo"]})); err != nil {
		return fmt.Errorf("attaching see_count_lo: %w", err)
	}
	for range 3 {
		if _, err := coll.Programs["classify"].Run(&ebpf.RunOptions{Data: make([]byte, 64)}); err != nil {
			return fmt.Errorf("running classify: %w", err)
		}
	}
	return nil
}

type closer func()

func (c closer) Close() error {
	c()
	return nil
}
