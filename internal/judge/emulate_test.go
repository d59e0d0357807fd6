package judge

import (
	"fmt"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/ksleuth/ksleuth/cli"
	"github.com/ksleuth/ksleuth/internal/dumptest"
	"github.com/ksleuth/ksleuth/rerun"
)

// emulation runs emulate on a scene's dump.
func emulation(t *testing.T, scene string, args ...string) rerun.Emulation {
	t.Helper()
	return answers[rerun.Emulation](t, cli.StatusOK, "emulation", dumptest.Get(t, scene+".kdump"), append([]string{"emulate"}, args...)...)[0]
}

// ringBuffer is CPU 0's buffer of the trace instance that case C loops in.
const ringBuffer = "global_trace.array_buffer.buffer"

// TestCaseCOffline runs the functions that contradict each other in case C on
// its dump: the old code says that the buffer is not empty, because of two
// fields that have nothing to do with each other, and that there is nothing to
// read. The fixed code, on the dump of the fixed kernel and put into the dump of
// the other, says that it is empty.
func TestCaseCOffline(t *testing.T) {
	const contradiction = "cpu_buffer->head_page->page->commit (0x0) != cpu_buffer->head_page->read (0xff0)"
	const onePage = "cpu_buffer->head_page == cpu_buffer->commit_page"
	for _, call := range []string{
		"rb_per_cpu_empty(" + ringBuffer + "->buffers[0])",
		"ring_buffer_empty_cpu(" + ringBuffer + ", 0)",
	} {
		e := emulation(t, "casec-6.1", call)
		qt.Check(t, qt.Equals(e.Outcome, "returned"))
		qt.Check(t, qt.Equals(e.Text, "false"))
		said := whyText(e)
		qt.Check(t, qt.StringContains(said, onePage))
		qt.Check(t, qt.StringContains(said, contradiction))

		e = emulation(t, "casecfixed-6.1", call)
		qt.Check(t, qt.Equals(e.Text, "true"))
		said = whyText(e)
		qt.Check(t, qt.StringContains(said, "cpu_buffer->head_page->page->commit == 0"))
		qt.Check(t, qt.IsFalse(strings.Contains(said, "head_page->read")), qt.Commentf("%s", said))

		// What the fix makes of the very same memory: 16 bytes of code.
		set := func(at int, code uint64) string {
			return fmt.Sprintf("*(unsigned long *)((char *)&rb_per_cpu_empty + %d) = %#x", at, code)
		}
		at := value(t, "casec-6.1", "(unsigned long)&rb_per_cpu_empty")
		code := strings.ReplaceAll(strings.Join(codeBytes(t, "casec-6.1", "rb_per_cpu_empty"), ""), " ", "")
		i := strings.Index(code, "8b4818488b4030394808") // mov 0x18(%rax),%ecx; mov 0x30(%rax),%rax; cmp %ecx,0x8(%rax)
		qt.Assert(t, qt.IsTrue(i >= 0), qt.Commentf("%#x: %s", at, code))
		e = emulation(t, "casec-6.1", "--set", set(i/2, 0x08408b4830408b48), "--set", set(i/2+8, 0xc3d089c2940fc085), call)
		qt.Check(t, qt.Equals(e.Text, "true"), qt.Commentf("%s", whyText(e)))
	}

	e := emulation(t, "casec-6.1", "rb_get_reader_page("+ringBuffer+"->buffers[0])")
	qt.Check(t, qt.Equals(e.Text, "NULL"))
	qt.Check(t, qt.StringContains(whyText(e), "cpu_buffer->entries == cpu_buffer->overrun + cpu_buffer->read (0x248)"))

	// What if the stale field were not there?
	e = emulation(t, "casec-6.1", "--set", ringBuffer+"->buffers[0]->head_page->read = 0", "rb_per_cpu_empty("+ringBuffer+"->buffers[0])")
	qt.Check(t, qt.Equals(e.Text, "true"))
}

func whyText(e rerun.Emulation) string {
	var b strings.Builder
	for _, r := range e.Why {
		b.WriteString(r.Text + "\n")
	}
	return b.String()
}

// codeBytes returns the machine code of a function, an instruction each.
func codeBytes(t *testing.T, scene, function string) (out []string) {
	t.Helper()
	for _, l := range answers[struct {
		Lines []struct {
			Bytes string `json:"bytes"`
		} `json:"lines"`
	}](t, cli.StatusOK, "code", dumptest.Get(t, scene+".kdump"), "disasm", function) {
		for _, in := range l.Lines {
			out = append(out, in.Bytes)
		}
	}
	return out
}

// TestCaseCLoop goes on, on the dump of case C, from where the reader was caught:
// it comes into a state in which it was before, and what keeps it there are the
// three answers that contradict each other. Where it does not hang it is not
// running.
func TestCaseCLoop(t *testing.T) {
	dump := dumptest.Get(t, "casec-6.1.kdump")
	pid, frame := 0, 0
	for _, k := range stacks(t, dump) {
		for i, f := range k.Frames {
			if f.Symbol == "tracing_read_pipe" && k.CPU == 0 {
				pid, frame = k.PID, i
			}
		}
	}
	qt.Assert(t, qt.Not(qt.Equals(pid, 0)))
	e := answers[rerun.Emulation](t, cli.StatusFault, "emulation", dump,
		"emulate", "--pid", fmt.Sprint(pid), "--frame", fmt.Sprint(frame), "--regs")[0]
	qt.Check(t, qt.Equals(e.Outcome, "loop"), qt.Commentf("%+v", e.Stop))
	qt.Check(t, qt.Equals(e.Function, "tracing_read_pipe"))
	qt.Check(t, qt.Matches(e.Stop.Text, `an endless loop from tracing_read_pipe\+0x\w+ to tracing_read_pipe\+0x\w+: after \d+ instructions .*`))
	said := whyText(e)
	// As a condition, or, where the run began inside a function that the loop
	// calls, as what it returned.
	for _, want := range []string{`trace_empty(\(.*\))? ==? 0`, `trace_find_next_entry_inc(\(.*\))? ==? NULL`, `trace_seq_to_user(\(.*\))? ==? -16 \(-EBUSY\)`} {
		qt.Check(t, qt.Matches(said, "(?s).*"+want+".*"))
	}
}
