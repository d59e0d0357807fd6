package pcapfilter_test

import (
	"math/rand/v2"
	"net"
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"golang.org/x/net/bpf"

	"github.com/ksleuth/ksleuth/pcapfilter"
)

var (
	mac1 = net.HardwareAddr{2, 0, 0, 0, 0, 1}
	mac2 = net.HardwareAddr{2, 0, 0, 0, 0, 2}
)

// stack serializes layers.
func stack(t testing.TB, ls ...gopacket.SerializableLayer) []byte {
	t.Helper()
	b := gopacket.NewSerializeBuffer()
	err := gopacket.SerializeLayers(b, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: false}, ls...)
	qt.Assert(t, qt.IsNil(err))
	return b.Bytes()
}

func ip4(src, dst string, proto layers.IPProtocol) *layers.IPv4 {
	return &layers.IPv4{Version: 4, TTL: 64, Protocol: proto, SrcIP: net.ParseIP(src), DstIP: net.ParseIP(dst)}
}

func ip6(src, dst string, next layers.IPProtocol) *layers.IPv6 {
	return &layers.IPv6{Version: 6, HopLimit: 64, NextHeader: next, SrcIP: net.ParseIP(src), DstIP: net.ParseIP(dst)}
}

func tcp(src, dst layers.TCPPort) *layers.TCP {
	return &layers.TCP{SrcPort: src, DstPort: dst, SYN: true, Window: 1000, Options: []layers.TCPOption{{
		OptionType: layers.TCPOptionKindMSS, OptionLength: 4, OptionData: []byte{5, 0xb4}}}}
}

func udp(src, dst layers.UDPPort) *layers.UDP { return &layers.UDP{SrcPort: src, DstPort: dst} }

// ipPackets are packets without a link layer.
func ipPackets(t testing.TB) (v4, v6 [][]byte) {
	data := gopacket.Payload("GET / HTTP/1.0\r\n\r\n")
	options := ip4("10.0.0.1", "10.0.0.2", layers.IPProtocolTCP)
	options.Options = []layers.IPv4Option{{OptionType: 148, OptionLength: 4, OptionData: []byte{0, 0}}}
	first := ip4("10.0.0.1", "192.168.1.7", layers.IPProtocolUDP)
	first.Flags = layers.IPv4MoreFragments
	voice := ip4("10.0.0.1", "10.0.0.2", layers.IPProtocolUDP)
	voice.TOS = 46 << 2
	later := ip4("10.0.0.1", "192.168.1.7", layers.IPProtocolTCP)
	later.FragOffset = 100
	ack := tcp(443, 40000)
	ack.ACK, ack.PSH, ack.Options = true, true, nil
	icmp := func(typ, code uint8) *layers.ICMPv4 {
		return &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(typ, code), Id: 7}
	}
	icmp6 := func(typ uint8) *layers.ICMPv6 {
		return &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(typ, 0)}
	}
	sctp := &layers.SCTP{SrcPort: 36412, DstPort: 36412}
	v4 = [][]byte{
		stack(t, ip4("10.0.0.1", "10.0.0.2", layers.IPProtocolTCP), tcp(40000, 80), data),
		stack(t, options, tcp(40000, 80), data),
		stack(t, ip4("192.168.1.7", "10.0.0.1", layers.IPProtocolTCP), ack, data),
		stack(t, ip4("10.0.0.3", "10.0.0.1", layers.IPProtocolTCP), tcp(22, 22)),
		stack(t, voice, udp(5060, 5060), data),
		stack(t, ip4("192.168.1.7", "172.16.0.9", layers.IPProtocolTCP), tcp(50000, 443)),
		stack(t, ip4("10.0.0.1", "10.0.0.1", layers.IPProtocolUDP), udp(53, 53), data),
		stack(t, ip4("172.16.0.9", "224.0.0.251", layers.IPProtocolUDP), udp(5353, 5353), data),
		stack(t, ip4("0.0.0.0", "255.255.255.255", layers.IPProtocolUDP), udp(68, 67), data),
		stack(t, first, udp(123, 123), data),
		stack(t, later, data, data),
		stack(t, ip4("10.0.0.1", "10.0.0.2", layers.IPProtocolSCTP), sctp, data),
		stack(t, ip4("10.0.0.1", "10.0.0.2", layers.IPProtocolICMPv4), icmp(8, 0), data),
		stack(t, ip4("10.0.0.2", "10.0.0.1", layers.IPProtocolICMPv4), icmp(3, 4), data),
		stack(t, ip4("10.0.0.2", "224.0.0.1", layers.IPProtocolIGMP), gopacket.Payload{0x16, 0, 0, 0, 224, 0, 0, 251}),
		stack(t, ip4("10.0.0.1", "10.0.0.2", layers.IPProtocolGRE), data),
		stack(t, ip4("10.0.0.1", "10.0.0.2", layers.IPProtocolESP), data),
		stack(t, ip4("10.0.0.1", "224.0.0.18", layers.IPProtocolVRRP), data),
	}
	fragment := append([]byte{6, 0, 0, 1, 0, 0, 0, 9}, stack(t, tcp(40000, 443), data)...)
	hop := append([]byte{6, 0, 1, 4, 0, 0, 0, 0}, stack(t, tcp(40000, 80), data)...)
	v6 = [][]byte{
		stack(t, ip6("2001:db8::1", "2001:db8::2", layers.IPProtocolTCP), tcp(40000, 80), data),
		stack(t, ip6("2001:db8::2", "2001:db8::1", layers.IPProtocolTCP), ack, data),
		stack(t, ip6("2001:db8::1", "2001:db8::1", layers.IPProtocolUDP), udp(53, 40000), data),
		stack(t, ip6("fe80::1", "ff02::1", layers.IPProtocolICMPv6), icmp6(135), data),
		stack(t, ip6("::1", "::1", layers.IPProtocolICMPv6), icmp6(128), data),
		stack(t, ip6("::ffff:10.0.0.1", "2001:db8::2", layers.IPProtocolSCTP), sctp, data),
		stack(t, ip6("2001:db8::1", "2001:db8::2", layers.IPProtocolIPv6Fragment), gopacket.Payload(fragment)),
		stack(t, ip6("2001:db8::1", "2001:db8::2", layers.IPProtocolIPv6HopByHop), gopacket.Payload(hop)),
		stack(t, ip6("2001:db8::1", "ff02::d", 103), data),
	}
	return v4, v6
}

