package pcapfilter

import "net/netip"

// A node is an expression that is true or false of a packet.
type node interface{ at() int }

type (
	andNode struct{ l, r node }
	orNode  struct{ l, r node }
	notNode struct{ x node }

	// A valueNode is an id with the qualifiers that apply to it, be they
	// written before it or taken over from the one before.
	valueNode struct {
		q     qualifiers
		value value
	}
	// A protoNode is the name of a protocol alone.
	protoNode struct {
		pos  int
		name string
	}
	// A castNode is broadcast or multicast.
	castNode struct {
		pos         int
		proto, what string
	}
	// A lenNode is less or greater.
	lenNode struct {
		pos  int
		less bool
		n    uint32
	}
	// A layerNode is vlan, mpls, pppoed or pppoes: what follows it in the text is
	// looked for behind that header.
	layerNode struct {
		pos   int
		layer string
		id    uint32
		hasID bool
	}
	// A relationNode compares two numbers.
	relationNode struct {
		pos  int
		op   string
		l, r arith
	}
)

func (n *andNode) at() int      { return n.l.at() }
func (n *orNode) at() int       { return n.l.at() }
func (n *notNode) at() int      { return n.x.at() }
func (n *valueNode) at() int    { return n.value.pos }
func (n *protoNode) at() int    { return n.pos }
func (n *castNode) at() int     { return n.pos }
func (n *lenNode) at() int      { return n.pos }
func (n *layerNode) at() int    { return n.pos }
func (n *relationNode) at() int { return n.pos }

// Qualifiers say what an id means. The empty string is none.
type qualifiers struct {
	set   bool   // there are some
	pos   int    // of the first
	proto string // ether, ip, tcp...
	dir   dir
	typ   string // host, net, port, portrange, proto
}

// A dir says which of the two addresses or ports is meant.
type dir uint8

const (
	dirNone dir = iota // either
	dirSrc
	dirDst
	dirOr  // either, as it was written
	dirAnd // both
)

// A value is an id.
type value struct {
	pos  int
	kind kind   // tokNumber, tokName, tokIPv4, tokIPv6, tokMAC
	text string // of a name or an IPv4 address
	num  uint32
	ip   netip.Addr
	mac  [6]byte
	bits int    // of a prefix length; -1 for none
	mask string // an IPv4 mask; "" for none
}

// An arith is an expression that is a number.
type arith interface{ at() int }

type (
	numberArith struct {
		pos int
		n   uint32
	}
	lenArith  struct{ pos int }
	loadArith struct {
		pos   int
		proto string
		index arith
		size  uint32
	}
	negArith struct {
		pos int
		x   arith
	}
	binaryArith struct {
		pos  int // of the operator
		op   string
		l, r arith
	}
)

func (a *numberArith) at() int { return a.pos }
func (a *lenArith) at() int    { return a.pos }
func (a *loadArith) at() int   { return a.pos }
func (a *negArith) at() int    { return a.pos }
func (a *binaryArith) at() int { return a.pos }
