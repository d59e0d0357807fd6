package rerun

import (
	"errors"
	"fmt"
	"strings"

	"github.com/ksleuth/ksleuth/emulate"
	"github.com/ksleuth/ksleuth/mem"
)

// A stubRow says what stands for functions that do not run. It is taken for
// every one of its names that the kernel has; names differ between kernels.
type stubRow struct {
	names string // separated by blanks
	why   string // what is left out, and what happens instead
	run   func(r *run, c *call) error
	jumps bool // run says where to go on, and does not return to the caller
	quiet bool // it changes nothing that a reader of the result would want to know
}

// A call is a call of a stub.
type call struct {
	name string
	row  *stubRow
	m    *emulate.Machine
	stub *emulate.Stub
}

// arg returns the i-th argument, from 0.
func (c *call) arg(i int) uint64 {
	c.stub.Args = max(c.stub.Args, i+1) // so that what it returns depends on no others
	return c.m.GP[emulate.ArgRegs[i]]
}

// ret sets what the function returns.
func (c *call) ret(v uint64) { c.m.GP[emulate.RAX] = v }

// stub makes the stub of a row.
func (r *run) stub(addr uint64, f stubAt) *emulate.Stub {
	st := &emulate.Stub{Name: f.name, Jumps: f.row.jumps, Args: 1}
	st.Run = func(m *emulate.Machine) error {
		c := &call{name: f.name, row: f.row, m: m, stub: st}
		before := len(r.uses)
		err := f.row.run(r, c)
		if !f.row.quiet && len(r.uses) == before && f.row.why != "" {
			r.use(f.name, f.row.why)
		}
		return err
	}
	return st
}

// A stubAt is a row with the name that the kernel has for it.
type stubAt struct {
	name string
	row  *stubRow
}

// findStubs finds which of the functions of the table the kernel has. Other
// CPUs, devices and the moment are what a run has not.
func (s *Session) findStubs() map[uint64]stubAt {
	rows := map[string]*stubRow{}
	var names []string
	for _, table := range [][]stubRow{sleepStubs, logStubs, endStubs, allocStubs, lockStubs, timeStubs, otherStubs} {
		for i := range table {
			for name := range strings.FieldsSeq(table[i].names) {
				rows[name] = &table[i]
				names = append(names, name)
			}
		}
	}
	out := map[uint64]stubAt{}
	for name, sym := range s.k.LookupAll(names...) {
		out[sym.Addr] = stubAt{name, rows[name]}
	}
	s.clockStub(out)
	s.tracerStubs(out)
	return out
}

// endOfRun makes the row's reason the end of the run.
func endOfRun(r *run, c *call) error { return errors.New(c.row.why) }

// nothing does nothing; the function returns 0, or nothing.
func nothing(r *run, c *call) error {
	c.ret(0)
	return nil
}

// yes does nothing; the function returns 1, as if it had done it.
func yes(r *run, c *call) error {
	c.ret(1)
	return nil
}

// keep does nothing and leaves all registers as they are.
func keep(r *run, c *call) error { return nil }

