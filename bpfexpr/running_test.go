//go:build linux

package bpfexpr_test

import (
	"bufio"
	_ "embed"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/ksleuth/ksleuth/bpfexpr"
	"github.com/ksleuth/ksleuth/cexpr"
	"github.com/ksleuth/ksleuth/ctype"
	"github.com/ksleuth/ksleuth/mem"
)

//go:embed testdata/expressions.txt
var expressions string

// A question is an expression, and the one that package cexpr judges it by.
type question struct{ src, same string }

func table(w *world) (qs []question) {
	for s := bufio.NewScanner(strings.NewReader(expressions)); s.Scan(); {
		if line := strings.TrimSpace(s.Text()); line != "" && line[0] != '#' {
			src, same, ok := strings.Cut(line, " => ")
			if !ok {
				same = src
			}
			qs = append(qs, question{src, same})
		}
	}
	return qs
}

// eval is what package cexpr says; wild means that it follows a pointer into
// memory that only the kernel knows.
func (w *world) eval(src string) (v ctype.Value, wild bool, err error) {
	r, err := cexpr.Eval(src, w)
	if err != nil {
		var fault *mem.Fault
		return v, errors.As(err, &fault) && fault.Addr>>47 == 1<<17-1, err
	}
	v, err = r.Value()
	return v, false, err
}

// truth says whether an expression holds.
func (w *world) truth(src string) (bool, bool, error) {
	v, wild, err := w.eval("!!(" + src + ")")
	if err != nil {
		return false, wild, err
	}
	b, err := v.Bool()
	return b, false, err
}

// judge says how the value in a slot differs from what package cexpr gives.
func (w *world) judge(s bpfexpr.Slot, slots []byte, same string) (wild bool, err error) {
	want, wild, wantErr := w.eval(same)
	got, gotErr := s.Value(w.ts, slots)
	var unread *bpfexpr.ReadError
	if gotErr != nil && !errors.As(gotErr, &unread) {
		return false, gotErr
	}
	var a, b string
	switch {
	case wantErr != nil:
	case s.Form == bpfexpr.Scalar:
		var u uint64
		if u, wantErr = want.Uint(); wantErr == nil {
			a = fmt.Sprintf("%#x %s", u, shape(want))
		}
	case s.Form == bpfexpr.String:
		if a, wantErr = want.CString(); wantErr == nil {
			a = a[:min(len(a), 63)]
		}
	default:
		var m []byte
		if m, wantErr = want.Bytes(); wantErr == nil {
			a = fmt.Sprintf("%x", m[:min(len(m), s.Size)])
		}
	}
	switch {
	case gotErr != nil:
	case s.Form == bpfexpr.Scalar:
		u, err := got.Uint()
		if err != nil {
			return false, err
		}
		b = fmt.Sprintf("%#x %s", u, shape(got))
	case s.Form == bpfexpr.String:
		if b, err = got.CString(); err != nil {
			return false, err
		}
	default:
		m, err := w.ts.Blob(nil, ctype.ArrayOf(ctype.Builtin("u8"), uint32(s.Size)), slots[s.Off+8:], "").Bytes()
		if err != nil {
			return false, err
		}
		b = fmt.Sprintf("%x", m)
	}
	if wild = wild || wantErr != nil && isWild(wantErr); wild {
		return true, nil
	}
	if (gotErr == nil) != (wantErr == nil) || a != b {
		return false, fmt.Errorf("got %s, %v, want %s, %v", b, gotErr, a, wantErr)
	}
	return false, nil
}

func isWild(err error) bool {
	var fault *mem.Fault
	return errors.As(err, &fault) && fault.Addr>>47 == 1<<17-1
}

// shape tells types apart that C calculates differently with.
func shape(v ctype.Value) string {
	t := v.Type()
	if t.Strip().Kind() == ctype.Array || t.Strip().Kind() == ctype.Pointer {
		return "pointer"
	}
	n, err := t.Size()
	return fmt.Sprintf("%d %t %v", n, t.IsSigned(), err)
}

