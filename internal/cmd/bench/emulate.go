package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"syscall"
	"time"

	"github.com/ksleuth/ksleuth/emulate"
	"github.com/ksleuth/ksleuth/internal/unicorn"
	"github.com/ksleuth/ksleuth/kernel"
	"github.com/ksleuth/ksleuth/mem"
	"github.com/ksleuth/ksleuth/vmcore"
)

// Where the measured code has its stack and its buffer. No kernel has anything there.
const (
	runStack = 0xffff7f0000000000
	runBuf   = 0xffff7f0000100000
	runLen   = 16 << 12
	runExit  = 0xfffffffffffff000 // what emulate returns to
	runCode  = 0xffff7f0000200000
)

// tightLoop adds the numbers from rdi down to 1:
// xor %eax,%eax; 1: add %rdi,%rax; sub $1,%rdi; jne 1b; ret.
var tightLoop = []byte{0x31, 0xc0, 0x48, 0x01, 0xf8, 0x48, 0x83, 0xef, 0x01, 0x75, 0xf7, 0xc3}

// A workload is a call of a function, again and again until there were enough
// instructions.
type workload struct {
	name  string
	addr  uint64
	args  []uint64
	steps uint64 // of one call
	times int
}

const enough = 15e6

// emulating measures package emulate, without and with the history that
// provenance is told from, beside Unicorn, which translates to machine code and
// has no history, without and with a hook that is called for every instruction
// and does nothing.
func emulating(ctx context.Context, w io.Writer, _ string, runs int) error {
	base, err := scene(ctx, "idle-"+judged)
	if err != nil {
		return err
	}
	core, err := vmcore.Open(base + ".kdump")
	if err != nil {
		return err
	}
	defer core.Close()
	k, err := kernel.FromSource(ctx, core)
	if err != nil {
		return err
	}
	jobs := []workload{{"tight loop", runCode, []uint64{5e6}, 0, 0}}
	for _, j := range []workload{
		{"crc32_le", 0, []uint64{^uint64(0), runBuf + 4096, 40000}, 0, 0},
		{"vsnprintf", 0, nil, 0, 0},
		{"kallsyms_lookup_name", 0, []uint64{runBuf + 256}, 0, 0},
	} {
		if j.addr, err = k.Addr(j.name); err != nil {
			return err
		}
		if j.name == "vsnprintf" { // (buf, size, fmt, va_list)
			j.args = []uint64{runBuf + 1024, 128, runBuf + 512, runBuf + 600}
		}
		jobs = append(jobs, j)
	}
	gs, err := k.PerCPU(0, 0)
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "code of a %s emulated, million instructions a second of CPU time\n", judged)
	b := &emulateBench{k: k, gs: gs, content: content()}
	for _, j := range jobs {
		if err := b.compare(ctx, w, j, runs); err != nil {
			return fmt.Errorf("%s: %w", j.name, err)
		}
	}
	return nil
}

type emulateBench struct {
	k       *kernel.Kernel
	gs      uint64
	content []byte // of the buffer
}

// content is what the buffer holds.
func content() []byte {
	b := make([]byte, runLen)
	for i := range b {
		b[i] = byte(i * 131 >> 3)
	}
	copy(b[256:], "vsnprintf\x00")
	copy(b[512:], "%s: %d of %lu bytes at %016llx, %-12s|\x00")
	copy(b[700:], "example\x00")
	// A va_list whose registers are used up: gp_offset and fp_offset, overflow_arg_area, reg_save_area.
	for i, v := range []uint64{304<<32 | 48, runBuf + 640, runBuf + 1000} {
		put(b[600+8*i:], v)
	}
	put(b[640:], runBuf+700)
	put(b[672:], runBuf+700)
	return b
}

func put(b []byte, v uint64) {
	for i := range 8 {
		b[i] = byte(v >> (8 * i))
	}
}

// A rate is a number of instructions a second.
type rate float64

// compare measures a workload in the four ways, in turns.
func (b *emulateBench) compare(ctx context.Context, w io.Writer, j workload, runs int) error {
	const history = 1 << 20 // instructions
	ways := []func() (rate, error){
		func() (rate, error) { return b.ours(ctx, j, emulate.Options{}) },
		func() (rate, error) { return b.ours(ctx, j, emulate.Options{History: history}) },
	}
	var err error
	if j.steps, err = b.steps(ctx, j); err != nil {
		return err
	}
	j.times = int(enough/j.steps) + 1
	missing := ""
	if e, err := unicorn.New(); err != nil {
		missing = err.Error()
	} else {
		ways = append(ways,
			func() (rate, error) { return b.theirs(j, true) },
			func() (rate, error) { return b.theirs(j, false) })
		if err := e.Close(); err != nil {
			return err
		}
	}
	all := make([][]rate, len(ways))
	for round := range runs + 1 {
		for i, way := range ways {
			r, err := way()
			if err != nil {
				return err
			}
			if round > 0 {
				all[i] = append(all[i], r)
			}
		}
	}
	m := make([]rate, len(all))
	for i, r := range all {
		slices.Sort(r)
		m[i] = r[len(r)/2] / 1e6
	}
	fmt.Fprintf(w, "  %-20s %6.1f    with history %6.1f", j.name, m[0], m[1])
	if missing != "" {
		fmt.Fprintf(w, "    Unicorn is left out: %s\n", missing)
		return nil
	}
	fmt.Fprintf(w, "    Unicorn with an empty hook %6.1f (1/%.1f, with history 1/%.1f), without %6.1f (1/%.1f)\n",
		m[2], m[2]/m[0], m[2]/m[1], m[3], m[3]/m[0])
	return nil
}

