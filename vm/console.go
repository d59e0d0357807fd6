package vm

import (
	"bytes"
	"io"
	"regexp"
	"slices"
	"strings"
	"sync"
)

// consoleLimit bounds the console text kept, in bytes: an oops in a loop must
// not eat the host. The oldest text goes first.
const consoleLimit = 1 << 20

// A console keeps the last text of a guest's console.
type console struct {
	tee io.Writer // may be nil

	mu      sync.Mutex
	buf     []byte
	dropped int64         // bytes that were before buf
	changed chan struct{} // closed and renewed when buf changes
}

func newConsole(tee io.Writer) *console {
	return &console{tee: tee, changed: make(chan struct{})}
}

// Write appends text. It never fails: what the guest says must be read on even
// if the tee is broken.
func (c *console) Write(p []byte) (int, error) {
	if c.tee != nil {
		_, _ = c.tee.Write(p)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.buf = append(c.buf, p...)
	if over := len(c.buf) - consoleLimit; over > 0 {
		// Cut generously, so that a chatty guest does not move the
		// buffer with each write.
		over = min(over+consoleLimit/4, len(c.buf))
		c.buf = append(c.buf[:0], c.buf[over:]...)
		c.dropped += int64(over)
	}
	close(c.changed)
	c.changed = make(chan struct{})
	return len(p), nil
}

// text returns what is kept, without carriage returns.
func (c *console) text() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return strings.ReplaceAll(string(c.buf), "\r", "")
}

// causes are the lines that say why a kernel stopped; a stack trace of many
// lines may follow them.
var causes = regexp.MustCompile(`Kernel panic - not syncing|BUG: |soft lockup|hard LOCKUP|hung_task|Out of memory`)

// tail returns the last lines, and before them the last that names a cause.
func (c *console) tail(lines int) string {
	all := strings.Split(strings.TrimRight(c.text(), "\n"), "\n")
	cut := max(0, len(all)-lines)
	out := all[cut:]
	if slices.ContainsFunc(out, causes.MatchString) {
		return strings.Join(out, "\n")
	}
	for _, line := range slices.Backward(all[:cut]) {
		if causes.MatchString(line) {
			return strings.Join(append([]string{line, "..."}, out...), "\n")
		}
	}
	return strings.Join(out, "\n")
}

// find looks for a line that re matches, at or behind the absolute offset
// from. If there is none it returns where to look next time, and a channel
// that is closed when there is more text.
func (c *console) find(re *regexp.Regexp, from int64) (line string, ok bool, next int64, more <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	next = max(from, c.dropped)
	rest := c.buf[next-c.dropped:]
	for len(rest) > 0 {
		l, after, whole := bytes.Cut(rest, []byte("\n"))
		l = bytes.ReplaceAll(l, []byte("\r"), nil)
		if re.Match(l) {
			return string(l), true, next, nil
		}
		if !whole {
			break // look at the unfinished line again
		}
		next += int64(len(rest) - len(after))
		rest = after
	}
	return "", false, next, c.changed
}
