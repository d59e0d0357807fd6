package bpf

import (
	"errors"
	"fmt"

	"github.com/ksleuth/ksleuth/mem"
)

// maxBuckets bounds the buckets of a hash: the kernel makes at most 2^31, of
// 16 bytes each.
const maxBuckets = 1 << 26

// buckets walks the chains of a hash table: n heads of size bytes each, with
// the pointer to the first node at off. A chain ends at NULL or at a pointer
// whose lowest bit is set (a nulls list); next is the first word of a node.
func (r *entryReader) buckets(heads, n, size, off uint64, each func(node uint64) error) error {
	if n > maxBuckets || size < 8 || size > pageSize {
		return fmt.Errorf("a table of %d buckets: damaged", n)
	}
	// Elements can be more than max_entries by one for each CPU, and on a
	// running kernel by those that come and go under the walk.
	left := uint64(r.m.MaxEntries)*2 + 1<<16
	step := max(chunkSize/size, 1)
	for i := uint64(0); i < n; i += step {
		count := min(step, n-i)
		raw, err := r.read(heads+i*size, int(count*size))
		if err != nil {
			if err := r.lost(fmt.Errorf("buckets from %d on: %w", i, err)); err != nil {
				return err
			}
			continue
		}
		for j := range count {
			first := le64(raw[j*size+off:])
			if err := r.chain(i+j, first, &left, each); err != nil {
				return err
			}
		}
	}
	return nil
}

// chain walks one chain; left bounds the nodes of all together.
func (r *entryReader) chain(bucket, node uint64, left *uint64, each func(node uint64) error) error {
	for node != 0 && node&1 == 0 {
		if *left == 0 {
			return fmt.Errorf("bucket %d: more elements than the map can have: damaged", bucket)
		}
		*left--
		next, err := mem.U64(r.k.Mem(), node)
		if err != nil {
			return r.lost(fmt.Errorf("bucket %d, node at 0x%x: %w", bucket, node, err))
		}
		if next == node {
			return r.lost(fmt.Errorf("bucket %d: the node at 0x%x leads to itself: damaged", bucket, node))
		}
		if err := each(node); err != nil {
			return err
		}
		node = next
	}
	return nil
}

// hash walks the hash types: buckets of chained struct htab_elem, each with the
// key and, at the next multiple of 8, the value, or a pointer to it.
func (r *entryReader) hash() error {
	heads, n := r.o.Ptr("buckets"), r.o.Uint("n_buckets")
	node, err1 := r.k.Offset("htab_elem", "hash_node")
	key, err2 := r.k.Offset("htab_elem", "key")
	head, err3 := r.k.Offset("bucket", "head")
	if err := errors.Join(r.o.Err(), err1, err2, err3); err != nil {
		return err
	}
	return r.buckets(heads, n, r.k.Sizeof("bucket"), head, func(at uint64) error {
		return r.element(at - node + key)
	})
}

// element yields the entry whose key begins at an address. The value is at the
// next multiple of 8, or there is a pointer to it.
func (r *entryReader) element(key uint64) error {
	at := roundUp(uint64(r.key), 8)
	size := int(at) + r.val
	indirect := len(r.cpus) > 0 || r.m.Type == "hash_of_maps"
	if indirect {
		size = int(at) + 8
	}
	raw, err := r.read(key, size)
	if err != nil {
		return r.lost(fmt.Errorf("element at 0x%x: %w", key, err))
	}
	var e Entry
	switch {
	case !indirect:
		e.Value = raw[at:]
	case r.m.Type == "hash_of_maps":
		e, err = r.innerMap(le64(raw[at:]))
	default:
		e.PerCPU, err = r.perCPU(r.perCPUPointer(raw))
	}
	if err != nil {
		return r.lost(fmt.Errorf("element at 0x%x: %w", key, err))
	}
	e.Key = raw[:r.key:r.key]
	return r.emit(e)
}

// perCPUPointer takes the pointer to a value out of an element. It followed the
// key without a gap up to 6.14 (11ba7ce076e5, 6.15, and stable kernels); where
// that makes a difference, only one of the two can be a per-CPU address.
func (r *entryReader) perCPUPointer(raw []byte) uint64 {
	aligned, packed := le64(raw[roundUp(uint64(r.key), 8):]), le64(raw[r.key:])
	if at, err := r.k.PerCPU(packed, r.cpus[0]); err == nil && aligned != packed {
		if _, err := r.k.Walk(at); err == nil {
			return packed
		}
	}
	return aligned
}

