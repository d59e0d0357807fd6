package kobj

import (
	"strings"
	"time"

	"github.com/ksleuth/ksleuth/kernel"
	"github.com/ksleuth/ksleuth/mem"
)

// Utsname is what uname -a prints.
type Utsname struct {
	Sysname, Nodename, Release, Version, Machine string
}

// Uname returns the names of the system's first UTS namespace.
func Uname(k *kernel.Kernel) (Utsname, error) {
	addr, err := k.Addr("init_uts_ns")
	if err != nil {
		return Utsname{}, err
	}
	o := k.Object("uts_namespace", addr).Field("name")
	u := Utsname{o.Str("sysname"), o.Str("nodename"), o.Str("release"), o.Str("version"), o.Str("machine")}
	return u, o.Err()
}

// Uptime returns the time since boot by the schedulers' clocks: the latest of
// all CPUs, in nanoseconds. A CPU that idles without ticks has an old one.
func Uptime(k *kernel.Kernel) (time.Duration, error) {
	cpus, err := k.PresentCPUs()
	if err != nil {
		return 0, err
	}
	var latest uint64
	for _, cpu := range cpus {
		rq := k.RunQueue(cpu)
		latest = max(latest, rq.Uint("clock"))
		if err := rq.Err(); err != nil {
			return time.Duration(latest), err
		}
	}
	return time.Duration(latest), nil
}

// taints are the bits of tainted_mask: the letter the kernel prints and what
// it means (Documentation/admin-guide/tainted-kernels.rst).
var taints = []struct{ letter, why string }{
	{"P", "proprietary module was loaded"},
	{"F", "module was force loaded"},
	{"S", "kernel running on an out of specification system"},
	{"R", "module was force unloaded"},
	{"M", "processor reported a machine check"},
	{"B", "bad page referenced"},
	{"U", "taint requested by user space"},
	{"D", "kernel died recently: there was an oops or BUG"},
	{"A", "ACPI table overridden by user"},
	{"W", "kernel issued a warning"},
	{"C", "staging driver was loaded"},
	{"I", "workaround for a bug in platform firmware applied"},
	{"O", "externally built module was loaded"},
	{"E", "unsigned module was loaded"},
	{"L", "soft lockup occurred"},
	{"K", "kernel has been live patched"},
	{"X", "auxiliary taint, defined by distributions"},
	{"T", "kernel was built with the struct randomization plugin"},
	{"N", "an in-kernel test has been run"},
	{"J", "fwctl's mutating debug interface was used"},
}

// Taint returns the letters of tainted_mask and what they mean.
func Taint(k *kernel.Kernel) (letters string, why []string, err error) {
	why = []string{}
	addr, err := k.Addr("tainted_mask")
	if err != nil {
		return "", why, err
	}
	mask, err := mem.U64(k.Mem(), addr)
	if err != nil {
		return "", why, err
	}
	for bit, t := range taints {
		if mask>>bit&1 != 0 {
			letters += t.letter
			why = append(why, t.why)
		}
	}
	return letters, why, nil
}

// TaintBits returns the flags that letters stand for: the opposite of [Taint].
// Letters that stand for none are passed over.
func TaintBits(letters string) uint64 {
	var mask uint64
	for bit, t := range taints {
		if strings.Contains(letters, t.letter) {
			mask |= 1 << bit
		}
	}
	return mask
}
