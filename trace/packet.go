package trace

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
)

// tuples names packets by what their headers say. It is not safe for
// concurrent use. Its zero value is fit for use.
type tuples struct {
	parsers [3]*gopacket.DecodingLayerParser // that begin at Ethernet, IPv4, IPv6
	found   []gopacket.LayerType

	eth   layers.Ethernet
	vlan  layers.Dot1Q
	arp   layers.ARP
	ip4   layers.IPv4
	ip6   layers.IPv6
	skip6 layers.IPv6ExtensionSkipper
	frag6 layers.IPv6Fragment
}

func (t *tuples) init() {
	for i, first := range [...]gopacket.LayerType{layers.LayerTypeEthernet, layers.LayerTypeIPv4, layers.LayerTypeIPv6} {
		// The fragment header is one of the extensions that skip6 takes: the
		// last that is put in for a type stands.
		p := gopacket.NewDecodingLayerParser(first, &t.eth, &t.vlan, &t.arp, &t.ip4, &t.ip6, &t.skip6, &t.frag6)
		p.IgnoreUnsupported = true
		t.parsers[i] = p
	}
}

// maxHeaders is how many bytes of a packet are looked at.
const maxHeaders = 512

// text names a packet: "10.0.0.2:44310 > 10.0.0.1:443 tcp [S]". data are the
// first bytes of n, which begin at the network header if raw is set. Headers
// that are cut or damaged name it as far as they go.
func (t *tuples) text(data []byte, n int, raw bool) string {
	if t.parsers[0] == nil {
		t.init()
	}
	if len(data) == 0 {
		return ""
	}
	data = data[:min(len(data), maxHeaders)]
	t.eth, t.vlan, t.arp, t.ip4, t.ip6 = layers.Ethernet{}, layers.Dot1Q{}, layers.ARP{}, layers.IPv4{}, layers.IPv6{}
	t.skip6, t.frag6 = layers.IPv6ExtensionSkipper{}, layers.IPv6Fragment{}
	parser := t.parsers[0]
	if raw {
		switch data[0] >> 4 {
		case 4:
			parser = t.parsers[1]
		case 6:
			parser = t.parsers[2]
		default:
			return ""
		}
	}
	t.found = t.found[:0]
	err := parser.DecodeLayers(data, &t.found) // what was found before an error stands
	s := t.name(err != nil)
	if v := t.tag(); v != "" && s != "" {
		s += ", " + v
	}
	return s
}

// tag names the innermost VLAN.
func (t *tuples) tag() string {
	for _, l := range t.found {
		if l == layers.LayerTypeDot1Q {
			return "vlan " + strconv.Itoa(int(t.vlan.VLANIdentifier))
		}
	}
	return ""
}

// name names a packet by its innermost header that is understood.
func (t *tuples) name(damaged bool) string {
	ips, last := 0, gopacket.LayerTypeZero
	for _, l := range t.found {
		switch l {
		case layers.LayerTypeIPv4, layers.LayerTypeIPv6:
			ips++
			last = l
		case layers.LayerTypeARP:
			return t.arpText()
		}
	}
	var s string
	switch {
	case last == layers.LayerTypeIPv4:
		s = t.text4()
	case last == layers.LayerTypeIPv6, len(t.ip6.Payload) > 0: // else its length is 0, as in packets above 64 KiB
		s = t.text6()
	default:
		return t.etherText(damaged)
	}
	if ips > 1 {
		s += ", encapsulated"
	}
	return s
}

func (t *tuples) etherText(damaged bool) string {
	if len(t.found) == 0 {
		return ""
	}
	typ := t.eth.EthernetType
	if t.found[len(t.found)-1] == layers.LayerTypeDot1Q {
		typ = t.vlan.Type
	}
	name := fmt.Sprintf("ethertype %#04x", uint16(typ))
	switch typ {
	case layers.EthernetTypeIPv4:
		name, damaged = "ip", true
	case layers.EthernetTypeIPv6:
		name, damaged = "ip6", true
	case layers.EthernetTypeARP:
		name = "arp"
	case layers.EthernetTypeLLC:
		name = "llc"
	case layers.EthernetTypeLinkLayerDiscovery:
		name = "lldp"
	}
	if damaged {
		name += ", cut or damaged"
	}
	return fmt.Sprintf("%s > %s %s", t.eth.SrcMAC, t.eth.DstMAC, name)
}

func (t *tuples) arpText() string {
	src, dst := address(t.arp.SourceProtAddress), address(t.arp.DstProtAddress)
	switch t.arp.Operation {
	case layers.ARPRequest:
		return fmt.Sprintf("arp who-has %s tell %s", dst, src)
	case layers.ARPReply:
		return fmt.Sprintf("arp %s is-at %s", src, macText(t.arp.SourceHwAddress))
	}
	return fmt.Sprintf("arp operation %d, %s > %s", t.arp.Operation, src, dst)
}

func address(b []byte) string {
	if a, ok := netip.AddrFromSlice(b); ok {
		return a.String()
	}
	return fmt.Sprintf("%x", b)
}

func macText(b []byte) string {
	var parts []string
	for _, c := range b {
		parts = append(parts, fmt.Sprintf("%02x", c))
	}
	return strings.Join(parts, ":")
}

