//go:build linux

package bpfsys

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"structs"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/ksleuth/ksleuth/bpf"
	"github.com/ksleuth/ksleuth/mem"
)

// progInfo is struct bpf_prog_info of include/uapi/linux/bpf.h, which only
// grows: a kernel fills what it knows of it.
type progInfo struct {
	_                      structs.HostLayout
	typ, id                uint32
	tag                    [8]byte
	jitedLen, xlatedLen    uint32
	jited, xlated          unsafe.Pointer
	loadTime               uint64
	uid, nrMaps            uint32
	maps                   unsafe.Pointer
	name                   [16]byte
	ifindex, flags         uint32 // bit 0: gpl_compatible
	netnsDev, netnsIno     uint64
	nrKsyms, nrLens        uint32
	ksyms, lens            unsafe.Pointer
	btf, funcSize          uint32
	funcs                  unsafe.Pointer
	nrFuncs, nrLines       uint32
	lines, jitedLines      unsafe.Pointer
	nrJitedLines, lineSize uint32
	jitedLineSize, nrTags  uint32
	tags                   unsafe.Pointer
	runTime, runCount      uint64 // 5.1
	missed                 uint64 // 9ed9e9ba2337, 5.12
	verified               uint32 // aba64c7da983, 5.16
	attachBTF, attachType  uint32 // b79c9fc9551b, 6.0
	pad1                   uint32
}

// The records that bpf_prog_info points at.
type (
	funcRecord struct { // struct bpf_func_info
		_            structs.HostLayout
		insn, typeID uint32
	}
	lineRecord struct { // struct bpf_line_info
		_                         structs.HostLayout
		insn, file, line, lineCol uint32
	}
	tagRecord [8]byte
)

// Programs returns the programs with the ids, or all. With an error comes what
// was read. A program that goes away while all are listed is left out; one
// asked for by id that is not there gives a [NotFoundError].
//
// Without CAP_SYS_ADMIN the error is a [PermissionError]; on a kernel without
// bpf(2), an [UnsupportedError].
func Programs(ids ...int) (*Held[bpf.Program], error) {
	r := newProgReader()
	defer r.close()
	h, err := hold(progKind, ids, r.read)
	return h, errors.Join(err, r.fdinfoErr)
}

// ListPrograms describes all programs for a list: they are not held, and what
// memory they take is left out, which costs as much as the rest. Errors are
// those of [Programs].
func ListPrograms() ([]*bpf.Program, error) {
	r := newProgReader()
	r.close()
	r.fdinfo = nil
	h, err := list(progKind, r.read)
	return h.Objects, err
}

// progReader describes programs with reused buffers.
type progReader struct {
	info  progInfo
	maps  []uint32
	ksyms []uint64
	lens  []uint32
	funcs []funcRecord
	tags  []tagRecord

	btfs      *btfs
	fdinfo    *fdinfo
	fdinfoErr error
	boot      int64 // nanoseconds from the epoch to the start of boot time
}

// startFuncs and startMaps are what most programs have not more of.
const startFuncs, startMaps = 32, 64

func newProgReader() *progReader {
	r := &progReader{
		maps: make([]uint32, startMaps), ksyms: make([]uint64, startFuncs), lens: make([]uint32, startFuncs),
		funcs: make([]funcRecord, startFuncs), tags: make([]tagRecord, startFuncs),
		btfs: newBTFs(), boot: bootTime(),
	}
	r.fdinfo, r.fdinfoErr = openFDInfo()
	return r
}

func (r *progReader) close() { r.fdinfo.close() }

// bootTime returns when CLOCK_BOOTTIME was 0, in nanoseconds of Unix time.
func bootTime() int64 {
	var now, up unix.Timespec
	unix.ClockGettime(unix.CLOCK_REALTIME, &now)
	unix.ClockGettime(unix.CLOCK_BOOTTIME, &up)
	return now.Nano() - up.Nano()
}

// Limits on what is asked of the kernel for one program. The kernel's own are
// far below: 256 functions (BPF_MAX_SUBPROGS), 64 maps (MAX_USED_MAPS).
const maxCount = 1 << 16

// query fills r.info, in one call unless a buffer is too short.
func (r *progReader) query(fd int) error {
	for {
		r.info = progInfo{
			nrMaps: uint32(len(r.maps)), maps: first(r.maps),
			nrKsyms: uint32(len(r.ksyms)), ksyms: first(r.ksyms),
			nrLens: uint32(len(r.lens)), lens: first(r.lens),
			nrFuncs: uint32(len(r.funcs)), funcs: first(r.funcs), funcSize: uint32(unsafe.Sizeof(funcRecord{})),
			nrTags: uint32(len(r.tags)), tags: first(r.tags),
			lineSize: uint32(unsafe.Sizeof(lineRecord{})), jitedLineSize: 8,
		}
		if _, err := info(fd, &r.info); err != nil {
			return classify(objInfo, err)
		}
		short := grow(&r.maps, r.info.nrMaps)
		short = grow(&r.ksyms, r.info.nrKsyms) || short
		short = grow(&r.lens, r.info.nrLens) || short
		short = grow(&r.funcs, r.info.nrFuncs) || short
		short = grow(&r.tags, r.info.nrTags) || short
		if !short {
			return nil
		}
	}
}

