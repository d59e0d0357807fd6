package probe

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
)

// flagNoSlots: the slots were not filled, as the entry was not seen.
const flagNoSlots = 1

// A decoder makes events of records.
type decoder struct {
	layouts []layout
	comms   map[[16]byte]string
	last    [16]byte // the last one, which the next is likely to be
	name    string
	words   []uint64 // memory for events' arguments
	bytes   []byte   // and their slots and packets
}

// maxComms bounds how many names of threads are kept.
const maxComms = 4096

func newDecoder(layouts []layout) *decoder {
	return &decoder{layouts: layouts, comms: make(map[[16]byte]string)}
}

// decode makes an event of a record. It trusts nothing in it.
func (d *decoder) decode(b []byte) (Event, error) {
	le := binary.LittleEndian
	if len(b) < recordHead {
		return Event{}, fmt.Errorf("a record of %d bytes is shorter than its head", len(b))
	}
	point := int(le.Uint32(b))
	if point >= len(d.layouts) {
		return Event{}, fmt.Errorf("a record of point %d, of %d there are", point, len(d.layouts))
	}
	l := &d.layouts[point]
	if len(b) != l.bytes && len(b) != (l.bytes+7)&^7 {
		return Event{}, fmt.Errorf("a record of point %d has %d bytes, not %d", point, len(b), l.bytes)
	}
	e := Event{
		Kind: Kind(b[4]), Point: point,
		Call: CallID{le.Uint64(b[8:]), le.Uint64(b[16:])}, Start: le.Uint64(b[16:]), End: le.Uint64(b[24:]),
		Parent: CallID{le.Uint64(b[32:]), le.Uint64(b[40:])},
		Ret:    le.Uint64(b[48:]), TID: int(le.Uint32(b[56:])), PID: int(le.Uint32(b[60:])),
		Comm: d.comm([16]byte(b[64:80])), CPU: int(le.Uint32(b[80:])), Faults: int(le.Uint32(b[84:])),
		Args: d.u64s(b[recordHead:], l.args),
	}
	if e.Kind != Returned {
		e.Ret, e.RAX = 0, e.Ret
	}
	if l.slots > 0 && b[5]&flagNoSlots == 0 {
		e.Slots = d.copy(b[l.atSlots : l.atSlots+l.slots])
	}
	if l.packet {
		e.Packet = d.packet(b[l.atPacket:l.atPacket+seenSize], b[l.atPacket+seenSize:l.atPacket+seenSize+l.snap])
	}
	if l.stack > 0 {
		n := int64(le.Uint64(b[l.atStack:])) / 8 // negative: there is none
		e.Stack = d.u64s(b[l.atStack+8:], int(min(max(n, 0), int64(l.stack))))
	}
	return e, nil
}

// unfinished makes an event of an element of the map of open calls.
func (d *decoder) unfinished(frame uint64, b []byte) (Event, bool) {
	le := binary.LittleEndian
	if len(b) < openHead {
		return Event{}, false
	}
	point, start := int(le.Uint32(b[CallSize+16:])), le.Uint64(b[CallStart:])
	if start == 0 || point >= len(d.layouts) {
		return Event{}, false
	}
	l := &d.layouts[point]
	if len(b) < openHead+l.slots+l.snap {
		return Event{}, false
	}
	id := le.Uint64(b[CallPidTgid:])
	e := Event{
		Kind: Unfinished, Point: point, Call: CallID{frame, start}, Start: start,
		Parent: CallID{le.Uint64(b[CallSize:]), le.Uint64(b[CallSize+8:])},
		CPU:    int(le.Uint32(b[CallCPU:])), PID: int(id >> 32), TID: int(uint32(id)),
		Comm: d.comm([16]byte(b[CallComm:CallSize])), Faults: int(le.Uint32(b[CallFaults:])),
		Args: d.u64s(b[CallArgs:], l.args),
	}
	if l.slots > 0 {
		e.Slots = d.copy(b[openHead : openHead+l.slots])
	}
	if l.packet {
		snap := openHead + l.slots
		e.Packet = d.packet(b[CallSize+24:openHead], b[snap:snap+l.snap])
	}
	return e, true
}

// packet decodes struct seen and the bytes behind it.
func (d *decoder) packet(b, data []byte) *Packet {
	le := binary.LittleEndian
	kept := min(int(le.Uint32(b[12:])), len(data))
	return &Packet{
		ID: le.Uint64(b), Len: int(le.Uint32(b[8:])), Data: d.copy(data[:kept]),
		Ifindex: int(int32(le.Uint32(b[16:]))), Netns: le.Uint32(b[20:]), Raw: le.Uint32(b[24:]) != 0,
	}
}

// comm returns the text of a thread's name.
func (d *decoder) comm(b [16]byte) string {
	if b == d.last && d.name != "" {
		return d.name
	}
	d.last, d.name = b, d.lookup(b)
	return d.name
}

func (d *decoder) lookup(b [16]byte) string {
	if s, ok := d.comms[b]; ok {
		return s
	}
	text, _, _ := bytes.Cut(b[:], []byte{0})
	if len(d.comms) >= maxComms {
		clear(d.comms)
	}
	s := string(text)
	d.comms[b] = s
	return s
}

// u64s decodes n numbers.
func (d *decoder) u64s(b []byte, n int) []uint64 {
	if n > len(d.words) {
		d.words = make([]uint64, max(n, 1024))
	}
	out := d.words[:n:n]
	d.words = d.words[n:]
	for i := range out {
		out[i] = binary.LittleEndian.Uint64(b[8*i:])
	}
	return out
}

// copy copies bytes out of the ring buffer.
func (d *decoder) copy(b []byte) []byte {
	if len(b) > 1024 {
		return slices.Clone(b)
	}
	if len(b) > len(d.bytes) {
		d.bytes = make([]byte, 16<<10)
	}
	out := d.bytes[:len(b):len(b)]
	d.bytes = d.bytes[len(b):]
	copy(out, b)
	return out
}
