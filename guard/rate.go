package guard

import (
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/ksleuth/ksleuth/finding"
	"github.com/ksleuth/ksleuth/tracee"
)

// rates counts for a while how often programs run. How often kernel functions
// and single functions of a program do is not known beforehand.
func (c *checker) rates() {
	if !c.src.Running || c.opts.Sample < 0 {
		return
	}
	runs := make(map[int]*runs)
	for _, f := range c.funcs {
		if id := ranAs(f); id != 0 && runs[id] == nil && !c.unable(f) {
			runs[id] = openRuns(id)
		}
	}
	defer func() {
		for _, r := range runs {
			r.close()
		}
	}()
	if len(runs) == 0 {
		return
	}
	if err := c.sample(runs); err != nil {
		c.fail(fmt.Errorf("how often the programs run: %w", err))
		return
	}
	for _, f := range c.funcs {
		id := ranAs(f)
		if r := runs[id]; r != nil && r.during > 0 {
			c.rate(f, r)
			r.during = 0 // said once for a program
		}
	}
}

// ranAs is the program whose runs the kernel counts when a function is called:
// a freplace program runs as part of another, in which it may stand more than
// once or behind a condition.
func ranAs(f *tracee.Function) int {
	switch {
	case f.Stub != nil:
		return f.Stub.ProgID
	case f.Prog != nil:
		return f.Prog.ID
	}
	return 0
}

// runs are those of one program.
type runs struct {
	prog           *ebpf.Program // nil if it is gone
	before, during uint64
	began, took    time.Duration
}

func openRuns(id int) *runs {
	p, err := ebpf.NewProgramFromID(ebpf.ProgramID(id))
	if err != nil {
		return &runs{}
	}
	return &runs{prog: p}
}

func (r *runs) close() {
	if r.prog != nil {
		r.prog.Close()
	}
}

func (r *runs) stats() (count uint64, took time.Duration, err error) {
	if r.prog == nil {
		return 0, 0, nil
	}
	s, err := r.prog.Stats()
	if err != nil {
		return 0, 0, err
	}
	return s.RunCount, s.Runtime, nil
}

// sample has the kernel count runs for a while.
func (c *checker) sample(all map[int]*runs) error {
	const runTime = 0 // BPF_STATS_RUN_TIME
	stop, err := ebpf.EnableStats(runTime)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("bpf(BPF_ENABLE_STATS): %w: needs CAP_SYS_ADMIN", err)
	case errors.Is(err, unix.EINVAL):
		return fmt.Errorf("bpf(BPF_ENABLE_STATS): %w: needs Linux 5.8 (d46edd671a14), or kernel.bpf_stats_enabled", err)
	case err != nil:
		return fmt.Errorf("bpf(BPF_ENABLE_STATS): %w", err)
	}
	defer stop.Close()
	for _, r := range all {
		if r.before, r.began, err = r.stats(); err != nil {
			return err
		}
	}
	start := time.Now()
	select {
	case <-c.ctx.Done():
		return c.ctx.Err()
	case <-time.After(c.opts.Sample):
	}
	c.opts.Sample = time.Since(start)
	for _, r := range all {
		count, took, err := r.stats()
		if err != nil {
			return err
		}
		r.during, r.took = count-r.before, took-r.began
	}
	return nil
}

// rate says how often a program runs, if that is often.
func (c *checker) rate(f *tracee.Function, r *runs) {
	perSecond := float64(r.during) / c.opts.Sample.Seconds()
	if perSecond <= c.opts.MaxRate {
		return
	}
	subject := "it runs"
	switch {
	case f.Stub != nil:
		subject = f.Stub.ProgName + ", of which it is a part, runs"
	case f.Subprog != 0:
		subject = f.Prog.Name + ", of which it is a function, runs"
	}
	each := r.took / time.Duration(r.during)
	title := fmt.Sprintf("%s %.0f times a second, %v each", subject, perSecond, each)
	if c.opts.MaxRate > 0 {
		title += fmt.Sprintf(", more than the %.0f that are allowed", c.opts.MaxRate)
	}
	if cost := c.opts.CallCost; cost > 0 {
		title += fmt.Sprintf("; observing a call adds about %v: %.1f%% of a CPU", cost, 100*perSecond*cost.Seconds())
	}
	c.warn(f, Warning{
		ID: Rate, Severity: Costly, Title: title, CallsPerSecond: perSecond,
		Evidence: []finding.Evidence{{Text: fmt.Sprintf("program %d: run_cnt rose by %d in %v, run_time by %v", ranAs(f), r.during, c.opts.Sample.Round(time.Millisecond), r.took)}},
	})
}
