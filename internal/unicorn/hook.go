package unicorn

import (
	"encoding/binary"
	"errors"
	"runtime"
	"syscall"
	"unsafe"
)

// A Counter counts instructions, by machine code that the library calls before
// each. A string instruction counts once, as often as it is repeated.
type Counter struct {
	e    *Engine
	mem  []byte
	hook uintptr
}

// CountInstructions counts what is executed from now on. With empty the code
// that is called does nothing: it is there to measure what calling it costs.
func (e *Engine) CountInstructions(empty bool) (*Counter, error) {
	if runtime.GOARCH != "amd64" {
		return nil, errors.New("the counter is x86-64 code")
	}
	const size, code = 4096, 64
	m, err := syscall.Mmap(-1, 0, size, syscall.PROT_READ|syscall.PROT_WRITE|syscall.PROT_EXEC, syscall.MAP_PRIVATE|syscall.MAP_ANON)
	if err != nil {
		return nil, err
	}
	at := uint64(uintptr(unsafe.Pointer(unsafe.SliceData(m))))
	ret := []byte{0xc3}
	if !empty {
		// The arguments are engine, address and size.
		ret = append([]byte{0x48, 0xb8}, binary.LittleEndian.AppendUint64(nil, at)...) // mov $at,%rax
		ret = append(ret, 0x48, 0x39, 0x70, 0x08)                                      // cmp %rsi,8(%rax)
		ret = append(ret, 0x74, 0x07)                                                  // je 1f
		ret = append(ret, 0x48, 0x89, 0x70, 0x08)                                      // mov %rsi,8(%rax)
		ret = append(ret, 0x48, 0xff, 0x00)                                            // incq (%rax)
		ret = append(ret, 0xc3)                                                        // 1: ret
	}
	copy(m[code:], ret)
	h, err := e.hook(hookCode, uintptr(at+code))
	return &Counter{e: e, mem: m, hook: h}, err
}

// Take returns how many instructions were executed since it was called last.
func (c *Counter) Take() uint64 {
	n := binary.LittleEndian.Uint64(c.mem)
	clear(c.mem[:16])
	return n
}

// Close ends the counting. Code that was executed before remains slow until it
// is forgotten.
func (c *Counter) Close() error {
	return errors.Join(c.e.call(c.e.lib.hookDel, c.hook), syscall.Munmap(c.mem))
}
