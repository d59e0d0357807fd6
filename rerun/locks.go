package rerun

import (
	"errors"
	"fmt"

	"github.com/ksleuth/ksleuth/emulate"
	"github.com/ksleuth/ksleuth/mem"
)

// lockStubs are the slow paths of locks: they are taken where somebody else
// holds the lock. Who that is does not run, so it is taken away from him; a
// lock that the run itself holds is a deadlock.
var lockStubs = []stubRow{
	// val 1 is _Q_LOCKED_VAL (include/asm-generic/qspinlock_types.h).
	{names: "native_queued_spin_lock_slowpath __pv_queued_spin_lock_slowpath queued_spin_lock_slowpath", run: takeOver("spinlock", 1)},
	{names: "resilient_queued_spin_lock_slowpath", run: takeOver("resilient spinlock", 1)},
	// _QR_BIAS and _QW_LOCKED (include/asm-generic/qrwlock.h).
	{names: "queued_read_lock_slowpath", run: takeOver("rwlock", 0x200)},
	{names: "queued_write_lock_slowpath", run: takeOver("rwlock", 0xff)},
	{names: `__mutex_lock_slowpath __mutex_lock_killable_slowpath __mutex_lock_interruptible_slowpath
		__ww_mutex_lock_slowpath __ww_mutex_lock_interruptible_slowpath`, run: takeMutex},
	{names: "rwsem_down_read_slowpath", run: takeRwsem(0x100, 1)}, // RWSEM_READER_BIAS, RWSEM_READER_OWNED
	{names: "rwsem_down_write_slowpath", run: takeRwsem(1, 0)},    // RWSEM_WRITER_LOCKED
	{names: "__down __down_interruptible __down_killable __down_timeout __down_common", run: takeSemaphore},
	{names: "__percpu_down_read", run: func(r *run, c *call) error {
		r.use(c.name, fmt.Sprintf("percpu_rw_semaphore %s is held by another task: taken over", r.s.lockName(c.arg(0))))
		c.ret(1)
		return nil
	}},
	{names: "percpu_down_write", why: "it would wait for the readers of other CPUs", run: endOfRun},
	{names: "__lock_sock", run: func(r *run, c *call) error {
		r.use(c.name, fmt.Sprintf("socket %s is held by another task: taken over", r.s.lockName(c.arg(0))))
		return nil
	}},
	// Nobody waits, as the waiters were never woken.
	{names: "__pv_queued_spin_unlock_slowpath", run: func(r *run, c *call) error {
		return r.m.Store(c.arg(0), 0, 1)
	}, quiet: true},
}

// lockName names a lock by its symbol, or by its address.
func (s *Session) lockName(addr uint64) string {
	if name, ok := s.dataName(addr); ok {
		return name
	}
	return fmt.Sprintf("at 0x%x", addr)
}

// held says whether somebody else holds the lock, in a word of size bytes: it
// is so in the target.
func (r *run) held(kind string, addr uint64, size int) error {
	old, err := mem.Bytes(r.s.view, addr, size)
	if err == nil && word(old) == 0 {
		return fmt.Errorf("deadlock: the run waits for the %s %s, which it has taken itself", kind, r.s.lockName(addr))
	}
	if err != nil { // the run's own memory
		now, err := r.m.Load(addr, size)
		if err != nil {
			return err
		}
		if now != 0 {
			return fmt.Errorf("deadlock: the run waits for the %s %s, which only it can have taken", kind, r.s.lockName(addr))
		}
	}
	return nil
}

// takeOver is for locks of 4 bytes, of which one value says that we have it.
func takeOver(kind string, value uint64) func(*run, *call) error {
	return func(r *run, c *call) error {
		lock := c.arg(0)
		if err := r.held(kind, lock, 4); err != nil {
			return err
		}
		r.use(c.name, fmt.Sprintf("%s %s is held by another CPU: taken over", kind, r.s.lockName(lock)))
		c.ret(0)
		return r.m.Store(lock, value, 4)
	}
}

// takeMutex makes the task the owner.
func takeMutex(r *run, c *call) error {
	lock := c.arg(0)
	off, err := r.s.k.Offset("mutex", "owner")
	if err != nil {
		return err
	}
	owner, err := r.m.Load(lock+off, 8)
	if err != nil {
		return err
	}
	const flags = 7
	if owner&^flags == r.s.task {
		return fmt.Errorf("deadlock: the run waits for the mutex %s, which its task has", r.s.lockName(lock))
	}
	r.use(c.name, fmt.Sprintf("mutex %s is held by %s: taken over", r.s.lockName(lock), r.s.taskName(owner&^flags)))
	c.ret(0)
	return r.m.Store(lock+off, r.s.task, 8)
}

// takeRwsem makes the task a reader or the writer. The function returns the
// semaphore.
func takeRwsem(count, ownerFlags uint64) func(*run, *call) error {
	return func(r *run, c *call) error {
		sem := c.arg(0)
		at, err1 := r.s.k.Offset("rw_semaphore", "count")
		owner, err2 := r.s.k.Offset("rw_semaphore", "owner")
		if err := errors.Join(err1, err2); err != nil {
			return err
		}
		const flags = 7
		who, err := r.m.Load(sem+owner, 8)
		if err != nil {
			return err
		}
		r.use(c.name, fmt.Sprintf("rw_semaphore %s is held by %s: taken over", r.s.lockName(sem), r.s.taskName(who&^flags)))
		c.ret(sem)
		return errors.Join(r.m.Store(sem+at, count, 8), r.m.Store(sem+owner, r.s.task|ownerFlags, 8))
	}
}

func takeSemaphore(r *run, c *call) error {
	r.use(c.name, fmt.Sprintf("semaphore %s is at zero: taken all the same", r.s.lockName(c.arg(0))))
	c.m.GP[emulate.RAX] = 0
	return nil
}

// taskName names a task that holds something.
func (s *Session) taskName(addr uint64) string {
	o := s.k.Object("task_struct", addr)
	name, pid := o.Str("comm"), o.Int("pid")
	if addr == 0 || o.Err() != nil {
		return "another task"
	}
	return fmt.Sprintf("%s (pid %d)", name, pid)
}
