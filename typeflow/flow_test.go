package typeflow

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/ksleuth/ksleuth/emulate"
	"github.com/ksleuth/ksleuth/internal/example"
	"github.com/ksleuth/ksleuth/kernel"
)

func TestScratch(t *testing.T) {
	if os.Getenv("SCRATCH") == "" {
		t.Skip()
	}
	k := example.KernelOf(t, os.Getenv("SCRATCH"))
	env, err := ForKernel(k)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Println(lines(t, k, env, os.Getenv("FN"), splitArgs(os.Getenv("ARGS"))...))
}

// run runs a function with an observer.
func run(t *testing.T, k *kernel.Kernel, env Env, fn string, args []string, on func(*Flow, *Event)) (*emulate.Stop, Value, *Flow) {
	t.Helper()
	m := emulate.New(emulate.NewMemory(k.Mem()), emulate.Options{Steps: 20000})
	m.Mem.Map(0x10000, 0x10000)
	m.GP[emulate.RSP] = 0x1f000
	m.GSBase, _ = k.PerCPU(0, 0)
	f := New(env)
	m.Observer = f
	f.On = func(e *Event) { on(f, e) }
	var vals []uint64
	for _, a := range args {
		r, err := k.Eval(a)
		if err != nil {
			t.Fatal(err)
		}
		v, err := r.Value()
		if err != nil {
			t.Fatal(err)
		}
		u, err := v.Uint()
		if err != nil {
			t.Fatal(err)
		}
		vals = append(vals, u)
	}
	at, err := k.Addr(fn)
	if err != nil {
		t.Fatal(err)
	}
	s := m.Call(context.Background(), at, vals...)
	return s, f.Finish(), f
}

// lines runs a function and returns its events, a line each.
func lines(t *testing.T, k *kernel.Kernel, env Env, fn string, args ...string) string {
	t.Helper()
	var out strings.Builder
	s, v, f := run(t, k, env, fn, args, func(f *Flow, e *Event) {
		if e.Stack {
			return
		}
		fmt.Fprintf(&out, "%*s", 2*e.Frame.Depth, "")
		switch e.Kind {
		case Load, Store:
			name := f.Write(e.Place, e.Frame)
			if name == "" {
				name = "(without a name)"
			}
			if e.Kind == Load {
				name = "load  " + name
			} else {
				name = "store " + name
			}
			fmt.Fprintf(&out, "%s = %s\n", name, f.Format(e.Value))
		case Call:
			var as []string
			for i, a := range e.Frame.Args {
				name := f.Name(a, e.Frame.Parent())
				if name == "" {
					name = f.Format(a)
				}
				as = append(as, e.Frame.Func.Proto.Params()[i].Name+" = "+name)
			}
			fmt.Fprintf(&out, "call  %s(%s)\n", e.Frame.Func.Name, strings.Join(as, ", "))
		case Return:
			fmt.Fprintf(&out, "return %s = %s\n", f.Name(e.Value, e.Frame), f.Format(e.Value))
		case Branch:
			fmt.Fprintf(&out, "%-5s %s\n", e.Inst.Op, f.Text(e.Cond, e.Frame))
		}
	})
	fmt.Fprintf(&out, "%s: %s = %s\n", s.Outcome, f.Name(v, nil), f.Format(v))
	return out.String()
}
