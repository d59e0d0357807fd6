package typeflow

import (
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/ksleuth/ksleuth/cexpr"
	"github.com/ksleuth/ksleuth/ctype"
	"github.com/ksleuth/ksleuth/internal/dumptest"
	"github.com/ksleuth/ksleuth/internal/example"
	"github.com/ksleuth/ksleuth/kernel"
	"github.com/ksleuth/ksleuth/mem"
)

// judge evaluates expressions on the memory of a machine that runs: package
// cexpr knows nothing of how they came about.
type judge struct {
	k   *kernel.Kernel
	ts  *ctype.Types
	mem mem.Reader
}

func (j judge) Types() *ctype.Types { return j.ts }
func (j judge) Mem() mem.Reader     { return j.mem }
func (j judge) Ident(name string) (ctype.Value, error) {
	v, err := j.k.Global(name)
	if err != nil {
		return v, err
	}
	at, err := v.Addr()
	if err != nil {
		return v, err
	}
	return j.ts.Object(j.mem, v.Type(), at, name), nil
}
func (j judge) Call(name string, _ []ctype.Value) (cexpr.Result, error) {
	return cexpr.Result{}, &ctype.NotFoundError{Kind: "function", Name: name}
}
func (j judge) PerCPU(addr uint64, cpu int) (uint64, error) { return j.k.PerCPU(addr, cpu) }

// dotted is a name that is none in C: __warned.1.
var dotted = regexp.MustCompile(`[A-Za-z_]\.[0-9]`)

// check evaluates the place of a load and compares address and value.
func (j judge) check(f *Flow, e *Event) error {
	p := printer{f: f, full: true, literal: true}
	text := p.expr(e.Place)
	if dotted.MatchString(text) {
		return nil // a name that is none in C
	}
	if e.Place.Op != OpPart {
		r, err := cexpr.Eval("&("+text+")", j)
		if err != nil {
			return fmt.Errorf("%s: %w", text, err)
		}
		at, err := r.Values[0].Uint()
		if err != nil || at != e.Addr {
			return fmt.Errorf("%s is at %#x, and not %#x (%v)", text, at, e.Addr, err)
		}
	}
	r, err := cexpr.Eval(text, j)
	if err != nil {
		return fmt.Errorf("%s: %w", text, err)
	}
	v, err := r.Values[0].Uint()
	if err != nil || v&mask(e.Size) != e.Value.Val {
		return fmt.Errorf("%s is %#x, and not %#x (%v)", text, v&mask(e.Size), e.Value.Val, err)
	}
	return nil
}

// value evaluates what is compared, and compares it with what the machine had.
func (j judge) value(f *Flow, v Value) error {
	if v.Expr == nil {
		return nil
	}
	p := printer{f: f, full: true, literal: true}
	text := p.expr(pointerExpr(v))
	if dotted.MatchString(text) || strings.Contains(text, "test_bit(") || strings.Contains(text, "cpu_slab") || strings.Contains(text, "kmalloc_caches") || strings.Contains(text, ">>") && v.Val>>63 != 0 {
		return nil // of slabs cmpxchg16b has changed what leads there; and the literal form knows no signs
	}
	r, err := cexpr.Eval(text, j)
	if err != nil {
		return fmt.Errorf("%s: %w", text, err)
	}
	got, err := r.Values[0].Uint()
	size := v.Size
	if v.Type != nil { // in a wider register an int is zero-extended, or sign-extended
		if n, err := j.ts.Sizeof(v.Type); err == nil {
			size = min(size, uint8(n))
		}
	}
	if err != nil || got&mask(size) != v.Val&mask(size) {
		return fmt.Errorf("%s is %#x, and not %#x (%v)", text, got&mask(size), v.Val, err)
	}
	return nil
}

