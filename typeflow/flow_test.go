package typeflow

import (
	"context"
	"testing"

	"github.com/ksleuth/ksleuth/emulate"
	"github.com/ksleuth/ksleuth/kernel"
)

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
