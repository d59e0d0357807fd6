//go:build linux

package bpfexpr_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/ksleuth/ksleuth/bpfexpr"
	"github.com/ksleuth/ksleuth/bpfsys"
	"github.com/ksleuth/ksleuth/cexpr"
	"github.com/ksleuth/ksleuth/ctype"
)

// types returns a world that no kernel has in memory, of its types.
func types(t testing.TB) *world {
	ts, err := bpfsys.KernelTypes()
	if ts == nil {
		t.Skip(err)
	}
	return newWorld(t, ts, 0xffff888000001000)
}

func TestErrors(t *testing.T) {
	w := types(t)
	w.vars["loop"] = bpfexpr.Var{Expr: "loop + 1"}
	w.vars["many"] = bpfexpr.Var{Expr: "n" + strings.Repeat("+n", 100)}
	w.vars["bad"] = bpfexpr.Var{Expr: "1 +"}
	w.vars["worse"] = bpfexpr.Var{Expr: "skb->lenn"}
	w.vars["huge"] = bpfexpr.Var{Type: w.typ("unsigned __int128"), Off: 0}
	w.vars["f"] = bpfexpr.Var{Type: w.typ("double"), Off: 0}
	for _, test := range []struct{ in, want string }{
		{"skbb->len", `column 1: no variable "skbb"; did you mean skb\?`},
		{"1 + skb->lne", `column 10: .*no member "lne"; did you mean len\?`},
		{"skb.len", `column 5: struct sk_buff \* is a pointer: use -> for its members`},
		{"skb->users->refs", `column 13: .* is not a pointer: use \. for its members`},
		{"n->x", `column 4: int is not a pointer.*`},
		{"n.x", `column 3: .*int has no members.*`},
		{"*n", `column 1: int is not a pointer`},
		{"*p", `column 1: void \* points to no known type: cast it`},
		{"p[0]", `column 3: void \* points to no known type: cast it`},
		{"skb->users + 1", `column 12: .* is neither a number nor a pointer`},
		{"skb * 2", `column 5: \* does not apply to struct sk_buff \* and int`},
		{"skb + skb", `column 5: \+ does not apply to .*`},
		{"-skb", `column 1: struct sk_buff \* is not a number: - does not apply`},
		{"n[n]", `column 3: int is neither array nor pointer`},
		{"skb->cb[skb]", `column 9: .* is not a number: it cannot be an index`},
		{"&n", `column 1: it is a copy: it has no address in the kernel's memory`},
		{"&skb->pkt_type", `column 1: a bitfield has no address`},
		{"&(n + 1)", `column 1: a computed value has no address`},
		{"comm + 1", `column 6: it is a copy.*`},
		{"comm[n]", `column 6: char\[16\] is a copy: only a constant can be its index`},
		{"comm[16]", `column 6: element 16 of char\[16\] is not known`},
		{`"a" + 1`, `column 5: a string can only be compared, by == and !=, with text`},
		{`n == "a"`, `column 3: int is not text.*`},
		{`skb == "a"`, `column 5: struct sk_buff \* is not text.*`},
		{"1 / 0", `column 3: division by zero`},
		{"n % (3 - 3)", `column 3: division by zero`},
		{"n << 32", `column 3: a shift of int by 32 bits is undefined in C`},
		{"n >> -1", `column 3: a shift of int by -1 bits is undefined in C`},
		{"b ? skb : dev", `column 11: the branches of \?: are of different types, struct sk_buff \* and struct net_device \*: cast one`},
		{"(struct sk_buff)n", `column 1: cannot cast int to struct sk_buff`},
		{"(void)n", `column 1: void has no value`},
		{"(struct sk_bufff *)p", `column 2: .*did you mean sk_buff\?`},
		{"sizeof(skb->pkt_type)", `column 1: a bitfield has no size in bytes`},
		{"huge + 1", `column 6: unsigned __int128: numbers of 16 bytes are not evaluated in the kernel`},
		{"(__int128)n", `column 1: __int128: numbers of 16 bytes are not evaluated in the kernel`},
		{"f > 1", `column 3: double: floating-point numbers are not evaluated in the kernel`},
		{"per_cpu(n, 1)", `column 1: per_cpu\(\) cannot be evaluated in the kernel, only by print`},
		{"list_for_each(n, struct sk_buff, list)", `column 1: list_for_each\(\) cannot be evaluated in the kernel, only by print`},
		{"exti(n)", `column 1: no function "exti"; did you mean exit\?`},
		{"exit(n, 1)", `column 1: exit\(\) takes 1 arguments, not 2`},
		{"user(n)", `column 1: int is not a pointer`},
		{"container_of(skb, struct sk_buff, lis)", `column 35: .*did you mean list\?`},
		{"container_of(skb, n, list)", `column 19: expected a type.*`},
		{"offsetof(struct sk_buff, pkt_type)", `column 26: a bitfield has no offset in bytes`},
		{"ctx->egress_ifindex == 1", `column 6: egress_ifindex of struct xdp_md is made up for BPF programs: the kernel has it nowhere`},
		{"1 + loop", `column 5: names stand for each other more than 8 deep`},
		{"1 + bad", `column 5: in "1 \+": column 4: .*`},
		{"1 + worse", `column 5: .*no member "lenn".*`},
		{"skb->users", `column 1: struct refcount_struct is neither a number nor a pointer|column 1: refcount_t is neither a number nor a pointer`},
		{"1 + many" + strings.Repeat(" + many", 30), `column [0-9]+: the expression is too large for the kernel`},
	} {
		c := qt.Commentf("%.60s", test.in)
		_, err := bpfexpr.Compile(w, bpfexpr.Input{Filter: w.parse(test.in)}, bpfexpr.Options{Faults: faultsAt})
		qt.Assert(t, qt.ErrorMatches(err, test.want), c)
		var e *bpfexpr.Error
		qt.Assert(t, qt.ErrorAs(err, &e), c)
		_, below, _ := strings.Cut(e.Caret(), "\n")
		qt.Check(t, qt.Equals(below, strings.Repeat(" ", e.Pos)+"^"), c)
		var ee *cexpr.EvalError
		qt.Check(t, qt.ErrorAs(err, &ee), c)
	}
	for _, test := range []struct{ in, want string }{
		{`"text"`, `column 1: a string is not worth showing`},
		{"skb->__cloned_offset", `column 1: its size is not known: show an element of it, by \[0\]`},
		{"per_cpu_ptr(p, 1)", `column 1: per_cpu_ptr\(\) cannot be .*`},
	} {
		_, err := bpfexpr.Compile(w, bpfexpr.Input{Show: []*cexpr.Expr{w.parse(test.in)}}, bpfexpr.Options{})
		qt.Check(t, qt.ErrorMatches(err, test.want))
	}
}

