// Package gdbremote is a minimal client of the GDB remote serial protocol
// (GDB manual, appendix E): it reads and writes the memory of a stopped
// target. QEMU's stub stops the machine when a client attaches.
package gdbremote

import (
	"bufio"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
)

// chunk is the number of bytes moved by one packet; QEMU's stub takes packets
// of up to 4096 characters (MAX_PACKET_LENGTH), two for each byte.
const chunk = 1024

const maxPacket = 64 << 10

// A Client is attached to one stub. It is not safe for concurrent use.
type Client struct {
	w io.Writer
	r *bufio.Reader
}

// A RefusedError is an answer of the stub that is not the one expected.
type RefusedError struct {
	Request string
	Answer  string
}

// Error quotes the request and the answer.
func (e *RefusedError) Error() string {
	return fmt.Sprintf("gdb stub answered %.40q to %.40q", e.Answer, e.Request)
}

// NewClient returns a client that speaks over rw.
func NewClient(rw io.ReadWriter) *Client {
	return &Client{w: rw, r: bufio.NewReader(rw)}
}

// ReadMemory fills p with the target's memory at addr and returns how many
// bytes of it were read.
func (c *Client) ReadMemory(p []byte, addr uint64) (int, error) {
	done := 0
	for done < len(p) {
		n := min(len(p)-done, chunk)
		req := fmt.Sprintf("m%x,%x", addr+uint64(done), n)
		ans, err := c.request(req)
		if err != nil {
			return done, err
		}
		if hex.DecodedLen(len(ans)) != n {
			return done, &RefusedError{req, ans}
		}
		if _, err := hex.Decode(p[done:], []byte(ans)); err != nil {
			return done, &RefusedError{req, ans}
		}
		done += n
	}
	return done, nil
}

// WriteMemory writes p to the target's memory at addr, page protection
// notwithstanding.
func (c *Client) WriteMemory(p []byte, addr uint64) error {
	for len(p) > 0 {
		n := min(len(p), chunk)
		req := fmt.Sprintf("M%x,%x:%x", addr, n, p[:n])
		ans, err := c.request(req)
		if err != nil {
			return err
		}
		if ans != "OK" {
			return &RefusedError{req, ans}
		}
		p, addr = p[n:], addr+uint64(n)
	}
	return nil
}

// Detach lets the target run on.
func (c *Client) Detach() error {
	ans, err := c.request("D")
	if err == nil && ans != "OK" {
		err = &RefusedError{"D", ans}
	}
	return err
}

func (c *Client) request(s string) (string, error) {
	if err := c.send(s); err != nil {
		return "", fmt.Errorf("gdb stub: %w", err)
	}
	ans, err := c.receive()
	if err != nil {
		return "", fmt.Errorf("gdb stub: %w", err)
	}
	return ans, nil
}

// send sends a packet until the stub acknowledges it.
func (c *Client) send(s string) error {
	packet := fmt.Sprintf("$%s#%02x", s, checksum(s))
	for range 3 {
		if _, err := io.WriteString(c.w, packet); err != nil {
			return err
		}
		for {
			b, err := c.r.ReadByte()
			if err != nil {
				return err
			}
			if b == '+' {
				return nil
			}
			if b == '-' {
				break
			}
			// Anything else is the rest of an unasked stop reply.
		}
	}
	return errors.New("packet not acknowledged")
}

// receive reads one packet and acknowledges it.
func (c *Client) receive() (string, error) {
	for range 3 {
		if _, err := c.r.ReadString('$'); err != nil {
			return "", err
		}
		body, err := c.readBody()
		if err != nil {
			return "", err
		}
		var sum [2]byte
		if _, err := io.ReadFull(c.r, sum[:]); err != nil {
			return "", err
		}
		ack := "+"
		if string(sum[:]) != fmt.Sprintf("%02x", checksum(body)) {
			ack = "-"
		}
		if _, err := io.WriteString(c.w, ack); err != nil {
			return "", err
		}
		if ack == "+" {
			return body, nil
		}
	}
	return "", errors.New("bad checksum")
}

// readBody reads up to the '#' that ends a packet's body.
func (c *Client) readBody() (string, error) {
	var body []byte
	for {
		b, err := c.r.ReadByte()
		if err != nil {
			return "", err
		}
		if b == '#' {
			return string(body), nil
		}
		if len(body) == maxPacket {
			return "", fmt.Errorf("packet of more than %d bytes", maxPacket)
		}
		body = append(body, b)
	}
}

func checksum(s string) (sum uint8) {
	for i := range len(s) {
		sum += s[i]
	}
	return sum
}
