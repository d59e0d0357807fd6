package kobj

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/ksleuth/ksleuth/kernel"
)

// A LogRecord is one message of the kernel's log buffer.
type LogRecord struct {
	Seq      uint64        `json:"seq"`
	Time     time.Duration `json:"time_ns"` // since boot
	Level    int           `json:"level"`   // 0 emergency to 7 debug
	Facility int           `json:"facility"`
	// Caller is the pid of the task that wrote the message, or, where
	// CallerIsCPU is set, the CPU that wrote it outside of a task. Kernels
	// without CONFIG_PRINTK_CALLER record the pid alone, and only since 5.10.
	Caller      uint32 `json:"caller"`
	CallerIsCPU bool   `json:"caller_is_cpu,omitempty"`
	Text        string `json:"text"`
	Device      string `json:"device,omitempty"` // "subsystem/device", where the driver core gave one
}

// callerIsCPU marks a caller id that holds a CPU number, kernel/printk/printk.c
// (15ff2069cb7f, 5.1).
const callerIsCPU = 0x8000_0000

// A LogGap says which part of a log could not be read, and why.
type LogGap struct {
	Seq uint64 // sequence number, or record id where the number was not readable
	Err error
}

// Log returns the messages in the kernel's log buffer, oldest first, and the
// gaps in it. Where VMCOREINFO is there it needs no types: the log is what one can
// still have from a dump in which little else is readable.
func Log(k *kernel.Kernel) ([]LogRecord, []LogGap, error) {
	if hasSymbol(k, "prb") {
		return ringLog(k)
	}
	if hasSymbol(k, "log_first_idx") {
		return recordLog(k)
	}
	return nil, nil, errors.New("reading the kernel log: the kernel has neither prb (5.10 and later) nor log_first_idx (3.5 to 5.9)")
}

func hasSymbol(k *kernel.Kernel, name string) bool {
	_, noted := k.Info().Symbol(name)
	_, err := k.Addr(name)
	return noted || err == nil
}

// layout collects addresses and offsets from VMCOREINFO, or, if the kernel left
// none, from its symbols and types. It remembers the first that is missing.
type layout struct {
	k   *kernel.Kernel
	err error
}

func (l *layout) get(kind, name string, value uint64, err error) uint64 {
	if err != nil && l.err == nil {
		l.err = fmt.Errorf("no %s(%s) in VMCOREINFO, and %w", kind, name, err)
	}
	return value
}

// small refuses what no struct can have, so that sums do not overflow.
func (l *layout) small(kind, name string, v int64) uint64 {
	if v < 0 || v > 1<<20 {
		return l.get(kind, name, 0, fmt.Errorf("%d cannot be it", v))
	}
	return uint64(v)
}

func (l *layout) symbol(name string) uint64 {
	if v, ok := l.k.Info().Symbol(name); ok {
		return v
	}
	v, err := l.k.Addr(name)
	return l.get("SYMBOL", name, v, err)
}

func (l *layout) offset(name string) uint64 {
	if v, ok := l.k.Info().Offset(name); ok {
		return l.small("OFFSET", name, v)
	}
	typ, member, _ := strings.Cut(name, ".")
	v, err := l.k.Offset(typ, member)
	return l.get("OFFSET", name, v, err)
}

func (l *layout) size(name string) uint64 {
	if v, ok := l.k.Info().Size(name); ok {
		return l.small("SIZE", name, v)
	}
	v := l.k.Sizeof(name)
	var err error
	if v == 0 {
		err = fmt.Errorf("no type struct %s", name)
	}
	return l.get("SIZE", name, v, err)
}

// gapList makes one gap of records that are missing one after the other: those
// on a page that is not in the dump.
type gapList struct {
	gaps []LogGap
	more uint64 // records behind the first of the last gap
}

func (g *gapList) add(id uint64, err error) {
	if n := len(g.gaps); n > 0 && id == g.gaps[n-1].Seq+g.more+1 {
		g.more++
		return
	}
	g.gaps, g.more = append(g.list(), LogGap{id, err}), 0
}

func (g *gapList) list() []LogGap {
	if n := len(g.gaps); n > 0 && g.more > 0 {
		last := &g.gaps[n-1]
		last.Err = fmt.Errorf("%w; and the next %d records", last.Err, g.more)
		g.more = 0
	}
	return g.gaps
}

func (rec *LogRecord) setCaller(id uint32) {
	rec.Caller, rec.CallerIsCPU = id&^callerIsCPU, id&callerIsCPU != 0
}

// Levels are the names of the levels, by number (include/linux/kern_levels.h,
// as dmesg(1) calls them).
var Levels = [...]string{"emerg", "alert", "crit", "err", "warn", "notice", "info", "debug"}

// ParseLevel returns the number of a level given by its name or number.
func ParseLevel(s string) (int, bool) {
	for i, name := range Levels {
		if s == name || s == strconv.Itoa(i) {
			return i, true
		}
	}
	return 0, false
}

// CallerID returns who wrote the message as the kernel prints it: T and a pid,
// or C and a CPU.
func (rec *LogRecord) CallerID() string {
	if rec.CallerIsCPU {
		return fmt.Sprintf("C%d", rec.Caller)
	}
	return fmt.Sprintf("T%d", rec.Caller)
}

// AppendSyslog appends rec in the form of syslog(2), which dmesg --raw prints:
// a line "<PRI>[SECONDS.MICROSECONDS] TEXT" for each line of the message.
func (rec *LogRecord) AppendSyslog(dst []byte) []byte {
	sec, usec := rec.Time/time.Second, rec.Time%time.Second/time.Microsecond
	for line := range strings.SplitSeq(rec.Text, "\n") {
		dst = fmt.Appendf(dst, "<%d>[%5d.%06d] %s\n", rec.Facility<<3|rec.Level, sec, usec, line)
	}
	return dst
}
