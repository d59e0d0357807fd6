package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"syscall"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// Map types that the library has no name for: enum bpf_map_type.
const (
	insnArrayMap ebpf.MapType = 34 // b4ce5923e780 (6.19)
	rhashMap     ebpf.MapType = 35 // 7.2
)

// plainMaps are the maps of types that zoo.bpf.c does not have.
var plainMaps = []ebpf.MapSpec{
	{Name: "perf_events", Type: ebpf.PerfEventArray, KeySize: 4, ValueSize: 4, MaxEntries: 2},
	{Name: "stacks", Type: ebpf.StackTrace, KeySize: 4, ValueSize: 8 * 16, MaxEntries: 8},
	{Name: "cgroups", Type: ebpf.CGroupArray, KeySize: 4, ValueSize: 4, MaxEntries: 2},
	{Name: "devices", Type: ebpf.DevMap, KeySize: 4, ValueSize: 8, MaxEntries: 4},
	{Name: "devices_hash", Type: ebpf.DevMapHash, KeySize: 4, ValueSize: 4, MaxEntries: 4},
	{Name: "sockets", Type: ebpf.SockMap, KeySize: 4, ValueSize: 8, MaxEntries: 4},
	{Name: "sockets_linked", Type: ebpf.SockMap, KeySize: 4, ValueSize: 4, MaxEntries: 4},
	{Name: "sockets_hash", Type: ebpf.SockHash, KeySize: 8, ValueSize: 8, MaxEntries: 4},
	{Name: "cpus", Type: ebpf.CPUMap, KeySize: 4, ValueSize: 8, MaxEntries: 2},
	{Name: "xdp_sockets", Type: ebpf.XSKMap, KeySize: 4, ValueSize: 4, MaxEntries: 4},
	{Name: "reuseport", Type: ebpf.ReusePortSockArray, KeySize: 4, ValueSize: 8, MaxEntries: 2},
	{Name: "bloom", Type: ebpf.BloomFilter, KeySize: 0, ValueSize: 8, MaxEntries: 100},
	{Name: "user_ring", Type: ebpf.UserRingbuf, KeySize: 0, ValueSize: 0, MaxEntries: 4096},
	{Name: "arena", Type: ebpf.Arena, KeySize: 0, ValueSize: 0, MaxEntries: 16, Flags: unix.BPF_F_MMAPABLE},
	{Name: "insns", Type: insnArrayMap, KeySize: 4, ValueSize: 16, MaxEntries: 2},
	{Name: "rhash", Type: rhashMap, KeySize: 4, ValueSize: 8, MaxEntries: 8, Flags: unix.BPF_F_NO_PREALLOC},
	{Name: "mmapable", Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 512, Flags: unix.BPF_F_MMAPABLE},
	{Name: "untyped_hash", Type: ebpf.Hash, KeySize: 6, ValueSize: 10, MaxEntries: 16},
	{Name: "untyped_percpu", Type: ebpf.PerCPUHash, KeySize: 4, ValueSize: 12, MaxEntries: 16},
	{Name: "numa", Type: ebpf.Hash, KeySize: 4, ValueSize: 4, MaxEntries: 4, Flags: unix.BPF_F_NUMA_NODE},
	{Name: "lru_by_cpu", Type: ebpf.LRUHash, KeySize: 4, ValueSize: 4, MaxEntries: 64, Flags: unix.BPF_F_NO_COMMON_LRU},
	{Name: "read_only", Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 1, Flags: unix.BPF_F_RDONLY},
	{Name: "empty", Type: ebpf.Hash, KeySize: 4, ValueSize: 4, MaxEntries: 4},
}

// makeMaps makes plainMaps.
func (z *zoo) makeMaps() error {
	for i := range plainMaps {
		s := plainMaps[i].Copy()
		z.try(fmt.Sprintf("map %s (%v)", s.Name, s.Type), func() error {
			m, err := ebpf.NewMap(s)
			if err == nil {
				z.maps[s.Name] = m
			}
			return err
		})
	}
	return nil
}

// Go's forms of zoo.bpf.c's types.
type point struct{ X, Y int32 }

