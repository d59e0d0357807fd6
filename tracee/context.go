package tracee

import (
	"slices"
	"strings"

	"github.com/ksleuth/ksleuth/ctype"
)

// convertType is a struct of the kernel's BTF that is never used: for each type
// of program it has a member of the type that programs call their context, and
// one of the type that it is in the kernel (91cc1a99740e, 5.5).
const convertType = "bpf_ctx_convert"

// contextTypes returns the types of the context of a type of programs, named as
// bpftool names it: as programs see it, and as the kernel has it. They are nil
// where it is not memory of one type, or not known.
func contextTypes(kernel *ctype.Types, progType string) (user, kern *ctype.Type) {
	if kernel == nil {
		return nil, nil
	}
	convert, err := kernel.Struct(convertType)
	if err != nil {
		return nil, nil
	}
	name := "BPF_PROG_TYPE_" + strings.ToUpper(progType)
	for _, m := range convert.Members() {
		switch m.Name {
		case name + "_prog":
			user = m.Type
		case name + "_kern":
			kern = m.Type
		}
	}
	if user == nil || kern == nil || kern.Strip().Kind() == ctype.Pointer { // void * stands for contexts of no one type
		return nil, nil
	}
	return user, kernel.Complete(kern)
}

// packetTypes are the structs of the kernel that stand for packets.
var packetTypes = []string{"sk_buff", "xdp_buff", "xdp_frame"}

// Packet returns which argument of the function is a packet, counted from 0,
// and by which struct of the kernel: "sk_buff", "xdp_buff" or "xdp_frame". Of
// several the first counts.
func (f *Function) Packet() (kind string, arg int, ok bool) {
	if f.Context != nil {
		kind := f.Context.Strip().Name()
		if !isPacket(kind) {
			return "", 0, false
		}
		return kind, 0, true
	}
	if f.Prog != nil {
		return "", 0, false // its own struct sk_buff need not be the kernel's
	}
	for i, p := range f.Params() {
		t := p.Type.Strip()
		if t.Kind() != ctype.Pointer {
			continue
		}
		if kind := t.Elem().Strip(); isPacket(kind.Name()) && kind.Kind() != ctype.Union {
			return kind.Name(), i, true
		}
	}
	return "", 0, false
}

func isPacket(name string) bool { return slices.Contains(packetTypes, name) }
