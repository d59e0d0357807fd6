package cli_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/go-quicktest/qt"

	"github.com/ksleuth/ksleuth/bpf"
	"github.com/ksleuth/ksleuth/cli"
	"github.com/ksleuth/ksleuth/kernel"
	"github.com/ksleuth/ksleuth/report"
	"github.com/ksleuth/ksleuth/vmcore"
)

// The damage test runs commands over damaged copies of a real dump: cut off,
// bits flipped in the file, words overwritten in the memory it holds. Whatever
// the damage, a command ends soon, without panic and in bounded memory, with
// status 0, 1 or 5, and where it is 5 says what could not be read.
//
// KSLEUTH_DAMAGE_ROUNDS=N makes N damages of each kind instead of a few and
// runs every command over each; KSLEUTH_DAMAGE_SEED begins elsewhere;
// KSLEUTH_DAMAGE_DUMP=FILE damages another dump.

// example is a dump of case E of kernel 6.1, with the pages that these
// commands read.
const example = "../testdata/example.kdump"

func damagedDump() string { return cmp.Or(os.Getenv("KSLEUTH_DAMAGE_DUMP"), example) }

// damageCommands are run over each damaged dump: the first always, the others
// in turn. PID and ID stand for a process and a program of the dump.
var damageCommands = [][]string{
	{"report"},
	{"bt", "all"},
	{"ps"},
	{"files", "PID"},
	{"log"},
	{"disasm", "prog:ID"},
	{"mods"},
	{"sym", "bpf_prog_*"},
	{"-o", "json", "report"},
	{"type", "nf_conn"},
	{"print", "list_for_each(&init_task.tasks, struct task_struct, tasks)->comm"},
	{"-o", "json", "bt", "all"},
	{"emulate", "--frame", "0", "--watch", "rbp"},
	{"emulate", "rb_per_cpu_empty(global_trace.array_buffer.buffer->buffers[0])"},
	{"-o", "json", "emulate", "--trace", "insns", "prog:ID(0)"},
	{"sym", "nf_conntrack:nf_ct_delete"},
	{"print", "init_task"},
	{"-o", "json", "files", "PID"},
}

const (
	damagePatience = 20 * time.Second
	damageMemory   = 512 << 20
)

func TestDamage(t *testing.T) {
	rounds, seed, every := 10, uint64(1), false
	if s := os.Getenv("KSLEUTH_DAMAGE_ROUNDS"); s != "" {
		n, err := strconv.Atoi(s)
		qt.Assert(t, qt.IsNil(err))
		rounds, every = n, true
	}
	if s := os.Getenv("KSLEUTH_DAMAGE_SEED"); s != "" {
		n, err := strconv.ParseUint(s, 0, 64)
		qt.Assert(t, qt.IsNil(err))
		seed = n
	}
	all := dumpCommands(t)
	for name, s := range makeSpecimens(t) {
		for _, kind := range s.kinds {
			t.Run(name+"/"+kind.name, func(t *testing.T) {
				t.Parallel()
				path := filepath.Join(t.TempDir(), name)
				for round := range rounds {
					rng := rand.New(rand.NewPCG(seed, uint64(round)))
					file, what := kind.damage(rng, slices.Clone(s.file))
					qt.Assert(t, qt.IsNil(os.WriteFile(path, file, 0o600)))
					commands := all
					if !every {
						commands = [][]string{all[0], all[1+(2*round+len(kind.name))%(len(all)-1)]}
					}
					for _, args := range commands {
						if problem := runDamaged(t, path, args); problem != "" {
							t.Errorf("round %d: %s\nksleuth %s: %s", round, cutText(what), strings.Join(args, " "), problem)
						}
					}
				}
			})
		}
	}
}

// dumpCommands returns the damageCommands for the process that panicked, or
// else init, and the last program that was loaded.
func dumpCommands(t *testing.T) [][]string {
	t.Helper()
	k := openKernel(t)
	pid, id := 1, 1
	if task, ok, err := report.Panicked(k); ok && err == nil && task.TGID > 0 {
		pid = task.TGID
	}
	progs, _ := bpf.Programs(k) // of the example, their surroundings are missing
	for _, p := range progs {
		id = p.ID
	}
	words := strings.NewReplacer("PID", strconv.Itoa(pid), "ID", strconv.Itoa(id))
	var out [][]string
	for _, args := range damageCommands {
		var line []string
		for _, a := range args {
			line = append(line, words.Replace(a))
		}
		out = append(out, line)
	}
	return out
}

func openKernel(t *testing.T) *kernel.Kernel {
	t.Helper()
	core, err := vmcore.Open(damagedDump())
	qt.Assert(t, qt.IsNil(err))
	t.Cleanup(func() { core.Close() })
	k, err := kernel.FromSource(t.Context(), core)
	qt.Assert(t, qt.IsNil(err))
	return k
}

// absent are answers to questions about what a damaged dump no longer shows to
// be there: no fault of the dump that could be noticed.
var absent = regexp.MustCompile(`no task has pid|no BPF program with id|no symbol|not found|no type|has no function|has no BTF|has no ORC`)

// where is an address, an offset or a size: every message about damage has one.
var where = regexp.MustCompile(`0x[0-9a-f]+|\d`)

