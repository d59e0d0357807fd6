package tracee_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/go-quicktest/qt"
	"golang.org/x/sys/unix"

	"github.com/ksleuth/ksleuth/bpfsys"
	"github.com/ksleuth/ksleuth/cexpr"
	"github.com/ksleuth/ksleuth/ctype"
	"github.com/ksleuth/ksleuth/mem"
	"github.com/ksleuth/ksleuth/tracee"
)

// noise is memory that has something else at every address, and always the
// same. Pointers in it lead anywhere.
type noise struct{}

func (noise) ReadMem(p []byte, addr uint64) error {
	for i := range p {
		x := (addr + uint64(i)) * 0x9e3779b97f4a7c15
		x ^= x >> 29
		x *= 0xbf58476d1ce4e5b9
		p[i] = byte(x >> 40)
	}
	return nil
}

// contextAt is where the context stands in the noise.
const contextAt = 0xffff_8880_1234_5600

// ctxEnv knows one variable: the context.
type ctxEnv struct {
	types *ctype.Types
	ctx   *ctype.Type
}

func (e ctxEnv) Types() *ctype.Types { return e.types }
func (e ctxEnv) Mem() mem.Reader     { return noise{} }
func (e ctxEnv) Ident(name string) (ctype.Value, error) {
	if name != "ctx" {
		return ctype.Value{}, ctype.ErrNotFound
	}
	return e.types.Scalar(noise{}, ctype.PointerTo(e.ctx), contextAt, name), nil
}
func (e ctxEnv) Call(string, []ctype.Value) (cexpr.Result, error) {
	return cexpr.Result{}, ctype.ErrNotFound
}

func (e ctxEnv) eval(expr string) (uint64, error) {
	res, err := cexpr.Eval(strings.ReplaceAll(expr, "$", "ctx"), e)
	if err != nil {
		return 0, err
	}
	v, err := res.Value()
	if err != nil {
		return 0, err
	}
	return v.Uint()
}

// ctxMembers are members that programs of a type may read of their context, with
// an element of arrays.
var ctxMembers = []struct {
	typ     ebpf.ProgramType
	attach  ebpf.AttachType
	user    string
	kern    string
	members string
}{
	{ebpf.XDP, 0, "xdp_md", "xdp_buff", "data data_end data_meta ingress_ifindex rx_queue_index"},
	{ebpf.XDP, ebpf.AttachXDPDevMap, "xdp_md", "xdp_buff", "egress_ifindex"},
	{ebpf.SchedCLS, 0, "__sk_buff", "sk_buff", "len pkt_type mark queue_mapping protocol vlan_tci vlan_proto priority ingress_ifindex " +
		"ifindex tc_index cb[0] cb[3] hash tc_classid data wire_len gso_segs gso_size hwtstamp"},
	{ebpf.CGroupSKB, ebpf.AttachCGroupInetIngress, "__sk_buff", "sk_buff", "len mark cb[4] family remote_ip4 local_ip4 remote_ip6[2] local_ip6[1] remote_port local_port"},
	{ebpf.CGroupSock, ebpf.AttachCGroupInet4PostBind, "bpf_sock", "sock", "family type protocol src_ip4 src_port"},
	{ebpf.CGroupSock, ebpf.AttachCGroupInetSockCreate, "bpf_sock", "sock", "bound_dev_if mark priority"},
	{ebpf.CGroupSock, ebpf.AttachCGroupInet6PostBind, "bpf_sock", "sock", "src_ip6[3]"},
	{ebpf.CGroupSockAddr, ebpf.AttachCGroupInet4Connect, "bpf_sock_addr", "bpf_sock_addr_kern", "user_family user_ip4 user_port family type protocol"},
	{ebpf.CGroupSockAddr, ebpf.AttachCGroupInet6Connect, "bpf_sock_addr", "bpf_sock_addr_kern", "user_ip6[2]"},
	{ebpf.SockOps, ebpf.AttachCGroupSockOps, "bpf_sock_ops", "bpf_sock_ops_kern", "op family remote_ip4 local_ip4 remote_ip6[2] local_ip6[1] remote_port local_port is_fullsock"},
	{ebpf.SkMsg, ebpf.AttachSkMsgVerdict, "sk_msg_md", "sk_msg", "data data_end family remote_ip4 local_ip4 remote_ip6[2] local_ip6[1] remote_port local_port size"},
	{ebpf.SkLookup, ebpf.AttachSkLookup, "bpf_sk_lookup", "bpf_sk_lookup_kern", "family protocol remote_ip4 local_ip4 local_port"},
	{ebpf.SkReuseport, ebpf.AttachSkReuseportSelect, "sk_reuseport_md", "sk_reuseport_kern", "data len eth_protocol ip_protocol bind_inany hash"},
	{ebpf.CGroupSockopt, ebpf.AttachCGroupGetsockopt, "bpf_sockopt", "bpf_sockopt_kern", "level optname optlen optval optval_end"},
	{ebpf.PerfEvent, 0, "bpf_perf_event_data", "bpf_perf_event_data_kern", "sample_period addr"},
}

