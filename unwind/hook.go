package unwind

import (
	"encoding/binary"
	"fmt"

	"github.com/ksleuth/ksleuth/kernel"
	"github.com/ksleuth/ksleuth/mem"
)

// Tracers learn of a function's return by replacing its return address with
// that of a trampoline, and keep the true one with the place it was taken from.
var hooks = []struct {
	trampoline string
	find       func(k *kernel.Kernel, task, slot uint64) (uint64, error)
}{
	{"return_to_handler", graphReturn},          // function graph tracer, fprobe
	{"arch_rethook_trampoline", rethookReturn},  // kretprobe, fprobe: 54ecbe6f1ed5, 5.18
	{"__kretprobe_trampoline", kretprobeReturn}, // adf8a61a940c, 5.16
	{"kretprobe_trampoline", kretprobeReturn},   // before
}

// unhook returns the true return address where ret, found at slot on the
// stack, is a tracer's trampoline.
func (u *unwinder) unhook(ret, slot uint64) (uint64, error) {
	s, off, ok := u.k.Symbolize(ret)
	if !ok || off != 0 || s.Kind != kernel.KindKernel {
		return ret, nil
	}
	for _, h := range hooks {
		if s.Name != h.trampoline {
			continue
		}
		if u.task == 0 {
			return 0, fmt.Errorf("the return address at 0x%x is a tracer's (%s), and which task's it is is not known", slot, s.Name)
		}
		orig, err := h.find(u.k, u.task, slot)
		if err != nil {
			return 0, fmt.Errorf("the return address at 0x%x is a tracer's (%s): %w", slot, s.Name, err)
		}
		return orig, nil
	}
	return ret, nil
}

func notKept(what string) error { return fmt.Errorf("the true one is not in %s", what) }

// graphReturn looks into the task's shadow stack. Its entries are struct
// ftrace_ret_stack, which lie among other words since 6.11; so it is searched
// for the word that says where the return address was.
func graphReturn(k *kernel.Kernel, task, slot uint64) (uint64, error) {
	const size = 4096 // SHADOW_STACK_SIZE; 50 entries of 32 bytes before
	t := k.Object("task_struct", task)
	stack := t.Ptr("ret_stack")
	if err := t.Err(); err != nil {
		return 0, err
	}
	retp, err := k.Offset("ftrace_ret_stack", "retp")
	if err != nil {
		return 0, err
	}
	words := make([]byte, size)
	if err := k.Mem().ReadMem(words, stack); err != nil {
		words = words[:1600]
		if err := k.Mem().ReadMem(words, stack); err != nil {
			return 0, err
		}
	}
	for off := retp; off+8 <= uint64(len(words)); off += 8 {
		if binary.LittleEndian.Uint64(words[off:]) == slot {
			return binary.LittleEndian.Uint64(words[off-retp:]), nil // ret is its first member
		}
	}
	return 0, notKept("the task's shadow stack")
}

const maxHooks = 1 << 12 // functions of one task that wait to return

// rethookReturn looks into the task's list of struct rethook_node.
func rethookReturn(k *kernel.Kernel, task, slot uint64) (uint64, error) {
	return listReturn(k, task, slot, "rethooks", "rethook_node", "frame")
}

// kretprobeReturn looks into the task's list of struct kretprobe_instance, or
// into the table of all tasks' that kernels had before d741bf41d7c7 (5.11).
func kretprobeReturn(k *kernel.Kernel, task, slot uint64) (uint64, error) {
	if k.Object("task_struct", task).Has("kretprobe_instances") {
		return listReturn(k, task, slot, "kretprobe_instances", "kretprobe_instance", "fp")
	}
	table, err := k.Addr("kretprobe_inst_table")
	if err != nil {
		return 0, err
	}
	const buckets = 64 // KPROBE_TABLE_SIZE
	for i := range uint64(buckets) {
		at, err := mem.U64(k.Mem(), table+8*i)
		if err != nil {
			return 0, err
		}
		if ret, ok, err := chainReturn(k, at, slot, "kretprobe_instance", "hlist", "fp"); ok || err != nil {
			return ret, err
		}
	}
	return 0, notKept("kretprobe_inst_table")
}

func listReturn(k *kernel.Kernel, task, slot uint64, head, node, frame string) (uint64, error) {
	t := k.Object("task_struct", task)
	first := t.Field(head).Ptr("first")
	if err := t.Err(); err != nil {
		return 0, err
	}
	ret, ok, err := chainReturn(k, first, slot, node, "llist", frame)
	if err == nil && !ok {
		err = notKept("the task's list of " + node)
	}
	return ret, err
}

// chainReturn follows a singly linked list of nodes to the one whose frame is
// slot.
func chainReturn(k *kernel.Kernel, at, slot uint64, node, link, frame string) (ret uint64, ok bool, err error) {
	off, err := k.Offset(node, link)
	if err != nil {
		return 0, false, err
	}
	for n := 0; at != 0 && n < maxHooks; n++ {
		o := k.Object(node, at-off)
		if o.Ptr(frame) == slot && o.Err() == nil {
			ret = o.Ptr("ret_addr")
			return ret, o.Err() == nil, o.Err()
		}
		if at = o.Field(link).Ptr("next"); o.Err() != nil {
			return 0, false, o.Err()
		}
	}
	return 0, false, nil
}
