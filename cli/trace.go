package cli

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/ksleuth/ksleuth/probe"
	"github.com/ksleuth/ksleuth/trace"
	"github.com/ksleuth/ksleuth/tracee"
)

// traceFlags are what the command line says of what to observe.
type traceFlags struct {
	subprogs bool
	where    string
	filter   string
	show     []string
	hist     string
	count    bool
	byReturn bool
	exitOnly bool
	flat     bool
	track    bool
	stack    bool
	pcap     string
	snap     int

	pid    int
	comm   string
	cgroup string
	netns  string
	longer time.Duration

	during  time.Duration
	calls   int
	maxRate uint64
	buffer  string
	by      string
	force   bool
	dryRun  bool
}

func (a *app) traceCommand() *cobra.Command {
	var f traceFlags
	c := &cobra.Command{
		Use:     "trace WHAT...",
		Short:   "Calls of BPF programs and kernel functions: what was passed, what came back",
		GroupID: groupInvestigate,
		Long: `Trace shows the calls of BPF programs and kernel functions as they happen, each with its
arguments, what it returned and what that means, how long it took, and the calls made
within. Nothing is changed, and everything that was attached is gone when trace ends,
however it ends. Where tracing would change what a program does, trace says so and
refuses (--force does it all the same).

WHAT is
` + indent(tracee.Help) + `
Expressions of --where, --show and --hist are C, as print takes them, over the function's
parameters by their names, and: ret, duration (ns), pid, tid, uid, gid, comm, cpu, cgroup;
for BPF programs also ctx, and the same as the kernel has it: xdp, skb. They are evaluated
when the call begins, or, where they use ret or duration, when it returns: exit(EXPR) is
what stands in memory then.`,
		Example: `  ksleuth trace xdp@eth0 --subprogs
  ksleuth trace prog:7 --filter 'tcp port 443' --where 'ret != 2'
  ksleuth trace tcp_connect --show 'sk->__sk_common.skc_dport, sk->sk_state'
  ksleuth trace 'tcp_*' --count --by-return
  ksleuth trace vfs_read --hist duration --pid 1234
  ksleuth trace xdp@eth0 ip_rcv --track --filter 'host 10.0.0.7' --pcap out.pcapng
  ksleuth trace --dry-run 'nf_conntrack:*'`,
		Args: atLeast(1, "what to trace"),
		RunE: func(_ *cobra.Command, args []string) error { return a.trace(args, &f) },
	}
	fl := c.Flags()
	fl.BoolVar(&f.subprogs, "subprogs", false, "of programs all functions, the freplace programs in\ntheir place, and what they tail-call")
	fl.StringVar(&f.where, "where", "", "only calls for which this C `EXPR` is true")
	fl.StringVar(&f.filter, "filter", "", "only packets that this `PCAP-FILTER` matches")
	fl.StringArrayVar(&f.show, "show", nil, "values to show of each call: `EXPR,...`")
	fl.BoolVar(&f.count, "count", false, "count the calls in the kernel")
	fl.StringVar(&f.hist, "hist", "", "a histogram of this `EXPR`'s values, made in the kernel")
	fl.BoolVar(&f.byReturn, "by-return", false, "with --count and --hist: apart by return value")
	fl.BoolVar(&f.exitOnly, "exit-only", false, "see returns alone: cheaper, without durations and trees")
	fl.BoolVar(&f.flat, "flat", false, "one line a call, at its return, in place of trees")
	fl.BoolVar(&f.track, "track", false, "follow the packets that match across all functions,\nthrough clones and copies")
	fl.BoolVar(&f.stack, "stack", false, "show the kernel's stack of each call")
	fl.StringVar(&f.pcap, "pcap", "", "write the packets to this pcapng `FILE`, each with\nwhat became of it")
	fl.IntVar(&f.snap, "snaplen", 0, "`BYTES` of each packet to keep (default 128, with --pcap 1514)")
	fl.IntVar(&f.pid, "pid", 0, "only in this process `PID`")
	fl.StringVar(&f.comm, "comm", "", "only in threads of this `NAME`")
	fl.StringVar(&f.cgroup, "cgroup", "", "only in this cgroup (v2) `PATH`, not those below")
	fl.StringVar(&f.netns, "netns", "", "only in a network namespace: its `PATH`, inode number,\nor pid:N")
	fl.DurationVar(&f.longer, "longer", 0, "only calls that took as long as this `TIME`")
	fl.DurationVar(&f.during, "for", 0, "end after this `TIME`")
	fl.IntVar(&f.calls, "calls", 0, "end after `N` calls were shown")
	fl.Uint64Var(&f.maxRate, "max-rate", 0, "detach if there are more than `N` calls a second")
	fl.StringVar(&f.buffer, "buffer", "8M", "`SIZE` of the buffer between kernel and ksleuth")
	fl.StringVar(&f.by, "by", "", "the only `WAY` to attach: fentry, fsession or kprobe-multi")
	fl.BoolVar(&f.force, "force", false, "attach even where that changes what a program does")
	fl.BoolVar(&f.dryRun, "dry-run", false, "show what would be attached and how, and attach nothing")
	return c
}

