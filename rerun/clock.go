package rerun

import (
	"github.com/ksleuth/ksleuth/emulate"
	"github.com/ksleuth/ksleuth/kernel"
)

// timeStubs are the clocks that read the hardware, and what waits by them.
// jiffies and the clocks that ticks advance are as memory has them.
var timeStubs = []stubRow{
	{names: "native_sched_clock kvm_sched_clock_read vmware_sched_clock xen_sched_clock read_hv_sched_clock_tsc read_hv_sched_clock_msr", run: schedClock, quiet: true},
	{names: "__const_udelay __udelay __ndelay __delay delay_tsc delay_loop delay_halt", run: nothing, quiet: true},
	{names: "msleep msleep_interruptible usleep_range usleep_range_state", why: "the time to sleep passes at once", run: nothing},
}

// schedClock is the run queue's clock, which each instruction advances by a
// nanosecond.
func schedClock(r *run, c *call) error {
	c.ret(r.clock + r.m.Step)
	return nil
}

// readClock returns the scheduler's clock of the CPU when it was last updated.
func (s *Session) readClock() uint64 {
	rq := s.k.RunQueue(s.cpu)
	clock := rq.Uint("clock")
	if rq.Err() != nil {
		return 1 << 40
	}
	return clock
}

// clockStub has the clock source that timekeeping uses stand at the moment of
// its last update, advanced by instructions: the time of the dump, to a tick.
// All of ktime_get's family ask it.
func (s *Session) clockStub(out map[uint64]stubAt) {
	tk := timekeeper(s.k)
	if tk == nil {
		return
	}
	base := tk.Field("tkr_mono")
	last, mask, clock := base.Uint("cycle_last"), base.Uint("mask"), base.Deref("clock")
	read := clock.Ptr("read")
	if base.Err() != nil || clock.Err() != nil || read == 0 {
		return
	}
	out[read] = stubAt{s.k.FormatAddr(read), &stubRow{
		why: "the clock stands at the last tick before the moment looked at; each instruction advances it by one",
		run: func(r *run, c *call) error {
			c.m.GP[emulate.RAX] = (last + r.m.Step) & mask
			return nil
		},
	}}
}

// timekeepers are where kernels have the struct timekeeper, or a copy of it.
var timekeepers = []struct{ symbol, record, member string }{
	{"shadow_timekeeper", "timekeeper", ""},      // up to 6.12
	{"tk_core", "tk_data", "timekeeper"},         // up to 6.16
	{"timekeeper_data", "tk_data", "timekeeper"}, // an array, of which this is the first
}

// timekeeper finds the struct timekeeper, or returns nil.
func timekeeper(k *kernel.Kernel) *kernel.Object {
	for _, t := range timekeepers {
		addr, err := k.Addr(t.symbol)
		if err != nil || k.Sizeof(t.record) == 0 {
			continue
		}
		o := k.Object(t.record, addr)
		if t.member != "" {
			o = o.Field(t.member)
		}
		return o
	}
	return nil
}
