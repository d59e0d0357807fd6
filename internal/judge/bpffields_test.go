package judge

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"testing"
)

// A fieldRule says what stands for one of bpftool's fields in our answer.
type fieldRule struct {
	ours string                      // path in our object
	get  func(l *look, o object) any // instead of ours
	same func(theirs, ours any) bool // default: the same text
	// again asks bpftool once more, for this object alone, where they differ.
	again bool
	why   string // why same is not the default, or why there is neither ours nor get
}

// compare holds our objects against what bpftool shows of a kind, field by
// field. A field of bpftool's that no rule knows fails.
func (g *bpfGuest) compare(t *testing.T, l *look, kind string, rules map[string]fieldRule, ours map[string]object) {
	t.Helper()
	theirs := listed(t, g.bpftool(kind, "show"))
	compared, used := 0, map[string]bool{}
	for _, b := range theirs {
		o := ours[text(b["id"])]
		if o == nil {
			t.Errorf("%v: ksleuth does not have it", b)
			continue
		}
		for field, want := range b {
			r, ok := rules[field]
			if !ok {
				t.Errorf("%s %s: no rule for bpftool's %s = %v", text(b["type"]), text(b["id"]), field, want)
				continue
			}
			used[field] = true
			if r.ours == "" && r.get == nil {
				continue
			}
			got := o.at(r.ours)
			if r.get != nil {
				got = r.get(l, o)
			}
			same := r.same
			if same == nil {
				same = func(a, b any) bool { return text(a) == text(b) }
			}
			compared++
			if r.again && !same(want, got) {
				alone := g.bpftool(kind, "show", "id", text(b["id"]))
				want = listed(t, "["+alone+"]")[0][field]
			}
			if !same(want, got) {
				t.Errorf("%s %s %s: bpftool's %s is %v, ours is %v", text(b["type"]), text(b["id"]), text(b["name"]), field, want, got)
			}
		}
	}
	for id, o := range ours {
		if len(theirs) == 0 || !hasID(theirs, id) {
			t.Errorf("bpftool does not have %s %s %s", text(o["type"]), id, text(o["name"]))
		}
	}
	t.Logf("%d objects, %d fields compared", len(theirs), compared)
	for field, r := range rules {
		if used[field] && r.why != "" {
			t.Logf("%s: %s", field, r.why)
		}
	}
}

func hasID(all []object, id string) bool {
	for _, o := range all {
		if text(o["id"]) == id {
			return true
		}
	}
	return false
}

// within returns a comparison of numbers that may differ a little.
func within(d int64) func(a, b any) bool {
	return func(a, b any) bool {
		x, err1 := strconv.ParseInt(text(a), 10, 64)
		y, err2 := strconv.ParseInt(text(b), 10, 64)
		return err1 == nil && err2 == nil && max(x-y, y-x) <= d
	}
}

// flag compares bpftool's 0 and 1 with a boolean.
func flag(a, b any) bool { return (text(a) == "1") == (text(b) == "true") }

// progRules are the fields of "bpftool prog show".
var progRules = map[string]fieldRule{
	"id": {ours: "id"}, "type": {ours: "type"}, "name": {ours: "name"}, "tag": {ours: "tag"},
	"gpl_compatible": {ours: "gpl_compatible"},
	"loaded_at":      {ours: "loaded_at", same: within(1), why: "both add the time since boot to the boot's, which each finds out for itself"},
	"uid":            {ours: "uid"},
	"orphaned":       {why: "a program whose device is gone; those are shown without ifindex"},
	"bytes_xlated":   {ours: "bytes_xlated"}, "jited": {ours: "jited"}, "bytes_jited": {ours: "bytes_jited"}, "bytes_memlock": {ours: "bytes_memlock"},
	"map_ids": {ours: "map_ids"}, "btf_id": {ours: "btf_id"},
	"run_time_ns": {ours: "run_time_ns"}, "run_cnt": {ours: "run_cnt"}, "recursion_misses": {ours: "recursion_misses"},
	"pinned": {ours: "pinned"}, "ifindex": {ours: "ifindex"},
}

// mapRules are the fields of "bpftool map show".
var mapRules = map[string]fieldRule{
	"id": {ours: "id"}, "type": {ours: "type"}, "name": {ours: "name"}, "flags": {ours: "flags"},
	"bytes_key": {ours: "bytes_key"}, "bytes_value": {ours: "bytes_value"}, "max_entries": {ours: "max_entries"},
	"bytes_memlock": {ours: "bytes_memlock"},
	"frozen":        {ours: "frozen", same: flag, why: "0 and 1 are false and true"},
	"btf_id":        {ours: "btf_id", again: true, why: "in a list bpftool shows what an earlier map had, on kernels that leave what is there"},
	"pinned":        {ours: "pinned"}, "ifindex": {ours: "ifindex"},
	"owner_prog_type": {ours: "owner_prog_type"}, "owner_jited": {ours: "owner_jited"},
}

