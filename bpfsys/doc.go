//go:build linux

// Package bpfsys describes the BPF objects of the running kernel by what it
// tells anyone who may ask: bpf(2), /proc and netlink, without reading its
// memory.
//
// [Programs], [Maps], [Links] and [BTFs] hold the objects they return: until
// [Held.Close] the kernel frees none of them, so what others read of them
// later, in the kernel's memory or by id, is of the same objects. Names, types
// and fields are those of package bpf.
//
// Nothing here asks for the kernel's version. A field that the kernel does not
// know stays zero; a call that it does not know gives an [UnsupportedError].
package bpfsys