// reads are calls of functions that change little.
var reads = []struct {
	call    string
	kernels string // "" all
}{
	{call: "find_vpid(1)"},
	{call: "task_curr(&init_task)"},
	{call: "d_ancestor(init_task.fs->root.dentry, " + guest + "->mm->exe_file->f_path.dentry)"},
	{call: "__task_pid_nr_ns(" + guest + ", 0, 0)"},
	{call: "get_task_mm(" + guest + ")"},
	{call: "d_path(&" + guest + "->mm->exe_file->f_path, (u64)0x11000, 512)"},
	{call: "capable(21)"},
	{call: "ns_capable(" + guest + "->cred->user_ns, 12)"},
	{call: "can_nice(" + guest + ", 3)"},
	{call: "task_prio(" + guest + ")"},
	{call: "in_group_p(0)"},
	{call: "is_subdir(" + guest + "->mm->exe_file->f_path.dentry, init_task.fs->root.dentry)"},
	{call: "find_get_pid(1)"},
	{call: "get_nr_threads()"},
	{call: "find_vma(" + guest + "->mm, " + guest + "->mm->start_stack)"},
	{call: "task_nice(" + guest + ")"},
	{call: "rb_first(&vmap_area_root)", kernels: "5.10 6.1"},
	{call: "nr_processes()"},
	{call: "nr_free_buffer_pages()"},
	{call: "si_mem_available()"},
	{call: "fget_task(" + guest + ", 1)"},
}

// guest is the last process that was started.
const guest = "((struct task_struct *)((u64)init_task.tasks.next - (u64)&((struct task_struct *)0)->tasks))"

// TestLoads: the C expression of every load, evaluated at that moment, gives
// the address and the value of the load.
func TestLoads(t *testing.T) {
	for _, scene := range dumptest.Idle {
		t.Run(scene, func(t *testing.T) {
			t.Parallel()
			k := example.KernelOf(t, dumptest.Get(t, scene+".kdump"))
			env, err := ForKernel(k)
			qt.Assert(t, qt.IsNil(err))
			named, all := 0, 0
			for _, r := range reads {
				fn, args, ok := strings.Cut(strings.TrimSuffix(r.call, ")"), "(")
				if _, found := k.Lookup(fn); !found || !ok || r.kernels != "" && !slices.Contains(strings.Fields(r.kernels), strings.TrimPrefix(scene, "idle-")) {
					continue
				}
				run(t, k, env, fn, splitArgs(args), func(f *Flow, e *Event) {
					if e.Kind != Load || e.Stack {
						return
					}
					all++
					if e.Place == nil {
						return
					}
					named++
					j := judge{k, env.Types(), f.m.Mem}
					if err := j.check(f, e); err != nil {
						t.Errorf("%s: step %d, %s: %v", r.call, e.Step, e.Inst, err)
					}
				})
			}
			t.Logf("%d of %d loads have a name", named, all)
			qt.Check(t, qt.IsTrue(named*10 > all*5), qt.Commentf("%d of %d", named, all))
		})
	}
}

// splitArgs splits at commas outside of parentheses.
func splitArgs(s string) (out []string) {
	depth, start := 0, 0
	for i, c := range s + "," {
		switch {
		case c == '(':
			depth++
		case c == ')':
			depth--
		case c == ',' && depth == 0:
			if i > start {
				out = append(out, strings.TrimSpace(s[start:i]))
			}
			start = i + 1
		}
	}
	return out
}

// objects are real ones, by type: what functions can be called with.
var objects = map[string]string{
	"struct task_struct *":  guest,
	"struct dentry *":       guest + "->mm->exe_file->f_path.dentry",
	"struct inode *":        guest + "->mm->exe_file->f_path.dentry->d_inode",
	"struct file *":         guest + "->mm->exe_file",
	"struct mm_struct *":    guest + "->mm",
	"struct super_block *":  guest + "->mm->exe_file->f_path.dentry->d_sb",
	"struct cred *":         guest + "->cred",
	"const struct cred *":   guest + "->cred",
	"struct pid *":          guest + "->thread_pid",
	"struct nsproxy *":      guest + "->nsproxy",
	"struct net *":          guest + "->nsproxy->net_ns",
	"struct rq *":           "&per_cpu(runqueues, 0)",
	"struct files_struct *": guest + "->files",
	"struct path *":         "&" + guest + "->mm->exe_file->f_path",
	"const struct path *":   "&" + guest + "->mm->exe_file->f_path",
	"struct cgroup *":       guest + "->cgroups->dfl_cgrp",
}

