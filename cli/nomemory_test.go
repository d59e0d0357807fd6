package cli_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"github.com/go-quicktest/qt"

	"github.com/ksleuth/ksleuth/bpfsys"
	"github.com/ksleuth/ksleuth/cli"
	"github.com/ksleuth/ksleuth/ctype"
	"github.com/ksleuth/ksleuth/kernel"
)

// noMemory runs a command about the running kernel that may not read its
// memory.
func noMemory(t *testing.T, args ...string) (status int, out, errs string) {
	t.Helper()
	return running(t, append([]string{"--memory", "none"}, args...)...)
}

func running(t *testing.T, args ...string) (status int, out, errs string) {
	var o, e bytes.Buffer
	status = cli.Run(t.Context(), args, cli.Streams{In: strings.NewReader(""), Out: &o, Err: &e})
	return status, o.String(), e.String()
}

// TestTypeWithoutMemory: the judge is the file.
func TestTypeWithoutMemory(t *testing.T) {
	raw, err := os.ReadFile("/sys/kernel/btf/vmlinux")
	if err != nil {
		t.Skip(err)
	}
	types, err := ctype.New(raw)
	qt.Assert(t, qt.IsNil(err))
	for _, name := range []string{"task_struct", "struct bpf_prog", "pid_t", "enum bpf_map_type"} {
		want, err := types.Lookup(name)
		qt.Assert(t, qt.IsNil(err))
		status, out, errs := noMemory(t, "type", name)
		qt.Check(t, qt.Equals(out, ctype.FormatType(want)))
		qt.Check(t, qt.Equals(fmt.Sprint(status, errs), "0"))
	}
	status, _, errs := noMemory(t, "type", "task_strukt")
	qt.Check(t, qt.Equals(status, 2))
	qt.Check(t, qt.StringContains(errs, "task_struct"))
}

// TestSymWithoutMemory holds lines of /proc/kallsyms against sym by name and by
// address.
func TestSymWithoutMemory(t *testing.T) {
	f, err := os.Open("/proc/kallsyms")
	if err != nil {
		t.Skip(err)
	}
	defer f.Close()
	_, err = kernel.ReadListed(f)
	if errors.Is(err, fs.ErrPermission) {
		status, _, errs := noMemory(t, "sym", "_text")
		qt.Check(t, qt.Equals(status, 3))
		qt.Check(t, qt.StringContains(errs, "CAP_SYSLOG"))
		return
	}
	qt.Assert(t, qt.IsNil(err))
	_, err = f.Seek(0, 0)
	qt.Assert(t, qt.IsNil(err))
	wanted := map[string]string{"commit_creds": "", "do_syscall_64": "", "_stext": "", "init_uts_ns": ""}
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if _, ok := wanted[fields[2]]; ok {
			wanted[fields[2]] = fields[0]
		}
	}
	for name, addr := range wanted {
		if addr == "" {
			continue // without CONFIG_KALLSYMS_ALL
		}
		_, out, _ := noMemory(t, "sym", name)
		qt.Check(t, qt.StringContains(out, "0x"+addr))
		_, glob, _ := noMemory(t, "sym", name[:len(name)-1]+"["+name[len(name)-1:]+"]")
		qt.Check(t, qt.Equals(glob, out))
		_, out, _ = noMemory(t, "sym", "0x"+addr)
		qt.Check(t, qt.StringContains(out, "0x"+addr))
	}
	status, _, _ := noMemory(t, "sym", "no_such_symbol_there")
	qt.Check(t, qt.Equals(status, 2))
}

// loadProgram loads a program of two functions with a map and a helper.
func loadProgram(t *testing.T) int {
	t.Helper()
	m, err := ebpf.NewMap(&ebpf.MapSpec{Name: "nomem_values", Type: ebpf.Array, KeySize: 4, ValueSize: 16, MaxEntries: 1})
	if errors.Is(err, fs.ErrPermission) {
		t.Skip(err)
	}
	qt.Assert(t, qt.IsNil(err))
	t.Cleanup(func() { m.Close() })
	integer := &btf.Int{Name: "int", Size: 4, Encoding: btf.Signed}
	fn := func(name string, linkage btf.FuncLinkage) *btf.Func {
		return &btf.Func{Name: name, Linkage: linkage, Type: &btf.FuncProto{Return: integer, Params: []btf.FuncParam{{Name: "ctx", Type: &btf.Pointer{Target: &btf.Void{}}}}}}
	}
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "nomem_main", Type: ebpf.SocketFilter, License: "GPL",
		Instructions: asm.Instructions{
			btf.WithFuncMetadata(asm.Mov.Reg(asm.R6, asm.R1).WithSymbol("nomem_main"), fn("nomem_main", btf.GlobalFunc)),
			asm.Call.Label("nomem_sub"),
			asm.LoadMapValue(asm.R1, m.FD(), 8),
			asm.StoreMem(asm.R1, 0, asm.R0, asm.DWord),
			asm.Mov.Imm(asm.R0, 1),
			asm.Return(),
			btf.WithFuncMetadata(asm.StoreImm(asm.RFP, -4, 1, asm.Word).WithSymbol("nomem_sub"), fn("nomem_sub", btf.StaticFunc)),
			asm.LoadMapPtr(asm.R1, m.FD()),
			asm.Mov.Reg(asm.R2, asm.RFP),
			asm.Add.Imm(asm.R2, -4),
			asm.FnMapLookupElem.Call(),
			asm.FnKtimeGetNs.Call(),
			asm.Return(),
		},
	})
	qt.Assert(t, qt.IsNil(err))
	t.Cleanup(func() { p.Close() })
	info, err := p.Info()
	qt.Assert(t, qt.IsNil(err))
	id, _ := info.ID()
	return int(id)
}

