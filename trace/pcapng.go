package trace

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
)

// A PcapWriter writes packets to a pcapng file, each with a comment, under one
// interface for each device and kind of link. Each packet is written out
// before the call returns.
type PcapWriter struct {
	w      io.Writer
	closer io.Closer
	ng     *pcapgo.NgWriter // nil before the first packet
	ids    map[pcapLink]int
}

// A pcapLink is what has an interface of its own in the file.
type pcapLink struct {
	netns   uint32
	ifindex int
	raw     bool
}

// maxInterfaces bounds the interfaces: devices come and go in the hundreds at
// most, but the numbers are foreign.
const maxInterfaces = 1 << 16

// ErrInterfaces says that packets came from more devices than a file is given.
var ErrInterfaces = errors.New("packets of too many network devices")

// NewPcapWriter returns a writer to w.
func NewPcapWriter(w io.Writer) *PcapWriter {
	return &PcapWriter{w: w, ids: make(map[pcapLink]int)}
}

// CreatePcap returns a writer to a file, which it empties or makes; nobody but
// its owner may read it then: packets hold what was said in confidence.
func CreatePcap(path string) (*PcapWriter, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	if st, err := f.Stat(); err == nil && st.Mode().IsRegular() {
		if err := f.Chmod(0o600); err != nil {
			return nil, errors.Join(err, f.Close())
		}
	}
	p := NewPcapWriter(f)
	p.closer = f
	return p, nil
}

// Write writes a packet that was seen at a time, in nanoseconds since 1970,
// with a comment, such as [Call.VerdictPath]. A packet without data is one of
// 0 bytes captured.
func (p *PcapWriter) Write(pkt *Packet, at int64, comment string) error {
	id, err := p.link(pkt)
	if err != nil {
		return err
	}
	ci := gopacket.CaptureInfo{
		Timestamp: time.Unix(0, at), CaptureLength: len(pkt.Data),
		Length: max(pkt.Len, len(pkt.Data)), InterfaceIndex: id,
	}
	var o pcapgo.NgPacketOptions
	if comment != "" {
		o.Comments = []string{commentText(comment)}
	}
	if err := p.ng.WritePacketWithOptions(ci, pkt.Data, o); err != nil {
		return fmt.Errorf("write a packet: %w", err)
	}
	return p.ng.Flush()
}

// Close ends the file. A file without packets is a valid one as well.
func (p *PcapWriter) Close() error {
	var err error
	if p.ng == nil {
		err = p.writeEmpty()
	}
	if p.closer != nil {
		err = errors.Join(err, p.closer.Close())
	}
	return err
}

// maxComment bounds a comment: an option's length has 16 bits.
const maxComment = 32 << 10

// commentText is a comment as the format has it: UTF-8, no NUL.
func commentText(s string) string {
	s = strings.ReplaceAll(s, "\x00", "")
	if len(s) > maxComment {
		s = s[:maxComment]
	}
	if !utf8.ValidString(s) {
		s = strings.ToValidUTF8(s, "?")
	}
	return s
}

// link returns the number of the interface that a packet belongs to.
func (p *PcapWriter) link(pkt *Packet) (int, error) {
	key := pcapLink{pkt.Netns, pkt.Ifindex, pkt.Raw}
	if id, ok := p.ids[key]; ok {
		return id, nil
	}
	if len(p.ids) >= maxInterfaces {
		return 0, ErrInterfaces
	}
	in := pcapInterface(pkt)
	if p.ng == nil {
		ng, err := pcapgo.NewNgWriterInterface(p.w, in, pcapOptions())
		if err != nil {
			return 0, fmt.Errorf("begin a pcapng file: %w", err)
		}
		p.ng = ng
		p.ids[key] = 0
		return 0, nil
	}
	id, err := p.ng.AddInterface(in)
	if err != nil {
		return 0, fmt.Errorf("add an interface to a pcapng file: %w", err)
	}
	p.ids[key] = id
	return id, nil
}

func pcapOptions() pcapgo.NgWriterOptions {
	return pcapgo.NgWriterOptions{SectionInfo: pcapgo.NgSectionInfo{Hardware: "x86-64", OS: "linux", Application: "ksleuth"}}
}

func pcapInterface(pkt *Packet) pcapgo.NgInterface {
	in := pcapgo.NgInterface{Name: commentText(pkt.Iface), LinkType: layers.LinkTypeEthernet, TimestampResolution: 9}
	if in.Name == "" {
		in.Name = "if" + strconv.Itoa(pkt.Ifindex)
	}
	if pkt.Netns != 0 {
		in.Description = fmt.Sprintf("index %d in network namespace %d", pkt.Ifindex, pkt.Netns)
	}
	if pkt.Raw {
		in.LinkType = layers.LinkTypeRaw
	}
	return in
}

// writeEmpty writes the header of a section alone: the library's writer always
// adds an interface, which there is none of.
func (p *PcapWriter) writeEmpty() error {
	var b bytes.Buffer
	ng, err := pcapgo.NewNgWriterInterface(&b, pcapgo.NgInterface{LinkType: layers.LinkTypeEthernet}, pcapOptions())
	if err == nil {
		err = ng.Flush()
	}
	if err != nil {
		return err
	}
	size := int(binary.LittleEndian.Uint32(b.Bytes()[4:])) // of the first block
	_, err = p.w.Write(b.Bytes()[:size])
	return err
}