// TestSplit: what is evaluated when.
func TestSplit(t *testing.T) {
	w := types(t)
	for _, test := range []struct {
		filter            string
		entry, exit, show bool
		hidden            int
	}{
		{"skb->len > 3", true, false, false, 0},
		{"ret == 2", false, true, false, 0},
		{"ret == 2 && skb->len > 3", true, true, false, 0},
		{"ret == 2 || skb->len > 3", false, true, true, 1},
		{"ret == skb->len && (ret != 3 || skb->len)", false, true, true, 2}, // a value and a truth
		{"ret == skb->len && ret + 1 != skb->len", false, true, true, 1},
		{"duration > 100", false, true, false, 0},
		{"exit(skb->len) > 100", false, true, false, 0},
		{"exit(skb->len) > skb->len", false, true, true, 1},
		{"1 && 2", false, false, false, 0},
	} {
		c := qt.Commentf("%s", test.filter)
		p, err := bpfexpr.Compile(w, bpfexpr.Input{Filter: w.parse(test.filter)}, bpfexpr.Options{Faults: faultsAt})
		qt.Assert(t, qt.IsNil(err), c)
		qt.Check(t, qt.Equals(p.Filter != nil, test.entry), c)
		qt.Check(t, qt.Equals(p.ExitFilter != nil, test.exit), c)
		qt.Check(t, qt.Equals(p.Show != nil, test.show), c)
		qt.Check(t, qt.HasLen(p.Slots, test.hidden), c)
		qt.Check(t, qt.Equals(p.Bytes, 16*len(p.Slots)), c)
		p, err = bpfexpr.Compile(w, bpfexpr.Input{Filter: w.parse(test.filter)}, bpfexpr.Options{ExitOnly: true})
		qt.Assert(t, qt.IsNil(err), c)
		qt.Check(t, qt.IsTrue(p.Filter == nil && p.Show == nil && p.Slots == nil), c)
	}
}

func TestValue(t *testing.T) {
	w := types(t)
	s := bpfexpr.Slot{Name: "skb->len", Size: 8, Type: w.typ("int"), Off: 8}
	for _, test := range []struct {
		status int64
		want   string
	}{
		{-14, "skb->len: memory could not be read"}, {-33, "skb->len: division by zero"}, {-34, "skb->len: memory could not be read"}, {-75, "skb->len: a shift that C does not define"},
		{-22, `skb->len: could not be read \(-EINVAL\)`},
	} {
		b := le.AppendUint64(make([]byte, 8), uint64(test.status))
		_, err := s.Value(w.ts, append(b, make([]byte, 8)...))
		var unread *bpfexpr.ReadError
		qt.Assert(t, qt.ErrorAs(err, &unread))
		qt.Check(t, qt.Equals(unread.Errno, int(-test.status)))
		qt.Check(t, qt.ErrorMatches(err, test.want))
	}
	_, err := s.Value(w.ts, make([]byte, 23))
	qt.Check(t, qt.ErrorMatches(err, "skb->len: only 23 bytes of slots"))
	_, err = s.Value(w.ts, le.AppendUint64(make([]byte, 16), 5)[:24])
	qt.Check(t, qt.IsNil(err))
	b := le.AppendUint64(make([]byte, 16), ^uint64(4))
	v, err := s.Value(w.ts, b)
	qt.Assert(t, qt.IsNil(err))
	text, err := ctype.FormatValue(v, ctype.FormatOptions{})
	qt.Check(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(text, "-5"))
	_, err = s.Value(w.ts, le.AppendUint64(le.AppendUint64(make([]byte, 8), 77), 0))
	qt.Check(t, qt.ErrorMatches(err, ".*its slot was not filled"))
	qt.Check(t, qt.IsFalse(errors.As(err, new(*bpfexpr.ReadError))))
}
