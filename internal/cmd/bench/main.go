// Bench measures ksleuth beside crash and drgn on one dump, on dumps of guests with
// more and less memory, its decoder beside objdump, its emulator beside Unicorn
// and its tracer beside bpftrace, and prints the ratios. Whole processes are measured, except of the
// emulators, in turns, so that what slows the machine slows all; the median
// counts.
//
//	bench [-runs N] [-ksleuth FILE]
//
// A peer that is missing is left out, saying so.
package main

import (
	"context"
	_ "embed"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"

	"github.com/ksleuth/ksleuth/internal/dumptest"
	"github.com/ksleuth/ksleuth/vm"
)

// systemPython is the interpreter that Debian's python3-drgn is for.
const systemPython = "/usr/bin/python3"

//go:embed bt_drgn.py
var btDrgn string

// judged is the kernel of which there is debug info, which the peers need.
const judged = "6.1"

func main() {
	runs := flag.Int("runs", 5, "measured runs of each command; one more warms up")
	binary := flag.String("ksleuth", "", "measure this binary; default: one built of this checkout")
	decode := flag.String("decode", "", "only decode this file of machine code; for the benchmark itself")
	base := flag.String("base", "0", "where that code stands")
	flag.Parse()
	if *decode != "" {
		if err := decodeOnly(*decode, *base); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(1)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := bench(ctx, os.Stdout, *binary, *runs); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func bench(ctx context.Context, w io.Writer, binary string, runs int) error {
	if runs < 1 {
		return errors.New("-runs must be 1 at least")
	}
	if binary == "" {
		dir, err := os.MkdirTemp("", "bench")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		binary = filepath.Join(dir, "ksleuth")
		build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", binary, "github.com/ksleuth/ksleuth/cmd/ksleuth")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if msg, err := build.CombinedOutput(); err != nil {
			return fmt.Errorf("building ksleuth: %w\n%s", err, msg)
		}
	}
	for _, part := range []func(context.Context, io.Writer, string, int) error{beside, growth, decoding, emulating, objects, tracing} {
		if err := part(ctx, w, binary, runs); err != nil {
			return err
		}
	}
	return nil
}

// scene returns the path, without extension, of a scene's files.
func scene(ctx context.Context, name string) (string, error) {
	dir, err := dumptest.Make(ctx, name)
	return filepath.Join(dir, name), err
}

// A duel is one of our commands and a peer's that does the same.
type duel struct {
	ours, peer command
	missing    string // why the peer cannot run, or ""
}

// beside measures ksleuth beside its peers on one dump in two forms: crash
// opens the flattened kdump, drgn only the ELF file.
func beside(ctx context.Context, w io.Writer, binary string, runs int) error {
	base, err := scene(ctx, "casee-"+judged)
	if err != nil {
		return err
	}
	kdump, elf := base+".kdump", base+".elf"
	const pid = "3" // a kernel thread that sleeps
	crash := func(c string) command {
		return peer("crash "+c, c+"\nquit\n", "crash", "-s", vmlinux(), kdump)
	}
	noCrash, noDrgn := missing("crash", "-v"), missing(systemPython, "-c", "import drgn")
	fmt.Fprintf(w, "%s (flattened, %s) and %s (%s)\n", filepath.Base(kdump), size(kdump), filepath.Base(elf), size(elf))
	for _, d := range []duel{
		{ours(binary, kdump, "bt"), crash("bt"), noCrash},
		{ours(binary, kdump, "report"), crash("bt"), noCrash},
		{ours(binary, kdump, "log"), crash("log"), noCrash},
		{ours(binary, elf, "bt", pid), peer("drgn bt "+pid, btDrgn, systemPython, "-", elf, vmlinux(), pid), noDrgn},
	} {
		if err := d.run(ctx, w, runs); err != nil {
			return err
		}
	}
	return nil
}

func (d duel) run(ctx context.Context, w io.Writer, runs int) error {
	if d.missing != "" {
		m, err := measure(ctx, runs, d.ours)
		if err == nil {
			fmt.Fprintf(w, "  %-18s %v    %s is left out: %s\n", d.ours.name, m[0], d.peer.name, d.missing)
		}
		return err
	}
	m, err := measure(ctx, runs, d.ours, d.peer)
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "  %-18s %v    %-10s %v    %.0f times as fast, 1/%.0f of the memory\n",
		d.ours.name, m[0], d.peer.name, m[1], m[1].wall.Seconds()/m[0].wall.Seconds(), float64(m[1].rss)/float64(m[0].rss))
	return nil
}

// vmlinux returns the path of the kernel's file with debug info.
func vmlinux() string {
	if path := os.Getenv("KSLEUTH_VMLINUX"); path != "" {
		return path
	}
	cache, err := vm.CacheDir()
	if err != nil {
		return ""
	}
	return filepath.Join(cache, "kernels", judged, "vmlinux")
}

// missing says why a peer cannot run, if the command that tries it fails.
func missing(try ...string) string {
	if exec.Command(try[0], try[1:]...).Run() != nil {
		return "it is not installed"
	}
	if _, err := os.Stat(vmlinux()); err != nil {
		return "no debug info (scripts/kernels --dbg " + judged + ")"
	}
	return ""
}

// growth measures commands on the dumps of a small and a large guest: what
// they cost must depend on what they look at, not on the memory there is.
func growth(ctx context.Context, w io.Writer, binary string, runs int) error {
	small, err := scene(ctx, "memory512-"+judged)
	if err != nil {
		return err
	}
	large, err := scene(ctx, "memory4096-"+judged)
	if err != nil {
		return err
	}
	for _, form := range []string{".kdump", ".elf"} {
		fmt.Fprintf(w, "guests with 512 MiB and 4 GiB, %s: %s and %s\n", form, size(small+form), size(large+form))
		for _, args := range [][]string{{"bt"}, {"bt", "all"}, {"report"}, {"log"}} {
			m, err := measure(ctx, runs, ours(binary, small+form, args...), ours(binary, large+form, args...))
			if err != nil {
				return err
			}
			fmt.Fprintf(w, "  %-18s %v    4 GiB %v    %.2f times the time, %.2f times the memory\n",
				"ksleuth "+strings.Join(args, " "), m[0], m[1], m[1].wall.Seconds()/m[0].wall.Seconds(), float64(m[1].rss)/float64(m[0].rss))
		}
	}
	return nil
}

func size(path string) string {
	fi, err := os.Stat(path)
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("%.1f MiB", float64(fi.Size())/(1<<20))
}
