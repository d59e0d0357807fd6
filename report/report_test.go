package report

import (
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/ksleuth/ksleuth/internal/example"
	"github.com/ksleuth/ksleuth/kernel"
	"github.com/ksleuth/ksleuth/stack"
	"github.com/ksleuth/ksleuth/unwind"
	"github.com/ksleuth/ksleuth/vmcore"
)

func TestOverwritten(t *testing.T) {
	for _, test := range []struct {
		want, got uint64
		says      string
	}{
		// Case E: four bytes at offset 3, of which the last differs not.
		{0xffffcc5800403868, 0xffffffffea403868, "bytes 3 to 6 became ea ff ff ff = -22 (-EINVAL) as 32-bit integer"},
		{0xff7a522e003f3be0, 0xffffffffea3f3be0, "bytes 3 to 6 became ea ff ff ff = -22 (-EINVAL) as 32-bit integer"},
		{0xffffcc5800403868, 0xffffcc58fffffff4, "bytes 0 to 3 became f4 ff ff ff = -12 (-ENOMEM) as 32-bit integer"},
		{0xffffcc5800403868, 0xffffffffffffffff, "bytes 0 to 7 became ff ff ff ff ff ff ff ff = -1 (-EPERM) as 64-bit integer"},
		{0x1111111111111111, 0xffffffffffffffea, "bytes 0 to 7 became ea ff ff ff ff ff ff ff = -22 (-EINVAL) as 64-bit integer"},
		{0xffffcc5800403868, 0xffffcc5800403800, "byte 0 became 00"},
		{0xffffcc5800403868, 0x00ffcc5800403868, "byte 7 became 00"},
		{0xffffcc5800403868, 0xffffcc5800400000, "bytes 0 to 1 became 00 00"},
		{0xffffcc5800403868, 0x4141414141414141, "bytes 0 to 7 became 41 41 41 41 41 41 41 41"},
		{0xffffcc5800403868, 0xffff414141413868, "bytes 2 to 5 became 41 41 41 41"},
		{0xffffcc5800403868, 0, "bytes 0 to 7 became 00 00 00 00 00 00 00 00"},
		{0x11111111ffffffff, 0x11111111fffff000, "bytes 0 to 1 became 00 f0"}, // -4096 is no error
	} {
		p := overwritten(word(test.got), word(test.want))
		qt.Check(t, qt.Equals(p.String(), test.says), qt.Commentf("%#x -> %#x", test.want, test.got))
		// Whatever it is, the store makes one of the other.
		w := word(test.want)
		copy(w[p.first:], p.value)
		qt.Check(t, qt.DeepEquals(w, word(test.got)))
	}
	qt.Check(t, qt.Equals(overwritten(word(7), word(7)).len, 0))
}

func TestCanonical(t *testing.T) {
	for addr, want := range map[uint64]bool{
		0: true, 0x7fffffffffff: true, 0xffff800000000000: true, ^uint64(0): true,
		0x00ffffffffffffff: true, 0xff00000000000000: true, // with 5-level page tables
		0x0100000000000000: false, 0xdead000000000100: false, 0x6b6b6b6b6b6b6b6b: false, 0x8000000000000000: false,
	} {
		qt.Check(t, qt.Equals(canonical(addr), want), qt.Commentf("%#x", addr))
	}
}

func TestPoison(t *testing.T) {
	for v, want := range map[uint64]string{
		0xdead000000000100: "LIST_POISON: the node was already removed from its list",
		0xdead000000000122: "LIST_POISON: the node was already removed from its list",
		0x6b6b6b6b6b6b6b6b: "slab poison: the object was freed",
		0x6b6b6b6b6b6b6ba3: "slab poison: the object was freed",
		0x5a5a5a5a5a5a5a5a: "slab poison: the object was never initialised",
		0:                  "",
		0xdead000000000200: "",
		0xffff888000001000: "",
	} {
		qt.Check(t, qt.Equals(poison(v), want), qt.Commentf("%#x", v))
	}
}

// frames makes a stack of functions, innermost first; "|" stands for the
// registers of the code that an exception or interrupt interrupted.
func frames(names string) []stack.Frame {
	var out []stack.Frame
	interrupted := false
	for name := range strings.FieldsSeq(names) {
		if name == "|" {
			interrupted = true
			continue
		}
		f := stack.Frame{Symbol: name, Kind: kernel.KindKernel}
		if interrupted {
			f.Raw.Regs = &vmcore.Regs{}
		}
		out, interrupted = append(out, f), false
	}
	return out
}

