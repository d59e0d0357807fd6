package trace

import (
	"encoding/hex"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
)

func bytesOf(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	qt.Assert(t, qt.IsNil(err))
	return b
}

// Headers of the tests.
const (
	macs = "020000000001 020000000002 "
	ip4  = "4500 003c 1c46 4000 40 06 0000 0a000002 0a000001 "
	tcp  = "ad16 01bb 00000001 00000000 50 02 7210 0000 0000 "
	ip6h = "60000000 0020 %s 40 fe800000000000000000000000000001 20010db8000000000000000000000002 "
)

func ip6(next string) string { return strings.ReplaceAll(ip6h, "%s", next) }

var packets = []struct {
	name string
	hex  string
	raw  bool
	want string
}{
	{"tcp", macs + "0800" + ip4 + tcp, false, "10.0.0.2:44310 > 10.0.0.1:443 tcp [S]"},
	{"tcp cut to ports", macs + "0800" + ip4 + "ad16 01bb", false, "10.0.0.2:44310 > 10.0.0.1:443 tcp"},
	{"tcp cut to nothing", macs + "0800" + ip4, false, "10.0.0.2 > 10.0.0.1 tcp"},
	{"ip cut", macs + "0800" + ip4[:20], false, "02:00:00:00:00:02 > 02:00:00:00:00:01 ip, cut or damaged"},
	{"ethernet cut", macs, false, ""},
	{"ethernet alone", macs + "0800", false, "02:00:00:00:00:02 > 02:00:00:00:00:01 ip, cut or damaged"},
	{"vlan", macs + "8100 0064 0800" + ip4 + tcp, false, "10.0.0.2:44310 > 10.0.0.1:443 tcp [S], vlan 100"},
	{"raw", ip4 + tcp, true, "10.0.0.2:44310 > 10.0.0.1:443 tcp [S]"},
	{"raw of nothing known", "00112233", true, ""},
	{"flags", ip4 + "ad16 01bb 00000001 00000000 50 18 7210 0000 0000", true, "10.0.0.2:44310 > 10.0.0.1:443 tcp [P.]"},
	{"no flags", ip4 + "ad16 01bb 00000001 00000000 50 00 7210 0000 0000", true, "10.0.0.2:44310 > 10.0.0.1:443 tcp [none]"},
	{"options that are damaged", ip4 + "ad16 01bb 00000001 00000000 f0 02 7210 0000 0000 ff00", true, "10.0.0.2:44310 > 10.0.0.1:443 tcp [S]"},
	{"udp", "4500 0020 0000 0000 40 11 0000 0a000002 0a000001 d431 0035 000c 0000 01020304", true, "10.0.0.2:54321 > 10.0.0.1:53 udp"},
	{"sctp", "4500 0020 0000 0000 40 84 0000 0a000002 0a000001 0001 0002 00000000 00000000", true, "10.0.0.2:1 > 10.0.0.1:2 sctp"},
	{"icmp", "4500 001c 0000 0000 40 01 0000 0a000002 0a000001 08 00 0000 0007 0003", true, "10.0.0.2 > 10.0.0.1 icmp echo request id 7 seq 3"},
	{"icmp unreachable", "4500 001c 0000 0000 40 01 0000 0a000002 0a000001 03 03 0000 0000 0000", true, "10.0.0.2 > 10.0.0.1 icmp destination unreachable (port)"},
	{"gre", "4500 001c 0000 0000 40 2f 0000 0a000002 0a000001 00 00 0800", true, "10.0.0.2 > 10.0.0.1 gre"},
	{"unknown protocol", "4500 001c 0000 0000 40 fd 0000 0a000002 0a000001 00 00 0800", true, "10.0.0.2 > 10.0.0.1 protocol 253"},
	{"first fragment", "4500 001c 0000 2000 40 11 0000 0a000002 0a000001 d431 0035 0008 0000", true, "10.0.0.2:54321 > 10.0.0.1:53 udp fragment"},
	{"later fragment", "4500 001c 0000 2010 40 11 0000 0a000002 0a000001 d431 0035 0008 0000", true, "10.0.0.2 > 10.0.0.1 udp fragment"},
	{"ipip", "4500 0050 0000 0000 40 04 0000 c0a80001 c0a80002 " + ip4 + tcp, true, "10.0.0.2:44310 > 10.0.0.1:443 tcp [S], encapsulated"},
	{"length 0", "4500 0000 1c46 4000 40 06 0000 0a000002 0a000001 " + tcp, true, "10.0.0.2:44310 > 10.0.0.1:443 tcp [S]"},
	{"ip6", macs + "86dd" + ip6("06") + tcp, false, "[fe80::1]:44310 > [2001:db8::2]:443 tcp [S]"},
	{"ip6 of length 0", "60000000 0000 06 40 fe800000000000000000000000000001 20010db8000000000000000000000002 " + tcp, true, "[fe80::1]:44310 > [2001:db8::2]:443 tcp [S]"},
	{"ip6 hop by hop", ip6("00") + "3a00 050200000100 " + "8000 0000 0001 0002", true, "fe80::1 > 2001:db8::2 icmp6 echo request id 1 seq 2"},
	{"ip6 fragment", ip6("2c") + "11 00 0009 00000001 d431 0035", true, "fe80::1 > 2001:db8::2 udp fragment"},
	{"ip6 first fragment", ip6("2c") + "11 00 0001 00000001 d431 0035", true, "[fe80::1]:54321 > [2001:db8::2]:53 udp fragment"},
	{"ip6 neighbour", ip6("3a") + "8700 0000 0000 0000", true, "fe80::1 > 2001:db8::2 icmp6 neighbor solicitation"},
	{"arp", macs + "0806 0001 0800 06 04 0001 020000000002 0a000002 000000000000 0a000001", false, "arp who-has 10.0.0.1 tell 10.0.0.2"},
	{"arp reply", macs + "0806 0001 0800 06 04 0002 020000000002 0a000002 020000000001 0a000001", false, "arp 10.0.0.2 is-at 02:00:00:00:00:02"},
	{"lldp", macs + "88cc 0207", false, "02:00:00:00:00:02 > 02:00:00:00:00:01 lldp"},
	{"unknown ethertype", macs + "1234 0207", false, "02:00:00:00:00:02 > 02:00:00:00:00:01 ethertype 0x1234"},
	{"nothing", "", false, ""},
}

// TestPacketText: packets by their headers, with one reader after another.
func TestPacketText(t *testing.T) {
	var tu tuples
	for _, p := range packets {
		t.Run(p.name, func(t *testing.T) {
			b := bytesOf(t, p.hex)
			qt.Check(t, qt.Equals(tu.text(b, len(b), p.raw), p.want))
		})
	}
}

// FuzzPacketText: bytes of any kind are named in a bounded line, by decoders
// whose faults nothing catches.
func FuzzPacketText(f *testing.F) {
	for _, p := range packets {
		f.Add(bytesOf(f, p.hex), p.raw)
	}
	var tu tuples
	tu.init()
	for _, p := range tu.parsers {
		p.IgnorePanic = true
	}
	f.Fuzz(func(t *testing.T, b []byte, raw bool) {
		s := tu.text(b, len(b), raw)
		if len(s) > 200 {
			t.Errorf("%d bytes: %s", len(s), s)
		}
		if strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' }) {
			t.Errorf("%q", s)
		}
	})
}
