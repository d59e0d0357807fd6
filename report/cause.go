package report

import (
	"context"
	"encoding/binary"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ksleuth/ksleuth/finding"
	"github.com/ksleuth/ksleuth/kernel"
	"github.com/ksleuth/ksleuth/mem"
	"github.com/ksleuth/ksleuth/stack"
	"github.com/ksleuth/ksleuth/unwind"
	"github.com/ksleuth/ksleuth/x86"
)

// cause states why the kernel crashed, as far as the dump shows it: a frame
// pointer that is not what the code made it, or else the decoded fault alone.
func (b *builder) cause(ctx context.Context, c crash) {
	b.shown(c)
	cu, origin, err := b.again(ctx, c)
	switch {
	case cu != nil:
		b.culprit(cu)
	case origin != nil && b.r.Cause != nil:
		b.origin(origin)
	case err != nil && b.r.Missing != "":
		b.r.Missing += ", and run again offline it does not come to the fault: " + err.Error()
	}
}

// shown states what the dump shows by itself.
func (b *builder) shown(c crash) {
	for _, d := range c.stack.Damage {
		if d.Frame >= c.first {
			b.r.Cause = b.damage(c, d)
			b.r.Missing = "which instruction wrote it is not shown here: the code that ran between the two has to be executed again"
			return
		}
	}
	f := b.r.Fault
	if f == nil {
		if b.r.Panic != "" && len(b.r.Frames) > 0 {
			b.r.Cause = &finding.Finding{
				Title: "panic", Certainty: finding.Proven,
				Text:     fmt.Sprintf("%s called panic(): %s", b.where(), b.r.Panic),
				Evidence: []finding.Evidence{},
			}
			if b.r.Headline != "" {
				b.r.Cause.Evidence = append(b.r.Cause.Evidence, finding.Evidence{Text: "the kernel's log: " + b.r.Headline})
			}
		}
		return
	}
	cause := &finding.Finding{Title: f.Kind, Text: f.Text, Certainty: finding.Proven, Evidence: []finding.Evidence{}}
	if f.Register != "" && uint64(f.Addr) < nullPage {
		cause.Title = "NULL pointer dereference"
	}
	for _, in := range b.r.Code {
		if in.Here {
			if f.Access == "execute" && in.Note == "" {
				in.Note = "the call that led there"
			}
			cause.Evidence = append(cause.Evidence, finding.Evidence{
				Text: in.Note, Addr: in.Addr, Bytes: in.Bytes, Insn: in.Text,
			})
		}
	}
	if c.lockup != "" && b.r.Headline != "" {
		cause.Evidence = append(cause.Evidence, finding.Evidence{Text: "the kernel's log: " + b.r.Headline})
	}
	if f.Register != "" {
		b.r.Missing = fmt.Sprintf("where %s got its value is not shown here: the code before has to be executed again", f.Register)
	}
	b.r.Cause = cause
}

// damage words a damaged frame pointer.
func (b *builder) damage(c crash, d unwind.Damage) *finding.Finding {
	victim := c.stack.Frames[d.Frame]
	got, want := word(d.Got), word(d.Want)
	patch := overwritten(got, want)
	f := &finding.Finding{Title: "saved frame pointer partially overwritten", Certainty: finding.Proven}
	if patch.first == 0 && patch.len == 8 {
		f.Title = "saved frame pointer overwritten"
	}
	f.Text = fmt.Sprintf("The frame pointer of %s was damaged: rbp is %x, and must be %x; %s.",
		victim.Symbol, d.Got, d.Want, patch)

	f.Evidence = append(f.Evidence, finding.Evidence{
		Text: fmt.Sprintf("%s moves rsp by constants alone: where it stands, rbp must be rsp+%#x", victim.Symbol, d.Want-victim.Raw.SP),
		Addr: mem.Addr(d.Want), Bytes: fmt.Sprintf("% x", got),
	})
	if d.Cell != 0 {
		f.Evidence = append(f.Evidence, finding.Evidence{
			Text: fmt.Sprintf("the damaged copy is the one saved at %#x", d.Cell), Addr: mem.Addr(d.Cell), Bytes: fmt.Sprintf("% x", got),
		})
	} else if call, ok := b.lastCall(victim); ok {
		f.Evidence = append(f.Evidence, call)
	}
	if b.r.Fault != nil && b.r.Fault.Register == "rbp" {
		f.Evidence = append(f.Evidence, finding.Evidence{
			Text: fmt.Sprintf("the faulting address %#x was computed from it: the crash is where the damage was next used", uint64(b.r.Fault.Addr)),
			Addr: mem.Addr(c.regs.RIP),
		})
	}
	return f
}

