package hwbreak_test

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/rlimit"
	"github.com/go-quicktest/qt"
	"golang.org/x/sys/unix"

	"github.com/ksleuth/ksleuth/hwbreak"
	"github.com/ksleuth/ksleuth/jit"
)

// holdEnv makes the test binary a process that holds breakpoints at an address.
const holdEnv = "KSLEUTH_TEST_BREAKPOINTS_AT"

func TestMain(m *testing.M) {
	if at := os.Getenv(holdEnv); at != "" {
		addr, _ := strconv.ParseUint(at, 0, 64)
		for range registers {
			if _, err := hwbreak.OpenCounter(addr, hwbreak.Everywhere()); err != nil {
				fmt.Println(err)
			}
		}
		fmt.Println("holding")
		os.Stdin.Read(make([]byte, 1))
		return
	}
	if err := rlimit.RemoveMemlock(); err != nil { // counts before 5.11
		fmt.Println(err)
	}
	os.Exit(m.Run())
}

// registers are how many breakpoints an x86 CPU has (DR0 to DR3).
const registers = 4

// needGuest skips the test but in a guest: its breakpoints are on the kernel,
// and it counts on nobody else using any.
func needGuest(t testing.TB) {
	t.Helper()
	if os.Getenv("KSLEUTH_GUEST") == "" {
		t.Skip("for a guest alone: it sets breakpoints on the kernel")
	}
}

// symbol returns the address of a kernel function.
func symbol(t testing.TB, name string) uint64 {
	t.Helper()
	f, err := os.Open("/proc/kallsyms")
	qt.Assert(t, qt.IsNil(err))
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if w := strings.Fields(s.Text()); len(w) >= 3 && w[2] == name {
			addr, err := strconv.ParseUint(w[0], 16, 64)
			qt.Assert(t, qt.IsNil(err))
			return addr
		}
	}
	t.Fatalf("the kernel has no %s", name)
	return 0
}

// The function that tests have executed: nobody else calls it.
const called = "__x64_sys_getpriority"

func call(n int) {
	for range n {
		unix.Syscall(unix.SYS_GETPRIORITY, unix.PRIO_PROCESS, 0, 0)
	}
}

func read(t testing.TB, b *hwbreak.Breakpoint) uint64 {
	t.Helper()
	n, err := b.Read()
	qt.Assert(t, qt.IsNil(err))
	return n
}

func free(t testing.TB) int {
	t.Helper()
	n, err := hwbreak.Free()
	qt.Assert(t, qt.IsNil(err))
	return n
}

// TestRunningKernelCounter: executions are counted, of everybody or of one
// thread or CPU alone.
func TestRunningKernelCounter(t *testing.T) {
	needGuest(t)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	const calls, elsewhere = 5000, 30
	addr := symbol(t, called)
	scopes := []hwbreak.Scope{hwbreak.Everywhere(), hwbreak.Thread(0), hwbreak.CPU(0), hwbreak.CPU(1)}
	var points []*hwbreak.Breakpoint
	for _, s := range scopes {
		b, err := hwbreak.OpenCounter(addr, s)
		qt.Assert(t, qt.IsNil(err))
		defer b.Close()
		points = append(points, b)
	}
	call(calls)
	done := make(chan bool)
	go func() { call(elsewhere); done <- true }() // this thread is locked: another does it
	<-done
	qt.Check(t, qt.Equals(read(t, points[0]), calls+elsewhere))
	qt.Check(t, qt.Equals(read(t, points[1]), calls))
	qt.Check(t, qt.Equals(read(t, points[2])+read(t, points[3]), calls+elsewhere))

	hits := read(t, points[0])
	qt.Assert(t, qt.IsNil(points[0].Close()))
	b, err := hwbreak.OpenCounter(addr, hwbreak.Everywhere())
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(read(t, b), 0), qt.Commentf("a new one begins at 0, not %d", hits))
	qt.Check(t, qt.IsNil(b.Close()))
}

