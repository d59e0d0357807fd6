package main

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"

	"github.com/cilium/ebpf"
)

// A jitedProgram is what bpf(2) tells of a program's machine code.
type jitedProgram struct {
	ID    uint32    `json:"id"`
	Addrs []uintptr `json:"addrs"` // of the functions
	Lens  []uint32  `json:"lens"`
	Code  string    `json:"code"` // of all functions, in hexadecimal
	Xlat  uint32    `json:"xlated_bytes"`
}

// jited prints the machine code of all programs, a line each, as bpf(2) has
// it: Debian's bpftool comes without a disassembler, and gives no bytes
// without one either.
func jited([]string) error {
	enc := json.NewEncoder(os.Stdout)
	for id := ebpf.ProgramID(0); ; {
		var err error
		if id, err = ebpf.ProgramGetNextID(id); errors.Is(err, os.ErrNotExist) {
			return nil
		} else if err != nil {
			return err
		}
		p, err := ebpf.NewProgramFromID(id)
		if errors.Is(err, os.ErrNotExist) {
			continue
		} else if err != nil {
			return err
		}
		info, err := p.Info()
		p.Close()
		if err != nil {
			return err
		}
		j := jitedProgram{ID: uint32(id)}
		j.Addrs, _ = info.JitedKsymAddrs()
		j.Lens, _ = info.JitedFuncLens()
		if size, err := info.TranslatedSize(); err == nil {
			j.Xlat = uint32(size)
		}
		code, _ := info.JitedInsns()
		j.Code = hex.EncodeToString(code)
		if err := enc.Encode(j); err != nil {
			return err
		}
	}
}
