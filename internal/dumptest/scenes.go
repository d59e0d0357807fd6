// Package dumptest makes the standard dumps of the tests: real kernels, in
// known states, each with what the kernel itself said of that state just
// before. They are made on demand and kept in the cache.
//
// A scene is named after its state and kernel, a file after scene and content:
// "casee-6.1.kdump". There are
//
//	.elf         dump, ELF: QEMU's, or of a kexec scene the kernel's own
//	.kdump       QEMU's dump of the same moment, flattened kdump with zlib
//	.console     serial console
//	.dmesg       kernel log, from syslog(2)
//	.ps          "pid ppid state threads comm" of each process
//	.stacks      of each thread "tid comm" and its /proc/PID/stack
//	.bpf         programs, maps and links, from bpf(2)
//	.kallsyms .modules .iomem .meminfo .version .cmdline    from /proc
//
// Scenes of BPF objects, "bpf-6.1" and "bpfmany-6.1", have a kdump and
//
//	.objects     what was made, and what the kernel lacks
//	.jited       of each program a line of JSON: its machine code, from bpf(2)
//	.kallsyms    from /proc
//
// Scenes of internal/runscene, "caseexdp-6.1" and "casec-6.1", have a kdump and
//
//	.programs    of case E "id type name tag" of the program
//	.kallsyms    from /proc
//	.console     serial console
//
// Scenes of internal/callscene, "calls-6.1", have a kdump and
//
//	.calls       of each call of a kernel function a line of JSON: callgate.Record
//	.kallsyms    from /proc
//	.console     serial console; has what was not called, and why
package dumptest

import (
	"regexp"
	"slices"
)

// A scene is a state of a guest to dump.
type scene struct {
	name     string
	kernel   string
	workload string // subcommand of the guest program, with arguments; says "ready"
	guest    string // program of programs, or "" for the ordinary one
	cpu      string // QEMU's -cpu, or "" for the default
	cmdline  string
	modules  []string
	memory   int    // MiB, or 0 for the default
	kexec    bool   // the dump is /proc/vmcore, saved by a crash kernel
	cpus     int    // or 0 for the default
	offline  string // CPU to take offline, or ""
	patch    string // of the guest's code before the trigger; see Crash
	at       string // function that the patch changes, "MODULE:NAME" of a module; "" for getpgid(2)
	old      string // machine code in it that the patch replaces; "" for its start
	brief    bool   // only the kdump, the console and kallsyms are kept
	// trigger, if set, is the line of the console that comes some time
	// after the workload got SIGUSR1, when the dump is due.
	trigger *regexp.Regexp
}

// panicked is the last line of a panic.
var panicked = regexp.MustCompile(`end Kernel panic`)

// scenes are all scenes. One has 5-level page tables.
var scenes = []scene{
	{name: "idle-5.10", kernel: "5.10", workload: "idle"},
	{name: "idle-6.1", kernel: "6.1", workload: "idle"},
	{name: "idle-6.12", kernel: "6.12", workload: "idle"},
	{name: "idle-7.2", kernel: "7.2", workload: "idle", cpu: "max"},
	{name: "traced-5.10", kernel: "5.10", workload: "traced"},
	{name: "traced-6.1", kernel: "6.1", workload: "traced"},
	{name: "traced-6.12", kernel: "6.12", workload: "traced"},
	{name: "traced-7.2", kernel: "7.2", workload: "traced"},
	{name: "casee-6.1", kernel: "6.1", workload: "casee", cmdline: "oops=panic panic=0", modules: []string{"nf_conntrack"}, trigger: panicked},
	{name: "casee-6.12", kernel: "6.12", workload: "casee", cmdline: "oops=panic panic=0", modules: []string{"nf_conntrack"}, trigger: panicked},
	{name: "kexec-5.10", kernel: "5.10", workload: "sysrq", kexec: true, memory: 512, cmdline: "crashkernel=128M"},
	{name: "kexec-6.1", kernel: "6.1", workload: "casee", kexec: true, memory: 512, cmdline: "crashkernel=128M oops=panic", modules: []string{"nf_conntrack"}},
	{name: "kexec-6.12", kernel: "6.12", workload: "casee", kexec: true, memory: 512, cpus: 3, offline: "1", cmdline: "crashkernel=128M oops=panic", modules: []string{"nf_conntrack"}},
	{name: "kexec-7.2", kernel: "7.2", workload: "sysrq", kexec: true, memory: 512, cpus: 3, offline: "1", cpu: "max", cmdline: "crashkernel=128M"},
}

// sizedScenes are like casee-6.1 in guests with more memory. Only benchmarks
// ask for them, so that tests need not make them.
var sizedScenes = []scene{
	{name: "memory512-6.1", memory: 512, kernel: "6.1", workload: "casee", cmdline: "oops=panic panic=0", modules: []string{"nf_conntrack"}, trigger: panicked},
	{name: "memory4096-6.1", memory: 4096, kernel: "6.1", workload: "casee", cmdline: "oops=panic panic=0", modules: []string{"nf_conntrack"}, trigger: panicked},
}

// BPFModules are the modules through which internal/bpfscene attaches.
var BPFModules = []string{"dummy", "veth", "sch_ingress", "cls_bpf", "act_bpf"}

// WithLSM is the kernel command line that has the BPF LSM in force also where it
// is not by default.
const WithLSM = "lsm=lockdown,yama,bpf"

// bpfScenes are guests full of BPF objects: of every kind, or many.
var bpfScenes = []scene{
	{name: "bpf-5.10", kernel: "5.10", workload: "zoo", guest: "bpfscene", brief: true, modules: BPFModules, cmdline: WithLSM},
	{name: "bpf-6.1", kernel: "6.1", workload: "zoo", guest: "bpfscene", brief: true, modules: BPFModules, cmdline: WithLSM},
	{name: "bpf-6.12", kernel: "6.12", workload: "zoo", guest: "bpfscene", brief: true, modules: BPFModules, cmdline: WithLSM},
	{name: "bpf-7.2", kernel: "7.2", workload: "zoo", guest: "bpfscene", brief: true, modules: BPFModules, cmdline: WithLSM},
	{name: "bpfmany-6.1", kernel: "6.1", workload: "many 500", guest: "bpfscene", brief: true},
}

// Scenes returns the names of all scenes that tests use.
func Scenes() []string {
	var names []string
	for _, s := range slices.Concat(scenes, bpfScenes) {
		names = append(names, s.name)
	}
	return names
}