// linkRules are the fields of "bpftool link show".
var linkRules = map[string]fieldRule{
	"id": {ours: "id"}, "type": {ours: "type"}, "prog_id": {ours: "prog_id"}, "pinned": {ours: "pinned"},
	"prog_type":   {get: func(l *look, o object) any { return l.progs[text(o["prog_id"])].at("type") }},
	"attach_type": {ours: "attach_type"},
	"cookie":      {ours: "bpf_cookie"},
	"missed":      {ours: "missed"},

	"tp_name": {ours: "targets.0.name"}, "tracepoint": {ours: "targets.0.name"},
	"func": {ours: "targets.0.name"}, "target_name": {ours: "targets.0.name"},
	"devname": {ours: "targets.0.name"}, "file": {ours: "targets.0.name"}, "path": {ours: "targets.0.name"},
	"ifindex": {ours: "targets.0.ifindex"}, "netns_ino": {ours: "targets.0.netns_ino"},
	"map_id": {ours: "targets.0.map_id"}, "cgroup_id": {ours: "targets.0.value"},
	"target_btf_id": {ours: "targets.0.type_id", same: sameOrNone, why: targetTold},
	"target_obj_id": {same: sameOrNone, why: targetTold, get: func(_ *look, o object) any {
		if p := o.at("targets.0.prog_id"); p != nil {
			return p
		}
		return o.at("targets.0.btf_id")
	}},
	"retprobe": {ours: "targets.0.return"}, "pid": {ours: "targets.0.pid"},
	"addr":   {get: func(_ *look, o object) any { return decimal(o.at("targets.0.addr")) }},
	"offset": {get: func(_ *look, o object) any { return decimal(o.at("targets.0.offset")) }},
	"func_cnt": {get: func(_ *look, o object) any {
		targets, _ := o["targets"].([]any)
		return strconv.Itoa(len(targets))
	}},
	"prio": {ours: "targets.0.value"},
	"pf":   {get: netfilterNumber(0, map[string]string{"ipv4": "2", "ipv6": "10"})},
	"hook": {get: netfilterNumber(1, map[string]string{"prerouting": "0", "input": "1", "forward": "2", "output": "3", "postrouting": "4"})},
	"flags": {same: func(theirs, _ any) bool { return text(theirs) == "" }, ours: "flags",
		why: "of a netfilter link; none is used here"},
	"event_config":   {ours: "targets.0.name"},
	"event_type":     {why: "our event_config has it in its name, where it is not plain"},
	"funcs":          {why: "compareFunctions compares them"},
	"ref_ctr_offset": {why: "the offset of a semaphore, which no link here has"},
}

// targetTold is why a link's target may be 0.
const targetTold = "5.10 does not tell it"

// sameOrNone accepts that bpftool has nothing.
func sameOrNone(theirs, ours any) bool { return text(theirs) == "" || text(theirs) == text(ours) }

// netfilterNumber gives the number of a word of a hook's name, as "ipv4 forward".
func netfilterNumber(word int, numbers map[string]string) func(*look, object) any {
	return func(_ *look, o object) any {
		words := strings.Fields(text(o.at("targets.0.name")))
		if word >= len(words) {
			return nil
		}
		return json.Number(numbers[words[word]])
	}
}

// functionRules are the fields of one of a link's "funcs".
var functionRules = map[string]func(object) any{
	"func":           func(o object) any { return o["name"] },
	"module":         func(o object) any { return o["module"] },
	"cookie":         func(o object) any { return o["bpf_cookie"] },
	"addr":           func(o object) any { return decimal(o["addr"]) },
	"offset":         func(o object) any { return decimal(o["offset"]) },
	"ref_ctr_offset": nil, // as above
}

// compareFunctions holds the functions of a link of many against ours.
func compareFunctions(t *testing.T, theirs []object, ours map[string]object) {
	t.Helper()
	for _, b := range theirs {
		funcs, ok := b["funcs"].([]any)
		if !ok {
			continue
		}
		targets, _ := ours[text(b["id"])]["targets"].([]any)
		if len(funcs) != len(targets) {
			t.Errorf("link %s: %d functions, ours has %d", text(b["id"]), len(funcs), len(targets))
			continue
		}
		for i := range funcs {
			f, o := object(funcs[i].(map[string]any)), object(targets[i].(map[string]any))
			for field, want := range f {
				rule, ok := functionRules[field]
				if !ok {
					t.Errorf("link %s: no rule for bpftool's funcs[].%s = %v", text(b["id"]), field, want)
				} else if rule != nil && text(want) != text(rule(o)) {
					t.Errorf("link %s, function %d: bpftool's %s is %v, ours %v", text(b["id"]), i, field, want, fmt.Sprint(rule(o)))
				}
			}
		}
	}
}