func (t *tuples) text4() string {
	src, dst := address(t.ip4.SrcIP), address(t.ip4.DstIP)
	if t.ip4.FragOffset != 0 {
		return fmt.Sprintf("%s > %s %s fragment", src, dst, protocol(t.ip4.Protocol))
	}
	s := flow(src, dst, t.ip4.Protocol, t.ip4.Payload)
	if t.ip4.Flags&layers.IPv4MoreFragments != 0 {
		s += " fragment"
	}
	return s
}

func (t *tuples) text6() string {
	src, dst := address(t.ip6.SrcIP), address(t.ip6.DstIP)
	next, payload, fragment := t.ip6.NextHeader, t.ip6.Payload, ""
	if t.ip6.HopByHop != nil {
		next = t.ip6.HopByHop.NextHeader
	}
	for _, l := range t.found {
		switch {
		case l == layers.LayerTypeIPv6: // an inner packet's
			fragment = ""
		case l == layers.LayerTypeIPv6Fragment:
			next, payload = t.frag6.NextHeader, t.frag6.Payload
			if t.frag6.FragmentOffset != 0 {
				return fmt.Sprintf("%s > %s %s fragment", src, dst, protocol(next))
			}
			if t.frag6.MoreFragments {
				fragment = " fragment"
			}
		case layers.LayerClassIPv6Extension.Contains(l):
			next, payload = t.skip6.NextHeader, t.skip6.Payload
		}
	}
	return flow(src, dst, next, payload) + fragment
}

// protocolDCCP is the number of DCCP, whose header begins with ports as well.
const protocolDCCP = layers.IPProtocol(33)

// flow names a packet by its addresses and what its transport header says.
func flow(src, dst string, p layers.IPProtocol, b []byte) string {
	name := protocol(p)
	switch p {
	case layers.IPProtocolTCP, layers.IPProtocolUDP, layers.IPProtocolUDPLite, layers.IPProtocolSCTP, protocolDCCP:
		if len(b) < 4 {
			return fmt.Sprintf("%s > %s %s", src, dst, name)
		}
		from, to := binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
		if p == layers.IPProtocolTCP && len(b) >= 14 {
			name += " [" + tcpFlags(b[13]) + "]"
		}
		return fmt.Sprintf("%s > %s %s", endpoint(src, from), endpoint(dst, to), name)
	case layers.IPProtocolICMPv4, layers.IPProtocolICMPv6:
		return fmt.Sprintf("%s > %s %s%s", src, dst, name, icmpText(p, b))
	}
	return fmt.Sprintf("%s > %s %s", src, dst, name)
}

func endpoint(addr string, port uint16) string {
	if strings.Contains(addr, ":") {
		addr = "[" + addr + "]"
	}
	return addr + ":" + strconv.Itoa(int(port))
}

// tcpFlags writes the flags as tcpdump does, FIN to CWR, a dot for ACK.
func tcpFlags(b byte) string {
	var s strings.Builder
	for _, f := range [...]struct {
		bit  byte
		name byte
	}{{1, 'F'}, {2, 'S'}, {4, 'R'}, {8, 'P'}, {16, '.'}, {32, 'U'}, {64, 'E'}, {128, 'W'}} {
		if b&f.bit != 0 {
			s.WriteByte(f.name)
		}
	}
	if s.Len() == 0 {
		return "none"
	}
	return s.String()
}

// icmpText is the type of a message, and which echo it is.
func icmpText(p layers.IPProtocol, b []byte) string {
	if len(b) < 2 {
		return ""
	}
	var name string
	echo := false
	switch typ := b[0]; {
	case p == layers.IPProtocolICMPv4 && typ == layers.ICMPv4TypeEchoRequest,
		p == layers.IPProtocolICMPv6 && typ == layers.ICMPv6TypeEchoRequest:
		name, echo = "echo request", true
	case p == layers.IPProtocolICMPv4 && typ == layers.ICMPv4TypeEchoReply,
		p == layers.IPProtocolICMPv6 && typ == layers.ICMPv6TypeEchoReply:
		name, echo = "echo reply", true
	case p == layers.IPProtocolICMPv4:
		name = words(layers.CreateICMPv4TypeCode(b[0], b[1]).String())
	default:
		name = words(layers.CreateICMPv6TypeCode(b[0], b[1]).String())
	}
	if echo && len(b) >= 8 {
		name += fmt.Sprintf(" id %d seq %d", binary.BigEndian.Uint16(b[4:]), binary.BigEndian.Uint16(b[6:]))
	}
	return " " + name
}

// words turns DestinationUnreachable(Port) into "destination unreachable (port)".
func words(s string) string {
	var b strings.Builder
	for i, r := range s {
		switch {
		case r >= 'A' && r <= 'Z':
			if i > 0 && s[i-1] >= 'a' && s[i-1] <= 'z' {
				b.WriteByte(' ')
			}
			b.WriteRune(r - 'A' + 'a')
		case r == '(' && i > 0:
			b.WriteString(" (")
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// protocol is the name of an IP protocol, or its number.
func protocol(p layers.IPProtocol) string {
	switch p {
	case layers.IPProtocolICMPv4:
		return "icmp"
	case layers.IPProtocolICMPv6:
		return "icmp6"
	}
	s := p.String()
	if strings.HasPrefix(s, "Unknown") {
		return fmt.Sprintf("protocol %d", uint8(p))
	}
	return strings.ToLower(s)
}
