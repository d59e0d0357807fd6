package bpf

import (
	"errors"
	"fmt"

	"github.com/ksleuth/ksleuth/kernel"
)

// An eventProg is a program on the events of a struct trace_event_call.
type eventProg struct{ call, prog uint64 }

// A perfSearch looks for programs on perf events that PERF_EVENT_IOC_SET_BPF
// put there.
type perfSearch struct {
	*attachReader
	linked map[uint64]bool    // perf events that have their program by a link
	known  map[eventProg]bool // programs accounted for
	added  map[string]bool    // by program and target: an event is often opened on every CPU
}

// perfEvents reads the events that count on CPUs and in threads, and of
// tracefs's events the programs that hang on none of these.
func (r *attachReader) perfEvents() error {
	s := &perfSearch{attachReader: r, linked: make(map[uint64]bool), known: make(map[eventProg]bool), added: make(map[string]bool)}
	return errors.Join(s.links(), s.installed(), s.tracefs())
}

// links notes the events that perf_event links hold.
func (s *perfSearch) links() error {
	idr, err := s.k.Addr("link_idr")
	if err != nil || s.k.Sizeof("bpf_perf_link") == 0 { // before b89fbfbb854c (5.15)
		return nil
	}
	off, err := s.k.Offset("bpf_perf_link", "link")
	if err != nil {
		return err
	}
	for e, err := range s.k.XArray(idr) {
		if err != nil {
			return err
		}
		o := s.k.Object("bpf_link", e.Entry)
		if enumName(s.k, "bpf_link_type", "BPF_LINK_TYPE_", o.Uint("type")) != "perf_event" || o.Err() != nil {
			continue // said by [Links]
		}
		file := s.k.Object("bpf_perf_link", e.Entry-off).Deref("perf_file")
		event := s.k.Object("perf_event", file.Ptr("private_data"))
		call := event.Ptr("tp_event")
		if file.Err() != nil || event.Err() != nil {
			continue
		}
		s.linked[event.Addr] = true
		s.known[eventProg{call, event.Ptr("prog")}] = true
	}
	return nil
}

// installed walks the events of every context: of each CPU, and of each thread
// that is being watched.
func (s *perfSearch) installed() error {
	ctxs, err := s.contexts()
	seen := make(map[uint64]bool)
	for _, ctx := range ctxs {
		if seen[ctx.Addr] {
			continue // kinds of events share contexts
		}
		seen[ctx.Addr] = true
		events, err := s.listOf(ctx.At("event_list"), "perf_event", "event_entry")
		if err := errors.Join(err, ctx.Err()); err != nil {
			s.errs.Add(fmt.Errorf("perf_event_context at 0x%x: %w", ctx.Addr, err))
		}
		for _, e := range events {
			s.errs.Add(s.event(e))
		}
		if s.errs.TooMany() {
			break
		}
	}
	return err
}

func (s *perfSearch) contexts() ([]*kernel.Object, error) {
	out, err := s.cpuContexts()
	init, err2 := s.k.Addr("init_task")
	if err := errors.Join(err, err2); err != nil {
		return out, err
	}
	tasks, err := s.listOf(s.k.Object("task_struct", init).At("tasks"), "task_struct", "tasks")
	for _, leader := range tasks {
		threads, terr := s.listOf(leader.Deref("signal").At("thread_head"), "task_struct", "thread_node")
		if terr != nil {
			s.errs.Add(fmt.Errorf("threads of the task at 0x%x: %w", leader.Addr, terr))
		}
		for _, t := range threads {
			// One for hardware and one for software up to bd2756811766 (6.2).
			paths := []string{"perf_event_ctxp"}
			if n := t.Len("perf_event_ctxp"); n > 0 {
				paths = []string{"perf_event_ctxp[0]", "perf_event_ctxp[1]"}
			}
			for _, p := range paths {
				if ctx := t.Ptr(p); ctx != 0 {
					out = append(out, s.k.Object("perf_event_context", ctx))
				}
			}
			s.errs.Add(t.Err())
		}
		if s.errs.TooMany() {
			break
		}
	}
	return out, err
}

// cpuContexts returns each CPU's context, of which every kind of events had its
// own up to bd2756811766 (6.2).
func (s *perfSearch) cpuContexts() ([]*kernel.Object, error) {
	cpus, err := s.k.PossibleCPUs()
	if err != nil {
		return nil, err
	}
	var bases []uint64
	if at, err := s.k.Addr("perf_cpu_context"); err == nil {
		bases = append(bases, at)
	} else {
		pmus, err := s.globalList("pmus", "pmu", "entry")
		if err != nil {
			return nil, err
		}
		for _, p := range pmus {
			if at := p.Ptr("pmu_cpu_context"); at != 0 {
				bases = append(bases, at)
			}
			s.errs.Add(p.Err())
		}
	}
	var out []*kernel.Object
	for _, base := range bases {
		for _, cpu := range cpus {
			at, err := s.k.PerCPU(base, cpu)
			if err != nil {
				return out, err
			}
			out = append(out, s.k.Object("perf_cpu_context", at).Field("ctx"))
		}
	}
	return out, nil
}

// event takes in the program of a struct perf_event.
func (s *perfSearch) event(o *kernel.Object) error {
	prog, call := o.Ptr("prog"), o.Ptr("tp_event")
	if err := o.Err(); err != nil || prog == 0 || s.linked[o.Addr] {
		return err
	}
	if parent := o.Ptr("parent"); parent != 0 { // inherited by a child of the task
		return o.Err()
	}
	e, err := perfEventAt(s.k, o.Addr)
	if err != nil {
		return fmt.Errorf("perf_event at 0x%x: %w", o.Addr, err)
	}
	s.known[eventProg{call, prog}] = true
	return s.addEvent(prog, e.target)
}

func (s *perfSearch) addEvent(prog uint64, t Target) error {
	key := fmt.Sprintf("%x %+v", prog, t)
	if s.added[key] {
		return nil
	}
	s.added[key] = true
	return s.add(prog, Attachment{Kind: "perf_event", Target: t})
}

const maxEventProgs = 64 // BPF_TRACE_MAX_PROGS

// tracefs walks ftrace_events: trace_event_call.prog_array has the programs of
// all perf events on a tracepoint or probe (e87c6bc3852b, 4.15).
func (s *perfSearch) tracefs() error {
	calls, err := s.globalList("ftrace_events", "trace_event_call", "list")
	items, err2 := s.k.Offset("bpf_prog_array", "items")
	size := s.k.Sizeof("bpf_prog_array_item")
	if err := errors.Join(err, err2); err != nil {
		return err
	}
	for _, call := range calls {
		array := call.Ptr("prog_array")
		if array == 0 || call.Err() != nil {
			s.errs.Add(call.Err())
			continue
		}
		for i := range uint64(maxEventProgs) {
			o := s.k.Object("bpf_prog_array_item", array+items+i*size)
			prog := o.Ptr("prog")
			if prog == 0 {
				s.errs.Add(o.Err())
				break
			}
			// The kernel fills gaps with a program that does nothing,
			// dummy_bpf_prog; it has no bpf_prog_aux.
			if s.k.Object("bpf_prog", prog).Ptr("aux") == 0 || s.known[eventProg{call.Addr, prog}] {
				continue
			}
			t, _, err := traceEvent(s.k, call.Addr)
			s.errs.Add(err)
			s.errs.Add(s.addEvent(prog, t))
		}
		if s.errs.TooMany() {
			break
		}
	}
	return nil
}
