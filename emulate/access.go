package emulate

import "encoding/binary"

// load reads a word of size 1, 2, 4 or 8 bytes. It reports false after a fault.
func (m *Machine) load(addr uint64, size uint8) (uint64, bool) {
	m.read = addr
	off := addr & pageMask
	if off+uint64(size) > pageSize {
		return m.loadAcross(addr, size)
	}
	e := &m.Mem.tlb[(addr>>pageShift)%tlbSize]
	p := e.p
	if e.tag != addr>>pageShift+1 {
		var err error
		if p, err = m.Mem.page(addr); err != nil {
			return 0, m.fault(addr, false, err)
		}
	}
	b := p.data[off:]
	switch size {
	case 8:
		return binary.LittleEndian.Uint64(b), true
	case 4:
		return uint64(binary.LittleEndian.Uint32(b)), true
	case 2:
		return uint64(binary.LittleEndian.Uint16(b)), true
	}
	return uint64(b[0]), true
}

func (m *Machine) loadAcross(addr uint64, size uint8) (uint64, bool) {
	var b [8]byte
	if !m.loadBytes(b[:size], addr) {
		return 0, false
	}
	return binary.LittleEndian.Uint64(b[:]), true
}

// loadBytes reads any number of bytes.
func (m *Machine) loadBytes(b []byte, addr uint64) bool {
	m.read = addr
	if err := m.Mem.ReadMem(b, addr); err != nil {
		return m.fault(addr, false, err)
	}
	return true
}

// store writes a word of size 1, 2, 4 or 8 bytes. It reports false after a
// fault, or where the run ends before the write.
func (m *Machine) store(addr, v uint64, size uint8) bool {
	m.wrote = addr
	off := addr & pageMask
	e := &m.Mem.tlb[(addr>>pageShift)%tlbSize]
	if e.tag != addr>>pageShift+1 || !e.fast || off&7+uint64(size) > 8 {
		return m.storeSlow(addr, v, size)
	}
	p := e.p
	word := p.data[off&^7:]
	old := binary.LittleEndian.Uint64(word)
	b := p.data[off:]
	switch size {
	case 8:
		binary.LittleEndian.PutUint64(b, v)
	case 4:
		binary.LittleEndian.PutUint32(b, uint32(v))
	case 2:
		binary.LittleEndian.PutUint16(b, uint16(v))
	default:
		b[0] = byte(v)
	}
	m.Mem.changed(p, addr, uint64(size), old, binary.LittleEndian.Uint64(word))
	return true
}

// storeSlow is store where it is not within one word of a page that is the
// overlay's own, or the page is watched or holds code.
func (m *Machine) storeSlow(addr, v uint64, size uint8) bool {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], v)
	return m.storeBytes(b[:size], addr)
}

// storeBytes writes any number of bytes, all or none of them.
func (m *Machine) storeBytes(b []byte, addr uint64) bool {
	m.wrote = addr
	for a := addr; a-addr < uint64(len(b)); a = (a | pageMask) + 1 {
		p, err := m.Mem.writable(a)
		if err != nil {
			return m.fault(a, true, err)
		}
		if p.code {
			m.forget()
		}
	}
	if err := m.Mem.WriteMem(b, addr); err != nil {
		return m.fault(addr, true, err)
	}
	if len(m.watches) > 0 {
		m.watched(addr, b)
	}
	return true
}
