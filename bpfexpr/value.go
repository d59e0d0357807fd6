package bpfexpr

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/ksleuth/ksleuth/ctype"
)

// A ReadError says that an expression had no value when it was evaluated in
// the kernel.
type ReadError struct {
	Name  string // the expression
	Errno int    // positive: EFAULT, or ERANGE for what is no address of the kernel; EDOM is a division by zero, EOVERFLOW a shift that C does not define
}

// Error says what could not be evaluated, and why.
func (e *ReadError) Error() string {
	switch e.Errno {
	case 14, 34: // EFAULT, ERANGE
		return e.Name + ": memory could not be read"
	case edom:
		return e.Name + ": division by zero"
	case eoverflow:
		return e.Name + ": a shift that C does not define"
	}
	return fmt.Sprintf("%s: could not be read (%s)", e.Name, ctype.ErrorName(-int64(e.Errno)))
}

// Value returns what is in a slot, given all slots of a call: a scalar of the
// slot's type; text, as an array of char, without what is behind its end; or an
// object, of which only the first Size bytes may be known. If there was no
// value the error is a [*ReadError].
func (s Slot) Value(ts *ctype.Types, slots []byte) (ctype.Value, error) {
	if s.Off < 0 || s.Size < 0 || len(slots) < s.Off+8+(s.Size+7)&^7 {
		return ctype.Value{}, fmt.Errorf("%s: only %d bytes of slots", s.Name, len(slots))
	}
	b := slots[s.Off:]
	if status := int64(binary.LittleEndian.Uint64(b)); status != 0 {
		if status > 0 || status < -4095 {
			return ctype.Value{}, fmt.Errorf("%s: its slot was not filled", s.Name)
		}
		return ctype.Value{}, &ReadError{s.Name, int(-status)}
	}
	b = b[8 : 8+s.Size]
	switch s.Form {
	case Scalar:
		return ts.Scalar(nil, s.Type, binary.LittleEndian.Uint64(b), s.Name), nil
	case String:
		if i := bytes.IndexByte(b, 0); i >= 0 {
			b = b[:i]
		}
		t := ctype.ArrayOf(ctype.Builtin("char"), uint32(len(b)+1))
		return ts.Blob(nil, t, append(bytes.Clone(b), 0), s.Name), nil
	case Memory:
		return ts.Blob(nil, s.Type, b, s.Name), nil
	}
	return ctype.Value{}, errors.New("unknown form of slot")
}
