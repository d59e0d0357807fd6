package probe

import (
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/ksleuth/ksleuth/hwbreak"
	"github.com/ksleuth/ksleuth/tracee"
)

// verifierLog is how much of the verifier's log of a refused program is kept.
const verifierLog = 1 << 20

// A loaded program of a session.
type loaded struct {
	points []int // what it observes
	fd     int
}

// loader loads and attaches the points of a session.
type loader struct {
	s    *Session
	self int

	mu      sync.Mutex
	targets map[target]int // descriptors of programs and modules' BTF
}

// A target is what holds a function.
type target struct {
	cmd uintptr
	id  int
}

// target returns a descriptor of what holds a function; 0 for the kernel.
func (l *loader) target(f *tracee.Function) (int, error) {
	var t target
	switch {
	case f.Prog != nil:
		t = target{cmdProgFDByID, f.Prog.ID}
	case f.Module != "":
		t = target{cmdBTFFDByID, f.BTF}
	default:
		return 0, nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if fd, ok := l.targets[t]; ok {
		return fd, nil
	}
	fd, err := openByID(t.cmd, t.id)
	if err != nil {
		return 0, fmt.Errorf("find what holds %v: %w", f, err)
	}
	l.targets[t] = fd
	return fd, nil
}

func (l *loader) close() {
	for _, fd := range l.targets {
		unix.Close(fd)
	}
}

// load loads one program of points that share it.
func (l *loader) load(st step, v values, points []int) (int, error) {
	cfg := &l.s.cfg
	p := &cfg.Points[points[0]]
	prog := program{name: "ksleuth", typ: st.typ, attach: st.attach}
	if st.typ == typeTracing {
		fd, err := l.target(p.Func)
		if err != nil {
			return 0, err
		}
		prog.targetFD, prog.btfID = fd, p.Func.ID
	}
	gen := cfg.code(p)
	for {
		code, err := l.s.templates.link(st.template, gen, &v)
		if err != nil {
			return 0, err
		}
		prog.code = code
		fd, err := prog.load(nil)
		if err == nil {
			l.mu.Lock()
			l.s.progs = append(l.s.progs, loaded{points, fd})
			l.mu.Unlock()
			return fd, nil
		}
		if v[kDirect] == 1 && (errors.Is(err, unix.EACCES) || errors.Is(err, unix.EINVAL)) {
			v[kDirect] = 0 // an argument of a type that the verifier does not read
			continue
		}
		return 0, l.refused(&prog, p.Func, err)
	}
}

// refused loads a program that was refused once more, to hear why.
func (l *loader) refused(prog *program, f *tracee.Function, err error) error {
	if g := general("load a program", err); g != nil {
		return g
	}
	log := make([]byte, verifierLog)
	if fd, err := prog.load(log); err == nil {
		unix.Close(fd)
	}
	return newLoadError(f, log, err)
}

// keep has the session hold a link.
func (l *loader) keep(fd int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.s.links = append(l.s.links, descriptor(fd))
}

// attach loads and attaches the programs of one point. Those attached before
// one that could not be are taken off.
func (l *loader) attach(i int) error {
	p := &l.s.cfg.Points[i]
	v := l.s.cfg.constantsOf(i, &l.s.layouts[i], l.self)
	steps := stepsOf(p)
	if steps == nil {
		return &UnsupportedError{What: string(p.Mechanism), Need: "another mechanism"}
	}
	fds := make([]int, len(steps))
	for n, st := range steps {
		fd, err := l.load(st, v, []int{i})
		if err != nil {
			return err
		}
		fds[n] = fd
	}
	if p.Mechanism == Breakpoint {
		return l.breakAt(p, fds[0])
	}
	var links []int
	for n := len(steps) - 1; n >= 0; n-- {
		fd, err := openRawTP(fds[n])
		if err != nil {
			for _, fd := range links {
				unix.Close(fd)
			}
			return attachError(p.Func, err)
		}
		links = append(links, fd)
	}
	for _, fd := range links {
		l.keep(fd)
	}
	return nil
}

// breakAt has the hardware call a program.
func (l *loader) breakAt(p *Point, prog int) error {
	addr := p.Addr
	if addr == 0 {
		addr = uint64(p.Func.Addr)
	}
	b, err := hwbreak.Open(addr, prog)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.s.links = append(l.s.links, b)
	return nil
}

// attachError says in words what the kernel's answer to attaching means.
func attachError(f *tracee.Function, err error) error {
	switch {
	case errors.Is(err, unix.E2BIG):
		return fmt.Errorf("attach to %v: as many programs are attached to it as the kernel allows: %w", f, err)
	case errors.Is(err, unix.EBUSY):
		return fmt.Errorf("attach to %v: another tracer or a livepatch holds it: %w", f, err)
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.EINVAL):
		return fmt.Errorf("attach to %v: the kernel cannot observe this function: %w", f, err)
	}
	return fmt.Errorf("attach to %v: %w", f, err)
}

// attachMany attaches points that share programs: functions of one link.
func (l *loader) attachMany(points []int) []PointError {
	p := &l.s.cfg.Points[points[0]]
	v := l.s.cfg.constantsOf(points[0], &l.s.layouts[points[0]], l.self)
	v[kPoint], v[kCookie] = 0, 1
	steps := stepsOf(p)
	fds := make([]int, len(steps))
	for n, st := range steps {
		fd, err := l.load(st, v, points)
		if err != nil {
			return allFailed(points, err)
		}
		fds[n] = fd
	}
	return l.linkMany(steps, fds, points)
}

// linkMany attaches programs to functions. If one of them cannot be, the kernel
// says not which: halves are tried.
func (l *loader) linkMany(steps []step, fds []int, points []int) []PointError {
	addrs, cookies := make([]uint64, len(points)), make([]uint64, len(points))
	for n, i := range points {
		addrs[n], cookies[n] = uint64(l.s.cfg.Points[i].Func.Addr), uint64(i)
	}
	var links []int
	for n := len(steps) - 1; n >= 0; n-- {
		fd, err := openKprobeMulti(fds[n], steps[n].returns, addrs, cookies)
		if err == nil {
			links = append(links, fd)
			continue
		}
		for _, fd := range links {
			unix.Close(fd)
		}
		if len(points) == 1 {
			return allFailed(points, attachError(l.s.cfg.Points[points[0]].Func, err))
		}
		half := len(points) / 2
		return append(l.linkMany(steps, fds, points[:half]), l.linkMany(steps, fds, points[half:])...)
	}
	for _, fd := range links {
		l.keep(fd)
	}
	return nil
}

func allFailed(points []int, err error) []PointError {
	out := make([]PointError, len(points))
	for n, i := range points {
		out[n] = PointError{i, err}
	}
	return out
}