// sleepStubs are of the scheduler.
var sleepStubs = []stubRow{
	{
		names: `schedule __schedule schedule_idle schedule_preempt_disabled schedule_timeout schedule_timeout_idle
			schedule_timeout_interruptible schedule_timeout_killable schedule_timeout_uninterruptible
			schedule_hrtimeout schedule_hrtimeout_range schedule_hrtimeout_range_clock schedule_rtlock
			io_schedule io_schedule_timeout do_nanosleep`,
		why: "the task would sleep here, and another would run",
		run: endOfRun,
	},
	{
		names: `_cond_resched __cond_resched dynamic_cond_resched preempt_schedule preempt_schedule_notrace
			preempt_schedule_thunk preempt_schedule_notrace_thunk preempt_schedule_common preempt_schedule_irq
			dynamic_preempt_schedule dynamic_preempt_schedule_notrace __cond_resched_lock __cond_resched_rwlock_read
			__cond_resched_rwlock_write __might_sleep __might_resched __might_fault`,
		run: nothing, quiet: true, // a task may or may not lose the CPU here
	},
	{
		names: "try_to_wake_up wake_up_process wake_up_state default_wake_function wake_up_new_task",
		why:   "no task is woken",
		run:   yes,
	},
	{
		names: "do_softirq __do_softirq handle_softirqs do_softirq_own_stack invoke_softirq irq_work_run irq_work_tick irq_work_single",
		why:   "softirqs and pending work of the CPU do not run",
		run:   nothing,
	},
	{
		names: `queue_work_on queue_work_node queue_delayed_work_on mod_delayed_work_on queue_rcu_work __queue_work
			delayed_work_timer_fn irq_work_queue irq_work_queue_on kthread_queue_work kthread_queue_delayed_work`,
		why: "the work is not queued: nothing would do it",
		run: yes,
	},
	{
		names: "__flush_work flush_work flush_delayed_work __flush_workqueue flush_workqueue cancel_work_sync irq_work_sync",
		why:   "waiting for work of another task: taken as done",
		run:   yes,
	},
	{
		names: `synchronize_rcu synchronize_rcu_expedited synchronize_srcu synchronize_srcu_expedited synchronize_net
			synchronize_rcu_tasks synchronize_rcu_tasks_trace synchronize_rcu_tasks_rude synchronize_irq
			synchronize_hardirq rcu_barrier rcu_barrier_tasks rcu_barrier_tasks_trace wait_rcu_gp __wait_rcu_gp cond_synchronize_rcu`,
		why: "waiting for other CPUs: taken as done",
		run: nothing,
	},
	{
		names: "call_rcu call_rcu_hurry __call_rcu call_srcu call_rcu_tasks call_rcu_tasks_trace kvfree_call_rcu kfree_call_rcu",
		why:   "what is to happen after a grace period does not happen",
		run:   nothing,
	},
	{
		names: "rcu_read_unlock_special rcu_note_context_switch",
		run:   nothing, quiet: true, // nobody waits for this reader
	},
}

// logStubs are of the kernel's log.
var logStubs = []stubRow{
	{names: "printk _printk vprintk printk_deferred _printk_deferred vprintk_default vprintk_deferred", run: printk(0)},
	{names: "vprintk_emit", run: printk(3)},
	{names: "early_printk trace_printk __trace_printk __trace_bprintk", run: printk(0)},
	{names: "__warn_printk", run: printk(0)},
	{names: "bpf_trace_printk bpf_trace_vprintk", run: bpfPrintk},
	{names: "dump_stack dump_stack_lvl show_stack show_regs print_modules dump_page console_unlock wake_up_klogd add_taint", why: "nothing is printed", run: nothing},
}

// printk notes what would be printed, by its format: the i-th argument.
func printk(i int) func(*run, *call) error {
	return func(r *run, c *call) error {
		r.use(c.name, "not printed: "+r.format(c.arg(i)))
		c.ret(0)
		return nil
	}
}

// bpfPrintk is printk for a helper, which returns how much it has printed.
func bpfPrintk(r *run, c *call) error {
	text := r.format(c.arg(0))
	r.use(c.name, "not printed: "+text)
	c.ret(uint64(len(text)))
	return nil
}

// format returns a format string, quoted, without its level.
func (r *run) format(addr uint64) string {
	const most = 200
	s, err := mem.CString(r.m.Mem, addr, most)
	if err != nil && s == "" {
		return fmt.Sprintf("a text at 0x%x that cannot be read", addr)
	}
	if len(s) >= 2 && s[0] == 1 { // KERN_SOH and a level
		s = s[2:]
	}
	return fmt.Sprintf("%q", strings.TrimRight(s, "\n"))
}

// endStubs are what the kernel does not come back from.
var endStubs = []stubRow{
	{names: "panic vpanic nmi_panic", run: func(r *run, c *call) error {
		return fmt.Errorf("the kernel would panic: %s", r.format(c.arg(0)))
	}},
	{names: "__stack_chk_fail", why: "the function's stack canary was overwritten: the kernel would panic", run: endOfRun},
	{names: "fortify_panic __fortify_panic", why: "FORTIFY_SOURCE found a buffer overflow: the kernel would panic", run: endOfRun},
	{names: "usercopy_abort", why: "hardened usercopy found a bad copy: the kernel would stop with BUG", run: endOfRun},
	{names: "die oops_end oops_begin page_fault_oops die_addr __die", why: "the kernel would oops", run: endOfRun},
	{names: "do_exit do_group_exit make_task_dead rewind_stack_and_make_dead rewind_stack_do_exit kthread_exit kthread_complete_and_exit", why: "the task would end", run: endOfRun},
	{names: "machine_restart machine_halt machine_power_off emergency_restart kernel_restart kernel_halt kernel_power_off crash_kexec __crash_kexec machine_kexec", why: "the machine would be restarted or halted", run: endOfRun},
}

