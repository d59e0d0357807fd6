// Package casee reproduces the conntrack kfunc bug: bpf_skb_ct_lookup, called
// with options of size 0, stores its error four bytes behind the options
// pointer (fixed by 6f6183a39533).
package casee

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
)

//go:generate clang -O2 -g -target bpf -mcpu=v3 -Wall -Wno-unused-const-variable -fdebug-compilation-dir=. -I../include -c casee.bpf.c -o casee.bpf.o

//go:embed casee.bpf.o
var object []byte

// Modules are the kernel modules the object needs; bpf_skb_ct_lookup is in
// the module nf_conntrack since 5.18.
var Modules = []string{"nf_conntrack"}

// A Program is the loaded program.
type Program struct {
	coll *ebpf.Collection
}

// Load loads the object.
func Load() (*Program, error) {
	spec, err := ebpf.LoadCollectionSpecFromReader(bytes.NewReader(object))
	if err != nil {
		return nil, fmt.Errorf("reading the object: %w", err)
	}
	coll, err := ebpf.NewCollection(spec)
	if err != nil {
		return nil, fmt.Errorf("loading the object: %w", err)
	}
	return &Program{coll}, nil
}

// Run runs call_kfunc once over an empty packet and returns its verdict. On a
// kernel with the bug it does not return.
func (p *Program) Run() (int32, error) {
	prog := p.coll.Programs["call_kfunc"]
	if prog == nil {
		return 0, errors.New("the object has no program call_kfunc")
	}
	verdict, err := prog.Run(&ebpf.RunOptions{Data: make([]byte, 64), Repeat: 1})
	if err != nil {
		return 0, fmt.Errorf("running call_kfunc: %w", err)
	}
	return int32(verdict), nil
}

// Close unloads the program.
func (p *Program) Close() { p.coll.Close() }
