package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/cilium/ebpf/btf"
)

// quiet are prefixes of functions that nothing calls in a guest at rest.
var quiet = []string{"tcp_", "udp_", "inet_", "fib_", "ip_", "ipv4_", "neigh_", "xfrm_", "nf_", "raw_", "ping_", "igmp_"}

// functions prints the names of so many functions.
func functions(args []string) error {
	if len(args) != 1 {
		return errors.New(usage)
	}
	n, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	names, err := traceable(n)
	if err == nil {
		fmt.Println(strings.Join(names, "\n"))
	}
	return err
}

// withFunctions puts functions in the place of "{N}", which is as many words,
// and of "{N PREFIX}" within a word, which is a list with commas.
func withFunctions(words []string) ([]string, error) {
	var out []string
	for _, w := range words {
		before, rest, open := strings.Cut(w, "{")
		inside, after, closed := strings.Cut(rest, "}")
		number, prefix, _ := strings.Cut(inside, " ")
		n, err := strconv.Atoi(number)
		if !open || !closed || err != nil { // a script has braces of its own
			out = append(out, w)
			continue
		}
		names, err := traceable(n)
		if err != nil {
			return nil, err
		}
		if w == "{"+number+"}" {
			out = append(out, names...)
		} else {
			out = append(out, before+prefix+strings.Join(names, ","+prefix)+after)
		}
	}
	return out, nil
}

// traceable returns the names of so many kernel functions to be traced at entry
// and exit: ftrace knows each by one name, and BTF its few plain arguments.
func traceable(n int) ([]string, error) {
	spec, err := btf.LoadKernelSpec()
	if err != nil {
		return nil, err
	}
	f, err := os.Open("/sys/kernel/tracing/available_filter_functions")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	times := map[string]int{}
	for s := bufio.NewScanner(f); s.Scan(); {
		// A module's function has its module behind it.
		if name, _, module := strings.Cut(s.Text(), " "); !module {
			times[name]++
		}
	}
	var names []string
	for name, n := range times {
		isQuiet := slices.ContainsFunc(quiet, func(p string) bool { return strings.HasPrefix(name, p) })
		if n == 1 && isQuiet && !strings.Contains(name, ".") && plain(spec, name) {
			names = append(names, name)
		}
	}
	if len(names) < n {
		return nil, fmt.Errorf("this kernel has %d such functions, not %d", len(names), n)
	}
	slices.Sort(names)
	return names[:n], nil
}

// plain reports whether a function has up to six arguments in one register
// each.
func plain(spec *btf.Spec, name string) bool {
	all, err := spec.AnyTypesByName(name)
	if err != nil || len(all) != 1 {
		return false
	}
	f, ok := all[0].(*btf.Func)
	if !ok {
		return false
	}
	proto, ok := f.Type.(*btf.FuncProto)
	if !ok || len(proto.Params) > 6 {
		return false
	}
	scalar := func(t btf.Type) bool {
		switch btf.UnderlyingType(t).(type) {
		case *btf.Int, *btf.Pointer, *btf.Enum:
			return true
		}
		return false
	}
	for _, p := range proto.Params {
		if !scalar(p.Type) {
			return false // also the end of a list of any length
		}
	}
	_, nothing := btf.UnderlyingType(proto.Return).(*btf.Void)
	return nothing || scalar(proto.Return)
}
