package vmcore

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strconv"
	"strings"
)

// A VMCoreInfo is the text a kernel leaves about itself for dump tools: lines
// of key=value, many keys of the form KIND(name). See
// Documentation/admin-guide/kdump/vmcoreinfo.rst.
type VMCoreInfo struct {
	raw    string
	values map[string]string
}

// ErrNoVMCoreInfo reports that no VMCOREINFO was found.
var ErrNoVMCoreInfo = errors.New("no VMCOREINFO")

// ParseVMCoreInfo parses the text. Lines without '=' are ignored; of two lines
// with the same key the last counts, as the kernel appends corrections.
func ParseVMCoreInfo(raw string) VMCoreInfo {
	if i := strings.IndexByte(raw, 0); i >= 0 {
		raw = raw[:i]
	}
	v := VMCoreInfo{raw: raw, values: make(map[string]string, strings.Count(raw, "\n"))}
	for line := range strings.SplitSeq(raw, "\n") {
		if key, value, ok := strings.Cut(line, "="); ok {
			v.values[key] = value
		}
	}
	return v
}

// Raw returns the text.
func (v VMCoreInfo) Raw() string { return v.raw }

// Get returns the value of a key as it is written: "OSRELEASE", "SYMBOL(_stext)".
func (v VMCoreInfo) Get(key string) (string, bool) {
	s, ok := v.values[key]
	return s, ok
}

// Symbol returns the run-time virtual address of a kernel symbol.
func (v VMCoreInfo) Symbol(name string) (uint64, bool) {
	n, err := strconv.ParseUint(strings.TrimPrefix(v.values["SYMBOL("+name+")"], "0x"), 16, 64)
	return n, err == nil
}

// Number returns a NUMBER(name): decimal with sign, or hexadecimal with 0x. A
// hexadecimal number above the largest int64 comes out negative.
func (v VMCoreInfo) Number(name string) (int64, bool) { return v.number("NUMBER", name) }

// Size returns the size in bytes of a structure.
func (v VMCoreInfo) Size(name string) (int64, bool) { return v.number("SIZE", name) }

// Offset returns the offset in bytes of "struct.member".
func (v VMCoreInfo) Offset(name string) (int64, bool) { return v.number("OFFSET", name) }

// Length returns the number of elements of an array.
func (v VMCoreInfo) Length(name string) (int64, bool) { return v.number("LENGTH", name) }

func (v VMCoreInfo) number(kind, name string) (int64, bool) {
	s, ok := v.values[kind+"("+name+")"]
	if !ok {
		return 0, false
	}
	if hex, ok := strings.CutPrefix(s, "0x"); ok {
		n, err := strconv.ParseUint(hex, 16, 64)
		return int64(n), err == nil
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil { // unsigned long printed as %lu
		var u uint64
		u, err = strconv.ParseUint(s, 10, 64)
		n = int64(u)
	}
	return n, err == nil
}

// OSRelease returns the kernel's release as uname -r has it, or "".
func (v VMCoreInfo) OSRelease() string { return v.values["OSRELEASE"] }

// KernelOffset returns by how much KASLR moved the kernel's virtual addresses.
func (v VMCoreInfo) KernelOffset() (uint64, bool) {
	n, err := strconv.ParseUint(strings.TrimPrefix(v.values["KERNELOFFSET"], "0x"), 16, 64)
	return n, err == nil
}

// plausible reports whether a text found in memory is VMCOREINFO and not just
// something that begins like it.
func (v VMCoreInfo) plausible() bool {
	_, root := v.Symbol("swapper_pg_dir")
	_, text := v.Symbol("_stext")
	return v.OSRelease() != "" && v.values["PAGESIZE"] == "4096" && root && text
}

// vmcoreinfoStart is how the text begins (kernel/vmcore_info.c,
// crash_save_vmcoreinfo_init; kernel/crash_core.c before 6.9).
const vmcoreinfoStart = "OSRELEASE="

// vmcoreinfoIn returns the VMCOREINFO text at the start of a page, either bare
// (vmcoreinfo_data) or in an ELF note (vmcoreinfo_note); both are page-aligned.
func vmcoreinfoIn(page []byte) string {
	const name = "VMCOREINFO\x00\x00"
	const noteText = noteHeader + len(name)
	if len(page) > noteText && bytes.Equal(page[noteHeader:noteText], []byte(name)) {
		n := binary.LittleEndian.Uint32(page[4:])
		page = page[noteText:]
		page = page[:min(uint64(n), uint64(len(page)))]
	}
	if !bytes.HasPrefix(page, []byte(vmcoreinfoStart)) {
		return ""
	}
	if i := bytes.IndexByte(page, 0); i >= 0 {
		page = page[:i]
	}
	return string(page)
}
