package rerun

import (
	"strings"

	"github.com/ksleuth/ksleuth/ctype"
	"github.com/ksleuth/ksleuth/kernel"
	"github.com/ksleuth/ksleuth/typeflow"
)

// A flowEnv gives a run its names and types: those of the kernel, and those of
// BPF programs.
type flowEnv struct {
	*typeflow.KernelEnv
	s    *Session
	maps *flowMaps // once a BPF function was met
}

func (s *Session) flowEnv() (*flowEnv, error) {
	e, err := s.kernelEnv()
	return &flowEnv{KernelEnv: e, s: s}, err
}

// Variable implements [typeflow.Env].
func (e *flowEnv) Variable(addr uint64) (typeflow.Variable, bool) {
	if e.maps != nil {
		if v, ok := e.maps.at(addr); ok {
			return v, true
		}
	}
	return e.KernelEnv.Variable(addr)
}

// Symbol implements [typeflow.Env].
func (e *flowEnv) Symbol(addr uint64) string {
	if e.maps != nil {
		if v, ok := e.maps.at(addr); ok && v.Addr == addr {
			return v.Name
		}
	}
	return e.KernelEnv.Symbol(addr)
}

// Func implements [typeflow.Env].
func (e *flowEnv) Func(addr uint64) (typeflow.Func, bool) {
	sym, off, ok := e.s.k.Symbolize(addr)
	if !ok || off != 0 {
		return typeflow.Func{}, false
	}
	if sym.Kind == kernel.KindBPF {
		return e.bpfFunc(addr, sym)
	}
	fn, ok := e.KernelEnv.Func(addr)
	if ok && fn.Exact && e.s.listed(fn.Name) {
		fn.Proto = e.s.proto(fn.Name)
	}
	if strings.HasPrefix(fn.Name, "bpf_") {
		// Kfuncs take the context by the name that programs have for it.
		fn.Proto = e.inKernel(fn.Proto)
	}
	return fn, ok
}

// listed says whether the table of prototypes has a function.
func (s *Session) listed(name string) bool {
	for _, row := range prototypes {
		if hasWord(row.names, name) {
			return true
		}
	}
	return false
}

func hasWord(words, w string) bool { return strings.Contains(" "+words+" ", " "+w+" ") }

// bpfFunc returns a function of a BPF program, with its name in the source.
func (e *flowEnv) bpfFunc(addr uint64, sym kernel.Symbol) (typeflow.Func, bool) {
	fn := typeflow.Func{Name: sym.Name, Exact: true}
	if e.maps == nil {
		e.maps = e.s.flowMaps()
	}
	c := e.s.bpfAt(addr)
	if !c.ok {
		return fn, true
	}
	fn.Name = c.Prog.Subprogs[c.Subprog].Name
	if c.Subprog == 0 {
		var t Target
		if e.s.setProg(&t, c.Prog, 0) == nil {
			fn.Proto = t.Proto
		}
		return fn, true
	}
	types, err := c.Prog.Types(e.s.k)
	if err != nil || types == nil {
		return fn, true
	}
	if p, err := types.FuncProto(fn.Name); err == nil {
		fn.Proto = e.inKernel(proto(p))
	}
	return fn, true
}

// contextTypes are what programs call their context, and what it is in memory:
// the verifier rewrites accesses to the former (include/linux/bpf_types.h).
var contextTypes = map[string]string{
	"__sk_buff": "sk_buff", "xdp_md": "xdp_buff", "bpf_user_pt_regs_t": "pt_regs", "bpf_sock_addr": "bpf_sock_addr_kern",
	"bpf_sock_ops": "bpf_sock_ops_kern", "sk_msg_md": "sk_msg", "bpf_cgroup_dev_ctx": "bpf_cgroup_dev_ctx",
	"bpf_sysctl": "bpf_sysctl_kern", "bpf_sockopt": "bpf_sockopt_kern", "bpf_sk_lookup": "bpf_sk_lookup_kern",
	"sk_reuseport_md": "sk_reuseport_kern", "bpf_perf_event_data": "bpf_perf_event_data_kern",
}

// inKernel returns a prototype of a program's own BTF with the kernel's records
// in the place of the program's: those may have some of the members only, at
// other offsets.
func (e *flowEnv) inKernel(p *ctype.Type) *ctype.Type {
	if p == nil {
		return nil
	}
	var params []ctype.Param
	for _, q := range p.Params() {
		q.Type = e.kernelType(q.Type)
		params = append(params, q)
	}
	return ctype.FuncOf(e.kernelType(p.Elem()), params)
}

func (e *flowEnv) kernelType(t *ctype.Type) *ctype.Type {
	if t.Strip().Kind() != ctype.Pointer {
		return t
	}
	rec := t.Strip().Elem().Strip()
	if !rec.IsRecord() && rec.Kind() != ctype.Fwd || rec.Name() == "" {
		return t
	}
	name := rec.Name()
	if n := contextTypes[name]; n != "" {
		name = n
	}
	if k, err := e.Types().Struct(name); err == nil {
		return ctype.PointerTo(k)
	}
	if name != rec.Name() {
		return ctype.PointerTo(ctype.Builtin("void"))
	}
	return t
}

// Flow returns a Flow for a run of a target; t is nil for a run from
// registers.
func (s *Session) Flow(t *Target) (*typeflow.Flow, error) {
	env, err := s.flowEnv()
	if err != nil {
		return nil, err
	}
	f := typeflow.New(env)
	if t != nil && t.Proto == nil {
		f.Params = t.params()
	}
	return f, nil
}

// params are the parameters of a function without a prototype, by what it is
// called with.
func (t *Target) params() (out []ctype.Param) {
	for i, typ := range t.Typed {
		if typ == nil {
			typ = ctype.Builtin("u64")
		}
		if typ.Strip().Kind() == ctype.Array {
			typ = ctype.PointerTo(typ.Strip().Elem())
		}
		p := ctype.Param{Name: argName(i), Type: typ}
		if i < len(t.Args) && t.Args[i].Name != "" {
			p.Name = t.Args[i].Name
		}
		out = append(out, p)
	}
	return out
}

func argName(i int) string { return "arg" + string(rune('1'+i%9)) }
