package main

import (
	_ "embed"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

//go:embed casea.bpf.o
var caseAObject []byte

// caseANames are the rows of the counters.
var caseANames = []string{"xdp_main", "module1", "module2", "module3", "fw_mod", "xdp_mod"}

// caseATracers are what "trace HOW" attaches to module3.
var caseATracers = map[string][]string{
	"entry": {"module3_entry"},
	"exit":  {"module3_exit"},
	"both":  {"module3_entry", "module3_exit"},
	"none":  {},
}

// setCaseA sets case A on the device tsab. It can also
//
//	run N        run the program N times over a packet, and tell the last value
//	trace HOW    attach tracers of its own to module3: entry, exit, both or none
func setCaseA(args []string) (*scene, error) {
	s := newScene()
	if len(args) == 1 && args[0] == "--percpu" {
		if err := s.fillPerCPU(); err != nil {
			return nil, err
		}
	} else if len(args) > 0 {
		return nil, fmt.Errorf("casea does not know %q", args)
	}
	o, err := s.load(caseAObject, "fw_mod", "module3_entry", "module3_exit")
	if err != nil {
		return nil, err
	}
	fw, err := s.attach(o, attached{"fw_mod", "xdp_main", "module1"})
	if err != nil {
		return nil, fmt.Errorf("fw_mod in place of module1: %w", err)
	}
	s.links = append(s.links, fw)
	if err := s.onPair("tsa", "xdp_main"); err != nil {
		return nil, err
	}
	s.tellCounts(caseANames)
	s.tellSend(0)
	s.tellRun("xdp_main")
	var tracers []link.Link
	s.commands["trace"] = func(args []string) (any, error) {
		if len(args) != 1 || caseATracers[args[0]] == nil {
			return nil, fmt.Errorf("trace entry, exit, both or none, not %q", args)
		}
		for _, l := range tracers {
			if err := l.Close(); err != nil {
				return nil, err
			}
		}
		tracers = nil
		for _, name := range caseATracers[args[0]] {
			l, err := s.attach(o, attached{name, "xdp_main", "module3"})
			if err != nil {
				return nil, fmt.Errorf("attaching %s: %w", name, err)
			}
			tracers = append(tracers, l)
		}
		return struct{}{}, nil
	}
	return s, nil
}

// fillPerCPU uses up the first chunks of per-CPU memory, so that what is taken
// next comes from one that was added.
func (s *scene) fillPerCPU() error {
	for i := range 4040 {
		spec := ebpf.MapSpec{Name: "filler", Type: ebpf.PerCPUArray, KeySize: 4, ValueSize: 8, MaxEntries: 1}
		if i < 40 {
			spec.ValueSize, spec.MaxEntries = 4096, 8
		}
		m, err := ebpf.NewMap(&spec)
		if err != nil {
			return fmt.Errorf("per-CPU map %d: %w", i, err)
		}
		s.kept = append(s.kept, m)
	}
	return nil
}

// onPair makes a pair of devices and attaches the program to the receiver, and
// one that passes all to the sender, without which nothing is sent back.
func (s *scene) onPair(prefix, prog string) error {
	var err error
	if s.pair, err = makePair(prefix); err != nil {
		return err
	}
	for device, name := range map[string]string{s.pair.receiver: prog, s.pair.sender: "sender"} {
		if err := s.attachXDP(device, name); err != nil {
			return fmt.Errorf("attaching %s to %s: %w", name, device, err)
		}
	}
	return nil
}

// tellRun adds a command that runs a program over packets, without a device.
func (s *scene) tellRun(prog string) {
	s.commands["run"] = func(args []string) (any, error) {
		n, err := number(args, 0, 1)
		if err != nil {
			return nil, err
		}
		var value uint32
		for i := range n {
			if value, err = s.progs[prog].Run(&ebpf.RunOptions{Data: frame(i)}); err != nil {
				return nil, err
			}
		}
		return map[string]any{"runs": n, "returned": int32(value)}, nil
	}
}

// tellSend adds a command that sends packets; the counter's row says how many
// were seen.
func (s *scene) tellSend(row int) {
	s.commands["send"] = func(args []string) (any, error) {
		n, err := number(args, 0, 1)
		if err != nil {
			return nil, err
		}
		rate, err := number(args, 1, 0)
		if err != nil {
			return nil, err
		}
		return s.pair.send(n, rate, frame, func() (uint64, error) {
			c, err := s.countOf(row)
			return c.Entered, err
		})
	}
}
