package tracee_test

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
	"github.com/go-quicktest/qt"
	"golang.org/x/sys/unix"

	"github.com/ksleuth/ksleuth/bpfview"
	"github.com/ksleuth/ksleuth/kernel"
	"github.com/ksleuth/ksleuth/live"
	"github.com/ksleuth/ksleuth/tracee"
)

// sources are the running kernel without its memory and, if that can be read,
// with it.
func sources(t *testing.T) map[string]tracee.Source {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("finding BPF objects takes root")
	}
	all := map[string]tracee.Source{"without memory": {BPF: bpfview.Source{Running: true}}}
	target, err := live.Open(t.Context())
	if err != nil {
		t.Logf("without memory alone: %v", err)
		return all
	}
	t.Cleanup(func() { target.Close() })
	k, err := kernel.FromSource(t.Context(), target)
	qt.Assert(t, qt.IsNil(err))
	all["with memory"] = tracee.Source{BPF: bpfview.Source{Running: true, Kernel: k}}
	return all
}

func id(t *testing.T, p interface {
	Info() (*ebpf.ProgramInfo, error)
}) int {
	t.Helper()
	info, err := p.Info()
	qt.Assert(t, qt.IsNil(err))
	n, _ := info.ID()
	return int(n)
}

// hold starts a process that holds descriptors: those of this one count as
// ksleuth's own.
func hold(t *testing.T, fds ...int) (pid int) {
	t.Helper()
	c := exec.Command("/proc/self/exe")
	c.Env = append(os.Environ(), holdEnv+"=1")
	for _, fd := range fds {
		fd, err := unix.Dup(fd)
		qt.Assert(t, qt.IsNil(err))
		f := os.NewFile(uintptr(fd), "bpf")
		defer f.Close()
		c.ExtraFiles = append(c.ExtraFiles, f)
	}
	in, err := c.StdinPipe()
	qt.Assert(t, qt.IsNil(err))
	out, err := c.StdoutPipe()
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(c.Start()))
	t.Cleanup(func() { in.Close(); c.Wait() })
	_, err = out.Read(make([]byte, 1))
	qt.Assert(t, qt.IsNil(err))
	return c.Process.Pid
}

// described are functions by the ids of their programs.
func described(fs []*tracee.Function) []string {
	var out []string
	for _, f := range fs {
		s := fmt.Sprintf("%s %d/%s", f.Kind, f.Prog.ID, f.Name)
		if f.Refused != nil {
			s += " refused"
		}
		out = append(out, s)
	}
	return out
}

