package main

import (
	"fmt"
	"strconv"

	"github.com/cilium/ebpf"
)

// values is VALUES of tracescene.h.
const values = 256

// A count is struct count of tracescene.h.
type count struct {
	Entered  uint64
	Returned [values]uint64
}

// A tally is a count to be printed: entered, and how often each value that was
// returned.
type tally struct {
	Entered  uint64            `json:"entered"`
	Returned map[string]uint64 `json:"returned"`
}

// countOf adds up one row of the map counts.
func (s *scene) countOf(who int) (count, error) {
	var all []count
	if err := s.maps["counts"].Lookup(uint32(who), &all); err != nil {
		return count{}, fmt.Errorf("reading counter %d: %w", who, err)
	}
	var sum count
	for _, c := range all {
		sum.Entered += c.Entered
		for v, n := range c.Returned {
			sum.Returned[v] += n
		}
	}
	return sum, nil
}

// tellCounts adds the commands of a scene that counts in the map counts, whose
// rows have the names.
func (s *scene) tellCounts(names []string) {
	s.commands["counters"] = func([]string) (any, error) {
		out := map[string]tally{}
		for i, name := range names {
			c, err := s.countOf(i)
			if err != nil {
				return nil, err
			}
			t := tally{c.Entered, map[string]uint64{}}
			for v, n := range c.Returned {
				if n > 0 {
					t.Returned[strconv.Itoa(v)] = n
				}
			}
			out[name] = t
		}
		return out, nil
	}
	s.commands["reset"] = func([]string) (any, error) {
		cpus, err := ebpf.PossibleCPU()
		if err != nil {
			return nil, err
		}
		zero := make([]count, cpus)
		for i := range names {
			if err := s.maps["counts"].Update(uint32(i), zero, ebpf.UpdateExist); err != nil {
				return nil, err
			}
		}
		return struct{}{}, nil
	}
}

// number is an argument that is a number, or what it is without.
func number(args []string, i, without int) (int, error) {
	if i >= len(args) {
		return without, nil
	}
	return strconv.Atoi(args[i])
}
