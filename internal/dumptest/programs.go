package dumptest

import "sync"

// A program is what a guest runs, and what is recorded of such a guest.
type program struct {
	path  string                 // in the guest: not /init, so that the workload's task has a name of its own
	build func() (string, error) // gives its path here, and builds it once a process: a test asks for many files
	facts []fact
	brief []fact // of brief scenes, unless nil
}

// programs are the programs of guests, by their folders below internal/.
var programs = map[string]*program{
	"guest":     guestProgram("guest", allFacts, symbolFacts),
	"bpfscene":  guestProgram("bpfscene", bpfFacts, nil),
	"runscene":  guestProgram("runscene", runFacts, nil),
	"callscene": guestProgram("callscene", callFacts, nil),
}

func guestProgram(name string, facts, brief []fact) *program {
	return &program{"/" + name, sync.OnceValues(func() (string, error) { return Build(name) }), facts, brief}
}

// A fact is something the guest's kernel says of itself: a file of the guest,
// or the output of a subcommand of the guest program.
type fact struct {
	ext, file, command string
	after              bool // recorded after the trigger
}

// symbolFacts are enough for most.
var symbolFacts = []fact{{ext: "kallsyms", file: "/proc/kallsyms"}}

// runFacts are those of runScenes. The list of programs is empty but in case E.
var runFacts = []fact{{ext: "kallsyms", file: "/proc/kallsyms"}, {ext: "programs", file: "/programs.txt"}}

var allFacts = []fact{
	{ext: "kallsyms", file: "/proc/kallsyms"},
	{ext: "modules", file: "/proc/modules"},
	{ext: "iomem", file: "/proc/iomem"},
	{ext: "meminfo", file: "/proc/meminfo"},
	{ext: "version", file: "/proc/version"},
	{ext: "cmdline", file: "/proc/cmdline"},
	{ext: "bpf", command: "bpf"},
	{ext: "stacks", command: "stacks"},
	{ext: "dmesg", command: "dmesg"},
	{ext: "ps", command: "ps"},
}

// bpfFacts are those of bpfScenes. The list exists only of a zoo; "many" writes
// an empty one.
var bpfFacts = []fact{
	{ext: "objects", file: "/objects.txt"},
	{ext: "jited", command: "jited"},
	{ext: "kallsyms", file: "/proc/kallsyms"},
}
