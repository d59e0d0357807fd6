package dumptest

import (
	"fmt"
	"regexp"
)

// A CaseE is a variant of the conntrack kfunc bug: a program of
// internal/runscene.
type CaseE struct {
	Name    string   // of the program, without "_main"
	Times   int      // how often it is run; 0 is once: the first crashes
	kernels []string // where it is made; nil for 6.1 alone
}

// CaseEVariants are the variants, each a scene "caseeNAME-KERNEL".
var CaseEVariants = []CaseE{
	{Name: "xdp", kernels: []string{"6.1", "6.12"}},
	{Name: "deep", kernels: []string{"6.1", "6.12"}},
	{Name: "ptr", kernels: []string{"6.1", "6.12"}},
	{Name: "size2", kernels: []string{"6.1", "6.12"}},
	{Name: "size3", kernels: []string{"6.1", "6.12"}},
	{Name: "size4", kernels: []string{"6.1", "6.12"}},
	{Name: "pos5", kernels: []string{"6.1", "6.12"}},
	{Name: "main", Times: 2},
	{Name: "plain"},
	{Name: "ret"},
}

// Kernels returns the kernels on which the variant is made.
func (c CaseE) Kernels() []string {
	if c.kernels == nil {
		return []string{"6.1"}
	}
	return c.kernels
}

// Scene returns the name of the variant's scene.
func (c CaseE) Scene(kernel string) string { return "casee" + c.Name + "-" + kernel }

// runScenes are the scenes of internal/runscene but those of Crashes.
func runScenes() []scene {
	// Case C is the ring buffer as it was before 67f0d6d9883c: it is empty
	// only if all that was committed was read, though what is read may be
	// more. The guest says when its reader has looped for seconds.
	const (
		fixedEmpty = "488b4030 488b4008 85c0 0f94c2 89d0 c3" // commit->page->commit == 0
		oldEmpty   = "8b4818 488b4030 394808 0f94c2 89d0 c3" // head->read == commit->page->commit
	)
	out := []scene{
		{name: "casec-6.1", kernel: "6.1", guest: "runscene", workload: "ringbuf", brief: true, cmdline: "nokaslr",
			at: "rb_per_cpu_empty", old: fixedEmpty, patch: oldEmpty, trigger: regexp.MustCompile(`runscene: the worker spins`)},
		{name: "casecfixed-6.1", kernel: "6.1", guest: "runscene", workload: "ringbuf 584", brief: true, cmdline: "nokaslr",
			trigger: regexp.MustCompile(`runscene: all rounds are done`)},
	}
	for _, c := range CaseEVariants {
		for _, kernel := range c.Kernels() {
			out = append(out, scene{
				name: c.Scene(kernel), kernel: kernel, guest: "runscene", workload: fmt.Sprintf("casee %s %d", c.Name, max(1, c.Times)), brief: true,
				cmdline: "oops=panic panic=0", modules: []string{"nf_conntrack"}, trigger: panicked,
			})
		}
	}
	return out
}
