package mem

import (
	"fmt"
	"strconv"
)

// An Addr is an address, or any other word best read in hexadecimal. It
// prints as 0x-prefixed hexadecimal, also in JSON, where it is a string:
// JSON numbers lose bits above 2^53.
type Addr uint64

// String returns a in hexadecimal with the prefix 0x.
func (a Addr) String() string { return fmt.Sprintf("0x%x", uint64(a)) }

// MarshalText implements [encoding.TextMarshaler].
func (a Addr) MarshalText() ([]byte, error) {
	return strconv.AppendUint([]byte("0x"), uint64(a), 16), nil
}

// UnmarshalText implements [encoding.TextUnmarshaler].
func (a *Addr) UnmarshalText(b []byte) error {
	v, err := strconv.ParseUint(string(b), 0, 64)
	*a = Addr(v)
	return err
}
