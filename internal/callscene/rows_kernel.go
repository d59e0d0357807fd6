package main

import "slices"

// Objects of the kernel that many calls take.
var (
	initNet    = sym("init_net")
	initUserNS = sym("init_user_ns")
	initPIDNS  = sym("init_pid_ns")
	pidIDR     = at{initPIDNS, "pid_namespace", "idr"}
	initTask   = sym("init_task")
	initCred   = load{initTask, "task_struct", "cred"}
)

// memoryRows: mm, arch/x86/mm, kernel/resource.c.
func memoryRows() []row {
	buffer := space(4096)
	return slices.Concat(
		each("is_vmalloc_addr", buffer, initTask, sym("_stext")), each("is_vmalloc_or_module_addr", buffer, initTask, sym("dummy_setup")),
		each("vmalloc_to_page", buffer), each("vmalloc_to_pfn", buffer), each("find_vm_area", off{buffer, -64}), each("slow_virt_to_phys", buffer, initTask),
		each("__virt_addr_valid", buffer, initTask, kept("pid1"), kept("task1"), 0x1000),
		each("ksize", kept("task1"), load{kept("task1"), "task_struct", "cred"}), each("kmem_cache_size", deref{sym("files_cachep")}, deref{sym("sighand_cachep")}, deref{sym("dentry_cache")}, deref{sym("kmem_cache")}),
		each("kmalloc_size_roundup", 0, 5, 97, 4097),
		each("page_is_ram", 0, 1, 0x1000, 0xfee00), each("iomem_is_exclusive", 0, 0xfee00000, 0xfec00000),
		each("per_cpu_ptr_to_phys", off{percpu{"runqueues", 0}, 0}, off{percpu{"runqueues", 1}, 8}), each("is_kernel_percpu_address", percpu{"runqueues", 1}, initTask),
		each("arch_phys_wc_index", 0, 1005), each("vm_get_page_prot", 0, 7, 0xf), each("in_gate_area_no_mm", uint64(0xffffffffff600000), 0x1000),
		each("get_gate_vma", load{kept("task1"), "task_struct", "mm"}),
		[]row{
			call("lookup_address", buffer, space(4)), call("lookup_address", sym("_stext"), space(4)), call("lookup_address", 0x1000, space(4)), call("lookup_address", initTask, space(4)),
			call("__is_kernel_percpu_address", percpu{"runqueues", 1}, space(8)), call("__is_module_percpu_address", percpu{"runqueues", 1}, space(8)), call("is_module_percpu_address", initTask),
			call("region_intersects", 0x1000, 0x1000, 0x01000200, 0), call("region_intersects", 0xfee00000, 0x1000, 0x01000200, 0), call("region_intersects", 0x90000, 0x20000, 0x01000200, 0),
			call("iomem_map_sanity_check", 0x1000, 0x1000), call("lookup_resource", sym("iomem_resource"), 0x1000),
			call("e820__mapped_any", 0, 0x1000, 1), call("e820__mapped_any", 0xf0000, 0x100000, 1), call("e820__mapped_raw_any", 0xf0000, 0x100000, 2), call("e820__get_entry_type", 0x1000, 0x2000),
			call("mtrr_type_lookup", 0x100000, 0x200000, space(1)), call("pat_enabled"), call("phys_mem_access_encrypted", 0x1000, 0x1000), call("valid_phys_addr_range", 0x1000, 0x1000),
			call("valid_phys_addr_range", 1<<40, 0x1000), call("valid_mmap_phys_addr_range", 0x1000, 0x1000), call("devmem_is_allowed", 0), call("devmem_is_allowed", 0x1000),
			call("in_gate_area", load{kept("task1"), "task_struct", "mm"}, uint64(0xffffffffff600000)),
			call("cap_mmap_addr", 0x10000), call("cap_mmap_addr", 0), call("security_mmap_addr", 0x10000), call("vm_commit_limit"), call("cap_vm_enough_memory", sym("init_mm"), 4),
			call("cpu_mitigations_off"), call("cpu_mitigations_auto_nosmt"), call("is_hpet_enabled"), call("cpu_has_xfeatures", 3, space(8)), call("cpu_has_xfeatures", 1<<40, space(8)),
		},
	)
}

