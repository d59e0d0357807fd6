package tracee

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"strings"

	"github.com/ksleuth/ksleuth/kernel"
	"github.com/ksleuth/ksleuth/mem"
)

// untraceable says why the kernel does not let a function be traced, if its
// code or the kernel says so. Where neither can be read it is nil: the attempt
// will tell.
func (r *resolver) untraceable(f *Function) *Refusal {
	if f.Module == "" && r.init().Contains(uint64(f.Addr)) {
		return &Refusal{fmt.Sprintf("%s runs while the kernel starts, and its code was freed then", f), ""}
	}
	traceable, known := r.traceable(f)
	if !known || traceable {
		return nil
	}
	return &Refusal{fmt.Sprintf("the kernel does not let %s be traced: it is marked notrace, or written in assembler", f), "observe what calls it"}
}

// readInit returns the range of the code that the kernel freed after its start;
// none if that is not known.
func (r *resolver) readInit() kernel.Range {
	table, err := r.symbols()
	if err != nil {
		return kernel.Range{}
	}
	start, ok1 := table.Lookup("_sinittext")
	end, ok2 := table.Lookup("_einittext")
	if !ok1 || !ok2 {
		return kernel.Range{}
	}
	return kernel.Range{Start: start.Addr, End: end.Addr}
}

// traceable reports whether a function begins with a place for ftrace.
func (r *resolver) traceable(f *Function) (traceable, known bool) {
	if k := r.src.BPF.Kernel; k != nil {
		code, err := mem.Bytes(k.Mem(), uint64(f.Addr), 9)
		if err == nil {
			return beginsTraceable(code, uint64(f.Addr), func(addr uint64) string {
				s, _, _ := k.Symbolize(addr)
				if s.Kind != kernel.KindKernel && s.Kind != kernel.KindModule {
					return ""
				}
				return s.Name
			}), true
		}
	}
	if !r.src.BPF.Running {
		return false, false
	}
	names := r.ftrace()
	if names == nil {
		return false, false
	}
	name := f.Name
	if f.Module != "" {
		name += " [" + f.Module + "]"
	}
	return names[name], true
}

// What a function that ftrace can change begins with on x86-64: perhaps the
// landing pad of indirect calls or what the kernel made of it, then a no-op of
// five bytes or the call that came in its place (arch/x86/kernel/ftrace.c,
// arch/x86/include/asm/ibt.h).
var (
	landings = [][]byte{
		{0xf3, 0x0f, 0x1e, 0xfa}, // endbr64
		{0x66, 0x0f, 0x1f, 0x00}, // sealed: no indirect call leads here (be0075951fde, 5.18)
		{0x0f, 0x1f, 0x40, 0xd6}, // the same since 6.14
	}
	noops = [][]byte{
		{0x0f, 0x1f, 0x44, 0x00, 0x00},
		{0x66, 0x66, 0x66, 0x66, 0x90}, // old processors of AMD, before 5.13
	}
)

const (
	opCall = 0xe8
	opJump = 0xe9
	opInt3 = 0xcc // a change is under way
)

// beginsTraceable reports whether code at addr begins so. leadsTo names the
// kernel's or a module's function at an address, "" if it is generated code, as
// trampolines are.
func beginsTraceable(code []byte, addr uint64, leadsTo func(addr uint64) string) bool {
	for _, l := range landings {
		if rest, ok := bytes.CutPrefix(code, l); ok {
			code, addr = rest, addr+uint64(len(l))
			break
		}
	}
	for _, n := range noops {
		if bytes.HasPrefix(code, n) {
			return true
		}
	}
	switch {
	case len(code) < 5:
		return false
	case code[0] == opCall, code[0] == opJump: // not one of the function's own
		to := leadsTo(addr + 5 + uint64(int64(int32(binary.LittleEndian.Uint32(code[1:])))))
		return to == "" || strings.HasPrefix(to, "ftrace_")
	}
	return code[0] == opInt3
}

// tracefs is where the kernel's tracing files are mounted by custom.
var tracefs = []string{"/sys/kernel/tracing", "/sys/kernel/debug/tracing"}

// filterFunctions returns the functions that ftrace of the running kernel
// knows, as "name" or "name [module]"; nil if that cannot be read.
func filterFunctions() map[string]bool {
	for _, dir := range tracefs {
		f, err := os.Open(dir + "/available_filter_functions")
		if err != nil {
			continue
		}
		defer f.Close()
		names := make(map[string]bool, 1<<16)
		lines := bufio.NewScanner(f)
		for lines.Scan() {
			names[lines.Text()] = true
		}
		if lines.Err() == nil && len(names) > 0 {
			return names
		}
	}
	return nil
}