// TestRunningKernelPrograms: what was loaded and attached is found, by each way
// to name it.
func TestRunningKernelPrograms(t *testing.T) {
	all := sources(t)
	spec, err := ebpf.LoadCollectionSpec("testdata/fw.bpf.o")
	qt.Assert(t, qt.IsNil(err))
	later := spec.Programs["fw_instead"]
	delete(spec.Programs, "fw_instead")
	coll, err := ebpf.NewCollection(spec)
	if errors.Is(err, fs.ErrPermission) {
		t.Skip(err)
	}
	qt.Assert(t, qt.IsNil(err))
	defer coll.Close()
	main, one, two := coll.Programs["fw_main_with_a_long_name"], coll.Programs["fw_one"], coll.Programs["fw_two"]
	later.AttachTarget, later.AttachTo = main, "fw_stub"
	instead, err := ebpf.NewProgram(later)
	if err != nil { // the machine's own kernel may refuse programs for others
		t.Skip(err)
	}
	defer instead.Close()
	replace, err := link.AttachFreplace(nil, "", instead)
	qt.Assert(t, qt.IsNil(err))
	defer replace.Close()
	x, err := link.AttachXDP(link.XDPOptions{Program: main, Interface: 1, Flags: link.XDPGenericMode})
	qt.Assert(t, qt.IsNil(err))
	defer x.Close()
	plain, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: "fw_plain", Type: ebpf.SchedCLS, License: "GPL", Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()}})
	qt.Assert(t, qt.IsNil(err))
	defer plain.Close()
	dir := t.TempDir()
	qt.Assert(t, qt.IsNil(unix.Mount("bpf", dir, "bpf", 0, "")))
	defer unix.Unmount(dir, unix.MNT_DETACH)
	qt.Assert(t, qt.IsNil(two.Pin(filepath.Join(dir, "two"))))
	defer two.Unpin()
	info, err := coll.Maps["fw_jumps"].Info()
	qt.Assert(t, qt.IsNil(err))
	mapID, _ := info.ID()
	holder := hold(t, main.FD(), instead.FD())
	m, o, w, in := id(t, main), id(t, one), id(t, two), id(t, instead)
	whole := []string{
		fmt.Sprintf("program %d/fw_main_with_a_long_name", m), fmt.Sprintf("subprogram %d/fw_stub refused", m),
		fmt.Sprintf("extension %d/fw_instead", in), fmt.Sprintf("subprogram %d/fw_part", in),
		fmt.Sprintf("subprogram %d/fw_jump", m), fmt.Sprintf("subprogram %d/fw_sum", m),
		fmt.Sprintf("program %d/fw_one", o), fmt.Sprintf("program %d/fw_two", w),
	}
	for name, src := range all {
		var gaps []error
		src.Gap = func(err error) { gaps = append(gaps, err) }
		for _, test := range []struct {
			pattern  string
			subprogs bool
			want     []string
		}{
			{fmt.Sprintf("prog:%d", m), false, whole[:1]},
			{"fw_main_with_a_long_name", false, whole[:1]},
			{"fw_sum", false, whole[5:6]},
			{"xdp@lo", true, whole},
			{"xdp@1", false, whole[:1]},
			{"prog:fw_main_*", true, whole},
			{fmt.Sprintf("prog:%d/fw_[js]u*", m), false, whole[4:6]},
			{fmt.Sprintf("map:%d", mapID), false, whole[6:]},
			{"prog:fw_two", true, []string{whole[7], whole[6]}},
			{"pin:" + dir + "/two", false, whole[7:]},
			{"prog:" + dir + "/tw?", false, whole[7:]},
			{"prog:" + dir + "/two/fw_*", false, whole[7:]},
			{"prog:tcp_connect", false, []string{fmt.Sprintf("program %d/tcp_connect", id(t, coll.Programs["tcp_connect"]))}},
			{fmt.Sprintf("pid:%d", holder), false, []string{whole[0], whole[2]}},
			{"prog:fw_plain", false, []string{fmt.Sprintf("program %d/fw_plain refused", id(t, plain))}},
		} {
			got, err := tracee.Resolve(t.Context(), src, []string{test.pattern}, tracee.Options{Subprogs: test.subprogs})
			comment := qt.Commentf("%s, %s", name, test.pattern)
			qt.Check(t, qt.IsNil(err), comment)
			want := slices.Clone(test.want)
			if len(gaps) > 0 && len(want) == len(whole) { // before 5.13 memory alone tells
				want = slices.Concat(want[:1], []string{strings.TrimSuffix(want[1], " refused")}, want[4:])
			}
			// A part's place among the functions is the compiler's choice.
			have := described(got)
			slices.Sort(have)
			slices.Sort(want)
			qt.Check(t, qt.DeepEquals(have, want), comment)
		}
		bare, err := tracee.Resolve(t.Context(), src, []string{"tcp_connect"}, tracee.Options{})
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.Equals(bare[0].Kind, tracee.Kernel))
		t.Logf("%s: gaps %v", name, gaps)
	}
}

