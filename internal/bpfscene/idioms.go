package main

import (
	"bytes"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// tracers are the idioms' programs that attach to others, in the order of
// their loading; to is a program and its function.
var tracers = []struct{ name, prog, function string }{
	{"fw_mod", "xdp_main", "module1"},
	{"module3_entry", "xdp_main", "module3"},
	{"module3_exit", "xdp_main", "module3"},
	{"fw_mod_entry", "fw_mod", "fw_mod"},
	{"xdp_main_exit", "xdp_main", "xdp_main"},
}

// makeIdioms loads the tail calls and extensions, and attaches these to each
// other. None of it is on a packet's path.
func (z *zoo) makeIdioms() error {
	spec, err := ebpf.LoadCollectionSpecFromReader(bytes.NewReader(idiomsObject))
	if err != nil {
		return fmt.Errorf("reading the object idioms: %w", err)
	}
	later := map[string]*ebpf.ProgramSpec{}
	for _, t := range tracers {
		later[t.name] = spec.Programs[t.name]
		delete(spec.Programs, t.name)
	}
	coll, err := ebpf.NewCollection(spec)
	if err != nil {
		return fmt.Errorf("loading the object idioms: %w", err)
	}
	for n, p := range coll.Programs {
		z.progs[n] = p
		z.made = append(z.made, "made: program "+n)
	}
	for n, m := range coll.Maps {
		z.maps["idioms"+n] = m
		z.made = append(z.made, "made: map "+n)
	}
	for _, t := range tracers {
		z.try(fmt.Sprintf("link %s to %s of %s", t.name, t.function, t.prog), func() error {
			target, err := z.prog(t.prog)
			if err != nil {
				return err
			}
			return z.attachToProgram(later[t.name], target, t.function)
		})
	}
	return nil
}

// attachToProgram loads a program for a function of another and links it.
func (z *zoo) attachToProgram(spec *ebpf.ProgramSpec, target *ebpf.Program, function string) error {
	spec.AttachTarget, spec.AttachTo = target, function
	p, err := ebpf.NewProgram(spec)
	if err != nil {
		return err
	}
	z.progs[spec.Name] = p
	var l link.Link
	if spec.Type == ebpf.Extension {
		l, err = link.AttachFreplace(nil, "", p)
	} else {
		l, err = link.AttachTracing(link.TracingOptions{Program: p})
	}
	return z.keepLink(spec.Name, l, err)
}

// trampolines are kernel functions with a number of tracers: so many, or as
// many as the kernel allows if 0. Nothing calls the functions but BPF's own
// self test and ioprio_get(2).
var trampolines = []struct {
	function string
	count    int
	attach   []ebpf.AttachType // in turn
}{
	{"bpf_fentry_test1", 1, []ebpf.AttachType{ebpf.AttachTraceFEntry}},
	{"bpf_fentry_test2", 2, []ebpf.AttachType{ebpf.AttachTraceFEntry, ebpf.AttachTraceFExit}},
	{"bpf_fentry_test3", 0, []ebpf.AttachType{ebpf.AttachTraceFEntry}},
	{"security_task_getscheduler", 0, []ebpf.AttachType{ebpf.AttachTraceFEntry, ebpf.AttachTraceFExit, ebpf.AttachModifyReturn}},
}

// makeTrampolines fills trampolines.
func (z *zoo) makeTrampolines() error {
	const beyond = 64 // more than any kernel allows
	for _, t := range trampolines {
		want := t.count
		if want == 0 {
			want = beyond
		}
		n := 0
		var stopped error
		for ; n < want && stopped == nil; n++ {
			prog := trivial{name: fmt.Sprintf("tr%d_%s", n, t.function[len(t.function)-5:]), typ: ebpf.Tracing, attach: t.attach[n%len(t.attach)], to: t.function}
			stopped = z.addTracer(prog)
		}
		if stopped != nil {
			n--
		}
		what := fmt.Sprintf("trampoline of %s with %d programs", t.function, n)
		if n == 0 || t.count != 0 && stopped != nil {
			z.leftOut = append(z.leftOut, fmt.Sprintf("left out: %s: %v", what, stopped))
			continue
		}
		z.made = append(z.made, fmt.Sprintf("made: %s (then: %v)", what, stopped))
	}
	return nil
}

func (z *zoo) addTracer(t trivial) error {
	p, err := t.load()
	if err != nil {
		return err
	}
	l, err := link.AttachTracing(link.TracingOptions{Program: p})
	if err != nil {
		p.Close()
		return err
	}
	z.progs[t.name+t.to] = p
	return z.keepLink(t.name+t.to, l, nil)
}
