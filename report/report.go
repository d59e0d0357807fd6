// Package report answers what crashed and why, from a dump's memory.
package report

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ksleuth/ksleuth/culprit"
	"github.com/ksleuth/ksleuth/finding"
	"github.com/ksleuth/ksleuth/kernel"
	"github.com/ksleuth/ksleuth/knownbug"
	"github.com/ksleuth/ksleuth/kobj"
	"github.com/ksleuth/ksleuth/mem"
	"github.com/ksleuth/ksleuth/stack"
	"github.com/ksleuth/ksleuth/vmcore"
)

// A Report is everything the first look at a crash needs.
type Report struct {
	System      System           `json:"system"`
	Panic       string           `json:"panic"`              // what panic() was called with; "" if the kernel did not panic
	Headline    string           `json:"headline,omitempty"` // the log line that announces the oops
	Task        *Task            `json:"task,omitempty"`
	RIP         *Place           `json:"rip,omitempty"`
	Fault       *Fault           `json:"fault,omitempty"`
	Registers   []Register       `json:"registers,omitempty"`
	Code        []Insn           `json:"code,omitempty"` // around RIP
	Frames      []stack.Frame    `json:"frames"`
	StackEnd    string           `json:"stack_end,omitempty"` // why the stack stops before its outermost frame
	Cause       *finding.Finding `json:"cause,omitempty"`
	Missing     string           `json:"missing,omitempty"`   // what a proven cause would need
	Overwrite   *culprit.Culprit `json:"overwrite,omitempty"` // the store that did it, where running the code again has shown it
	Origin      *culprit.Origin  `json:"origin,omitempty"`    // where the address of the fault came from, where running the code again has shown it
	Known       *knownbug.Bug    `json:"known,omitempty"`     // the bug of the kernel that it is
	Fingerprint string           `json:"fingerprint,omitempty"`
	Log         []kobj.LogRecord `json:"log"`    // the last lines up to the headline, or up to the end
	Unread      []string         `json:"unread"` // what could not be read
}

// System is the kernel and the dump.
type System struct {
	Release  string        `json:"release"`
	Version  string        `json:"version,omitempty"`
	Hostname string        `json:"hostname,omitempty"`
	CPUs     int           `json:"cpus"`
	Uptime   time.Duration `json:"uptime_ns"`
	Taint    string        `json:"taint"` // the kernel's letters
	TaintWhy []string      `json:"taint_reasons"`
	Modules  []string      `json:"modules"`
	Dump     string        `json:"dump"` // its format in words
	Complete bool          `json:"complete"`
}

// Task is the task that crashed.
type Task struct {
	PID     int    `json:"pid"`
	Comm    string `json:"comm"`
	CPU     int    `json:"cpu"`
	Syscall string `json:"syscall,omitempty"` // the call it was in: bpf(BPF_PROG_TEST_RUN)
}

// A Place is an address with its name.
type Place struct {
	Addr   mem.Addr `json:"addr"`
	Symbol string   `json:"symbol"`
	Offset mem.Addr `json:"offset"`
}

// A Register is a register with what it points at.
type Register struct {
	Name  string   `json:"name"`
	Value mem.Addr `json:"value"`
	Note  string   `json:"note,omitempty"` // symbol, stack, NULL and the like
}

// An Insn is one line of disassembly.
type Insn struct {
	Addr  mem.Addr `json:"addr"`
	Bytes string   `json:"bytes"`
	Text  string   `json:"text"`
	Here  bool     `json:"here,omitempty"` // the instruction at RIP
	Note  string   `json:"note,omitempty"` // operand values
}

// logTail is how many records of the log a report shows at most.
const logTail = 12

// builder collects a report and what could not be read for it.
type builder struct {
	k   *kernel.Kernel
	r   *Report
	log []kobj.LogRecord
}

