package trace

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/ksleuth/ksleuth/bpfexpr"
	"github.com/ksleuth/ksleuth/kernel"
	"github.com/ksleuth/ksleuth/probe"
)

// A Summary is what a session came to.
type Summary struct {
	Seconds float64 `json:"seconds"`
	Calls   int     `json:"calls"` // told, of which trees count as one
	// Runs is how often the BPF programs of the session ran, also for calls
	// that were not wanted, and RunTime the time they took in all, in
	// nanoseconds; 0 if the kernel does not count.
	Runs    uint64 `json:"runs"`
	RunTime uint64 `json:"run_time_ns"`
	// Missed is how often they were left out because one of them was already
	// running on the CPU.
	Missed uint64      `json:"missed"`
	Lost   []Lost      `json:"lost,omitempty"` // by CPU; those that lost nothing are left out
	Counts []CountRow  `json:"-"`
	Hists  []Histogram `json:"-"`
}

// Lost is what a CPU could not tell.
type Lost struct {
	CPU int `json:"cpu"`
	// Buffer counts records for which the buffer was full, Open calls that
	// were not followed because too many were under way, Undecided packets
	// that the filter could not decide on, as what it asks for is not in their
	// linear part.
	Buffer    uint64 `json:"buffer_full"`
	Open      uint64 `json:"too_many_open"`
	Undecided uint64 `json:"filter_undecided"`
	// Counts is of calls that were not counted, as there were too many
	// different return values.
	Counts uint64 `json:"counts_full"`
}

// end detaches everything and tells what is left.
func (s *Session) end() (*Summary, error) {
	var errs kernel.Errors
	sum := &Summary{Seconds: time.Since(s.began).Seconds()}
	costs, err := s.probe.Costs()
	errs.Add(err)
	for _, c := range costs {
		sum.Runs, sum.RunTime, sum.Missed = sum.Runs+c.Runs, sum.RunTime+c.Time, sum.Missed+c.Missed
	}
	errs.Add(s.probe.Detach())
	if s.plan.Config.Mode == probe.Events {
		errs.Add(s.rest())
	} else {
		errs.Add(s.totals(sum))
	}
	for _, l := range s.probe.Lost() {
		sum.Lost = append(sum.Lost, Lost{CPU: l.CPU, Buffer: l.Buffer, Open: l.Open, Undecided: l.Undecided, Counts: l.Counts})
	}
	sum.Calls = s.told
	errs.Add(s.probe.Close())
	return sum, errs.Err()
}

// rest tells what came before the end, and the calls that have not returned.
func (s *Session) rest() error {
	for {
		e, err := s.probe.Read(context.Background())
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil {
			err = s.add(&e)
		}
		if errors.Is(err, errEnough) {
			return nil
		}
		if err != nil {
			return err
		}
	}
	open, err := s.probe.Open()
	if tellErr := s.tell(s.asm.Flush(open, monotonic())); !errors.Is(tellErr, errEnough) {
		err = errors.Join(err, tellErr)
	}
	return err
}

// totals reads what was counted in the kernel.
func (s *Session) totals(sum *Summary) error {
	c := &s.plan.Config
	if c.Mode == probe.Count {
		tallies, err := s.probe.Counts()
		for _, t := range tallies {
			sum.Counts = append(sum.Counts, s.dec.CountRow(t.Point, c.ByReturn, t.Ret, t.N))
		}
		return err
	}
	hists, err := s.probe.Hists()
	for _, h := range hists {
		slots := shownSlots(s.plan.slots(h.Point))
		name, counts, negative := "duration", h.Buckets[:], []uint64(nil)
		if len(slots) > 0 {
			name = slots[0].Name
			if slots[0].Type.IsSigned() { // the highest bit is the sign
				counts = h.Buckets[:64]
			}
		}
		sum.Hists = append(sum.Hists, s.dec.Histogram(h.Point, name, c.ByReturn, h.Ret, counts, negative))
	}
	return err
}

// slots are where a point leaves the values of expressions.
func (p *Plan) slots(point int) []bpfexpr.Slot { return p.Observed[p.of[point]].Slots }
