// Package paging translates x86-64 virtual addresses through the page tables
// of a target, and reads virtual memory that way.
//
// The format is that of the Intel SDM, volume 3A, section 4.5 (4-level and
// 5-level paging); Linux uses it with 2 MiB and 1 GiB pages.
package paging

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"github.com/ksleuth/ksleuth/mem"
)

const (
	// PageSize is the size of the smallest page, in bytes.
	PageSize = 4096

	present  = 1 << 0
	writable = 1 << 1
	large    = 1 << 7
	protNone = 1 << 8 // Linux: _PAGE_PROTNONE, kept in the global bit of a non-present entry
	nx       = 1 << 63

	physMask = 0x000f_ffff_ffff_f000

	tlbSize   = 1 << 10 // translations kept, 4 KiB each
	tableSize = 1 << 8  // page-table pages kept: 1 MiB at most
)

// level describes one level of the tables: how an index is taken from the
// address and whether an entry may map a page of its own.
type level struct {
	name  string // Linux's name for an entry of this level
	shift uint
	leaf  bool // bit 7 makes the entry a page of 1<<shift bytes
}

// levels is ordered from the bottom, so a walk of n levels starts at n-1.
var levels = [...]level{
	{"pte", 12, false},
	{"pmd", 21, true},
	{"pud", 30, true},
	{"p4d", 39, false},
	{"pgd", 48, false},
}

// Config says where the tables of an address space are.
type Config struct {
	Phys   mem.Reader // physical memory
	Root   uint64     // physical address of the top table
	Levels int        // 4, or 5 with CR4.LA57
	// EncMask is the memory-encryption bit of an AMD SME guest or host
	// (VMCOREINFO NUMBER(sme_mask)), or 0. It is removed from every entry.
	EncMask uint64
}

// An AddressSpace reads virtual memory through page tables. It implements
// [mem.Reader] and is safe for concurrent use.
type AddressSpace struct {
	cfg Config

	mu     sync.Mutex
	tlb    [tlbSize]tlbEntry
	tables map[uint64]*[512]uint64
}

type tlbEntry struct{ vpn, phys uint64 } // vpn is stored plus one: zero means empty

// New returns the address space that cfg describes.
func New(cfg Config) (*AddressSpace, error) {
	if cfg.Levels != 4 && cfg.Levels != 5 {
		return nil, fmt.Errorf("page tables of %d levels: x86-64 has 4 or 5", cfg.Levels)
	}
	cfg.Root &= physMask &^ cfg.EncMask
	return &AddressSpace{cfg: cfg, tables: make(map[uint64]*[512]uint64)}, nil
}

// Refresh forgets what was read of the tables, for those of a running system.
func (s *AddressSpace) Refresh() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.tlb[:])
	clear(s.tables)
}

// A Mapping is what the page tables say of one address.
type Mapping struct {
	Phys     uint64 // physical address of the asked byte
	Size     uint64 // size of the page: 4 KiB, 2 MiB or 1 GiB
	Writable bool
	Exec     bool
}

// Walk translates addr. The error is a [*mem.Fault]: Unmapped where an entry
// is not present, or the cause for which a page-table page could not be read.
func (s *AddressSpace) Walk(addr uint64) (Mapping, error) {
	if !s.canonical(addr) {
		return Mapping{}, &mem.Fault{Addr: addr, Cause: mem.Unmapped, Err: errors.New("not a canonical address")}
	}
	m := Mapping{Writable: true, Exec: true}
	table := s.cfg.Root
	for l := s.cfg.Levels - 1; ; l-- {
		lv := levels[l]
		e, err := s.entry(table, addr>>lv.shift&511)
		if err != nil {
			return Mapping{}, &mem.Fault{Addr: addr, Cause: mem.CauseOf(err), Err: fmt.Errorf("reading its %s: %w", s.levelName(l), err)}
		}
		if e&present == 0 && e&protNone == 0 {
			return Mapping{}, &mem.Fault{Addr: addr, Cause: mem.Unmapped, Err: fmt.Errorf("%s is %#x", s.levelName(l), e)}
		}
		m.Writable = m.Writable && e&writable != 0
		m.Exec = m.Exec && e&nx == 0
		table = e & physMask &^ s.cfg.EncMask
		if l == 0 || lv.leaf && e&large != 0 {
			m.Size = 1 << lv.shift
			// Bit 12 of a large page's entry is its PAT bit, not address.
			m.Phys = table&^(m.Size-1) | addr&(m.Size-1)
			return m, nil
		}
	}
}

// levelName names the entry of level l as Linux does: the top table is the
// pgd, whatever the number of levels.
func (s *AddressSpace) levelName(l int) string {
	if l == s.cfg.Levels-1 {
		return "pgd"
	}
	return levels[l].name
}

func (s *AddressSpace) canonical(addr uint64) bool {
	shift := 16
	if s.cfg.Levels == 5 {
		shift = 7
	}
	return uint64(int64(addr<<shift)>>shift) == addr
}

func (s *AddressSpace) entry(table, index uint64) (uint64, error) {
	s.mu.Lock()
	t := s.tables[table]
	s.mu.Unlock()
	if t == nil {
		var page [PageSize]byte
		if err := s.cfg.Phys.ReadMem(page[:], table); err != nil {
			return 0, err
		}
		t = new([512]uint64)
		for i := range t {
			t[i] = binary.LittleEndian.Uint64(page[8*i:])
		}
		s.mu.Lock()
		if len(s.tables) >= tableSize {
			clear(s.tables)
		}
		s.tables[table] = t
		s.mu.Unlock()
	}
	return t[index], nil
}

// Translate returns the physical address of addr; see [AddressSpace.Walk] for
// the errors.
func (s *AddressSpace) Translate(addr uint64) (uint64, error) {
	vpn := addr / PageSize
	slot := &s.tlb[vpn%tlbSize]
	s.mu.Lock()
	hit := *slot
	s.mu.Unlock()
	if hit.vpn == vpn+1 {
		return hit.phys | addr%PageSize, nil
	}
	m, err := s.Walk(addr)
	if err != nil {
		return 0, err
	}
	s.mu.Lock()
	*slot = tlbEntry{vpn + 1, m.Phys &^ (PageSize - 1)}
	s.mu.Unlock()
	return m.Phys, nil
}

// ReadMem implements [mem.Reader]. Pages that are contiguous in physical
// memory are read in one piece.
func (s *AddressSpace) ReadMem(p []byte, addr uint64) error {
	for len(p) > 0 {
		phys, err := s.Translate(addr)
		if err != nil {
			return err
		}
		n := min(uint64(len(p)), PageSize-addr%PageSize)
		for n < uint64(len(p)) {
			next, err := s.Translate(addr + n)
			if err != nil || next != phys+n {
				break // the outer loop meets it again and reports it
			}
			n += min(uint64(len(p))-n, PageSize)
		}
		if err := s.cfg.Phys.ReadMem(p[:n], phys); err != nil {
			return virtualFault(err, addr, phys)
		}
		p, addr = p[n:], addr+n
	}
	return nil
}

// virtualFault restates a physical fault at the virtual address that was asked
// for, keeping the physical one below it.
func virtualFault(err error, addr, phys uint64) error {
	var f *mem.Fault
	if !errors.As(err, &f) {
		return &mem.Fault{Addr: addr, Cause: mem.IO, Err: err}
	}
	return &mem.Fault{Addr: addr + (f.Addr - phys), Cause: f.Cause, Err: err}
}