// resizableHash walks a hash that grows (struct bpf_rhtab, 7.2): while it does,
// its elements are in two tables.
func (r *entryReader) resizableHash() error {
	table := r.o.Ptr("ht.tbl")
	data, err := r.k.Offset("rhtab_elem", "data")
	if err := errors.Join(r.o.Err(), err); err != nil {
		return err
	}
	const maxTables = 8
	for range maxTables {
		if table == 0 {
			return nil
		}
		o := r.k.Object("bucket_table", table)
		size, nest, first, next := o.Uint("size"), o.Uint("nest"), o.At("buckets"), o.Ptr("future_tbl")
		if err := o.Err(); err != nil {
			return err
		}
		each := func(node uint64) error { return r.element(node + data) }
		if nest == 0 {
			err = r.lockedBuckets(first, size, each)
		} else {
			err = r.nestedBuckets(first, size, nest, each)
		}
		if err != nil {
			return err
		}
		table = next
	}
	return nil
}

// lockedBuckets is buckets for heads whose lowest bit is a lock.
func (r *entryReader) lockedBuckets(heads, n uint64, each func(node uint64) error) error {
	if n > maxBuckets {
		return fmt.Errorf("a table of %d buckets: damaged", n)
	}
	left := uint64(r.m.MaxEntries)*2 + 1<<16
	const step = pageSize / 8
	for i := uint64(0); i < n; i += step {
		firsts, err := words(r.k, heads+8*i, min(step, n-i))
		if err != nil {
			if err := r.lost(fmt.Errorf("buckets from %d on: %w", i, err)); err != nil {
				return err
			}
			continue
		}
		for j, first := range firsts {
			if err := r.chain(i+uint64(j), first&^1, &left, each); err != nil {
				return err
			}
		}
	}
	return nil
}

// nestedBuckets walks a table that had to be made of single pages: 1<<nest
// pointers to tables of tables, each of a page (lib/rhashtable.c,
// nested_table_free).
func (r *entryReader) nestedBuckets(first, size, nest uint64, each func(node uint64) error) error {
	const perPage = pageSize / 8
	top, err := mem.U64(r.k.Mem(), first)
	if err != nil {
		return err
	}
	if nest > 9 || size > maxBuckets {
		return fmt.Errorf("a table of %d buckets, nested by %d: damaged", size, nest)
	}
	var walk func(table, n, size uint64) error
	walk = func(table, n, size uint64) error {
		if table == 0 {
			return nil
		}
		if size <= 1 { // the buckets themselves
			return r.lockedBuckets(table, n, each)
		}
		ptrs, err := words(r.k, table, n)
		if err != nil {
			return r.lost(err)
		}
		for _, p := range ptrs {
			if err := walk(p, min(size, perPage), size/perPage); err != nil {
				return err
			}
		}
		return nil
	}
	return walk(top, 1<<nest, size>>nest)
}

// trie walks a longest-prefix-match trie from its root down. Inner nodes that
// stand for no entry are marked. A key is the length of its prefix and the
// bytes, as bpf(2) has it.
func (r *entryReader) trie() error {
	const intermediate = 1 // LPM_TREE_NODE_FLAG_IM
	root, size := r.o.Ptr("root"), r.o.Uint("data_size")
	data, err := r.k.Offset("lpm_trie_node", "data")
	if err := errors.Join(r.o.Err(), err); err != nil {
		return err
	}
	if size > maxKey {
		return fmt.Errorf("keys of %d bytes: damaged", size)
	}
	type node struct {
		addr  uint64
		above int64 // prefix length of its parent
	}
	left := 2*uint64(r.m.MaxEntries) + 1
	for stack := []node{{root, -1}}; len(stack) > 0; {
		n := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		if n.addr == 0 {
			continue
		}
		if left--; left == 0 {
			return errors.New("more nodes than the map can have: damaged")
		}
		o := r.k.Object("lpm_trie_node", n.addr)
		prefix, flags := o.Uint("prefixlen"), o.Uint("flags")
		children, err := words(r.k, o.At("child"), 2)
		if err = errors.Join(o.Err(), err); err == nil && (int64(prefix) <= n.above || prefix > 8*size) {
			err = fmt.Errorf("lpm_trie_node at 0x%x: a prefix of %d bits below one of %d: damaged", n.addr, prefix, n.above)
		}
		if err != nil {
			if err := r.lost(err); err != nil {
				return err
			}
			continue
		}
		stack = append(stack, node{children[1], int64(prefix)}, node{children[0], int64(prefix)})
		if flags&intermediate != 0 {
			continue
		}
		raw, err := r.read(n.addr+data, int(size)+r.val)
		if err != nil {
			err = r.lost(err)
		} else {
			err = r.emit(Entry{Key: append(idBytes(int(prefix)), raw[:size]...), Value: raw[size:]})
		}
		if err != nil {
			return err
		}
	}
	return nil
}
