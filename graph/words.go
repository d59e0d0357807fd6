package graph

import (
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// visible makes a string of the target's memory fit to be drawn: what is no
// character, or is one that is not seen, becomes \xNN.
func visible(s string) string {
	bad := func(r rune) bool { return r == utf8.RuneError || !unicode.IsPrint(r) }
	if !strings.ContainsFunc(s, bad) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		if bad(r) {
			for _, c := range []byte(s[i : i+n]) {
				fmt.Fprintf(&b, `\x%02x`, c)
			}
		} else {
			b.WriteRune(r)
		}
		i += n
	}
	return b.String()
}

// columns returns how many columns of a fixed-width font a string takes, at
// most: wide characters are two, and so are some that are not.
func columns(s string) int {
	n := 0
	for _, r := range s {
		if n++; r >= 0x1100 && (r < 0x2000 || r > 0x2bff) {
			n++
		}
	}
	return n
}

// shorten cuts a string to a number of columns. Paths keep their end.
func shorten(s string, most int) string {
	if columns(s) <= most {
		return s
	}
	if strings.HasPrefix(s, "/") {
		for i := range s {
			if i > 0 && columns(s[i:])+1 <= most {
				return "…" + s[i:]
			}
		}
	}
	out := s
	for columns(out)+1 > most && out != "" {
		_, n := utf8.DecodeLastRuneInString(out)
		out = out[:len(out)-n]
	}
	return out + "…"
}

// title names a node in a few words.
func (n *Node) title() string {
	name := visible(n.Name)
	switch n.Kind {
	case Program, Map:
		return strings.TrimSpace(fmt.Sprintf("%s %d %s", n.Kind, n.Num, name))
	case Link:
		return strings.TrimSpace(fmt.Sprintf("link %d %s", n.Num, n.Type))
	case Trampoline:
		return n.Type + " " + n.Addr.String()
	case Function:
		return name + "()"
	case Process:
		return fmt.Sprintf("%s %d", name, n.Num)
	}
	return name
}

// about words what else is known of a node.
func (n *Node) about() string {
	var out []string
	add := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	switch n.Kind {
	case Program, Map:
		if n.Type != "" {
			add("%s", n.Type)
		}
		if n.Missing {
			add("gone, or not readable")
		}
	case Netdev:
		add("netdev, index %d", n.Num)
		if n.Netns != 0 {
			add("netns %d", n.Netns)
		}
	case Kernel:
		add("kernel function")
	case Link:
		if n.Targets > 1 {
			add("%d targets", n.Targets)
		}
	case Trampoline:
		if n.Name != "" {
			add("%s", visible(n.Name))
		}
	case Process:
		add("process")
	default:
		add("%s", n.Kind)
	}
	switch {
	case n.Kind == Map && n.Size == 1:
		add("1 entry")
	case n.Kind == Map && n.Size > 0:
		add("%d entries", n.Size)
	case n.Size > 0:
		add("%d B", n.Size)
	}
	if n.TailCalls {
		add("tail-call reachable")
	}
	return strings.Join(out, ", ")
}

// countKept words whether a trampoline keeps the tail-call count; "" if that
// is not known, or not asked.
func (n *Node) countKept() string {
	switch {
	case n.KeepsTailCalls == nil:
		return ""
	case *n.KeepsTailCalls:
		return "keeps the tail-call count"
	}
	return "loses the tail-call count"
}

// CommonHolders names the processes that hold nearly all that is held, or "".
func (g *Graph) CommonHolders() string {
	const nearly = 0.7
	held := 0
	count := make(map[string]int)
	most := ""
	for _, n := range g.Nodes {
		hs := strings.Join(g.Holders(n.ID), " ")
		if hs == "" {
			continue
		}
		held++
		if count[hs]++; count[hs] > count[most] {
			most = hs
		}
	}
	const few = 3
	if held <= few || float64(count[most]) < nearly*float64(held) {
		return ""
	}
	return most
}

// Holders names the processes that hold a node: "systemd(1)".
func (g *Graph) Holders(id string) []string {
	var out []string
	for _, e := range g.in[id] {
		if e.Kind == Holds {
			out = append(out, fmt.Sprintf("%s(%d)", visible(g.nodes[e.From].Name), g.nodes[e.From].Num))
		}
	}
	return out
}

// Ranges writes numbers in ascending order, runs of them as 3-7.
func Ranges(nums []int) string {
	nums = slices.Clone(nums)
	slices.Sort(nums)
	var out []string
	for i := 0; i < len(nums); {
		j := i
		for j+1 < len(nums) && nums[j+1] == nums[j]+1 {
			j++
		}
		if j > i+1 {
			out = append(out, fmt.Sprintf("%d-%d", nums[i], nums[j]))
			i = j + 1
			continue
		}
		out = append(out, fmt.Sprint(nums[i]))
		i++
	}
	return strings.Join(out, ", ")
}