// codeRows: kernel/kallsyms.c, kernel/extable.c, kernel/module, kernel/kprobes.c, kernel/trace/ftrace.c.
func codeRows() []row {
	var out []row
	places := []any{sym("_stext"), off{sym("schedule"), 7}, sym("dummy_setup"), initTask, 0x1000, off{sym("bpf_prog_load"), 1}}
	for _, fn := range []string{
		"kernel_text_address", "__kernel_text_address", "core_kernel_text", "func_ptr_is_kernel_text", "is_module_address", "is_module_text_address",
		"__module_address", "__module_text_address", "search_exception_tables", "is_bpf_text_address", "arch_within_kprobe_blacklist", "within_kprobe_blacklist",
		"get_kprobe", "ftrace_location", "is_ftrace_trampoline", "can_probe", "ex_get_fixup_type", "core_kernel_data", "init_kernel_text",
	} {
		out = append(out, each(fn, places...)...)
	}
	for _, p := range places {
		out = append(out,
			call("kallsyms_lookup_size_offset", p, space(8), space(8)), call("kallsyms_lookup", p, space(8), space(8), space(8), space(512)),
			call("ftrace_location_range", p, off{p, 16}), call("ftrace_text_reserved", p, off{p, 5}), call("jump_label_text_reserved", p, off{p, 5}),
			call("static_call_text_reserved", p, off{p, 5}), call("alternatives_text_reserved", p, off{p, 5}),
		)
	}
	return append(out,
		call("within_kprobe_blacklist", sym("asm_exc_page_fault")), call("within_kprobe_blacklist", sym("exc_int3")),
		call("kallsyms_lookup_name", "_stext"), call("kallsyms_lookup_name", "no_such_symbol_x"), call("module_kallsyms_lookup_name", "dummy_setup"), call("module_kallsyms_lookup_name", "nothing"),
		call("search_exception_tables", off{sym("copy_user_generic_unrolled"), 0}), call("search_exception_tables", sym("__get_user_4")),
		call("search_extable", sym("__start___ex_table"), 100, sym("__get_user_4")),
		call("static_key_count", sym("cgroup_bpf_enabled_key")), call("static_key_count", sym("sched_schedstats")), call("static_key_count", sym("rcu_cpu_stall_suppress")),
		call("is_module_sig_enforced"), call("find_module", "dummy").as("dummy"), call("module_refcount", kept("dummy")),
	)
}

// treeRows: lib/radix-tree.c, lib/xarray.c, lib/idr.c, lib/rbtree.c, lib/maple_tree.c, ...
func treeRows() []row {
	tree := at{pidIDR, "idr", "idr_rt"}
	top := load{deref{sym("sysfs_root_kn")}, "kernfs_node", "dir.children.rb_node"}
	root := at{deref{sym("sysfs_root_kn")}, "kernfs_node", "dir.children"}
	maple := at{load{kept("task1"), "task_struct", "mm"}, "mm_struct", "mm_mt"}
	var out []row
	for _, id := range []uint64{1, 2, 17, 63, 64, 4000000} {
		out = append(out,
			call("idr_find", pidIDR, id), call("radix_tree_lookup", tree, id), call("radix_tree_lookup_slot", tree, id), call("xa_load", tree, id), call("xa_get_mark", tree, id, 0),
			call("radix_tree_tag_get", tree, id, 0), call("idr_get_next", pidIDR, u32(uint32(id))), call("idr_get_next_ul", pidIDR, words{id}),
			call("xa_find", tree, words{id}, ones, 8), call("xa_find_after", tree, words{id}, ones, 8),
		)
	}
	out = append(out, each("rb_first", root)...)
	out = append(out, each("rb_last", root)...)
	out = append(out,
		call("radix_tree_tagged", tree, 0), call("radix_tree_tagged", tree, 1), call("radix_tree_gang_lookup", tree, space(64), 1, 8),
		call("rb_next", top).as("rbnext"), call("rb_next", kept("rbnext")), call("rb_prev", top).as("rbprev"), call("rb_prev", kept("rbprev")),
		call("rb_first_postorder", root).as("rbpost"), call("rb_next_postorder", kept("rbpost")), call("rb_next_postorder", top),
		call("mtree_load", maple, 0x400000), call("mtree_load", maple, 0x401234), call("mtree_load", maple, 0x1000),
	)
	return out
}