// grow makes room for n elements and says whether there was too little.
func grow[T any](s *[]T, n uint32) bool {
	if int(n) <= len(*s) || n > maxCount {
		return false
	}
	*s = make([]T, n)
	return true
}

// read describes a program.
func (r *progReader) read(_, fd int) (*bpf.Program, error) {
	if err := r.query(fd); err != nil {
		return nil, err
	}
	i := &r.info
	p := &bpf.Program{
		ID: int(i.id), Type: progType(i.typ), Name: cstr(i.name[:]), Tag: hex.EncodeToString(i.tag[:]),
		UID: i.uid, GPL: i.flags&1 != 0,
		LoadTime: i.loadTime, LoadedAt: (r.boot + int64(i.loadTime)) / int64(time.Second),
		RunCount: i.runCount, RunTime: i.runTime, Missed: i.missed,
		XlatedLen: int(i.xlatedLen), Jited: i.jitedLen != 0, JitedLen: int(i.jitedLen),
		Verified: int(i.verified), Ifindex: int(i.ifindex), BTF: int(i.btf),
		MapIDs: make([]int, 0, min(i.nrMaps, maxCount)),
	}
	for _, id := range r.maps[:min(int(i.nrMaps), len(r.maps))] {
		p.MapIDs = append(p.MapIDs, int(id))
	}
	errs := []error{r.functions(p), r.target(p)}
	if r.fdinfo != nil {
		text, err := r.fdinfo.readFD(fd)
		p.Memory = text.uint("memlock")
		errs = append(errs, err)
	}
	return p, errors.Join(errs...)
}

// functions fills in the functions, with the names that their symbols have:
// the whole name by the program's BTF, else the program's for the first and
// "F" for the others (bpf_prog_ksym_set_name, jit_subprogs).
func (r *progReader) functions(p *bpf.Program) error {
	i := &r.info
	// The kernel takes the pointers back where it may not show addresses
	// (kernel.kptr_restrict).
	n := int(max(i.nrLens, i.nrKsyms))
	if i.lens == nil && i.ksyms == nil || n == 0 {
		n = int(i.nrTags)
	}
	n = min(n, maxCount)
	p.Subprogs = make([]bpf.Subprog, n)
	for j := range p.Subprogs {
		s := &p.Subprogs[j]
		s.Name = "F"
		if j == 0 {
			s.Name = p.Name
		}
		if j < int(i.nrTags) && j < len(r.tags) {
			s.Tag = hex.EncodeToString(r.tags[j][:])
		}
		if i.ksyms != nil && j < int(i.nrKsyms) && j < len(r.ksyms) {
			s.Addr = mem.Addr(r.ksyms[j])
		}
		if i.lens != nil && j < int(i.nrLens) && j < len(r.lens) {
			s.Len = int(r.lens[j])
		}
	}
	funcs := r.funcs[:min(int(i.nrFuncs), len(r.funcs), n)]
	if len(funcs) == 0 || i.btf == 0 {
		return nil
	}
	for j, f := range funcs {
		typ, _, err := r.btfs.typeByID(i.btf, f.typeID)
		if err != nil {
			return err
		}
		p.Subprogs[j].Name, p.Subprogs[j].TypeID = typ.Name(), f.typeID
	}
	if name := p.Subprogs[0].Name; strings.HasPrefix(name, p.Name) {
		p.Name = name
	}
	return nil
}

// target fills in what a program was loaded for, which the kernel tells since
// b79c9fc9551b (6.0).
func (r *progReader) target(p *bpf.Program) error {
	i := &r.info
	if i.attachType == 0 {
		return nil
	}
	t := bpf.Target{BTF: int(i.attachBTF), Type: int(i.attachType)}
	if i.attachBTF == 0 {
		// Attached to another program, which it is then up to the link to name.
		t.Kind = bpf.TargetProgram
		p.Target = &t
		return nil
	}
	err := r.btfs.nameTarget(&t, p.Type)
	if t.Name == multiFunc {
		return nil
	}
	p.Target = &t
	return err
}

// progInfoByID asks for the fixed part of a program's info, and how much of it
// the kernel knows.
func progInfoByID(id int) (progInfo, int, error) {
	fd, err := openID(progKind, uint32(id))
	if err != nil {
		return progInfo{}, 0, fmt.Errorf("BPF prog %d: %w", id, err)
	}
	defer unix.Close(fd)
	var i progInfo
	n, err := info(fd, &i)
	return i, n, classify(objInfo, err)
}
