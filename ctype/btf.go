package ctype

import (
	"encoding/binary"
	"fmt"
	"io"
	"sync"
)

// Limits on foreign BTF. The largest vmlinux BTF seen (allyesconfig) is below
// 20 MiB and holds below 500,000 types.
const (
	maxSection = 64 << 20 // bytes in a type or string section
	maxTypes   = 4 << 20  // types in one table
)

const (
	btfMagic     = 0xeb9f
	btfHeaderLen = 24 // struct btf_header up to str_len, include/uapi/linux/btf.h
	btfTypeLen   = 12 // struct btf_type
)

// A FormatError says where and why a BTF blob contradicts the format.
type FormatError struct {
	Table  string // "vmlinux" or the module's name
	Offset int    // byte offset into the blob
	Msg    string
}

// Error names the table, the offset and the contradiction.
func (e *FormatError) Error() string {
	return fmt.Sprintf("BTF of %s: offset %#x: %s", e.Table, e.Offset, e.Msg)
}

// kindLayout is the length of what follows struct btf_type: fixed bytes, and
// bytes for each of vlen elements (include/uapi/linux/btf.h).
var kindLayout = [...]struct{ fixed, elem int }{
	Int:       {fixed: 4},  // u32 encoding
	Pointer:   {},          //
	Array:     {fixed: 12}, // struct btf_array
	Struct:    {elem: 12},  // struct btf_member
	Union:     {elem: 12},  //
	Enum:      {elem: 8},   // struct btf_enum
	Fwd:       {},          //
	Typedef:   {},          //
	Volatile:  {},          //
	Const:     {},          //
	Restrict:  {},          //
	Func:      {},          // vlen is the linkage; 5.0
	FuncProto: {elem: 8},   // struct btf_param; 5.0
	Var:       {fixed: 4},  // struct btf_var; 5.2
	Datasec:   {elem: 12},  // struct btf_var_secinfo; 5.2
	Float:     {},          // b1828f0b0482, 5.13
	DeclTag:   {fixed: 4},  // struct btf_decl_tag; b5ea834dde6b, 5.16
	TypeTag:   {},          // 8c42d2fa4eeb, 5.17
	Enum64:    {elem: 12},  // struct btf_enum64; 6089fb325cf7, 6.0
}

// A table is one BTF blob with an index of where each type starts. Types are
// decoded one by one when asked for: following every reference at once, as a
// loader usually does, costs milliseconds for task_struct and recurses as
// deep as a damaged blob tells it to.
type table struct {
	name     string
	base     *table // of split BTF
	raw      []byte // type section
	rawOff   int    // of raw in the blob, for messages
	strs     []byte
	firstID  uint32 // id of offs[0]
	firstStr uint32 // string offset of strs[0]
	offs     []uint32
	signs    bool // some enum says that it is signed

	index struct { // name hash to ids, chained; built at the first lookup
		sync.Once
		heads []uint32 // 1 + position in offs; 0 ends a chain
		next  []uint32
	}

	mu    sync.Mutex
	cache map[uint32]*Type
}

var le = binary.LittleEndian

// header is struct btf_header with offsets made relative to the blob.
type header struct{ types, typesEnd, strs, strsEnd int }

func parseHeader(name string, b []byte, size int) (h header, err error) {
	fail := func(off int, msg string, args ...any) (header, error) {
		return header{}, &FormatError{name, off, fmt.Sprintf(msg, args...)}
	}
	if len(b) < btfHeaderLen {
		return fail(0, "%d bytes are too few for a header", len(b))
	}
	if m := le.Uint16(b); m != btfMagic {
		return fail(0, "magic is %#04x, want %#x (little-endian)", m, btfMagic)
	}
	if b[2] != 1 {
		return fail(2, "unknown version %d", b[2])
	}
	hdr := le.Uint32(b[4:])
	if hdr < btfHeaderLen || int64(hdr) > int64(size) {
		return fail(4, "header length %d", hdr)
	}
	section := func(at int) (start, end int, err error) {
		off, n := le.Uint32(b[at:]), le.Uint32(b[at+4:])
		if n > maxSection {
			return 0, 0, &FormatError{name, at + 4, fmt.Sprintf("section of %d bytes", n)}
		}
		s := int64(hdr) + int64(off)
		if s+int64(n) > int64(size) {
			return 0, 0, &FormatError{name, at, fmt.Sprintf("section %#x+%#x ends beyond the blob (%#x bytes)", s, n, size)}
		}
		return int(s), int(s) + int(n), nil
	}
	if h.types, h.typesEnd, err = section(8); err != nil {
		return header{}, err
	}
	h.strs, h.strsEnd, err = section(16)
	return h, err
}

func newTable(name string, blob []byte, base *table) (*table, error) {
	h, err := parseHeader(name, blob, len(blob))
	if err != nil {
		return nil, err
	}
	t := &table{
		name: name, base: base,
		raw: blob[h.types:h.typesEnd], rawOff: h.types, strs: blob[h.strs:h.strsEnd],
		firstID: 1, cache: make(map[uint32]*Type),
	}
	if n := len(t.strs); n > 0 && t.strs[n-1] != 0 {
		return nil, &FormatError{name, h.strsEnd - 1, "the string section does not end in NUL"}
	}
	if base != nil {
		t.firstID = base.firstID + uint32(len(base.offs))
		t.firstStr = base.firstStr + uint32(len(base.strs))
	}
	return t, t.scan()
}

