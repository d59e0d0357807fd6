package rerun

import (
	"errors"
	"fmt"
	"sync"

	"github.com/ksleuth/ksleuth/bpf"
	"github.com/ksleuth/ksleuth/ctype"
	"github.com/ksleuth/ksleuth/emulate"
	"github.com/ksleuth/ksleuth/kernel"
	"github.com/ksleuth/ksleuth/mem"
	"github.com/ksleuth/ksleuth/typeflow"
)

// Options say where and how long a [Session]'s runs run.
type Options struct {
	CPU    int             // whose per-CPU data they see; -1: that of Task, or CPU 0
	Task   uint64          // struct task_struct that is current; 0: the one that ran on the CPU
	Limits emulate.Options // also the length of the history; see [emulate.Options]
}

// The session's own memory lies in the hole that x86-64 Linux leaves between
// the espfix stacks and the EFI region, with 4-level and with 5-level page
// tables (Documentation/arch/x86/x86_64/mm.rst).
const (
	stackBase   = 0xffffffa0_00000000
	stackSize   = 64 << 10 // like a task's, but with room: aligned to its size, nothing mapped around it
	argBase     = 0xffffffa1_00000000
	maxArgs     = 16 << 20 // bytes of string literals and buffers
	heapBase    = 0xffffffa2_00000000
	maxHeap     = 64 << 20 // bytes that the allocators' stubs hand out in one run
	perCPUBase  = 0xffffffb0_00000000
	maxPerCPU   = 128 << 10
	scratchEnd  = 0xffffffee_00000000
	maxSets     = 1 << 10
	initPreempt = 0x8000_0000 // PREEMPT_ENABLED: no need to reschedule, counts of 0
)

// A Session runs functions of one kernel. Its runs do not influence each other:
// each begins with the target as it is, changed by [Session.Set]. It is not
// safe for concurrent use.
type Session struct {
	k       *kernel.Kernel
	o       Options
	types   *ctype.Types
	base    *emulate.Memory // whose pages all runs share
	view    *emulate.Memory // the target as a run finds it; arguments are evaluated on it
	cpu     int
	task    uint64
	taskErr error // why task is 0, where it could not be read
	sets    []set
	regs    []regSet
	args    uint64      // bytes used at argBase
	made    [][2]uint64 // what is there: addresses and sizes
	forced  bool        // writes go to read-only memory, too
	settled int         // how many of the sets are the session's own

	cpus    []uint64 // per-CPU offsets
	stubs   func() map[uint64]stubAt
	tables  func() []exceptionTable
	bugs    func() []bugTable
	clock   func() uint64
	bpfCode map[uint64]*bpfCode
	areas   func() perCPUArea
	control func() emulate.Regs
	symbols func() map[string]kernel.Symbol

	bugLayout func() (bugLayout, bool)
	kernelEnv func() (*typeflow.KernelEnv, error)
}

// New makes a session. The error is of a kernel whose types or per-CPU areas
// cannot be read; what else is missing is said by the runs that need it.
func New(k *kernel.Kernel, o Options) (*Session, error) {
	types, err := k.Types()
	if err != nil {
		return nil, fmt.Errorf("to run code the kernel's types are needed: %w", err)
	}
	n, err := k.CPUs()
	if err != nil {
		return nil, fmt.Errorf("to run code the per-CPU areas are needed: %w", err)
	}
	s := &Session{k: k, o: o, types: types, base: emulate.NewMemory(k.Mem()), bpfCode: map[uint64]*bpfCode{}}
	for cpu := range n {
		off, err := k.PerCPU(0, cpu)
		if err != nil {
			return nil, err
		}
		s.cpus = append(s.cpus, off)
	}
	s.base.Guard(s.writable)
	s.view = s.base.Fork()
	s.stubs = sync.OnceValue(s.findStubs)
	s.tables = sync.OnceValue(s.findExceptionTables)
	s.bugs = sync.OnceValue(s.findBugTables)
	s.bugLayout = sync.OnceValues(s.findBugLayout)
	s.clock = sync.OnceValue(s.readClock)
	s.areas = sync.OnceValue(s.findPerCPUArea)
	s.control = sync.OnceValue(s.findControl)
	s.symbols = sync.OnceValue(s.findSymbols)
	s.kernelEnv = sync.OnceValues(func() (*typeflow.KernelEnv, error) { return typeflow.ForKernel(s.k) })
	if err := s.place(); err != nil {
		return nil, err
	}
	err = s.settle()
	s.settled = len(s.sets)
	return s, err
}

// A ReadOnlyError says that the kernel maps memory for reading only.
type ReadOnlyError struct{ Addr uint64 }

// Error names the address.
func (e *ReadOnlyError) Error() string { return fmt.Sprintf("virtual address 0x%x: read-only", e.Addr) }

// writable returns an error for memory that the kernel cannot write to. What
// the page tables do not say is believed to be writable.
func (s *Session) writable(addr uint64) error {
	if s.forced {
		return nil
	}
	if m, err := s.k.Walk(addr); err == nil && !m.Writable {
		return &ReadOnlyError{addr}
	}
	return nil
}

// force writes what is asked for to be so, read-only or not.
func (s *Session) force(write func() error) error {
	s.forced = true
	defer func() { s.forced = false }()
	return write()
}

