package probe_test

import (
	"context"
	"testing"
	"time"

	"github.com/go-quicktest/qt"

	"github.com/ksleuth/ksleuth/probe"
)

// BenchmarkRunningKernelCall is what a call of getpgid costs when it is
// observed, with a reader that takes all events.
func BenchmarkRunningKernelCall(b *testing.B) {
	types := needTracing(b)
	f := mustFunction(b, types, "__x64_sys_getpgid")
	for _, bb := range []struct {
		name string
		m    probe.Mechanism
		cfg  *probe.Config
		p    probe.Point
	}{
		{"untraced", "", nil, probe.Point{}},
		{"count", probe.Trampoline, &probe.Config{Mode: probe.Count}, probe.Point{Exit: true}},
		{"exit", probe.Trampoline, &probe.Config{}, probe.Point{Exit: true}},
		{"exit filtered out", probe.Trampoline, &probe.Config{}, probe.Point{Exit: true, ExitFilter: append(oddPID()[:9:9], none()...)}},
		{"both", probe.Trampoline, &probe.Config{}, probe.Point{Entry: true, Exit: true}},
		{"both, tree", probe.Trampoline, &probe.Config{Tree: true}, probe.Point{Entry: true, Exit: true}},
		{"both, filtered out", probe.Trampoline, &probe.Config{}, probe.Point{Entry: true, Exit: true, Filter: append(oddPID()[:9:9], none()...)}},
		{"kprobe-multi both", probe.KprobeMulti, &probe.Config{}, probe.Point{Entry: true, Exit: true}},
		{"kprobe-multi exit", probe.KprobeMulti, &probe.Config{}, probe.Point{Exit: true}},
	} {
		b.Run(bb.name, func(b *testing.B) {
			c := start(b, "call")
			events := make(chan int)
			var s *probe.Session
			if bb.cfg != nil {
				if err := probe.Supports(bb.m); err != nil {
					b.Skip(err)
				}
				bb.p.Func, bb.p.Mechanism = f, bb.m
				bb.cfg.PID, bb.cfg.Points = c.Process.Pid, []probe.Point{bb.p}
				s = attach(b, *bb.cfg)
				go func() {
					n := 0
					for {
						if _, err := s.Read(context.Background()); err != nil {
							break
						}
						n++
					}
					events <- n
				}()
			}
			c.call(b, 1000)
			b.ResetTimer()
			begin := time.Now()
			c.call(b, b.N)
			took := time.Since(begin)
			b.StopTimer()
			if s != nil {
				qt.Assert(b, qt.IsNil(s.Detach()))
				n, lost := <-events, uint64(0)
				for _, l := range s.Lost() {
					lost += l.Buffer
				}
				b.ReportMetric(float64(n)/took.Seconds(), "events/s")
				b.ReportMetric(float64(lost), "lost")
			}
		})
	}
}
