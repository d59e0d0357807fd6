package pcapfilter

import (
	"fmt"

	"golang.org/x/net/bpf"
)

// A LinkType says what a packet begins with, by its number in pcap files
// (tcpdump.org/linktypes.html).
type LinkType int

// The link types.
const (
	Ethernet LinkType = 1   // LINKTYPE_ETHERNET (DLT_EN10MB): an Ethernet header
	RawIP    LinkType = 101 // LINKTYPE_RAW (DLT_RAW): an IPv4 or IPv6 header
)

// Match is what a program returns for a packet that matches; 0 for one that
// does not. It is the length that tcpdump captures unless told otherwise.
const Match = 262144

// Compile turns an expression into a classic BPF program for packets of the
// link type. An empty expression matches every packet. The error is an
// [*Error].
func Compile(expr string, link LinkType) ([]bpf.Instruction, error) {
	if link != Ethernet && link != RawIP {
		return nil, &Error{expr, 0, fmt.Sprintf("no filters for link type %d", link)}
	}
	tree, err := parse(expr)
	if err != nil {
		return nil, err
	}
	if tree == nil {
		return program(expr, nil)
	}
	c, err := newLowerer(expr, link).lower(tree)
	if err != nil {
		return nil, err
	}
	return program(expr, c)
}
