package probe

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"
)

// A Session observes calls. Read and the other methods can be called by several
// goroutines at once; Close when all others have returned.
type Session struct {
	cfg       Config
	layouts   []layout
	templates *templates
	maps      map[string]*ebpf.Map
	progs     []loaded
	links     []io.Closer
	failed    []PointError
	stats     int // descriptor
	detached  atomic.Bool

	read    sync.Mutex // holds the following
	ring    *ring
	decoder *decoder
	reads   int
}

// The states of a session, as its programs see them.
const (
	stateOff  = 0
	stateOn   = 1
	stateEnds = 2 // only calls under way are told
)

// A descriptor is closed when what it stands for is done with.
type descriptor int

// Close closes it.
func (d descriptor) Close() error { return unix.Close(int(d)) }

// Attach observes the functions of a Config, all from the same moment on.
// Functions that cannot be observed are left out, see [Session.Failed]; if none
// can, the error is a [NothingError]. Others are a [PermissionError], a
// [LockdownError], a [MemlockError] and an [UnsupportedError] for a kernel
// without BTF or ring buffers.
func Attach(ctx context.Context, cfg Config) (*Session, error) {
	cfg.Points = slices.Clone(cfg.Points)
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	s := &Session{cfg: cfg, stats: -1}
	l := &loader{s: s, self: selfID(), targets: make(map[target]int)}
	defer l.close()
	l.unreliable(cfg.Points)
	for i := range cfg.Points {
		s.layouts = append(s.layouts, newLayout(&cfg, &cfg.Points[i]))
	}
	if err := s.prepare(); err != nil {
		s.Close()
		return nil, err
	}
	if err := s.attach(ctx, l); err != nil {
		s.Close()
		return nil, err
	}
	if err := s.set(stateOn); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// prepare makes what all points share.
func (s *Session) prepare() (err error) {
	if _, err := os.Stat("/sys/kernel/btf/vmlinux"); err != nil {
		return &UnsupportedError{What: "types (BTF)", Need: "CONFIG_DEBUG_INFO_BTF", Err: err}
	}
	if err := raiseMemlock(); err != nil {
		return err
	}
	var kernel *btf.Spec
	if s.needsTypes() {
		if kernel, err = btf.LoadKernelSpec(); err != nil {
			return &UnsupportedError{What: "types (BTF) that can be read", Need: "CONFIG_DEBUG_INFO_BTF", Err: err}
		}
	}
	if s.templates, err = loadTemplates(kernel); err != nil {
		return err
	}
	if err = s.makeMaps(); err != nil {
		return err
	}
	s.templates.maps = s.maps
	if s.ring, err = newRing(s.maps["records"].FD(), s.cfg.BufferBytes); err != nil {
		return err
	}
	s.decoder = newDecoder(s.layouts)
	if s.cfg.Stats {
		if s.stats, err = enableStats(); err != nil {
			return fmt.Errorf("have the kernel count runs of programs: %w", err)
		}
	}
	return nil
}

// needsTypes reports whether programs look into structs of the kernel.
func (s *Session) needsTypes() bool {
	return s.cfg.Netns != 0 || slices.ContainsFunc(s.cfg.Points, func(p Point) bool {
		return p.Packet != NoPacket || p.Mechanism == FSession
	})
}

// makeMaps makes the maps of probe.bpf.c, those that are not used as small as
// they can be.
func (s *Session) makeMaps() error {
	value, open := 0, false
	packet := false
	for i := range s.layouts {
		value = max(value, s.layouts[i].open())
		open = open || s.cfg.Points[i].open()
		packet = packet || s.layouts[i].packet
	}
	value += openHead
	size := func(used bool, n int) uint32 {
		if used {
			return uint32(n)
		}
		return 1
	}
	c := &s.cfg
	specs := []ebpf.MapSpec{
		{Name: "records", Type: ebpf.RingBuf, MaxEntries: uint32(c.BufferBytes)},
		{Name: "open_calls", Type: ebpf.Hash, KeySize: 8, ValueSize: uint32(value), MaxEntries: size(open, 2*c.MaxOpen)},
		{Name: "blank", Type: ebpf.Array, KeySize: 4, ValueSize: uint32(value), MaxEntries: 1},
		{Name: "innermost", Type: ebpf.LRUHash, KeySize: 8, ValueSize: 16, MaxEntries: size(c.Tree, 1<<15)},
		{Name: "lost", Type: ebpf.PerCPUArray, KeySize: 4, ValueSize: lostSize, MaxEntries: 1},
		{Name: "totals", Type: ebpf.PerCPUArray, KeySize: 4, ValueSize: 8, MaxEntries: uint32(len(c.Points))},
		{Name: "counts", Type: ebpf.PerCPUHash, KeySize: countKey, ValueSize: 8, MaxEntries: size(c.Mode == Hist || c.ByReturn, 1<<14)},
		{Name: "tracked", Type: ebpf.LRUHash, KeySize: 8, ValueSize: 8, MaxEntries: size(c.Track && packet, 1<<16)},
		{Name: ".data.armed", Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 1},
		{Name: ".data.resident", Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 1},
	}
	s.maps = make(map[string]*ebpf.Map, len(specs))
	for i := range specs {
		m, err := ebpf.NewMap(&specs[i])
		if err != nil {
			return mapError(&specs[i], err)
		}
		s.maps[specs[i].Name] = m
	}
	return nil
}

func mapError(spec *ebpf.MapSpec, err error) error {
	if g := general("make a map", err); g != nil {
		return g
	}
	if spec.Type == ebpf.RingBuf && errors.Is(err, unix.EINVAL) {
		return &UnsupportedError{What: "BPF ring buffer of this size", Need: "Linux 5.8 (457f44363a88)", Err: err}
	}
	return fmt.Errorf("make map %s of %d entries of %d bytes: %w", spec.Name, spec.MaxEntries, spec.ValueSize, err)
}

// workers is how many points are attached at once; detachers how many are taken
// off: the kernel waits much of the time.
func workers() int { return max(4, 2*runtime.NumCPU()) }

const detachers = 64

// attach attaches all points. Those of one mechanism that takes many functions
// at once, and that need the same programs, share them.
func (s *Session) attach(ctx context.Context, l *loader) error {
	single, groups := s.group(l.self)
	var jobs []func() []PointError
	for _, points := range groups {
		jobs = append(jobs, func() []PointError { return l.attachMany(points) })
	}
	for _, i := range single {
		jobs = append(jobs, func() []PointError {
			if err := l.attach(i); err != nil {
				return []PointError{{i, err}}
			}
			return nil
		})
	}
	if s.cfg.Track && slices.ContainsFunc(s.cfg.Points, func(p Point) bool { return p.Packet != NoPacket }) {
		jobs = append(jobs, l.trackJobs()...)
	}
	var mu sync.Mutex
	parallel(workers(), len(jobs), func(n int) {
		if ctx.Err() != nil {
			return
		}
		failed := jobs[n]()
		mu.Lock()
		defer mu.Unlock()
		s.failed = append(s.failed, failed...)
	})
	if err := ctx.Err(); err != nil {
		return err
	}
	slices.SortFunc(s.failed, func(a, b PointError) int { return a.Point - b.Point })
	return s.nothing()
}

// nothing returns why no point at all is attached; nil if one is.
func (s *Session) nothing() error {
	failed := slices.DeleteFunc(slices.Clone(s.failed), func(p PointError) bool { return p.Point < 0 })
	if len(failed) < len(s.cfg.Points) {
		return nil
	}
	for _, p := range failed {
		var permission *PermissionError
		var lockdown *LockdownError
		var memlock *MemlockError
		if errors.As(p.Err, &permission) || errors.As(p.Err, &lockdown) || errors.As(p.Err, &memlock) {
			return p.Err
		}
	}
	return &NothingError{failed}
}

// group tells points that are attached alone from those that share programs.
func (s *Session) group(self int) (single []int, groups [][]int) {
	at := make(map[values]int)
	for i := range s.cfg.Points {
		p := &s.cfg.Points[i]
		if p.Mechanism != KprobeMulti {
			single = append(single, i)
			continue
		}
		v := s.cfg.constantsOf(i, &s.layouts[i], self)
		v[kPoint] = 0
		n, ok := at[v]
		if len(s.cfg.code(p)) > 0 || !ok {
			n = len(groups)
			groups = append(groups, nil)
			if len(s.cfg.code(p)) == 0 {
				at[v] = n
			}
		}
		groups[n] = append(groups[n], i)
	}
	return single, groups
}

// parallel calls f with 0 to n-1, so many at once.
func parallel(workers, n int, f func(int)) {
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(n, workers) {
		wg.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				f(i)
			}
		})
	}
	wg.Wait()
}

