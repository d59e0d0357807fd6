package bpf_test

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/ksleuth/ksleuth/bpf"
	"github.com/ksleuth/ksleuth/internal/dumptest"
	"github.com/ksleuth/ksleuth/internal/example"
	"github.com/ksleuth/ksleuth/kernel"
)

// matrix are the kernels of the tests, oldest first.
var matrix = []string{"5.10", "6.1", "6.12", "7.2"}

// filled is what internal/bpfscene has put into a map.
type filled struct {
	name    string
	since   string   // the first kernel of the matrix that has the type
	entries []string // regular expressions of "key => value", sorted
}

var zoo = []filled{
	{name: "frozen", entries: []string{`0 => {\.x = 7, \.y = 7}`, `1 => {\.x = 8, \.y = -8}`}},
	{name: "inner", entries: []string{`5 => {\.x = 5, \.y = 50}`, `6 => {\.x = 6, \.y = 60}`}},
	{name: "by_name", entries: []string{`"ant" => 1`, `"bee" => 2`, `"cat" => 3`, `"dog" => 4`}},
	{name: "recent", entries: []string{`1 => RED \(0\)`, `2 => GREEN \(5\)`, `3 => 77`}},
	{name: "recent_percpu", entries: []string{`4 => cpu0 1, cpu1 2`}},
	{name: "percpu_points", entries: []string{
		`{\.x = 1, \.y = 1} => cpu0 {\.x = 0, \.y = 0}, cpu1 {\.x = 1, \.y = -1}`,
		`{\.x = 2, \.y = 9} => cpu0 {\.x = 100, \.y = 0}, cpu1 {\.x = 101, \.y = 0}`}},
	{name: "counters", entries: []string{
		`0 => cpu0 \d+, cpu1 \d+`, `1 => cpu0 \d+, cpu1 \d+`, `2 => cpu0 1000, cpu1 1001`, `3 => cpu0 0, cpu1 0`}},
	{name: "routes", entries: []string{
		`{\.prefixlen = 0, \.addr = {<4 x 0>}} => {\.whole = 3, .*}`,
		`{\.prefixlen = 24, \.addr = {192, 168, 7, 0}} => {\.whole = 4294967298, \.low = 2, \.high = 1, .*}`,
		`{\.prefixlen = 8, \.addr = {10, <3 x 0>}} => {\.whole = 1, .*}`}},
	{name: "queue", entries: []string{` => 010000000a000000`, ` => 0200000014000000`, ` => 030000001e000000`}},
	{name: "stack", entries: []string{` => 65000000`, ` => 66000000`}},
	{name: "untyped_hash", entries: []string{`010203040506 => 0a090807060504030201`}},
	{name: "untyped_percpu", entries: []string{`03000000 => cpu0 00ff00000000000000000000, cpu1 01ff00000000000000000000`}},
	{name: "numa", entries: []string{`01000000 => 02000000`}},
	{name: "lru_by_cpu", entries: []string{`08000000 => 09000000`}},
	{name: "read_only", entries: []string{`00000000 => 00000000`}},
	{name: "empty"},
	{name: "jumps", entries: []string{`00000000 => prog \d+ sched_cls zoo_tc_even`, `03000000 => prog \d+ sched_cls zoo_tc_odd`}},
	{name: "outer_hash", entries: []string{`07000000 => map \d+ hash inner`}},
	{name: "outer_array", entries: []string{`02000000 => map \d+ hash inner`}},
	{name: ".data", entries: []string{`00000000 => {\.origin = {\.x = -3, \.y = 4}, \.seen = {\d+, 22, \d+, 44}}`}},
	{name: ".data.knobs", entries: []string{`00000000 => {\.knob = 42}`}},
	{name: ".rodata", entries: []string{`00000000 => {\.limit = 1500, \.greeting = "hello, zoo"}`}},
	{name: "of_sockets", entries: []string{`udp 0\.0\.0\.0:0 => {\.x = 4, \.y = 400}`}},
	{name: "of_inodes", entries: []string{`inode \d+ of rootfs => {\.x = 1, \.y = 100}`}},
	{name: "of_tasks", since: "6.1", entries: []string{`task \d+ bpfscene => {\.x = 2, \.y = 200}`}},
	{name: "of_cgroups", since: "6.12", entries: []string{`cgroup \d+ /zoo => {\.x = 3, \.y = 300}`}},
	{name: "cgroup_local", entries: []string{`{\.cgroup = \d+, \.attach_type = 1} => {\.x = \d+, \.y = 0}`}},
	{name: "cgroup_percpu", entries: []string{`{\.cgroup = \d+, \.attach_type = 1} => cpu0 \d+, cpu1 \d+`}},
	{name: "perf_events", entries: []string{`00000000 => perf_event bpf-output cpu 0`}},
	{name: "cgroups", entries: []string{`01000000 => cgroup \d+ /zoo`}},
	{name: "devices", entries: []string{`00000000 => zoo0`, `02000000 => zoo0, prog \d+ xdp z_xdp_devmap`}},
	{name: "devices_hash", entries: []string{`09000000 => zoo0`}},
	{name: "cpus", entries: []string{`00000000 => qsize 64, prog \d+ xdp z_xdp_cpumap`}},
	{name: "sockets", entries: []string{`01000000 => tcp 127\.0\.0\.1:\d+ > 127\.0\.0\.1:\d+ established`}},
	{name: "sockets_hash", entries: []string{`8877665544332211 => tcp 127\.0\.0\.1:\d+ > 127\.0\.0\.1:\d+ established`}},
	{name: "reuseport", entries: []string{`00000000 => udp 127\.0\.0\.1:5353`}},
	{name: "bloom", since: "6.1", entries: []string{`bits set => 5 of 1024, 5 hash functions`}},
	{name: "user_ring", since: "6.1", entries: []string{`consumer_pos => 0`, `producer_pos => 0`}},
	{name: "rhash", since: "7.2", entries: []string{`01000000 => 0b00000000000000`, `02000000 => 1600000000000000`}},
	{name: "zoo_tcp_old", since: "6.1", entries: []string{`00000000 => {.*\.state = BPF_STRUCT_OPS_STATE_INUSE \(1\).*\.name = "bpf_old".*}`}},
}

