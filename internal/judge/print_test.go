package judge

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/ksleuth/ksleuth/cli"
	"github.com/ksleuth/ksleuth/internal/dumptest"
)

// An expr is a C expression and the Python that asks drgn for the same.
type expr struct{ c, py string }

// objects are expressions for an object, each with members to print: C's -> and
// . are both Python's dot.
var objects = []struct {
	c, py   string
	members string
}{
	{"init_task", "prog['init_task']", `comm pid tgid flags prio static_prio normal_prio rt_priority policy
		nr_cpus_allowed mm active_mm exit_state exit_code personality sched_reset_on_fork sched_contributes_to_load
		sched_migrated sched_remote_wakeup in_execve in_iowait no_cgroup_migration utime stime nvcsw nivcsw
		start_time start_boottime cred cred->uid.val cred->cap_effective fs->umask files->count.counter
		nsproxy->uts_ns->name nsproxy->net_ns signal->nr_threads signal->rlim sighand->count
		real_parent->comm group_leader->pid tasks thread_node pending se se.vruntime se.avg.util_est thread.sp
		thread.fsbase thread.cr2 stack cpus_mask sched_class thread_info thread_info.status
		restart_block.fn ptrace wake_entry rcu_read_unlock_special audit_context seccomp
		journal_info ioac`},
	{"init_uts_ns", "prog['init_uts_ns']", `name name.sysname name.release ns.inum ns.count user_ns->level`},
	{"init_mm", "prog['init_mm']", `pgd mm_users mm_count.counter start_code end_code context.ctx_id page_table_lock def_flags mmap_lock.owner`},
	{"init_pid_ns", "prog['init_pid_ns']", `level pid_allocated child_reaper->comm idr.idr_next idr.idr_base idr.idr_rt ns`},
	{"init_net", "prog['init_net']", `loopback_dev->name loopback_dev->mtu loopback_dev->ifindex loopback_dev->flags loopback_dev->features
		loopback_dev->reg_state loopback_dev->dismantle loopback_dev->rtnl_link_state loopback_dev->needs_free_netdev
		loopback_dev->netdev_ops loopback_dev->operstate loopback_dev->num_tx_queues loopback_dev->type loopback_dev->hard_header_len
		loopback_dev->threaded loopback_dev->proto_down loopback_dev->wol_enabled loopback_dev->dev_addr loopback_dev->stats
		ifindex hash_mix ipv4.sysctl_ip_default_ttl ipv4.sysctl_tcp_ecn ipv4.ip_local_ports.range dev_base_seq user_ns->level`},
	{"per_cpu(runqueues, 0)", "per_cpu(prog['runqueues'], 0)", `cpu nr_running nr_switches clock clock_task idle->comm curr->pid
		cfs.nr_running cfs.min_vruntime rt.rt_nr_running dl.running_bw online sd nr_iowait avg_idle cpu_capacity`},
	{"per_cpu(runqueues, 1)", "per_cpu(prog['runqueues'], 1)", `cpu nr_running clock idle->comm idle->pid curr->thread_info.cpu`},
	{"per_cpu(cpu_info, 1)", "per_cpu(prog['cpu_info'], 1)", `x86 x86_vendor x86_model x86_virt_bits x86_capability x86_vendor_id x86_model_id loops_per_jiffy cpu_index initialized smt_active`},
	{"per_cpu(hrtimer_bases, 0)", "per_cpu(prog['hrtimer_bases'], 0)", `cpu active_bases hres_active in_hrtirq hang_detected expires_next nr_events clock_base[0].clockid clock_base[1].offset`},
	{"per_cpu(cpu_tlbstate, 0)", "per_cpu(prog['cpu_tlbstate'], 0)", `loaded_mm loaded_mm_asid next_asid cr4 ctxs[0]`},
	{"(*prb)", "prog['prb']", `desc_ring.count_bits desc_ring.head_id.counter desc_ring.tail_id text_data_ring.size_bits fail
		desc_ring.descs[3] desc_ring.infos[3].seq desc_ring.infos[3].text_len desc_ring.infos[3].level desc_ring.infos[3].flags desc_ring.infos[3].facility`},
	{"(*(struct kernfs_root **)&sysfs_root)", "prog['sysfs_root']", `flags ino_idr.idr_next kn->name kn->mode kn->flags kn->dir.subdirs`},
}