// TestLocate: the code at fault in the stacks of kernels that panicked.
func TestLocate(t *testing.T) {
	for _, test := range []struct {
		name, stack    string
		want           string // the code at fault
		vector, lockup string
	}{
		{"oops 6.1", "panic oops_end.cold page_fault_oops do_user_addr_fault exc_page_fault asm_exc_page_fault | bad caller do_syscall_64",
			"bad", "asm_exc_page_fault", ""},
		{"oops 5.10", "panic oops_end.cold no_context __bad_area_nosemaphore exc_page_fault asm_exc_page_fault | bad do_syscall_64",
			"bad", "asm_exc_page_fault", ""},
		{"oops in an interrupt", "panic oops_end exc_page_fault asm_exc_page_fault | bad handler asm_sysvec_apic_timer_interrupt | idle",
			"bad", "asm_exc_page_fault", ""},
		{"running CPU stopped in the console", "| serial console_unlock panic oops_end exc_page_fault asm_exc_page_fault | bad",
			"bad", "asm_exc_page_fault", ""},
		{"GP fault", "vpanic panic oops_end.part.0 die_addr exc_general_protection asm_exc_general_protection | bad",
			"bad", "asm_exc_general_protection", ""},
		{"double fault", "panic oops_end.cold exc_double_fault asm_exc_double_fault | bad", "bad", "asm_exc_double_fault", ""},
		{"sysrq", "panic sysrq_handle_crash __handle_sysrq.cold write_sysrq_trigger ksys_write do_syscall_64", "sysrq_handle_crash", "", ""},
		{"panic from a function", "delay vpanic panic bad do_syscall_64", "bad", "", ""},
		{"panic in an interrupt that is no oops", "panic bad handler asm_sysvec_apic_timer_interrupt | idle", "bad", "", ""},
		{"soft lockup", "panic watchdog_timer_fn.cold __hrtimer_run_queues hrtimer_interrupt sysvec_apic_timer_interrupt asm_sysvec_apic_timer_interrupt | loop do_syscall_64",
			"loop", "asm_sysvec_apic_timer_interrupt", "soft lockup"},
		{"hard lockup", "nmi_panic watchdog_overflow_callback.cold __perf_event_overflow exc_nmi asm_exc_nmi | loop",
			"loop", "asm_exc_nmi", "hard lockup"},
		{"hung task", "panic watchdog.cold kthread ret_from_fork", "watchdog.cold", "", ""},
		{"init killed", "panic do_exit.cold do_group_exit get_signal do_syscall_64", "do_exit.cold", "", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := crash{stack: stack.Stack{Frames: frames(test.stack)}}
			c.locate()
			f := c.stack.Frames[c.first]
			qt.Check(t, qt.Equals(f.Symbol, test.want))
			qt.Check(t, qt.Equals(c.vector, test.vector))
			qt.Check(t, qt.Equals(c.lockup, test.lockup))
			qt.Check(t, qt.Equals(c.regs != nil, test.vector != ""))
		})
	}
	var empty crash
	empty.locate()
	qt.Check(t, qt.Equals(empty.first, 0))
}

