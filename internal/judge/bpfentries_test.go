package judge

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
)

// entryRules say, by the type of map, where the elements that bpftool dumps
// and ours are not the same.
var entryRules = map[string]struct {
	keysOnly bool // the values differ
	theirs   bool // bpftool has elements that are none
	ours     bool // bpf(2) does not tell of all elements
	why      string
}{
	"queue":         {ours: true, why: "bpf(2) can look at the first element alone, which bpftool does not"},
	"stack":         {ours: true, why: "as of a queue"},
	"ringbuf":       {ours: true, why: "bpf(2) has no elements of it"},
	"user_ringbuf":  {ours: true, why: "as of a ring buffer"},
	"arena":         {ours: true, why: "bpf(2) has no elements of it"},
	"bloom_filter":  {ours: true, why: "what is in it cannot be listed"},
	"sk_storage":    {ours: true, why: "bpf(2) finds an element only by its socket's descriptor"},
	"inode_storage": {ours: true, why: "bpf(2) finds an element only by a descriptor"},
	"task_storage":  {ours: true, why: "as of inodes"},
	"cgrp_storage":  {ours: true, why: "as of inodes"},

	"perf_event_array": {ours: true, why: "bpf(2) does not tell what is in it"},
	"cgroup_array":     {ours: true, why: "bpf(2) does not tell what is in it"},
	"xskmap":           {ours: true, why: "bpf(2) does not tell what is in it"},
	"stack_trace":      {ours: true, why: "bpf(2) refuses to count"},

	"sockmap":             {keysOnly: true, why: "bpf(2) gives a cookie, which the socket gets by being asked"},
	"sockhash":            {keysOnly: true, why: "as of a sockmap"},
	"reuseport_sockarray": {keysOnly: true, why: "as of a sockmap"},

	"cgroup_storage":        {theirs: true, why: "the kernel gives the list's head as the key after the last one"},
	"percpu_cgroup_storage": {theirs: true, why: "as of cgroup_storage"},
	"struct_ops":            {keysOnly: true, why: "bpf(2) shows pointers to the image as program ids and counts the map's references, memory as they are"},
}

// dumped is an element as bpftool dumps it.
type dumped struct {
	Key    json.RawMessage `json:"key"`
	Value  json.RawMessage `json:"value"`
	Values []struct {
		CPU   int             `json:"cpu"`
		Value json.RawMessage `json:"value"`
	} `json:"values"`
	Inner     int             `json:"inner_map_id"`
	Formatted json.RawMessage `json:"formatted"`
}

// hexBytes is the value of a list such as ["0x01","0x00"], without which bpftool
// has an error or nothing.
func hexBytes(raw json.RawMessage) (string, bool) {
	var list []string
	if raw == nil || json.Unmarshal(raw, &list) != nil {
		return "", false
	}
	var b strings.Builder
	for _, s := range list {
		b.WriteString(strings.TrimPrefix(s, "0x"))
	}
	return b.String(), true
}

// entries holds the elements of all maps against bpftool's.
func (g *bpfGuest) entries(t *testing.T, l *look) {
	elements, texts, whys := 0, 0, map[string]string{}
	for id, m := range l.maps {
		typ := text(m["type"])
		rule := entryRules[typ]
		name := fmt.Sprintf("map %s %s %s", id, typ, text(m["name"]))
		var theirs []dumped
		// What cannot be dumped gives an object with an error, or nothing.
		_ = json.Unmarshal([]byte(g.bpftool("map", "dump", "id", id)), &theirs)
		ours := map[string]object{}
		for _, e := range l.entries[id] {
			ours[text(e["key"])] = e
		}
		if typ == "ringbuf" || typ == "user_ringbuf" {
			qt.Check(t, qt.HasLen(theirs, 0))
		}
		seen := 0
		for _, d := range theirs {
			key, ok := hexBytes(d.Key)
			value, hasValue := hexBytes(d.Value)
			if !ok || !hasValue && d.Values == nil {
				continue // an error: empty, or not to be looked up
			}
			e := ours[key]
			if e == nil {
				if !rule.theirs {
					t.Errorf("%s: ksleuth does not have the key %s", name, key)
				}
				continue
			}
			seen++
			elements++
			if rule.keysOnly {
				continue
			}
			if hasValue && value != text(e["value"]) {
				t.Errorf("%s: the value of %s is %s, ours %s", name, key, value, text(e["value"]))
			}
			for i, v := range d.Values {
				want, _ := hexBytes(v.Value)
				if got := text(e.at(fmt.Sprintf("values.%d.value", i))); got != want || text(e.at(fmt.Sprintf("values.%d.cpu", i))) != text(json.Number(strconv.Itoa(v.CPU))) {
					t.Errorf("%s: the value of %s on CPU %d is %s, ours %s", name, key, v.CPU, want, got)
				}
			}
			if d.Inner != 0 && text(e.at("object.id")) != strconv.Itoa(d.Inner) {
				t.Errorf("%s: %s holds map %d, ours %v", name, key, d.Inner, e["object"])
			}
			if d.Formatted != nil {
				texts++
				if want, got := formattedLeaves(t, d.Formatted), ourLeaves(e); !sameLeaves(want, got) {
					t.Errorf("%s: %s is to bpftool\n%s\nthat is %q,\nours\n%v %v %v\nthat is %q", name, key, d.Formatted, want, e["key_text"], e["value_text"], e["values"], got)
				}
			}
		}
		if !rule.ours && seen != len(l.entries[id]) {
			t.Errorf("%s: ksleuth has %d elements, bpftool %d of them", name, len(l.entries[id]), seen)
		}
		if rule.why != "" {
			whys[typ] = rule.why
		}
	}
	for typ, why := range whys {
		t.Logf("%s: %s", typ, why)
	}
	t.Logf("%d maps, %d elements compared, %d of them by type", len(l.maps), elements, texts)
}

