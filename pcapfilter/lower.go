package pcapfilter

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/net/bpf"
)

// A lowerer turns the tree of an expression into what is asked of a packet. It
// goes through the text from left to right, since vlan, mpls and pppoes move
// the place where what follows them in the text is looked for, even behind or
// (libpcap's gencode.c).
type lowerer struct {
	expr string
	link LinkType
	// Offsets in the packet: of the header that ether[...] counts from, of the
	// field that says what the payload is, and of the payload.
	header, typ, payload uint32
	ppp                  bool // the header is PPP's
	mpls                 int  // labels so far
}

func newLowerer(expr string, link LinkType) *lowerer {
	lo := &lowerer{expr: expr, link: link}
	if link == Ethernet {
		lo.typ, lo.payload = 12, 14
	}
	return lo
}

func (lo *lowerer) fail(pos int, format string, args ...any) error {
	return &Error{lo.expr, pos, fmt.Sprintf(format, args...)}
}

func (lo *lowerer) lower(n node) (cond, error) {
	switch n := n.(type) {
	case *andNode:
		l, r, err := lo.both(n.l, n.r)
		return condAnd{l, r}, err
	case *orNode:
		l, r, err := lo.both(n.l, n.r)
		return condOr{l, r}, err
	case *notNode:
		x, err := lo.lower(n.x)
		return condNot{x}, err
	case *valueNode:
		return lo.value(n.q, n.value)
	case *protoNode:
		return lo.protocol(n.pos, n.name)
	case *castNode:
		return lo.cast(n)
	case *lenNode:
		op := bpf.JumpGreaterOrEqual
		if n.less {
			op = bpf.JumpLessOrEqual
		}
		return condTest{load: []bpf.Instruction{bpf.LoadExtension{Num: bpf.ExtLen}}, op: op, val: n.n}, nil
	case *layerNode:
		return lo.layer(n)
	case *relationNode:
		return lo.relation(n)
	}
	return nil, lo.fail(0, "internal error: %T", n)
}

func (lo *lowerer) both(l, r node) (cond, cond, error) {
	lc, err := lo.lower(l)
	if err != nil {
		return nil, nil, err
	}
	rc, err := lo.lower(r)
	return lc, rc, err
}

// linkType asks whether the payload is of a protocol: an Ethernet type or an
// 802.2 service access point.
func (lo *lowerer) linkType(pos int, proto uint32) (cond, error) {
	switch {
	case lo.mpls > 0: // no type follows labels: the payload says what it is
		bottom := masked(lo.payload-2, 1, 1, 1)
		switch proto {
		case etherIPv4:
			return all(bottom, masked(lo.payload, 1, 0x40, 0xf0)), nil
		case etherIPv6:
			return all(bottom, masked(lo.payload, 1, 0x60, 0xf0)), nil
		}
		return nil, lo.fail(pos, "behind mpls only IPv4 and IPv6 can be told apart")
	case lo.ppp:
		if p, ok := pppProtocols[proto]; ok {
			proto = p
		}
		return equal(lo.typ, 2, proto), nil
	case lo.link == RawIP:
		switch proto {
		case etherIPv4:
			return masked(0, 1, 0x40, 0xf0), nil
		case etherIPv6:
			return masked(0, 1, 0x60, 0xf0), nil
		}
		return condConst(false), nil
	}
	return lo.etherType(proto), nil
}

// pppProtocols are PPP's numbers (IANA) for what Ethernet types mean.
var pppProtocols = map[uint32]uint32{
	etherIPv4: 0x21, etherIPv6: 0x57, etherDN: 0x27, etherATalk: 0x29,
	sapISO: 0x23, sapSTP: 0x31, sapIPX: 0x2b,
}

// etherType knows that a type up to 1500 is a length, followed by an 802.2
// header: the two service access points, and for 0xaa a SNAP header.
func (lo *lowerer) etherType(proto uint32) cond {
	is8023 := field(lo.typ, 2, bpf.JumpLessOrEqual, lastLength)
	snap := func(org, typ uint32) cond {
		b := []byte{0xaa, 0xaa, 0x03, byte(org >> 16), byte(org >> 8), byte(org), byte(typ >> 8), byte(typ)}
		return bytesEqual(lo.payload, b)
	}
	switch {
	case proto == sapISO || proto == sapIP || proto == sapNetBEUI:
		return all(is8023, equal(lo.payload, 2, proto<<8|proto))
	case proto == sapIPX:
		raw := anyOf(equal(lo.payload, 1, sapIPX), equal(lo.payload, 2, 0xffff))
		return anyOf(equal(lo.typ, 2, etherIPX), all(is8023, anyOf(snap(0, etherIPX), raw)))
	case proto == etherATalk:
		return anyOf(equal(lo.typ, 2, proto), all(is8023, snap(0x080007, proto)))
	case proto == etherAARP:
		return anyOf(equal(lo.typ, 2, proto), all(is8023, snap(0, proto)))
	case proto <= lastLength:
		return all(is8023, equal(lo.typ+2, 1, proto))
	}
	return equal(lo.typ, 2, proto)
}

// protocol is the name of a protocol alone.
func (lo *lowerer) protocol(pos int, name string) (cond, error) {
	if t, ok := transports[name]; ok {
		return lo.ipProto(pos, t.num, t.only)
	}
	if name == "ether" {
		return nil, lo.fail(pos, "ether alone says nothing: every packet has a link layer")
	}
	if why, ok := refusedWords[name]; ok {
		return nil, lo.fail(pos, "%s is not supported: %s", name, why)
	}
	return lo.linkType(pos, linkProtocols[name])
}

