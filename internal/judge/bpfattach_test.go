package judge

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
)

// counts counts lines of text.
type counts map[string]int

func (c counts) add(format string, args ...any) { c[fmt.Sprintf(format, args...)]++ }

// sameCounts fails for each line that one has more often.
func sameCounts(t *testing.T, what string, theirs, ours counts) {
	t.Helper()
	all := counts{}
	maps.Copy(all, theirs)
	maps.Copy(all, ours)
	for _, line := range slices.Sorted(maps.Keys(all)) {
		if theirs[line] != ours[line] {
			t.Errorf("%s: %s: bpftool has %d, ours %d", what, line, theirs[line], ours[line])
		}
	}
	t.Logf("%s: %d compared", what, len(theirs))
}

// here is the network namespace of the guest's processes: that of zoo0.
func (l *look) here(t *testing.T) string {
	for _, k := range l.links {
		if text(k.at("targets.0.name")) == "zoo0" {
			return text(k.at("targets.0.netns_ino"))
		}
	}
	for _, a := range l.attachments {
		if text(a.at("target.name")) == "zoo0" {
			return text(a.at("target.netns_ino"))
		}
	}
	t.Fatal("nothing is attached to zoo0")
	return ""
}

// net holds what is attached to devices and to the network namespace against
// "bpftool net show".
func (g *bpfGuest) net(t *testing.T, l *look) {
	var shown []struct {
		XDP []object `json:"xdp"`
		TC  []struct {
			Ifindex json.Number `json:"ifindex"`
			Kind    string      `json:"kind"`
			ID      json.Number `json:"id"`
			ProgID  json.Number `json:"prog_id"`
			Link    json.Number `json:"link_id"`
			Act     []object    `json:"act"`
		} `json:"tc"`
		Flow      []object `json:"flow_dissector"`
		Netfilter []object `json:"netfilter"`
	}
	raw := g.bpftool("net", "show")
	qt.Assert(t, qt.IsNil(json.Unmarshal([]byte(raw), &shown)), qt.Commentf("%s", raw))
	qt.Assert(t, qt.HasLen(shown, 1))
	theirs, ours := counts{}, counts{}
	for _, x := range shown[0].XDP {
		theirs.add("xdp prog %v on %v", fmt.Sprint(x["id"]), fmt.Sprint(x["ifindex"]))
	}
	for _, c := range shown[0].TC {
		theirs.add("%s prog %s on %s", strings.TrimPrefix(c.Kind, "clsact/"), c.ID+c.ProgID, notPeer(c.Kind, c.Ifindex.String()))
		for _, a := range c.Act {
			theirs.add("action %v on %s", a["id"], c.Ifindex)
		}
	}
	here := l.here(t)
	for _, a := range l.attachments {
		if text(a.at("target.netns_ino")) != here {
			continue
		}
		prog, index, attach := text(a["prog_id"]), text(a.at("target.ifindex")), text(a["attach_type"])
		switch kind := text(a["kind"]); kind {
		case "xdp":
			ours.add("xdp prog %s on %s", prog, index)
		case "tc":
			ours.add("%s prog %s on %s", attach, prog, index)
		case "tcx", "netkit":
			ours.add("%s prog %s on %s", netKind(attach), prog, notPeer(netKind(attach), index))
		case "tc_action":
			ours.add("action %s on %s", prog, index)
		}
	}
	for _, k := range l.links {
		if text(k.at("targets.0.netns_ino")) != here {
			continue
		}
		prog, index := text(k["prog_id"]), text(k.at("targets.0.ifindex"))
		switch text(k["type"]) {
		case "xdp":
			ours.add("xdp prog %s on %s", prog, index)
		case "tcx", "netkit":
			attach := netKind(text(k["attach_type"]))
			ours.add("%s prog %s on %s", attach, prog, notPeer(attach, index))
		}
	}
	sameCounts(t, "net", theirs, ours)
}

// notPeer leaves the device out of what is attached to the peer of a netkit
// pair: bpftool names the primary device, by which it asks, and we the device
// that the kernel's link names, which runs the program.
func notPeer(kind, index string) string {
	if kind == "netkit/peer" {
		return "a netkit pair"
	}
	return index
}

// netKind makes "tcx_ingress" what bpftool calls "tcx/ingress".
func netKind(attach string) string { return strings.Replace(attach, "_", "/", 1) }

