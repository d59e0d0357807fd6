package main

import (
	_ "embed"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/cilium/ebpf/link"

	"github.com/ksleuth/ksleuth/internal/guest/rtnl"
)

//go:embed packets.bpf.o
var packetsObject []byte

// A seenPacket is struct seen of packets.bpf.c.
type seenPacket struct {
	Len      uint32
	Returned int32
	Class    uint32
	Head     [96]byte
}

// A printedPacket is one that was seen, to be printed. By tc its head is
// without what the kernel took off.
type printedPacket struct {
	Len      uint32 `json:"len"`
	Returned int32  `json:"returned"`
	Class    uint32 `json:"class"` // of XDP: what size_class returned
	Head     string `json:"head"`  // its first 96 bytes, as hexadecimal digits
}

// setPackets sets programs that copy packets: see, by XDP, and see_tc, at
// clsact's ingress, on the device tspb. It can also
//
//	send-file FILE    send the packets of a pcap file, one by one
//	seen              tell the packets that each program saw, in order
func setPackets(args []string) (*scene, error) {
	if len(args) > 0 {
		return nil, fmt.Errorf("packets does not know %q", args)
	}
	s := newScene()
	if _, err := s.load(packetsObject); err != nil {
		return nil, err
	}
	if err := s.onPair("tsp", "see"); err != nil {
		return nil, err
	}
	index, err := rtnl.Index(s.pair.receiver)
	if err != nil {
		return nil, err
	}
	if err := rtnl.AddClsact(index); err != nil {
		return nil, fmt.Errorf("clsact: %w", err)
	}
	err = rtnl.AddFilter(index, rtnl.IngressParent, 10, rtnl.U32(rtnl.TCABPFFD, uint32(s.progs["see_tc"].FD())),
		rtnl.Str(rtnl.TCABPFName, "see_tc"), rtnl.U32(rtnl.TCABPFFlags, rtnl.BPFActDirect))
	if err != nil {
		return nil, fmt.Errorf("filter: %w", err)
	}
	s.commands["send"] = func(args []string) (any, error) {
		n, err := number(args, 0, 1)
		if err != nil {
			return nil, err
		}
		rate, err := number(args, 1, 0)
		if err != nil {
			return nil, err
		}
		return s.pair.send(n, rate, frame, s.seenByXDP)
	}
	s.commands["send-file"] = s.sendFile
	s.commands["seen"] = s.seen
	s.commands["reset"] = func([]string) (any, error) {
		return struct{}{}, errors.Join(s.vars["count_xdp"].Set(uint32(0)), s.vars["count_tc"].Set(uint32(0)))
	}
	s.commands["counters"] = func([]string) (any, error) {
		xdp, err := s.counted("count_xdp")
		if err != nil {
			return nil, err
		}
		tc, err := s.counted("count_tc")
		return map[string]uint32{"see": xdp, "see_tc": tc}, err
	}
	return s, nil
}

func (s *scene) counted(name string) (uint32, error) {
	var n uint32
	err := s.vars[name].Get(&n)
	return n, err
}

func (s *scene) seenByXDP() (uint64, error) {
	n, err := s.counted("count_xdp")
	return uint64(n), err
}

// seen tells the packets that each program saw.
func (s *scene) seen([]string) (any, error) {
	out := map[string][]printedPacket{}
	for _, from := range []struct{ name, slots, counter string }{
		{"see", "seen_xdp", "count_xdp"}, {"see_tc", "seen_tc", "count_tc"},
	} {
		n, err := s.counted(from.counter)
		if err != nil {
			return nil, err
		}
		all := []printedPacket{}
		for i := range n {
			var p seenPacket
			if err := s.maps[from.slots].Lookup(i, &p); err != nil {
				return nil, err
			}
			all = append(all, printedPacket{p.Len, p.Returned, p.Class, hex.EncodeToString(p.Head[:min(p.Len, uint32(len(p.Head)))])})
		}
		out[from.name] = all
	}
	return out, nil
}

// sendFile sends the packets of a file, one by one.
func (s *scene) sendFile(args []string) (any, error) {
	if len(args) != 1 {
		return nil, errors.New("send-file needs a file")
	}
	f, err := os.Open(args[0])
	if err != nil {
		return nil, err
	}
	defer f.Close()
	packets, err := readPcap(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", args[0], err)
	}
	return s.pair.send(len(packets), 0, func(seq int) []byte { return packets[seq] }, s.seenByXDP)
}

// maxFrame bounds a packet of a file.
const maxFrame = 1 << 16

// readPcap reads the packets of a classic pcap file of either byte order.
func readPcap(r io.Reader) ([][]byte, error) {
	var header [24]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		return nil, err
	}
	var order binary.ByteOrder = binary.LittleEndian
	switch m := order.Uint32(header[:]); m {
	case 0xa1b2c3d4, 0xa1b23c4d:
	case 0xd4c3b2a1, 0x4d3cb2a1:
		order = binary.BigEndian
	default:
		return nil, fmt.Errorf("no pcap file: it begins with %#x", m)
	}
	var out [][]byte
	for {
		var h [16]byte
		if _, err := io.ReadFull(r, h[:]); errors.Is(err, io.EOF) {
			return out, nil
		} else if err != nil {
			return nil, err
		}
		n := order.Uint32(h[8:])
		if n > maxFrame {
			return nil, fmt.Errorf("packet %d has %d bytes", len(out), n)
		}
		p := make([]byte, n)
		if _, err := io.ReadFull(r, p); err != nil {
			return nil, err
		}
		out = append(out, p)
	}
}

// attachXDP attaches a program to a device, in the driver.
func (s *scene) attachXDP(device, prog string) error {
	index, err := rtnl.Index(device)
	if err != nil {
		return err
	}
	l, err := link.AttachXDP(link.XDPOptions{Program: s.progs[prog], Interface: index, Flags: link.XDPDriverMode})
	if err == nil {
		s.links = append(s.links, l)
	}
	return err
}