// TestRunningKernelErrors: each refusal has its type, and leaves nothing.
func TestRunningKernelErrors(t *testing.T) {
	needGuest(t)
	addr := symbol(t, called)
	_, err := hwbreak.OpenCounter(symbol(t, "asm_exc_page_fault"), hwbreak.Everywhere())
	_, ok := errors.AsType[*hwbreak.AddressError](err)
	qt.Check(t, qt.IsTrue(ok), qt.Commentf("%v", err))
	_, err = hwbreak.OpenCounter(addr, hwbreak.CPU(7))
	qt.Check(t, qt.IsNotNil(err))
	_, err = hwbreak.OpenCounter(addr, hwbreak.Thread(1<<22-1))
	qt.Check(t, qt.ErrorIs(err, fs.ErrNotExist))

	qt.Assert(t, qt.Equals(free(t), registers))
	for used := range registers {
		b, err := hwbreak.OpenCounter(addr+uint64(used), hwbreak.Everywhere())
		qt.Assert(t, qt.IsNil(err))
		defer b.Close()
		qt.Check(t, qt.Equals(free(t), registers-used-1))
	}
	_, err = hwbreak.OpenCounter(addr, hwbreak.CPU(1))
	full, ok := errors.AsType[*hwbreak.ExhaustedError](err)
	qt.Assert(t, qt.IsTrue(ok), qt.Commentf("%v", err))
	qt.Check(t, qt.Equals(full.CPU, 1))
	qt.Check(t, qt.ErrorIs(err, unix.ENOSPC))
	_, err = hwbreak.Open(addr, -1)
	_, ok = errors.AsType[*hwbreak.ExhaustedError](err)
	qt.Check(t, qt.IsTrue(ok), qt.Commentf("%v", err))

}

// TestRunningKernelFailedOpen: what could not get its program gives back its
// registers.
func TestRunningKernelFailedOpen(t *testing.T) {
	needGuest(t)
	_, err := hwbreak.Open(symbol(t, called), 0) // not a program
	qt.Assert(t, qt.IsNotNil(err))
	qt.Check(t, qt.Equals(free(t), registers))
}

// TestRunningKernelDenied: who has no capabilities is told what it takes.
func TestRunningKernelDenied(t *testing.T) {
	needGuest(t)
	addr := symbol(t, called)
	errs := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with its lack of rights
		var data [2]unix.CapUserData
		if err := unix.Capset(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &data[0]); err != nil {
			errs <- err
			return
		}
		_, err := hwbreak.OpenCounter(addr, hwbreak.Everywhere())
		errs <- err
	}()
	err := <-errs
	denied, ok := errors.AsType[*hwbreak.PermissionError](err)
	qt.Assert(t, qt.IsTrue(ok), qt.Commentf("%v", err))
	qt.Check(t, qt.ErrorIs(err, fs.ErrPermission))
	qt.Check(t, qt.StringContains(denied.Need, "CAP_SYS_ADMIN"))
}

// A recorder is a BPF program that keeps what it saw in a map.
type recorder struct {
	prog *ebpf.Program
	seen *ebpf.Map
}

// Offsets in struct pt_regs, with which struct bpf_perf_event_data begins.
const (
	regsAX = 80
	regsDI = 112
	regsIP = 128
)

// newRecorder loads a program that counts, and keeps registers of the last.
func newRecorder(t testing.TB) recorder {
	t.Helper()
	seen, err := ebpf.NewMap(&ebpf.MapSpec{Name: "seen", Type: ebpf.PerCPUArray, KeySize: 4, ValueSize: 32, MaxEntries: 1})
	qt.Assert(t, qt.IsNil(err))
	t.Cleanup(func() { seen.Close() })
	insns := asm.Instructions{
		asm.Mov.Reg(asm.R6, asm.R1),
		asm.StoreImm(asm.RFP, -4, 0, asm.Word),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, -4),
		asm.LoadMapPtr(asm.R1, seen.FD()),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "out"),
		asm.LoadMem(asm.R1, asm.R0, 0, asm.DWord),
		asm.Add.Imm(asm.R1, 1),
		asm.StoreMem(asm.R0, 0, asm.R1, asm.DWord),
	}
	for i, reg := range []int16{regsDI, regsAX, regsIP} {
		insns = append(insns, asm.LoadMem(asm.R1, asm.R6, reg, asm.DWord), asm.StoreMem(asm.R0, int16(8+8*i), asm.R1, asm.DWord))
	}
	insns = append(insns, asm.Mov.Imm(asm.R0, 0).WithSymbol("out"), asm.Return())
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: "recorder", Type: ebpf.PerfEvent, License: "GPL", Instructions: insns})
	qt.Assert(t, qt.IsNil(err))
	t.Cleanup(func() { prog.Close() })
	return recorder{prog, seen}
}

// hits returns how often it ran, and what it kept of each CPU's last run.
func (r recorder) hits(t testing.TB) (n uint64, last [][3]uint64) {
	t.Helper()
	var perCPU [][]byte
	qt.Assert(t, qt.IsNil(r.seen.Lookup(uint32(0), &perCPU)))
	for _, b := range perCPU {
		u := func(i int) uint64 { return binary.NativeEndian.Uint64(b[8*i:]) }
		if u(0) > 0 {
			n += u(0)
			last = append(last, [3]uint64{u(1), u(2), u(3)})
		}
	}
	return n, last
}