// TestDisasmWithoutMemory: bytes are those of bpf(2); and where memory can be
// read by a BPF program, the listing is what it would be from there, but for
// names of maps.
func TestDisasmWithoutMemory(t *testing.T) {
	id := loadProgram(t)
	h, err := bpfsys.Programs(id)
	if err != nil {
		t.Skip(err)
	}
	defer h.Close()
	code, err := bpfsys.CodeOf(h, id)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.HasLen(code.Funcs, 2))
	what := fmt.Sprintf("prog:%d", id)
	if len(code.Funcs[0].Text) == 0 || code.Funcs[0].Addr == 0 {
		status, _, errs := noMemory(t, "disasm", what)
		qt.Check(t, qt.Not(qt.Equals(status, 0)))
		t.Skip(errs)
	}

	status, out, errs := noMemory(t, "disasm", "--no-arrows", what)
	qt.Check(t, qt.Equals(status, 0))
	qt.Check(t, qt.StringContains(errs, "memory cannot be read"))
	var all []byte
	for _, f := range code.Funcs {
		all = append(all, f.Text...)
	}
	status, text, _ := noMemory(t, "-o", "json", "disasm", what)
	qt.Check(t, qt.Equals(status, 0))
	qt.Check(t, qt.Equals(strings.Join(jsonBytes(text), " "), fmt.Sprintf("% x", all)))
	for _, want := range []string{"nomem_main  at " + code.Funcs[0].Addr.String(), "call bpf_ktime_get_ns"} {
		qt.Check(t, qt.StringContains(out, want))
	}
	_, sub, _ := noMemory(t, "disasm", "prog:nomem_main/nomem_sub")
	qt.Check(t, qt.StringContains(sub, "nomem_sub  at "+code.Funcs[1].Addr.String()))
	qt.Check(t, qt.Not(qt.StringContains(sub, "nomem_main")))

	_, xlated, _ := noMemory(t, "disasm", "--xlated", what)
	for _, want := range []string{"call pc+", "#nomem_sub", "map[id:", "[0]+8", "# nomem_values"} {
		qt.Check(t, qt.StringContains(xlated, want))
	}
	if status, want, _ := running(t, "--memory", "bpf", "disasm", "--xlated", "--explain", what); status == 0 {
		_, got, _ := noMemory(t, "disasm", "--xlated", "--explain", what)
		qt.Check(t, qt.Equals(withoutNames(got), withoutNames(want)))
	}

	status, _, errs = noMemory(t, "disasm", "prog:nomem_mian")
	qt.Check(t, qt.Equals(status, 2))
	qt.Check(t, qt.StringContains(errs, "did you mean nomem_main"))
	status, _, errs = noMemory(t, "disasm", "do_syscall_64")
	qt.Check(t, qt.Equals(status, 3))
	qt.Check(t, qt.StringContains(errs, "memory cannot be read"))
}

// jsonBytes returns the machine code of listings in JSON.
func jsonBytes(text string) (out []string) {
	for _, part := range strings.Split(text, `"bytes":"`)[1:] {
		b, _, _ := strings.Cut(part, `"`)
		out = append(out, b)
	}
	return out
}

// withoutNames cuts off what only memory tells: which map an address is in.
func withoutNames(listing string) string {
	lines := strings.Split(listing, "\n")
	for i, l := range lines {
		if strings.Contains(l, "movabs") || strings.Contains(l, "map ") {
			lines[i] = ""
		}
	}
	return strings.Join(lines, "\n")
}

// TestObjectWithoutMemory does the same with compiled programs, which have
// source lines and a tail call.
func TestObjectWithoutMemory(t *testing.T) {
	spec, err := ebpf.LoadCollectionSpec("../internal/guest/objects/objects.bpf.o")
	qt.Assert(t, qt.IsNil(err))
	for name, p := range spec.Programs {
		if p.Type == ebpf.Tracing {
			delete(spec.Programs, name) // its target is another program
		}
	}
	coll, err := ebpf.NewCollection(spec)
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, ebpf.ErrNotSupported) {
		t.Skip(err)
	}
	qt.Assert(t, qt.IsNil(err))
	defer coll.Close()
	for name, p := range coll.Programs {
		info, err := p.Info()
		qt.Assert(t, qt.IsNil(err))
		id, _ := info.ID()
		what := fmt.Sprintf("prog:%d", id)
		status, got, errs := noMemory(t, "disasm", "--xlated", "--explain", what)
		if status == 3 {
			t.Skip(errs)
		}
		qt.Check(t, qt.Equals(status, 0), qt.Commentf("%s", errs))
		qt.Check(t, qt.StringContains(got, "objects.bpf.c:"), qt.Commentf("%s", name))
		if name == "classify" {
			qt.Check(t, qt.StringContains(got, "call bpf_tail_call#12"))
			qt.Check(t, qt.StringContains(got, "bpf_tail_call(ctx, &verdicts, ctx->mark & 3);"))
		}
		if status, want, _ := running(t, "--memory", "bpf", "disasm", "--xlated", "--explain", what); status == 0 {
			qt.Check(t, qt.Equals(withoutNames(got), withoutNames(want)))
		}
	}
}