// taskRows: kernel/pid.c, kernel/sched, kernel/kthread.c, arch/x86/kernel.
func taskRows(o *objects) []row {
	out := []row{call("find_task_by_vpid", o.kthread).as("kthread")}
	for _, id := range []int{1, 2, 7, 4000000} {
		out = append(out, call("find_vpid", id), call("find_pid_ns", id, initPIDNS), call("find_task_by_vpid", id), call("find_task_by_pid_ns", id, initPIDNS), call("find_ge_pid", id, initPIDNS))
	}
	task, kthreadd := kept("task1"), kept("task2")
	for _, t := range []any{task, kthreadd, kept("kthread"), initTask} {
		for _, fn := range []string{"task_active_pid_ns", "task_prio", "kthread_probe_data", "security_task_getpgid", "security_task_getscheduler", "security_task_getioprio", "cap_task_setscheduler"} {
			out = append(out, call(fn, t))
		}
		out = append(out,
			call("__task_pid_nr_ns", t, 0, initPIDNS), call("__task_pid_nr_ns", t, 1, 0), call("__task_pid_nr_ns", t, 2, initPIDNS), call("can_nice", t, -5), call("can_nice", t, 19), call("cap_task_setnice", t, -1),
			call("has_ns_capability", t, initUserNS, 21), call("has_capability_noaudit", t, 21), call("has_capability", t, 12), call("has_ns_capability_noaudit", t, initUserNS, 40), call("ptrace_may_access", t, 9), call("ptrace_may_access", t, 18),
		)
	}
	return append(out,
		call("pid_nr_ns", kept("pid1"), initPIDNS), call("pid_nr_ns", kept("pid2"), initPIDNS), call("pid_nr_ns", 0, initPIDNS), call("pid_vnr", kept("pid1")), call("pid_vnr", kept("pid2")),
		call("pid_task", kept("pid1"), 0), call("pid_task", kept("pid2"), 0), call("pid_task", kept("pid2"), 3),
		call("kthread_func", kept("kthread")), call("kthread_data", kept("kthread")), call("kthread_probe_data", kept("kthread")),
		call("task_curr", kthreadd), call("idle_task", 0), call("idle_task", 1), call("cpus_share_cache", 0, 1), call("cpus_share_cache", 1, 1), call("cpu_coregroup_mask", 1), call("get_cpu_device", 0).as("cpudev"), call("get_cpu_device", 1), call("get_cpu_device", 9999),
		call("get_wchan", kthreadd), call("__get_wchan", kthreadd), call("in_task_stack", off{load{kthreadd, "task_struct", "stack"}, 0x1000}, kthreadd, space(64)), call("in_task_stack", initTask, kthreadd, space(64)),
		call("in_entry_stack", initTask, space(64)),
		call("current_is_async"), call("current_is_workqueue_rescuer"), call("current_work"), call("is_current_pgrp_orphaned"), call("get_close_on_exec", 0), call("get_close_on_exec", 3), call("get_close_on_exec", 99999),
		call("bpf_get_current_pid_tgid", 0, 0, 0, 0, 0), call("bpf_get_current_uid_gid", 0, 0, 0, 0, 0), call("bpf_get_current_task", 0, 0, 0, 0, 0), call("bpf_get_current_task_btf", 0, 0, 0, 0, 0),
		call("bpf_get_smp_processor_id", 0, 0, 0, 0, 0), call("bpf_get_numa_node_id", 0, 0, 0, 0, 0), call("bpf_get_raw_cpu_id", 0, 0, 0, 0, 0), call("bpf_get_current_cgroup_id", 0, 0, 0, 0, 0),
		call("nr_blockdev_pages"), call("get_max_files"), call("workqueue_congested", 0, deref{sym("system_wq")}), call("work_busy", words{0xfffffffe0, 0, 0, 0}),
	)
}

