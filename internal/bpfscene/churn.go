package main

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/rlimit"
)

// churnNames: names of objects that come and go say what belongs together, so
// that a reader who mixes two objects up is found out.
//
//	map      cm_TYPE_N     type TYPE, value size 4*(1+N%7), max entries 1+N%9
//	program  cp_TYPE_N     type TYPE, uses the map cm_array_N alone; N%5+2 further instructions
//	tracer   ct_KIND_FN_N  attached as KIND to bpf_fentry_testFN
//
// TYPE is what churnMaps and churnProgs call it.

var churnMaps = []struct {
	name string
	typ  ebpf.MapType
}{{"hash", ebpf.Hash}, {"array", ebpf.Array}, {"percpu", ebpf.PerCPUArray}, {"lru", ebpf.LRUHash}}

var churnProgs = []struct {
	name string
	typ  ebpf.ProgramType
}{{"sock", ebpf.SocketFilter}, {"xdp", ebpf.XDP}, {"tc", ebpf.SchedCLS}, {"kp", ebpf.Kprobe}}

var churnTracers = []struct {
	name   string
	attach ebpf.AttachType
}{{"in", ebpf.AttachTraceFEntry}, {"out", ebpf.AttachTraceFExit}}

// churn makes and frees objects until it is killed, some dozens a second. A few
// are alive at any time.
func churn([]string) error {
	if err := rlimit.RemoveMemlock(); err != nil {
		return err
	}
	alive := make([]func(), 24)
	for n := 0; ; n++ {
		free, err := oneRound(n)
		if err != nil {
			return fmt.Errorf("round %d: %w", n, err)
		}
		slot := rand.IntN(len(alive))
		if alive[slot] != nil {
			alive[slot]()
		}
		alive[slot] = free
		if n == len(alive) {
			fmt.Println("ready")
		}
		time.Sleep(time.Duration(10+rand.IntN(40)) * time.Millisecond)
	}
}

// oneRound makes the objects of one number.
func oneRound(n int) (free func(), err error) {
	var closers []func() error
	free = func() {
		for i := len(closers) - 1; i >= 0; i-- {
			_ = closers[i]()
		}
	}
	defer func() {
		if err != nil {
			free()
		}
	}()
	var array *ebpf.Map
	for _, t := range churnMaps {
		m, err := ebpf.NewMap(&ebpf.MapSpec{
			Name: fmt.Sprintf("cm_%s_%d", t.name, n), Type: t.typ, KeySize: 4, ValueSize: 4 * uint32(1+n%7), MaxEntries: uint32(1 + n%9),
		})
		if err != nil {
			return nil, err
		}
		closers = append(closers, m.Close)
		if t.typ == ebpf.Array {
			array = m
		}
	}
	// Every entry of the array is its number.
	value := make([]byte, 4*(1+n%7))
	for i := range value {
		value[i] = byte(n)
	}
	for key := range uint32(1 + n%9) {
		if err := array.Put(key, value); err != nil {
			return nil, err
		}
	}
	t := churnProgs[n%len(churnProgs)]
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: fmt.Sprintf("cp_%s_%d", t.name, n), Type: t.typ, License: "GPL", Instructions: lookUp(array, n%5)})
	if err != nil {
		return nil, err
	}
	closers = append(closers, p.Close)
	tracer, l, err := churnTracer(n)
	if err != nil {
		return nil, err
	}
	closers = append(closers, tracer.Close, l.Close)
	return free, nil
}

func churnTracer(n int) (*ebpf.Program, link.Link, error) {
	kind, fn := churnTracers[n%2], n%4+4
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: fmt.Sprintf("ct_%s_%d_%d", kind.name, fn, n), Type: ebpf.Tracing, AttachType: kind.attach, AttachTo: fmt.Sprintf("bpf_fentry_test%d", fn),
		License: "GPL", Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
	})
	if err != nil {
		return nil, nil, err
	}
	l, err := link.AttachTracing(link.TracingOptions{Program: p})
	if err != nil {
		p.Close()
		return nil, nil, err
	}
	return p, l, nil
}
