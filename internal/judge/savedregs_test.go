package judge

import (
	"bytes"
	"encoding/json"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
	"golang.org/x/arch/x86/x86asm"

	"github.com/ksleuth/ksleuth/internal/dumptest"
	"github.com/ksleuth/ksleuth/internal/example"
	"github.com/ksleuth/ksleuth/kernel"
	"github.com/ksleuth/ksleuth/kobj"
	"github.com/ksleuth/ksleuth/unwind"
	"github.com/ksleuth/ksleuth/x86"
)

// savedRegs are the registers compared.
var savedRegs = map[string]x86.Reg{
	"rbx": x86asm.RBX, "rbp": x86asm.RBP, "rsp": x86asm.RSP,
	"r12": x86asm.R12, "r13": x86asm.R13, "r14": x86asm.R14, "r15": x86asm.R15,
}

// A regFrame is a frame of drgn's with what it knows of those.
type regFrame struct {
	PC     string            `json:"pc"`
	Symbol string            `json:"symbol"`
	Regs   map[string]string `json:"regs"`
}

type regTask struct {
	Addr   string     `json:"addr"`
	PID    int        `json:"pid"`
	Frames []regFrame `json:"frames"`
}

// drgnRegs asks drgn for the registers of every frame of a dump.
func drgnRegs(t *testing.T, dump string) map[uint64]regTask {
	t.Helper()
	if err := exec.Command(systemPython, "-c", "import drgn").Run(); err != nil {
		t.Skipf("drgn is not installed (Debian package python3-drgn): what it would judge is not checked")
	}
	cmd := exec.CommandContext(t.Context(), systemPython, "testdata/ask_drgn.py", dump, vmlinux(t))
	var errs bytes.Buffer
	cmd.Stdin, cmd.Stderr = strings.NewReader(`{"exprs":[],"types":[]}`), &errs
	out, err := cmd.Output()
	qt.Assert(t, qt.IsNil(err), qt.Commentf("%s", errs.String()))
	var a struct {
		Tasks []regTask `json:"tasks"`
	}
	qt.Assert(t, qt.IsNil(json.Unmarshal(out, &a)))
	byAddr := make(map[uint64]regTask)
	for _, task := range a.Tasks {
		byAddr[hex(t, task.Addr)] = task
	}
	return byAddr
}

// rawStack unwinds a task as package stack does.
func rawStack(t *testing.T, k *kernel.Kernel, task kobj.Task) unwind.Stack {
	t.Helper()
	if !task.Running {
		return unwind.Task(k, uint64(task.Addr))
	}
	cpu, ok := k.Registers(task.CPU)
	qt.Assert(t, qt.IsTrue(ok))
	return unwind.From(k, uint64(task.Addr), cpu.Regs)
}

// TestDrgnSavedRegisters holds the callee-saved registers of every frame of
// every task against drgn, which has them from the DWARF call frame
// information: where both know one it must be the same, and of those that drgn
// knows few may be unknown to us.
func TestDrgnSavedRegisters(t *testing.T) {
	for _, scene := range []string{"idle-", "casee-"} {
		t.Run(scene+drgnKernel, func(t *testing.T) {
			dump := dumptest.Get(t, scene+drgnKernel+".elf")
			want := drgnRegs(t, dump)
			k := example.KernelOf(t, dump)
			tasks, err := kobj.Tasks(k, true)
			qt.Assert(t, qt.IsNil(err))
			c := regCount{missed: map[string]int{}, stale: map[string]int{}}
			for _, task := range tasks {
				s := rawStack(t, k, task)
				c.compare(t, task, want[uint64(task.Addr)].Frames, s, unwind.CalleeAll(k, s))
			}
			t.Logf("%d frames: of %d registers that drgn knows we know %d (%.2f%%), all alike but %d; %d more that it does not know",
				c.frames, c.drgn, c.both, 100*float64(c.both)/float64(c.drgn), c.differ, c.more)
			t.Logf("not compared, where drgn keeps the rbp of the exception's handler for that of the code it interrupted: %v", c.stale)
			t.Logf("unknown to us in callers of: %v", c.missed)
			qt.Check(t, qt.Equals(c.differ, 0))
			qt.Check(t, qt.IsTrue(c.both*100 >= c.drgn*99))
		})
	}
}

type regCount struct {
	frames, drgn, both, differ, more int
	missed                           map[string]int // by function that did not tell
	stale                            map[string]int // by function that had been interrupted
}

// interrupted says whether a register was read from a struct pt_regs: drgn
// 0.0.22 knows that rbp, too, is there only for what is in a user program.
func interrupted(s unwind.Stack, g unwind.Saved) bool {
	const rbp = 4 * 8 // in struct pt_regs
	return slices.ContainsFunc(s.Frames, func(f unwind.Frame) bool { return f.RegsAddr != 0 && g.Cell == f.RegsAddr+rbp })
}

func (c *regCount) compare(t *testing.T, task kobj.Task, want []regFrame, s unwind.Stack, got []unwind.Registers) {
	for i := range min(len(want), len(s.Frames)) {
		if hex(t, want[i].PC) != s.Frames[i].PC {
			t.Logf("pid %d: from frame %d drgn and ksleuth are in different functions", task.PID, i)
			return
		}
		c.frames++
		for name, reg := range savedRegs {
			g := got[i].Reg(reg)
			w, ok := want[i].Regs[name]
			switch {
			case !ok && g.Known:
				c.more++
			case ok && interrupted(s, g) && g.Value != hex(t, w):
				c.stale[want[i].Symbol]++
			case ok && !g.Known:
				c.drgn++
				c.missed[want[max(i-1, 0)].Symbol]++
			case ok:
				c.drgn++
				c.both++
				if g.Value != hex(t, w) {
					c.differ++
					t.Errorf("pid %d, frame %d (%s, called %s): %s is %#x from %#x, drgn says %s",
						task.PID, i, want[i].Symbol, want[max(i-1, 0)].Symbol, name, g.Value, g.Cell, w)
				}
			}
		}
	}
}
