// Package wire is the protocol between the host and the init of a guest: a
// stream of frames over a serial line. The host asks for processes and files,
// the guest answers with their output and status.
package wire

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
)

// A Kind says what a frame carries.
type Kind uint8

// The frame kinds. Each request carries an id the answers repeat.
const (
	Hello    Kind = iota + 1 // guest: ready; payload [Ready]
	Start                    // host: start a process; payload [Command]
	Started                  // guest: it runs; payload: pid, decimal
	Failed                   // guest: the request failed; payload: the error's text
	Stdout                   // guest: bytes of standard output, or of the file asked for in gzip
	Stderr                   // guest: bytes of standard error
	Exit                     // guest: the process ended, or the file is complete; payload [Status]
	Signal                   // host: send a signal to the process; payload: number, decimal
	ReadFile                 // host: send a file; payload: path
	PowerOff                 // host: sync and power off
	lastKind = PowerOff
)

// Limits of the protocol. Requests are kept shorter than the guest's input
// queue (N_TTY_BUF_SIZE, 4096): a serial line has no flow control, and what
// does not fit is lost.
const (
	MaxPayload = 16 << 10
	MaxRequest = 3 << 10
)

const headerLen = 9

// A Frame is one message.
type Frame struct {
	Kind    Kind
	ID      uint32
	Payload []byte
}

// Ready is the payload of [Hello].
type Ready struct {
	Release string   // uname -r
	Errors  []string // what init could not set up; the guest runs nevertheless
}

// A Command is the payload of [Start].
type Command struct {
	Path string
	Args []string // without the program's name
	Env  []string // in addition to init's
	Dir  string
}

// A Status is the payload of [Exit].
type Status struct {
	Code   int
	Signal int // number of the signal that ended the process, or 0
}

// An Error says why a stream is not one of frames.
type Error struct {
	Kind Kind
	Len  uint32
}

// Error describes the offending header.
func (e *Error) Error() string {
	return fmt.Sprintf("not a frame: kind %d, %d bytes of payload", e.Kind, e.Len)
}

// Write writes one frame with a single call of w.Write.
func Write(w io.Writer, f Frame) error {
	if len(f.Payload) > MaxPayload {
		return &Error{f.Kind, uint32(len(f.Payload))}
	}
	b := make([]byte, headerLen, headerLen+len(f.Payload))
	b[0] = byte(f.Kind)
	binary.LittleEndian.PutUint32(b[1:], f.ID)
	binary.LittleEndian.PutUint32(b[5:], uint32(len(f.Payload)))
	_, err := w.Write(append(b, f.Payload...))
	return err
}

// WriteJSON writes one frame whose payload is v in JSON.
func WriteJSON(w io.Writer, k Kind, id uint32, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return Write(w, Frame{k, id, b})
}

// Read reads one frame. At the end of the stream it returns io.EOF, inside a
// frame io.ErrUnexpectedEOF, and an [*Error] if the bytes are not a frame.
func Read(r io.Reader) (Frame, error) {
	var h [headerLen]byte
	if _, err := io.ReadFull(r, h[:]); err != nil {
		return Frame{}, err
	}
	f := Frame{Kind: Kind(h[0]), ID: binary.LittleEndian.Uint32(h[1:])}
	n := binary.LittleEndian.Uint32(h[5:])
	if f.Kind == 0 || f.Kind > lastKind || n > MaxPayload {
		return Frame{}, &Error{f.Kind, n}
	}
	f.Payload = make([]byte, n)
	if _, err := io.ReadFull(r, f.Payload); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return Frame{}, err
	}
	return f, nil
}
