package judge

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/ksleuth/ksleuth/cli"
	"github.com/ksleuth/ksleuth/internal/dumptest"
)

// A variantTruth is what is known of a variant of case E from its source.
type variantTruth struct {
	rip   string // where the kernel crashed, as the console has it
	frame uint64 // the frame pointer must be rsp + frame there
	first int    // byte of the saved frame pointer that the error's first byte hit
}

// variants is the truth of the variants that crash where the damaged frame
// pointer is used; the two others have tests of their own.
var variants = map[string]variantTruth{
	"xdp":   {"xdp_main", 8, 3},
	"deep":  {"deep_middle", 8, 3},
	"ptr":   {"ptr_main", 8, 3},
	"size2": {"size2_main", 8, 2},
	"size3": {"size3_main", 8, 1},
	"size4": {"size4_main", 8, 0},
	"pos5":  {"pos5_main", 8, -1},
	"plain": {"plain_main", 0, 3},
}

// einval is -EINVAL, as it lies in memory.
var einval = binary.LittleEndian.AppendUint32(nil, 0xffffffea)

// overwrite returns v with the bytes of einval from byte first on; those that
// are not in v are lost.
func overwrite(v uint64, first int) uint64 {
	b := binary.LittleEndian.AppendUint64(nil, v)
	for i, e := range einval {
		if at := first + i; at >= 0 && at < len(b) {
			b[at] = e
		}
	}
	return binary.LittleEndian.Uint64(b)
}

// TestCaseEVariants checks that each variant is what it is said to be: the
// program that was loaded crashed, by the very bytes that the source predicts.
func TestCaseEVariants(t *testing.T) {
	for _, c := range dumptest.CaseEVariants {
		for _, kernel := range c.Kernels() {
			scene := c.Scene(kernel)
			t.Run(scene, func(t *testing.T) {
				t.Parallel()
				regs := registers(t, scene)
				programs := sceneFile(t, scene, ".programs")
				qt.Check(t, qt.Matches(programs, fmt.Sprintf(`\d+ (XDP|SchedCLS) %s_main [0-9a-f]{16}\n`, c.Name)))
				console := sceneFile(t, scene, ".console")
				qt.Check(t, qt.StringContains(console, "end Kernel panic"))
				switch c.Name {
				case "main":
					checkMain(t, scene, regs, console)
				case "ret":
					// leave took the stack pointer from a frame pointer that
					// ends in ff, and popped two words.
					qt.Check(t, qt.Equals(regs["rsp"]&0xff, 0x0f))
				default:
					want, ok := variants[c.Name]
					qt.Assert(t, qt.IsTrue(ok))
					qt.Check(t, qt.IsTrue(regexp.MustCompile(`RIP: 0010:bpf_prog_[0-9a-f]{16}_`+want.rip+`\+`).MatchString(console)))
					qt.Check(t, qt.Equals(fmt.Sprintf("%#x", regs["rbp"]), fmt.Sprintf("%#x", overwrite(regs["rsp"]+want.frame, want.first))))
				}
			})
		}
	}
}

// checkMain checks the variant whose damage is to a kernel function's rbp: it
// was the context, which the second run then got, and saved again.
func checkMain(t *testing.T, scene string, regs map[string]uint64, console string) {
	qt.Check(t, qt.StringContains(console, "RIP: 0010:bpf_skb_ct_lookup+"))
	damaged := binary.LittleEndian.AppendUint64(nil, regs["rdi"])
	qt.Check(t, qt.DeepEquals(damaged[3:7], einval))
	saved := value(t, scene, fmt.Sprintf("*(unsigned long *)%#x", regs["rbp"]))
	qt.Check(t, qt.Equals(saved, regs["rdi"]))
}

// TestCaseC checks the two rings: both have read all that was written, and have
// a commit page without anything in it, whose field read is left from earlier.
// That makes a reader of the old kernel loop, and is nothing to the new.
func TestCaseC(t *testing.T) {
	const cpu = "((struct trace_array *)&global_trace)->array_buffer.buffer->buffers[0]->"
	for scene, said := range map[string]string{
		"casec-6.1":      "runscene: the worker spins: round 584, draining after the event was discarded",
		"casecfixed-6.1": "runscene: all rounds are done",
	} {
		t.Run(scene, func(t *testing.T) {
			t.Parallel()
			qt.Check(t, qt.StringContains(sceneFile(t, scene, ".console"), said))
			for expr, want := range map[string]uint64{
				"head_page == " + cpu + "commit_page": 1,
				"head_page->read":                     0xff0,
				"head_page->page->commit.a.counter":   0,
				"reader_page->read":                   0xff0,
				"reader_page == " + cpu + "head_page": 0,
				"entries.a.counter":                   584,
				"overrun.a.counter":                   0,
				"read":                                584,
			} {
				qt.Check(t, qt.Equals(value(t, scene, cpu+expr), want), qt.Commentf("%s", expr))
			}
		})
	}
}

// TestCaseCSpins checks that the task which runs on the first processor loops in
// tracing_read_pipe, in the scene where it does and not in the other.
func TestCaseCSpins(t *testing.T) {
	for scene, spins := range map[string]bool{"casec-6.1": true, "casecfixed-6.1": false} {
		t.Run(scene, func(t *testing.T) {
			t.Parallel()
			found := false
			for _, k := range stacks(t, dumptest.Get(t, scene+".kdump")) {
				for _, f := range k.Frames {
					found = found || f.Symbol == "tracing_read_pipe" && k.Comm == "runscene" && k.CPU == 0
				}
			}
			qt.Check(t, qt.Equals(found, spins))
		})
	}
}

// sceneFile returns a file of a scene, by its extension.
func sceneFile(t *testing.T, scene, ext string) string {
	t.Helper()
	b, err := os.ReadFile(dumptest.Get(t, scene+ext))
	qt.Assert(t, qt.IsNil(err))
	return string(b)
}

// registers returns the registers of the crash.
func registers(t *testing.T, scene string) map[string]uint64 {
	t.Helper()
	regs := map[string]uint64{}
	for _, r := range report(t, dumptest.Get(t, scene+".kdump")).Registers {
		v, err := strconv.ParseUint(strings.TrimPrefix(r.Value, "0x"), 16, 64)
		qt.Assert(t, qt.IsNil(err))
		regs[r.Name] = v
	}
	return regs
}

// value evaluates a C expression on a scene's dump.
func value(t *testing.T, scene, expr string) uint64 {
	t.Helper()
	all := answers[struct {
		Value json.Number `json:"value"`
	}](t, cli.StatusOK, "value", dumptest.Get(t, scene+".kdump"), "print", expr)
	qt.Assert(t, qt.HasLen(all, 1))
	v, err := strconv.ParseUint(all[0].Value.String(), 10, 64)
	qt.Assert(t, qt.IsNil(err), qt.Commentf("%s", expr))
	return v
}
