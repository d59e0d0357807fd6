package disasm

import (
	"strings"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/ksleuth/ksleuth/internal/dumptest"
)

// TestFindEverything: what can be named in each kernel, and where its code
// begins.
func TestFindEverything(t *testing.T) {
	for _, scene := range dumptest.Idle {
		t.Run(scene, func(t *testing.T) {
			d := openScene(t, scene)
			for _, test := range []struct{ what, name, first string }{
				{"schedule", "schedule", ""},
				{"fw_cfg_read_blob", "fw_cfg_read_blob [qemu_fw_cfg]", ""},
				{"schedule+0x1", "schedule+0x1", ""},
				{"bpf_dispatcher_xdp", "bpf_dispatcher_xdp", "cmp $"},
				{"tramp:bpf_dispatcher_xdp", "bpf_dispatcher_xdp", "cmp $"},
				{"tramp:xdp", "bpf_dispatcher_xdp", "cmp $"},
				{"tramp:count_lo", "bpf_trampoline_", ""},
				{"prog:count_lo", "count_lo", ""},
				{"prog:count_lo/count", "count", ""},
				{"count_lo", "count_lo", ""},
			} {
				code, err := d.Find(test.what, Options{})
				qt.Assert(t, qt.IsNil(err), qt.Commentf("%s", test.what))
				l, err := d.Disassemble(code[0], Options{Explain: true, Xlated: true})
				qt.Assert(t, qt.IsNil(err), qt.Commentf("%s", test.what))
				qt.Check(t, qt.IsTrue(strings.HasPrefix(l.Name, test.name)), qt.Commentf("%s: %s", test.what, l.Name))
				qt.Check(t, qt.IsTrue(strings.HasPrefix(l.Lines[0].Text, test.first)), qt.Commentf("%s: %s", test.what, l.Lines[0].Text))
				qt.Check(t, qt.Equals(l.Err, ""), qt.Commentf("%s", test.what))
			}
			for what, says := range map[string]string{
				"tramp:nowhere":    `there is no trampoline nowhere; there are those of .*count_lo.*`,
				"tramp:":           `there is no trampoline ;.*`,
				"fw_cfg_read_blop": `.*no symbol fw_cfg_read_blop \(did you mean fw_cfg_read_blob.*`,
				"jiffies":          `jiffies is no code: .*`,
				"prog:count":       `there is no BPF program called "count".*`,
				"prog:count_lo/":   `program \d+ has no function ""; it has count_lo, count`,
				"prog:-1":          `there is no BPF program with id -1; the nearest are .*`,
			} {
				_, err := d.Find(what, Options{})
				qt.Check(t, qt.ErrorMatches(err, says), qt.Commentf("%s", what))
			}
		})
	}
}

// TestNames: what operands stand for, which the machine code has as numbers.
func TestNames(t *testing.T) {
	for scene, wants := range map[string][]string{
		"idle-5.10": {"<current_task>", "<fixed_percpu_data.stack_canary>"},
		"idle-6.1":  {"<current_task>", "<fixed_percpu_data.stack_canary>"},
		"idle-6.12": {"<pcpu_hot.current_task>", "<fixed_percpu_data.stack_canary>"},
		"idle-7.2":  {"<const_current_task>", "stack_chk_guard>"},
	} {
		t.Run(scene, func(t *testing.T) {
			d := openScene(t, scene)
			text := func(what string) string {
				code, err := d.Find(what, Options{})
				qt.Assert(t, qt.IsNil(err))
				var b strings.Builder
				for _, c := range code {
					l, err := d.Disassemble(c, Options{})
					qt.Assert(t, qt.IsNil(err))
					for _, line := range l.Lines {
						b.WriteString(line.Text + "\n")
					}
				}
				return b.String()
			}
			out := text("schedule") + text("try_to_wake_up")
			for _, want := range wants {
				qt.Check(t, qt.StringContains(out, want))
			}
			progs := text("prog:count_lo")
			qt.Check(t, qt.Matches(strings.ReplaceAll(progs, "\n", " "), `.* # 0x[0-9a-f]+ <map \d+ packets>.*`))
		})
	}
}