// operators are whole expressions.
var operators = []expr{
	{"init_task.flags & 0x200000", "prog['init_task'].flags & 0x200000"},
	{"init_task.flags >> 3", "prog['init_task'].flags >> 3"},
	{"~init_task.flags", "~prog['init_task'].flags"},
	{"-init_task.static_prio", "-prog['init_task'].static_prio"},
	{"init_task.static_prio * 3 + 7", "prog['init_task'].static_prio * 3 + 7"},
	{"init_task.static_prio / 7", "prog['init_task'].static_prio / 7"},
	{"init_task.static_prio % 7", "prog['init_task'].static_prio % 7"},
	{"init_task.static_prio ^ 0xff | 0x100", "prog['init_task'].static_prio ^ 0xff | 0x100"},
	{"init_task.static_prio == 120", "prog['init_task'].static_prio == 120"},
	{"init_task.static_prio < init_task.pid", "prog['init_task'].static_prio < prog['init_task'].pid"},
	{"!init_task.pid", "not prog['init_task'].pid"},
	{"init_task.comm[0]", "prog['init_task'].comm[0]"},
	{"(unsigned char)init_task.flags", "cast('unsigned char', prog['init_task'].flags)"},
	{"(signed char)init_task.flags", "cast('signed char', prog['init_task'].flags)"},
	{"(unsigned long)&init_task", "prog['init_task'].address_"},
	{"(u32)init_task.start_time", "cast('u32', prog['init_task'].start_time)"},
	{"(short)-1", "-1"},
	{"&init_task", "prog['init_task'].address_of_()"},
	{"&init_task.comm[3]", "prog['init_task'].comm[3].address_of_()"},
	{"&init_task + 1", "prog['init_task'].address_of_() + 1"},
	{"&init_task.se.run_node", "prog['init_task'].se.run_node.address_of_()"},
	{"*&init_task.prio", "prog['init_task'].address_of_().prio"},
	{"*(int *)&init_task.prio", "cast('int *', prog['init_task'].prio.address_of_())[0]"},
	{"((char *)&init_task.comm)[2]", "cast('char *', prog['init_task'].comm.address_of_())[2]"},
	{"((unsigned short *)init_task.comm)[1]", "cast('unsigned short *', prog['init_task'].comm + 0)[1]"},
	{"sizeof(struct task_struct)", "sizeof(prog.type('struct task_struct'))"},
	{"sizeof(struct sk_buff)", "sizeof(prog.type('struct sk_buff'))"},
	{"sizeof(init_task.comm)", "sizeof(prog['init_task'].comm)"},
	{"sizeof(unsigned long [7])", "56"},
	{"offsetof(struct task_struct, thread.sp)", "offsetof(prog.type('struct task_struct'), 'thread.sp')"},
	{"offsetof(struct net, ipv4.sysctl_ip_default_ttl)", "offsetof(prog.type('struct net'), 'ipv4.sysctl_ip_default_ttl')"},
	{"container_of(&init_task.tasks, struct task_struct, tasks)->comm", "container_of(prog['init_task'].tasks.address_of_(), 'struct task_struct', 'tasks').comm"},
	{"container_of(init_task.tasks.next, struct task_struct, tasks)->comm", "container_of(prog['init_task'].tasks.next, 'struct task_struct', 'tasks').comm"},
	// An enumerator is an int in C.
	{"BPF_PROG_TYPE_XDP", "prog['BPF_PROG_TYPE_XDP'].value_()"},
	{"PIDTYPE_SID", "prog['PIDTYPE_SID'].value_()"},
	{"(enum bpf_prog_type)6", "Object(prog, 'enum bpf_prog_type', 6)"},
	{"*(enum system_states *)&system_state", "prog['system_state']"},
	{"init_task.thread_pid->numbers[0].nr", "prog['init_task'].thread_pid.numbers[0].nr"},
	{"*(char **)&saved_command_line == 0", "not prog['saved_command_line']"},
	{"(*(char **)&saved_command_line)[4]", "prog['saved_command_line'][4]"},
	{"*(u64 *)&jiffies_64", "prog['jiffies_64']"},
	{"tainted_mask", "prog['tainted_mask']"},
	{"nr_cpu_ids", "prog['nr_cpu_ids']"},
	{"&init_pid_ns", "prog['init_pid_ns'].address_of_()"},
	{"&do_syscall_64", "prog['do_syscall_64'].address_of_()"},
	{"per_cpu_ptr(&runqueues, 1)", "per_cpu_ptr(prog['runqueues'].address_of_(), 1)"},
	{"per_cpu(runqueues, 1).curr == per_cpu(runqueues, 1).idle", "per_cpu(prog['runqueues'], 1).curr == per_cpu(prog['runqueues'], 1).idle"},
	{"init_task.pid ? 5 : 6", "6"},
	{"init_task.cred->cap_effective", "prog['init_task'].cred.cap_effective"},
	{"*init_task.cred", "prog['init_task'].cred[0]"},
	{"*init_task.nsproxy", "prog['init_task'].nsproxy[0]"},
	{"(struct list_head)init_task.tasks", "prog['init_task'].tasks"},
	{"*(struct qspinlock *)&init_task.pi_lock", "cast('struct qspinlock *', prog['init_task'].pi_lock.address_of_())[0]"},
}

