//go:build linux

package bpfexpr_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/ksleuth/ksleuth/bpfexpr"
)

// A generator makes expressions that are C by their types; what memory they
// read may not be there, divisors may be zero and shifts undefined.
type generator struct{ rnd *rand.Rand }

func (g generator) pick(of ...string) string { return of[g.rnd.IntN(len(of))] }

func (g generator) number(depth int) string {
	if depth <= 0 || g.rnd.IntN(9) == 0 {
		return g.leaf()
	}
	x := func() string { return "(" + g.number(depth-1) + ")" }
	switch g.rnd.IntN(16) {
	case 0:
		return g.pick("- ", "~", "!", "+ ") + x()
	case 1:
		return "(" + g.pick("u8", "s8", "u16", "s16", "u32", "int", "unsigned int", "long", "u64", "bool", "enum tcp_ca_state") + ")" + x()
	case 2:
		return x() + " ? " + x() + " : " + x()
	case 3:
		return x() + g.pick(" / ", " % ") + x()
	case 4:
		return x() + g.pick(" / ", " % ") + g.pick("3", "7u", "-5L", "11ul", "n", "u", "l", "c", "(u8)9", "-2147483648", "0x80000000", "skb->len", "-1")
	case 5:
		return x() + g.pick(" << ", " >> ") + g.pick("1", "13", "31u", "(u8)5", "(n & 31)", "skb->pkt_type", "(u8)u", "c", x())
	case 6:
		return x() + g.pick(" && ", " || ") + x()
	case 7, 8:
		return x() + g.pick(" < ", " <= ", " > ", " >= ", " == ", " != ") + x()
	case 9:
		return g.pointer(depth-1) + g.pick(" < ", " == ", " != ", " >= ") + g.pointer(depth-1)
	case 10:
		return g.text() + g.pick(" == ", " != ") + g.pick(`"eth0"`, `"nginx"`, `"curl"`, `""`, `"access.log"`, `"systemd"`, `"eth"`)
	case 11:
		return fmt.Sprintf("((%s *)%s)[(%s) & 63]", g.pick("u8", "s8", "u16", "s16", "u32", "int", "long", "u64", "bool"), g.pointer(depth-1), g.number(depth-1))
	case 12:
		return fmt.Sprintf("%s->%s", g.skb(depth-1), g.pick("len", "mark", "pkt_type", "skb_iif", "cb[3]", "ip_summed", "dev->ifindex", "sk->__sk_common.skc_num"))
	case 13:
		return fmt.Sprintf("skb->cb[(%s) & 31]", g.number(depth-1))
	}
	return x() + g.pick(" + ", " - ", " * ", " & ", " | ", " ^ ") + x()
}

func (g generator) leaf() string {
	if g.rnd.IntN(3) == 0 {
		return g.pick("0", "1", "7", "255", "0x7fffffff", "0x80000000", "0xffffffff", "4294967296", "0x8000000000000000", "1u", "3L", "5ul",
			"0xffffffffffffffffULL", "'A'", "'\\xf0'", "010", "2147483648", "TCP_ESTABLISHED", "XDP_TX", "sizeof(int)", "sizeof(*skb)", "(s8)-3", "(bool)3", "(u32)-1")
	}
	return g.pick("n", "u", "l", "b", "c", "pid", "uid", "cpu", "ret", "n", "u", "l", "ret", "duration", "comm[2]",
		"skb->len", "skb->data_len", "skb->skb_iif", "skb->pkt_type", "skb->cloned", "skb->fclone", "skb->ip_summed", "skb->csum_level", "skb->mac_len", "skb->cb[9]",
		"skb->hash", "skb->tstamp", "skb->protocol", "skb->next->len", "skb->prev->len", "skb->data[3]", "skb->dev->mtu", "dev->ifindex", "dev->num_tc", "dev->features",
		"dev->ml_priv_type", "sk->sk_err", "sk->__sk_common.skc_reuse", "sk->__sk_common.skc_state", "sk->sk_protocol", "task->prio", "task->exit_code",
		"task->in_execve", "task->se.vruntime", "task->il_prev", "file->f_pos", "file->f_mode", "xdp->rxq->queue_index", "*(s16 *)p", "task->mm->task_size")
}

