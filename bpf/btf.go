package bpf

import (
	"errors"
	"fmt"

	"github.com/ksleuth/ksleuth/ctype"
	"github.com/ksleuth/ksleuth/kernel"
	"github.com/ksleuth/ksleuth/mem"
)

// maxBTF is BTF_MAX_SIZE of include/uapi/linux/btf.h: bytes of a BTF object.
const maxBTF = 16 << 20

// A BTF is a BTF object: the types of the kernel, of a module or of programs.
type BTF struct {
	Addr    mem.Addr `json:"addr,omitzero"` // of the struct btf; 0 where memory cannot be read
	ID      int      `json:"id"`
	Name    string   `json:"name,omitempty"` // vmlinux or a module's; programs' have none
	Size    int      `json:"size"`           // bytes
	Kernel  bool     `json:"kernel"`         // the kernel's or a module's
	Holders []Holder `json:"pids,omitempty"`
}

// BTFs returns the BTF objects by id (btf_idr); with ids, those of them that
// there are, and nothing of the others is read. The kernel's own is one since
// 5.11 (5329722057d4). With an error comes what was read.
func BTFs(k *kernel.Kernel, ids ...int) ([]*BTF, error) {
	return listIDR(k, "btf_idr", "BTF", ids, func(addr uint64) (*BTF, int, error) {
		b, err := btfAt(k, addr)
		if err != nil {
			return nil, unreadable, err
		}
		return b, b.ID, nil
	})
}

func btfAt(k *kernel.Kernel, addr uint64) (*BTF, error) {
	o := k.Object("btf", addr).Load()
	b := &BTF{Addr: mem.Addr(addr), ID: int(o.Uint("id")), Size: int(o.Uint("data_size"))}
	if o.Has("kernel_btf") { // 5329722057d4, 5.11
		b.Kernel, b.Name = o.Bool("kernel_btf"), o.Str("name")
	}
	return b, o.Err()
}

// Types returns the types of the object. Those of the kernel and its modules
// are all in one.
func (b *BTF) Types(k *kernel.Kernel) (*ctype.Types, error) {
	if b.Kernel {
		return k.Types()
	}
	return typesOf(k, uint64(b.Addr))
}

// Types returns the types that the program was loaded with, or nil if it has
// none.
func (p *Program) Types(k *kernel.Kernel) (*ctype.Types, error) {
	addr := k.Object("bpf_prog_aux", p.aux).Ptr("btf")
	if addr == 0 {
		return nil, nil
	}
	return typesOf(k, addr)
}

// typesOf reads the types of the struct btf at addr.
func typesOf(k *kernel.Kernel, addr uint64) (*ctype.Types, error) {
	b, err := btfAt(k, addr)
	if err != nil {
		return nil, err
	}
	if b.Kernel {
		return k.Types()
	}
	o := k.Object("btf", addr)
	data := o.Ptr("data")
	if o.Has("base_btf") && o.Ptr("base_btf") != 0 { // 951bb64621b8, 5.11
		return nil, fmt.Errorf("BTF id %d adds to other BTF: not understood", b.ID)
	}
	if err := o.Err(); err != nil {
		return nil, err
	}
	if b.Size > maxBTF {
		return nil, fmt.Errorf("BTF id %d at 0x%x has %d bytes: damaged", b.ID, addr, b.Size)
	}
	raw, err := mem.Bytes(k.Mem(), data, b.Size)
	if err != nil {
		return nil, fmt.Errorf("BTF id %d: %w", b.ID, err)
	}
	types, err := ctype.New(raw)
	if err != nil {
		return nil, fmt.Errorf("BTF id %d at 0x%x: %w", b.ID, addr, err)
	}
	return types, nil
}

// A btfCache keeps the types of BTF objects that are met again and again.
type btfCache struct {
	k     *kernel.Kernel
	types map[uint64]*ctype.Types
	errs  map[uint64]error
}

func newBTFCache(k *kernel.Kernel) *btfCache {
	return &btfCache{k: k, types: make(map[uint64]*ctype.Types), errs: make(map[uint64]error)}
}

// errNoBTF says that an object was made without types.
var errNoBTF = errors.New("no BTF")

func (c *btfCache) at(addr uint64) (*ctype.Types, error) {
	if addr == 0 {
		return nil, errNoBTF
	}
	if err := c.errs[addr]; err != nil {
		return nil, err
	}
	types := c.types[addr]
	if types == nil {
		var err error
		if types, err = typesOf(c.k, addr); err != nil {
			c.errs[addr] = err
			return nil, err
		}
		c.types[addr] = types
	}
	return types, nil
}