// ipProto asks what IP carries, in IPv4 (only "ip"), IPv6 ("ip6") or either.
// In IPv6 a fragment header may stand between; other headers are not followed.
func (lo *lowerer) ipProto(pos int, num uint32, only string) (cond, error) {
	v4, err := lo.linkType(pos, etherIPv4)
	if err != nil {
		return nil, err
	}
	v6, err := lo.linkType(pos, etherIPv6)
	if err != nil {
		return nil, err
	}
	at := lo.payload
	v4 = all(v4, equal(at+9, 1, num))
	v6 = all(v6, anyOf(equal(at+6, 1, num), all(equal(at+6, 1, ipFragment), equal(at+40, 1, num))))
	switch only {
	case "ip":
		return v4, nil
	case "ip6":
		return v6, nil
	}
	return anyOf(v4, v6), nil
}

func (lo *lowerer) cast(n *castNode) (cond, error) {
	switch n.proto {
	case "", "ether":
		switch {
		case lo.link != Ethernet || lo.ppp:
			return nil, lo.fail(n.pos, "%s asks for an Ethernet address, which these packets do not have", n.what)
		case n.what == "broadcast":
			return bytesEqual(lo.header, []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}), nil
		}
		return field(lo.header, 1, bpf.JumpBitsSet, 1), nil
	case "ip":
		if n.what == "broadcast" {
			return nil, lo.fail(n.pos, "ip broadcast needs the netmask of an interface, and packets here come from all: use ether broadcast or dst host 255.255.255.255")
		}
		ip, err := lo.linkType(n.pos, etherIPv4)
		return all(ip, field(lo.payload+16, 1, bpf.JumpGreaterOrEqual, 224)), err
	case "ip6":
		if n.what == "multicast" {
			ip, err := lo.linkType(n.pos, etherIPv6)
			return all(ip, equal(lo.payload+24, 1, 255)), err
		}
	}
	return nil, lo.fail(n.pos, "%s has no %s", n.proto, n.what)
}

// layer asks for a header, and moves what follows in the text behind it.
func (lo *lowerer) layer(n *layerNode) (cond, error) {
	if limit := map[string]uint32{"vlan": 0xfff, "mpls": 0xfffff, "pppoes": 0xffff}[n.layer]; n.hasID && n.id > limit {
		return nil, lo.fail(n.pos, "%s %d: it is %d at most", n.layer, n.id, limit)
	}
	if lo.link != Ethernet && n.layer != "pppoed" && n.layer != "pppoes" || lo.ppp && n.layer == "vlan" {
		return nil, lo.fail(n.pos, "%s cannot follow the link layer of these packets", n.layer)
	}
	switch n.layer {
	case "vlan":
		return lo.vlan(n)
	case "mpls":
		return lo.mplsLabel(n)
	case "pppoed":
		return lo.linkType(n.pos, etherPPPoD)
	}
	return lo.pppoeSession(n)
}

func (lo *lowerer) vlan(n *layerNode) (cond, error) {
	if lo.mpls > 0 {
		return nil, lo.fail(n.pos, "vlan cannot be looked for behind mpls")
	}
	c := anyOf(lo.etherType(etherVLAN), lo.etherType(etherQinQ), lo.etherType(etherVLAN2))
	if n.hasID {
		c = all(c, masked(lo.payload, 2, n.id, 0xfff))
	}
	lo.typ += 4
	lo.payload += 4
	return c, nil
}

func (lo *lowerer) mplsLabel(n *layerNode) (c cond, err error) {
	switch {
	case lo.mpls > 0: // another label follows: the one before is not the bottom
		c = masked(lo.payload-2, 1, 0, 1)
	case lo.ppp:
		c = equal(lo.typ, 2, 0x281)
	default:
		c = lo.etherType(etherMPLS)
	}
	if n.hasID {
		c = all(c, masked(lo.payload, 4, n.id<<12, 0xfffff000))
	}
	lo.payload += 4
	lo.mpls++
	return c, nil
}

func (lo *lowerer) pppoeSession(n *layerNode) (cond, error) {
	c, err := lo.linkType(n.pos, etherPPPoS)
	if err != nil {
		return nil, err
	}
	if n.hasID {
		c = all(c, masked(lo.payload, 4, n.id, 0xffff))
	}
	lo.header = lo.payload + 6
	lo.typ, lo.payload, lo.ppp = lo.header, lo.header+2, true
	return c, nil
}

// macHost asks for an Ethernet address.
func (lo *lowerer) macHost(mac [6]byte, d dir) cond {
	src, dst := bytesEqual(lo.header+6, mac[:]), bytesEqual(lo.header, mac[:])
	return d.apply(src, dst)
}

// apply joins what is asked of the source and of the destination.
func (d dir) apply(src, dst cond) cond {
	switch d {
	case dirSrc:
		return src
	case dirDst:
		return dst
	case dirAnd:
		return all(src, dst)
	}
	return anyOf(src, dst)
}

// ipv6Host asks for an address or a prefix.
func (lo *lowerer) ipv6Host(pos int, addr [16]byte, bits int, d dir) (cond, error) {
	ip6, err := lo.linkType(pos, etherIPv6)
	if err != nil {
		return nil, err
	}
	at := func(off uint32) cond {
		c := ip6
		for i := range uint32(4) {
			mask := prefix32(bits - int(32*i))
			c = all(c, masked(lo.payload+off+4*i, 4, binary.BigEndian.Uint32(addr[4*i:]), mask))
		}
		return c
	}
	return d.apply(at(8), at(24)), nil
}

// prefix32 returns a mask of n bits; n may be out of range.
func prefix32(n int) uint32 { return uint32(0xffffffff << (32 - uint64(min(max(n, 0), 32)))) }
