//go:build linux

package procfs

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"strconv"

	"github.com/ksleuth/ksleuth/bpfsys"
	"github.com/ksleuth/ksleuth/kernel"
	"github.com/ksleuth/ksleuth/kobj"
	"github.com/ksleuth/ksleuth/mem"
	"github.com/ksleuth/ksleuth/stack"
)

// Stack returns the stack of a thread as the kernel prints it, innermost frame
// first: without the addresses, and none for a task that runs on another CPU. A
// task that has ended gives a [kobj.NoTaskError].
func Stack(t kobj.Task) ([]stack.Frame, error) {
	name := fmt.Sprintf(dir+"stack", t.TGID, t.PID)
	text, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		if _, there := os.Stat(fmt.Sprintf(dir, t.TGID, t.PID)); there == nil {
			return nil, &bpfsys.UnsupportedError{Op: name, Need: "a kernel with CONFIG_STACKTRACE"}
		}
	}
	if gone(err) {
		return nil, &kobj.NoTaskError{PID: t.PID}
	}
	if err != nil {
		return nil, needs(name, "CAP_SYS_ADMIN", err)
	}
	return parseStack(text)
}

// A line is "[<0>] SYMBOL+0xOFFSET/0xSIZE [MODULE]", or has an address where no
// symbol is known.
var stackLine = regexp.MustCompile(`^\[<[0-9a-f]+>\] (?:(0x[0-9a-f]+)|(\S+)\+0x([0-9a-f]+)/0x[0-9a-f]+(?: \[(\S+)(?: [0-9a-f]+)?\])?)\s*$`)

// bpfSymbol is the name of a program's code: bpf_prog_TAG_NAME.
var bpfSymbol = regexp.MustCompile(`^bpf_prog_[0-9a-f]{16}(?:_|$)`)

// bpfTrampoline is the name of generated code beside programs.
var bpfTrampoline = regexp.MustCompile(`^bpf_(?:trampoline|dispatcher)_[0-9]+`)

// entrySymbol begins the names of arch/x86/entry/entry_64.S at which stacks end.
var entrySymbol = regexp.MustCompile(`^(?:entry_|asm_|ret_from_fork)`)

func parseStack(text []byte) ([]stack.Frame, error) {
	var out []stack.Frame
	for line := range bytes.Lines(text) {
		m := stackLine.FindSubmatch(line)
		if m == nil {
			return out, fmt.Errorf("no line of a stack: %q", line)
		}
		// The kernel leaves out what its unwinder had to guess.
		f := stack.Frame{Symbol: string(m[2]), Module: string(m[4]), Reliable: true}
		if pc, err := strconv.ParseUint(string(m[1]), 0, 64); err == nil {
			f.PC = mem.Addr(pc)
		}
		if off, err := strconv.ParseUint(string(m[3]), 16, 64); err == nil {
			f.Offset = mem.Addr(off)
		}
		switch {
		case f.Symbol == "":
		case f.Module != "":
			f.Kind = kernel.KindModule
		case bpfSymbol.MatchString(f.Symbol):
			f.Kind = kernel.KindBPF
		case bpfTrampoline.MatchString(f.Symbol):
			f.Kind = kernel.KindTrampoline
		default:
			f.Kind = kernel.KindKernel
		}
		out = append(out, f)
	}
	if n := len(out); n > 0 && entrySymbol.MatchString(out[n-1].Symbol) {
		out[n-1].Kind = kernel.KindEntry
	}
	return out, nil
}
