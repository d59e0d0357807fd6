package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/rlimit"
)

// A scene is what was set up and what it can be told.
type scene struct {
	progs    map[string]*ebpf.Program
	maps     map[string]*ebpf.Map
	vars     map[string]*ebpf.Variable
	links    []link.Link
	kept     []any // what must not be closed
	pair     *pair // nil without devices
	leftOut  []string
	commands map[string]command
}

// A command does what the scene is told and returns the answer.
type command func(args []string) (any, error)

// errQuit ends a scene.
var errQuit = errors.New("the scene ends")

func newScene() *scene {
	s := &scene{progs: map[string]*ebpf.Program{}, maps: map[string]*ebpf.Map{}, vars: map[string]*ebpf.Variable{}}
	s.commands = map[string]command{
		"objects": s.objects,
		"quit":    func([]string) (any, error) { return struct{}{}, errQuit },
	}
	return s
}

// socket is where a scene is told what to do. It is no abstract name: those
// belong to network namespaces.
func socket(name string) string { return "/run/tracescene-" + name }

// stay makes a command that sets a scene, says "ready" and does what it is
// told until it is to end.
func stay(name string, set func(args []string) (*scene, error)) func(args []string) error {
	return func(args []string) error {
		if err := rlimit.RemoveMemlock(); err != nil {
			return err
		}
		s, err := set(args)
		if err != nil {
			return err
		}
		// Finalizers close what nothing refers to any more.
		defer runtime.KeepAlive(s)
		if err := os.Remove(socket(name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		l, err := net.Listen("unix", socket(name))
		if err != nil {
			return err
		}
		defer l.Close()
		fmt.Println("ready")
		for {
			c, err := l.Accept()
			if err != nil {
				return err
			}
			err = s.answer(c)
			c.Close()
			if errors.Is(err, errQuit) {
				return nil
			}
		}
	}
}

// A reply is the answer to a command, or why there is none.
type reply struct {
	Answer json.RawMessage
	Error  string
}

// answer reads one command and answers it.
func (s *scene) answer(c io.ReadWriter) error {
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		return err
	}
	var r reply
	var answer any
	words := strings.Fields(line)
	if len(words) == 0 || s.commands[words[0]] == nil {
		err = fmt.Errorf("the scene cannot %q", line)
	} else {
		answer, err = s.commands[words[0]](words[1:])
	}
	if err != nil && !errors.Is(err, errQuit) {
		r.Error = err.Error()
	} else {
		text, bad := json.Marshal(answer)
		if bad != nil {
			return bad
		}
		r.Answer = text
	}
	if bad := json.NewEncoder(c).Encode(r); bad != nil {
		return bad
	}
	return err
}

// do has a scene do something, and prints its answer.
func do(args []string) error {
	if len(args) < 2 {
		return errors.New(usage)
	}
	c, err := net.Dial("unix", socket(args[0]))
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := fmt.Fprintln(c, strings.Join(args[1:], " ")); err != nil {
		return err
	}
	var r reply
	if err := json.NewDecoder(c).Decode(&r); err != nil {
		return err
	}
	if r.Error != "" {
		return errors.New(r.Error)
	}
	fmt.Println(string(r.Answer))
	return nil
}

// objects tells what was made.
func (s *scene) objects([]string) (any, error) {
	ids := map[string]int{}
	for name, p := range s.progs {
		info, err := p.Info()
		if err != nil {
			return nil, err
		}
		id, _ := info.ID()
		ids[name] = int(id)
	}
	answer := map[string]any{"progs": ids, "left_out": s.leftOut, "pid": os.Getpid()}
	if s.pair != nil {
		answer["sender"], answer["receiver"] = s.pair.sender, s.pair.receiver
	}
	return answer, nil
}

// try does one thing. A kernel that cannot is no reason to stop.
func (s *scene) try(what string, make func() error) bool {
	if err := make(); err != nil {
		// The verifier's words may be many lines.
		first, _, _ := strings.Cut(err.Error(), "\n")
		s.leftOut = append(s.leftOut, what+": "+first)
		return false
	}
	return true
}
