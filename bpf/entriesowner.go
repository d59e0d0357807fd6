package bpf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/ksleuth/ksleuth/kernel"
)

// socket makes an entry of a struct sock: the value is its cookie, as far as it
// has one yet.
func (r *entryReader) socket(p uint64) (Entry, error) {
	o := r.k.Object("sock", p)
	text, err := socketText(r.k, o)
	e := Entry{ValueText: text}
	if cookie := o.Uint("__sk_common.skc_cookie.counter"); cookie != 0 && r.val == 8 {
		e.Value = binary.LittleEndian.AppendUint64(nil, cookie)
	}
	return e, errors.Join(err, o.Err())
}

// sockhash walks a map of sockets by key.
func (r *entryReader) sockhash() error {
	heads, n := r.o.Ptr("buckets"), r.o.Uint("buckets_num")
	head, err1 := r.k.Offset("bpf_shtab_bucket", "head")
	node, err2 := r.k.Offset("bpf_shtab_elem", "node")
	key, err3 := r.k.Offset("bpf_shtab_elem", "key")
	if err := errors.Join(r.o.Err(), err1, err2, err3); err != nil {
		return err
	}
	return r.buckets(heads, n, r.k.Sizeof("bpf_shtab_bucket"), head, func(at uint64) error {
		o := r.k.Object("bpf_shtab_elem", at-node)
		sk := o.Ptr("sk")
		k, err := r.read(o.Addr+key, r.key)
		if err = errors.Join(o.Err(), err); err == nil {
			var e Entry
			if e, err = r.socket(sk); err == nil {
				e.Key = k
				return r.emit(e)
			}
		}
		return r.lost(fmt.Errorf("bpf_shtab_elem at 0x%x: %w", o.Addr, err))
	})
}

// The values of these are those of include/linux/socket.h and
// include/uapi/linux/in.h; states those of include/net/tcp_states.h.
var (
	families  = map[uint64]string{1: "unix", 2: "inet", 10: "inet6", 40: "vsock", 44: "xdp"}
	protocols = map[uint64]string{1: "icmp", 6: "tcp", 17: "udp", 132: "sctp", 262: "mptcp"}
	states    = []string{
		"", "established", "syn-sent", "syn-recv", "fin-wait-1", "fin-wait-2", "time-wait",
		"close", "close-wait", "last-ack", "listen", "closing", "new-syn-recv",
	}
)

// socketText describes a socket: "tcp 127.0.0.1:80 > 127.0.0.1:4242 established".
func socketText(k *kernel.Kernel, o *kernel.Object) (string, error) {
	c := o.Field("__sk_common").Load()
	family, state, proto := c.Uint("skc_family"), c.Uint("skc_state"), o.Uint("sk_protocol")
	lport, rport := uint16(c.Uint("skc_num")), uint16(c.Uint("skc_dport"))
	rport = rport<<8 | rport>>8
	name := families[family]
	if name == "" {
		name = fmt.Sprintf("family %d", family)
	}
	var local, remote netip.Addr
	switch name {
	case "inet":
		local, remote = ipv4(c.Uint("skc_rcv_saddr")), ipv4(c.Uint("skc_daddr"))
	case "inet6":
		if !c.Has("skc_v6_daddr") {
			break
		}
		var err1, err2 error
		local, err1 = ipv6(k, c.At("skc_v6_rcv_saddr"))
		remote, err2 = ipv6(k, c.At("skc_v6_daddr"))
		if err := errors.Join(err1, err2); err != nil {
			return "", err
		}
	}
	if err := errors.Join(c.Err(), o.Err()); err != nil {
		return "", err
	}
	if p := protocols[proto]; p != "" && local.IsValid() {
		name = p
	}
	parts := []string{name}
	if local.IsValid() {
		parts = append(parts, netip.AddrPortFrom(local, lport).String())
		if rport != 0 {
			parts = append(parts, ">", netip.AddrPortFrom(remote, rport).String())
		}
	}
	if (name == "tcp" || name == "mptcp" || name == "sctp") && state < uint64(len(states)) {
		parts = append(parts, states[state])
	}
	return strings.Join(parts, " "), nil
}

// ipv4 takes an address as it lies in memory, in the order of the network.
func ipv4(word uint64) netip.Addr {
	var b [4]byte
	binary.LittleEndian.PutUint32(b[:], uint32(word))
	return netip.AddrFrom4(b)
}

