package cli

import (
	"fmt"

	"github.com/ksleuth/ksleuth/bpf"
	"github.com/ksleuth/ksleuth/kernel"
	"github.com/ksleuth/ksleuth/kobj"
)

// fileData is the JSON form of an open file.
type fileData struct {
	kobj.File
	PID int         `json:"pid"`
	BPF *bpf.Object `json:"bpf,omitempty"`
}

// bpfObject returns the BPF object behind a file, or nil.
func (a *app) bpfObject(k *kernel.Kernel, f kobj.File) *bpf.Object {
	o, err := bpf.ObjectOf(k, f.Ops, uint64(f.Private))
	if err != nil {
		a.gap(fmt.Errorf("fd %d: %w", f.FD, err))
		return nil
	}
	return o
}