// TestRunningKernelFunctions: the functions of the kernel that can be traced are
// those that its tracing and its types have, under names that stand for one.
func TestRunningKernelFunctions(t *testing.T) {
	all := sources(t)
	traceable := readTraceable(t)
	addrs := readSymbols(t)
	spec, err := btf.LoadKernelSpec()
	if err != nil {
		t.Skip(err)
	}
	var funcs []string
	for typ, err := range spec.All() {
		qt.Assert(t, qt.IsNil(err))
		if f, ok := typ.(*btf.Func); ok {
			funcs = append(funcs, f.Name)
		}
	}
	for name, src := range all {
		for _, pattern := range []string{"tcp_*", "vfs_*", "*_sched_*", "[a-c]*_get", "xdp_*"} {
			want := make(map[string]bool)
			for _, f := range funcs {
				if fit, _ := path.Match(pattern, f); fit && traceable[f] && len(addrs[f]) == 1 {
					want[f] = true
				}
			}
			start := time.Now()
			fs, err := tracee.Resolve(t.Context(), src, []string{"vmlinux:" + pattern}, tracee.Options{})
			took := time.Since(start)
			qt.Assert(t, qt.IsNil(err))
			n := 0
			for _, f := range fs {
				if f.Refused != nil {
					if want[f.Name] {
						t.Errorf("%s: %s is refused: %s", name, f, f.Refused.Reason)
					}
					continue
				}
				n++
				if !want[f.Name] {
					t.Errorf("%s: %s is not refused", name, f)
				} else if uint64(f.Addr) != addrs[f.Name][0] {
					t.Errorf("%s: %s is at %v, not at %#x", name, f, f.Addr, addrs[f.Name][0])
				}
			}
			qt.Check(t, qt.Equals(n, len(want)), qt.Commentf("%s, %s", name, pattern))
			t.Logf("%s, %s: %d of %d functions in %v", name, pattern, n, len(fs), took)
		}
	}
}

// TestRunningKernelTracepoints: each category has the tracepoints that tracefs
// has.
func TestRunningKernelTracepoints(t *testing.T) {
	src := sources(t)["without memory"]
	for _, category := range []string{"net", "sched", "skb", "irq", "tcp"} {
		dirs, err := filepath.Glob("/sys/kernel/tracing/events/" + category + "/*/format")
		qt.Assert(t, qt.IsNil(err))
		if len(dirs) == 0 {
			t.Skip("tracefs is not mounted")
		}
		var want []string
		for _, d := range dirs {
			want = append(want, "tracepoint:"+filepath.Base(filepath.Dir(d)))
		}
		fs, err := tracee.Resolve(t.Context(), src, []string{"tp:" + category + ":*"}, tracee.Options{})
		qt.Assert(t, qt.IsNil(err))
		got := names(fs)
		slices.Sort(got)
		slices.Sort(want)
		qt.Check(t, qt.DeepEquals(got, want))
		for _, f := range fs {
			qt.Check(t, qt.IsNil(f.Refused))
			for _, p := range f.Params() {
				qt.Check(t, qt.Not(qt.Equals(p.Name, "")), qt.Commentf("%s", f))
			}
		}
	}
}

func readTraceable(t *testing.T) map[string]bool {
	t.Helper()
	f, err := os.Open("/sys/kernel/tracing/available_filter_functions")
	if err != nil {
		t.Skip(err)
	}
	defer f.Close()
	out := make(map[string]bool)
	for lines := bufio.NewScanner(f); lines.Scan(); {
		out[lines.Text()] = true
	}
	return out
}

// readSymbols returns the addresses of the kernel's own symbols.
func readSymbols(t *testing.T) map[string][]uint64 {
	t.Helper()
	f, err := os.Open("/proc/kallsyms")
	qt.Assert(t, qt.IsNil(err))
	defer f.Close()
	out := make(map[string][]uint64)
	for lines := bufio.NewScanner(f); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		addr, err := strconv.ParseUint(fields[0], 16, 64)
		if err != nil || len(fields) > 3 || addr == 0 {
			continue
		}
		if name := fields[2]; !slices.Contains(out[name], addr) {
			out[name] = append(out[name], addr)
		}
	}
	return out
}