func ipv6(k *kernel.Kernel, addr uint64) (netip.Addr, error) {
	var b [16]byte
	err := k.Mem().ReadMem(b[:], addr)
	return netip.AddrFrom16(b), err
}

// storageOwners describe what a storage map ties its values to, by the map's
// type; bpf(2) has a file descriptor for a key there.
var storageOwners = map[string]func(*kernel.Kernel, uint64) (string, error){
	"sk_storage": func(k *kernel.Kernel, addr uint64) (string, error) {
		return socketText(k, k.Object("sock", addr))
	},
	"task_storage": func(k *kernel.Kernel, addr uint64) (string, error) {
		o := k.Object("task_struct", addr)
		text := fmt.Sprintf("task %d %s", o.Int("pid"), o.Str("comm"))
		return text, o.Err()
	},
	"inode_storage": func(k *kernel.Kernel, addr uint64) (string, error) {
		o := k.Object("inode", addr)
		sb := o.Deref("i_sb")
		text := fmt.Sprintf("inode %d of %s", o.Uint("i_ino"), sb.Str("s_id"))
		return text, errors.Join(o.Err(), sb.Err())
	},
	"cgrp_storage": func(k *kernel.Kernel, addr uint64) (string, error) {
		t, err := cgroupTarget(k, addr)
		return fmt.Sprintf("cgroup %d %s", t.Value, t.Name), err
	},
}

// localStorage walks a map whose values hang on kernel objects: chains of
// struct bpf_local_storage_elem.
func (r *entryReader) localStorage() error {
	heads, log := r.o.Ptr("buckets"), r.o.Uint("bucket_log")
	head, err1 := r.k.Offset("bpf_local_storage_map_bucket", "list")
	node, err2 := r.k.Offset("bpf_local_storage_elem", "map_node")
	data, err3 := r.k.Offset("bpf_local_storage_elem", "sdata.data")
	if err := errors.Join(r.o.Err(), err1, err2, err3); err != nil {
		return err
	}
	if log > 32 {
		return fmt.Errorf("a table of 2^%d buckets: damaged", log)
	}
	// max_entries of these maps is 0: as many as there are objects.
	all := *r.m
	all.MaxEntries = 1 << 20
	walk := *r
	walk.m = &all
	owner := storageOwners[r.m.Type]
	return walk.buckets(heads, 1<<log, r.k.Sizeof("bpf_local_storage_map_bucket"), head, func(at uint64) error {
		o := r.k.Object("bpf_local_storage_elem", at-node)
		storage := o.Deref("local_storage")
		of := storage.Ptr("owner")
		if err := errors.Join(o.Err(), storage.Err()); err != nil {
			return walk.lost(err)
		}
		value, err := r.read(o.Addr+data, r.val)
		if err != nil {
			return walk.lost(fmt.Errorf("bpf_local_storage_elem at 0x%x: %w", o.Addr, err))
		}
		e := Entry{Value: value, KeyText: "an object that is going"}
		if of != 0 {
			if e.KeyText, err = owner(r.k, of); err != nil {
				return walk.lost(fmt.Errorf("owner of bpf_local_storage_elem at 0x%x: %w", o.Addr, err))
			}
		}
		e.KeyText = strings.TrimSpace(e.KeyText)
		return r.emit(e)
	})
}

// cgroupStorage walks the storage of cgroups of old: a list.
func (r *entryReader) cgroupStorage() error {
	list := r.o.At("list")
	node, err1 := r.k.Offset("bpf_cgroup_storage", "list_map")
	data, err2 := r.k.Offset("bpf_storage_buffer", "data")
	if err := errors.Join(r.o.Err(), err1, err2); err != nil {
		return err
	}
	for at, err := range r.k.List(list) {
		if err != nil {
			return err
		}
		o := r.k.Object("bpf_cgroup_storage", at-node)
		buf := o.Ptr("buf")
		e := Entry{}
		if e.Key, err = r.read(o.At("key"), r.key); err == nil {
			if len(r.cpus) > 0 {
				e.PerCPU, err = r.perCPU(buf)
			} else {
				e.Value, err = r.read(buf+data, r.val)
			}
		}
		if err = errors.Join(o.Err(), err); err != nil {
			err = r.lost(fmt.Errorf("bpf_cgroup_storage at 0x%x: %w", o.Addr, err))
		} else {
			err = r.emit(e)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