// pointer makes a char *.
func (g generator) pointer(depth int) string {
	return "(" + g.pick("(char *)skb", "(char *)dev", "(char *)p", "(char *)skb->dev", "(char *)skb->next", "(char *)&skb->len", "(char *)skb->cb", "(char *)skb->data",
		fmt.Sprintf("(char *)skb + ((%s) & 127)", g.number(depth)), fmt.Sprintf("skb->cb + ((%s) & 15)", g.number(depth)),
		fmt.Sprintf("((%s) ? (char *)dev : (char *)p)", g.number(depth)), fmt.Sprintf("(char *)(%s)", g.leaf())) + ")"
}

func (g generator) skb(depth int) string {
	return g.pick("skb", "skb->prev", "skb->next", "(skb->next ? skb->next : skb)", fmt.Sprintf("((%s) ? skb : skb->prev)", g.number(depth)),
		"((struct sk_buff *)(u64)skb)", "container_of(&skb->len, struct sk_buff, len)", "(&skb[0])", "(skb + 1 - 1)")
}

func (g generator) text() string {
	return g.pick("comm", "dev->name", "task->comm", "skb->dev->name", "task->real_parent->comm", "file->f_path.dentry->d_name.name", "(char *)skb->next", "skb2name")
}

// random returns expressions that the compiler takes: constants that C does not
// define are refused even where C would not come by.
func (l *lab) random(seed uint64, count int) (qs []question, refused int) {
	g := generator{rand.New(rand.NewPCG(seed, 7))}
	w := l.world
	for len(qs) < count {
		src := strings.ReplaceAll(g.number(1+len(qs)%5), "skb2name", "skb->prev->prev->dev->name")
		_, err := bpfexpr.Compile(w, bpfexpr.Input{Filter: w.parse(src)}, bpfexpr.Options{})
		if err != nil {
			qt.Assert(l.t, qt.IsTrue(refusedConstant(err)), qt.Commentf("%s: %v", src, err))
			refused++
			continue
		}
		qs = append(qs, question{src, strings.ReplaceAll(src, "duration", "(now_ - start_)")})
	}
	return qs, refused
}

// TestRandom holds random expressions against package cexpr, as values and as
// filters.
func TestRandom(t *testing.T) { newLab(t).judgeRandom(1, 3000) }

// TestRunningKernelRandom does it with fewer: emulated processors are slow.
func TestRunningKernelRandom(t *testing.T) { newLab(t).judgeRandom(2, 200) }

func (l *lab) judgeRandom(seed uint64, count int) {
	t, w := l.t, l.world
	qs, refused := l.random(seed, count)
	const each = 100
	var plans []*bpfexpr.Plan
	for i := 0; i < len(qs); i += each {
		in := bpfexpr.Input{}
		for _, q := range qs[i:min(i+each, len(qs))] {
			in.Show = append(in.Show, w.parse(q.src))
		}
		p, err := bpfexpr.Compile(w, in, bpfexpr.Options{Faults: faultsAt, ExitOnly: i/each%2 == 1})
		qt.Assert(t, qt.IsNil(err))
		plans = append(plans, p)
	}
	wilds, failed := 0, 0
	for i, r := range l.run(plans, false) {
		for j := range each {
			q, s := qs[i*each+j], plans[i].Slots[j]
			wild, err := w.judge(s, r.slots, q.same)
			qt.Check(t, qt.IsNil(err), qt.Commentf("%s", q.src))
			if wild {
				wilds++
			}
			if _, err := s.Value(w.ts, r.slots); err != nil {
				failed++
			}
		}
	}
	t.Logf("%d expressions, %d of them without a value; %d not judged, they read elsewhere in the kernel; %d not compiled, for constants; %d instructions",
		len(qs), failed, wilds, refused, l.insns)
	l.judgeFilters(qs[:len(qs)/2], bpfexpr.Options{Faults: faultsAt})
}
