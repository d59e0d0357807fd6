package live

import (
	"bytes"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/ksleuth/ksleuth/mem"
	"github.com/ksleuth/ksleuth/vmcore"
)

// directMap is physical memory by way of the kernel's map of all of it, which
// a BPF program reads. Only RAM is read: devices can act on a read.
type directMap struct {
	virt virtual
	mem  iomem
	base uint64 // page_offset_base: the virtual address of physical address 0
	note vmcore.VMCoreInfo
	ok   bool
}

// virtual is the kernel's virtual memory, and an address in its direct map.
type virtual interface {
	mem.Reader
	current() (uint64, error) // a task_struct, which is always in the direct map
	Close() error
}

// openBPF finds what it takes to read physical memory by a BPF program.
func openBPF() (physical, error) {
	b, err := newBPFReader()
	if err != nil {
		return nil, err
	}
	d := &directMap{virt: b}
	if err := d.find(); err != nil {
		_ = b.Close()
		return nil, err
	}
	return d, nil
}

// find finds where RAM is, where it is mapped, and what the kernel says of
// itself.
func (d *directMap) find() error {
	var err error
	if d.mem, err = readIOMem(); err != nil {
		return &Refusal{Class: ErrDenied, Err: err, Enable: "it takes CAP_SYS_ADMIN beside CAP_BPF and CAP_PERFMON"}
	}
	if at, size, err := exportedNote(); err == nil && size >= len(noteName) {
		d.base, err = d.findBase(at+noteHeader, []byte(noteName))
		if err != nil {
			return err
		}
		d.note, d.ok = exportedInfo(d)
		return nil
	}
	// A kernel without CONFIG_VMCORE_INFO: its symbols tell as much.
	syms, err := readKallsyms("/proc/kallsyms")
	if err != nil {
		return err
	}
	return d.bySymbols(syms)
}

// gib is what the direct map's base is aligned to: an entry of the page upper
// directory (arch/x86/mm/kaslr.c).
const gib = 1 << 30

// findBase finds the direct map by what is known to be at a physical address.
// A task_struct is in the direct map, so the base is below it, at most by the
// size of RAM. The candidates are tried from the lowest on: none above the true
// one is, which could meet other mappings than those of RAM.
func (d *directMap) findBase(phys uint64, known []byte) (uint64, error) {
	task, err := d.virt.current()
	if err != nil {
		return 0, refuseBPF("running the program", err)
	}
	buf := make([]byte, len(known))
	last := task &^ (gib - 1)
	first := last - (d.mem.end()+gib-1)&^(gib-1)
	for base := first; base <= last; base += gib {
		if d.virt.ReadMem(buf, base+phys) == nil && bytes.Equal(buf, known) && d.mem.within(task-base) > 0 {
			return base, nil
		}
	}
	return 0, &Refusal{Class: ErrUnsupported, Err: fmt.Errorf("the map of physical memory is not found below %#x", task)}
}

// bySymbols finds the kernel by its symbols.
func (d *directMap) bySymbols(syms map[string]uint64) error {
	text := syms["_text"]
	if text == 0 || d.mem.text == 0 || syms[topTable] == 0 {
		return &Refusal{Class: ErrUnsupported, Err: errors.New("the kernel's page tables are not found"),
			Enable: "it takes a kernel with CONFIG_VMCORE_INFO, or CONFIG_KALLSYMS_ALL and a readable /proc/kallsyms (CAP_SYSLOG, sysctl kernel.kptr_restrict below 2)"}
	}
	known, err := mem.Bytes(d.virt, text, 256)
	if err != nil {
		return &Refusal{Class: ErrUnsupported, Err: fmt.Errorf("the kernel's text: %w", err)}
	}
	if d.base, err = d.findBase(d.mem.text, known); err != nil {
		return err
	}
	d.note, d.ok = synthesize(syms, d.mem.text, d.base, d.virt), true
	return nil
}

// fiveLevels is where the half of the kernel ends that only 5-level page
// tables reach.
const fiveLevels = 0xffff_8000_0000_0000

// kernelMap is where the image is linked (__START_KERNEL_map).
const kernelMap = 0xffff_ffff_8000_0000

// synthesize writes what a kernel with VMCOREINFO says of itself.
func synthesize(syms map[string]uint64, textPhys, base uint64, m mem.Reader) vmcore.VMCoreInfo {
	var b bytes.Buffer
	var uts unix.Utsname
	if unix.Uname(&uts) == nil {
		fmt.Fprintf(&b, "OSRELEASE=%s\n", unix.ByteSliceToString(uts.Release[:]))
	}
	fmt.Fprintf(&b, "PAGESIZE=%d\n", pageSize)
	for _, name := range neededSymbols {
		addr := syms[name]
		switch {
		case addr == 0 || name == encMask:
			continue
		case name == topTable:
			name = "swapper_pg_dir"
		}
		fmt.Fprintf(&b, "SYMBOL(%s)=%x\n", name, addr)
	}
	fmt.Fprintf(&b, "NUMBER(phys_base)=%d\n", int64(textPhys-(syms["_text"]-kernelMap)))
	if base < fiveLevels {
		fmt.Fprintf(&b, "NUMBER(pgtable_l5_enabled)=1\n")
	}
	if at := syms[encMask]; at != 0 {
		if mask, err := mem.U64(m, at); err == nil {
			fmt.Fprintf(&b, "NUMBER(sme_mask)=%d\n", mask)
		}
	}
	return vmcore.ParseVMCoreInfo(b.String())
}

// ReadMem implements [mem.Reader] over physical memory.
func (d *directMap) ReadMem(p []byte, addr uint64) error {
	for len(p) > 0 {
		n := min(uint64(len(p)), d.mem.within(addr))
		if n == 0 {
			return &mem.Fault{Space: mem.Physical, Addr: addr, Cause: mem.Unmapped, Err: errors.New("no RAM, by /proc/iomem")}
		}
		if err := d.virt.ReadMem(p[:n], d.base+addr); err != nil {
			var f *mem.Fault
			if errors.As(err, &f) {
				return &mem.Fault{Space: mem.Physical, Addr: f.Addr - d.base, Cause: f.Cause, Err: err}
			}
			return err
		}
		p, addr = p[n:], addr+n
	}
	return nil
}

// Close implements [physical].
func (d *directMap) Close() error { return d.virt.Close() }

func (d *directMap) info() (vmcore.VMCoreInfo, bool) { return d.note, d.ok }
func (d *directMap) ranges() ([]vmcore.Range, error) { return d.mem.ram, nil }
func (d *directMap) describe() string                { return "a BPF program" }
