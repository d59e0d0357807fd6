package vmcore

import (
	"encoding/binary"
	"fmt"
	"math"
	"strings"
)

// Notes of a dump, and how much of them is believed.
const (
	noteHeader    = 12
	ntPrstatus    = 1
	ntPrpsinfo    = 3
	maxNote       = 1 << 20 // larger ones, like device dumps (NT_VMCOREDD), are passed over
	maxNotes      = 16 << 20
	maxVMCoreInfo = 1 << 20
)

// A noteRegion is where notes are, or the text of VMCOREINFO itself.
type noteRegion struct {
	in *input
	region
	text bool
}

// notes is what the notes of a dump say.
type notes struct {
	raw        []byte // the notes themselves, those of reasonable size
	cpus       []CPU
	vmcoreinfo string
	kcore      bool // written by /proc/kcore
	problems   []error
}

// readNotes reads all note regions. Damage is noted and what can be read is
// kept.
func readNotes(regions []noteRegion) *notes {
	n := &notes{}
	qemu := 0
	for _, r := range regions {
		if r.off <= 0 || r.size <= 0 {
			continue
		}
		if r.text {
			n.text(r)
			continue
		}
		if err := n.region(r, &qemu); err != nil {
			n.problems = append(n.problems, err)
		}
	}
	return n
}

// text reads VMCOREINFO from where the sub-header says it is.
func (n *notes) text(r noteRegion) {
	if n.vmcoreinfo != "" {
		return
	}
	if r.size > maxVMCoreInfo || !r.in.has(r.off, r.size) {
		n.problems = append(n.problems, r.in.errorAt(r.off, "VMCOREINFO", fmt.Errorf("%w: %d bytes", errRange, r.size)))
		return
	}
	b := make([]byte, r.size)
	if err := r.in.readAt(b, r.off, "VMCOREINFO"); err != nil {
		n.problems = append(n.problems, err)
		return
	}
	n.vmcoreinfo = strings.TrimRight(string(b), "\x00")
}

// region walks the notes of a region, reading header by header: a region can
// hold hundreds of megabytes of device dumps.
func (n *notes) region(r noteRegion, qemu *int) error {
	if r.size > math.MaxInt64-r.off {
		return r.in.errorAt(r.off, "notes", fmt.Errorf("%w: %d bytes", errRange, r.size))
	}
	var h [noteHeader]byte
	for pos, end := r.off, r.off+r.size; pos+noteHeader <= end; {
		if err := r.in.readAt(h[:], pos, "note"); err != nil {
			return err
		}
		le := binary.LittleEndian
		name, desc, typ := align4(le.Uint32(h[:])), align4(le.Uint32(h[4:])), le.Uint32(h[8:])
		size := noteHeader + name + desc
		if name == 0 && desc == 0 && typ == 0 {
			return nil // padding: the kernel ends a list of notes with an empty one
		}
		if pos+size > end && pos+noteHeader+name+int64(le.Uint32(h[4:])) > end {
			return r.in.errorAt(pos, "note", fmt.Errorf("%w: %d bytes", errRange, size))
		}
		if size <= maxNote && int64(len(n.raw))+size <= maxNotes {
			raw := make([]byte, min(size, end-pos))
			if err := r.in.readAt(raw, pos, "note"); err != nil {
				return err
			}
			n.raw = append(append(n.raw, raw...), make([]byte, size-int64(len(raw)))...)
			nameLen, descLen := int64(le.Uint32(h[:])), int64(le.Uint32(h[4:]))
			body := raw[noteHeader:]
			err := n.note(strings.TrimRight(string(body[:nameLen]), "\x00"), typ, body[name:name+descLen], qemu)
			if err != nil {
				n.problems = append(n.problems, r.in.errorAt(pos, "note", err))
			}
		}
		pos += size
	}
	return nil
}

func align4(n uint32) int64 { return (int64(n) + 3) &^ 3 }

// note takes in one note.
func (n *notes) note(name string, typ uint32, desc []byte, qemu *int) error {
	switch {
	case name == "CORE" && typ == ntPrstatus:
		pid, regs, err := parsePrstatus(desc)
		if err != nil {
			return err
		}
		n.cpus = append(n.cpus, CPU{Index: len(n.cpus), PID: pid, Regs: regs})
	case name == "CORE" && typ == ntPrpsinfo:
		n.kcore = true
	case name == "QEMU":
		q, err := parseQEMU(desc)
		if err != nil {
			return err
		}
		// QEMU writes all NT_PRSTATUS notes first, then its own in the same order.
		if *qemu < len(n.cpus) {
			n.cpus[*qemu].QEMU = q
		}
		*qemu++
	case name == "VMCOREINFO" && n.vmcoreinfo == "":
		n.vmcoreinfo = strings.TrimRight(string(desc), "\x00")
	}
	return nil
}

// loadNotes reads the notes once.
func (c *Core) loadNotes() *notes {
	c.notesOnce.Do(func() {
		c.parsed = readNotes(c.src.noteRegions())
		if c.parsed.kcore {
			c.parsed.cpus, c.parsed.raw = nil, nil // the reader's own task, not a CPU
		}
	})
	return c.parsed
}

// CPUs returns the processors the dump has registers of, in the order of their
// notes; none from /proc/kcore or an old dump without notes.
func (c *Core) CPUs() []CPU { return append([]CPU(nil), c.loadNotes().cpus...) }

// Notes returns the raw ELF notes, for example to carry them into another
// dump. Notes of more than a megabyte (device dumps) are left out, and those of
// /proc/kcore, which are about the task that reads it.
func (c *Core) Notes() []byte { return append([]byte(nil), c.loadNotes().raw...) }