type record struct {
	ID      uint64
	Name    [16]byte
	At      point
	Num     uint64
	Color   uint32
	Bits    uint32
	Temps   [3]int16
	_       [2]byte
	Corners [2]point
	MAC     [6]byte
	On      bool
	_       [1]byte
	Self    uint64
	Port    uint32
	Raw     [4]byte
}

func newRecord(id uint64, name string, color uint32) *record {
	r := &record{
		ID: id, At: point{int32(id) * 10, -int32(id)}, Num: id<<32 | 0xabcd, Color: color,
		Bits:  1 | 5<<1 | (0x1000-uint32(id))&0xfff<<4 | 0xbeef<<16,
		Temps: [3]int16{-1, int16(id), 300}, Corners: [2]point{{1, 2}, {-3, -4}},
		MAC: [6]byte{2, 0, 0xde, 0xad, byte(id), 1}, On: id%2 == 1, Self: 0xffff888000001000 + id,
		Port: 8080, Raw: [4]byte{1, 2, 3, 4},
	}
	copy(r.Name[:], name)
	return r
}

// name16 is a key of by_name.
func name16(s string) (b [16]byte) {
	copy(b[:], s)
	return b
}

// percpu makes the values of one key, one for each possible CPU.
func percpu[T any](value func(cpu int) T) []T {
	out := make([]T, ebpf.MustPossibleCPU())
	for cpu := range out {
		out[cpu] = value(cpu)
	}
	return out
}

// put is one update of a map.
type put struct {
	name       string
	key, value any
}

// contents are the plain contents of the maps.
func contents() []put {
	all := []put{
		{"percpu_points", point{1, 1}, percpu(func(c int) point { return point{int32(c), -int32(c)} })},
		{"percpu_points", point{2, 9}, percpu(func(c int) point { return point{100 + int32(c), 0} })},
		{"counters", uint32(2), percpu(func(c int) uint64 { return uint64(1000 + c) })},
		{"recent", uint64(1), uint32(0)}, {"recent", uint64(2), uint32(5)}, {"recent", uint64(3), uint32(77)},
		{"recent_percpu", uint32(4), percpu(func(c int) uint32 { return uint32(c) + 1 })},
		{"routes", [8]byte{8, 0, 0, 0, 10}, uint64(1)}, {"routes", [8]byte{24, 0, 0, 0, 192, 168, 7}, uint64(0x100000002)},
		{"routes", [8]byte{}, uint64(3)},
		{"frozen", uint32(0), point{7, 7}}, {"frozen", uint32(1), point{8, -8}},
		{"inner", uint32(5), point{5, 50}}, {"inner", uint32(6), point{6, 60}},
		{"queue", nil, point{1, 10}}, {"queue", nil, point{2, 20}}, {"queue", nil, point{3, 30}},
		{"stack", nil, uint32(101)}, {"stack", nil, uint32(102)},
		{"bloom", nil, uint64(42)},
		{"rhash", uint32(1), uint64(11)}, {"rhash", uint32(2), uint64(22)},
		{"mmapable", uint32(3), uint64(333)},
		{"numa", uint32(1), uint32(2)}, {"lru_by_cpu", uint32(8), uint32(9)},
		{"untyped_hash", [6]byte{1, 2, 3, 4, 5, 6}, [10]byte{10, 9, 8, 7, 6, 5, 4, 3, 2, 1}},
		{"untyped_percpu", uint32(3), percpu(func(c int) [12]byte { return [12]byte{byte(c), 0xff} })},
	}
	for i, name := range []string{"ant", "bee", "cat", "dog"} {
		all = append(all, put{"by_name", name16(name), uint64(i + 1)})
	}
	for i := range uint32(3) {
		all = append(all, put{"records", i, newRecord(uint64(i)+1, fmt.Sprintf("record %d", i), []uint32{0, 5, 0x7fffffff}[i])})
		all = append(all, put{"slots", i, newRecord(uint64(i)+50, "slot", 5)})
	}
	return all
}

