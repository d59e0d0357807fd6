package dumptest

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/ksleuth/ksleuth/vm"
)

// A Crash is a way for a kernel to end. Most are made by patching the code of
// getpgid(2), which the workload then calls.
type Crash struct {
	Name    string
	patch   string   // machine code in hexadecimal; {symbol} stands for its address
	cmdline string   // on top of what makes every oops a panic
	kernels []string // where it is made; nil for 6.1 alone
	run     string   // workload of internal/runscene; "" for the ordinary program's
	at      string   // function to patch, or "" for getpgid(2)
	modules []string
}

// patched is the function whose code is replaced.
const patched = "__x64_sys_getpgid"

// every are all kernels of the tests.
var every = []string{"5.10", "6.1", "6.12", "7.2"}

// Crashes are the ways to crash, each a scene "crash-NAME-KERNEL".
var Crashes = []Crash{
	{Name: "sysrq", kernels: every},
	{Name: "null-read", patch: "31c0 488b4010", kernels: every}, // xor %eax,%eax; mov 0x10(%rax),%rax
	{Name: "null-write", patch: "31c0 48895808"},                // mov %rbx,0x8(%rax)
	{Name: "null-call", patch: "31c0 ffd0", kernels: every},     // call *%rax
	{Name: "wild-read", patch: "48b80000dec0addeffff 8b08"},     // movabs; mov (%rax),%ecx
	{Name: "wild-call", patch: "48b80000dec0addeffff ffd0"},
	{Name: "data-call", patch: "48b8{init_task} ffd0"},
	{Name: "list-poison", patch: "48b8000100000000adde 488b4808"}, // mov 0x8(%rax),%rcx
	{Name: "bug", patch: "0f0b", kernels: every},                  // ud2
	{Name: "read-only", patch: "48b8{_stext} c60001"},             // movb $0x1,(%rax)
	{Name: "divide", patch: "31c9 31d2 f7f1"},                     // div %ecx
	{Name: "user-read", patch: "48b80010000000000000 8b08"},
	{Name: "double-fault", patch: "31e4 50"}, // xor %esp,%esp; push %rax
	// A loop; a kernel that preempts its own code lazily sees no lockup.
	{Name: "soft-lockup", patch: "ebfe", cmdline: "softlockup_panic=1 watchdog_thresh=2", kernels: []string{"5.10", "6.1", "6.12"}},
	// schedule_timeout_uninterruptible(0x10000)
	{Name: "hung-task", patch: "bf00000100 48b8{schedule_timeout_uninterruptible} ffd0",
		cmdline: "hung_task_panic=1 sysctl.kernel.hung_task_timeout_secs=3 sysctl.kernel.hung_task_check_interval_secs=1"},
	// The driver of a network device is asked for the device's statistics.
	{Name: "null-module", patch: "31c0 488b4010", run: "netstats", at: "dummy:dummy_get_stats64", modules: []string{"dummy"}, kernels: []string{"6.1", "6.12"}},
	{Name: "oom", run: "oom", cmdline: "sysctl.vm.panic_on_oom=2"},
}

// Kernels returns the kernels on which the crash is made.
func (c Crash) Kernels() []string {
	if c.kernels == nil {
		return []string{"6.1"}
	}
	return c.kernels
}

// Dump returns the path of the crash's dump.
func (c Crash) Dump(t testing.TB, kernel string) string {
	t.Helper()
	return Get(t, "crash-"+c.Name+"-"+kernel+".kdump")
}

// crashScenes are the scenes of Crashes.
func crashScenes() []scene {
	var out []scene
	for _, c := range Crashes {
		for _, kernel := range c.Kernels() {
			s := scene{
				name: "crash-" + c.Name + "-" + kernel, kernel: kernel, workload: "getpgid", patch: c.patch, at: c.at, brief: true,
				cmdline: strings.TrimSpace("oops=panic panic=0 " + c.cmdline), trigger: panicked, modules: c.modules,
			}
			switch {
			case c.run != "":
				s.guest, s.workload = "runscene", c.run
			case c.patch == "":
				s.workload = "sysrq"
			}
			out = append(out, s)
		}
	}
	return out
}

var placeholder = regexp.MustCompile(`\{\w+\}`)

// apply writes the scene's patch over the code of the running guest, whose
// symbols are in the file kallsyms.
func (s *scene) apply(v *vm.VM, kallsyms string) error {
	symbols, err := readAllKallsyms(kallsyms)
	if err != nil {
		return err
	}
	text := placeholder.ReplaceAllStringFunc(s.patch, func(name string) string {
		return hex.EncodeToString(binary.LittleEndian.AppendUint64(nil, address(symbols[""], name[1:len(name)-1])))
	})
	code, err := machineCode(text)
	if err != nil {
		return err
	}
	module, name, ok := strings.Cut(cmp.Or(s.at, patched), ":")
	if !ok {
		module, name = "", module
	}
	at := address(symbols[module], name)
	if at == 0 {
		return fmt.Errorf("this kernel has no symbol %s", s.at)
	}
	if s.old != "" {
		if at, err = s.findOld(v, at, len(code)); err != nil {
			return err
		}
	}
	return v.WriteMem(code, at)
}

// findOld returns where in the function at the address at the code lies that
// the patch, of so many bytes, replaces.
func (s *scene) findOld(v *vm.VM, at uint64, size int) (uint64, error) {
	old, err := machineCode(s.old)
	if err != nil {
		return 0, err
	}
	if len(old) != size {
		return 0, fmt.Errorf("the patch has %d bytes, what it replaces %d", size, len(old))
	}
	code := make([]byte, 256) // the functions are short
	if err := v.ReadMem(code, at); err != nil {
		return 0, err
	}
	i := bytes.Index(code, old)
	if i < 0 {
		return 0, fmt.Errorf("%s does not have the code %s that the patch replaces, but %x", s.at, s.old, code)
	}
	return at + uint64(i), nil
}

func machineCode(text string) ([]byte, error) {
	code, err := hex.DecodeString(strings.ReplaceAll(text, " ", ""))
	if err != nil {
		return nil, fmt.Errorf("machine code %q: %w", text, err)
	}
	return code, nil
}

// address returns the address of a symbol, or 0.
func address(symbols []Symbol, name string) uint64 {
	i := slices.IndexFunc(symbols, func(s Symbol) bool { return s.Name == name })
	if i < 0 {
		return 0
	}
	return symbols[i].Addr
}
