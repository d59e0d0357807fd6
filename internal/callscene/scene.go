package main

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"

	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"

	"github.com/ksleuth/ksleuth/internal/callscene/callgate"
)

// A scene is the kernel that is called, and what is known of it so far.
type scene struct {
	symbols symbols
	spec    *btf.Spec
	arena   *arena
	kept    map[string]uint64
	out     *json.Encoder
}

// cpu is where all calls are made.
const cpu = 0

// The main thread calls, so that it is known which task it is.
func init() { runtime.LockOSThread() }

// calls makes all calls when it is told to, and stays until it is told again:
// the dump has the task that called.
func calls() error {
	told := make(chan os.Signal, 1)
	signal.Notify(told, syscall.SIGUSR1)
	var cpus unix.CPUSet
	cpus.Set(cpu)
	if err := unix.SchedSetaffinity(0, &cpus); err != nil {
		return err
	}
	s := &scene{kept: map[string]uint64{}}
	var err error
	if s.symbols, err = readSymbols(); err != nil {
		return err
	}
	if s.spec, err = btf.LoadKernelSpec(); err != nil {
		return err
	}
	o, err := makeObjects()
	if err != nil {
		return err
	}
	fmt.Println("ready")
	<-told
	if err := s.callAll(o); err != nil {
		return err
	}
	tell(callgate.Done)
	<-told // to end
	runtime.KeepAlive(o)
	return nil
}

// callAll writes the file, which is not there before it is complete.
func (s *scene) callAll(o *objects) error {
	_, sqrt, err := s.symbols.first("int_sqrt")
	if err != nil {
		return err
	}
	if got := enter(sqrt, 144); got != 12 {
		return fmt.Errorf("the gate is shut: int_sqrt(144) = %d", int64(got))
	}
	if s.arena, err = newArena(s.symbols); err != nil {
		return err
	}
	f, err := os.Create(callgate.Path + ".part")
	if err != nil {
		return err
	}
	s.out = json.NewEncoder(f)
	for _, r := range rows(o) {
		if err := s.call(r); err != nil {
			tell(fmt.Sprintf("callscene: left out: %s: %v", text(r), err))
		}
	}
	return errors.Join(f.Close(), os.Rename(f.Name(), callgate.Path))
}

// call makes one call and writes its record.
func (s *scene) call(r row) error {
	name, fn, err := s.symbols.first(strings.Split(r.fn, "|")...)
	if err != nil {
		return err
	}
	proto, err := s.prototype(name, r)
	if err != nil {
		return err
	}
	m := &maker{scene: s}
	rec := callgate.Record{
		Func: name, Args: []string{}, RetSize: proto.size, RetType: proto.ret, Text: text(r),
		PID: os.Getpid(), CPU: cpu,
	}
	var args []uint64
	for i, a := range r.args {
		m.arg = i
		v, err := m.value(a)
		if err != nil {
			return err
		}
		args = append(args, v)
		rec.Args = append(rec.Args, hexWord(v))
	}
	ret := enter(fn, args...)
	rec.Ret = hexWord(ret)
	for i := range m.buffers {
		b := make([]byte, m.sizes[i])
		addr, err := parseWord(m.buffers[i].Addr)
		if err != nil {
			return err
		}
		if err := s.arena.read(addr, b); err != nil {
			return err
		}
		m.buffers[i].After = hex.EncodeToString(b)
	}
	rec.Buffers = m.buffers
	if r.keep != "" {
		s.kept[r.keep] = ret
	}
	return s.out.Encode(rec)
}

func hexWord(v uint64) string { return fmt.Sprintf("%#x", v) }

func parseWord(s string) (uint64, error) {
	var v uint64
	_, err := fmt.Sscanf(s, "0x%x", &v)
	return v, err
}