// runDamaged runs a command over a dump and says what is wrong with how it
// went, or "".
func runDamaged(t *testing.T, path string, args []string) string {
	t.Helper()
	type result struct {
		status      int
		out, errOut bytes.Buffer
	}
	done := make(chan *result, 1)
	go func() {
		r := new(result)
		r.status = cli.Run(context.Background(), append([]string{"-t", path}, args...),
			cli.Streams{In: strings.NewReader(""), Out: &limited{w: &r.out}, Err: &limited{w: &r.errOut}})
		done <- r
	}()
	var r *result
	select {
	case r = <-done:
	case <-time.After(damagePatience):
		buf := make([]byte, 1<<20)
		t.Fatalf("ksleuth %s does not end:\n%s", strings.Join(args, " "), buf[:runtime.Stack(buf, true)])
	}
	var ms runtime.MemStats
	runtime.ReadMemStats(&ms)
	said := r.errOut.String()
	if said == "" {
		said = r.out.String()
	}
	switch {
	case ms.HeapSys > damageMemory:
		return fmt.Sprintf("the heap grew to %d MiB", ms.HeapSys>>20)
	case strings.Contains(r.out.String()+r.errOut.String(), "\x1b"):
		return "an escape sequence of the dump reaches the terminal"
	case r.status == 2 && absent.MatchString(said):
		return ""
	case r.status != 0 && r.status != 1 && r.status != 5:
		return fmt.Sprintf("status %d: %s", r.status, cutText(said))
	case r.status == 5 && !where.MatchString(said) && !absent.MatchString(said):
		return fmt.Sprintf("status 5 without a place: %q", cutText(said))
	case r.status == 5 && r.out.Len()+r.errOut.Len() == 0:
		return "status 5 without a word"
	case slices.Contains(args, "json"):
		for line := range bytes.Lines(r.out.Bytes()) {
			if !json.Valid(line) {
				return fmt.Sprintf("no JSON: %s", cutText(string(line)))
			}
		}
	}
	return ""
}

func cutText(s string) string { return s[:min(len(s), 600)] }

// limited bounds what a command may print.
type limited struct {
	w *bytes.Buffer
	n int
}

func (l *limited) Write(p []byte) (int, error) {
	const most = 64 << 20
	if l.n += len(p); l.n > most {
		return 0, errors.New("more than 64 MiB of output")
	}
	return l.w.Write(p)
}

// TestMemoryClaimed: a header can claim any amount of memory; only what the
// file holds is searched for a kernel.
func TestMemoryClaimed(t *testing.T) {
	s := makeSpecimens(t)["elf"]
	file := slices.Clone(s.file)
	notes := binary.LittleEndian.Uint64(file[64+8:])
	size := binary.LittleEndian.Uint64(file[64+32:])
	clear(file[notes : notes+size])
	binary.LittleEndian.PutUint64(file[64+56+40:], 1<<46) // p_memsz
	path := filepath.Join(t.TempDir(), "claims")
	qt.Assert(t, qt.IsNil(os.WriteFile(path, file, 0o600)))
	qt.Check(t, qt.Equals(runDamaged(t, path, []string{"report"}), ""))
}

// TestFormatsAgree: the damage test damages what reads well undamaged.
func TestFormatsAgree(t *testing.T) {
	var want string
	for name, s := range makeSpecimens(t) {
		path := filepath.Join(t.TempDir(), "dump")
		qt.Assert(t, qt.IsNil(os.WriteFile(path, s.file, 0o600)))
		var out, errOut bytes.Buffer
		status := cli.Run(context.Background(), []string{"-t", path, "bt", "all"}, cli.Streams{Out: &out, Err: &errOut})
		qt.Check(t, qt.Equals(status, 0), qt.Commentf("%s: %s", name, errOut.String()))
		if want == "" {
			want = out.String()
		}
		qt.Check(t, qt.Equals(out.String(), want), qt.Commentf("%s", name))
	}
}

// TestNoDump: what is no dump, or not readable, is said in one line.
func TestNoDump(t *testing.T) {
	dir := t.TempDir()
	file := func(name string, content []byte) string {
		path := filepath.Join(dir, name)
		qt.Assert(t, qt.IsNil(os.WriteFile(path, content, 0o600)))
		return path
	}
	raw, err := os.ReadFile(example)
	qt.Assert(t, qt.IsNil(err))
	otherArch := slices.Clone(raw)
	copy(otherArch[12+4*65:], "aarch64\x00")
	arm := make([]byte, 128)
	copy(arm, "\x7fELF\x02\x01\x01")
	arm[16], arm[18] = 4, 183
	exe, err := os.Executable()
	qt.Assert(t, qt.IsNil(err))
	for _, test := range []struct {
		path   string
		status int
		says   string
	}{
		{file("empty", nil), 5, "not a crash dump"},
		{file("text", []byte("hello, world\n")), 5, "not a crash dump"},
		{file("kdump.gz", []byte("\x1f\x8b\x08\x00\x00\x00\x00\x00")), 5, "gzip"},
		{file("arm.kdump", otherArch), 5, "aarch64"},
		{file("arm.elf", arm), 5, "183"},
		{exe, 5, "not a crash dump"},
		{dir, 2, "directory"},
		{filepath.Join(dir, "absent"), 2, "no such file"},
	} {
		var out, errOut bytes.Buffer
		status := cli.Run(context.Background(), []string{"-t", test.path, "report"}, cli.Streams{Out: &out, Err: &errOut})
		said := errOut.String()
		c := qt.Commentf("%s: %s", test.path, said)
		qt.Check(t, qt.Equals(status, test.status), c)
		qt.Check(t, qt.StringContains(said, test.says), c)
		qt.Check(t, qt.StringContains(said, filepath.Base(test.path)), c)
		qt.Check(t, qt.Equals(strings.Count(said, "\n"), 1), c)
		qt.Check(t, qt.Equals(out.String(), ""), c)
	}
}
