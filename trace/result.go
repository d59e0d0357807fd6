package trace

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/ksleuth/ksleuth/ctype"
	"github.com/ksleuth/ksleuth/mem"
	"github.com/ksleuth/ksleuth/tracee"
)

// result tells what a call returned; nil of a function that returns nothing.
func (p *Point) result(r0 uint64) *Return {
	r := &Return{Raw: mem.Addr(r0)}
	k := p.knows()
	v := k.verdicts
	switch {
	case p.Func.Kind == tracee.Program && v != nil,
		p.Func.Kind == tracee.Extension && v != nil && k.decides:
		v.fill(r, k.typ)
	case !p.typed(r):
		return nil
	case p.Func.Kind == tracee.Program:
		errorText(r, int64(int32(r0))) // struct_ops and lsm without a prototype
	case v != nil && k.decides && (p.Func.Proto == nil || p.Func.Result().Strip().Kind() == ctype.Int):
		if a, ok := v.find(r.Value); ok && a.constant() {
			r.Text = fmt.Sprintf("%d (%s)", r.Value, a.name)
		}
	}
	return r
}

// mayDecide says whether what a function returns may be its program's action: it
// has the program's context, and returns a number of 32 or 64 bits.
func (p *Point) mayDecide() bool {
	params := p.Func.Params()
	if p.Func.Proto == nil {
		return true
	}
	if len(params) == 0 {
		return false
	}
	first := params[0].Type.Strip()
	if first.Kind() != ctype.Pointer || !first.Elem().Strip().IsRecord() && first.Elem().Strip().Kind() != ctype.Fwd {
		return false
	}
	t := p.Func.Result()
	n, err := t.Size()
	return err == nil && t.IsInteger() && !t.IsBool() && n >= 4
}

// typed words r by the C type that the function returns. It is false of a
// function that returns nothing.
func (p *Point) typed(r *Return) bool {
	raw := uint64(r.Raw)
	if p.Func.Proto == nil || p.Func.Types == nil {
		r.Value = int64(raw)
		r.Text = r.Raw.String()
		if p.Func.Kind != tracee.Kernel && raw>>32 == 0 { // BPF code returns int more often than not
			r.Value, r.Text = int64(int32(raw)), strconv.FormatInt(int64(int32(raw)), 10)
		}
		return true
	}
	t := p.Func.Result()
	s := t.Strip()
	switch {
	case s.Kind() == ctype.Void:
		return false
	case s.Kind() == ctype.Pointer:
		r.Value, r.Text = int64(raw), pointerText(raw)
		return true
	case s.IsRecord():
		r.Value, r.Text = int64(raw), r.Raw.String()
		if n, err := t.Size(); err == nil && n <= 8 {
			r.Text = plainText(p.Func.Types.Blob(nil, t, littleEndian([]uint64{raw})[:n], "result"))
		}
		return true
	}
	v := p.Func.Types.Scalar(nil, t, raw, "result")
	n, err := v.Int()
	text, ferr := ctype.FormatValue(v, ctype.FormatOptions{})
	if err != nil || ferr != nil {
		r.Value, r.Text = int64(raw), r.Raw.String()
		return true
	}
	r.Value, r.Text = n, text
	size, _ := t.Size()
	switch {
	case s.Kind() == ctype.Int && t.IsSigned(), s.Kind() == ctype.Int && size == 8:
		errorText(r, n)
	}
	return true
}

// errorText names the error in a negative number.
func errorText(r *Return, n int64) {
	r.Value = n
	if name := ctype.ErrorName(n); name != "" {
		r.Text = fmt.Sprintf("%d (%s)", n, name)
	}
	if r.Text == "" {
		r.Text = strconv.FormatInt(n, 10)
	}
}

// pointerText is an address, or the error that stands for one (IS_ERR).
func pointerText(v uint64) string {
	switch name := ctype.ErrorName(int64(v)); {
	case v == 0:
		return "NULL"
	case name != "":
		return fmt.Sprintf("ERR_PTR(%d) (%s)", int64(v), name)
	}
	return "0x" + strconv.FormatUint(v, 16)
}

// plainText is a small record on one line.
func plainText(v ctype.Value) string {
	b, err := json.Marshal(v.Plain(ctype.FormatOptions{}))
	if err != nil {
		return "{...}"
	}
	return string(b)
}

func littleEndian(words []uint64) []byte {
	var b []byte
	for _, w := range words {
		b = binary.LittleEndian.AppendUint64(b, w)
	}
	return b
}

// decided words the return value of a function again that a program was
// entered in whose place it returned: then it is that program's action.
func (p *Point) decided(r *Return) {
	if k := p.knows(); k.verdicts != nil && p.Func.Kind != tracee.Program {
		k.verdicts.fill(r, k.typ)
	}
}