// place finds the CPU and the task.
func (s *Session) place() error {
	s.cpu, s.task = s.o.CPU, s.o.Task
	if s.task != 0 {
		o := s.k.Object("task_struct", s.task)
		// CONFIG_THREAD_INFO_IN_TASK moved it (bcf9033e5449, 5.16).
		cpu := int(o.Uint("thread_info.cpu|cpu"))
		if err := o.Err(); err != nil {
			return fmt.Errorf("task at 0x%x: %w", s.task, err)
		}
		if s.cpu < 0 {
			s.cpu = cpu
		}
	}
	if s.cpu < 0 {
		s.cpu = 0
	}
	if s.cpu >= len(s.cpus) {
		return fmt.Errorf("CPU %d: this kernel has CPUs 0 to %d", s.cpu, len(s.cpus)-1)
	}
	if s.task == 0 { // functions that do not ask for it run all the same
		s.task, s.taskErr = s.k.Current(s.cpu)
	}
	return nil
}

// currentVars are where a CPU has its current task and its preempt count. The
// first that a kernel has is its own.
var currentVars = []struct{ symbol, member, which string }{
	{"pcpu_hot", "current_task", "current"}, // e57ef2ed97c1, 6.2, to 6.14
	{"current_task", "", "current"},
	{"pcpu_hot", "preempt_count", "preempt"},
	{"__preempt_count", "", "preempt"},
}

// settle makes the CPU one that runs the task and that nothing has
// interrupted: with the counts of the moment of the dump, as of an interrupt
// or of the panic, functions would warn, or leave out what they do for a task.
func (s *Session) settle() error {
	want := map[string]struct {
		value uint64
		size  int
		name  string
	}{
		"current": {s.task, 8, "current"},
		"preempt": {initPreempt, 4, fmt.Sprintf("preempt_count of CPU %d", s.cpu)},
	}
	for _, v := range currentVars {
		w, open := want[v.which]
		if !open {
			continue
		}
		addr, ok := s.perCPUVar(v.symbol, v.member)
		if !ok || w.value == 0 {
			continue
		}
		delete(want, v.which)
		if err := s.put(addr, w.value, w.size, w.name); err != nil {
			return err
		}
	}
	return nil
}

// findSymbols looks up what the session asks for, in one pass over the table.
func (s *Session) findSymbols() map[string]kernel.Symbol {
	return s.k.LookupAll("pcpu_hot", "current_task", "__preempt_count", "cpu_tlbstate", "kprobe_table", "ftrace_ops_list",
		"__start___ex_table", "__stop___ex_table", "__start___bug_table", "__stop___bug_table", "__per_cpu_start", "__per_cpu_end",
		"ftrace_caller", "ftrace_regs_caller", "ftrace_graph_caller")
}

// perCPUVar returns the address of the CPU's copy of a per-CPU variable, or of
// a member of it.
func (s *Session) perCPUVar(symbol, member string) (uint64, bool) {
	sym, ok := s.symbols()[symbol]
	if !ok {
		return 0, false
	}
	addr := sym.Addr + s.cpus[s.cpu]
	if member != "" {
		off, err := s.k.Offset(symbol, member)
		if err != nil {
			return 0, false
		}
		addr += off
	}
	return addr, true
}

// put changes a word beforehand, where it is not so already.
func (s *Session) put(addr, v uint64, size int, name string) error {
	old, err := mem.Bytes(s.view, addr, size)
	if err != nil {
		return nil // a run that needs it will say so
	}
	now := little(v, size)
	if string(old) == string(now) {
		return nil
	}
	s.sets = append(s.sets, set{addr: addr, old: old, new: now, name: name})
	return s.view.WriteMem(now, addr)
}

// little returns a word as memory has it.
func little(v uint64, size int) []byte {
	b := make([]byte, size)
	for i := range b {
		b[i] = byte(v >> (8 * i))
	}
	return b
}

// FunctionAt returns the function that begins at an address, without arguments.
func (s *Session) FunctionAt(addr uint64) (*Target, bool) {
	sym, off, ok := s.k.Symbolize(addr)
	t := &Target{}
	if !ok || off != 0 || s.findSymbol(t, sym) != nil {
		return nil, false
	}
	return t, true
}

// Kernel returns the kernel whose code the session runs.
func (s *Session) Kernel() *kernel.Kernel { return s.k }

// CPU returns the number of the CPU that runs run on.
func (s *Session) CPU() int { return s.cpu }

// Task returns the address of the task_struct that is current.
func (s *Session) Task() uint64 { return s.task }

// View returns the target as a run finds it: with what [Session.Set] changed,
// the string literals and the buffers of the arguments.
func (s *Session) View() mem.Reader { return s.view }

// bpfCode is what is known of a function of a BPF program.
type bpfCode struct {
	bpf.Owner
	lines *bpf.Lines // nil if unreadable
	ok    bool
}

// bpfAt returns what is known of the BPF function whose code is at the start of
// a symbol. To find a program all are read, so it is remembered.
func (s *Session) bpfAt(start uint64) *bpfCode {
	c := s.bpfCode[start]
	if c == nil {
		c = &bpfCode{}
		if c.Owner, c.ok = bpf.OwnerOf(s.k, start); c.ok {
			c.lines, _ = c.Lines(s.k)
		}
		s.bpfCode[start] = c
	}
	return c
}

// A SetError says what is wrong with a change asked for.
type SetError struct {
	Text string // as asked
	Err  error
}

// Error says what and why.
func (e *SetError) Error() string { return fmt.Sprintf("set %q: %v", e.Text, e.Err) }

// Unwrap returns the reason.
func (e *SetError) Unwrap() error { return e.Err }

var errFull = errors.New("no room left for it")
