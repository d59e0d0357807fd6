package main

import (
	"bytes"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// structOpsByLink is the flag BPF_F_LINK of a struct_ops map that is
// registered by a link (68b04864ca42, 6.4).
const structOpsByLink = 1 << 13

// makeStructOps registers a congestion control: by a link, and by an update of
// the map, which is the only way on older kernels.
func (z *zoo) makeStructOps() {
	for _, way := range []struct {
		name  string
		flags uint32
	}{
		{"link struct_ops", structOpsByLink},
		{"struct_ops map without a link", 0},
	} {
		z.try(way.name, func() error { return z.structOps(way.name, way.flags) })
	}
}

func (z *zoo) structOps(name string, flags uint32) error {
	spec, err := ebpf.LoadCollectionSpecFromReader(bytes.NewReader(tcpObject))
	if err != nil {
		return err
	}
	m := spec.Maps["zoo_tcp"]
	if m == nil {
		return fmt.Errorf("the object has no map zoo_tcp")
	}
	m.Flags = flags
	if flags == 0 {
		// Two of the same name cannot be registered.
		m.Name = "zoo_tcp_old"
		if value, ok := m.Contents[0].Value.([]byte); ok {
			copy(value[bytes.Index(value, []byte("bpf_zoo")):], "bpf_old")
		}
	}
	coll, err := ebpf.NewCollection(spec)
	if err != nil {
		return err
	}
	for n, p := range coll.Programs {
		z.progs[n+m.Name] = p
	}
	z.maps[m.Name] = coll.Maps["zoo_tcp"]
	if flags == 0 {
		// The library has updated the map, which registers it.
		return nil
	}
	l, err := link.AttachStructOps(link.StructOpsOptions{Map: z.maps[m.Name]})
	return z.keepLink("struct_ops", l, err)
}
