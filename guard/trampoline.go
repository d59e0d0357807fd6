package guard

import (
	"errors"
	"fmt"
	"strings"

	"github.com/ksleuth/ksleuth/bpf"
	"github.com/ksleuth/ksleuth/bpfsys"
	"github.com/ksleuth/ksleuth/bpfview"
	"github.com/ksleuth/ksleuth/ctype"
	"github.com/ksleuth/ksleuth/finding"
	"github.com/ksleuth/ksleuth/mem"
	"github.com/ksleuth/ksleuth/tracee"
)

// trampolines are those that the kernel has.
type trampolines struct {
	all []*bpf.Trampoline
	err error // why some or all are not known
}

// trampolines reads them.
func (c *checker) trampolines() {
	if c.src.Kernel == nil {
		c.tramps.err = bpfview.ErrNoMemory
	} else {
		c.tramps.all, c.tramps.err = c.src.Trampolines(c.ctx)
	}
	if c.tramps.err != nil {
		c.fail(fmt.Errorf("which trampolines there are: %w", c.tramps.err))
	}
}

// on returns the trampoline of a function, nil if none is known.
func (t *trampolines) on(f *tracee.Function) *bpf.Trampoline {
	for _, tr := range t.all {
		if tr.Kind == "trampoline" && f.Addr != 0 && tr.Target.Addr == f.Addr {
			return tr
		}
	}
	return nil
}

// limit warns of functions whose trampoline takes no more programs.
func (c *checker) limit() {
	limit := -1
	for _, f := range c.funcs {
		tr := c.tramps.on(f)
		if tr == nil {
			continue
		}
		if tr.Replaced != 0 {
			c.replaced(f, tr)
			continue
		}
		if limit < 0 {
			var err error
			if limit, err = c.maxPrograms(); err != nil {
				c.fail(err)
				return
			}
		}
		have, need := len(tr.Progs), c.need()
		if have+need <= limit {
			continue
		}
		c.warn(f, Warning{
			ID: TrampolineLimit, Severity: Unable,
			Title:    fmt.Sprintf("%d programs are on its trampoline, of the %d that this kernel allows; observing it takes %d more", have, limit, need),
			Evidence: []finding.Evidence{{Text: "its trampoline runs " + programs(tr), Addr: tr.Addr}},
			Remedy:   "detach some of them, or observe it by a breakpoint or kprobe",
		})
	}
}

// need is how many programs will be attached to a function. An fsession
// program counts twice.
func (c *checker) need() int {
	if c.opts.Entry && c.opts.Exit {
		return 2
	}
	return 1
}

func (c *checker) replaced(f *tracee.Function, tr *bpf.Trampoline) {
	c.warn(f, Warning{
		ID: Replaced, Severity: Unable,
		Title:    "a freplace program runs in its place; the kernel attaches nothing else there",
		Evidence: []finding.Evidence{{Text: fmt.Sprintf("its trampoline has the extension program %d", tr.Replaced), Addr: tr.Addr}},
		Remedy:   fmt.Sprintf("observe the freplace program, prog:%d", tr.Replaced),
	})
}

// programs names the first few programs of a trampoline.
func programs(tr *bpf.Trampoline) string {
	const show = 4
	var out []string
	for _, p := range tr.Progs[:min(show, len(tr.Progs))] {
		out = append(out, fmt.Sprintf("%s %d %s", p.When, p.ID, p.Name))
	}
	s := strings.Join(out, ", ")
	if n := len(tr.Progs) - show; n > 0 {
		s += fmt.Sprintf(" and %d more", n)
	}
	return s
}

// programLists are the structs that hold a trampoline's programs while it is
// made: their array has room for as many as one may have, of all kinds
// together (bpf_trampoline_link_prog).
var programLists = []struct{ record, member string }{
	{"bpf_tramp_progs", "progs"}, // 88fd9e5352fe, 5.8
	{"bpf_tramp_links", "links"}, // f7e0beaf39d3, 5.19
	{"bpf_tramp_nodes", "nodes"}, // 7.x
}

// types returns the kernel's types, of its memory or as it shows them.
func (c *checker) types() (*ctype.Types, error) {
	if c.src.Kernel != nil {
		return c.src.Kernel.Types()
	}
	if !c.src.Running {
		return nil, bpfview.ErrNoMemory
	}
	return bpfsys.KernelTypes()
}

// maxPrograms returns how many programs a trampoline of this kernel takes
// (BPF_MAX_TRAMP_LINKS).
func (c *checker) maxPrograms() (int, error) {
	types, err := c.types()
	if err != nil {
		return 0, fmt.Errorf("how many programs a trampoline takes: %w", err)
	}
	for _, l := range programLists {
		t, err := types.Struct(l.record)
		if err != nil {
			continue
		}
		p, err := types.Member(t, l.member)
		if err != nil {
			continue
		}
		if n := p.Type.Strip().Len(); n > 0 {
			return n, nil
		}
	}
	return 0, errors.New("how many programs a trampoline takes: this kernel's types have none of the lists known here")
}

// code reads up to n bytes of a function's machine code.
func (c *checker) code(f *tracee.Function, n int) ([]byte, error) {
	if f.Len > 0 {
		n = min(n, f.Len)
	}
	if c.src.Kernel != nil && f.Addr != 0 {
		return mem.Bytes(c.src.Kernel.Mem(), uint64(f.Addr), n)
	}
	if f.Prog == nil || !c.src.Running {
		return nil, bpfview.ErrNoMemory
	}
	h, err := bpfsys.Programs(f.Prog.ID)
	if err != nil {
		return nil, errors.Join(err, h.Close())
	}
	defer h.Close()
	code, err := bpfsys.CodeOf(h, f.Prog.ID)
	if err != nil {
		return nil, err
	}
	if f.Subprog >= len(code.Funcs) || len(code.Funcs[f.Subprog].Text) == 0 {
		return nil, fmt.Errorf("the kernel does not hand out the machine code of program %d", f.Prog.ID)
	}
	text := code.Funcs[f.Subprog].Text
	return text[:min(n, len(text))], nil
}
