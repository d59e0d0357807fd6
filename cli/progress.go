package cli

import (
	"fmt"
	"io"
	"sync"
	"time"
)

// progressAfter is when a person begins to wonder whether something happens.
const progressAfter = time.Second

// progress shows on a terminal how long a command has been at work, in a line
// of standard error that it takes back when there is something else to show.
type progress struct {
	mu    sync.Mutex
	w     io.Writer
	shown bool
	done  chan struct{}
}

// startProgress begins to show progress once a command has run for a while. It
// ends with stop. Only what is written through [progress.over] can be on the
// same terminal.
func startProgress(w io.Writer, what string, after time.Duration) *progress {
	p := &progress{w: w, done: make(chan struct{})}
	go p.run(what, after)
	return p
}

func (p *progress) run(what string, after time.Duration) {
	begun := time.Now()
	tick := time.NewTicker(after)
	defer tick.Stop()
	for {
		select {
		case <-p.done:
			return
		case now := <-tick.C:
			p.show(fmt.Sprintf("ksleuth: %s, %d s; Ctrl-C stops it", what, int(now.Sub(begun).Seconds())))
		}
	}
}

func (p *progress) show(s string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.done:
		return // the tick was late
	default:
	}
	fmt.Fprintf(p.w, "\r\x1b[K%s", s)
	p.shown = true
}

// clear takes the line back; the caller holds the lock.
func (p *progress) clear() {
	if p.shown {
		io.WriteString(p.w, "\r\x1b[K")
		p.shown = false
	}
}

func (p *progress) stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.done)
	p.clear()
}

// over returns a writer to w that takes the line back before it writes.
func (p *progress) over(w io.Writer) io.Writer { return overWriter{p, w} }

type overWriter struct {
	p *progress
	w io.Writer
}

func (o overWriter) Write(b []byte) (int, error) {
	o.p.mu.Lock()
	defer o.p.mu.Unlock()
	o.p.clear()
	return o.w.Write(b)
}