// scan records where each type starts.
func (t *table) scan() error {
	// 22 bytes are what a type of vmlinux takes on average (5.10 to 7.2).
	t.offs = make([]uint32, 0, len(t.raw)/20)
	for off := 0; off < len(t.raw); {
		if len(t.raw)-off < btfTypeLen {
			return t.errorf(off, "a type cut off by the end of the section")
		}
		info := le.Uint32(t.raw[off+4:])
		kind := Kind(info >> 24 & 0x1f)
		if kind == Unknown || int(kind) >= len(kindLayout) {
			return t.errorf(off+4, "type %d has unknown kind %d", int(t.firstID)+len(t.offs), kind)
		}
		if len(t.offs) == maxTypes {
			return t.errorf(off, "more than %d types", maxTypes)
		}
		t.offs = append(t.offs, uint32(off))
		t.signs = t.signs || kind == Enum && info>>31 != 0
		l := kindLayout[kind]
		off += btfTypeLen + l.fixed + l.elem*int(info&0xffff)
		if off > len(t.raw) {
			return t.errorf(int(t.offs[len(t.offs)-1]), "type %d is cut off by the end of the section", int(t.firstID)+len(t.offs)-1)
		}
	}
	return nil
}

func (t *table) errorf(off int, msg string, args ...any) error {
	return &FormatError{t.name, t.rawOff + off, fmt.Sprintf(msg, args...)}
}

// str returns the name at a string offset; a damaged offset gives a name that
// says so and cannot be mistaken for an identifier.
func (t *table) str(off uint32) string {
	for off < t.firstStr && t.base != nil {
		t = t.base
	}
	if b, ok := t.cstr(off); ok {
		return string(b)
	}
	return fmt.Sprintf("<damaged: string offset %#x>", off)
}

func (t *table) cstr(off uint32) ([]byte, bool) {
	off -= t.firstStr
	if off >= uint32(len(t.strs)) {
		return nil, off == 0 // an empty section still has the empty name
	}
	for i := off; i < uint32(len(t.strs)); i++ {
		if t.strs[i] == 0 {
			return t.strs[off:i], true
		}
	}
	return nil, false
}

// hashName is 32-bit FNV-1a.
func hashName[T string | []byte](s T) uint32 {
	h := uint32(2166136261)
	for i := 0; i < len(s); i++ {
		h = (h ^ uint32(s[i])) * 16777619
	}
	return h
}

func (t *table) buildIndex() {
	size := 1
	for size < len(t.offs) {
		size <<= 1
	}
	t.index.heads = make([]uint32, size)
	t.index.next = make([]uint32, len(t.offs))
	// Backwards, so that chains list the lowest id first.
	for i := len(t.offs) - 1; i >= 0; i-- {
		name := t.nameAt(i)
		if len(name) == 0 {
			continue
		}
		h := hashName(name) & uint32(size-1)
		t.index.next[i] = t.index.heads[h]
		t.index.heads[h] = uint32(i) + 1
	}
}

// nameAt returns the name of the i-th type, empty if it has none.
func (t *table) nameAt(i int) []byte {
	off := le.Uint32(t.raw[t.offs[i]:])
	if off == 0 {
		return nil
	}
	s := t
	for off < s.firstStr && s.base != nil {
		s = s.base
	}
	name, _ := s.cstr(off)
	return name
}

func (t *table) kindAt(i int) Kind { return Kind(le.Uint32(t.raw[t.offs[i]+4:]) >> 24 & 0x1f) }

// find returns the types of one name whose kind is in the set, lowest id first.
func (t *table) find(name string, kinds kindSet) (found []*Type) {
	t.index.Do(t.buildIndex)
	if name == "" || len(t.index.heads) == 0 {
		return nil
	}
	i := t.index.heads[hashName(name)&uint32(len(t.index.heads)-1)]
	for ; i != 0; i = t.index.next[i-1] {
		if kinds.has(t.kindAt(int(i-1))) && string(t.nameAt(int(i-1))) == name {
			found = append(found, t.byID(t.firstID+i-1))
		}
	}
	return found
}

// byID decodes one type, without what it refers to. A bad id gives a type of
// kind Unknown whose name says so.
func (t *table) byID(id uint32) *Type {
	if id == 0 {
		return voidType
	}
	for id < t.firstID && t.base != nil {
		t = t.base
	}
	i := id - t.firstID
	if i >= uint32(len(t.offs)) {
		return &Type{kind: Unknown, name: fmt.Sprintf("<damaged: type id %d>", id)}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if typ, ok := t.cache[id]; ok {
		return typ
	}
	typ := t.decode(int(t.offs[i]))
	typ.id = id
	t.cache[id] = typ
	return typ
}

// readBlob reads the BTF blob at the start of r, no more than its header says.
func readBlob(name string, r io.ReaderAt) ([]byte, error) {
	var hdr [btfHeaderLen]byte
	if _, err := r.ReadAt(hdr[:], 0); err != nil {
		return nil, fmt.Errorf("BTF of %s: header: %w", name, err)
	}
	h, err := parseHeader(name, hdr[:], 3*maxSection)
	if err != nil {
		return nil, err
	}
	blob := make([]byte, max(h.typesEnd, h.strsEnd))
	if n, err := r.ReadAt(blob, 0); n < len(blob) {
		return nil, fmt.Errorf("BTF of %s: %d of %d bytes: %w", name, n, len(blob), err)
	}
	return blob, nil
}
