package judge

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/google/go-cmp/cmp"

	"github.com/ksleuth/ksleuth/cli"
	"github.com/ksleuth/ksleuth/internal/dumptest"
	"github.com/ksleuth/ksleuth/vm"
)

// systemPython is the interpreter that Debian's python3-drgn is for.
const systemPython = "/usr/bin/python3"

// drgnKernel is the kernel whose debug info drgn gets.
const drgnKernel = "6.1"

type drgnTask struct {
	task
	Unwound string `json:"unwound"` // from what
	Lost    bool   `json:"lost"`    // drgn says that it cannot go on
}

type drgnMember struct {
	Name string `json:"name"`
	Bit  int    `json:"bit"`
	Bits int    `json:"bits"`
}

type drgnType struct {
	Error   string       `json:"error"`
	Size    int          `json:"size"`
	Members []drgnMember `json:"members"`
}

type drgnValue struct {
	Error string `json:"error"`
	Value any    `json:"value"`
}

// drgnAnswer is what testdata/ask_drgn.py prints.
type drgnAnswer struct {
	Tasks   []drgnTask  `json:"tasks"`
	Files   []file      `json:"files"`
	Modules []module    `json:"modules"`
	Exprs   []drgnValue `json:"exprs"`
	Types   []drgnType  `json:"types"`
}

// vmlinux returns the kernel's file with debug info.
func vmlinux(t testing.TB) string {
	t.Helper()
	if path := os.Getenv("KSLEUTH_VMLINUX"); path != "" {
		return path
	}
	cache, err := vm.CacheDir()
	qt.Assert(t, qt.IsNil(err))
	path := filepath.Join(cache, "kernels", drgnKernel, "vmlinux")
	if _, err := os.Stat(path); err != nil {
		t.Skipf("no debug info of kernel %s: get it with scripts/kernels --dbg %s, or name a vmlinux in KSLEUTH_VMLINUX; what drgn or crash would judge is not checked", drgnKernel, drgnKernel)
	}
	return path
}

// askDrgn runs drgn on a dump.
func askDrgn(t *testing.T, dump string, exprs, types []string) drgnAnswer {
	t.Helper()
	if err := exec.Command(systemPython, "-c", "import drgn").Run(); err != nil {
		t.Skipf("drgn is not installed (Debian package python3-drgn): what it would judge is not checked")
	}
	request, err := json.Marshal(map[string][]string{"exprs": exprs, "types": types})
	qt.Assert(t, qt.IsNil(err))
	cmd := exec.CommandContext(t.Context(), systemPython, "testdata/ask_drgn.py", dump, vmlinux(t))
	var errs bytes.Buffer
	cmd.Stdin, cmd.Stderr = bytes.NewReader(request), &errs
	out, err := cmd.Output()
	qt.Assert(t, qt.IsNil(err), qt.Commentf("%s", errs.String()))
	var a drgnAnswer
	dec := json.NewDecoder(bytes.NewReader(out))
	dec.UseNumber()
	qt.Assert(t, qt.IsNil(dec.Decode(&a)))
	return a
}

// drgnNames are the frames for which drgn has another name of the same place.
var drgnNames = []struct{ drgn, ksleuth, why string }{
	{"entry_SYSCALL_64", "entry_SYSCALL_64_after_hwframe",
		"a label inside: the ELF symbol of the first spans both, kallsyms has no sizes and takes the nearer, as the kernel's own traces do"},
	{"secondary_startup_64", "secondary_startup_64_no_verify",
		"a label inside, as above"},
	{"asm_exc_nmi", "end_repeat_nmi",
		"a label inside, as above"},
	{"do_epoll_pwait.part.0", "do_compat_epoll_pwait.part.0",
		"two names of one address: the compiler merged equal functions; the kernel's own traces, too, print the first"},
}

func sameName(drgn, ksleuth string) bool {
	for _, n := range drgnNames {
		if n.drgn == drgn && n.ksleuth == ksleuth {
			return true
		}
	}
	return drgn == ksleuth
}

// TestDrgnTasks holds every task and its stack against drgn.
func TestDrgnTasks(t *testing.T) {
	dump := dumptest.Get(t, "idle-"+drgnKernel+".elf")
	compareTasks(t, askDrgn(t, dump, nil, nil).Tasks, stacks(t, dump), nil)
}

