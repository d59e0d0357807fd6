package bpf

import (
	"fmt"
	"strings"
)

// String names the target in a few words: "vfs_read", "lookup of prog 7",
// "netdev lo", "tracepoint sched_switch".
func (t Target) String() string {
	name := t.Name
	if t.Module != "" {
		name += " [" + t.Module + "]"
	}
	switch t.Kind {
	case TargetFunction:
		if name == "" {
			return t.Addr.String()
		}
		return name
	case TargetProgram:
		return strings.TrimPrefix(fmt.Sprintf("%s of prog %d", name, t.ProgID), " of ")
	case TargetKprobe, TargetUprobe:
		return t.probe(name)
	case TargetNetdev:
		if name == "" {
			name = fmt.Sprint(t.Ifindex)
		}
		return "netdev " + name
	case TargetNetns:
		return fmt.Sprintf("netns %d", t.Netns)
	case TargetNetfilter:
		return fmt.Sprintf("netfilter %s, priority %d", name, t.Value)
	case TargetMap:
		return fmt.Sprintf("map %d", t.MapID)
	case TargetStructOps:
		if t.MapID != 0 {
			name += fmt.Sprintf(" (map %d)", t.MapID)
		}
		return "struct_ops " + name
	case TargetIterator:
		if t.MapID != 0 {
			name += fmt.Sprintf(" of map %d", t.MapID)
		}
		return "iterator " + name
	case TargetCgroup:
		if name == "" {
			name = fmt.Sprint(t.Value)
		}
		return "cgroup " + name
	}
	return strings.TrimSpace(string(t.Kind) + " " + name)
}

// probe names a place where a kprobe or uprobe sits.
func (t Target) probe(name string) string {
	kind := string(t.Kind)
	if t.Return {
		kind = map[TargetKind]string{TargetKprobe: "kretprobe", TargetUprobe: "uretprobe"}[t.Kind]
	}
	if name == "" {
		name = t.Addr.String()
	}
	if t.Offset != 0 {
		name += "+" + t.Offset.String()
	}
	if t.PID != 0 {
		name += fmt.Sprintf(" of pid %d", t.PID)
	}
	return kind + " " + name
}