// TestFingerprint: what differs from boot to boot does not count, what tells
// bugs apart does.
func TestFingerprint(t *testing.T) {
	report := func(symbols string) *Report {
		return &Report{Frames: frames(symbols), Fault: &Fault{Kind: "page fault", Access: "read", Addr: 0x10}}
	}
	a := report("bad.isra.0 caller do_syscall_64")
	b := report("bad.constprop.3 caller.cold do_syscall_64")
	b.Fault.Addr, b.Frames[0].PC, b.Frames[0].Offset = 0x20, 0x1234, 8
	qt.Check(t, qt.Equals(fingerprint(a), fingerprint(b)))
	qt.Check(t, qt.HasLen(fingerprint(a), 16))

	entry := report("bad caller do_syscall_64 entry")
	entry.Frames[3].Kind = kernel.KindEntry
	qt.Check(t, qt.Equals(fingerprint(a), fingerprint(entry)))

	bpf := func(id int, tag string) *Report {
		r := report("prog bpf_trampoline_6442 caller")
		r.Frames[0].Kind, r.Frames[0].BPF = kernel.KindBPF, &stack.BPF{ID: id, Tag: tag}
		r.Frames[1].Kind = kernel.KindTrampoline
		r.Frames[1].Symbol = fmt.Sprintf("bpf_trampoline_%d", id)
		return r
	}
	qt.Check(t, qt.Equals(fingerprint(bpf(7, "aa")), fingerprint(bpf(9, "bb"))))

	seen := make(map[string]string)
	for name, r := range map[string]*Report{
		"a": a, "other function": report("worse caller do_syscall_64"), "other caller": report("bad other do_syscall_64"),
		"panic": {Frames: frames("bad caller do_syscall_64")},
		"write": {Frames: frames("bad caller do_syscall_64"), Fault: &Fault{Kind: "page fault", Access: "write"}},
		"bpf":   bpf(1, ""),
	} {
		f := fingerprint(r)
		if other, ok := seen[f]; ok {
			t.Errorf("%s and %s have one fingerprint", name, other)
		}
		seen[f] = name
	}
	qt.Check(t, qt.Equals(fingerprint(&Report{}), ""))
}

