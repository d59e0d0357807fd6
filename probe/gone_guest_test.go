package probe_test

import (
	"bufio"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/go-quicktest/qt"
	"golang.org/x/sys/unix"

	"github.com/ksleuth/ksleuth/ctype"
	"github.com/ksleuth/ksleuth/probe"
)

// objects counts the kernel's BPF programs and links.
func objects(t testing.TB) (progs, links int) {
	t.Helper()
	for id := ebpf.ProgramID(0); ; progs++ {
		next, err := ebpf.ProgramGetNextID(id)
		if err != nil {
			break
		}
		id = next
	}
	it := new(link.Iterator)
	for it.Next() {
		links++
	}
	return progs, links
}

// TestRunningKernelGone: nothing is left after Close, nor when the process was
// killed.
func TestRunningKernelGone(t *testing.T) {
	types := needTracing(t)
	base := func() bool { p, l := objects(t); return p == 0 && l == 0 }
	eventually(t, base)
	s := attach(t, probe.Config{Points: []probe.Point{
		{Func: mustFunction(t, types, "__x64_sys_getpgid"), Mechanism: probe.Trampoline, Entry: true, Exit: true},
	}})
	p, _ := objects(t)
	qt.Assert(t, qt.Equals(p, 2))
	qt.Assert(t, qt.IsNil(s.Close()))
	qt.Assert(t, qt.IsNil(s.Close()))
	eventually(t, base)

	c := start(t, "attach")
	c.says(t, "attached")
	p, _ = objects(t)
	qt.Assert(t, qt.Equals(p, 2))
	qt.Assert(t, qt.IsNil(c.Process.Kill()))
	c.Wait()
	eventually(t, base)
}

// traceable returns functions of the kernel that ftrace has, by prefix.
func traceable(t testing.TB, n int, types *ctype.Types) []string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tracefs", dir, "tracefs", 0, ""); err != nil {
		t.Skip("mounting tracefs: ", err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	f, err := os.Open(filepath.Join(dir, "available_filter_functions"))
	qt.Assert(t, qt.IsNil(err))
	defer f.Close()
	var out []string
	seen := make(map[string]bool)
	for in := bufio.NewScanner(f); in.Scan() && len(out) < n; {
		name := strings.Fields(in.Text())[0]
		if seen[name] || strings.ContainsAny(name, ".") || !slices.ContainsFunc([]string{"tcp_", "udp_", "inet_", "ip_", "ext4_", "nfs_", "sock_", "dev_", "netlink_", "ipv6_", "crypto_", "pci_", "acpi_"}, func(p string) bool {
			return strings.HasPrefix(name, p)
		}) {
			continue
		}
		seen[name] = true
		all := types.LookupAll(name)
		if len(all) == 1 && all[0].Kind() == ctype.Func && all[0].Module() == "vmlinux" {
			out = append(out, name)
		}
	}
	return out
}

// TestRunningKernelMany: many functions at once. A kernel that waits for all
// tasks with each that is taken off takes a minute for 500.
func TestRunningKernelMany(t *testing.T) {
	types := needTracing(t)
	names := traceable(t, 100, types)
	qt.Assert(t, qt.HasLen(names, 100))
	for _, tt := range []struct {
		m     probe.Mechanism
		entry bool
	}{{probe.Trampoline, false}, {probe.Trampoline, true}, {probe.FSession, true}, {probe.KprobeMulti, true}} {
		if err := probe.Supports(tt.m); err != nil {
			t.Log(err)
			continue
		}
		var points []probe.Point
		for _, n := range names {
			points = append(points, probe.Point{Func: mustFunction(t, types, n), Mechanism: tt.m, Entry: tt.entry, Exit: true})
		}
		begin := time.Now()
		s, err := probe.Attach(t.Context(), probe.Config{Points: points, Tree: tt.entry})
		qt.Assert(t, qt.IsNil(err))
		attached := time.Since(begin)
		failed := s.Failed()
		for _, f := range failed[:min(len(failed), 3)] {
			t.Log(f.Point, f.Err)
		}
		qt.Assert(t, qt.IsTrue(len(failed) < 10), qt.Commentf("%d failed", len(failed)))
		begin = time.Now()
		qt.Assert(t, qt.IsNil(s.Detach()))
		detached := time.Since(begin)
		begin = time.Now()
		qt.Assert(t, qt.IsNil(s.Close()))
		t.Logf("%s entry=%v: attached in %v, detached in %v, closed in %v; %d failed", tt.m, tt.entry, attached, detached, time.Since(begin), len(failed))
	}
}