// cgroups holds what is attached to cgroups against "bpftool cgroup tree".
func (g *bpfGuest) cgroups(t *testing.T, l *look) {
	var shown []struct {
		Cgroup   string   `json:"cgroup"`
		Programs []object `json:"programs"`
	}
	raw := g.bpftool("cgroup", "tree", "/sys/fs/cgroup")
	dec := json.NewDecoder(strings.NewReader(raw))
	dec.UseNumber()
	qt.Assert(t, qt.IsNil(dec.Decode(&shown)), qt.Commentf("%s", raw))
	theirs, ours := counts{}, counts{}
	for _, c := range shown {
		for _, p := range c.Programs {
			theirs.add("%s prog %s %s", strings.TrimPrefix(c.Cgroup, "/sys/fs/cgroup"), text(p["id"]), text(p["attach_type"]))
		}
	}
	if len(theirs) == 0 && strings.HasPrefix(g.Release(), "5.10.") {
		t.Log("bpftool asks in a way that this kernel does not know, and shows nothing; only \"attached\" judges cgroups here")
		return
	}
	for _, a := range l.attachments {
		if text(a["kind"]) == "cgroup" {
			ours.add("%s prog %s %s", text(a.at("target.name")), text(a["prog_id"]), text(a["attach_type"]))
		}
	}
	for _, k := range l.links {
		if text(k["type"]) == "cgroup" {
			ours.add("%s prog %s %s", text(k.at("targets.0.name")), text(k["prog_id"]), text(k["attach_type"]))
		}
	}
	sameCounts(t, "cgroups", theirs, ours)
}

// perf holds what is attached to perf events against "bpftool perf show".
func (g *bpfGuest) perf(t *testing.T, l *look) {
	theirs, ours := counts{}, counts{}
	for _, p := range listed(t, g.bpftool("perf", "show")) {
		kind, ret := text(p["fd_type"]), ""
		if k, ok := strings.CutPrefix(kind, "kret"); ok {
			kind, ret = "k"+k, "return of "
		} else if k, ok := strings.CutPrefix(kind, "uret"); ok {
			kind, ret = "u"+k, "return of "
		}
		theirs.add("prog %s %s %s%s+%s", text(p["prog_id"]), kind, ret, text(p["tracepoint"])+text(p["func"])+text(p["filename"]), text(p["offset"]))
	}
	line := func(prog, target any) {
		o, _ := target.(map[string]any)
		kind, ret := text(o["kind"]), ""
		if text(o["return"]) != "" {
			ret = "return of "
		}
		ours.add("prog %s %s %s%s+%s", text(prog), kind, ret, text(o["name"]), decimal(o["offset"]))
	}
	for _, a := range l.attachments {
		// Of events that are no probes the kernel does not tell.
		if text(a["kind"]) == "perf_event" && text(a.at("target.kind")) != "perf_event" {
			line(a["prog_id"], a["target"])
		}
	}
	for _, k := range l.links {
		switch text(k["type"]) {
		case "perf_event":
			if text(k.at("targets.0.kind")) != "perf_event" {
				line(k["prog_id"], k.at("targets.0"))
			}
		case "raw_tracepoint":
			ours.add("prog %s raw_tracepoint %s+", text(k["prog_id"]), text(k.at("targets.0.name")))
		}
	}
	sameCounts(t, "perf", theirs, ours)
}

// sceneAttachments are what internal/bpfscene attaches without a link, by its
// names, and as we show them.
var sceneAttachments = map[string]struct{ kind, attach, prog string }{
	"xdp on lo by netlink":             {"xdp", "xdpgeneric", "zoo_xdp"},
	"tc clsact ingress, direct action": {"tc", "ingress", "zoo_tc"},
	"tc clsact egress":                 {"tc", "egress", "z_tc"},
	"tc action of a filter":            {"tc_action", "egress", "z_tc_action"},
	"tcx ingress":                      {"tcx", "tcx_ingress", "z_tcx_in"},
	"netkit peer":                      {"netkit", "netkit_peer", "z_netkit_raw"},
	"cgroup connect4":                  {"cgroup", "cgroup_inet4_connect", "z_cg_connect4"},
	"cgroup sysctl, overridable":       {"cgroup", "cgroup_sysctl", "z_cg_sysctl"},
	"cgroup getsockopt, multi":         {"cgroup", "cgroup_getsockopt", "z_cg_getsockopt"},
	"cgroup device":                    {"cgroup", "cgroup_device", "z_cg_device"},
	"cgroup skb egress, with storage":  {"cgroup", "cgroup_inet_egress", "zoo_cgroup_storage"},
	"cgroup sock_create":               {"cgroup", "cgroup_inet_sock_create", "z_cg_sock"},
	"cgroup skb ingress, second":       {"cgroup", "cgroup_inet_ingress", "z_cg_skb_in"},
	"perf event by ioctl":              {"perf_event", "", "z_perf_event"},
	"kprobe by ioctl":                  {"perf_event", "", "z_kprobe"},
	"sockmap parser":                   {"sockmap", "sk_skb_stream_parser", "z_skb_parser"},
	"sockmap verdict":                  {"sockmap", "sk_skb_stream_verdict", "z_skb_verdict"},
	"sockhash message verdict":         {"sockmap", "sk_msg_verdict", "z_sk_msg"},
	"netns flow dissector":             {"netns", "flow_dissector", "z_flow_attach"},
	"socket filter":                    {"socket", "socket_filter", "z_socket"},
}

