package main

import (
	"bufio"
	_ "embed"
	"errors"
	"fmt"
	"os"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

//go:embed dispatcher.bpf.o
var dispatcherObject []byte

// dispatcherNames are the rows of the counters, and the bits of a packet's path.
var dispatcherNames = []string{
	"dispatcher",
	"stub0", "stub1", "stub2", "stub3", "stub4", "stub5", "stub6", "stub7", "stub8", "stub9",
	"ext0", "ext3", "ext3_sub", "ext6", "ext8",
	"tail2", "tail4", "tail4_jump", "tail4b", "plain5", "tail6",
	"tail8", "tail8_plain", "tail8_hook", "tail8_jump", "tail8b", "tail8b_jump", "tail8c",
}

// A record is struct record of dispatcher.bpf.c.
type record struct {
	Path    uint64
	Verdict uint32
	Times   uint32
}

// maxPackets is PACKETS there.
const maxPackets = 1 << 16

// setDispatcher sets a dispatcher of ten modules on the device tsdb. It can
// also
//
//	run N           run it over the packets 0 to N-1 without a device
//	records FILE    write a line for each packet: sequence number, how often it came, verdict, names of who was entered
func setDispatcher(args []string) (*scene, error) {
	if len(args) > 0 {
		return nil, fmt.Errorf("dispatcher does not know %q", args)
	}
	s := newScene()
	o, err := s.load(dispatcherObject, "ext0", "ext3", "ext6", "ext6_plain", "tail6", "tail6_ext", "ext8")
	if err != nil {
		return nil, err
	}
	for _, a := range []attached{{"ext0", "dispatcher", "stub0"}, {"ext3", "dispatcher", "stub3"}} {
		l, err := s.attach(o, a)
		if err != nil {
			return nil, fmt.Errorf("%s in place of %s: %w", a.name, a.function, err)
		}
		s.links = append(s.links, l)
	}
	if err := s.replaceSix(o); err != nil {
		return nil, err
	}
	s.try("ext8, which replaces a function of a program in a program array", func() error {
		l, err := s.attach(o, attached{"ext8", "tail8", "tail8_hook"})
		if err == nil {
			s.links = append(s.links, l)
		}
		return err
	})
	if err := s.onPair("tsd", "dispatcher"); err != nil {
		return nil, err
	}
	s.tellCounts(dispatcherNames)
	s.tellSend(0)
	s.tellRun("dispatcher")
	s.commands["records"] = s.records
	resetCounts := s.commands["reset"]
	s.commands["reset"] = func([]string) (any, error) {
		for seq := range uint32(maxPackets) {
			if err := s.maps["records"].Update(seq, record{}, ebpf.UpdateExist); err != nil {
				return nil, err
			}
		}
		return resetCounts(nil)
	}
	return s, nil
}

// replaceSix replaces stub6 by a program that makes a tail call. What it calls
// is an XDP program; before 6.2 (1c123c567fb1) it must be one that replaces
// too; where neither works, the replacement decides by itself.
func (s *scene) replaceSix(o *object) error {
	stub6 := func(name string) attached { return attached{name, "dispatcher", "stub6"} }
	withCallee := func(callee func() (*ebpf.Program, error)) func() error {
		return func() error {
			tail6, err := callee()
			if err != nil {
				return err
			}
			ext6, err := s.prepare(o, stub6("ext6"))
			if err != nil {
				return err
			}
			l, err := linkFilled(s.maps["jmp_ext"], tail6, ext6)
			if err != nil {
				return errors.Join(err, ext6.Close())
			}
			s.links = append(s.links, l)
			s.progs["ext6"], s.progs["tail6"] = ext6, tail6
			return nil
		}
	}
	if s.try("ext6, which tail-calls an XDP program", withCallee(func() (*ebpf.Program, error) {
		// 4540aed51b12: all that use an array are loaded for the same
		// attachment, and ext6 is for none.
		o.later["tail6"].AttachType = ebpf.AttachNone
		return s.prepare(o, attached{name: "tail6"})
	})) {
		return nil
	}
	// The array has taken a type.
	fresh, err := ebpf.NewMap(o.spec.Maps["jmp_ext"])
	if err != nil {
		return err
	}
	s.maps["jmp_ext"] = fresh
	if s.try("ext6, which tail-calls a program that replaces", withCallee(func() (*ebpf.Program, error) { return s.prepare(o, stub6("tail6_ext")) })) {
		return nil
	}
	l, err := s.attach(o, stub6("ext6_plain"))
	if err != nil {
		return fmt.Errorf("ext6_plain in place of stub6: %w", err)
	}
	s.links = append(s.links, l)
	return nil
}

// linkFilled links a program after the slot of its array is filled.
func linkFilled(slots *ebpf.Map, callee, caller *ebpf.Program) (link.Link, error) {
	if err := slots.Update(uint32(0), uint32(callee.FD()), ebpf.UpdateAny); err != nil {
		return nil, fmt.Errorf("filling the program array: %w", err)
	}
	return linkTo(caller)
}

// records writes what happened to each packet.
func (s *scene) records(args []string) (any, error) {
	if len(args) != 1 {
		return nil, errors.New("records needs a file")
	}
	f, err := os.Create(args[0])
	if err != nil {
		return nil, err
	}
	defer f.Close()
	w := bufio.NewWriter(f)
	packets := 0
	for seq := range uint32(maxPackets) {
		var r record
		if err := s.maps["records"].Lookup(seq, &r); err != nil {
			return nil, err
		}
		if r.Times == 0 {
			continue
		}
		packets++
		fmt.Fprintf(w, "%d %d %d", seq, r.Times, r.Verdict)
		for i, name := range dispatcherNames {
			if r.Path>>i&1 == 1 {
				fmt.Fprintf(w, " %s", name)
			}
		}
		fmt.Fprintln(w)
	}
	return map[string]int{"packets": packets}, w.Flush()
}
