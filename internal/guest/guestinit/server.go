package guestinit

import (
	"bufio"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/ksleuth/ksleuth/internal/guest/wire"
)

var errPoweredOff = errors.New("powered off by the host")

// A server answers the host's requests over one line.
type server struct {
	outMu sync.Mutex
	out   io.Writer

	mu    sync.Mutex
	procs map[uint32]*os.Process
}

func (s *server) send(k wire.Kind, id uint32, payload []byte) error {
	s.outMu.Lock()
	defer s.outMu.Unlock()
	return wire.Write(s.out, wire.Frame{Kind: k, ID: id, Payload: payload})
}

func (s *server) sendJSON(k wire.Kind, id uint32, v any) error {
	s.outMu.Lock()
	defer s.outMu.Unlock()
	return wire.WriteJSON(s.out, k, id, v)
}

// fail answers a request with an error, cut to what a frame holds.
func (s *server) fail(id uint32, err error) error {
	text := err.Error()
	return s.send(wire.Failed, id, []byte(text[:min(len(text), wire.MaxPayload)]))
}

// serve reads requests until the host asks to power off or the line breaks.
// Only a broken line ends it: a request that cannot be served is answered.
func (s *server) serve(in io.Reader) error {
	r := bufio.NewReader(in)
	for {
		f, err := wire.Read(r)
		if err != nil {
			return fmt.Errorf("reading a request: %w", err)
		}
		switch f.Kind {
		case wire.Start:
			err = s.start(f)
		case wire.Signal:
			err = s.signal(f)
		case wire.ReadFile:
			go s.readFile(f)
		case wire.PowerOff:
			return errPoweredOff
		default:
			err = s.fail(f.ID, fmt.Errorf("unexpected request of kind %d", f.Kind))
		}
		if err != nil {
			return fmt.Errorf("answering the host: %w", err)
		}
	}
}

func (s *server) start(f wire.Frame) error {
	var c wire.Command
	if err := json.Unmarshal(f.Payload, &c); err != nil {
		return s.fail(f.ID, err)
	}
	cmd := exec.Command(c.Path, c.Args...)
	cmd.Env = append(os.Environ(), c.Env...)
	cmd.Dir = c.Dir
	// A child that outlives its parent must not hold up the status for ever.
	cmd.WaitDelay = 10 * time.Second
	cmd.Stdout = &stream{s, wire.Stdout, f.ID}
	cmd.Stderr = &stream{s, wire.Stderr, f.ID}
	// Its own group, so that a signal reaches its children too.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return s.fail(f.ID, err)
	}
	s.mu.Lock()
	s.procs[f.ID] = cmd.Process
	s.mu.Unlock()
	if err := s.send(wire.Started, f.ID, strconv.AppendInt(nil, int64(cmd.Process.Pid), 10)); err != nil {
		return err
	}
	go s.wait(f.ID, cmd)
	return nil
}

// wait reports the end of a process. Write errors are not lost: serve meets
// the same broken line.
func (s *server) wait(id uint32, cmd *exec.Cmd) {
	_ = cmd.Wait()
	s.mu.Lock()
	delete(s.procs, id)
	s.mu.Unlock()
	st := wire.Status{Code: cmd.ProcessState.ExitCode()}
	if ws, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		st.Signal = int(ws.Signal())
	}
	_ = s.sendJSON(wire.Exit, id, st)
}

// signal signals the process group of a request. A process that has ended
// meanwhile is not an error: its status is on the way.
func (s *server) signal(f wire.Frame) error {
	n, err := strconv.Atoi(string(f.Payload))
	if err != nil {
		return s.fail(f.ID, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.procs[f.ID]; p != nil {
		_ = syscall.Kill(-p.Pid, syscall.Signal(n))
	}
	return nil
}

func (s *server) readFile(f wire.Frame) {
	file, err := os.Open(string(f.Payload))
	if err == nil {
		defer file.Close()
		z := gzip.NewWriter(&stream{s, wire.Stdout, f.ID})
		_, err = io.Copy(z, file)
		err = errors.Join(err, z.Close())
	}
	if err != nil {
		_ = s.fail(f.ID, err)
		return
	}
	_ = s.sendJSON(wire.Exit, f.ID, wire.Status{})
}

// A stream is an io.Writer that sends what it is given in frames.
type stream struct {
	s    *server
	kind wire.Kind
	id   uint32
}

func (w *stream) Write(p []byte) (int, error) {
	done := 0
	for done < len(p) {
		n := min(len(p)-done, wire.MaxPayload)
		if err := w.s.send(w.kind, w.id, p[done:done+n]); err != nil {
			return done, err
		}
		done += n
	}
	return done, nil
}