// machine returns a machine that is ready for a workload.
func (b *emulateBench) machine(o emulate.Options) (*emulate.Machine, error) {
	m := emulate.New(emulate.NewMemory(b.k.Mem()), o)
	for _, at := range []uint64{runStack, runBuf, runCode} {
		m.Mem.Map(at, runLen)
	}
	m.GSBase = b.gs
	return m, errors.Join(m.Mem.WriteMem(b.content, runBuf), m.Mem.WriteMem(tightLoop, runCode))
}

func (b *emulateBench) call(ctx context.Context, m *emulate.Machine, j workload) error {
	m.GP[emulate.RSP] = runStack + runLen/2
	if j.name == "vsnprintf" { // it has used up the list
		if err := m.Mem.WriteMem(b.content[600:624], runBuf+600); err != nil {
			return err
		}
	}
	s := m.Call(ctx, j.addr, j.args...)
	if s.Outcome != emulate.Returned {
		return fmt.Errorf("it %s: %w", s.Outcome, s.Err)
	}
	return nil
}

// steps returns how many instructions one call is.
func (b *emulateBench) steps(ctx context.Context, j workload) (uint64, error) {
	m, err := b.machine(emulate.Options{})
	if err == nil {
		err = b.call(ctx, m, j)
	}
	return m.Step, err
}

// rate calls as often as the workload says. It takes the time of the CPU, the
// garbage collector's with it.
func (b *emulateBench) rate(j workload, call func() error) (rate, error) {
	start, err := cpuTime()
	if err != nil {
		return 0, err
	}
	for range j.times {
		if err := call(); err != nil {
			return 0, err
		}
	}
	end, err := cpuTime()
	return rate(float64(j.steps) * float64(j.times) / (end - start).Seconds()), err
}

// cpuTime returns what this process has used.
func cpuTime() (time.Duration, error) {
	var u syscall.Rusage
	err := syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), err
}

// ours measures a machine.
func (b *emulateBench) ours(ctx context.Context, j workload, o emulate.Options) (rate, error) {
	o.Steps = 1 << 62
	m, err := b.machine(o)
	if err != nil {
		return 0, err
	}
	if err := b.call(ctx, m, j); err != nil { // decodes, and fetches memory
		return 0, err
	}
	return b.rate(j, func() error { return b.call(ctx, m, j) })
}

// theirs measures Unicorn.
func (b *emulateBench) theirs(j workload, hook bool) (rate, error) {
	e, err := unicorn.New()
	if err != nil {
		return 0, err
	}
	defer e.Close()
	areas := map[uint64][]byte{}
	for _, at := range []uint64{runStack, runBuf, runCode} {
		if areas[at], err = e.Map(at, runLen); err != nil {
			return 0, err
		}
	}
	copy(areas[runBuf], b.content)
	copy(areas[runCode], tightLoop)
	e.Unmapped = func(addr uint64) bool {
		page, err := mem.Bytes(b.k.Mem(), addr&^0xfff, 0x1000)
		if err != nil {
			return false
		}
		p, err := e.Map(addr&^0xfff, len(page))
		copy(p, page)
		return err == nil
	}
	if hook {
		c, err := e.CountInstructions(true)
		if err != nil {
			return 0, err
		}
		defer c.Close()
	}
	call := func() error {
		regs := unicorn.Regs{GSBase: b.gs, Flags: 2}
		for i, r := range [...]int{emulate.RDI, emulate.RSI, emulate.RDX, emulate.RCX} {
			if i < len(j.args) {
				regs.GP[r] = j.args[i]
			}
		}
		regs.GP[emulate.RSP] = runStack + runLen/2 - 8
		put(areas[runStack][runLen/2-8:], runExit)
		copy(areas[runBuf][600:], b.content[600:624])
		return errors.Join(e.SetRegs(&regs), e.Start(j.addr, runExit, 0))
	}
	if err := call(); err != nil { // translates, and fetches memory
		return 0, err
	}
	return b.rate(j, call)
}