// TestManyLoads is TestLoads for functions of all sorts, as they come: each
// takes an object that there is.
func TestManyLoads(t *testing.T) {
	const each = 25
	for _, scene := range dumptest.Idle {
		t.Run(scene, func(t *testing.T) {
			t.Parallel()
			k := example.KernelOf(t, dumptest.Get(t, scene+".kdump"))
			env, err := ForKernel(k)
			qt.Assert(t, qt.IsNil(err))
			syms, err := k.Match("*")
			qt.Assert(t, qt.IsNil(err))
			rng := rand.New(rand.NewPCG(3, 4))
			rng.Shuffle(len(syms), func(i, j int) { syms[i], syms[j] = syms[j], syms[i] })
			calls, named, all := 0, 0, 0
			for _, s := range syms {
				if calls == each {
					break
				}
				args, ok := argsFor(env, s)
				if !ok {
					continue
				}
				calls++
				stored, events := false, 0
				run(t, k, env, s.Name, args, func(f *Flow, e *Event) {
					const enough = 300
					if events++; events > enough {
						return
					}
					f.Write(e.Place, e.Frame)
					f.Text(e.Cond, e.Frame)
					if e.Kind == Branch && e.Cond.Op != "" && !relationHolds(e.Cond) {
						t.Errorf("%s(%s): step %d, %s: %s does not hold", s.Name, strings.Join(args, ", "), e.Step, e.Inst, f.Text(e.Cond, e.Frame))
					}
					if e.Kind == Branch && !stored {
						for _, v := range []Value{e.Cond.Left, e.Cond.Right} {
							if err := (judge{k, env.Types(), f.m.Mem}).value(f, v); err != nil {
								t.Errorf("%s(%s): step %d, %s: %v", s.Name, strings.Join(args, ", "), e.Step, e.Inst, err)
							}
						}
					}
					stored = stored || e.Kind == Store && !e.Stack // the way to a place may have changed since
					if e.Kind != Load || e.Stack || stored {
						return
					}
					all++
					if e.Place == nil {
						return
					}
					named++
					if v, ok := env.Variable(e.Addr); ok && v.CPU < 0 {
						if s, ok := k.Lookup(v.Name); ok && s.Addr != v.Addr {
							return // the judge would take another of that name
						}
					}
					if err := (judge{k, env.Types(), f.m.Mem}).check(f, e); err != nil {
						t.Errorf("%s(%s): step %d, %s: %v", s.Name, strings.Join(args, ", "), e.Step, e.Inst, err)
					}
				})
			}
			t.Logf("%d calls; %d of %d loads have a name", calls, named, all)
			qt.Check(t, qt.IsTrue(named*10 > all*6), qt.Commentf("%d of %d", named, all))
		})
	}
}

// argsFor returns arguments for a function that takes an object.
func argsFor(env *KernelEnv, s kernel.Symbol) ([]string, bool) {
	fn, ok := env.Func(s.Addr)
	if !ok || fn.Proto == nil || !fn.Exact || s.Kind != kernel.KindKernel || fn.Name != s.Name {
		return nil, false
	}
	if first, ok := env.k.Lookup(s.Name); !ok || first.Addr != s.Addr {
		return nil, false // one of several
	}
	var args []string
	found := false
	for _, p := range fn.Proto.Params() {
		a, ok := objects[p.Type.String()]
		if found = found || ok; !ok {
			a = "0"
		}
		args = append(args, a)
	}
	return args, found && len(args) <= 6
}

// relationHolds computes a relation from the values of its sides.
func relationHolds(c Cond) bool {
	size := max(c.Left.Size, c.Right.Size)
	l, r := c.Left.Val&mask(size), c.Right.Val&mask(size)
	less, equal := int64(sext(l, size)) < int64(sext(r, size)), l == r
	if c.Unsigned {
		less = l < r
	}
	switch c.Op {
	case "==":
		return equal
	case "!=":
		return !equal
	case "<":
		return less
	case "<=":
		return less || equal
	case ">":
		return !less && !equal
	case ">=":
		return !less
	case "&":
		return l&r != 0
	}
	return l&r == 0
}
