package bpf_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/ksleuth/ksleuth/bpf"
	"github.com/ksleuth/ksleuth/internal/dumptest"
	"github.com/ksleuth/ksleuth/internal/example"
	"github.com/ksleuth/ksleuth/kernel"
)

// target writes what a program was loaded for, without numbers.
func target(k *kernel.Kernel, progs map[int]*bpf.Program, p *bpf.Program) string {
	if p.Target == nil {
		return p.Attach
	}
	out := []string{p.Attach, string(p.Target.Kind), p.Target.Name}
	if of := progs[p.Target.ProgID]; of != nil {
		out = append(out, "of", of.Name)
	}
	if p.Target.Addr != 0 {
		out = append(out, "at", k.FormatAddr(uint64(p.Target.Addr)))
	}
	return strings.Join(out, " ")
}

// TestTargets: attach types and targets are those that internal/bpfscene
// loaded the programs for, also where the link has taken the target over.
func TestTargets(t *testing.T) {
	everywhere := matrix[0]
	for i, version := range matrix {
		t.Run(version, func(t *testing.T) {
			k := example.KernelOf(t, dumptest.Get(t, "bpf-"+version+".kdump"))
			progs := programs(t, k)
			byName := make(map[string]*bpf.Program)
			for _, p := range progs {
				byName[p.Name] = p
			}
			for _, test := range []struct{ name, since, want string }{
				{"z_socket", everywhere, ""},
				{"z_kprobe", everywhere, ""},
				{"zoo_xdp", everywhere, "xdp"},
				{"z_xdp_devmap", everywhere, "xdp_devmap"},
				{"z_cg_skb_in", everywhere, "cgroup_inet_ingress"}, // its number is 0
				{"z_cg_connect4", everywhere, "cgroup_inet4_connect"},
				{"z_sk_lookup", everywhere, "sk_lookup"},
				{"z_kprobe_multi", "6.1", "trace_kprobe_multi"},
				{"z_tcx_in", "6.12", "tcx_ingress"},
				{"z_netfilter", "6.12", "netfilter"},
				{"z_tp_btf", everywhere, "trace_raw_tp tracepoint task_rename"},
				{"z_fentry", everywhere, "trace_fentry function bpf_fentry_test4 at bpf_fentry_test4"},
				{"z_fmod_ret", everywhere, "modify_return function security_task_getioprio at security_task_getioprio"},
				{"z_fsession", "7.2", "trace_fsession function bpf_fentry_test5 at bpf_fentry_test5"},
				{"z_fentry_multi", "7.2", "trace_fentry_multi"},
				{"z_iter_task", everywhere, "trace_iter iterator task"},
				{"z_lsm", everywhere, "lsm_mac function bpf_lsm_task_setioprio at bpf_lsm_task_setioprio"},
				{"z_lsm_cgroup", "6.1", "lsm_cgroup function bpf_lsm_socket_listen at bpf_lsm_socket_listen"},
				{"zoo_ssthresh", everywhere, " struct_ops tcp_congestion_ops.ssthresh"},
				{"fw_mod", everywhere, " program module1 of xdp_main at bpf_prog_TAG_module1"},
				{"module3_entry", everywhere, "trace_fentry program module3 of xdp_main at bpf_prog_TAG_module3"},
				{"fw_mod_entry", everywhere, "trace_fentry program fw_mod of fw_mod at bpf_prog_TAG_fw_mod"},
			} {
				if slices.Index(matrix, test.since) > i {
					continue // this kernel lacks it
				}
				p := byName[test.name]
				qt.Assert(t, qt.IsNotNil(p), qt.Commentf("%s", test.name))
				got := target(k, progs, p)
				if p.Target != nil && p.Target.ProgID != 0 {
					for _, s := range progs[p.Target.ProgID].Subprogs {
						got = strings.Replace(got, "bpf_prog_"+s.Tag, "bpf_prog_TAG", 1)
					}
				}
				qt.Check(t, qt.Equals(got, test.want), qt.Commentf("%s", test.name))
			}
			long := byName["a_program_with_a_name_far_longer_than_fifteen"]
			qt.Check(t, qt.IsNotNil(long))
		})
	}
}

// TestInsnsOfSubprogs: the functions' instructions follow each other, and are
// all that the program has.
func TestInsnsOfSubprogs(t *testing.T) {
	for _, version := range matrix {
		k := example.KernelOf(t, dumptest.Get(t, "bpf-"+version+".kdump"))
		for _, p := range programs(t, k) {
			n := 0
			for i := range p.Subprogs {
				o := bpf.Owner{Prog: p, Subprog: i}
				first, err := o.FirstInsn(k)
				qt.Assert(t, qt.IsNil(err))
				qt.Check(t, qt.Equals(first, n/8), qt.Commentf("%s/%d", p.Name, i))
				b, err := o.Insns(k)
				qt.Assert(t, qt.IsNil(err))
				n += len(b)
			}
			qt.Check(t, qt.Equals(n, p.XlatedLen), qt.Commentf("%s %s", version, p.Name))
		}
	}
}

// TestDamagedInsns: counts that cannot be are not believed.
func TestDamagedInsns(t *testing.T) {
	dump := dumptest.Get(t, "idle-6.1.kdump")
	k := example.KernelOf(t, dump)
	var p *bpf.Program
	for _, p = range programs(t, k) {
		if len(p.Subprogs) == 2 {
			break
		}
	}
	at := k.Object("bpf_prog", uint64(p.Addr)).At("len")
	k = example.KernelOf(t, dump, example.Write(at, []byte{0xff, 0xff, 0xff, 0x7f}))
	_, err := bpf.Owner{Prog: p}.Insns(k)
	qt.Check(t, qt.ErrorMatches(err, fmt.Sprintf(`bpf_prog at %v has 2147483647 instructions: damaged`, p.Addr)))
}
