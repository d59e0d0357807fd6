package judge

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/ksleuth/ksleuth/cli"
	"github.com/ksleuth/ksleuth/internal/dumptest"
)

// A crashReport is what report says of a crash.
type crashReport struct {
	Panic    string `json:"panic"`
	Headline string `json:"headline"`
	Fault    struct {
		Kind string `json:"kind"`
	} `json:"fault"`
	Task   task  `json:"task"`
	RIP    frame `json:"rip"`
	Frames []frame
	Cause  struct {
		Title     string `json:"title"`
		Text      string `json:"text"`
		Certainty string `json:"certainty"`
		Evidence  []struct {
			Text string `json:"text"`
		} `json:"evidence"`
	} `json:"cause"`
	Registers []struct {
		Name  string `json:"name"`
		Value string `json:"value"`
	} `json:"registers"`
	Fingerprint string   `json:"fingerprint"`
	Unread      []string `json:"unread"`
}

// caseEScenes are the crashes of case E: dumped by QEMU, and by the kernel.
var caseEScenes = []string{"casee-6.1", "casee-6.12", "kexec-6.1", "kexec-6.12"}

// caseEFrames is the stack of case E: a kfunc overwrote the frame pointer of
// the BPF function that called it.
var caseEFrames = []string{
	"call_kfunc", "bpf_test_run", "bpf_prog_test_run_skb", "__sys_bpf", "__x64_sys_bpf",
	"do_syscall_64", "entry_SYSCALL_64_after_hwframe",
}

// TestCaseE checks the report of a crash in a BPF program, to the byte, where
// the truth is known.
func TestCaseE(t *testing.T) {
	for _, scene := range caseEScenes {
		t.Run(scene, func(t *testing.T) {
			r := report(t, dumptest.Get(t, scene+".elf"))
			qt.Check(t, qt.DeepEquals(symbols(r.Frames), caseEFrames))
			qt.Check(t, qt.Equals(r.RIP.Symbol, "call_kfunc"))
			qt.Check(t, qt.Equals(r.Task.Comm, "guest"))
			if strings.HasPrefix(scene, "kexec") {
				// The crash kernel is booted before panic() is called.
				qt.Check(t, qt.Equals(r.Panic, ""))
			} else {
				qt.Check(t, qt.StringContains(r.Panic, "Fatal exception"))
			}
			qt.Check(t, qt.Matches(r.Headline, "BUG: unable to handle page fault for address: ffffffffea.*"))
			qt.Check(t, qt.Equals(r.Fault.Kind, "page fault"))
			qt.Check(t, qt.HasLen(r.Unread, 0))

			top := r.Frames[0].BPF
			qt.Assert(t, qt.IsNotNil(top))
			qt.Check(t, qt.Equals(top.Name, "call_kfunc"))
			qt.Check(t, qt.Matches(top.Tag, "[0-9a-f]{16}"))
			qt.Check(t, qt.Not(qt.Equals(top.ID, 0)))
			qt.Check(t, qt.Equals(top.File, "casee.bpf.c"))
			qt.Check(t, qt.Not(qt.Equals(top.Line, 0)))

			qt.Check(t, qt.Equals(r.Cause.Certainty, "proven"))
			said := fmt.Sprint(r.Cause)
			for _, want := range []string{"rbp", "-22", "EINVAL", "bytes 3 to 6", "ea ff ff ff"} {
				qt.Check(t, qt.StringContains(said, want))
			}
		})
	}
}

// TestCaseEIsTheGuests holds the report against the console: what the kernel
// itself printed when it crashed.
func TestCaseEIsTheGuests(t *testing.T) {
	for _, scene := range caseEScenes {
		t.Run(scene, func(t *testing.T) {
			log := ksleuth(t, cli.StatusOK, "-t", dumptest.Get(t, scene+".elf"), "log", "--raw")
			r := report(t, dumptest.Get(t, scene+".elf"))
			// Since 6.12 the uid stands between the two.
			qt.Check(t, qt.IsTrue(regexp.MustCompile(fmt.Sprintf(`CPU: %d (UID: 0 )?PID: %d `, r.Task.CPU, r.Task.PID)).MatchString(log)))
			// The kernel's own trace: the lines without a question mark, which
			// it follows by ORC. It has no way past a damaged frame pointer, and
			// marks what it finds behind it as a guess.
			qt.Check(t, qt.StringContains(log, "RIP: 0010:bpf_prog_"+r.Frames[0].BPF.Tag+"_call_kfunc+"+r.Frames[0].Offset+"/"))
			for _, f := range r.Frames[1:] {
				qt.Check(t, qt.StringContains(log, " "+f.Symbol+"+"+f.Offset+"/"), qt.Commentf("the kernel's trace has no such frame"))
			}
		})
	}
}

// TestFingerprint checks that a bug has one fingerprint on every boot and in
// every form of its dump, and that the two kernels' are alike: frames and
// fault, not versions, make it.
func TestFingerprint(t *testing.T) {
	prints := map[string][]string{}
	for _, dump := range []string{
		dumptest.Get(t, "casee-6.1.elf"), dumptest.Get(t, "casee-6.1.kdump"), // one boot
		"../../testdata/example.kdump", // another
		dumptest.Get(t, "casee-6.12.elf"),
		dumptest.Get(t, "kexec-6.1.elf"), dumptest.Get(t, "kexec-6.12.elf"),
	} {
		f := report(t, dump).Fingerprint
		prints[f] = append(prints[f], dump)
	}
	qt.Check(t, qt.HasLen(prints, 1), qt.Commentf("%v", prints))
}

// report reports on a dump of a crash.
func report(t *testing.T, dump string) crashReport {
	t.Helper()
	all := answers[crashReport](t, cli.StatusFault, "report", dump, "report")
	qt.Assert(t, qt.HasLen(all, 1))
	return all[0]
}

// TestCaseEText checks that the answer comes first.
func TestCaseEText(t *testing.T) {
	text := ksleuth(t, cli.StatusFault, "-t", dumptest.Get(t, "casee-6.1.elf"), "report")
	head, _, _ := strings.Cut(text, "\nWHO ")
	for _, want := range []string{"call_kfunc", "casee.bpf.c:", "-22", "rbp"} {
		qt.Check(t, qt.StringContains(head, want))
	}
}
