package qmp

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
)

// script is a QEMU that says everything at once.
type script struct {
	io.Reader
	sent bytes.Buffer
}

func (s *script) Write(p []byte) (int, error) { return s.sent.Write(p) }

func newScript(lines ...string) *script {
	return &script{Reader: strings.NewReader(strings.Join(lines, "\r\n"))}
}

const greeting = `{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}}, "capabilities": ["oob"]}}`

func TestRun(t *testing.T) {
	s := newScript(greeting, `{"return": {}}`,
		`{"timestamp": {"seconds": 1, "microseconds": 2}, "event": "STOP"}`, `{"return": {"status": "paused"}}`,
		`{"error": {"class": "GenericError", "desc": "kdump-lzo is not available now"}}`)
	c, err := NewClient(s)
	qt.Assert(t, qt.IsNil(err))
	var st struct{ Status string }
	qt.Assert(t, qt.IsNil(c.Run("query-status", nil, &st)))
	qt.Assert(t, qt.Equals(st.Status, "paused"))
	err = c.Run("dump-guest-memory", map[string]any{"paging": false}, nil)
	var e *Error
	qt.Assert(t, qt.IsTrue(errors.As(err, &e)))
	qt.Assert(t, qt.ErrorMatches(err, `qemu refused dump-guest-memory: kdump-lzo is not available now \(GenericError\)`))
	qt.Assert(t, qt.Equals(s.sent.String(), `{"execute":"qmp_capabilities"}
{"execute":"query-status"}
{"execute":"dump-guest-memory","arguments":{"paging":false}}
`))
	qt.Assert(t, qt.ErrorIs(c.Run("stop", nil, nil), io.EOF))
}

func TestNoGreeting(t *testing.T) {
	_, err := NewClient(newScript(`{"return": {}}`))
	qt.Assert(t, qt.ErrorMatches(err, "reading the QMP greeting: not a greeting"))
	_, err = NewClient(newScript(`hello`))
	qt.Assert(t, qt.ErrorMatches(err, "reading the QMP greeting: invalid character.*"))
}
