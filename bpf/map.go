package bpf

import (
	"encoding/hex"

	"github.com/ksleuth/ksleuth/mem"
)

// A Map is a BPF map.
type Map struct {
	Addr       mem.Addr `json:"addr,omitzero"` // of the struct bpf_map; 0 where memory cannot be read
	ID         int      `json:"id"`
	Type       string   `json:"type"` // as bpftool names it: hash, percpu_array, ...
	Name       string   `json:"name"`
	Flags      uint32   `json:"flags"` // BPF_F_*
	KeySize    uint32   `json:"bytes_key"`
	ValueSize  uint32   `json:"bytes_value"`
	MaxEntries uint32   `json:"max_entries"`
	Extra      uint64   `json:"map_extra,omitempty"`
	Memory     uint64   `json:"bytes_memlock,omitzero"`
	Frozen     bool     `json:"frozen"` // read-only for bpf(2)
	BTF        int      `json:"btf_id,omitempty"`
	// KeyTypeID and ValueTypeID are numbers in the map's BTF; ValueTypeID of a
	// struct_ops map is one in the kernel's, or a module's.
	KeyTypeID   uint32 `json:"btf_key_type_id,omitempty"`
	ValueTypeID uint32 `json:"btf_value_type_id,omitempty"`
	KeyType     string `json:"key_type,omitempty"`   // C declaration by the map's BTF
	ValueType   string `json:"value_type,omitempty"` // the same
	// OwnerType and OwnerJited: programs of which type, jited or not, a
	// program array takes.
	OwnerType  string `json:"owner_prog_type,omitempty"`
	OwnerJited bool   `json:"owner_jited,omitempty"`
	// Inner is the template of the maps that a map of maps takes.
	Inner   *MapShape `json:"inner,omitempty"`
	Ifindex int       `json:"ifindex,omitempty"` // device it is offloaded to

	ProgIDs []int    `json:"prog_ids,omitempty"` // programs that use it
	Holders []Holder `json:"pids,omitempty"`
	Pins    []string `json:"pinned,omitempty"`
}

// A MapShape is what maps must share to be interchangeable.
type MapShape struct {
	Type       string `json:"type"`
	KeySize    uint32 `json:"bytes_key"`
	ValueSize  uint32 `json:"bytes_value"`
	MaxEntries uint32 `json:"max_entries"`
	Flags      uint32 `json:"flags"`
}

// Bytes are raw bytes of a key or a value: hexadecimal in JSON.
type Bytes []byte

// MarshalText implements [encoding.TextMarshaler].
func (b Bytes) MarshalText() ([]byte, error) { return []byte(hex.EncodeToString(b)), nil }

// An Entry is one element of a map. Slots of arrays that refer to objects have
// an entry only if they are not empty.
type Entry struct {
	Key    Bytes      `json:"key,omitempty"` // none in queues, stacks and the like
	Value  Bytes      `json:"value,omitempty"`
	PerCPU []CPUValue `json:"values,omitempty"` // instead of Value in per-CPU maps
	// Object is what a value of a program array, map of maps and the like
	// stands for.
	Object *Object `json:"object,omitempty"`
	// KeyText and ValueText are the key and value in C notation, by the map's
	// BTF; "" without.
	KeyText   string `json:"key_text,omitempty"`
	ValueText string `json:"value_text,omitempty"`
}

// A CPUValue is the value that one CPU has.
type CPUValue struct {
	CPU   int    `json:"cpu"`
	Value Bytes  `json:"value"`
	Text  string `json:"text,omitempty"` // in C notation
}
