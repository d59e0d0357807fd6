package cli

import (
	"io"
	"os"
	"os/exec"
)

// A pager shows long answers page by page. It starts with the first byte
// written to it.
type pager struct {
	out  io.Writer // the terminal
	err  io.Writer
	cmd  *exec.Cmd // nil until started, or if there is no pager
	pipe io.Writer
}

// pagerCommand returns the pager that a person wants: KSLEUTH_PAGER, PAGER, or
// less; nil for none.
func pagerCommand() []string {
	for _, name := range []string{"KSLEUTH_PAGER", "PAGER"} {
		if value, ok := os.LookupEnv(name); ok {
			args, err := splitArgs(value)
			if err != nil || args[0] == "cat" {
				return nil
			}
			return args
		}
	}
	return []string{"less"}
}

// Write implements [io.Writer].
func (p *pager) Write(b []byte) (int, error) {
	if p.pipe == nil {
		p.start()
	}
	return p.pipe.Write(b)
}

// start starts the pager; without one the terminal gets the answer itself.
func (p *pager) start() {
	p.pipe = p.out
	args := pagerCommand()
	if args == nil {
		return
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdout, cmd.Stderr, cmd.Env = p.out, p.err, os.Environ()
	if _, ok := os.LookupEnv("LESS"); !ok {
		cmd.Env = append(cmd.Env, "LESS=FRX") // leave a short answer on the screen; keep colours
	}
	pipe, err := cmd.StdinPipe()
	if err != nil || cmd.Start() != nil {
		return
	}
	p.cmd, p.pipe = cmd, pipe
}

// close ends the answer and waits until the person has seen enough.
func (p *pager) close() error {
	if p.cmd == nil {
		return nil
	}
	err := p.pipe.(io.Closer).Close()
	_ = p.cmd.Wait() // how the pager ended is the person's affair
	return err
}