// basePackets are whole packets.
func basePackets(t testing.TB, link pcapfilter.LinkType) [][]byte {
	v4, v6 := ipPackets(t)
	if link == pcapfilter.RawIP {
		return append(append(v4, v6...), nil, []byte{0x45}, make([]byte, 64), gopacket.Payload("\x50not an IP version, but long enough for one"))
	}
	var out [][]byte
	eth := func(typ uint16, before []byte, payload []byte) {
		h := append(append([]byte{}, mac2...), mac1...)
		h = append(h, byte(typ>>8), byte(typ))
		out = append(out, append(append(h, before...), payload...))
	}
	for i, family := range [][][]byte{v4, v6} {
		typ := []uint16{0x0800, 0x86dd}[i]
		inner := []byte{byte(typ >> 8), byte(typ)}
		for j, p := range family {
			eth(typ, nil, p)
			switch j { // a few behind each sort of header
			case 0, 3, 4:
				eth(0x8100, append([]byte{0x20, 5}, inner...), p)
				eth(0x88a8, append([]byte{0, 100, 0x81, 0, 0, 200}, inner...), p)
				eth(0x9100, append([]byte{0, 7, 0x81, 0, 0, 7}, inner...), p)
				eth(0x8847, []byte{0, 6, 0x41, 64}, p)
				eth(0x8847, []byte{0, 6, 0x40, 64, 0, 0xc, 0x81, 64}, p)
				eth(0x8100, []byte{0, 5, 0x88, 0x47, 0, 6, 0x41, 64}, p)
				ppp := []byte{0, byte([]int{0x21, 0x57}[i])}
				eth(0x8864, append([]byte{0x11, 0, 0, 7, 0, 60}, ppp...), p)
				eth(0x8100, append([]byte{0, 5, 0x88, 0x64, 0x11, 0, 0, 7, 0, 60}, ppp...), p)
			}
		}
	}
	for _, op := range []uint16{layers.ARPRequest, layers.ARPReply} {
		arp := stack(t, &layers.ARP{AddrType: layers.LinkTypeEthernet, Protocol: layers.EthernetTypeIPv4, HwAddressSize: 6, ProtAddressSize: 4,
			Operation: op, SourceHwAddress: mac1, SourceProtAddress: []byte{10, 0, 0, 1}, DstHwAddress: mac2, DstProtAddress: []byte{10, 0, 0, 2}})
		eth(0x0806, nil, arp)
		eth(0x8035, nil, arp)
		eth(0x8100, []byte{0, 5, 8, 6}, arp)
		copy(out[len(out)-3], "\xff\xff\xff\xff\xff\xff")
	}
	eth(38, nil, append([]byte{0x42, 0x42, 3}, make([]byte, 35)...))                      // spanning tree
	eth(50, nil, append([]byte{0xaa, 0xaa, 3, 0, 0, 0, 0x81, 0x37}, make([]byte, 30)...)) // IPX in SNAP
	eth(50, nil, append([]byte{0xaa, 0xaa, 3, 8, 0, 7, 0x80, 0x9b}, make([]byte, 30)...)) // AppleTalk
	eth(50, nil, append([]byte{0xff, 0xff, 0, 30}, make([]byte, 30)...))                  // IPX without 802.2
	eth(50, nil, append([]byte{0xfe, 0xfe, 3, 0x83}, make([]byte, 30)...))                // OSI
	eth(50, nil, append([]byte{0xf0, 0xf0, 3}, make([]byte, 30)...))                      // NetBEUI
	eth(0x8863, nil, []byte{0x11, 9, 0, 0, 0, 4, 1, 1, 0, 0})                             // PPPoE discovery
	eth(0x88cc, nil, make([]byte, 40))                                                    // LLDP
	eth(0x6004, nil, make([]byte, 40))                                                    // LAT
	eth(0x9000, nil, make([]byte, 40))                                                    // loopback
	eth(0x0800, nil, make([]byte, 60))                                                    // no IPv4 at all
	return append(out, nil, make([]byte, 80))
}

// truncated returns the packets, each at every length that it can be cut to.
func truncated(packets [][]byte) [][]byte {
	var out [][]byte
	for _, p := range packets {
		for n := range p {
			out = append(out, p[:n:n])
		}
		out = append(out, p)
	}
	return out
}

// aimed returns n packets that were changed towards what the program asks for.
// They are the same in every run.
func aimed(program []bpf.Instruction, base [][]byte, n int) [][]byte {
	rnd := rand.New(rand.NewPCG(1, uint64(len(program))))
	var out [][]byte
	for range n {
		p := append([]byte{}, base[rnd.IntN(len(base))]...)
		for range 1 + rnd.IntN(2) {
			aim(program, p, rnd.IntN)
		}
		switch rnd.IntN(8) {
		case 0:
			p = p[:rnd.IntN(len(p)+1)]
		case 1:
			p = append(p, make([]byte, rnd.IntN(100))...)
		}
		out = append(out, p)
	}
	return out
}
