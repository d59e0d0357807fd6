package guestinit

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/ksleuth/ksleuth/internal/guest/wire"
)

// host plays the other end of the line.
func host(t *testing.T) net.Conn {
	h, g := net.Pipe()
	s := &server{out: g, procs: make(map[uint32]*os.Process)}
	done := make(chan error, 1)
	go func() { done <- s.serve(g) }()
	t.Cleanup(func() {
		h.Close()
		<-done
	})
	return h
}

// answers collects the frames of one request until its last.
func answers(t *testing.T, c net.Conn) map[wire.Kind]string {
	got := map[wire.Kind]string{}
	for {
		f, err := wire.Read(c)
		qt.Assert(t, qt.IsNil(err))
		got[f.Kind] += string(f.Payload)
		if f.Kind == wire.Exit || f.Kind == wire.Failed {
			return got
		}
	}
}

func TestStart(t *testing.T) {
	c := host(t)
	cmd := wire.Command{Path: "/bin/sh", Args: []string{"-c", `echo "$X"; echo err >&2; pwd; exit 3`}, Env: []string{"X=out"}, Dir: "/"}
	qt.Assert(t, qt.IsNil(wire.WriteJSON(c, wire.Start, 5, cmd)))
	got := answers(t, c)
	qt.Assert(t, qt.Equals(got[wire.Stdout], "out\n/\n"))
	qt.Assert(t, qt.Equals(got[wire.Stderr], "err\n"))
	var st wire.Status
	qt.Assert(t, qt.IsNil(json.Unmarshal([]byte(got[wire.Exit]), &st)))
	qt.Assert(t, qt.Equals(st, wire.Status{Code: 3}))
}

func TestSignal(t *testing.T) {
	c := host(t)
	qt.Assert(t, qt.IsNil(wire.WriteJSON(c, wire.Start, 1, wire.Command{Path: "/bin/sleep", Args: []string{"1000"}})))
	f, err := wire.Read(c)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.Equals(f.Kind, wire.Started))
	qt.Assert(t, qt.IsNil(wire.Write(c, wire.Frame{Kind: wire.Signal, ID: 1, Payload: []byte("9")})))
	got := answers(t, c)
	qt.Assert(t, qt.Equals(got[wire.Exit], `{"Code":-1,"Signal":9}`))
}

func TestRequestsThatFail(t *testing.T) {
	c := host(t)
	for _, test := range []struct {
		frame wire.Frame
		want  string
	}{
		{wire.Frame{Kind: wire.Start, Payload: []byte(`{"Path":"/no/such"}`)}, `.*no such file or directory`},
		{wire.Frame{Kind: wire.Start, Payload: []byte(`{`)}, `unexpected end of JSON input`},
		{wire.Frame{Kind: wire.ReadFile, Payload: []byte(`/no/such`)}, `open /no/such: no such file or directory`},
		{wire.Frame{Kind: wire.Signal, Payload: []byte(`x`)}, `.*invalid syntax`},
		{wire.Frame{Kind: wire.Hello}, `unexpected request of kind 1`},
	} {
		qt.Assert(t, qt.IsNil(wire.Write(c, test.frame)))
		qt.Check(t, qt.Matches(answers(t, c)[wire.Failed], test.want))
	}
}

func TestReadFile(t *testing.T) {
	c := host(t)
	path := filepath.Join(t.TempDir(), "f")
	want := make([]byte, 3*wire.MaxPayload+1)
	rng := rand.NewChaCha8([32]byte{}) // incompressible: several frames
	_, _ = rng.Read(want)
	qt.Assert(t, qt.IsNil(os.WriteFile(path, want, 0o600)))
	qt.Assert(t, qt.IsNil(wire.Write(c, wire.Frame{Kind: wire.ReadFile, Payload: []byte(path)})))
	z, err := gzip.NewReader(strings.NewReader(answers(t, c)[wire.Stdout]))
	qt.Assert(t, qt.IsNil(err))
	got, err := io.ReadAll(z)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsTrue(bytes.Equal(got, want)))
}
