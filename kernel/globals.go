package kernel

import (
	"github.com/ksleuth/ksleuth/ctype"
)

// globals gives the C types of variables that BTF does not describe: a
// kernel's BTF has, of variables, the per-CPU ones alone. Where a type differs
// between kernels the first that the kernel has is taken.
var globals = map[string][]string{
	"__per_cpu_offset":   {"unsigned long [1]"},
	"bpf_kallsyms":       {"struct list_head"},
	"btf_idr":            {"struct idr"},
	"btf_modules":        {"struct list_head"},
	"cgrp_dfl_root":      {"struct cgroup_root"},
	"crashing_cpu":       {"int"},
	"ftrace_events":      {"struct list_head"},
	"init_mm":            {"struct mm_struct"},
	"init_net":           {"struct net"},
	"init_pid_ns":        {"struct pid_namespace"},
	"init_task":          {"struct task_struct"},
	"init_uts_ns":        {"struct uts_namespace"},
	"jiffies":            {"unsigned long"},
	"jiffies_64":         {"unsigned long"},
	"link_idr":           {"struct idr"},
	"map_idr":            {"struct idr"},
	"modules":            {"struct list_head"},
	"net_namespace_list": {"struct list_head"},
	"nr_cpu_ids":         {"unsigned int"},
	"panic_cpu":          {"atomic_t"},
	"panic_on_oops":      {"int"},
	"prb":                {"struct printk_ringbuffer *"},
	"prog_idr":           {"struct idr"},
	"root_mountflags":    {"int"},
	"saved_command_line": {"char *"},
	"shadow_timekeeper":  {"struct timekeeper"},
	"super_blocks":       {"struct list_head"},
	"system_state":       {"enum system_states"},
	"tainted_mask":       {"unsigned long"},
	"timekeeper_data":    {"struct tk_data [1]"},
	"vmap_area_list":     {"struct list_head"},
}

// Global returns the variable called name: a per-CPU variable (the address is
// then that of the template: use PerCPU), one of a table of known variables,
// or, for anything else, a void: its address can be taken and cast.
func (k *Kernel) Global(name string) (ctype.Value, error) {
	types, err := k.Types()
	if err != nil {
		return ctype.Value{}, err
	}
	s, err := k.Find(name)
	if err != nil {
		return ctype.Value{}, err
	}
	for _, decl := range globals[name] {
		if t, err := types.ParseType(decl); err == nil {
			return types.Object(k.mem, t, s.Addr, name), nil
		}
	}
	if v, err := types.Lookup("var " + name); err == nil {
		return types.Object(k.mem, v.Elem(), s.Addr, name), nil
	}
	if f, err := types.Lookup("func " + name); err == nil {
		return types.Object(k.mem, f, s.Addr, name), nil
	}
	void, err := types.ParseType("void")
	return types.Object(k.mem, void, s.Addr, name), err
}