// line writes an entry as the tests do.
func line(e bpf.Entry) string {
	text := func(text string, b bpf.Bytes) string {
		if text == "" {
			return fmt.Sprintf("%x", []byte(b))
		}
		return text
	}
	value := text(e.ValueText, e.Value)
	var cpus []string
	for _, c := range e.PerCPU {
		cpus = append(cpus, fmt.Sprintf("cpu%d %s", c.CPU, text(c.Text, c.Value)))
	}
	return text(e.KeyText, e.Key) + " => " + value + strings.Join(cpus, ", ")
}

func mapsByName(t *testing.T, k *kernel.Kernel) map[string]*bpf.Map {
	t.Helper()
	maps, err := bpf.Maps(k)
	qt.Assert(t, qt.IsNil(err))
	out := make(map[string]*bpf.Map)
	for _, m := range maps {
		out[m.Name] = m
	}
	return out
}

// lines returns the sorted entries of a map.
func lines(t *testing.T, k *kernel.Kernel, m *bpf.Map) []string {
	t.Helper()
	var out []string
	for e, err := range bpf.Entries(k, m) {
		qt.Assert(t, qt.IsNil(err), qt.Commentf("%s", m.Name))
		out = append(out, line(e))
	}
	slices.Sort(out)
	return out
}