// TestRunningKernelCtxMember: an expression gives what the code gives that the
// kernel's verifier makes of a program's reading the member.
func TestRunningKernelCtxMember(t *testing.T) {
	types, err := bpfsys.KernelTypes()
	if err != nil || os.Getuid() != 0 {
		t.Skipf("this takes root, and the kernel's types: %v", err)
	}
	checked := 0
	for _, test := range ctxMembers {
		kern, err := types.Struct(test.kern)
		qt.Assert(t, qt.IsNil(err))
		env := ctxEnv{types, kern}
		for member := range strings.FieldsSeq(test.members) {
			bare, index, _ := strings.Cut(member, "[")
			user, err := types.Struct(test.user)
			qt.Assert(t, qt.IsNil(err))
			place, err := types.Member(user, member)
			if err != nil {
				t.Logf("this kernel's struct %s has no %s", test.user, member)
				continue
			}
			size, err := place.Size()
			qt.Assert(t, qt.IsNil(err))
			code, err := rewritten(test.typ, test.attach, int16(place.Offset), size)
			if errors.Is(err, unix.EPERM) || errors.Is(err, ebpf.ErrNotSupported) {
				t.Skip(err)
			}
			if err != nil {
				t.Errorf("%v, %s: %v", test.typ, member, err)
				continue
			}
			want, err := run(code)
			qt.Assert(t, qt.IsNil(err), qt.Commentf("%v, %s: %x", test.typ, member, code))
			expr, ok := tracee.CtxMember(test.user, bare)
			qt.Assert(t, qt.IsTrue(ok), qt.Commentf("%s", member))
			if index != "" {
				expr += "[" + index
			}
			got, err := env.eval(expr)
			if err != nil {
				t.Errorf("%s of %s: %v", member, test.user, err)
				continue
			}
			isPointer := strings.HasPrefix(member, "data") || strings.HasPrefix(member, "optval")
			if size == 4 && !isPointer {
				got &= 0xffffffff
			}
			if got != want {
				t.Errorf("%s of %s is %s = %#x; to a program %#x", member, test.user, expr, got, want)
			}
			checked++
		}
	}
	t.Logf("%d members", checked)
	qt.Check(t, qt.IsTrue(checked >= 80))
}