// fillMaps fills the maps and freezes one.
func (z *zoo) fillMaps() error {
	for _, p := range contents() {
		m := z.maps[p.name]
		if m == nil {
			continue // said before
		}
		if err := m.Put(p.key, p.value); err != nil {
			z.leftOut = append(z.leftOut, fmt.Sprintf("left out: entry %v of map %s: %v", p.key, p.name, err))
		}
	}
	z.try("map frozen is frozen", z.maps["frozen"].Freeze)
	z.fillStorage()
	z.fillSockets()
	z.fillFDs()
	return nil
}

// fill puts one value where the kernel may refuse.
func (z *zoo) fill(name string, key, value any) {
	m := z.maps[name]
	if m == nil {
		return
	}
	z.try("entry of map "+name, func() error { return m.Put(key, value) })
}

// fillStorage gives an inode, a task, a cgroup and a socket storage.
func (z *zoo) fillStorage() {
	if f, err := os.Open("/proc/self/exe"); err == nil {
		z.kept = append(z.kept, f)
		z.fill("of_inodes", uint32(f.Fd()), point{1, 100})
	}
	if fd, err := unix.PidfdOpen(os.Getpid(), 0); err == nil {
		z.kept = append(z.kept, os.NewFile(uintptr(fd), "pidfd"))
		z.fill("of_tasks", uint32(fd), point{2, 200})
	}
	z.fill("of_cgroups", uint32(z.cgroup.Fd()), point{3, 300})
	if fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0); err == nil {
		z.kept = append(z.kept, os.NewFile(uintptr(fd), "socket"))
		z.fill("of_sockets", uint32(fd), point{4, 400})
	}
}

// fillSockets puts sockets into the maps of sockets.
func (z *zoo) fillSockets() {
	// Without keep-alives: nothing is to move on lo later.
	listen := net.ListenConfig{KeepAlive: -1}
	l, err := listen.Listen(context.Background(), "tcp4", "127.0.0.1:0")
	if err != nil {
		z.leftOut = append(z.leftOut, "left out: sockets in maps: "+err.Error())
		return
	}
	z.kept = append(z.kept, l)
	dial := net.Dialer{KeepAlive: -1}
	if c, err := dial.Dial("tcp4", l.Addr().String()); err == nil {
		z.kept = append(z.kept, c)
		withFD(c.(syscall.Conn), func(fd uintptr) {
			z.fill("sockets", uint32(1), uint64(fd))
			z.fill("sockets_hash", uint64(0x1122334455667788), uint64(fd))
		})
	}
	if fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0); err == nil {
		z.kept = append(z.kept, os.NewFile(uintptr(fd), "socket"))
		if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) == nil &&
			unix.Bind(fd, &unix.SockaddrInet4{Port: 5353, Addr: [4]byte{127, 0, 0, 1}}) == nil {
			z.fill("reuseport", uint32(0), uint64(fd))
		}
	}
}

func withFD(c syscall.Conn, use func(fd uintptr)) {
	if raw, err := c.SyscallConn(); err == nil {
		_ = raw.Control(use)
	}
}

// fillFDs puts what is named by a descriptor or index into maps.
func (z *zoo) fillFDs() {
	z.fill("cgroups", uint32(1), uint32(z.cgroup.Fd()))
	index := uint32(z.dummy.Index)
	z.fill("devices_hash", uint32(9), index)
	value := func(first uint32, prog string) []byte {
		b := binary.LittleEndian.AppendUint32(nil, first)
		if p := z.progs[prog]; p != nil {
			return binary.LittleEndian.AppendUint32(b, uint32(p.FD()))
		}
		return binary.LittleEndian.AppendUint32(b, 0)
	}
	z.fill("devices", uint32(0), value(index, ""))
	z.fill("devices", uint32(2), value(index, "xdp_devmap"))
	z.fill("cpus", uint32(0), value(64, "xdp_cpumap"))
	fd, err := unix.PerfEventOpen(&unix.PerfEventAttr{Type: unix.PERF_TYPE_SOFTWARE, Config: unix.PERF_COUNT_SW_BPF_OUTPUT, Size: unix.PERF_ATTR_SIZE_VER5}, -1, 0, -1, unix.PERF_FLAG_FD_CLOEXEC)
	if err == nil {
		z.kept = append(z.kept, os.NewFile(uintptr(fd), "perf"))
		z.fill("perf_events", uint32(0), uint32(fd))
	}
}
