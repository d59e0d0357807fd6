package probe

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Bits of the length of a record: struct bpf_ringbuf_hdr.
const (
	ringBusy    = 1 << 31
	ringDiscard = 1 << 30
	ringHeader  = 8
)

// Under load the reader looks for more records a moment later before it tells
// the kernel where it is. The kernel wakes it only when it has read everything,
// so until then calls pay for no wake-up.
const (
	busyAfter = 64 // records since the last sleep
	nap       = 100 * time.Microsecond
)

// A ring reads a ring buffer (457f44363a88, 5.8).
type ring struct {
	consumer, data []byte // mapped
	read           *uint64
	written        *uint64
	mask           uint64
	pos            uint64 // next record; *read follows
	since          int    // records since the last sleep
	epoll, wake    int
	closed         atomic.Bool // no more records come
}

func newRing(fd, size int) (*ring, error) {
	page := os.Getpagesize()
	r := &ring{mask: uint64(size) - 1, epoll: -1, wake: -1}
	err := r.open(fd, page, size)
	if err != nil {
		r.close()
		return nil, fmt.Errorf("ring buffer: %w", err)
	}
	r.read = (*uint64)(unsafe.Pointer(&r.consumer[0]))
	r.written = (*uint64)(unsafe.Pointer(&r.data[0]))
	r.data = r.data[page:]
	r.pos = atomic.LoadUint64(r.read)
	return r, nil
}

func (r *ring) open(fd, page, size int) (err error) {
	if r.consumer, err = unix.Mmap(fd, 0, page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		return fmt.Errorf("map its reader's position: %w", err)
	}
	// The data are there twice in a row: no record is cut.
	if r.data, err = unix.Mmap(fd, int64(page), page+2*size, unix.PROT_READ, unix.MAP_SHARED); err != nil {
		return fmt.Errorf("map its data: %w", err)
	}
	if r.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return err
	}
	if r.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return err
	}
	for _, f := range []int{fd, r.wake} {
		if err := unix.EpollCtl(r.epoll, unix.EPOLL_CTL_ADD, f, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(f)}); err != nil {
			return err
		}
	}
	return nil
}

// next returns the next record, which stays there until the call after this; nil
// if there is none yet.
func (r *ring) next() []byte {
	for {
		if r.pos-atomic.LoadUint64(r.read) > r.mask/4 {
			r.publish()
		}
		if r.pos >= atomic.LoadUint64(r.written) {
			return nil
		}
		at := r.pos & r.mask
		head := atomic.LoadUint32((*uint32)(unsafe.Pointer(&r.data[at])))
		if head&ringBusy != 0 {
			return nil
		}
		n := uint64(head &^ (ringBusy | ringDiscard))
		if n > r.mask {
			return nil // no such record fits
		}
		r.pos += (n + ringHeader + 7) &^ 7
		if head&ringDiscard == 0 {
			r.since++
			return r.data[at+ringHeader : at+ringHeader+n : at+ringHeader+n]
		}
	}
}

// publish gives the memory of what was read back to the kernel.
func (r *ring) publish() { atomic.StoreUint64(r.read, r.pos) }

// more reports whether something was written that was not read.
func (r *ring) more() bool {
	if r.pos >= atomic.LoadUint64(r.written) {
		return false
	}
	head := atomic.LoadUint32((*uint32)(unsafe.Pointer(&r.data[r.pos&r.mask])))
	return head&ringBusy == 0
}

// wait returns when there may be a record, or nothing more comes.
func (r *ring) wait(ctx context.Context) error {
	if r.closed.Load() {
		return nil
	}
	if r.since >= busyAfter {
		r.since = 0
		time.Sleep(nap)
		if r.more() {
			return nil
		}
	}
	r.since = 0
	r.publish()
	if r.more() {
		return nil
	}
	stop := context.AfterFunc(ctx, r.kick)
	defer stop()
	var events [2]unix.EpollEvent
	for {
		_, err := unix.EpollWait(r.epoll, events[:], -1)
		if err == nil || !errors.Is(err, unix.EINTR) {
			if ctx.Err() != nil {
				r.calm()
			}
			return err
		}
	}
}

// kick ends a wait.
func (r *ring) kick() { unix.Write(r.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0}) }

// calm takes a kick back that was not for the end.
func (r *ring) calm() {
	if !r.closed.Load() {
		unix.Read(r.wake, make([]byte, 8))
	}
}

// end says that nothing more comes.
func (r *ring) end() {
	r.closed.Store(true)
	r.kick()
}

func (r *ring) close() {
	if r.consumer != nil {
		unix.Munmap(r.consumer)
	}
	if r.written != nil { // data begins a page before
		page := os.Getpagesize()
		r.data = unsafe.Slice((*byte)(unsafe.Pointer(r.written)), page+len(r.data))
	}
	if r.data != nil {
		unix.Munmap(r.data)
	}
	for _, fd := range []int{r.epoll, r.wake} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
}
