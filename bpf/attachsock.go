package bpf

import (
	"errors"
	"strings"

	"github.com/ksleuth/ksleuth/kernel"
)

// SocketAttachments returns the programs of the socket behind a file with the
// given operations and private data, as [ObjectOf] takes them: SO_ATTACH_BPF
// and SO_ATTACH_REUSEPORT_EBPF. Of other files there are none.
func SocketAttachments(k *kernel.Kernel, fops string, private uint64) ([]Attachment, error) {
	if fops != "socket_file_ops" {
		return nil, nil
	}
	r := &attachReader{k: k, ids: make(map[uint64]int)}
	off, err := k.Offset("socket_alloc", "socket")
	if err != nil {
		return nil, err
	}
	inode := k.Object("socket_alloc", private-off)
	t := Target{Kind: TargetSocket, Value: int64(inode.Uint("vfs_inode.i_ino"))}
	socket := k.Object("socket", private)
	at := socket.Ptr("sk")
	if err := errors.Join(inode.Err(), socket.Err()); err != nil || at == 0 {
		return nil, err
	}
	sk := k.Object("sock", at)
	t.Name = strings.ToLower(sk.Deref("__sk_common.skc_prot").Str("name"))
	for _, p := range []struct{ member, record, attach string }{
		{"sk_filter", "sk_filter", "socket_filter"},
		{"sk_reuseport_cb", "sock_reuseport", "sk_reuseport"},
	} {
		holder := sk.Ptr(p.member)
		if holder == 0 {
			continue
		}
		o := k.Object(p.record, holder)
		prog := o.Ptr("prog")
		if err := errors.Join(o.Err(), r.add(prog, Attachment{Kind: "socket", Attach: p.attach, Target: t})); err != nil {
			return r.out, err
		}
	}
	return r.out, sk.Err()
}
