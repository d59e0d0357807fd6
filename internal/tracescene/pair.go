package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ksleuth/ksleuth/internal/guest/rtnl"
)

// mtu lets frames of more than the usual size pass; XDP on veth allows those
// that fit a page with room in front.
const mtu = 3000

// A pair is two devices that are connected: a packet sent by one is received
// by the other.
type pair struct {
	sender, receiver string
	out              int // sends on sender
	back             int // counts what sender receives
	in               int // counts what gets past XDP on receiver
}

// makePair makes the devices PREFIXa, the sender, and PREFIXb, with nothing on
// them but what is sent.
func makePair(prefix string) (*pair, error) {
	p := &pair{sender: prefix + "a", receiver: prefix + "b"}
	// Devices that come up would send packets of their own.
	err := os.WriteFile("/proc/sys/net/ipv6/conf/default/disable_ipv6", []byte("1"), 0)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	if err := rtnl.AddPair(p.sender, p.receiver, "veth"); err != nil {
		return nil, fmt.Errorf("a pair of veth devices: %w", err)
	}
	for _, name := range []string{p.sender, p.receiver} {
		if err := errors.Join(rtnl.SetMTU(name, mtu), rtnl.Raise(name)); err != nil {
			return nil, fmt.Errorf("device %s: %w", name, err)
		}
	}
	if p.out, err = packetSocket(p.sender, 0); err != nil {
		return nil, err
	}
	if p.back, err = packetSocket(p.sender, unix.ETH_P_ALL); err != nil {
		return nil, err
	}
	p.in, err = packetSocket(p.receiver, unix.ETH_P_ALL)
	return p, err
}

// packetSocket opens a socket that sends on a device; with a protocol it
// receives, but not what is sent there.
func packetSocket(device string, protocol uint16) (int, error) {
	index, err := rtnl.Index(device)
	if err != nil {
		return -1, err
	}
	network := protocol<<8 | protocol>>8
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("a packet socket: %w", err)
	}
	err = unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1)
	return fd, errors.Join(err, unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: network, Ifindex: index}))
}

// received is how many packets a socket was given since it was last asked.
// They are not read: the kernel counts those too for which there is no room.
func received(fd int) (uint32, error) {
	stats, err := unix.GetsockoptTpacketStats(fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
	if err != nil {
		return 0, err
	}
	return stats.Packets, nil
}

// arrived tells where the packets went that arrived since it was last asked.
type arrived struct {
	Sent   int    `json:"sent"`
	Passed uint32 `json:"passed"` // got past XDP
	Back   uint32 `json:"back"`   // came back to the sender
}

// batch is how many packets are sent at once: a veth device has room for 256.
const batch = 32

// patience is how long a batch may take.
const patience = 10 * time.Second

// send sends packets, each made for its sequence number, at a rate a second,
// or as fast as they are seen if 0. None is lost on the way: a batch waits
// until seen, which counts the runs of the program, has the one before.
func (p *pair) send(n, rate int, frame func(seq int) []byte, seen func() (uint64, error)) (*arrived, error) {
	first, err := seen()
	if err != nil {
		return nil, err
	}
	if _, err := p.where(0); err != nil {
		return nil, err
	}
	start := time.Now()
	for i := range n {
		if rate > 0 {
			time.Sleep(time.Until(start.Add(time.Duration(i) * time.Second / time.Duration(rate))))
		}
		if _, err := unix.Write(p.out, frame(i)); err != nil {
			return nil, fmt.Errorf("sending packet %d: %w", i, err)
		}
		if i%batch == batch-1 || i == n-1 {
			if err := await(first+uint64(i)+1, seen); err != nil {
				return nil, err
			}
		}
	}
	return p.where(n)
}

// await waits until a counter has a value.
func await(want uint64, counter func() (uint64, error)) error {
	for start := time.Now(); ; time.Sleep(20 * time.Microsecond) {
		got, err := counter()
		if err != nil || got >= want {
			return err
		}
		if time.Since(start) > patience {
			return fmt.Errorf("%d packets were seen, not %d", got, want)
		}
	}
}

// where asks where the packets went. What the program passed on is under way a
// little longer.
func (p *pair) where(sent int) (*arrived, error) {
	a := arrived{Sent: sent}
	for quiet := 0; quiet < 3; {
		time.Sleep(5 * time.Millisecond)
		in, err := received(p.in)
		if err != nil {
			return nil, err
		}
		back, err := received(p.back)
		if err != nil {
			return nil, err
		}
		a.Passed += in
		a.Back += back
		if quiet++; in > 0 || back > 0 {
			quiet = 0
		}
	}
	return &a, nil
}

// Numbers in the packets of [frame], as tracescene.h knows them.
const (
	magic      = 0x6b736c65
	payload    = 42
	packetSize = payload + 8
	sourcePort = 44310
	destPort   = 443
)

// frame makes the packet of a sequence number: UDP from 10.0.0.2:44310 to
// 10.0.0.1:443.
func frame(seq int) []byte {
	b := make([]byte, 60) // the smallest frame of Ethernet
	put16, put32 := binary.BigEndian.PutUint16, binary.BigEndian.PutUint32
	copy(b, []byte{2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2})
	put16(b[12:], unix.ETH_P_IP)
	ip := b[14:34]
	copy(ip, []byte{0x45, 0, 0, packetSize - 14, 0, 0, 0, 0, 64, unix.IPPROTO_UDP, 0, 0, 10, 0, 0, 2, 10, 0, 0, 1})
	put16(ip[10:], checksum(ip))
	put16(b[34:], sourcePort)
	put16(b[36:], destPort)
	put16(b[38:], packetSize-34) // no checksum
	put32(b[payload:], magic)
	put32(b[payload+4:], uint32(seq))
	return b
}

// checksum is that of IP: the complement of the sum of 16-bit words.
func checksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