// formattedLeaves are the scalars of bpftool's rendering by BTF, in order; an
// array of char counts as its text.
func formattedLeaves(t testing.TB, raw json.RawMessage) []string {
	t.Helper()
	dec := json.NewDecoder(strings.NewReader(string(raw)))
	dec.UseNumber()
	var leaves []string
	var walk func(path []string)
	walk = func(path []string) {
		tok, err := dec.Token()
		qt.Assert(t, qt.IsNil(err))
		switch v := tok.(type) {
		case json.Delim:
			for dec.More() {
				if v == '{' {
					key, err := dec.Token()
					qt.Assert(t, qt.IsNil(err))
					walk(append(path, fmt.Sprint(key)))
				} else {
					walk(path)
				}
			}
			_, _ = dec.Token()
		case string:
			leaves = append(leaves, canonicalLeaf(v))
		case json.Number:
			if n := len(path); n > 0 && path[n-1] == "cpu" && slices.Contains(path, "values") {
				return // not of the value
			}
			leaves = append(leaves, v.String())
		case bool:
			leaves = append(leaves, strconv.FormatBool(v))
		}
	}
	walk(nil)
	return leaves
}

// sameLeaves compares scalars. bpftool prints a signed bit field as if it had
// no sign; our "<2 x 0>" may stand for structs of zeros, of any number of
// scalars.
func sameLeaves(theirs, ours []string) bool {
	same := func(a, b string) bool {
		x, err1 := strconv.ParseInt(a, 10, 64)
		y, err2 := strconv.ParseInt(b, 10, 64)
		d := uint64(x - y)
		return a == b || err1 == nil && err2 == nil && y < 0 && x > 0 && d&(d-1) == 0
	}
	if len(theirs) != len(ours) {
		zero := func(s string) bool { return s == "0" }
		theirs, ours = slices.DeleteFunc(theirs, zero), slices.DeleteFunc(ours, zero)
	}
	return slices.EqualFunc(theirs, ours, same)
}

// Our text of a value: scalars between punctuation and ".name =".
var (
	leafToken = regexp.MustCompile(`"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|<\d+ x [^<>]*>|\.[\w.]+ =|[-\w]+(?: \([-\d]+\))?`)
	repeated  = regexp.MustCompile(`^<(\d+) x (.*)>$`)
	enumValue = regexp.MustCompile(`^(\w+) \(-?\d+\)$`)
)

// ourLeaves are the scalars of our text, in order.
func ourLeaves(e object) []string {
	texts := []string{text(e["key_text"])}
	if values, ok := e["values"].([]any); ok {
		for _, v := range values {
			texts = append(texts, text(v.(map[string]any)["text"]))
		}
	} else {
		texts = append(texts, text(e["value_text"]))
	}
	if m := text(e["key_text"]); m == "" {
		texts = texts[1:]
	}
	var leaves []string
	for _, s := range texts {
		leaves = append(leaves, leavesOf(s)...)
	}
	return leaves
}

func leavesOf(s string) []string {
	var leaves []string
	for _, tok := range leafToken.FindAllString(s, -1) {
		if strings.HasSuffix(tok, " =") {
			continue
		}
		if m := repeated.FindStringSubmatch(tok); m != nil {
			n, _ := strconv.Atoi(m[1])
			for range n {
				leaves = append(leaves, leavesOf(m[2])...)
			}
			continue
		}
		leaves = append(leaves, canonicalLeaf(tok))
	}
	return leaves
}

// canonicalLeaf makes a scalar the same in both texts: an enumerator without
// its value, an address as a number, a string without quotes.
func canonicalLeaf(s string) string {
	if m := enumValue.FindStringSubmatch(s); m != nil {
		return m[1]
	}
	if n, err := strconv.ParseUint(s, 0, 64); err == nil {
		return strconv.FormatUint(n, 10)
	}
	if u, err := strconv.Unquote(s); err == nil {
		return u
	}
	return s
}
