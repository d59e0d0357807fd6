package main

import (
	_ "embed"
	"errors"
	"fmt"
)

//go:embed cased.bpf.o
var caseDObject []byte

// twiceStop is after how many rounds entry2 stops.
const twiceStop = 100

// setCaseD sets case D. It runs without a device:
//
//	run N      entry N times
//	twice N    entry2 N times, each with up to 100 rounds
//
// Counters are count0 and count1 of all runs, and count2 of the last of twice.
func setCaseD(args []string) (*scene, error) {
	if len(args) > 0 {
		return nil, fmt.Errorf("cased does not know %q", args)
	}
	s := newScene()
	if _, err := s.load(caseDObject); err != nil {
		return nil, err
	}
	if err := s.vars["stop"].Set(uint64(twiceStop)); err != nil {
		return nil, err
	}
	s.tellRun("entry")
	s.tellRun2()
	names := []string{"count0", "count1", "count2"}
	s.commands["counters"] = func([]string) (any, error) {
		out := map[string]uint64{}
		for _, name := range names {
			var n uint64
			if err := s.vars[name].Get(&n); err != nil {
				return nil, err
			}
			out[name] = n
		}
		return out, nil
	}
	s.commands["reset"] = func([]string) (any, error) {
		var errs []error
		for _, name := range names {
			errs = append(errs, s.vars[name].Set(uint64(0)))
		}
		return struct{}{}, errors.Join(errs...)
	}
	return s, nil
}

// tellRun2 adds the command twice.
func (s *scene) tellRun2() {
	s.tellRun("entry2")
	once := s.commands["run"]
	s.tellRun("entry")
	s.commands["twice"] = func(args []string) (any, error) {
		n, err := number(args, 0, 1)
		if err != nil {
			return nil, err
		}
		for range n {
			if err := s.vars["count2"].Set(uint64(0)); err != nil {
				return nil, err
			}
			if _, err := once(nil); err != nil {
				return nil, err
			}
		}
		return map[string]int{"runs": n}, nil
	}
}