// TestRunningKernelProgram: the BPF program runs at each execution, with the
// registers, and no more once the breakpoint is closed.
func TestRunningKernelProgram(t *testing.T) {
	needGuest(t)
	const calls = 5000
	addr := symbol(t, called)
	r := newRecorder(t)
	b, err := hwbreak.Open(addr, r.prog.FD())
	qt.Assert(t, qt.IsNil(err))
	call(calls)
	n, last := r.hits(t)
	qt.Check(t, qt.Equals(n, calls))
	qt.Check(t, qt.Equals(read(t, b), calls))
	for _, regs := range last {
		qt.Check(t, qt.Equals(regs[2], addr))
		qt.Check(t, qt.IsTrue(int64(regs[0]) < 0), qt.Commentf("rdi is the struct pt_regs of the system call: %#x", regs[0]))
	}
	qt.Assert(t, qt.IsNil(b.Close()))
	call(10)
	n, _ = r.hits(t)
	qt.Check(t, qt.Equals(n, calls))
	qt.Check(t, qt.Equals(free(t), registers))
}

// TestRunningKernelTailCallee: a program is seen also when it is entered by a
// tail call, past its attach point.
func TestRunningKernelTailCallee(t *testing.T) {
	needGuest(t)
	const runs, verdict = 400, 7
	array, err := ebpf.NewMap(&ebpf.MapSpec{Name: "jump", Type: ebpf.ProgramArray, KeySize: 4, ValueSize: 4, MaxEntries: 4})
	qt.Assert(t, qt.IsNil(err))
	defer array.Close()
	load := func(name string, insns ...asm.Instruction) *ebpf.Program {
		p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: name, Type: ebpf.XDP, License: "GPL", Instructions: insns})
		qt.Assert(t, qt.IsNil(err))
		t.Cleanup(func() { p.Close() })
		return p
	}
	callee := load("callee", asm.Mov.Imm(asm.R0, verdict), asm.Return())
	caller := load("caller", asm.LoadMapPtr(asm.R2, array.FD()), asm.Mov.Imm(asm.R3, 3), asm.FnTailCall.Call(), asm.Mov.Imm(asm.R0, 1), asm.Return())
	qt.Assert(t, qt.IsNil(array.Put(uint32(3), callee)))

	info, err := callee.Info()
	qt.Assert(t, qt.IsNil(err))
	addrs, ok := info.JitedKsymAddrs()
	qt.Assert(t, qt.IsTrue(ok))
	code, ok := info.JitedInsns()
	qt.Assert(t, qt.IsTrue(ok))
	start := uint64(addrs[0])
	entry, ok := jit.ReadPrologue(code, start)
	qt.Assert(t, qt.IsTrue(ok))
	attach, past := newRecorder(t), newRecorder(t)
	for addr, r := range map[uint64]recorder{start: attach, start + uint64(entry.TailCallEntry): past} {
		b, err := hwbreak.Open(addr, r.prog.FD())
		qt.Assert(t, qt.IsNil(err))
		defer b.Close()
	}
	run := func(p *ebpf.Program) {
		ret, err := p.Run(&ebpf.RunOptions{Data: make([]byte, 64), Repeat: runs})
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.Equals(ret, verdict))
	}
	check := func(wantAttach, wantPast uint64) {
		n, _ := attach.hits(t)
		qt.Check(t, qt.Equals(n, wantAttach))
		n, last := past.hits(t)
		qt.Check(t, qt.Equals(n, wantPast))
		for _, regs := range last {
			qt.Check(t, qt.Equals(regs[2], start+uint64(entry.TailCallEntry)))
		}
	}
	run(caller)
	check(0, runs)
	run(callee)
	check(runs, 2*runs)
}

// TestRunningKernelKilled: breakpoints go with the process that has them.
func TestRunningKernelKilled(t *testing.T) {
	needGuest(t)
	self, err := os.Executable()
	qt.Assert(t, qt.IsNil(err))
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%#x", holdEnv, symbol(t, called)))
	in, err := cmd.StdinPipe() // what it reads from, so that it stays
	qt.Assert(t, qt.IsNil(err))
	defer in.Close()
	out, err := cmd.StdoutPipe()
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(cmd.Start()))
	line, err := bufio.NewReader(out).ReadString('\n')
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.Equals(line, "holding\n"))
	n, err := hwbreak.Free()
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.Equals(n, 0))
	qt.Assert(t, qt.IsNil(cmd.Process.Kill()))
	cmd.Wait()
	for range 100 { // the last of it is done after the process is reported
		if n = free(t); n == registers {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	qt.Check(t, qt.Equals(n, registers))
}

// TestUser: code of this process has no secrets from it.
func TestUser(t *testing.T) {
	b, err := hwbreak.OpenCounter(8, hwbreak.Thread(0))
	if errors.Is(err, errors.ErrUnsupported) || errors.Is(err, fs.ErrPermission) {
		t.Skip(err)
	}
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(read(t, b), 0))
	qt.Check(t, qt.IsNil(b.Close()))
}