// TestRunningKernelShow holds the values of expressions, as the kernel has
// evaluated them, against those of package cexpr.
func TestRunningKernelShow(t *testing.T) {
	newLab(t).judgeShow(bpfexpr.Options{Faults: faultsAt})
}

// TestShowExitOnly: the same if all is evaluated at the return.
func TestShowExitOnly(t *testing.T) {
	newLab(t).judgeShow(bpfexpr.Options{Faults: faultsAt, ExitOnly: true})
}

func (l *lab) judgeShow(o bpfexpr.Options) {
	const each = 50
	t, w := l.t, l.world
	qs := table(w)
	var plans []*bpfexpr.Plan
	for i := 0; i < len(qs); i += each {
		in := bpfexpr.Input{}
		for _, q := range qs[i:min(i+each, len(qs))] {
			in.Show = append(in.Show, w.parse(q.src))
		}
		p, err := bpfexpr.Compile(w, in, o)
		qt.Assert(t, qt.IsNil(err))
		plans = append(plans, p)
	}
	faults := 0
	for i, r := range l.run(plans, o.ExitOnly) {
		failed := 0
		for j, s := range plans[i].Slots {
			if !s.Shown {
				continue
			}
			q := qs[i*each+j]
			_, err := w.judge(s, r.slots, q.same)
			qt.Check(t, qt.IsNil(err), qt.Commentf("%s", q.src))
			if _, err := s.Value(w.ts, r.slots); err != nil {
				failed++
			}
		}
		qt.Check(t, qt.Equals(r.faults, failed))
		faults += failed
	}
	t.Logf("%d expressions, %d of them without a value; %d instructions", len(qs), faults, l.insns)
}

// TestRunningKernelFilter: as filters the same expressions let the call pass,
// or not; some need what is known at the return.
func TestRunningKernelFilter(t *testing.T) {
	l := newLab(t)
	l.judgeFilters(table(l.world), bpfexpr.Options{Faults: faultsAt})
}

// TestFilterExitOnly: the same if all is evaluated at the return.
func TestFilterExitOnly(t *testing.T) {
	l := newLab(t)
	l.judgeFilters(table(l.world), bpfexpr.Options{Faults: faultsAt, ExitOnly: true})
}

func (l *lab) judgeFilters(all []question, o bpfexpr.Options) {
	t, w := l.t, l.world
	var plans []*bpfexpr.Plan
	var qs []question
	exits := 0
	for _, q := range all {
		if _, wild, err := w.truth(q.same); wild || isStatic(err) {
			continue // a struct, say
		}
		p, err := bpfexpr.Compile(w, bpfexpr.Input{Filter: w.parse(q.src)}, o)
		if err != nil {
			if !refusedConstant(err) && !strings.Contains(err.Error(), "copy") {
				t.Errorf("%s: %v", q.src, err)
			}
			continue
		}
		if p.ExitFilter != nil {
			exits++
		}
		plans, qs = append(plans, p), append(qs, q)
	}
	for i, r := range l.run(plans, !o.ExitOnly) {
		want, _, err := w.truth(qs[i].same)
		c := qt.Commentf("%s: %v", qs[i].src, err)
		qt.Check(t, qt.Equals(r.wanted, want), c)
		if err == nil {
			qt.Check(t, qt.Equals(r.faults, 0), c)
		} else {
			qt.Check(t, qt.Equals(r.faults, 1), c)
		}
	}
	t.Logf("%d filters, %d of them at the return", len(qs), exits)
}

// isStatic says whether an expression can have no value whatever memory holds.
func isStatic(err error) bool {
	var fault *mem.Fault
	return err != nil && !errors.As(err, &fault) && !strings.Contains(err.Error(), "division by zero") && !strings.Contains(err.Error(), "undefined in C")
}

// refusedConstant says whether an expression was refused for what can never be
// evaluated, though it need not be.
func refusedConstant(err error) bool {
	return strings.Contains(err.Error(), "division by zero") || strings.Contains(err.Error(), "undefined in C")
}