// expressions returns all expressions; some are about objects that drgn and
// ksleuth agree on, which are found in the dump.
func expressions(t *testing.T, dump string) []expr {
	all := slices.Clone(operators)
	add := func(c, py, members, dot string) {
		for m := range strings.FieldsSeq(members) {
			all = append(all, expr{c + dot + m, py + "." + strings.ReplaceAll(m, "->", ".")})
		}
	}
	for _, o := range objects {
		add(o.c, o.py, o.members, map[bool]string{true: "->", false: "."}[strings.HasPrefix(o.c, "(*(")])
	}
	cast := func(typ, addr, members string) {
		add(fmt.Sprintf("((%s *)%s)", typ, addr), fmt.Sprintf("Object(prog, '%s *', %s)", typ, addr), members, "->")
	}
	for _, g := range answers[task](t, cli.StatusOK, "task", dump, "ps") {
		if g.PID == 1 || g.Comm == "sleeper-a" {
			cast("struct task_struct", g.Addr, `comm mm->pgd mm->total_vm mm->map_count mm->exe_file->f_mode mm->flags files->fdt->max_fds
				fs->pwd.dentry->d_name.hash fs->pwd.dentry->d_iname fs->root.mnt->mnt_sb->s_id signal->shared_pending.list thread.fpu.last_cpu thread.sp
				se.sum_exec_runtime se.on_rq rseq_sig sighand->action[8] rcu_users.refs.counter robust_list`)
		}
	}
	for _, f := range answers[file](t, cli.StatusOK, "file", dump, "files", "1") {
		cast("struct file", f.Addr, `f_mode f_flags f_pos f_count.counter f_op f_inode->i_mode f_inode->i_sb->s_magic f_path.dentry->d_lockref`)
	}
	return all
}

// TestDrgnPrint holds the values of C expressions against drgn.
func TestDrgnPrint(t *testing.T) {
	dump := dumptest.Get(t, "idle-"+drgnKernel+".elf")
	exprs := expressions(t, dump)
	var py []string
	for _, e := range exprs {
		py = append(py, e.py)
	}
	want := askDrgn(t, dump, py, nil).Exprs
	for i, e := range exprs {
		if want[i].Error != "" {
			t.Errorf("drgn cannot evaluate %s: %s", e.py, want[i].Error)
			continue
		}
		status, out, _ := run(t, "-t", dump, "-o", "json", "print", "--", e.c)
		if status != cli.StatusOK {
			t.Errorf("print %q: %s", e.c, out)
			continue
		}
		got := decode[struct {
			Value any `json:"value"`
		}](t, "value", out)
		qt.Assert(t, qt.Equals(len(got), 1))
		if err := sameValue(want[i].Value, got[0].Value); err != nil {
			t.Errorf("print %q: %v", e.c, err)
		}
	}
	t.Logf("%d expressions compared", len(exprs))
}

