package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/ksleuth/ksleuth/internal/callscene/callgate"
)

// enter calls a function of the kernel through the gate and returns RAX.
func enter(fn uint64, args ...uint64) uint64 {
	var a [callgate.MaxArgs]uintptr
	for i, arg := range args {
		a[i] = uintptr(arg)
	}
	r, _, errno := unix.RawSyscall6(unix.SYS_GETPGID, uintptr(fn), a[0], a[1], a[2], a[3], a[4])
	if errno != 0 {
		return uint64(-int64(errno)) // the last page of numbers is taken for errors
	}
	return uint64(r)
}

// symbols are the addresses of the symbols of /proc/kallsyms. Where several
// have a name, or it is of code that is freed after boot, it is none.
type symbols map[string]uint64

func readSymbols() (symbols, error) {
	f, err := os.Open("/proc/kallsyms")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	s, twice := symbols{}, map[string]bool{}
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		addr, err := strconv.ParseUint(fields[0], 16, 64)
		if err != nil {
			return nil, err
		}
		name := fields[2]
		if _, ok := s[name]; ok {
			twice[name] = true
		}
		s[name] = addr
	}
	begin, end := s["__init_begin"], s["__init_end"]
	if begin == 0 || s["_stext"] == 0 {
		return nil, errors.New("/proc/kallsyms has no addresses")
	}
	for name, addr := range s {
		if twice[name] || begin <= addr && addr < end {
			delete(s, name)
		}
	}
	return s, lines.Err()
}

// first returns the address of the first of the names that is known.
func (s symbols) first(names ...string) (string, uint64, error) {
	for _, name := range names {
		if addr := s[name]; addr != 0 {
			return name, addr, nil
		}
	}
	return "", 0, fmt.Errorf("this kernel has no %s", strings.Join(names, ", "))
}

// An arena is memory of the kernel for what arguments point at. It is never
// given back: the dump has all of it, as the calls left it.
type arena struct {
	next, end        uint64
	fromUser, toUser uint64
}

const arenaSize = 1 << 20

func newArena(s symbols) (*arena, error) {
	_, alloc, err := s.first("vmalloc", "vmalloc_noprof")
	if err != nil {
		return nil, err
	}
	_, in, err := s.first("_copy_from_user")
	if err != nil {
		return nil, err
	}
	_, out, err := s.first("_copy_to_user")
	if err != nil {
		return nil, err
	}
	start := enter(alloc, arenaSize)
	if start == 0 {
		return nil, errors.New("vmalloc gave nothing")
	}
	a := &arena{next: start, end: start + arenaSize, fromUser: in, toUser: out}
	// All of it, or the dump would have memory that others used before.
	return a, a.write(start, make([]byte, arenaSize))
}

// put copies data to memory of its own.
func (a *arena) put(data []byte) (uint64, error) {
	const gap = 64 // so that what runs over an end is seen, and all are aligned
	addr := a.next
	if addr+uint64(len(data))+gap > a.end {
		return 0, errors.New("the arena is full")
	}
	a.next = (addr + uint64(len(data)) + 2*gap - 1) &^ (gap - 1)
	return addr, a.write(addr, data)
}

// write and read copy between this process and any memory of the kernel.
func (a *arena) write(addr uint64, data []byte) error {
	return copied(data, func(p uint64) uint64 { return enter(a.fromUser, addr, p, uint64(len(data))) })
}

func (a *arena) read(addr uint64, data []byte) error {
	return copied(data, func(p uint64) uint64 { return enter(a.toUser, p, addr, uint64(len(data))) })
}

func copied(data []byte, how func(p uint64) uint64) error {
	if len(data) == 0 {
		return nil
	}
	if left := how(uint64(uintptr(unsafe.Pointer(&data[0])))); left != 0 {
		return fmt.Errorf("%d of %d bytes were not copied", left, len(data))
	}
	return nil
}
