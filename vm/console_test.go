package vm

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
)

func TestConsoleFind(t *testing.T) {
	c := newConsole(nil)
	re := regexp.MustCompile(`^end of (panic)`)
	fmt.Fprint(c, "line one\r\nend of ")
	_, ok, next, more := c.find(re, 0)
	qt.Assert(t, qt.IsFalse(ok))
	qt.Assert(t, qt.Equals(next, 10))
	fmt.Fprint(c, "panic\r\n")
	<-more
	line, ok, _, _ := c.find(re, next)
	qt.Assert(t, qt.IsTrue(ok))
	qt.Assert(t, qt.Equals(line, "end of panic"))
}

func TestConsoleBounded(t *testing.T) {
	var tee strings.Builder
	c := newConsole(&tee)
	for i := range 3 * consoleLimit / 16 {
		fmt.Fprintf(c, "line %010d\n", i)
	}
	qt.Assert(t, qt.IsTrue(len(c.buf) <= consoleLimit))
	qt.Assert(t, qt.Equals(c.dropped+int64(len(c.buf)), 3*consoleLimit))
	qt.Assert(t, qt.Equals(tee.Len(), 3*consoleLimit))
	qt.Assert(t, qt.Equals(c.tail(2), "line 0000196606\nline 0000196607"))
	// What was dropped cannot be found, what is kept can.
	_, ok, _, _ := c.find(regexp.MustCompile("line 0000000000"), 0)
	qt.Assert(t, qt.IsFalse(ok))
	_, ok, _, _ = c.find(regexp.MustCompile("line 0000196607"), 0)
	qt.Assert(t, qt.IsTrue(ok))
}

func TestConsoleTail(t *testing.T) {
	c := newConsole(nil)
	fmt.Fprint(c, "quiet\nKernel panic - not syncing: x\n")
	qt.Assert(t, qt.Equals(c.tail(2), "quiet\nKernel panic - not syncing: x"))
	fmt.Fprint(c, "frame\nframe\nframe\n")
	qt.Assert(t, qt.Equals(c.tail(2), "Kernel panic - not syncing: x\n...\nframe\nframe"))
}
