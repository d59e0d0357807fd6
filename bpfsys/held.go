//go:build linux

package bpfsys

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/ksleuth/ksleuth/kernel"
)

// Held are BPF objects of one kind that cannot be freed before [Held.Close].
type Held[T any] struct {
	Objects []*T // by id, ascending

	kind kind
	ids  []int
	kept keeper
}

// Open returns a descriptor of the object with an id, which the caller closes.
func (h *Held[T]) Open(id int) (fd int, err error) {
	if _, ok := h.index(id); !ok {
		return -1, &NotFoundError{h.kind.name, id}
	}
	return openID(h.kind, uint32(id))
}

// Object returns the object with an id, or nil.
func (h *Held[T]) Object(id int) *T {
	i, ok := h.index(id)
	if !ok {
		return nil
	}
	return h.Objects[i]
}

func (h *Held[T]) index(id int) (int, bool) {
	if h == nil {
		return 0, false
	}
	return slices.BinarySearch(h.ids, id)
}

// Close lets go of the objects. What is known of them stays.
func (h *Held[T]) Close() error {
	if h == nil {
		return nil
	}
	h.ids = nil
	return h.kept.close()
}

// A kind is a kind of object with ids, and how these are walked and opened.
type kind struct {
	name       string
	next, open command
}

var (
	progKind = kind{"prog", progNextID, progFD}
	mapKind  = kind{"map", mapNextID, mapFD}
	linkKind = kind{"link", linkNextID, linkFD}
	btfKind  = kind{"btf", btfNextID, btfFD}
)

// hold opens the objects with the ids, or all, and describes each. It goes on
// after an object that cannot be described: that one is left out and said.
func hold[T any](k kind, ids []int, describe func(id, fd int) (*T, error)) (*Held[T], error) {
	return walk(k, ids, describe, true)
}

// list describes all objects and does not hold them.
func list[T any](k kind, describe func(id, fd int) (*T, error)) (*Held[T], error) {
	return walk(k, nil, describe, false)
}

func walk[T any](k kind, ids []int, describe func(id, fd int) (*T, error), keep bool) (*Held[T], error) {
	h := &Held[T]{kind: k}
	var errs kernel.Errors
	raiseLimit()
	add := func(id int, asked bool) (more bool) {
		fd, err := openID(k, uint32(id))
		switch {
		case tooMany(err):
			errs.Add(h.limit(k, err))
			return false
		case errors.Is(err, unix.ENOENT):
			if asked {
				errs.Add(&NotFoundError{k.name, id})
			}
			return true
		case errors.Is(err, unix.EAGAIN): // a link that is just being made
			if asked {
				errs.Add(fmt.Errorf("BPF %s %d: %w", k.name, id, err))
			}
			return true
		case err != nil:
			errs.Add(err)
			return false
		}
		o, err := describe(id, fd)
		if tooMany(err) {
			unix.Close(fd)
			errs.Add(h.limit(k, err))
			return false
		}
		if err != nil {
			errs.Add(fmt.Errorf("BPF %s %d: %w", k.name, id, err))
		}
		if o == nil {
			unix.Close(fd)
			return !errs.TooMany()
		}
		h.Objects, h.ids = append(h.Objects, o), append(h.ids, id)
		if keep {
			h.kept.add(fd)
		} else {
			unix.Close(fd)
		}
		return !errs.TooMany()
	}
	if len(ids) > 0 {
		ids = slices.Clone(ids)
		slices.Sort(ids)
		for _, id := range slices.Compact(ids) {
			if id <= 0 || int64(id) > 1<<31-1 {
				errs.Add(&NotFoundError{k.name, id})
				continue
			}
			if !add(id, true) {
				break
			}
		}
		return h, errs.Err()
	}
	for id := uint32(0); ; {
		next, err := nextID(k.next, id)
		if errors.Is(err, unix.ENOENT) {
			break
		}
		if err != nil {
			errs.Add(classify(k.next, err))
			break
		}
		if id = next; !add(int(id), false) {
			break
		}
	}
	return h, errs.Err()
}

func tooMany(err error) bool { return errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) }

func (h *Held[T]) limit(k kind, err error) error {
	var lim unix.Rlimit
	unix.Getrlimit(unix.RLIMIT_NOFILE, &lim)
	return &LimitError{Kind: k.name, Held: len(h.ids), Limit: lim.Cur, Err: err}
}

// linkTries: a link has its id a moment before the id can be opened.
const linkTries = 3

// openID opens an object.
func openID(k kind, id uint32) (int, error) {
	for try := 0; ; try++ {
		fd, err := fdByID(k.open, id)
		switch {
		case errors.Is(err, unix.EAGAIN) && try < linkTries:
			unix.Nanosleep(&unix.Timespec{Nsec: 100_000}, nil)
		case errors.Is(err, unix.ENOENT), errors.Is(err, unix.EAGAIN), tooMany(err):
			return -1, err
		default:
			return fd, classify(k.open, err)
		}
	}
}

// raiseLimit lets the process have as many descriptors as it may.
func raiseLimit() {
	var lim unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &lim) == nil && lim.Cur < lim.Max {
		lim.Cur = lim.Max
		unix.Setrlimit(unix.RLIMIT_NOFILE, &lim)
	}
}
