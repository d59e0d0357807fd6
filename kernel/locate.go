package kernel

import (
	"context"
	"errors"
	"fmt"

	"github.com/ksleuth/ksleuth/mem"
	"github.com/ksleuth/ksleuth/paging"
	"github.com/ksleuth/ksleuth/vmcore"
)

const (
	// kernelMap is where x86-64 Linux links its image
	// (arch/x86/include/asm/page_64_types.h, __START_KERNEL_map).
	kernelMap = 0xffff_ffff_8000_0000
	// maxImage is how far above it KASLR can put the image and its end
	// (KERNEL_IMAGE_SIZE).
	maxImage = 1 << 30
	// imageAlign is the alignment of the image (CONFIG_PHYSICAL_ALIGN).
	imageAlign = 2 << 20
)

// A place is where a kernel is in memory.
type place struct {
	info  vmcore.VMCoreInfo // empty if the kernel left none
	space *paging.AddressSpace
	stext uint64 // start of its text
}

// locate finds the kernel: by the VMCOREINFO that the dump's writer noted; or
// by one found in memory, if the page tables it names are those that the CPUs
// used, for memory can hold the text of an earlier boot; or else by the page
// tables of a CPU alone.
func locate(ctx context.Context, src Source) (place, error) {
	var noted error
	if info, ok := src.NotedVMCoreInfo(); ok {
		p, err := byInfo(src, info)
		if err == nil {
			return p, nil
		}
		noted = fmt.Errorf("the VMCOREINFO in the dump's notes: %w", err)
	}
	cpu, cpuErr := byCPU(src)
	var found place
	ranges, rangesErr := src.StoredRanges()
	_, err := vmcore.FindVMCoreInfo(ctx, src, ranges, func(_ uint64, v vmcore.VMCoreInfo) bool {
		p, err := byInfo(src, v)
		if err != nil || cpu.space != nil && !p.agrees(cpu) {
			return false
		}
		found = p
		return true
	})
	switch {
	case err == nil:
		return found, nil
	case cpuErr == nil && ctx.Err() == nil:
		return cpu, nil
	}
	return place{}, errors.Join(noted, err, cpuErr, rangesErr)
}

// byInfo finds the kernel by its VMCOREINFO.
func byInfo(phys mem.Reader, info vmcore.VMCoreInfo) (place, error) {
	pgd, ok := info.Symbol("swapper_pg_dir")
	if !ok {
		return place{}, errors.New("no SYMBOL(swapper_pg_dir): the page tables cannot be found")
	}
	stext, ok := info.Symbol("_stext")
	if !ok {
		return place{}, errors.New("no SYMBOL(_stext): the kernel's text cannot be found")
	}
	base, ok := info.Number("phys_base")
	if !ok {
		return place{}, errors.New("no NUMBER(phys_base), which kernels have since 4.10: the kernel's physical address is unknown")
	}
	levels := 4
	if l5, ok := info.Number("pgtable_l5_enabled"); ok && l5 != 0 {
		levels = 5
	}
	sme, _ := info.Number("sme_mask")
	space, err := paging.New(paging.Config{
		Phys: phys, Root: pgd - kernelMap + uint64(base), Levels: levels, EncMask: uint64(sme),
	})
	if err != nil {
		return place{}, err
	}
	if _, err := space.Walk(stext); err != nil {
		return place{}, fmt.Errorf("its page tables do not map the kernel's text: %w", err)
	}
	return place{info, space, stext}, nil
}

// agrees says whether two sets of page tables map the kernel's text alike.
func (p place) agrees(q place) bool {
	a, err1 := p.space.Walk(p.stext)
	b, err2 := q.space.Walk(p.stext)
	return err1 == nil && err2 == nil && a.Phys == b.Phys
}

const (
	cr3Table = 0x000f_ffff_ffff_f000 // without the PCID and LAM bits
	ptiUser  = 1 << 12               // PTI: set in CR3 while user space runs; the kernel's table is the page before
	cr4LA57  = 1 << 12
)

// byCPU finds the kernel by the control registers that QEMU notes: every
// process's page tables map it.
func byCPU(src Source) (place, error) {
	for _, cpu := range src.CPUs() {
		if cpu.QEMU == nil {
			continue
		}
		levels := 4
		if cpu.QEMU.CR[4]&cr4LA57 != 0 {
			levels = 5
		}
		root := cpu.QEMU.CR[3] & cr3Table
		for _, root := range []uint64{root, root &^ ptiUser} {
			space, err := paging.New(paging.Config{Phys: src, Root: root, Levels: levels})
			if err != nil {
				return place{}, err
			}
			if stext, ok := findImage(space); ok {
				return place{space: space, stext: stext}, nil
			}
		}
	}
	return place{}, errors.New("no CPU's page tables, which QEMU notes, map a kernel")
}

// findImage finds the kernel's image: its text is the first executable memory
// where it can be, and its data, which PTI hides from user space, is writable.
func findImage(space *paging.AddressSpace) (stext uint64, ok bool) {
	const most = 128 << 20 // an image's size
	for at := uint64(kernelMap); at < kernelMap+maxImage; at += imageAlign {
		m, err := space.Walk(at)
		switch {
		case err != nil:
		case m.Exec && stext == 0:
			stext = at
		case m.Writable && !m.Exec && stext != 0:
			return stext, true
		}
		if stext != 0 && at-stext > most {
			break
		}
	}
	return 0, false
}