// userRows: kernel/user_namespace.c, kernel/capability.c, kernel/groups.c, security.
func userRows() []row {
	uids, gids := at{initUserNS, "user_namespace", "uid_map"}, at{initUserNS, "user_namespace", "gid_map"}
	var out []row
	for _, id := range []int{0, 1000, -1} {
		for _, fn := range []string{"make_kuid", "make_kgid", "make_kprojid", "from_kuid", "from_kgid", "from_kprojid", "from_kuid_munged", "from_kgid_munged", "from_kprojid_munged"} {
			out = append(out, call(fn, initUserNS, id))
		}
		out = append(out,
			call("map_id_up", uids, id), call("map_id_down", gids, id), call("map_id_range_down", uids, id, 10), call("in_group_p", id), call("in_egroup_p", id),
			call("groups_search", load{initCred, "cred", "group_info"}, id),
		)
	}
	for _, capability := range []int{0, 12, 21, 40} {
		out = append(out,
			call("capable", capability), call("ns_capable", initUserNS, capability), call("ns_capable_noaudit", initUserNS, capability),
			call("cap_capable", initCred, initUserNS, capability, 2), call("security_capable", initCred, initUserNS, capability, 2),
		)
	}
	return append(out,
		call("in_userns", initUserNS, initUserNS), call("current_in_userns", initUserNS), call("userns_may_setgroups", initUserNS),
		call("gid_cmp", u32(1), u32(2)), call("gid_cmp", u32(2), u32(2)),
		call("uid_gt", 2, 1), call("security_syslog", 3), call("security_locked_down", 0), call("security_locked_down", 5), call("security_settime64", words{5, 0}, 0), call("cap_settime", words{5, 0}, 0),
		call("security_ptrace_access_check", kept("task2"), 9), call("cap_ptrace_access_check", kept("task2"), 9), call("security_binder_set_context_mgr", initCred),
		call("netns_owner", at{initNet, "net", "ns"}), call("pidns_owner", at{initPIDNS, "pid_namespace", "ns"}), call("utsns_owner", at{sym("init_uts_ns"), "uts_namespace", "ns"}),
		call("ipcns_owner", at{sym("init_ipc_ns"), "ipc_namespace", "ns"}), call("cgroupns_owner", at{sym("init_cgroup_ns"), "cgroup_namespace", "ns"}), call("userns_owner", at{initUserNS, "user_namespace", "ns"}),
		call("mntns_owner", at{load{load{initTask, "task_struct", "nsproxy"}, "nsproxy", "mnt_ns"}, "mnt_namespace", "ns"}),
		call("ns_match", at{initNet, "net", "ns"}, 4, 1),
	)
}

// fileRows: fs, fs/kernfs.
func fileRows() []row {
	fs := load{kept("task1"), "task_struct", "fs"}
	root := at{fs, "fs_struct", "root"}
	dentry := load{root, "path", "dentry"}
	mnt := load{root, "path", "mnt"}
	sysfs := deref{sym("sysfs_root_kn")}
	return []row{
		call("path_is_under", root, root), call("path_is_mountpoint", root), call("is_subdir", dentry, dentry), call("d_ancestor", dentry, dentry),
		call("dentry_path_raw", dentry, space(64), 64), call("d_path", root, space(64), 64), call("our_mnt", mnt), call("mnt_may_suid", mnt), call("__mnt_is_readonly", mnt), call("__lookup_mnt", mnt, dentry),
		call("inode_owner_or_capable", load{dentry, "dentry", "d_inode"}),
		call("inode_owner_or_capable", idmap{}, load{dentry, "dentry", "d_inode"}), call("generic_permission", load{dentry, "dentry", "d_inode"}, 3), call("generic_permission", idmap{}, load{dentry, "dentry", "d_inode"}, 3),
		call("privileged_wrt_inode_uidgid", initUserNS, load{dentry, "dentry", "d_inode"}), call("privileged_wrt_inode_uidgid", initUserNS, idmap{}, load{dentry, "dentry", "d_inode"}),
		call("capable_wrt_inode_uidgid", load{dentry, "dentry", "d_inode"}, 1), call("capable_wrt_inode_uidgid", idmap{}, load{dentry, "dentry", "d_inode"}, 1),
		call("kernfs_name", sysfs, space(64), 64), call("kernfs_path_from_node", sysfs, 0, space(64), 64), call("kernfs_path_from_node", sysfs, sysfs, space(64), 64),
		call("kobject_namespace", deref{sym("kernel_kobj")}), call("mutex_is_locked", sym("cgroup_mutex")), call("mutex_is_locked", words{0, 0, 0, 0}), call("mutex_is_locked", words{0xffff888000001000, 0, 0, 0}), call("rtnl_is_locked"),
	}
}

// groupRows: kernel/cgroup.
func groupRows() []row {
	root := at{sym("cgrp_dfl_root"), "cgroup_root", "cgrp"}
	self := at{root, "cgroup", "self"}
	return []row{
		call("css_next_child", 0, self), call("css_next_descendant_pre", 0, self), call("css_next_descendant_pre", self, self), call("css_rightmost_descendant", self), call("css_has_online_children", self),
		call("css_from_id", 1, sym("cpu_cgrp_subsys")), call("css_from_id", 99999, sym("memory_cgrp_subsys")), call("css_from_id", 1, sym("memory_cgrp_subsys")),
		call("cgroup_e_css", root, sym("cpu_cgrp_subsys")), call("cgroup_ssid_enabled", 0), call("cgroup_ssid_enabled", 3), call("cgroup_path_ns_locked", root, space(64), 64, sym("init_cgroup_ns")),
		call("percpu_ref_is_zero", at{self, "cgroup_subsys_state", "refcnt"}),
	}
}