// indent sets lines in from the margin.
func indent(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		b.WriteString("  " + line)
	}
	return b.String()
}

// mechanisms are the ways to attach, as the command line names them.
var mechanisms = map[string]probe.Mechanism{
	"": "", "fentry": probe.Trampoline, "fsession": probe.FSession, "kprobe-multi": probe.KprobeMulti,
}

// request makes of the command line what is asked for, but for the functions.
func (f *traceFlags) request() (trace.Request, error) {
	r := trace.Request{
		Filter: f.where, PacketFilter: f.filter, Show: f.show, Hist: f.hist,
		Count: f.count, ByReturn: f.byReturn, ExitOnly: f.exitOnly, Flat: f.flat, Track: f.track,
		PID: f.pid, Comm: f.comm, MinDuration: f.longer,
	}
	var ok bool
	if r.Mechanism, ok = mechanisms[f.by]; !ok {
		return r, usage(fmt.Errorf("--by %q: fentry, fsession or kprobe-multi", f.by))
	}
	if f.stack {
		r.Stack = stackDepth
	}
	r.Snap = cmp.Or(f.snap, shortSnap)
	if f.pcap != "" {
		r.Snap = cmp.Or(f.snap, ethernetSnap)
	}
	if r.Snap < 0 || r.Snap > maxSnap {
		return r, usage(fmt.Errorf("--snaplen %d: from 1 to %d bytes", f.snap, maxSnap))
	}
	var err error
	if r.Buffer, err = bufferSize(f.buffer); err != nil {
		return r, err
	}
	if r.Cgroup, err = inode("--cgroup", f.cgroup); err != nil {
		return r, err
	}
	netns, err := netnsInode(f.netns)
	r.Netns = uint32(netns)
	return r, errors.Join(err, f.contradictions())
}

const (
	stackDepth   = 32   // frames of a kernel stack
	shortSnap    = 128  // enough for headers
	ethernetSnap = 1514 // a whole frame
	maxSnap      = 9216 // a jumbo frame; records must fit into the buffer many times
)

// contradictions says which options do not go together.
func (f *traceFlags) contradictions() error {
	for _, c := range []struct {
		both bool
		text string
	}{
		{f.count && f.hist != "", "--count and --hist: one of them"},
		{f.byReturn && !f.count && f.hist == "", "--by-return is of --count and --hist"},
		{(f.count || f.hist != "") && f.pcap != "", "--pcap needs the packets themselves, which --count and --hist leave in the kernel"},
		{f.exitOnly && f.longer != 0, "--exit-only does not know how long calls take, which --longer asks"},
		{f.during < 0 || f.calls < 0 || f.longer < 0, "--for, --calls and --longer are not negative"},
		{len(f.comm) > 15, "--comm: the kernel keeps 15 characters of a thread's name"},
	} {
		if c.both {
			return usage(errors.New(c.text))
		}
	}
	return nil
}

// bufferSize is a number with K or M behind it, rounded up to a power of two,
// which the kernel asks for.
func bufferSize(text string) (int, error) {
	shift := map[byte]int{'k': 10, 'K': 10, 'm': 20, 'M': 20}
	num, by := text, 0
	if n := len(text); n > 0 && shift[text[n-1]] != 0 {
		num, by = text[:n-1], shift[text[n-1]]
	}
	n, err := strconv.ParseUint(num, 10, 32)
	const least, most = 64 << 10, 1 << 30
	if err != nil || n<<by < least || n<<by > most {
		return 0, usage(fmt.Errorf("--buffer %q: from 64K to 1024M", text))
	}
	size := uint64(least)
	for size < n<<by {
		size *= 2
	}
	return int(size), nil
}

// inode returns the inode number of a file, which is the id of a cgroup and of
// a namespace; 0 for no path.
func inode(flag, path string) (uint64, error) {
	if path == "" {
		return 0, nil
	}
	info, err := os.Stat(path)
	if err != nil {
		return 0, usage(fmt.Errorf("%s: %w", flag, err))
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, usage(fmt.Errorf("%s %s: it has no inode number", flag, path))
	}
	return st.Ino, nil
}

// netnsInode takes a network namespace by path, inode number or process.
func netnsInode(text string) (uint64, error) {
	if n, err := strconv.ParseUint(text, 10, 32); err == nil {
		return n, nil
	}
	if pid, ok := strings.CutPrefix(text, "pid:"); ok {
		return inode("--netns", "/proc/"+pid+"/ns/net")
	}
	return inode("--netns", text)
}