// TestEntries: what was put into maps of every type comes out of memory again.
func TestEntries(t *testing.T) {
	for i, version := range matrix {
		t.Run(version, func(t *testing.T) {
			k := example.KernelOf(t, dumptest.Get(t, "bpf-"+version+".kdump"))
			maps := mapsByName(t, k)
			for _, want := range zoo {
				if slices.Index(matrix, want.since) > i {
					continue // this kernel lacks the type
				}
				m := maps[want.name]
				qt.Assert(t, qt.IsNotNil(m), qt.Commentf("map %s", want.name))
				got := lines(t, k, m)
				c := qt.Commentf("%s %s: %q", m.Type, m.Name, got)
				qt.Assert(t, qt.Equals(len(got), len(want.entries)), c)
				for j, pattern := range want.entries {
					qt.Check(t, qt.Matches(got[j], pattern), c)
				}
			}
		})
	}
}

// TestEntryOrder: queues and stacks give their elements as they would be
// taken out.
func TestEntryOrder(t *testing.T) {
	k := example.KernelOf(t, dumptest.Get(t, "bpf-6.1.kdump"))
	maps := mapsByName(t, k)
	for name, want := range map[string][]string{
		"queue": {"010000000a000000", "0200000014000000", "030000001e000000"},
		"stack": {"66000000", "65000000"},
	} {
		var got []string
		for e, err := range bpf.Entries(k, maps[name]) {
			qt.Assert(t, qt.IsNil(err))
			got = append(got, fmt.Sprintf("%x", []byte(e.Value)))
		}
		qt.Check(t, qt.DeepEquals(got, want), qt.Commentf("%s", name))
	}
}

// TestRingbuf: what was produced and not consumed is there, record by record.
func TestRingbuf(t *testing.T) {
	for _, version := range matrix {
		k := example.KernelOf(t, dumptest.Get(t, "bpf-"+version+".kdump"))
		got := 0
		for e, err := range bpf.Entries(k, mapsByName(t, k)["events"]) {
			qt.Assert(t, qt.IsNil(err))
			if strings.HasPrefix(e.KeyText, "record at ") {
				qt.Check(t, qt.Equals(e.KeyText, fmt.Sprintf("record at %d", got*16)))
				qt.Check(t, qt.Equals(fmt.Sprintf("%x", []byte(e.Value)), "2a000000"))
				got++
			}
		}
		qt.Check(t, qt.IsTrue(got > 0), qt.Commentf("%s", version))
	}
}

// TestStop: a consumer that has enough is left alone.
func TestStop(t *testing.T) {
	k := example.KernelOf(t, dumptest.Get(t, "bpf-6.1.kdump"))
	for _, m := range mapsByName(t, k) {
		for range bpf.Entries(k, m) {
			break
		}
	}
}

func TestNoEntries(t *testing.T) {
	k := example.Kernel(t)
	for _, m := range []*bpf.Map{{Type: "nosuchtype", Addr: 0x1000}, {Type: "hash"}} {
		n := 0
		for _, err := range bpf.Entries(k, m) {
			qt.Check(t, qt.ErrorMatches(err, `entries of BPF map id 0: (entries of this type of map are not understood: nosuchtype|its place in memory is not known)`))
			n++
		}
		qt.Check(t, qt.Equals(n, 1))
	}
	qt.Check(t, qt.IsFalse(bpf.HasEntries("nosuchtype")))
	qt.Check(t, qt.IsTrue(bpf.HasEntries("lpm_trie")))
}

// TestAllTypes: there is no type of map in the newest kernel's list that is
// not known here.
func TestAllTypes(t *testing.T) {
	k := example.KernelOf(t, dumptest.Get(t, "idle-7.2.kdump"))
	special := regexp.MustCompile(`^(BPF_MAP_TYPE_UNSPEC|__.*)$`)
	for _, e := range k.Enumerators("bpf_map_type") {
		name := strings.TrimSuffix(strings.TrimPrefix(e.Name, "BPF_MAP_TYPE_"), "_DEPRECATED")
		if !special.MatchString(e.Name) {
			qt.Check(t, qt.IsTrue(bpf.HasEntries(strings.ToLower(name))), qt.Commentf("%s", name))
		}
	}
}

