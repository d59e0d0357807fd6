package trace

import (
	"time"

	"github.com/ksleuth/ksleuth/probe"
)

// A rateMeter ends a session that costs its host too much.
type rateMeter struct {
	limit uint64
	runs  uint64
	at    time.Time
}

// check returns a [RateError] if there were too many calls since the last
// check.
func (r *rateMeter) check(s *probe.Session, c *probe.Config, now time.Time) error {
	if r.limit == 0 {
		return nil
	}
	costs, err := s.Costs()
	if err != nil {
		return err
	}
	var runs uint64
	for _, cost := range costs {
		n := cost.Runs
		if p := &c.Points[cost.Points[0]]; p.Entry && p.Exit {
			n /= 2 // a program at each end
		}
		runs += n
	}
	since, before := r.at, r.runs
	r.at, r.runs = now, runs
	if since.IsZero() {
		return nil
	}
	rate := uint64(float64(runs-before) / now.Sub(since).Seconds())
	if rate > r.limit {
		return &RateError{rate, r.limit}
	}
	return nil
}
