package cli

import (
	"io"
	"strings"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
)

// TestProgress: the line is taken back before anything else is written.
func TestProgress(t *testing.T) {
	var terminal strings.Builder
	p := startProgress(&terminal, "report", time.Hour)
	out := p.over(&terminal)
	io.WriteString(out, "early\n")
	p.show("at work")
	p.show("still at work")
	io.WriteString(out, "answer\n")
	io.WriteString(out, "more\n")
	p.show("at work again")
	p.stop()
	p.show("late")
	io.WriteString(out, "end\n")
	const clear = "\r\x1b[K"
	qt.Assert(t, qt.Equals(terminal.String(), "early\n"+clear+"at work"+clear+"still at work"+
		clear+"answer\nmore\n"+clear+"at work again"+clear+"end\n"))
}

// TestProgressTicks: the goroutine shows the line by itself, and ends.
func TestProgressTicks(t *testing.T) {
	shown := make(chan string)
	p := startProgress(writerFunc(func(b []byte) (int, error) {
		shown <- string(b)
		return len(b), nil
	}), "log", time.Millisecond)
	qt.Assert(t, qt.Equals(<-shown, "\r\x1b[Kksleuth: log, 0 s; Ctrl-C stops it"))
	go func() {
		for range shown { // what was under way, and the line being taken back
		}
	}()
	p.stop()
	close(shown)
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }
