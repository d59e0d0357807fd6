package judge

import (
	"fmt"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/google/go-cmp/cmp"

	"github.com/ksleuth/ksleuth/cli"
	"github.com/ksleuth/ksleuth/internal/dumptest"
)

// TestCrash holds the log, the modules, and the stack and registers of the task
// that crashed against crash. Version 8.0.2 knows of this kernel's tasks only
// those that were running, and no BPF program.
func TestCrash(t *testing.T) {
	for _, file := range []string{"casee-" + drgnKernel + ".kdump", "kexec-" + drgnKernel + ".elf"} {
		t.Run(file, func(t *testing.T) { compareCrash(t, dumptest.Get(t, file)) })
	}
}

func compareCrash(t *testing.T, dump string) {
	out := askCrash(t, dump, "bt", "mod", "log") // starting it takes seconds
	bt, mods, ok := strings.Cut(out, "     MODULE ")
	qt.Assert(t, qt.IsTrue(ok), qt.Commentf("%s", out))
	r := report(t, dump)

	t.Run("stack", func(t *testing.T) {
		_, behind, ok := strings.Cut(bt, "[exception RIP:")
		qt.Assert(t, qt.IsTrue(ok), qt.Commentf("%s", bt))
		var want, got []string
		for _, m := range regexp.MustCompile(`#\d+ \[[0-9a-f]+\] (\S+) at ([0-9a-f]+)`).FindAllStringSubmatch(behind, -1) {
			want = append(want, "0x"+m[2]+" "+m[1])
		}
		for _, f := range r.Frames[1:] { // the first is the BPF program
			got = append(got, f.PC+" "+f.Symbol)
		}
		qt.Check(t, qt.StringContains(behind, "RIP: "+strings.TrimPrefix(r.Frames[0].PC, "0x")))
		// Below do_syscall_64 crash takes words for return addresses that
		// earlier system calls left on the stack, up to the entry, where the
		// stack begins.
		sys, entry := len(got)-2, len(want)-1
		qt.Assert(t, qt.IsTrue(entry > sys))
		for _, stale := range want[sys+1 : entry] {
			t.Logf("allowed: crash has %s, a leftover", stale)
		}
		want = slices.Delete(want, sys+1, entry)
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("-crash +ksleuth:\n%s", d)
		}
	})
	t.Run("registers", func(t *testing.T) {
		_, behind, _ := strings.Cut(bt, "[exception RIP:")
		regs := map[string]string{}
		for _, m := range regexp.MustCompile(`\b(R\w+): +([0-9a-f]{16})\b`).FindAllStringSubmatch(behind, -1) {
			if name := strings.ToLower(m[1]); regs[name] == "" { // then come the user's
				v, err := strconv.ParseUint(m[2], 16, 64)
				qt.Assert(t, qt.IsNil(err))
				regs[name] = fmt.Sprintf("%#x", v)
			}
		}
		compared := 0
		for _, g := range r.Registers {
			if want := regs[g.Name]; want != "" {
				qt.Check(t, qt.Equals(g.Value, want), qt.Commentf("%s", g.Name))
				compared++
			}
		}
		qt.Check(t, qt.IsTrue(compared >= 15), qt.Commentf("%d registers", compared))
	})
	t.Run("modules", func(t *testing.T) {
		var want, got []string
		for _, m := range regexp.MustCompile(`(?m)^([0-9a-f]{16}) +(\S+) +([0-9a-f]{16}) +(\d+) `).FindAllStringSubmatch(mods, -1) {
			want = append(want, "0x"+m[1]+" "+m[2]+" 0x"+m[3]+" "+m[4])
		}
		for _, m := range answers[module](t, cli.StatusOK, "module", dump, "mods") {
			got = append(got, strings.Join([]string{m.Addr, m.Name, m.Base, itoa(int(m.Size))}, " "))
		}
		slices.Sort(want) // crash has them the other way round
		slices.Sort(got)
		qt.Check(t, qt.DeepEquals(got, want))
	})
	t.Run("log", func(t *testing.T) {
		got := ksleuth(t, cli.StatusOK, "-t", dump, "log")
		qt.Check(t, qt.IsTrue(strings.HasSuffix(out, "\n"+got)), qt.Commentf("-crash +ksleuth:\n%s", cmp.Diff(strings.Split(out, "\n"), strings.Split(got, "\n"))))
	})
}

// askCrash runs commands of crash.
func askCrash(t *testing.T, dump string, commands ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), need(t, "crash", "crash"), "-s", vmlinux(t), dump)
	cmd.Stdin = strings.NewReader(strings.Join(commands, "\n") + "\nquit\n")
	out, err := cmd.Output()
	qt.Assert(t, qt.IsNil(err), qt.Commentf("%s", out))
	return string(out)
}
