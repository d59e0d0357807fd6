package cli

import (
	"fmt"

	"github.com/spf13/cobra"

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

func (a *app) filesCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "files PID",
		Short:   "Open files of a process, BPF objects named",
		GroupID: groupInspect,
		Example: "  ksleuth -t vmcore files 1",
		Args:    exactly(1, "a pid"),
		RunE: func(_ *cobra.Command, args []string) error {
			pid, err := parsePID(args[0])
			if err != nil {
				return err
			}
			t, err := a.task(pid)
			if err != nil {
				return err
			}
			if a.memoryless {
				return a.procFiles(t)
			}
			k := a.kernel
			var files []kobj.File
			a.gap(k.Retry(func() (err error) {
				files, err = kobj.Files(k, t)
				return err
			}))
			if a.output == "json" {
				for _, f := range files {
					if err := a.emitJSON("file", fileData{File: f, PID: t.PID, BPF: a.bpfObject(k, f)}); err != nil {
						return err
					}
				}
				return nil
			}
			a.printer().Files(files, func(f kobj.File) string {
				if o := a.bpfObject(k, f); o != nil {
					return o.String()
				}
				return ""
			})
			return nil
		},
	}
}