// TestDamagedEntries: a walk over damaged memory says what is wrong and ends.
func TestDamagedEntries(t *testing.T) {
	dump := dumptest.Get(t, "bpf-6.1.kdump")
	k := example.KernelOf(t, dump)
	maps := mapsByName(t, k)
	at := func(name, record, member string) uint64 {
		return k.Object(record, uint64(maps[name].Addr)).At(member)
	}
	ptr := func(name, record, member string) uint64 {
		return k.Object(record, uint64(maps[name].Addr)).Ptr(member)
	}
	le32 := func(v uint32) []byte { return []byte{byte(v), byte(v >> 8), byte(v >> 16), byte(v >> 24)} }
	buckets := ptr("inner", "bpf_htab", "buckets")
	ring := ptr("events", "bpf_ringbuf_map", "rb")
	root := ptr("routes", "lpm_trie", "root")
	for _, test := range []struct {
		name, of string
		change   example.Change
		err      string
	}{
		{"chain to itself", "inner", example.Words(buckets, buckets), `.*leads to itself: damaged|.*buckets?.*`},
		{"number of buckets", "inner", example.Write(at("inner", "bpf_htab", "n_buckets"), le32(1<<31)), `.*2147483648 buckets: damaged`},
		{"no buckets", "inner", example.Words(at("inner", "bpf_htab", "buckets"), 0x1000), `.*not mapped.*`},
		{"value size", "inner", example.Write(at("inner", "bpf_map", "value_size"), le32(1<<31)), `.*values of 2147483648 bytes: damaged`},
		{"element size", "slots", example.Write(at("slots", "bpf_array", "elem_size"), le32(1)), `.*elements of 1 bytes for values of \d+: damaged`},
		{"program", "jumps", example.Words(at("jumps", "bpf_array", "ptrs"), 0x1000), `.*slot 0: .*not mapped.*`},
		{"inner map", "outer_array", example.Words(at("outer_array", "bpf_array", "ptrs")+16, 0x1000), `.*slot 2: .*not mapped.*`},
		{"per-CPU pointer", "counters", example.Words(at("counters", "bpf_array", "pptrs"), 1<<63), `.*slot 0: value of CPU 0: .*`},
		{"trie that comes back", "routes", example.Words(k.Object("lpm_trie_node", root).At("child"), root), `.*below one of.*: damaged`},
		{"queue", "queue", example.Write(at("queue", "bpf_queue_stack", "head"), le32(100)), `.*head 100 and tail 0 in a ring of 5: damaged`},
		{"ring position", "events", example.Words(k.Object("bpf_ringbuf", ring).At("producer_pos"), 1<<40), `.*in a ring of 4096 bytes: damaged`},
		{"ring record", "events", example.Write(k.Object("bpf_ringbuf", ring).At("data"), le32(1<<20)), `.*a record of 1048576 bytes at 0, .*: damaged`},
		{"storage", "of_tasks", example.Write(at("of_tasks", "bpf_local_storage_map", "bucket_log"), le32(200)), `.*2\^200 buckets: damaged`},
		{"list", "cgroup_local", example.Words(at("cgroup_local", "bpf_cgroup_storage_map", "list"), 0), `.*NULL.*`},
	} {
		t.Run(test.name, func(t *testing.T) {
			k := example.KernelOf(t, dump, test.change)
			maps, _ := bpf.Maps(k)
			i := slices.IndexFunc(maps, func(m *bpf.Map) bool { return m.Name == test.of })
			qt.Assert(t, qt.IsTrue(i >= 0))
			var first error
			n := 0
			for _, err := range bpf.Entries(k, maps[i]) {
				if n++; first == nil {
					first = err
				}
			}
			qt.Assert(t, qt.ErrorMatches(first, `(?s)entries of BPF map id \d+: (`+test.err+`)`))
			qt.Check(t, qt.IsTrue(n < 1000))
		})
	}
}
