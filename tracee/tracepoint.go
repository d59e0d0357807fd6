package tracee

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/ksleuth/ksleuth/ctype"
)

// pointType begins the names of typedefs of the kernel's BTF, one for each
// tracepoint: of a pointer to a function that takes void * and the arguments
// (e8c423fb31fa, 5.5).
const pointType = "btf_trace_"

// pointFuncs begin the names of the functions that the kernel has for a
// tracepoint. Their parameters, unlike the typedef's, have names: one for each
// tracepoint (d25e37d89dd2, 5.10), one for each that is no class's.
var pointFuncs = []string{"__traceiter_", "__probestub_", "__bpf_trace_"}

// byTracepoint resolves tracepoint:NAME and tracepoint:CATEGORY:NAME.
func (r *resolver) byTracepoint(which string) error {
	types, err := r.kernel()
	if types == nil {
		return fmt.Errorf("the arguments of tracepoints are not known: %w", err)
	}
	category, name, ok := strings.Cut(which, ":")
	if !ok {
		category, name, ok = strings.Cut(which, "/")
	}
	var allowed map[string]bool
	if !ok {
		name = which
	} else if allowed, err = r.category(category); err != nil {
		return err
	}
	var names []string
	found := false
	for t := range types.Match(ctype.Typedef, func(b []byte) bool { return bytes.HasPrefix(b, []byte(pointType)) }) {
		own := strings.TrimPrefix(t.Name(), pointType)
		names = append(names, own)
		if fit, _ := path.Match(name, own); (fit || own == name) && (allowed == nil || allowed[own]) {
			r.add(r.tracepoint(types, t, own))
			found = true
		}
	}
	if found {
		return nil
	}
	if len(names) == 0 {
		return r.notFound(nil, nil, "the kernel's types (BTF) describe no tracepoints")
	}
	return r.notFound(nil, ctype.Suggest(name, names), "there is no tracepoint %s", which)
}

// category returns the tracepoints of the categories that fit a name: the
// folders of tracefs.
func (r *resolver) category(name string) (map[string]bool, error) {
	if !r.src.BPF.Running {
		return nil, &PatternError{r.pattern, "categories of tracepoints are told by the running kernel alone; name it without"}
	}
	for _, dir := range tracefs {
		events := filepath.Join(dir, "events")
		if _, err := os.Stat(events); err != nil {
			continue
		}
		dirs, err := filepath.Glob(filepath.Join(events, name, "*"))
		if err != nil {
			return nil, &PatternError{r.pattern, err.Error()}
		}
		out := make(map[string]bool, len(dirs))
		for _, d := range dirs {
			out[filepath.Base(d)] = true
		}
		return out, nil
	}
	return nil, errors.New("categories of tracepoints are told by tracefs, which cannot be read at /sys/kernel/tracing: mount it there, or name the tracepoint without")
}

// tracepoint describes a tracepoint by its typedef.
func (r *resolver) tracepoint(types *ctype.Types, t *ctype.Type, name string) *Function {
	if f := r.points[name]; f != nil {
		return f
	}
	f := &Function{Kind: Tracepoint, Name: name, Types: types, BTF: r.btfs()[t.Module()], ID: t.ID()}
	if t.Module() != vmlinux {
		f.Module = t.Module()
	}
	r.points[name] = f
	proto := t.Elem().Elem() // behind the pointer
	if proto.Kind() != ctype.FuncProto || len(proto.Params()) == 0 {
		f.Refused = &Refusal{fmt.Sprintf("the kernel's types (BTF) do not describe the arguments of tracepoint %s", name), ""}
		return f
	}
	params := proto.Params()
	for _, prefix := range pointFuncs {
		named := namedParams(types, t.Module(), prefix+name, len(params))
		if named != nil {
			params = named
			break
		}
	}
	f.Proto = ctype.FuncOf(ctype.Builtin("void"), params[1:]) // the first is the tracer's own
	return f
}

// namedParams returns the parameters of a function if there are so many.
func namedParams(types *ctype.Types, module, name string, n int) []ctype.Param {
	for _, t := range types.LookupAll(name) {
		if t.Kind() == ctype.Func && t.Module() == module && len(t.Params()) == n {
			return t.Params()
		}
	}
	return nil
}
