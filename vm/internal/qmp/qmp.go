// Package qmp is a client of the QEMU Machine Protocol
// (docs/interop/qmp-spec.rst): one command at a time, events skipped.
package qmp

import (
	"encoding/json"
	"fmt"
	"io"
)

// A Client speaks to one QEMU. It is not safe for concurrent use.
type Client struct {
	rw  io.ReadWriter
	dec *json.Decoder
}

// An Error is QEMU's refusal of a command.
type Error struct {
	Command string
	Class   string
	Desc    string
}

// Error says which command was refused and why.
func (e *Error) Error() string {
	return fmt.Sprintf("qemu refused %s: %s (%s)", e.Command, e.Desc, e.Class)
}

type message struct {
	QMP    *json.RawMessage `json:"QMP"`
	Event  string           `json:"event"`
	Return json.RawMessage  `json:"return"`
	Error  *struct {
		Class string `json:"class"`
		Desc  string `json:"desc"`
	} `json:"error"`
}

// NewClient waits for QEMU's greeting on rw and leaves negotiation mode.
func NewClient(rw io.ReadWriter) (*Client, error) {
	c := &Client{rw: rw, dec: json.NewDecoder(rw)}
	var m message
	if err := c.dec.Decode(&m); err != nil {
		return nil, fmt.Errorf("reading the QMP greeting: %w", err)
	}
	if m.QMP == nil {
		return nil, fmt.Errorf("reading the QMP greeting: not a greeting")
	}
	return c, c.Run("qmp_capabilities", nil, nil)
}

// Run executes a command with its arguments, which may be nil, and decodes
// what it returns into ret, which may be nil. A refusal is an [*Error].
func (c *Client) Run(command string, args, ret any) error {
	b, err := json.Marshal(struct {
		Execute   string `json:"execute"`
		Arguments any    `json:"arguments,omitempty"`
	}{command, args})
	if err != nil {
		return fmt.Errorf("qmp %s: %w", command, err)
	}
	if _, err := c.rw.Write(append(b, '\n')); err != nil {
		return fmt.Errorf("qmp %s: %w", command, err)
	}
	for {
		var m message
		if err := c.dec.Decode(&m); err != nil {
			return fmt.Errorf("qmp %s: %w", command, err)
		}
		switch {
		case m.Error != nil:
			return &Error{command, m.Error.Class, m.Error.Desc}
		case m.Return != nil && ret != nil:
			if err := json.Unmarshal(m.Return, ret); err != nil {
				return fmt.Errorf("qmp %s: %w", command, err)
			}
			return nil
		case m.Return != nil:
			return nil
		}
	}
}