// sameValue compares a value as testdata/ask_drgn.py has it with ksleuth's.
func sameValue(drgn, ksleuth any) error {
	differ := fmt.Errorf("drgn has %v, ksleuth %v", drgn, ksleuth)
	o, ok := drgn.(map[string]any)
	switch {
	case !ok:
		if b, ok := ksleuth.(bool); ok {
			ksleuth = json.Number(map[bool]string{true: "1", false: "0"}[b])
		}
		if !sameNumber(drgn, ksleuth) {
			return differ
		}
	case o["pointer"] != nil:
		if o["pointer"] != ksleuth {
			return differ
		}
	case o["names"] != nil:
		if names := o["names"].([]any); !slices.Contains(names, ksleuth) && (len(names) > 0 || !sameNumber(o["value"], ksleuth)) {
			return differ
		}
	case o["array"] != nil:
		return sameArray(o["array"].([]any), ksleuth)
	case o["record"] != nil:
		return sameRecord(o["record"].([]any), ksleuth)
	default:
		return differ
	}
	return nil
}

func sameNumber(a, b any) bool {
	x, ok1 := a.(json.Number)
	y, ok2 := b.(json.Number)
	return ok1 && ok2 && x == y
}

// sameArray allows ksleuth what it documents: text as a string, an end of
// zeroes left out, 64 elements at most.
func sameArray(drgn []any, ksleuth any) error {
	if s, ok := ksleuth.(string); ok {
		var b []byte
		for _, c := range drgn {
			n, _ := strconv.Atoi(c.(json.Number).String())
			b = append(b, byte(n))
		}
		if text, _, _ := strings.Cut(string(b), "\x00"); text != s {
			return fmt.Errorf("drgn has %q, ksleuth %q", text, s)
		}
		return nil
	}
	list, ok := ksleuth.([]any)
	if !ok {
		return fmt.Errorf("drgn has an array, ksleuth %v", ksleuth)
	}
	for i, d := range drgn {
		switch {
		case i < len(list):
			if err := sameValue(d, list[i]); err != nil {
				return fmt.Errorf("[%d]: %w", i, err)
			}
		case i < 64 && !isZero(d):
			return fmt.Errorf("[%d]: drgn has %v, ksleuth ends", i, d)
		}
	}
	return nil
}

func isZero(drgn any) bool {
	switch v := drgn.(type) {
	case json.Number:
		return v == "0"
	case map[string]any:
		for key, e := range v {
			if key != "names" && !isZero(e) {
				return false
			}
		}
		return true
	case []any:
		if len(v) == 2 { // maybe a member
			if _, ok := v[0].(string); ok {
				return isZero(v[1])
			}
		}
		return !slices.ContainsFunc(v, func(e any) bool { return !isZero(e) })
	case string:
		return v == "0x0"
	}
	return false
}

func sameRecord(drgn []any, ksleuth any) error {
	rec, ok := ksleuth.(map[string]any)
	if !ok {
		return fmt.Errorf("drgn has a record, ksleuth %v", ksleuth)
	}
	if len(rec) != len(drgn) {
		return fmt.Errorf("drgn has %d members, ksleuth %d", len(drgn), len(rec))
	}
	var errs []error
	for _, m := range drgn {
		name := m.([]any)[0].(string)
		v, ok := rec[name]
		if !ok {
			errs = append(errs, fmt.Errorf("%s: missing", name))
		} else if err := sameValue(m.([]any)[1], v); err != nil {
			errs = append(errs, fmt.Errorf(".%s: %w", name, err))
		}
	}
	return errors.Join(errs...)
}
