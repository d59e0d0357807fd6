package render_test

import (
	"bytes"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/ksleuth/ksleuth/bpf"
	"github.com/ksleuth/ksleuth/render"
)

func TestTrampolines(t *testing.T) {
	lost := false
	tramp := &bpf.Trampoline{
		Addr: 0xffff8a7cc3cc3480, Kind: "trampoline", Name: "bpf_trampoline_330712481796", Image: 0xffffffffc043f000, Size: 218,
		Target: bpf.Target{Kind: bpf.TargetProgram, Name: "module3", ProgID: 77, Addr: 0xffffffffc0207f98},
		Progs: []bpf.TrampolineProg{
			{ID: 82, Name: "fw_mod", When: "replace"},
			{ID: 83, Name: "module3_entry", When: "fentry", Cookie: 0x2a}, {Name: "__cgroup_bpf_run_lsm_sock", When: "lsm_cgroup"},
		},
		Original: true, Call: 0xffffffffc0207f9d, Flags: []string{"call_orig", "skip_frame"},
		KeepsTailCalls: &lost, Evidence: []string{"bpf_trampoline_330712481796+0x20  call 0xffffffffc0207f9d"},
	}
	ops := &bpf.Trampoline{
		Kind: "struct_ops", Image: 0xffffffffc0435000, Size: 98, Member: "ssthresh",
		Target: bpf.Target{Kind: bpf.TargetStructOps, Name: "tcp_congestion_ops", MapID: 80},
		Progs:  []bpf.TrampolineProg{{ID: 74, Name: "zoo_ssthresh", When: "struct_ops"}},
	}
	var b bytes.Buffer
	p := render.NewPrinter(&b, render.Options{})
	p.Trampolines([]*bpf.Trampoline{tramp, ops})
	p.Trampoline(tramp)
	qt.Check(t, qt.Equals(b.String(), `IMAGE                SIZE  KIND        ON                           RUNS                      COUNT
0xffffffffc043f000  218 B  trampoline  module3 of prog 77           replace 82 fw_mod, fent…  lost
0xffffffffc0435000   98 B  struct_ops  tcp_congestion_ops.ssthresh  struct_ops 74 zoo_ssthr…
tramp:0xffffffffc043f000  bpf_trampoline_330712481796  trampoline, 218 bytes
on          module3 of prog 77, at 0xffffffffc0207f98
runs        replace        prog 82 fw_mod
            1. fentry      prog 83 module3_entry  cookie 0x2a
            2. lsm_cgroup  __cgroup_bpf_run_lsm_sock
calls       the function itself, at 0xffffffffc0207f9d
flags       call_orig, skip_frame
tail calls  the count is lost: tail calls of the function go wrong
            · bpf_trampoline_330712481796+0x20  call 0xffffffffc0207f9d
struct      bpf_trampoline at 0xffff8a7cc3cc3480

NEXT  ksleuth disasm --explain tramp:0xffffffffc043f000    its code
      ksleuth graph --from tramp:0xffffffffc043f000        what it hangs on, and what that runs
`))
}
