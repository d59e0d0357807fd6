package pcapfilter

import (
	"strings"

	"golang.org/x/net/bpf"
)

// value asks for an id by its qualifiers.
func (lo *lowerer) value(q qualifiers, v value) (cond, error) {
	switch q.typ {
	case "port", "portrange":
		return lo.portValue(q, v)
	case "proto":
		return lo.protoValue(q, v)
	case "protochain", "gateway":
		return nil, lo.fail(q.pos, "%s is not supported: %s", q.typ, refusedWords[q.typ])
	}
	typ := q.typ
	if typ == "" {
		typ = "host"
	}
	if q.proto == "decnet" {
		return nil, lo.fail(v.pos, "addresses of DECnet are not supported")
	}
	switch v.kind {
	case tokName:
		return nil, lo.fail(v.pos, "%s is a name, and names are not resolved here: write the address as a number", v.text)
	case tokMAC:
		if q.proto != "ether" || typ != "host" {
			return nil, lo.fail(v.pos, "%s is an Ethernet address: write ether host %s, with src or dst before host if one is meant", v.text, v.text)
		}
		if lo.link != Ethernet || lo.ppp {
			return nil, lo.fail(v.pos, "these packets have no Ethernet addresses")
		}
		return lo.macHost(v.mac, q.dir), nil
	case tokIPv6:
		return lo.ipv6Value(q, typ, v)
	}
	return lo.ipv4Value(q, typ, v)
}

func (lo *lowerer) ipv6Value(q qualifiers, typ string, v value) (cond, error) {
	if q.proto != "" && q.proto != "ip6" {
		return nil, lo.fail(v.pos, "%s does not go with an IPv6 address", q.proto)
	}
	bits := 128
	if v.bits >= 0 {
		bits = v.bits
		switch {
		case bits > 128:
			return nil, lo.fail(v.pos, "the prefix of an IPv6 address is 128 bits at most")
		case typ != "net" && bits != 128:
			return nil, lo.fail(v.pos, "a prefix is a net: write net instead of host")
		}
	}
	if p, err := v.ip.Prefix(bits); err != nil || p.Addr() != v.ip {
		return nil, lo.fail(v.pos, "%s has bits behind the prefix of %d", v.text, bits)
	}
	return lo.ipv6Host(v.pos, v.ip.As16(), bits, q.dir)
}

// ipv4Value takes an address, a net of 1 to 4 parts, or a number.
func (lo *lowerer) ipv4Value(q qualifiers, typ string, v value) (cond, error) {
	switch q.proto {
	case "", "ip", "arp", "rarp":
	case "ether":
		return nil, lo.fail(v.pos, "%s is no Ethernet address", v.text)
	case "ip6":
		return nil, lo.fail(v.pos, "ip6 does not go with an IPv4 address")
	default:
		return nil, lo.fail(q.pos, "%s has no %s of its own: write %s and %s", q.proto, typ, q.proto, typ)
	}
	addr, mask := v.num, uint32(0xffffffff)
	if v.kind == tokNumber && typ == "net" {
		for addr != 0 && addr&0xff000000 == 0 {
			addr, mask = addr<<8, mask<<8
		}
	}
	if v.kind == tokIPv4 {
		a, bits, ok := parseIPv4(v.text)
		if !ok {
			return nil, lo.fail(v.pos, "%s is no IPv4 address", v.text)
		}
		addr, mask = a, prefix32(bits)
	}
	switch {
	case v.mask != "":
		m, _, ok := parseIPv4(v.mask)
		if !ok {
			return nil, lo.fail(v.pos, "%s is no mask", v.mask)
		}
		mask = m
	case v.bits > 32:
		return nil, lo.fail(v.pos, "the prefix of an IPv4 address is 32 bits at most")
	case v.bits >= 0:
		mask = prefix32(v.bits)
	}
	if v.mask != "" || v.bits >= 0 {
		if typ != "net" {
			return nil, lo.fail(v.pos, "a prefix is a net: write net instead of host")
		}
		if addr&^mask != 0 {
			return nil, lo.fail(v.pos, "%s has bits behind its mask", v.text)
		}
	}
	return lo.ipv4Host(v.pos, q, addr, mask)
}

// ipv4Host asks IPv4 and, if no protocol was named, ARP and RARP.
func (lo *lowerer) ipv4Host(pos int, q qualifiers, addr, mask uint32) (cond, error) {
	var conds []cond
	for _, p := range []struct {
		name     string
		typ      uint32
		src, dst uint32
	}{{"ip", etherIPv4, 12, 16}, {"arp", etherARP, 14, 24}, {"rarp", etherRARP, 14, 24}} {
		if q.proto != "" && q.proto != p.name || q.proto == "" && lo.mpls > 0 && p.name != "ip" {
			continue
		}
		link, err := lo.linkType(pos, p.typ)
		if err != nil {
			return nil, err
		}
		conds = append(conds, q.dir.apply(
			all(link, masked(lo.payload+p.src, 4, addr, mask)),
			all(link, masked(lo.payload+p.dst, 4, addr, mask))))
	}
	return anyOf(conds...), nil
}

