package kernel

import (
	"encoding/binary"
	"fmt"
	"iter"

	"github.com/ksleuth/ksleuth/mem"
)

// maxList bounds every walk of a linked structure: a damaged list can lead
// anywhere, also round in a circle that leaves out its head.
const maxList = 1 << 20

// List walks the list_head at head and yields the address of each node. A walk
// that cannot go on yields a last pair with the error.
func (k *Kernel) List(head uint64) iter.Seq2[uint64, error] {
	return func(yield func(uint64, error) bool) {
		at := head
		tortoise := head // Brent's cycle detection
		for n, lap := 0, 1; ; n++ {
			next, err := mem.U64(k.mem, at)
			if err != nil {
				yield(0, fmt.Errorf("list at %#x, node %d: %w", head, n, err))
				return
			}
			if next == head || next == 0 {
				if next == 0 {
					yield(0, fmt.Errorf("list at %#x, node %d at %#x: next is NULL", head, n, at))
				}
				return
			}
			if next == tortoise || n == maxList {
				yield(0, fmt.Errorf("list at %#x does not return to its head: damaged", head))
				return
			}
			if n == lap {
				tortoise, lap = next, lap*2
			}
			if !yield(next, nil) {
				return
			}
			at = next
		}
	}
}

// XArray yields the index and the entry of every entry in the struct xarray or
// radix_tree_root at addr, in order of index. A tree that cannot be walked to
// its end yields a last triple's worth as an error.
func (k *Kernel) XArray(addr uint64) iter.Seq2[XAEntry, error] {
	return func(yield func(XAEntry, error) bool) {
		root := k.Object("xarray", addr)
		head := root.Uint("xa_head")
		if err := root.Err(); err != nil {
			yield(XAEntry{}, err)
			return
		}
		w := xaWalk{k: k, yield: yield}
		w.walk(head, 0, 64)
	}
}

// An XAEntry is one entry of an XArray.
type XAEntry struct{ Index, Entry uint64 }

const slotsPerNode = 64 // XA_CHUNK_SIZE without CONFIG_BASE_SMALL

// isXANode says whether an entry is an internal node (include/linux/xarray.h,
// xa_is_node): internal entries have binary 10 in their low bits, and those
// below 4096 are errors, siblings and the like.
func isXANode(e uint64) bool { return e&3 == 2 && e > 4096 }

// xaWalk is a walk under way. A sound tree has no node twice, but slots of a
// damaged one can lead to the same nodes again and again, more often than can
// be followed.
type xaWalk struct {
	k     *Kernel
	yield func(XAEntry, error) bool
	seen  map[uint64]bool
}

func (w *xaWalk) walk(entry, base, above uint64) bool {
	k, yield := w.k, w.yield
	if entry == 0 {
		return true
	}
	if !isXANode(entry) {
		if entry&3 == 2 { // retry, zero or sibling entry: nothing stored here
			return true
		}
		return yield(XAEntry{base, entry}, nil)
	}
	if w.seen[entry] || len(w.seen) == maxList {
		yield(XAEntry{}, fmt.Errorf("xa_node at %#x: the tree comes here again: damaged", entry&^3))
		return false
	}
	if w.seen == nil {
		w.seen = make(map[uint64]bool)
	}
	w.seen[entry] = true
	node := k.Object("xa_node", entry&^3)
	shift := node.Uint("shift")
	slots := node.At("slots")
	if node.Err() == nil && shift >= above {
		yield(XAEntry{}, fmt.Errorf("xa_node at %#x: shift %d below one of %d: damaged", entry&^3, shift, above))
		return false
	}
	if err := node.Err(); err != nil {
		yield(XAEntry{}, err)
		return false
	}
	raw, err := mem.Bytes(k.mem, slots, 8*slotsPerNode)
	if err != nil {
		return yield(XAEntry{}, fmt.Errorf("slots of xa_node at %#x: %w", entry&^3, err))
	}
	for i := range uint64(slotsPerNode) {
		if !w.walk(binary.LittleEndian.Uint64(raw[8*i:]), base+i<<shift, shift) {
			return false
		}
	}
	return true
}

// XALoad returns the entry with an index in the struct xarray or
// radix_tree_root at addr, or 0 if there is none.
func (k *Kernel) XALoad(addr, index uint64) (uint64, error) {
	root := k.Object("xarray", addr)
	entry := root.Uint("xa_head")
	if err := root.Err(); err != nil {
		return 0, err
	}
	if !isXANode(entry) && index != 0 {
		return 0, nil
	}
	for above := uint64(64); isXANode(entry); {
		node := k.Object("xa_node", entry&^3)
		shift, slots := node.Uint("shift"), node.At("slots")
		if err := node.Err(); err != nil {
			return 0, err
		}
		if shift >= above {
			return 0, fmt.Errorf("xa_node at %#x: shift %d below one of %d: damaged", node.Addr, shift, above)
		}
		slot := index >> shift
		if above == 64 && slot >= slotsPerNode { // beyond what the tree spans
			return 0, nil
		}
		var err error
		if entry, err = mem.U64(k.mem, slots+8*(slot%slotsPerNode)); err != nil {
			return 0, fmt.Errorf("xa_node at %#x, slot %d: %w", node.Addr, slot%slotsPerNode, err)
		}
		above = shift
	}
	if entry&3 == 2 { // retry, zero or sibling entry: nothing stored here
		return 0, nil
	}
	return entry, nil
}
