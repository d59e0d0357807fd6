package kernel

import (
	"github.com/ksleuth/ksleuth/ctype"
)

// globals gives the C types of variables that BTF does not describe: a
// kernel's BTF has, of variables, the per-CPU ones alone, and before 5.11
// (f3d9054ba8ff) none. Where a type differs between kernels the first that the
// kernel has is taken. [1] stands for as many elements as there are.
var globals = map[string][]string{
	"__cpu_active_mask":   {"struct cpumask"},
	"__cpu_online_mask":   {"struct cpumask"},
	"__cpu_possible_mask": {"struct cpumask"},
	"__cpu_present_mask":  {"struct cpumask"},
	"__per_cpu_offset":    {"unsigned long [1]"},
	"__preempt_count":     {"int"},
	"_totalram_pages":     {"atomic_long_t"},
	"boot_cpu_data":       {"struct cpuinfo_x86"},
	"bpf_kallsyms":        {"struct list_head"},
	"btf_idr":             {"struct idr"},
	"btf_modules":         {"struct list_head"},
	"cgrp_dfl_root":       {"struct cgroup_root"},
	"const_current_task":  {"struct task_struct *"},
	"cpu_number":          {"int"},
	"crashing_cpu":        {"int"},
	"current_task":        {"struct task_struct *"},
	"ftrace_events":       {"struct list_head"},
	"global_trace":        {"struct trace_array"},
	"init_cred":           {"struct cred"},
	"init_css_set":        {"struct css_set"},
	"init_fs":             {"struct fs_struct"},
	"init_ipc_ns":         {"struct ipc_namespace"},
	"init_mm":             {"struct mm_struct"},
	"init_net":            {"struct net"},
	"init_nsproxy":        {"struct nsproxy"},
	"init_pid_ns":         {"struct pid_namespace"},
	"init_struct_pid":     {"struct pid"},
	"init_task":           {"struct task_struct"},
	"init_user_ns":        {"struct user_namespace"},
	"init_uts_ns":         {"struct uts_namespace"},
	"iomem_resource":      {"struct resource"},
	"jiffies":             {"unsigned long"},
	"jiffies_64":          {"unsigned long"},
	"link_idr":            {"struct idr"},
	"map_idr":             {"struct idr"},
	"modules":             {"struct list_head"},
	"mount_lock":          {"seqlock_t"},
	"net_namespace_list":  {"struct list_head"},
	"node_data":           {"struct pglist_data *[1]"},
	"nr_cpu_ids":          {"unsigned int"},
	"numa_node":           {"int"},
	"panic_cpu":           {"atomic_t"},
	"panic_on_oops":       {"int"},
	"prb":                 {"struct printk_ringbuffer *"},
	"prog_idr":            {"struct idr"},
	"rename_lock":         {"seqlock_t"},
	"root_mountflags":     {"int"},
	"root_task_group":     {"struct task_group"},
	"runqueues":           {"struct rq"},
	"saved_command_line":  {"char *"},
	"security_hook_heads": {"struct security_hook_heads"},
	"shadow_timekeeper":   {"struct timekeeper"},
	"softnet_data":        {"struct softnet_data"},
	"super_blocks":        {"struct list_head"},
	"system_state":        {"enum system_states"},
	"tainted_mask":        {"unsigned long"},
	"tcp_hashinfo":        {"struct inet_hashinfo"},
	"timekeeper_data":     {"struct tk_data [1]"},
	"totalreserve_pages":  {"unsigned long"},
	"udp_table":           {"struct udp_table"},
	"vm_node_stat":        {"atomic_long_t [1]"},
	"vm_zone_stat":        {"atomic_long_t [1]"},
	"vmap_area_list":      {"struct list_head"},
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
