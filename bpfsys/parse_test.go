//go:build linux

package bpfsys

import (
	"slices"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
)

func TestParseMounts(t *testing.T) {
	const text = `22 27 0:20 / /proc rw,nosuid shared:12 - proc proc rw
30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate
31 24 0:27 / /sys/fs/bpf rw shared:6 - bpf bpf rw,mode=700
99 24 0:28 /a\040b /mnt/with\040blank\134 rw - bpf none rw
100 24 0:4 net:[4026532118] /run/netns/x rw shared:7 - nsfs nsfs rw
damaged line
`
	got, err := parseMounts(strings.NewReader(text), []string{"bpf", "nsfs"})
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.IsTrue(slices.Equal(got, []mount{
		{"0:27", "/", "/sys/fs/bpf", "bpf"},
		{"0:28", "/a b", `/mnt/with blank\`, "bpf"},
		{"0:4", "net:[4026532118]", "/run/netns/x", "nsfs"},
	})), qt.Commentf("%+v", got))
}

func TestFields(t *testing.T) {
	// A link's fdinfo names its program and its map, too.
	text := fields("pos:\t0\nmap_id:\t9\nprog_id:\t12\nlink_id:\t7\nfrozen:\t1\nmap_extra:\t0x10\nempty:\t\n")
	qt.Check(t, qt.Equals(text.uint("prog_id"), 12))
	qt.Check(t, qt.Equals(text.uint("map_extra"), 16))
	qt.Check(t, qt.Equals(text.uint("prog"), 0))
	s, ok := text.get("empty")
	qt.Check(t, qt.IsTrue(ok && s == ""))
	_, ok = text.get("id")
	qt.Check(t, qt.IsFalse(ok))
	kind, id := objectOf(text)
	qt.Check(t, qt.Equals(kind, "link"))
	qt.Check(t, qt.Equals(id, 7))
	kind, _ = objectOf(fields("pos:\t0\nflags:\t02\n"))
	qt.Check(t, qt.Equals(kind, ""))
}

// TestAttributes: a damaged message ends the walk.
func TestAttributes(t *testing.T) {
	nested := []byte{12, 0, 5, 0x80, 8, 0, 4, 0, 42, 0, 0, 0, 5, 0, 1, 0, 'x', 0, 0, 0}
	qt.Check(t, qt.Equals(number(attribute(nested, 5, 4)), 42))
	qt.Check(t, qt.Equals(string(attribute(nested, 1)), "x"))
	qt.Check(t, qt.IsNil(attribute(nested, 4)))
	qt.Check(t, qt.IsNil(attribute(nested, 5, 4, 3, 2)))
	for n := range len(nested) {
		attribute(nested[:n], 5, 4)
		attribute(nested[:n], 9)
	}
	for _, bad := range [][]byte{{3, 0, 1, 0}, {255, 0, 1, 0}, {0, 0, 0, 0}} {
		for range attributes(bad) {
			t.Error("an attribute that does not fit")
		}
	}
}