// rewritten returns the code of a program that returns a member of its context,
// as the verifier left it.
func rewritten(typ ebpf.ProgramType, attach ebpf.AttachType, off int16, size int) ([]byte, error) {
	width := map[int]asm.Size{4: asm.Word, 8: asm.DWord}[size]
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "member", Type: typ, AttachType: attach, License: "GPL",
		// What is read is kept where nothing but it is looked at.
		Instructions: asm.Instructions{asm.LoadMem(asm.R6, asm.R1, off, width), asm.Mov.Imm(asm.R0, 1), asm.Return()},
	})
	if err != nil {
		return nil, err
	}
	defer p.Close()
	info, err := p.Info()
	if err != nil {
		return nil, err
	}
	id, _ := info.ID()
	held, err := bpfsys.Programs(int(id))
	if err != nil {
		return nil, err
	}
	defer held.Close()
	code, err := bpfsys.CodeOf(held, int(id))
	if err != nil {
		return nil, err
	}
	if len(code.Insns) == 0 {
		return nil, fmt.Errorf("the kernel does not show the code: %w", ebpf.ErrNotSupported)
	}
	return code.Insns, nil
}

// run executes the few instructions that there are in such code, over noise,
// and returns what R6 is in the end.
func run(code []byte) (uint64, error) {
	var r [16]uint64 // beyond R10 is what the verifier has for itself
	r[1] = contextAt
	for i := 0; i*8+8 <= len(code); i++ {
		op, dst, src := code[i*8], code[i*8+1]&15, code[i*8+1]>>4
		off := int16(binary.LittleEndian.Uint16(code[i*8+2:]))
		imm := uint64(int64(int32(binary.LittleEndian.Uint32(code[i*8+4:]))))
		if int(max(dst, src)) >= len(r) {
			return 0, fmt.Errorf("instruction %d has no such registers", i)
		}
		switch op {
		case 0x61, 0x69, 0x71, 0x79: // loads
			var b [8]byte
			n := map[byte]int{0x61: 4, 0x69: 2, 0x71: 1, 0x79: 8}[op]
			noise{}.ReadMem(b[:n], r[src]+uint64(int64(off)))
			r[dst] = binary.LittleEndian.Uint64(b[:])
		case 0x63, 0x6b, 0x73, 0x7b: // stores: of registers that are needed elsewhere
		case 0xb7:
			r[dst] = imm
		case 0xb4:
			r[dst] = uint64(uint32(imm))
		case 0xbf:
			r[dst] = r[src]
		case 0xbc:
			r[dst] = uint64(uint32(r[src]))
		case 0x0f:
			r[dst] += r[src]
		case 0x54:
			r[dst] = uint64(uint32(r[dst]) & uint32(imm))
		case 0x57:
			r[dst] &= imm
		case 0x64:
			r[dst] = uint64(uint32(r[dst]) << (imm & 31))
		case 0x67:
			r[dst] <<= imm & 63
		case 0x74:
			r[dst] = uint64(uint32(r[dst]) >> (imm & 31))
		case 0x77:
			r[dst] >>= imm & 63
		case 0x15:
			if r[dst] == imm {
				i += int(off)
			}
		case 0x55:
			if r[dst] != imm {
				i += int(off)
			}
		case 0x05:
			i += int(off)
		case 0x95:
			return r[6], nil
		default:
			return 0, fmt.Errorf("instruction %d: operation %#x", i, op)
		}
	}
	return 0, errors.New("no end")
}

// TestCtxMemberTypes: on all kernels the expressions are right by type.
func TestCtxMemberTypes(t *testing.T) {
	for _, kernel := range matrix {
		t.Run(kernel, func(t *testing.T) {
			types := open(t, kernel).src.Types
			checked := 0
			for _, c := range ctxMembers {
				user, err := types.Struct(c.user)
				qt.Assert(t, qt.IsNil(err))
				kern, err := types.Struct(c.kern)
				qt.Assert(t, qt.IsNil(err))
				for _, m := range user.Members() {
					expr, ok := tracee.CtxMember(c.user, m.Name)
					if !ok || m.Name == "regs" {
						continue
					}
					_, err := ctxEnv{types, kern}.eval(expr)
					qt.Check(t, qt.IsNil(err), qt.Commentf("%s of %s: %s", m.Name, c.user, expr))
					checked++
				}
			}
			qt.Check(t, qt.IsTrue(checked > 70), qt.Commentf("%d", checked))
		})
	}
}
