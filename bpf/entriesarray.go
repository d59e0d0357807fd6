package bpf

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/ksleuth/ksleuth/mem"
)

// array walks an array whose values lie one behind the other. Those of one
// that is mapped by processes begin on a page of their own, and so does the
// map: bpf_array is placed right before them.
func (r *entryReader) array() error {
	elem, base := r.o.Uint("elem_size"), r.o.At("value")
	if err := r.o.Err(); err != nil {
		return err
	}
	return r.inline(base, elem)
}

// inline walks max_entries values that lie one behind the other.
func (r *entryReader) inline(base, elem uint64) error {
	if elem < uint64(r.val) || elem > 2*maxValue {
		return fmt.Errorf("elements of %d bytes for values of %d: damaged", elem, r.val)
	}
	n := uint64(r.m.MaxEntries)
	step := max(chunkSize/max(elem, 1), 1)
	for i := uint64(0); i < n; i += step {
		count := min(step, n-i)
		raw, err := r.read(base+i*elem, int(count*elem))
		if err != nil && count > 1 {
			raw, err = nil, nil // one by one below
		}
		if err != nil {
			if err := r.lost(fmt.Errorf("element %d: %w", i, err)); err != nil {
				return err
			}
			continue
		}
		for j := range count {
			b := raw
			if raw == nil {
				if b, err = r.read(base+(i+j)*elem, int(elem)); err != nil {
					if err := r.lost(fmt.Errorf("element %d: %w", i+j, err)); err != nil {
						return err
					}
					continue
				}
			} else {
				b = raw[j*elem:]
			}
			if err := r.emit(Entry{Key: r.index(i + j), Value: b[:r.val:r.val]}); err != nil {
				return err
			}
		}
	}
	return nil
}

func (r *entryReader) insnArray() error {
	base := r.o.At("values")
	if err := r.o.Err(); err != nil {
		return err
	}
	return r.inline(base, uint64(r.val))
}

func (r *entryReader) perCPUArray() error {
	base := r.o.At("pptrs")
	if err := r.o.Err(); err != nil {
		return err
	}
	return r.pointers(base, func(i, p uint64) (Entry, error) {
		values, err := r.perCPU(p)
		return Entry{PerCPU: values}, err
	})
}

// slots walks an array of pointers inside of the map; each says what one of
// them stands for.
func slots(member string, each func(*entryReader, uint64) (Entry, error)) func(*entryReader) error {
	return func(r *entryReader) error {
		base := r.o.At(member)
		if err := r.o.Err(); err != nil {
			return err
		}
		return r.pointers(base, func(_, p uint64) (Entry, error) { return each(r, p) })
	}
}

// slotsAt is slots for an array that the map points at.
func slotsAt(member string, each func(*entryReader, uint64) (Entry, error)) func(*entryReader) error {
	return func(r *entryReader) error {
		base := r.o.Ptr(member)
		if err := r.o.Err(); err != nil {
			return err
		}
		return r.pointers(base, func(_, p uint64) (Entry, error) { return each(r, p) })
	}
}