// otherStubs are what is outside of the CPU.
var otherStubs = []stubRow{
	{
		names: `smp_call_function smp_call_function_any smp_call_function_many smp_call_function_many_cond smp_call_function_single
			smp_call_function_single_async smp_call_on_cpu on_each_cpu on_each_cpu_mask on_each_cpu_cond on_each_cpu_cond_mask
			native_smp_send_reschedule smp_send_reschedule kick_all_cpus_sync stop_machine stop_machine_cpuslocked stop_one_cpu`,
		why: "it is called on no CPU: the others do not run",
		run: nothing,
	},
	{
		names: `flush_tlb_all flush_tlb_mm_range flush_tlb_kernel_range flush_tlb_others flush_tlb_multi native_flush_tlb_multi
			flush_tlb_one_kernel flush_tlb_one_user flush_tlb_local`,
		run: nothing, quiet: true, // there is no TLB
	},
	{
		names: `text_poke text_poke_bp text_poke_copy text_poke_set text_poke_sync text_poke_finish text_poke_queue text_poke_kgdb
			smp_text_poke_single smp_text_poke_batch_add smp_text_poke_batch_finish smp_text_poke_sync_each_cpu
			arch_jump_label_transform arch_jump_label_transform_queue arch_jump_label_transform_apply __jump_label_update
			jump_label_update arch_static_call_transform __static_call_update`,
		why: "code is not patched",
		run: nothing,
	},
	{names: "irq_fpu_usable", why: "the answer is no: code that uses the FPU, or vectors, does without", run: nothing},
	{
		names: "kernel_fpu_begin_mask kernel_fpu_end fpregs_mark_activate switch_fpu_return",
		why:   "the FPU's registers are not saved",
		run:   nothing, quiet: true,
	},
	{
		names: `__kasan_check_read __kasan_check_write __sanitizer_cov_trace_pc __sanitizer_cov_trace_const_cmp1
			__sanitizer_cov_trace_const_cmp2 __sanitizer_cov_trace_const_cmp4 __sanitizer_cov_trace_const_cmp8
			__sanitizer_cov_trace_cmp1 __sanitizer_cov_trace_cmp2 __sanitizer_cov_trace_cmp4 __sanitizer_cov_trace_cmp8
			__sanitizer_cov_trace_switch __kcsan_check_access`,
		run: keep, quiet: true, // they check, or count
	},
	{names: "optimized_callback", why: "the probe is left out", run: nothing},
	{names: "get_random_bytes get_random_bytes_arch get_random_bytes_user prandom_bytes", why: "not random: bytes of 0x5a", run: func(r *run, c *call) error {
		c.ret(c.arg(1))
		return r.fill(c.arg(0), c.arg(1), poison)
	}},
	{names: "get_random_u32 get_random_u64 get_random_u16 get_random_u8 get_random_int get_random_long prandom_u32 bpf_user_rnd_u32", why: "not random: always 0x5a5a5a5a5a5a5a5a, as wide as it is", run: func(r *run, c *call) error {
		v := uint64(poison) * 0x0101010101010101
		switch {
		case strings.HasSuffix(c.name, "u64"), strings.HasSuffix(c.name, "long"):
		case strings.HasSuffix(c.name, "u16"):
			v &= 0xffff
		case strings.HasSuffix(c.name, "u8"):
			v &= 0xff
		default:
			v &= 0xffffffff
		}
		c.ret(v)
		return nil
	}},
	{names: "__get_random_u32_below", why: "not random: always half of the bound", run: func(r *run, c *call) error {
		c.ret(c.arg(0) & 0xffffffff / 2)
		return nil
	}},
}

// fill writes n equal bytes.
func (r *run) fill(addr, n uint64, b byte) error {
	if n > maxHeap {
		return fmt.Errorf("%d bytes at 0x%x: too many", n, addr)
	}
	const part = 4096
	buf := make([]byte, min(n, part))
	for i := range buf {
		buf[i] = b
	}
	for ; n > 0; n -= uint64(len(buf)) {
		buf = buf[:min(n, part)]
		if err := r.m.StoreBytes(addr, buf); err != nil {
			return err
		}
		addr += uint64(len(buf))
	}
	return nil
}