// attached holds our attachments against what the scene attached: bpftool does
// not know of sockets, sockmaps and other network namespaces.
func attached(t *testing.T, l *look, list string) {
	n := 0
	for line := range strings.Lines(list) {
		name, ok := strings.CutPrefix(strings.TrimSpace(line), "made: attachment ")
		if !ok {
			continue
		}
		want, known := sceneAttachments[name]
		if !known {
			t.Errorf("the scene attaches %q, which this test does not know", name)
			continue
		}
		n++
		if !slices.ContainsFunc(slices.Collect(maps.Values(l.attachments)), func(a object) bool {
			return text(a["kind"]) == want.kind && text(a["attach_type"]) == want.attach && text(l.progs[text(a["prog_id"])]["name"]) == want.prog
		}) {
			t.Errorf("attachment %s of %s is not shown (%+v)", name, want.prog, want)
		}
	}
	t.Logf("%d attachments of the scene", n)
}

var sceneTrampoline = regexp.MustCompile(`^made: trampoline of (\w+) with (\d+) programs`)

// sceneTrampolines holds our trampolines against those of the scene: function,
// programs in the order they run, and when each does.
func sceneTrampolines(t *testing.T, l *look, list string) {
	turns := map[string][]string{ // as internal/bpfscene gives them out
		"bpf_fentry_test1": {"fentry"}, "bpf_fentry_test2": {"fentry", "fexit"}, "bpf_fentry_test3": {"fentry"},
		"security_task_getscheduler": {"fentry", "fexit", "fmod_ret"},
	}
	n := 0
	for line := range strings.Lines(list) {
		m := sceneTrampoline.FindStringSubmatch(strings.TrimSpace(line))
		if m == nil {
			continue
		}
		n++
		function := m[1]
		count, _ := strconv.Atoi(m[2])
		var want []string
		for _, when := range []string{"fentry", "fmod_ret", "fexit"} {
			// The kernel puts the newest first.
			for i := count - 1; i >= 0; i-- {
				if turn := turns[function]; turn[i%len(turn)] == when {
					want = append(want, fmt.Sprintf("%s z_tr%d_%s", when, i, function[len(function)-5:]))
				}
			}
		}
		var got []string
		for _, tr := range l.trampolines {
			if text(tr.at("target.name")) != function {
				continue
			}
			progs, _ := tr["progs"].([]any)
			for _, p := range progs {
				o := object(p.(map[string]any))
				got = append(got, text(o["when"])+" "+text(o["name"]))
			}
		}
		for i := range want {
			// The kernel cuts names to 15 characters.
			when, name, _ := strings.Cut(want[i], " ")
			want[i] = when + " " + name[:min(len(name), 15)]
		}
		if !slices.Equal(got, want) {
			t.Errorf("trampoline of %s: %q, want %q", function, got, want)
		}
	}
	qt.Check(t, qt.Equals(n, 4))
}

// trampolineCalls holds the order of the programs against the calls in the
// trampoline's code.
func trampolineCalls(t *testing.T, l *look, run func(args ...string) string) {
	called := regexp.MustCompile(`call 0x[0-9a-f]+ <bpf_prog_[0-9a-f]{16}_(\w+)>`)
	checked := 0
	for _, tr := range l.trampolines {
		image := text(tr["image"])
		if text(tr["kind"]) != "trampoline" || image == "" {
			continue
		}
		var want, got []string
		progs, _ := tr["progs"].([]any)
		for _, p := range progs {
			o := object(p.(map[string]any))
			switch when := text(o["when"]); when {
			case "fentry", "fmod_ret", "fexit", "lsm", "fsession": // the last is there twice
				want = append(want, text(o["name"]))
			default:
				want = nil
			}
		}
		if want == nil {
			continue
		}
		for _, m := range called.FindAllStringSubmatch(run("disasm", "tramp:"+image), -1) {
			got = append(got, m[1])
		}
		checked++
		if !slices.Equal(got, want) {
			t.Errorf("trampoline %s calls %q, shown are %q", text(tr["name"]), got, want)
		}
	}
	t.Logf("calls of %d trampolines compared", checked)
}
