// Package pcapfilter compiles filters for packets, in the language of
// pcap-filter(7) that tcpdump and Wireshark's capture filters use, to classic
// BPF and on to eBPF that runs in a tracer.
//
// A filter means what it means to libpcap 1.10, or it is refused with an
// [*Error]: nothing is approximated. That covers what surprises people:
//
//   - "and" and "or" bind equally and group to the left: "ip or ip6 and tcp" is
//     "(ip or ip6) and tcp".
//   - A load outside of the packet ends the program: no match, under "not" too.
//   - Ports are looked for in IPv4 if the packet is no later fragment, and in
//     IPv6 if TCP, UDP or SCTP follows the fixed header at once. "tcp", "proto"
//     and "ip6 proto" also look behind a fragment header that follows at once.
//   - tcp[...], udp[...] and the like are of IPv4 alone; icmp6[...] of IPv6.
//   - The right side of an arithmetic operator is not checked for its protocol:
//     "1 + tcp[0] = 3" takes any packet for TCP, "tcp[0] + 1 = 3" does not.
//   - vlan, mpls and pppoes move everything that follows them in the text
//     behind their header, what follows "or" included.
//   - Tests of a truncated packet are made in the order of the text. Tcpdump's
//     optimizer may change that order; then the meaning is that of tcpdump -O.
//
// Supported: host, net, port and portrange with src, dst, both and either, and
// with ether, ip, ip6, arp, rarp, tcp, udp and sctp; lists of ids that share
// qualifiers; net/len and net mask; the abbreviations of protocols, and ether
// proto, ip proto, ip6 proto and proto; broadcast and multicast; less, greater
// and len; vlan, mpls, pppoed and pppoes; comparisons of arithmetic with all
// operators and names of offsets, flags and types. Names of protocols and of
// common services come from tables here, and no file is read.
//
// Refused: names of hosts and networks; protochain; gateway; ip broadcast,
// which needs a netmask; geneve and vxlan; llc and the PDUs of IS-IS; hosts of
// DECnet; what belongs to 802.11, ATM, SS7 and BSD's pf; inbound, outbound and
// ifindex; an offset below 0 or above 65407; and % and ^ beside other operators
// without brackets, since they have no precedence in libpcap.
//
// A filter that no packet of the link type can match, such as arp on bare IP, is
// compiled to one that never matches, where tcpdump refuses it.
//
// A VLAN tag that the network card took out of a packet is not in its bytes:
// vlan does not see it, where tcpdump on a live interface does.
package pcapfilter
