//go:build linux

package bpfsys

import (
	"errors"
	"fmt"
	"structs"
	"unsafe"

	"github.com/ksleuth/ksleuth/bpf"
)

// linkInfo is struct bpf_link_info of include/uapi/linux/bpf.h: a common part
// and a union, of which U is the member of the link's type.
type linkInfo[U any] struct {
	_             structs.HostLayout
	typ, id, prog uint32
	pad1          uint32
	u             U
}

// anyLink stands for any member of the union; none is larger in 7.2.
type anyLink [48]byte

// Links returns the links with the ids, or all. Errors are as of [Programs];
// before Linux 5.8 links have no ids, which is an [UnsupportedError].
//
// The targets are as bpf(2) tells them: devices by index, functions of
// kprobe_multi by address, cgroups by id. [CompleteLinks] names what can be
// named without the kernel's memory.
func Links(ids ...int) (*Held[bpf.Link], error) {
	r := &linkReader{btfs: newBTFs(), progs: make(map[int]progBrief)}
	defer func() { r.fdinfo.close() }()
	return hold(linkKind, ids, r.read)
}

// linkReader describes links, one after the other.
type linkReader struct {
	fd     int // of the link being read
	info   linkInfo[anyLink]
	btfs   *btfs
	progs  map[int]progBrief
	fdinfo *fdinfo
}

func (r *linkReader) read(id, fd int) (*bpf.Link, error) {
	r.fd, r.info = fd, linkInfo[anyLink]{}
	if _, err := info(fd, &r.info); err != nil {
		return r.readFields(id, err)
	}
	l := &bpf.Link{ID: int(r.info.id), Type: linkType(r.info.typ), ProgID: int(r.info.prog)}
	var err error
	if read := linkReaders[l.Type]; read != nil {
		err = read(r, l)
	}
	return l, err
}

// readFields describes a link of which bpf(2) says nothing: the kernel refuses
// to describe perf_event links of some events.
func (r *linkReader) readFields(id int, err error) (*bpf.Link, error) {
	text, err2 := r.fields()
	typ, ok := text.get("link_type")
	if !ok || int(text.uint("link_id")) != id {
		return nil, errors.Join(classify(objInfo, err), err2)
	}
	return &bpf.Link{ID: id, Type: typ, ProgID: int(text.uint("prog_id"))}, nil
}

// fields returns what the kernel prints of the link in /proc.
func (r *linkReader) fields() (fields, error) {
	if r.fdinfo == nil {
		var err error
		if r.fdinfo, err = openFDInfo(); err != nil {
			return nil, err
		}
	}
	return r.fdinfo.readFD(r.fd)
}

// as returns the union as the member of the link's type. What it points at was
// not asked for.
func as[U any](r *linkReader) *U {
	var u U
	if unsafe.Sizeof(u) > unsafe.Sizeof(r.info.u) {
		return &u
	}
	return (*U)(unsafe.Pointer(&r.info.u))
}

// ask asks again, with buffers for the kernel to fill.
func ask[U any](r *linkReader, u U) (U, error) {
	i := linkInfo[U]{u: u}
	_, err := info(r.fd, &i)
	if err != nil {
		err = fmt.Errorf("%s: %w", commands[objInfo].name, err)
	}
	return i.u, err
}

// progBrief is what a link's target needs of a program.
type progBrief struct {
	typ                   string
	btf                   uint32
	attachBTF, attachType uint32
	attach                bool // the kernel tells the last two
}

// prog describes a program in brief.
func (r *linkReader) prog(id int) (progBrief, error) {
	if b, ok := r.progs[id]; ok {
		return b, nil
	}
	i, n, err := progInfoByID(id)
	if err != nil {
		return progBrief{}, err
	}
	b := progBrief{progType(i.typ), i.btf, i.attachBTF, i.attachType, n > int(unsafe.Offsetof(i.attachType))}
	r.progs[id] = b
	return b, nil
}
