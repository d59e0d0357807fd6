package guard

import (
	"fmt"
	"slices"

	"github.com/ksleuth/ksleuth/finding"
	"github.com/ksleuth/ksleuth/mem"
	"github.com/ksleuth/ksleuth/tracee"
)

// denials are the kernel's own lists of functions that tracing programs must
// not hang on (BTF_SET in kernel/bpf/verifier.c), by what the list is called;
// those of kernels without the list are refused by nothing.
var denials = []struct {
	symbols []string
	id      string
	exit    bool // the return alone is denied
	title   string
	remedy  string
}{
	{ // 35e3815fa810, 5.13
		symbols: []string{"btf_id_deny", "__BTF_ID__set__btf_id_deny"}, id: Denylist,
		title: "the kernel permits no tracing program there: tracing needs this function itself",
	},
	{ // cfe816d469dc, 6.15, and stable kernels that have it
		symbols: []string{"noreturn_deny", "__BTF_ID__set__noreturn_deny"}, id: Noreturn, exit: true,
		title: "the kernel permits no program at its return: it never returns", remedy: entryOnly,
	},
}

const entryOnly = "observe its entry alone"

// maxDenied bounds a list; the kernel's have a few dozen.
const maxDenied = 4096

// denied warns of functions that are on the kernel's lists.
func (c *checker) denied() {
	if c.src.Kernel == nil || !slices.ContainsFunc(c.funcs, inKernel) {
		return
	}
	for _, d := range denials {
		if d.exit && !c.opts.Exit {
			continue
		}
		at, ids, err := c.idSet(d.symbols)
		if err != nil {
			c.fail(err)
			continue
		}
		for _, f := range c.funcs {
			if !inKernel(f) || f.ID == 0 || !slices.Contains(ids, f.ID) {
				continue
			}
			c.warn(f, Warning{
				ID: d.id, Severity: Unable, Title: d.title, Remedy: d.remedy,
				Evidence: []finding.Evidence{{Text: fmt.Sprintf("%s has its type, %d", d.symbols[0], f.ID), Addr: mem.Addr(at), Symbol: d.symbols[0]}},
			})
		}
		if d.id == Denylist {
			c.traceItself(at != 0)
		}
	}
}

// inKernel says that a function is of the kernel itself, whose lists name none
// of modules.
func inKernel(f *tracee.Function) bool { return f.Kind == tracee.Kernel && f.Module == "" }

// idSet reads a set of types: struct btf_id_set, a count and the numbers. It is
// empty if the kernel has none of the symbols.
func (c *checker) idSet(symbols []string) (at uint64, ids []uint32, err error) {
	found := c.src.Kernel.LookupAll(symbols...)
	for _, name := range symbols {
		if s, ok := found[name]; ok {
			at = s.Addr
			break
		}
	}
	if at == 0 {
		return 0, nil, nil
	}
	n, err := mem.U32(c.src.Kernel.Mem(), at)
	if err == nil && n > maxDenied {
		err = fmt.Errorf("it has %d members: damaged", n)
	}
	for i := uint64(0); err == nil && i < uint64(n); i++ {
		var id uint32
		id, err = mem.U32(c.src.Kernel.Mem(), at+4+4*i)
		ids = append(ids, id)
	}
	if err != nil {
		return at, nil, fmt.Errorf("the kernel's list %s: %w", symbols[0], err)
	}
	return at, ids, nil
}