// TestDrgnTasksOfCrash does so for the dump of a crash in a BPF program.
func TestDrgnTasksOfCrash(t *testing.T) {
	dump := dumptest.Get(t, "casee-"+drgnKernel+".elf")
	crashed := answers[struct{ Task task }](t, cli.StatusFault, "report", dump, "report")[0].Task.PID
	compareTasks(t, askDrgn(t, dump, nil, nil).Tasks, stacks(t, dump), map[int]string{
		crashed: "drgn has no rule for BPF code: from there it follows the damaged frame pointer",
	})
}

// compareTasks compares tasks and frames; the stacks of the pids in except may
// differ.
func compareTasks(t *testing.T, want []drgnTask, got []task, except map[int]string) {
	qt.Assert(t, qt.Equals(len(got), len(want)))
	frames := 0
	for i, w := range want {
		g := got[i]
		wantTask, gotTask := w.task, g
		wantTask.Frames, gotTask.Frames = nil, nil
		gotTask.End = "" // judged by stacks
		qt.Check(t, qt.DeepEquals(gotTask, wantTask))
		why := except[g.PID]
		if len(g.Frames) > 0 && stuffing(g) {
			why = "no ORC for the code it was in"
		}
		if why != "" {
			t.Logf("the stack of %v is not compared: %s", g, why)
			continue
		}
		if w.Lost && len(w.Frames) < len(g.Frames) {
			t.Logf("drgn cannot follow the stack of %v beyond %s, where it changes to or from the interrupt stack", g, w.Frames[len(w.Frames)-1].Symbol)
			g.Frames = g.Frames[:len(w.Frames)]
		}
		for j := range min(len(g.Frames), len(w.Frames)) {
			if sameName(w.Frames[j].Symbol, g.Frames[j].Symbol) {
				w.Frames[j].Symbol = g.Frames[j].Symbol
			}
		}
		frames += len(g.Frames)
		if d := cmp.Diff(places(w.Frames), places(g.Frames)); d != "" {
			t.Errorf("%v, unwound by drgn from: %s\nframes (-drgn +ksleuth):\n%s", g, w.Unwound, d)
		}
	}
	t.Logf("%d tasks, %d frames compared", len(want), frames)
}

func places(frames []frame) []string {
	var out []string
	for _, f := range frames {
		out = append(out, f.PC+" "+f.Symbol)
	}
	return out
}

// TestDrgnFiles holds the open files of every process against drgn.
func TestDrgnFiles(t *testing.T) {
	dump := dumptest.Get(t, "idle-"+drgnKernel+".elf")
	var got []file
	want := askDrgn(t, dump, nil, nil).Files
	seen := map[int]bool{}
	for _, f := range want {
		if !seen[f.PID] {
			got = append(got, answers[file](t, cli.StatusOK, "file", dump, "files", itoa(f.PID))...)
		}
		seen[f.PID] = true
	}
	qt.Assert(t, qt.Equals(len(got), len(want)))
	qt.Assert(t, qt.IsTrue(len(want) > 20))
	for i := range want {
		want[i].Path = adaptPath(want[i].Path, got[i].Path)
	}
	qt.Check(t, qt.DeepEquals(got, want))
}

// drgnPaths are the file systems without paths: of their files drgn's d_path
// prints the mount, and ksleuth what /proc/PID/fd shows.
var drgnPaths = map[string]string{
	"[pipefs]": "pipe:[", "[sockfs]": "socket:[", "[anon_inodefs]": "anon_inode:",
}

func adaptPath(drgn, ksleuth string) string {
	if prefix := drgnPaths[drgn]; prefix != "" && strings.HasPrefix(ksleuth, prefix) {
		return ksleuth
	}
	return drgn
}

// TestDrgnModules holds the list of modules against drgn.
func TestDrgnModules(t *testing.T) {
	dump := dumptest.Get(t, "casee-"+drgnKernel+".elf")
	got := answers[module](t, cli.StatusOK, "module", dump, "mods")
	qt.Assert(t, qt.IsTrue(len(got) > 3))
	for i := range got {
		got[i].State = "" // drgn is not asked for it
	}
	qt.Check(t, qt.DeepEquals(got, askDrgn(t, dump, nil, nil).Modules))
}
