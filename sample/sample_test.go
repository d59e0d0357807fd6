package sample

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	"golang.org/x/sys/unix"
)

// busy runs work in a thread of its own until the test ends, and returns the
// thread's number.
func busy(t *testing.T, work func()) int {
	tid := make(chan int)
	done := make(chan struct{})
	ended := make(chan struct{})
	go func() {
		runtime.LockOSThread()
		defer close(ended)
		tid <- unix.Gettid()
		for {
			select {
			case <-done:
				return
			default:
				work()
			}
		}
	}()
	t.Cleanup(func() { close(done); <-ended })
	return <-tid
}

// patience is for a machine on which the thread gets no CPU for long.
const patience = 20 * time.Second

func get(t *testing.T, tid int) Sample {
	t.Helper()
	s, err := Stack(t.Context(), tid, patience)
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOSYS) {
		t.Skipf("perf events are not to be had here: %v", err)
	}
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(s.TID, tid))
	qt.Check(t, qt.Equals(s.PID, os.Getpid()))
	qt.Check(t, qt.Equals(s.User, len(s.Kernel) == 0))
	return s
}

func TestUser(t *testing.T) {
	tid := busy(t, func() {
		for n := 0; n < 1<<20; n++ {
			_ = n * n
		}
	})
	for range 20 {
		if get(t, tid).User {
			return
		}
	}
	t.Error("a thread in user space was never met there")
}

func TestKernel(t *testing.T) {
	f, err := os.Open("/dev/zero")
	qt.Assert(t, qt.IsNil(err))
	defer f.Close()
	buf := make([]byte, 4<<20)
	tid := busy(t, func() { _, _ = unix.Read(int(f.Fd()), buf) })
	for range 20 {
		if s := get(t, tid); !s.User {
			for _, pc := range s.Kernel {
				qt.Check(t, qt.IsTrue(pc>>63 == 1 && pc < contexts), qt.Commentf("%#x", pc))
			}
			return
		}
	}
	t.Error("a thread that reads was never met in the kernel")
}

// TestAsleep samples what does not run.
func TestAsleep(t *testing.T) {
	tid := make(chan int)
	wake := make(chan struct{})
	defer close(wake)
	go func() {
		runtime.LockOSThread()
		tid <- unix.Gettid()
		<-wake
	}()
	id := <-tid
	get(t, busy(t, func() {})) // skips where nothing can be sampled
	_, err := Stack(t.Context(), id, time.Millisecond)
	qt.Check(t, qt.ErrorIs(err, ErrNone))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = Stack(ctx, id, patience)
	qt.Check(t, qt.ErrorIs(err, context.Canceled))
}

func TestNoThread(t *testing.T) {
	get(t, busy(t, func() {}))
	_, err := Stack(t.Context(), 1<<30, patience)
	qt.Check(t, qt.ErrorIs(err, fs.ErrNotExist))
}