// Build examines the kernel of a dump. It fails only where nothing can be said;
// what could not be read is listed in the report. Code that led to a fault is
// run again offline; ctx ends that.
func Build(ctx context.Context, k *kernel.Kernel, core *vmcore.Core) *Report {
	b := &builder{k: k, r: &Report{Frames: []stack.Frame{}, Log: []kobj.LogRecord{}, Unread: []string{}}}
	b.system(core)
	b.readLog()
	if c, ok := b.findCrash(); ok {
		b.describe(ctx, c)
	}
	return b.r
}

// unread notes an error, once.
func (b *builder) unread(what string, err error) {
	if err == nil {
		return
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok && errors.Join(joined.Unwrap()...).Error() == err.Error() {
		for _, e := range joined.Unwrap() {
			b.unread(what, e)
		}
		return
	}
	line := strings.ReplaceAll(fmt.Sprintf("%s: %v", what, err), "\n", "; ")
	if !slices.Contains(b.r.Unread, line) {
		b.r.Unread = append(b.r.Unread, line)
	}
}

func (b *builder) system(core *vmcore.Core) {
	k, s := b.k, &b.r.System
	s.Release = k.Release()
	s.Dump = core.Format()
	warnings := core.Warnings()
	s.Complete = len(warnings) == 0
	for _, w := range warnings {
		b.unread("dump", w)
	}
	s.Modules = []string{}
	mods, err := k.Modules()
	b.unread("modules", err)
	for _, m := range mods {
		s.Modules = append(s.Modules, m.Name)
	}
	uts, err := kobj.Uname(k)
	b.unread("uname", err)
	s.Version, s.Hostname = uts.Version, uts.Nodename
	cpus, err := k.PresentCPUs()
	b.unread("CPUs", err)
	s.CPUs = len(cpus)
	s.Taint, s.TaintWhy, err = kobj.Taint(k)
	b.unread("taint", err)
	s.Uptime, err = kobj.Uptime(k)
	b.unread("uptime", err)
}

func (b *builder) readLog() {
	log, gaps, err := kobj.Log(b.k)
	b.unread("log", err)
	for _, g := range gaps {
		b.unread("log", g.Err)
	}
	b.log = log
	if n := len(log); n > 0 {
		b.r.System.Uptime = max(b.r.System.Uptime, log[n-1].Time)
		b.r.Log = log
	}
	const panicLine = "Kernel panic - not syncing: "
	for i := len(log) - 1; i >= 0; i-- {
		if text, ok := strings.CutPrefix(log[i].Text, panicLine); ok {
			b.r.Panic = text
			break
		}
	}
	// What follows the headline is the kernel's own listing of registers and
	// stack; what stands before may tell how it came to it.
	for i, rec := range log {
		if isHeadline(rec.Text) {
			b.r.Headline = strings.TrimSpace(rec.Text)
			b.r.Log = log[:i+1]
			break
		}
		if strings.HasPrefix(rec.Text, panicLine) {
			b.r.Log = log[:i+1]
			break
		}
	}
	b.r.Log = b.r.Log[max(0, len(b.r.Log)-logTail):]
}

// headlines begin the log lines that announce an oops (arch/x86/mm/fault.c,
// arch/x86/kernel/traps.c, kernel/watchdog.c, kernel/hung_task.c).
var headlines = []string{
	"BUG: ", "kernel BUG at ", "general protection fault", "Oops: ", "divide error: ", "invalid opcode: ",
	"stack segment: ", "double fault: ", "int3: ", "watchdog: BUG: soft lockup", "Watchdog detected hard LOCKUP",
	"Unable to handle kernel", "traps: PANIC: double fault", "kernel tried to execute",
}

func isHeadline(text string) bool {
	if strings.HasPrefix(text, "INFO: task ") && strings.Contains(text, " blocked for more than ") {
		return true
	}
	return slices.ContainsFunc(headlines, func(h string) bool { return strings.HasPrefix(text, h) })
}