// TestFault decodes faults of instructions that are put where the example's
// crashed program is.
func TestFault(t *testing.T) {
	base := example.Kernel(t)
	at, err := base.Find("bpf_prog_2be77e55c77ca1bf_call_kfunc")
	qt.Assert(t, qt.IsNil(err))
	stext, err := base.Find("_stext")
	qt.Assert(t, qt.IsNil(err))
	initTask, err := base.Find("init_task")
	qt.Assert(t, qt.IsNil(err))
	const noncanonical = 0xdead000000000100
	readRAX := []byte{0x48, 0x8b, 0x40, 0x10}  // mov 0x10(%rax),%rax
	writeRAX := []byte{0x48, 0x89, 0x58, 0x08} // mov %rbx,0x8(%rax)
	for _, test := range []struct {
		name   string
		vector string
		code   []byte
		regs   vmcore.Regs
		want   Fault // without Text
	}{
		{"NULL read", "asm_exc_page_fault", readRAX, vmcore.Regs{}, Fault{Kind: "page fault", Access: "read", Addr: 0x10, Register: "rax", Why: "rax is NULL"}},
		{"NULL write", "asm_exc_page_fault", writeRAX, vmcore.Regs{}, Fault{Kind: "page fault", Access: "write", Addr: 0x8, Register: "rax", Why: "rax is NULL"}},
		{"nearly NULL", "asm_exc_page_fault", readRAX, vmcore.Regs{RAX: 0x20}, Fault{Kind: "page fault", Access: "read", Addr: 0x30, Register: "rax", Why: "rax is 0x20, not a pointer"}},
		{"just below NULL", "asm_exc_page_fault", readRAX, vmcore.Regs{RAX: ^uint64(0) - 15}, Fault{Kind: "page fault", Access: "read", Addr: 0, Register: "rax", Why: "rax is 0xfffffffffffffff0, not a pointer"}},
		{"wild pointer", "asm_exc_page_fault", readRAX, vmcore.Regs{RAX: 0xffffdeadc0de0000}, Fault{Kind: "page fault", Access: "read", Addr: 0xffffdeadc0de0010, Register: "rax", Why: "not mapped"}},
		{"user pointer", "asm_exc_page_fault", readRAX, vmcore.Regs{RAX: 0x400000}, Fault{Kind: "page fault", Access: "read", Addr: 0x400010, Register: "rax", Why: "a user address that is not mapped"}},
		{"read-only", "asm_exc_page_fault", writeRAX, vmcore.Regs{RAX: stext.Addr}, Fault{Kind: "page fault", Access: "write", Addr: 8, Register: "rax", Why: "read-only"}},
		{"LIST_POISON", "asm_exc_general_protection", readRAX, vmcore.Regs{RAX: noncanonical},
			Fault{Kind: "general protection fault", Access: "read", Addr: noncanonical + 0x10, Register: "rax", Why: "no canonical address: rax is 0xdead000000000100, LIST_POISON: the node was already removed from its list"}},
		{"not canonical, written", "asm_exc_general_protection", writeRAX, vmcore.Regs{RAX: 0x1234567890abcdef},
			Fault{Kind: "general protection fault", Access: "write", Addr: 0x1234567890abcdf7, Register: "rax", Why: "no canonical address: rax is 0x1234567890abcdef"}},
		{"wrmsr", "asm_exc_general_protection", []byte{0x0f, 0x30}, vmcore.Regs{}, Fault{Kind: "general protection fault", Why: "the instruction or a segment it names is not permitted"}},
		{"BUG", "asm_exc_invalid_op", []byte{0x0f, 0x0b}, vmcore.Regs{}, Fault{Kind: "BUG", Why: "an assertion of the kernel failed (ud2)"}},
		{"no instruction", "asm_exc_invalid_op", []byte{0x0f, 0xff}, vmcore.Regs{}, Fault{Kind: "invalid opcode", Why: "the bytes at RIP are no valid instruction"}},
		{"division", "asm_exc_divide_error", []byte{0xf7, 0xf1}, vmcore.Regs{}, Fault{Kind: "divide error"}},
		{"an exception of the future", "asm_exc_virtualization", []byte{0x90}, vmcore.Regs{}, Fault{Kind: "exc_virtualization"}},
		{"stack lost", "asm_exc_double_fault", []byte{0x50}, vmcore.Regs{RSP: 0}, Fault{Kind: "double fault", Register: "rsp", Why: "the stack pointer is 0x0, where no stack is"}},
		{"jump to NULL", "asm_exc_page_fault", nil, vmcore.Regs{RIP: 1}, Fault{Kind: "page fault", Access: "execute", Addr: 1, Why: "a call or jump through a NULL pointer"}},
		{"jump into data", "asm_exc_page_fault", nil, vmcore.Regs{RIP: initTask.Addr}, Fault{Kind: "page fault", Access: "execute", Addr: 0, Why: "not executable"}},
		{"jump nowhere", "asm_exc_page_fault", nil, vmcore.Regs{RIP: 0xffffdeadc0de0000}, Fault{Kind: "page fault", Access: "execute", Addr: 0xffffdeadc0de0000, Why: "not mapped"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			k := base
			if test.code != nil {
				test.regs.RIP = at.Addr + 0x17
				k = example.Kernel(t, example.Write(test.regs.RIP, test.code))
			}
			b := &builder{k: k, r: &Report{Frames: []stack.Frame{stack.At(k, test.regs.RIP)}}}
			b.fault(crash{regs: &test.regs, vector: test.vector})
			qt.Assert(t, qt.IsNotNil(b.r.Fault))
			got := *b.r.Fault
			qt.Check(t, qt.Not(qt.Equals(got.Text, "")))
			got.Text = ""
			switch test.name { // addresses that KASLR chose
			case "read-only":
				test.want.Addr = got.Addr
				qt.Check(t, qt.Equals(uint64(got.Addr), stext.Addr+8))
			case "jump into data":
				test.want.Addr = got.Addr
				qt.Check(t, qt.Equals(uint64(got.Addr), initTask.Addr))
			}
			qt.Check(t, qt.Equals(got, test.want))
		})
	}
}

// TestUnread: errors that were joined are told apart, one that words several is
// one, and none is told twice.
func TestUnread(t *testing.T) {
	b := &builder{r: &Report{}}
	one, two := fmt.Errorf("one"), fmt.Errorf("two")
	b.unread("x", nil)
	b.unread("x", one)
	b.unread("x", one)
	b.unread("y", fmt.Errorf("%w and %w", one, two))
	qt.Check(t, qt.DeepEquals(b.r.Unread, []string{"x: one", "y: one and two"}))
}