// pointers walks max_entries pointers and makes an entry, whose key is the
// index, of each that is not NULL.
func (r *entryReader) pointers(base uint64, each func(i, p uint64) (Entry, error)) error {
	const step = 4096 / 8
	n := uint64(r.m.MaxEntries)
	for i := uint64(0); i < n; i += step {
		ptrs, err := words(r.k, base+8*i, min(step, n-i))
		if err != nil {
			if err := r.lost(fmt.Errorf("slots from %d on: %w", i, err)); err != nil {
				return err
			}
			continue
		}
		for j, p := range ptrs {
			if p == 0 {
				continue
			}
			e, err := each(i+uint64(j), p)
			if err == nil {
				e.Key = r.index(i + uint64(j))
				err = r.emit(e)
			} else {
				err = r.lost(fmt.Errorf("slot %d: %w", i+uint64(j), err))
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

func (r *entryReader) program(p uint64) (Entry, error) {
	o, err := progObject(r.k, p)
	if err != nil {
		return Entry{}, err
	}
	return Entry{Value: idBytes(o.ID), Object: o, ValueText: o.String()}, nil
}

func (r *entryReader) innerMap(p uint64) (Entry, error) {
	o, err := mapObject(r.k, p)
	if err != nil {
		return Entry{}, err
	}
	return Entry{Value: idBytes(o.ID), Object: o, ValueText: o.String()}, nil
}

func (r *entryReader) perfEvent(p uint64) (Entry, error) {
	entry := r.k.Object("bpf_event_entry", p)
	event := entry.Deref("event")
	typ, config, cpu := event.Uint("attr.type"), event.Uint("attr.config"), event.Int("cpu")
	if err := errors.Join(entry.Err(), event.Err()); err != nil {
		return Entry{}, err
	}
	text := fmt.Sprintf("perf_event type %d config 0x%x", typ, config)
	const software, bpfOutput = 1, 10 // PERF_TYPE_SOFTWARE, PERF_COUNT_SW_BPF_OUTPUT
	if typ == software && config == bpfOutput {
		text = "perf_event bpf-output"
	}
	if int32(cpu) >= 0 {
		text += fmt.Sprintf(" cpu %d", int32(cpu))
	}
	return Entry{ValueText: text}, nil
}

func (r *entryReader) cgroup(p uint64) (Entry, error) {
	t, err := cgroupTarget(r.k, p)
	return Entry{ValueText: fmt.Sprintf("cgroup %d %s", t.Value, t.Name)}, err
}

// netdev makes an entry of a struct bpf_dtab_netdev. The program runs on what
// is sent to the device.
func (r *entryReader) netdev(p uint64) (Entry, error) {
	o := r.k.Object("bpf_dtab_netdev", p)
	dev := o.Deref("dev")
	e := Entry{Object: &Object{Kind: "netdev", ID: int(dev.Uint("ifindex")), Name: dev.Str("name")}}
	e.ValueText = e.Object.Name
	if err := errors.Join(o.Err(), dev.Err()); err != nil {
		return Entry{}, err
	}
	var err error
	if e.Value, err = r.read(o.At("val"), min(r.val, 8)); err != nil {
		return Entry{}, err
	}
	if o.Has("xdp_prog") { // fbee97feed9b, 5.8
		err = r.runs(&e, o.Ptr("xdp_prog"))
	}
	return e, errors.Join(o.Err(), err)
}

// cpu makes an entry of a struct bpf_cpu_map_entry.
func (r *entryReader) cpu(p uint64) (Entry, error) {
	o := r.k.Object("bpf_cpu_map_entry", p)
	e := Entry{ValueText: fmt.Sprintf("qsize %d", o.Uint("value.qsize"))}
	if err := o.Err(); err != nil {
		return Entry{}, err
	}
	var err error
	if e.Value, err = r.read(o.At("value"), min(r.val, 8)); err != nil {
		return Entry{}, err
	}
	if o.Has("prog") { // 9216477449f3, 5.9
		err = r.runs(&e, o.Ptr("prog"))
	}
	return e, errors.Join(o.Err(), err)
}

// runs notes the program of an entry that redirects packets, if it has one.
func (r *entryReader) runs(e *Entry, prog uint64) error {
	if prog == 0 {
		return nil
	}
	o, err := progObject(r.k, prog)
	if err != nil {
		return err
	}
	e.Object = o
	e.ValueText += ", " + o.String()
	return nil
}

// devmapHash walks a devmap by hash: chains of struct bpf_dtab_netdev.
func (r *entryReader) devmapHash() error {
	heads, n := r.o.Ptr("dev_index_head"), r.o.Uint("n_buckets")
	node, err := r.k.Offset("bpf_dtab_netdev", "index_hlist")
	if err := errors.Join(r.o.Err(), err); err != nil {
		return err
	}
	return r.buckets(heads, n, 8, 0, func(at uint64) error {
		o := r.k.Object("bpf_dtab_netdev", at-node)
		idx := o.Uint("idx")
		e, err := r.netdev(o.Addr)
		if err := errors.Join(o.Err(), err); err != nil {
			return r.lost(fmt.Errorf("bpf_dtab_netdev at 0x%x: %w", o.Addr, err))
		}
		e.Key = r.index(idx)
		return r.emit(e)
	})
}

func (r *entryReader) xsk(p uint64) (Entry, error) {
	o := r.k.Object("xdp_sock", p)
	queue := o.Uint("queue_id")
	if o.Ptr("dev") == 0 {
		return Entry{ValueText: "xdp socket, not bound"}, o.Err()
	}
	dev := o.Deref("dev")
	e := Entry{ValueText: fmt.Sprintf("xdp socket on %s queue %d", dev.Str("name"), queue)}
	return e, errors.Join(o.Err(), dev.Err())
}

// structOps gives the one element of a struct_ops map: what bpf(2) was given,
// with programs by their ids, and the state it has now.
func (r *entryReader) structOps() error {
	state := r.o.Uint("kvalue.common.state|kvalue.state")
	user := r.o.Ptr("uvalue")
	if err := r.o.Err(); err != nil {
		return err
	}
	if state == 0 { // BPF_STRUCT_OPS_STATE_INIT
		return nil
	}
	value, err := r.read(user, r.val)
	if err != nil {
		return err
	}
	// The count that bpf(2) tells is the map's since b671c2067a04 (6.4); before,
	// it is with the functions that the kernel calls.
	count := r.o.Uint("kvalue.common.refcnt.refs.counter|kvalue.refcnt.refs.counter")
	if count == 0 {
		count = uint64(max(r.o.Int("map.refcnt.counter")-r.o.Int("map.usercnt.counter"), 0))
	}
	if err := r.o.Err(); err != nil {
		return err
	}
	if len(value) >= 8 { // struct bpf_struct_ops_common_value
		binary.LittleEndian.PutUint32(value, uint32(count))
		binary.LittleEndian.PutUint32(value[4:], uint32(state))
	}
	return r.emit(Entry{Key: r.index(0), Value: value})
}

// arena yields the pages that an arena has, each under the address that
// programs and processes know it by.
func (r *entryReader) arena() error {
	user, area := r.o.Uint("user_vm_start"), r.o.Deref("kern_vm")
	start := area.Ptr("addr")
	if err := errors.Join(r.o.Err(), area.Err()); err != nil {
		return err
	}
	const guard = 1 << 15 // half of GUARD_SZ: what a signed 16-bit offset reaches
	scratch := r.scratchPage()
	for i := range uint64(r.m.MaxEntries) {
		at := start + guard + uint64(uint32(user+i*pageSize))
		w, err := r.k.Walk(at)
		if mem.CauseOf(err) == mem.Unmapped {
			continue
		}
		if err == nil && scratch != 0 && w.Phys&^(pageSize-1) == scratch {
			continue
		}
		var page []byte
		if err == nil {
			page, err = r.read(at, pageSize)
		}
		if err != nil {
			err = r.lost(err)
		} else {
			err = r.emit(Entry{KeyText: fmt.Sprintf("page 0x%x", user+i*pageSize), Value: page})
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// scratchPage returns the physical address of the page that stands where an
// arena has none, or 0 on kernels without one.
func (r *entryReader) scratchPage() uint64 {
	if !r.o.Has("scratch_page") {
		return 0
	}
	page, size := r.o.Ptr("scratch_page"), r.k.Sizeof("page")
	addr, err := r.k.Addr("vmemmap_base")
	if err != nil || size == 0 || r.o.Err() != nil {
		return 0
	}
	base, err := mem.U64(r.k.Mem(), addr)
	if err != nil || page < base {
		return 0
	}
	return (page - base) / size * pageSize
}
