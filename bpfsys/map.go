//go:build linux

package bpfsys

import (
	"errors"
	"structs"

	"github.com/ksleuth/ksleuth/bpf"
	"github.com/ksleuth/ksleuth/ctype"
)

// mapInfo is struct bpf_map_info of include/uapi/linux/bpf.h.
type mapInfo struct {
	_                                              structs.HostLayout
	typ, id, keySize, valueSize, maxEntries, flags uint32
	name                                           [16]byte
	ifindex, kernelValueType                       uint32 // the latter: 85d33df357b6, 5.6
	netnsDev, netnsIno                             uint64
	btf, keyType, valueType, kernelBTF             uint32 // the latter: 6.9
	extra                                          uint64 // 9330986c0300, 5.16
}

// Maps returns the maps with the ids, or all. Errors are as of [Programs].
// Which programs use a map, the programs tell.
func Maps(ids ...int) (*Held[bpf.Map], error) {
	r := &mapReader{btfs: newBTFs()}
	r.fdinfo, r.fdinfoErr = openFDInfo()
	defer r.fdinfo.close()
	h, err := hold(mapKind, ids, r.read)
	return h, errors.Join(err, r.fdinfoErr)
}

// mapReader describes maps with reused buffers.
type mapReader struct {
	info      mapInfo
	btfs      *btfs
	fdinfo    *fdinfo
	fdinfoErr error
}

func (r *mapReader) read(_, fd int) (*bpf.Map, error) {
	r.info = mapInfo{}
	if _, err := info(fd, &r.info); err != nil {
		return nil, classify(objInfo, err)
	}
	i := &r.info
	m := &bpf.Map{
		ID: int(i.id), Type: mapType(i.typ), Name: cstr(i.name[:]), Flags: i.flags,
		KeySize: i.keySize, ValueSize: i.valueSize, MaxEntries: i.maxEntries, Extra: i.extra,
		BTF: int(i.btf), Ifindex: int(i.ifindex),
	}
	errs := []error{r.types(m)}
	if r.fdinfo != nil {
		text, err := r.fdinfo.readFD(fd)
		m.Memory, m.Frozen = text.uint("memlock"), text.uint("frozen") != 0
		if _, ok := text.get("owner_prog_type"); ok {
			m.OwnerType = progType(uint32(text.uint("owner_prog_type")))
			m.OwnerJited = text.uint("owner_jited") != 0
		}
		errs = append(errs, err)
	}
	return m, errors.Join(errs...)
}

// types fills in the C types of keys and values: by the map's BTF, or, of a
// struct_ops map's value, by the kernel's or a module's.
func (r *mapReader) types(m *bpf.Map) error {
	i := &r.info
	m.KeyTypeID, m.ValueTypeID = i.keyType, i.valueType
	var errs []error
	if i.btf != 0 && i.keyType|i.valueType != 0 {
		t, err := r.btfs.get(i.btf)
		m.KeyType, m.ValueType = bpf.TypeText(t.types, i.keyType), bpf.TypeText(t.types, i.valueType)
		errs = append(errs, err)
	}
	if i.kernelValueType != 0 {
		m.ValueTypeID = i.kernelValueType
		typ, err := r.kernelType(i.kernelBTF, i.kernelValueType)
		if err == nil {
			m.ValueType = typ.String()
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// kernelType returns a type of the kernel's BTF or of a module's: before
// 1338b9334658 (6.9) the kernel does not say whose, and has no others.
func (r *mapReader) kernelType(btf, id uint32) (*ctype.Type, error) {
	if btf != 0 {
		typ, _, err := r.btfs.typeByID(btf, id)
		return typ, err
	}
	types, err := r.btfs.kernel()
	if err != nil {
		return nil, err
	}
	return types.ByID("", id)
}
