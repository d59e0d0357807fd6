package rerun

import (
	"errors"
	"fmt"

	"github.com/ksleuth/ksleuth/emulate"
	"github.com/ksleuth/ksleuth/mem"
	"github.com/ksleuth/ksleuth/x86"
)

// A trapNote says what the kernel's tables know of an exception that ended a run.
type trapNote struct {
	rip  uint64
	text string
}

// exception does what the kernel does about an exception, where the run can go
// on then.
func (r *run) exception(m *emulate.Machine, e *emulate.Exception) bool {
	switch e.Vector {
	case emulate.PageFault, emulate.GeneralProtect:
		return r.pageFault(e)
	case emulate.DivideError:
		return r.fixup(e, trapDE)
	case emulate.InvalidOpcode:
		return r.bug(e)
	case emulate.Breakpoint:
		return r.kprobe(m.RIP)
	}
	return false
}

// Numbers of exceptions, as the kernel hands them to its handlers.
const (
	trapDE = 0
	trapGP = 13
	trapPF = 14
)

// pageFault goes through the kernel's exception table, but only where the
// target has no memory: what is missing in the dump is not what the kernel saw.
func (r *run) pageFault(e *emulate.Exception) bool {
	if e.Inst == nil { // nothing is there to execute
		return false
	}
	user := e.Addr < userEnd
	var readOnly *ReadOnlyError
	if c := mem.CauseOf(e.Err); c != mem.Unmapped && !errors.As(e.Err, &readOnly) && !user && e.Vector == emulate.PageFault {
		return false
	}
	vector := uint64(trapPF)
	if e.Vector == emulate.GeneralProtect {
		vector = trapGP
	}
	if !r.fixup(e, vector) {
		return false
	}
	if user && e.Addr >= 4096 {
		r.use("user memory", "it is not read: an access to it fails as one to memory that is not there")
	}
	return true
}

// userEnd is above all user addresses.
const userEnd = 1 << 56

// bug handles ud2 and ud1: the kernel goes on behind a WARN, and dies of a BUG.
func (r *run) bug(e *emulate.Exception) bool {
	if e.Inst == nil {
		return false
	}
	b, ok := r.s.bugAt(e.Inst.Addr)
	if !ok && e.Inst.Op == x86.UD1 {
		// A WARN with a text calls __WARN_trap, whose first argument is the entry (7.0).
		b, ok = r.s.bugEntry(r.m.GP[emulate.RDI])
	}
	if !ok {
		return false
	}
	if !b.warning {
		r.trapped = &trapNote{e.Inst.Addr, "BUG at " + b.where()}
		return false
	}
	r.use("WARN", "the kernel would warn: WARNING at "+b.where())
	r.m.RIP = e.Inst.Addr + uint64(e.Inst.Len)
	return true
}

// kprobe executes the instruction that a kprobe's int3 has replaced.
func (r *run) kprobe(addr uint64) bool {
	s := r.s
	table, ok := s.symbols()["kprobe_table"]
	if !ok {
		return false
	}
	// hash_ptr(addr, KPROBE_HASH_BITS)
	const (
		goldenRatio = 0x61c8864680b583eb
		hashBits    = 6
		most        = 1 << 12
	)
	probedAt, err1 := s.k.Offset("kprobe", "addr")
	opcodeAt, err2 := s.k.Offset("kprobe", "opcode")
	if errors.Join(err1, err2) != nil {
		return false
	}
	at, err := mem.U64(s.view, table.Addr+8*(addr*goldenRatio>>(64-hashBits)))
	for n := 0; err == nil && at != 0 && n < most; n++ {
		probed, err1 := mem.U64(s.view, at+probedAt)
		opcode, err2 := mem.U8(s.view, at+opcodeAt)
		if errors.Join(err1, err2) != nil {
			return false
		}
		if probed == addr {
			r.hide(addr, 1)
			if err := s.force(func() error { return r.m.StoreBytes(addr, []byte{opcode}) }); err != nil {
				return false
			}
			r.use("kprobe", "the probe is left out, and the instruction that it replaced is executed")
			return true
		}
		at, err = mem.U64(s.view, at) // it begins with its hlist_node
	}
	return false
}

// hide leaves bytes out of what the run has changed.
func (r *run) hide(addr uint64, n int) { r.hidden[addr] = n }

// stopText says why a run ended, in words.
func (r *run) stopText(stop *emulate.Stop) string {
	if r.trapped != nil && r.trapped.rip == stop.RIP {
		return r.trapped.text
	}
	if stop.Loop != nil {
		return r.s.loopText(stop.Loop)
	}
	if stop.Err == nil {
		return ""
	}
	var e *emulate.Exception
	if errors.As(stop.Err, &e) && (e.Vector == emulate.PageFault || e.Vector == emulate.GeneralProtect) {
		return r.faultText(e)
	}
	return stop.Err.Error()
}

// faultText says what was accessed, and why it could not be.
func (r *run) faultText(e *emulate.Exception) string {
	where := r.faultPlace(e.Addr)
	if e.Inst == nil {
		return fmt.Sprintf("there is no code to execute at %s: %s", where, faultCause(e))
	}
	verb := "reads"
	if e.Write {
		verb = "writes"
	}
	return fmt.Sprintf("it %s %s: %s", verb, where, faultCause(e))
}

// faultPlace describes an address that could not be accessed.
func (r *run) faultPlace(addr uint64) string {
	switch {
	case addr < 4096:
		return fmt.Sprintf("0x%x, through a NULL pointer", addr)
	case addr < userEnd:
		return fmt.Sprintf("user memory at 0x%x", addr)
	case addr >= stackBase-stackSize && addr < stackBase:
		return fmt.Sprintf("0x%x, below its stack of %d KiB", addr, stackSize>>10)
	}
	if name, ok := r.s.dataName(addr); ok {
		return fmt.Sprintf("0x%x (%s)", addr, name)
	}
	return fmt.Sprintf("0x%x", addr)
}

func faultCause(e *emulate.Exception) string {
	if e.Vector == emulate.GeneralProtect {
		return "this is no address (it is not canonical)"
	}
	if c := mem.CauseOf(e.Err); c != 0 {
		return c.String()
	}
	var readOnly *ReadOnlyError
	if errors.As(e.Err, &readOnly) {
		return "read-only"
	}
	return e.Err.Error()
}
