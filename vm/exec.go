package vm

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"path"
	"strconv"
	"syscall"

	"github.com/ksleuth/ksleuth/internal/guest/wire"
)

// A Cmd is a program to run in a guest.
type Cmd struct {
	Path   string    // in the guest
	Args   []string  // without the program's name
	Env    []string  // NAME=value, in addition to PATH, HOME and TMPDIR
	Dir    string    // default: the root
	Stdout io.Writer // may be nil; a write that blocks holds up the whole guest's output
	Stderr io.Writer // may be nil
}

// A Process is a program running in a guest.
type Process struct {
	vm     *VM
	id     uint32
	what   string
	stdout io.Writer
	stderr io.Writer

	started chan struct{} // closed when pid or err is known
	pid     int
	exited  chan struct{} // closed when status or err is known
	status  wire.Status
	err     error
}

// Run runs a program and waits for its end. A program that fails gives an
// [*ExitError]; one that could not be started a [*RequestError]. If ctx ends
// first, the guest is killed: nothing less stops a hanging kernel.
func (v *VM) Run(ctx context.Context, c Cmd) error {
	p, err := v.StartProcess(ctx, c)
	if err != nil {
		return err
	}
	return p.Wait(ctx)
}

// StartProcess starts a program and returns as soon as it has a process id.
func (v *VM) StartProcess(ctx context.Context, c Cmd) (*Process, error) {
	req, err := json.Marshal(wire.Command{Path: c.Path, Args: c.Args, Env: c.Env, Dir: c.Dir})
	if err != nil {
		return nil, fmt.Errorf("vm: %w", err)
	}
	p := v.newProcess("running "+path.Base(c.Path), c.Stdout, c.Stderr)
	if err := v.request(ctx, p, wire.Start, req); err != nil {
		return nil, err
	}
	return p, p.await(ctx, p.started)
}

// CopyFile writes a file of the guest to w. It travels compressed: serial
// lines are slow, and /proc/kallsyms is long.
func (v *VM) CopyFile(ctx context.Context, w io.Writer, name string) error {
	zipped, line := io.Pipe()
	p := v.newProcess("reading "+name, line, nil)
	if err := v.request(ctx, p, wire.ReadFile, []byte(name)); err != nil {
		return err
	}
	unzipped := make(chan error, 1)
	go func() {
		err := gunzip(w, zipped)
		zipped.CloseWithError(err) // let the line's other traffic pass
		unzipped <- err
	}()
	err := p.Wait(ctx)
	line.Close()
	if unzipErr := <-unzipped; err == nil && unzipErr != nil {
		err = fmt.Errorf("%s: %w", p.what, unzipErr)
	}
	return err
}

func gunzip(w io.Writer, r io.Reader) error {
	z, err := gzip.NewReader(r)
	if err != nil {
		return err
	}
	_, err = io.Copy(w, z)
	return err
}

// Pid is the process id in the guest.
func (p *Process) Pid() int { return p.pid }

// Signal sends a signal to the process and its group. It does not wait.
func (p *Process) Signal(ctx context.Context, sig syscall.Signal) error {
	return p.vm.send(ctx, p.what, wire.Frame{Kind: wire.Signal, ID: p.id, Payload: strconv.AppendInt(nil, int64(sig), 10)})
}

// Wait waits for the end of the process; see [VM.Run].
func (p *Process) Wait(ctx context.Context) error {
	if err := p.await(ctx, p.exited); err != nil {
		return err
	}
	if p.status != (wire.Status{}) {
		return &ExitError{p.status.Code, syscall.Signal(p.status.Signal)}
	}
	return nil
}

// await waits for one of p's channels and returns p's error, if it has one by
// then.
func (p *Process) await(ctx context.Context, c <-chan struct{}) error {
	select {
	case <-c:
	case <-ctx.Done():
		p.vm.kill(context.Cause(ctx))
		<-p.vm.done
		return p.vm.failure(p.what, context.Cause(ctx))
	}
	if isDisconnect(p.err) {
		return p.vm.failure(p.what, p.err)
	}
	return p.err
}

func (v *VM) newProcess(what string, stdout, stderr io.Writer) *Process {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.lastID++
	p := &Process{vm: v, id: v.lastID, what: what, stdout: stdout, stderr: stderr, started: make(chan struct{}), exited: make(chan struct{})}
	if p.stdout == nil {
		p.stdout = io.Discard
	}
	if p.stderr == nil {
		p.stderr = io.Discard
	}
	return p
}

// request sends the request that creates p, and has its answers given to it.
func (v *VM) request(ctx context.Context, p *Process, k wire.Kind, payload []byte) error {
	v.mu.Lock()
	broken := v.broken
	if broken == nil {
		v.procs[p.id] = p
	}
	v.mu.Unlock()
	if broken != nil {
		return v.failure(p.what, broken)
	}
	return v.send(ctx, p.what, wire.Frame{Kind: k, ID: p.id, Payload: payload})
}

func (v *VM) send(ctx context.Context, what string, f wire.Frame) error {
	if len(f.Payload) > wire.MaxRequest {
		return &RequestError{what, fmt.Sprintf("%d bytes of path, arguments and environment, %d fit", len(f.Payload), wire.MaxRequest)}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	v.sendMu.Lock()
	defer v.sendMu.Unlock()
	if err := wire.Write(v.conns[controlSocket], f); err != nil {
		return v.failure(what, err)
	}
	return nil
}

// dispatch gives the guest's messages to the processes they belong to, until
// the line breaks.
func (v *VM) dispatch(r io.Reader) {
	for {
		f, err := wire.Read(r)
		if err != nil {
			v.lineBroken(err)
			return
		}
		v.mu.Lock()
		p := v.procs[f.ID]
		if f.Kind == wire.Exit || f.Kind == wire.Failed {
			delete(v.procs, f.ID)
		}
		v.mu.Unlock()
		if p != nil {
			p.receive(f)
		}
	}
}

func (v *VM) lineBroken(err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.broken = err
	for id, p := range v.procs {
		p.end(err)
		delete(v.procs, id)
	}
}

// receive handles one message. Errors of the caller's writers are the
// caller's: the guest's output is read on.
func (p *Process) receive(f wire.Frame) {
	switch f.Kind {
	case wire.Started:
		p.pid, _ = strconv.Atoi(string(f.Payload))
		closeOnce(p.started)
	case wire.Stdout:
		_, _ = p.stdout.Write(f.Payload)
	case wire.Stderr:
		_, _ = p.stderr.Write(f.Payload)
	case wire.Failed:
		p.end(&RequestError{p.what, string(f.Payload)})
	case wire.Exit:
		p.end(json.Unmarshal(f.Payload, &p.status))
	}
}

// end records the outcome. Only dispatch's goroutine calls it, once.
func (p *Process) end(err error) {
	p.err = err
	closeOnce(p.started)
	close(p.exited)
}

// closeOnce closes c unless it is closed. Only dispatch's goroutine closes.
func closeOnce(c chan struct{}) {
	select {
	case <-c:
	default:
		close(c)
	}
}
