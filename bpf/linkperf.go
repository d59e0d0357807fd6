package bpf

import (
	"errors"
	"fmt"
	"strings"

	"github.com/ksleuth/ksleuth/kernel"
	"github.com/ksleuth/ksleuth/mem"
)

// perfLink reads the event that a perf_event link holds by its file
// (b89fbfbb854c, 5.15).
func perfLink(r *linkReader) ([]Target, error) {
	file := r.o.Deref("perf_file")
	addr := file.Ptr("private_data")
	if err := file.Err(); err != nil {
		return nil, err
	}
	e, err := perfEventAt(r.k, addr)
	r.l.Cookie, r.l.Missed = e.cookie, e.missed
	return []Target{e.target}, err
}

// A perfEvent is what a program is attached to by perf_event_open.
type perfEvent struct {
	target Target
	prog   uint64 // the struct bpf_prog that runs on it
	cookie uint64
	missed uint64 // hits of a kprobe that no program saw
}

// perfEventAt reads the struct perf_event at addr.
func perfEventAt(k *kernel.Kernel, addr uint64) (perfEvent, error) {
	o := k.Object("perf_event", addr)
	e := perfEvent{prog: o.Ptr("prog")}
	if o.Has("bpf_cookie") { // 82e6b1eee6a8, 5.15
		e.cookie = o.Uint("bpf_cookie")
	}
	call, task := o.Ptr("tp_event"), o.Ptr("hw.target")
	if err := o.Err(); err != nil {
		return e, err
	}
	var err error
	if call == 0 {
		e.target = plainEvent(o)
		err = o.Err()
	} else {
		e.target, e.missed, err = traceEvent(k, call)
	}
	if task != 0 {
		t := k.Object("task_struct", task)
		e.target.PID = int(t.Uint("pid"))
		err = errors.Join(err, t.Err())
	}
	return e, err
}

// perfNames are the names that perf has for events, by perf_event_attr.type and
// config: PERF_TYPE_HARDWARE and PERF_TYPE_SOFTWARE.
var perfNames = [][]string{
	{
		"cpu-cycles", "instructions", "cache-references", "cache-misses", "branch-instructions",
		"branch-misses", "bus-cycles", "stalled-cycles-frontend", "stalled-cycles-backend", "ref-cycles",
	},
	{
		"cpu-clock", "task-clock", "page-faults", "context-switches", "cpu-migrations", "minor-faults",
		"major-faults", "alignment-faults", "emulation-faults", "dummy", "bpf-output", "cgroup-switches",
	},
}

const perfTypeBreakpoint = 5

// plainEvent describes an event of a performance counter, a timer or a
// hardware breakpoint.
func plainEvent(o *kernel.Object) Target {
	typ, config := o.Uint("attr.type"), o.Uint("attr.config")
	t := Target{Kind: TargetEvent, Value: int64(config)}
	switch {
	case typ < uint64(len(perfNames)) && config < uint64(len(perfNames[typ])):
		t.Name = perfNames[typ][config]
	case typ == perfTypeBreakpoint:
		t.Name, t.Addr = "breakpoint", mem.Addr(o.Uint("attr.bp_addr"))
	default:
		t.Name = fmt.Sprintf("type %d config 0x%x", typ, config)
	}
	return t
}

// traceEvent describes the struct trace_event_call at addr: a tracepoint, a
// kprobe or a uprobe, made by perf_event_open or through tracefs. It also
// returns how many hits of a kprobe were missed.
func traceEvent(k *kernel.Kernel, addr uint64) (Target, uint64, error) {
	o := k.Object("trace_event_call", addr)
	flags := o.Uint("flags")
	if err := o.Err(); err != nil {
		return Target{}, 0, err
	}
	switch {
	case has(k, flags, "TRACE_EVENT_FL_TRACEPOINT"):
		tp := o.Deref("tp")
		t := Target{Kind: TargetTracepoint, Name: tp.Str("name")}
		return t, 0, tp.Err()
	case has(k, flags, "TRACE_EVENT_FL_KPROBE"):
		return kprobeEvent(k, addr)
	case has(k, flags, "TRACE_EVENT_FL_UPROBE"):
		t, err := uprobeEvent(k, addr)
		return t, 0, err
	}
	// The events of system calls have names, but no tracepoints, of their own.
	t := Target{Kind: TargetTracepoint, Name: o.Str("name")}
	return t, 0, o.Err()
}

// has says whether a flag of one of the kernel's enums is set. The values of
// TRACE_EVENT_FL_* differ between kernels.
func has(k *kernel.Kernel, flags uint64, name string) bool {
	types, err := k.Types()
	if err != nil {
		return false
	}
	e, _, err := types.Enumerator(name)
	return err == nil && flags&e.Value != 0
}

// probeOf returns the struct that the first struct trace_probe of an event is
// the member "tp" of. Since 60d53e2c3b75 (5.4) a trace_event_call is part of a
// trace_probe_event, which lists its probes.
func probeOf(k *kernel.Kernel, call uint64, record string) (*kernel.Object, error) {
	callOff, err1 := k.Offset("trace_probe_event", "call")
	listOff, err2 := k.Offset("trace_probe", "list")
	tpOff, err3 := k.Offset(record, "tp")
	if err := errors.Join(err1, err2, err3); err != nil {
		return nil, err
	}
	event := k.Object("trace_probe_event", call-callOff)
	first := event.Ptr("probes.next")
	if err := event.Err(); err != nil {
		return nil, err
	}
	if first == event.At("probes") {
		return nil, fmt.Errorf("trace_probe_event at 0x%x has no probe", event.Addr)
	}
	return k.Object(record, first-listOff-tpOff), nil
}

// kprobeEvent: as the kernel's bpf_get_kprobe_info has it, but that a probe set
// by address gets the symbol there. With nmissed of the kretprobe (no instance
// was free) a return probe has two counts.
func kprobeEvent(k *kernel.Kernel, call uint64) (Target, uint64, error) {
	o, err := probeOf(k, call, "trace_kprobe")
	if err != nil {
		return Target{Kind: TargetKprobe}, 0, err
	}
	at, missed, ret := o.Ptr("rp.kp.addr"), o.Uint("rp.kp.nmissed"), o.Ptr("rp.handler") != 0
	if ret {
		missed += o.Uint("rp.nmissed")
	}
	name, off := o.Str("symbol"), o.Uint("rp.kp.offset")
	t := symbolTarget(k, TargetKprobe, at)
	if name != "" { // "module:function", or without the module
		if mod, fn, ok := strings.Cut(name, ":"); ok {
			t.Module, name = mod, fn
		}
		t.Name, t.Offset = name, mem.Addr(off)
	}
	t.Return = ret
	return t, missed, o.Err()
}

// uprobeEvent: as the kernel's bpf_get_uprobe_info has it.
func uprobeEvent(k *kernel.Kernel, call uint64) (Target, error) {
	o, err := probeOf(k, call, "trace_uprobe")
	if err != nil {
		return Target{Kind: TargetUprobe}, err
	}
	t := Target{
		Kind:   TargetUprobe,
		Name:   o.Str("filename"),
		Offset: mem.Addr(o.Uint("offset")),
		RefCtr: mem.Addr(o.Uint("ref_ctr_offset")),
		Return: o.Ptr("consumer.ret_handler") != 0,
	}
	return t, o.Err()
}