// TestExample: the whole report of case E.
func TestExample(t *testing.T) {
	r := Build(t.Context(), example.Kernel(t), example.Core(t))
	qt.Check(t, qt.HasLen(r.Unread, 0))
	qt.Check(t, qt.Equals(r.Panic, "Fatal exception"))
	qt.Check(t, qt.Equals(*r.Task, Task{PID: 93, Comm: "guest", CPU: 1, Syscall: "bpf(BPF_PROG_TEST_RUN)"}))
	qt.Check(t, qt.Equals(r.RIP.Symbol, "call_kfunc"))
	qt.Check(t, qt.Equals(r.Fault.Register, "rbp"))
	qt.Assert(t, qt.IsNotNil(r.Cause))
	qt.Check(t, qt.Equals(r.Cause.Title, "saved frame pointer partially overwritten"))
	qt.Check(t, qt.Equals(r.Cause.Text, "bpf_skb_ct_lookup() overwrote the frame pointer that lookup() had saved."))
	qt.Check(t, qt.StringContains(r.Cause.Evidence[0].Text, "bytes 3 to 6 became ea ff ff ff = -22 (-EINVAL)"))
	qt.Check(t, qt.Equals(len(r.Frames), 7))
	qt.Assert(t, qt.IsNotNil(r.Overwrite))
	qt.Check(t, qt.Equals(r.Overwrite.Store.Name, "opts->error"))
	qt.Check(t, qt.Equals(r.Known.ID, "ct-opts-overflow"))
	qt.Check(t, qt.Equals(r.Missing, ""))
}

// TestExampleNotAgain: where what ran cannot be run again, the report says how
// far it reaches, and claims what the dump shows by itself.
func TestExampleNotAgain(t *testing.T) {
	k := example.Kernel(t)
	s, err := k.Find("bpf_skb_ct_lookup")
	qt.Assert(t, qt.IsNil(err))
	r := Build(t.Context(), example.Kernel(t, example.Absent(s.Addr)), example.Core(t))
	qt.Check(t, qt.IsNil(r.Overwrite))
	qt.Check(t, qt.IsNil(r.Known))
	qt.Check(t, qt.Equals(r.Cause.Title, "saved frame pointer partially overwritten"))
	qt.Check(t, qt.StringContains(r.Cause.Text, "bytes 3 to 6 became ea ff ff ff = -22 (-EINVAL)"))
	qt.Check(t, qt.Matches(r.Missing, "which instruction wrote it is not shown here: .*"))
	qt.Check(t, qt.StringContains(r.Missing, fmt.Sprintf("memory at 0x%x is excluded from the dump", s.Addr)))
}

// TestExampleDamaged: without the page of the BPF program there is still a
// stack above it, and what is missing is said.
func TestExampleDamaged(t *testing.T) {
	k := example.Kernel(t)
	s, err := k.Find("bpf_prog_2be77e55c77ca1bf_call_kfunc")
	qt.Assert(t, qt.IsNil(err))
	r := Build(t.Context(), example.Kernel(t, example.Absent(s.Addr)), example.Core(t))
	qt.Check(t, qt.Equals(r.RIP.Symbol, "call_kfunc"))
	qt.Check(t, qt.StringContains(r.StackEnd, "excluded from the dump"))
	qt.Check(t, qt.StringContains(strings.Join(r.Unread, "\n"), "code at RIP"))
	qt.Check(t, qt.Equals(r.Fault.Kind, "page fault"))

	// Not even the task.
	task, err := k.Current(1)
	qt.Assert(t, qt.IsNil(err))
	r = Build(t.Context(), example.Kernel(t, example.Absent(task)), example.Core(t))
	qt.Check(t, qt.StringContains(strings.Join(r.Unread, "\n"), "the task that panicked: "))
	qt.Check(t, qt.Equals(r.Panic, "Fatal exception"))
}

// TestDamageOfNothing: a frame pointer that is wrong all over is said so.
func TestDamageOfNothing(t *testing.T) {
	k := example.Kernel(t)
	b := &builder{k: k, r: &Report{}}
	f := stack.Frame{Symbol: "victim"}
	c := crash{stack: stack.Stack{Frames: []stack.Frame{f}}, regs: &vmcore.Regs{}}
	got := b.damage(c, unwind.Damage{Frame: 0, Cell: 0xff00, Got: 0x4141414141414141, Want: 0xffffcc5800403868})
	qt.Check(t, qt.Equals(got.Title, "saved frame pointer overwritten"))
	qt.Check(t, qt.StringContains(got.Evidence[1].Text, "the damaged copy is the one saved at 0xff00"))
	qt.Check(t, qt.Equals(got.Evidence[0].Bytes, fmt.Sprintf("% x", binary.LittleEndian.AppendUint64(nil, 0x4141414141414141))))
}