func word(v uint64) []byte { return binary.LittleEndian.AppendUint64(nil, v) }

// A patch is the smallest power-of-two store that turns one word into another.
type patch struct {
	first, len int // bytes, from the lowest address
	value      []byte
}

// overwritten finds the store that explains the bytes that differ. Several
// widths and positions can: the differing bytes may be a part of what was
// written, as the others may have been equal before. A store whose value is an
// error code of the kernel is the most telling; else the tightest.
func overwritten(got, want []byte) patch {
	first, last := -1, -1
	for i := range got {
		if got[i] != want[i] {
			if first < 0 {
				first = i
			}
			last = i
		}
	}
	if first < 0 {
		return patch{}
	}
	var tight patch
	for _, n := range []int{1, 2, 4, 8} {
		for at := max(0, last-n+1); at <= first && at+n <= len(got); at++ {
			p := patch{at, n, got[at : at+n]}
			if tight.len == 0 || tight.len == n {
				tight = p // of one width, the last that begins at or before the first difference
			}
			if _, ok := p.errno(); ok {
				return p
			}
		}
	}
	return tight
}

// errno returns the value of the store as a negative error code.
func (p patch) errno() (int64, bool) {
	if p.len < 4 {
		return 0, false
	}
	v := int64(int32(binary.LittleEndian.Uint32(p.value)))
	if p.len == 8 {
		v = int64(binary.LittleEndian.Uint64(p.value))
	}
	const maxErrno = 4095 // include/linux/err.h, MAX_ERRNO
	return v, v < 0 && v >= -maxErrno
}

// String says which bytes hold what.
func (p patch) String() string {
	s := fmt.Sprintf("bytes %d to %d became % x", p.first, p.first+p.len-1, p.value)
	if p.len == 1 {
		s = fmt.Sprintf("byte %d became % x", p.first, p.value)
	}
	if v, ok := p.errno(); ok {
		s += fmt.Sprintf(" = %s as %d-bit integer", errnoText(v), 8*p.len)
	}
	return s
}

// errnoText names a negative error code.
func errnoText(v int64) string {
	if name := unix.ErrnoName(unix.Errno(-v)); name != "" {
		return fmt.Sprintf("%d (-%s)", v, name)
	}
	return fmt.Sprint(v)
}

// lastCall finds the call that returned just before the code at fault: its
// callee had saved the frame pointer and gave the damaged one back.
func (b *builder) lastCall(f stack.Frame) (finding.Evidence, bool) {
	insns, err := b.around(f.Raw.PC)
	if err != nil {
		return finding.Evidence{}, false
	}
	for i := len(insns) - 1; i >= 0; i-- {
		in := &insns[i]
		if in.Addr >= f.Raw.PC {
			continue
		}
		switch in.Flow() {
		case x86.FlowCall:
			target, _ := in.Target()
			return finding.Evidence{
				Text: fmt.Sprintf("the last call before was to %s, which saved rbp on its stack and restored the damaged value", b.callee(target)),
				Addr: mem.Addr(in.Addr), Bytes: fmt.Sprintf("% x", in.Bytes()), Insn: string(in.AppendGNU(nil, b.symbol)),
			}, true
		case x86.FlowNext:
		default:
			return finding.Evidence{}, false // control flow joins here: which call was last is not known
		}
	}
	return finding.Evidence{}, false
}

// callee names the function at addr; a BPF program's as its source does.
func (b *builder) callee(addr uint64) string {
	f := stack.At(b.k, addr)
	if f.BPF != nil {
		s := f.Symbol + "()"
		if loc := f.BPF.Location(); loc != "" {
			s += " (" + loc + ")"
		}
		return s
	}
	if f.Kind == kernel.KindKernel || f.Kind == kernel.KindModule {
		return f.Symbol + "()"
	}
	return strings.TrimSpace(fmt.Sprintf("%#x %s", addr, f.Symbol))
}