// set tells the programs the session's state.
func (s *Session) set(state uint32) error {
	if err := s.maps[".data.armed"].Put(uint32(0), state); err != nil {
		return fmt.Errorf("tell the programs to work: %w", err)
	}
	return nil
}

// Failed returns the points that are not observed, and why. Those of point -1
// are what packets are followed by.
func (s *Session) Failed() []PointError { return s.failed }

// Read returns the next event. It waits for one until the context ends, and
// ends with [io.EOF] when all that came before Detach was read.
func (s *Session) Read(ctx context.Context) (Event, error) {
	s.read.Lock()
	defer s.read.Unlock()
	s.reads++
	if s.reads%64 == 0 && ctx.Err() != nil {
		return Event{}, ctx.Err()
	}
	for {
		closed := s.ring.closed.Load()
		if b := s.ring.next(); b != nil {
			return s.decoder.decode(b)
		}
		if closed {
			return Event{}, io.EOF
		}
		if err := ctx.Err(); err != nil {
			return Event{}, err
		}
		if err := s.ring.wait(ctx); err != nil {
			return Event{}, fmt.Errorf("wait for events: %w", err)
		}
	}
}

// Waiting reports whether the next Read returns at once.
func (s *Session) Waiting() bool {
	s.read.Lock()
	defer s.read.Unlock()
	return s.ring != nil && s.ring.more()
}

// Detach ends the observation. Calls that have not returned are what Open then
// tells.
func (s *Session) Detach() error {
	if s.detached.Swap(true) {
		return nil
	}
	if s.maps[".data.armed"] != nil {
		s.set(stateEnds)
	}
	errs := make([]error, len(s.links))
	parallel(detachers, len(s.links), func(i int) { errs[i] = s.links[i].Close() })
	s.links = nil
	if s.ring != nil {
		settle()
		s.ring.end()
	}
	return errors.Join(errs...)
}

// settle waits until programs that were running when they were detached have
// ended: they run under RCU, whose grace period membarrier(2) waits for.
func settle() {
	const global = 1 // MEMBARRIER_CMD_GLOBAL
	unix.Syscall(unix.SYS_MEMBARRIER, global, 0, 0)
}

// Close ends the observation and gives everything back.
func (s *Session) Close() error {
	err := s.Detach()
	for _, p := range s.progs {
		unix.Close(p.fd)
	}
	s.progs = nil
	if s.stats >= 0 {
		unix.Close(s.stats)
		s.stats = -1
	}
	if s.ring != nil {
		s.read.Lock()
		s.ring.close()
		s.ring = nil
		s.read.Unlock()
	}
	for _, m := range s.maps {
		m.Close()
	}
	s.maps = nil
	return err
}
