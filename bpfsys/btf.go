//go:build linux

package bpfsys

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"structs"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/ksleuth/ksleuth/bpf"
	"github.com/ksleuth/ksleuth/ctype"
)

// btfInfo is struct bpf_btf_info. The first 16 bytes are those of 4.18, the
// rest came with 5c6f25887963 (5.11).
type btfInfo struct {
	_        structs.HostLayout
	data     unsafe.Pointer
	size, id uint32
	name     unsafe.Pointer
	nameLen  uint32
	kernel   uint32
}

// BTFs returns the BTF objects with the ids, or all. Errors are as of
// [Programs].
func BTFs(ids ...int) (*Held[bpf.BTF], error) {
	var b btfReader
	return hold(btfKind, ids, func(_, fd int) (*bpf.BTF, error) {
		o, _, err := b.read(fd, nil)
		if err != nil {
			return nil, err
		}
		return &o, nil
	})
}

// TypesOf returns the types of the BTF object with an id, numbered as there.
// The types of a module come with the kernel's: ask ctype.Types.ByID for them
// by the module's name.
func TypesOf(id int) (*ctype.Types, error) {
	b := newBTFs()
	t, err := b.get(uint32(id))
	if err != nil {
		return nil, err
	}
	return t.types, nil
}

// btfs are the BTF objects that others refer to, read once.
type btfs struct {
	reader btfReader
	known  map[uint32]btfTypes
	file   *ctype.Types // kernelBTFFile, once read
}

// btfTypes is a BTF object with its types; module is what ctype knows them by.
type btfTypes struct {
	bpf.BTF
	module string
	types  *ctype.Types
	err    error
}

func newBTFs() *btfs { return &btfs{known: make(map[uint32]btfTypes)} }

// get reads the BTF object with an id.
func (b *btfs) get(id uint32) (btfTypes, error) {
	t, ok := b.known[id]
	if !ok {
		if t, t.err = b.load(id); t.err != nil {
			t.err = fmt.Errorf("BTF %d: %w", id, t.err)
		}
		b.known[id] = t
	}
	return t, t.err
}

func (b *btfs) load(id uint32) (btfTypes, error) {
	fd, err := openID(btfKind, id)
	if errors.Is(err, unix.ENOENT) {
		err = &NotFoundError{btfKind.name, int(id)}
	}
	if err != nil {
		return btfTypes{}, err
	}
	defer unix.Close(fd)
	o, data, err := b.reader.readAll(fd)
	t := btfTypes{BTF: o}
	if err != nil {
		return t, err
	}
	if o.Kernel && o.Name != kernelBTF {
		// A module's: it continues that of the kernel.
		base, err := b.kernel()
		if err != nil {
			return t, err
		}
		t.module, t.types = o.Name, base
		return t, base.AddModule(o.Name, data)
	}
	t.types, err = ctype.New(data)
	return t, err
}

// kernelBTF is the name of the kernel's own BTF object; kernelBTFFile has the
// same.
const (
	kernelBTF     = "vmlinux"
	kernelBTFFile = btfDir + "/" + kernelBTF
)

// kernel returns the kernel's own types: the BTF object of its name, or the
// file, as it is an object only since 5329722057d4 (5.11).
func (b *btfs) kernel() (*ctype.Types, error) {
	for id := uint32(0); ; {
		next, err := nextID(btfNextID, id)
		if errors.Is(err, unix.ENOENT) {
			if b.file == nil {
				data, err := os.ReadFile(kernelBTFFile)
				if err != nil {
					return nil, fmt.Errorf("the kernel's own BTF: %w", err)
				}
				if b.file, err = ctype.New(data); err != nil {
					return nil, err
				}
			}
			return b.file, nil
		}
		if err != nil {
			return nil, classify(btfNextID, err)
		}
		id = next
		if t, ok := b.known[id]; ok && t.Kernel && t.Name == kernelBTF {
			return t.types, t.err
		}
		fd, err := fdByID(btfFD, id)
		if err != nil {
			continue
		}
		o, _, err := b.reader.read(fd, nil)
		unix.Close(fd)
		if err == nil && o.Kernel && o.Name == kernelBTF {
			t, err := b.get(id)
			return t.types, err
		}
	}
}

// typeByID returns a type of the BTF object with an id.
func (b *btfs) typeByID(btf, id uint32) (*ctype.Type, btfTypes, error) {
	t, err := b.get(btf)
	if err != nil {
		return nil, t, err
	}
	typ, err := t.types.ByID(t.module, id)
	if err != nil {
		err = fmt.Errorf("BTF %d: %w", btf, err)
	}
	return typ, t, err
}

// btfReader reads BTF objects with reused buffers.
type btfReader struct {
	info btfInfo
	name [64]byte // MODULE_NAME_LEN is 56
	old  bool     // the kernel does not know names
	buf  []byte
}

// read describes the object and fills buf with its data, as far as it goes.
func (b *btfReader) read(fd int, buf []byte) (bpf.BTF, []byte, error) {
	for {
		b.info = btfInfo{data: first(buf), size: uint32(len(buf))}
		if len(buf) == 0 {
			b.info.data = nil
		}
		if !b.old {
			b.info.name, b.info.nameLen = unsafe.Pointer(&b.name), uint32(len(b.name))
		}
		_, err := info(fd, &b.info)
		if errors.Is(err, unix.E2BIG) && !b.old {
			b.old = true
			continue
		}
		if err != nil {
			return bpf.BTF{}, nil, classify(objInfo, err)
		}
		o := bpf.BTF{ID: int(b.info.id), Size: int(b.info.size)}
		if !b.old {
			o.Name, o.Kernel = cstr(b.name[:]), b.info.kernel != 0
		}
		return o, buf[:min(len(buf), o.Size)], nil
	}
}

// maxBTF bounds a BTF object: the kernel refuses more than 16 MiB of a program
// (BTF_MAX_SIZE); its own is below 20 MiB.
const maxBTF = 64 << 20

// readAll reads an object whole. The data is the caller's.
func (b *btfReader) readAll(fd int) (bpf.BTF, []byte, error) {
	if b.buf == nil {
		b.buf = make([]byte, 32<<10)
	}
	o, data, err := b.read(fd, b.buf)
	if err != nil || len(data) == o.Size {
		return o, bytes.Clone(data), err
	}
	if o.Size > maxBTF {
		return o, nil, fmt.Errorf("%d bytes: more than any kernel has", o.Size)
	}
	o, data, err = b.read(fd, make([]byte, o.Size))
	return o, data, err
}