// protoValue is "proto 6" or "proto \tcp" behind ether, ip, ip6, iso or nothing.
func (lo *lowerer) protoValue(q qualifiers, v value) (cond, error) {
	table, limit := ipProtocols, uint32(255)
	switch q.proto {
	case "ether":
		table, limit = linkProtocols, 65535
	case "", "ip", "ip6":
	default:
		return nil, lo.fail(q.pos, "%s proto is not supported: it can be ether, ip, ip6 or nothing that stands before proto", q.proto)
	}
	n, ok := v.num, v.kind == tokNumber
	if v.kind == tokName {
		if n, ok = table[v.text]; !ok {
			return nil, lo.fail(v.pos, "%s is no protocol known here: write its number", v.text)
		}
	}
	switch {
	case !ok:
		return nil, lo.fail(v.pos, "an address where a protocol should be")
	case n > limit:
		return nil, lo.fail(v.pos, "%d is no protocol number: it is %d at most", n, limit)
	case q.proto == "ether":
		return lo.linkType(v.pos, n)
	}
	return lo.ipProto(v.pos, n, q.proto)
}

// portValue is a port or a range of ports by number or name.
func (lo *lowerer) portValue(q qualifiers, v value) (cond, error) {
	var protos []uint32
	switch q.proto {
	case "":
		protos = []uint32{ipTCP, ipUDP, ipSCTP}
	case "tcp", "udp", "sctp":
		protos = []uint32{transports[q.proto].num}
	default:
		return nil, lo.fail(q.pos, "%s has no ports: %s can follow tcp, udp, sctp or nothing", q.proto, q.typ)
	}
	lowest, highest, named, err := lo.ports(q, v)
	if err != nil {
		return nil, err
	}
	if q.proto == "" && named != 0 {
		protos = []uint32{named}
	}
	if lowest > highest {
		lowest, highest = highest, lowest
	}
	v6, err := lo.linkType(v.pos, etherIPv6)
	if err != nil {
		return nil, err
	}
	v4, err := lo.linkType(v.pos, etherIPv4)
	if err != nil {
		return nil, err
	}
	var in4, in6 []cond
	for _, proto := range protos {
		first := condTest{load: []bpf.Instruction{bpf.LoadAbsolute{Off: lo.payload + 6, Size: 2}}, op: bpf.JumpBitsNotSet, val: 0x1fff}
		in4 = append(in4, all(equal(lo.payload+9, 1, proto), first, q.dir.apply(
			lo.portTest(true, 0, q.typ, lowest, highest), lo.portTest(true, 2, q.typ, lowest, highest))))
		in6 = append(in6, all(equal(lo.payload+6, 1, proto), q.dir.apply(
			lo.portTest(false, 0, q.typ, lowest, highest), lo.portTest(false, 2, q.typ, lowest, highest))))
	}
	return anyOf(all(v6, anyOf(in6...)), all(v4, anyOf(in4...))), nil
}

// portTest asks for a port at an offset behind the IP header.
func (lo *lowerer) portTest(v4 bool, off uint32, typ string, lowest, highest uint32) cond {
	load := []bpf.Instruction{bpf.LoadAbsolute{Off: lo.payload + 40 + off, Size: 2}}
	if v4 {
		load = []bpf.Instruction{bpf.LoadMemShift{Off: lo.payload}, bpf.LoadIndirect{Off: lo.payload + off, Size: 2}}
	}
	if typ == "port" {
		return condTest{load: load, op: bpf.JumpEqual, val: lowest}
	}
	return all(condTest{load: load, op: bpf.JumpGreaterOrEqual, val: lowest},
		condTest{load: load, op: bpf.JumpLessOrEqual, val: highest})
}

// ports returns the bounds of a port or range, and the protocol that a name
// stands for, 0 if it is several.
func (lo *lowerer) ports(q qualifiers, v value) (lowest, highest, proto uint32, err error) {
	switch v.kind {
	case tokNumber:
		if v.num > 65535 {
			return 0, 0, 0, lo.fail(v.pos, "%d is no port: they go to 65535", v.num)
		}
		return v.num, v.num, 0, nil
	case tokName:
	default:
		return 0, 0, 0, lo.fail(v.pos, "an address where a port should be")
	}
	if q.typ == "port" {
		lowest, proto, err = lo.service(q, v.pos, v.text)
		return lowest, lowest, proto, err
	}
	from, to, ok := strings.Cut(v.text, "-")
	if !ok || from == "" || to == "" {
		return 0, 0, 0, lo.fail(v.pos, "%s is no range of ports such as 6000-6008", v.text)
	}
	var p1, p2 uint32
	if lowest, p1, err = lo.service(q, v.pos, from); err != nil {
		return 0, 0, 0, err
	}
	if highest, p2, err = lo.service(q, v.pos, to); err != nil {
		return 0, 0, 0, err
	}
	if p1 == p2 {
		proto = p1
	}
	return lowest, highest, proto, nil
}

// service returns the number of a port and the protocol, 0 if it is several.
func (lo *lowerer) service(q qualifiers, pos int, name string) (port, proto uint32, err error) {
	if numberForm.MatchString(name) {
		t, msg := scanWord(name)
		if msg != "" || t.num > 65535 || len(name) > 1 && name[0] == '0' {
			return 0, 0, lo.fail(pos, "%s is no port: they go to 65535", name)
		}
		return t.num, 0, nil
	}
	s, ok := services[name]
	switch {
	case !ok:
		return 0, 0, lo.fail(pos, "%s is no service known here: write the number of its port", name)
	case s.tcp == s.udp:
		return uint32(s.tcp), 0, nil
	case s.tcp != 0 && q.proto != "udp" && q.proto != "sctp":
		return uint32(s.tcp), ipTCP, nil
	case s.udp != 0 && s.tcp == 0 && q.proto != "tcp" && q.proto != "sctp":
		return uint32(s.udp), ipUDP, nil
	}
	return 0, 0, lo.fail(pos, "%s is no service of %s", name, q.proto)
}
