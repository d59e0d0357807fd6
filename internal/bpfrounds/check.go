package main

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
)

// A checker knows the names of objects by id, which the kernel does not use
// twice, and what is wrong so far.
type checker struct {
	names   map[string]map[int]string // by kind and id
	order   map[string][]int          // ids by kind, as seen
	checked int
	known   int
	wrong   []string
}

func newChecker() *checker {
	return &checker{
		names: map[string]map[int]string{"prog": {}, "map": {}},
		order: map[string][]int{},
	}
}

// report says what is wrong, at once, for what follows may kill the program.
func (c *checker) report(format string, args ...any) {
	s := fmt.Sprintf(format, args...)
	c.wrong = append(c.wrong, s)
	if len(c.wrong) <= 50 {
		fmt.Println("WRONG:", s)
	}
}

// last returns the id of one of the objects seen last, or 1.
func (c *checker) last(kind string, i int) string {
	ids := c.order[kind]
	if len(ids) == 0 {
		return "1"
	}
	return strconv.Itoa(ids[max(0, len(ids)-1-i%8)])
}

// see learns a name, and says whether the object was known by another.
func (c *checker) see(kind string, id int, name string) error {
	c.checked++
	if was, ok := c.names[kind][id]; ok {
		c.known++
		if was != name {
			return fmt.Errorf("%s %d is called %q, was %q", kind, id, name, was)
		}
		return nil
	}
	c.names[kind][id] = name
	c.order[kind] = append(c.order[kind], id)
	return nil
}

// churned splits a name that churn gave: the parts, and its number.
func churned(name, prefix string) (parts []string, n int, ok bool) {
	rest, ok := strings.CutPrefix(name, prefix+"_")
	if !ok {
		return nil, 0, false
	}
	parts = strings.Split(rest, "_")
	n, err := strconv.Atoi(parts[len(parts)-1])
	return parts[:len(parts)-1], n, err == nil
}

// Types of churn's objects by the word in their names, as bpftool names them.
var (
	mapTypes  = map[string]string{"hash": "hash", "array": "array", "percpu": "percpu_array", "lru": "lru_hash"}
	progTypes = map[string]string{"sock": "socket_filter", "xdp": "xdp", "tc": "sched_cls", "kp": "kprobe"}
	kinds     = map[string]string{"in": "fentry", "out": "fexit"}
)

// line checks one line of an answer.
func (c *checker) line(typ string, data json.RawMessage, args []string) error {
	switch typ {
	case "prog":
		return check(data, c.prog)
	case "map":
		return check(data, c.mapped)
	case "map_entry":
		return check(data, c.entry)
	case "link":
		return check(data, c.link)
	case "trampoline":
		return check(data, c.trampoline)
	case "code":
		return check(data, func(d code) error { return c.code(d, args) })
	case "error":
		return check(data, func(d struct{ Message string }) error {
			if strings.Contains(d.Message, "there is no") {
				return nil
			}
			return fmt.Errorf("error: %s", d.Message)
		})
	}
	return nil
}

func check[T any](data json.RawMessage, f func(T) error) error {
	var d T
	if err := json.Unmarshal(data, &d); err != nil {
		return err
	}
	return f(d)
}

type prog struct {
	ID       int    `json:"id"`
	Type     string `json:"type"`
	Name     string `json:"name"`
	MapIDs   []int  `json:"map_ids"`
	Attach   string `json:"attach_type"`
	Target   target `json:"target"`
	Subprogs []struct {
		Name string `json:"name"`
	} `json:"subprogs"`
}

type target struct {
	Name string `json:"name"`
}

func (c *checker) prog(p prog) error {
	if err := c.see("prog", p.ID, p.Name); err != nil {
		return err
	}
	if parts, n, ok := churned(p.Name, "cp"); ok && len(parts) == 1 {
		if p.Type != progTypes[parts[0]] {
			return fmt.Errorf("prog %d %s is of type %s", p.ID, p.Name, p.Type)
		}
		if len(p.MapIDs) != 1 {
			return fmt.Errorf("prog %d %s uses the maps %v, not one", p.ID, p.Name, p.MapIDs)
		}
		if used, want := c.names["map"][p.MapIDs[0]], fmt.Sprintf("cm_array_%d", n); used != "" && used != want {
			return fmt.Errorf("prog %d %s uses map %d %s, not %s", p.ID, p.Name, p.MapIDs[0], used, want)
		}
	}
	if parts, _, ok := churned(p.Name, "ct"); ok && len(parts) == 2 {
		if p.Type != "tracing" || p.Attach != "trace_"+kinds[parts[0]] {
			return fmt.Errorf("prog %d %s is a %s for %s", p.ID, p.Name, p.Type, p.Attach)
		}
		if want := "bpf_fentry_test" + parts[1]; p.Target.Name != "" && p.Target.Name != want {
			return fmt.Errorf("prog %d %s has the target %s, not %s", p.ID, p.Name, p.Target.Name, want)
		}
	}
	for _, s := range p.Subprogs {
		if strings.HasPrefix(p.Name, "c") && s.Name != p.Name {
			return fmt.Errorf("prog %d %s has the function %s", p.ID, p.Name, s.Name)
		}
	}
	return nil
}

type mapped struct {
	ID      int    `json:"id"`
	Type    string `json:"type"`
	Name    string `json:"name"`
	Value   int    `json:"bytes_value"`
	Max     int    `json:"max_entries"`
	ProgIDs []int  `json:"prog_ids"`
}

func (c *checker) mapped(m mapped) error {
	if err := c.see("map", m.ID, m.Name); err != nil {
		return err
	}
	parts, n, ok := churned(m.Name, "cm")
	if !ok || len(parts) != 1 {
		return nil
	}
	// Arrays and LRU maps round their number of entries up or not; per-CPU
	// values are told as one CPU's.
	if m.Type != mapTypes[parts[0]] || m.Value != 4*(1+n%7) || m.Max != 1+n%9 && m.Type != "lru_hash" {
		return fmt.Errorf("map %d %s is a %s of %d entries of %d bytes", m.ID, m.Name, m.Type, m.Max, m.Value)
	}
	for _, id := range m.ProgIDs {
		name := c.names["prog"][id]
		if _, number, ok := churned(name, "cp"); name != "" && (!ok || number != n || parts[0] != "array") {
			return fmt.Errorf("map %d %s is used by prog %d %s", m.ID, m.Name, id, name)
		}
	}
	return nil
}

type entry struct {
	MapID int    `json:"map_id"`
	Key   string `json:"key"`
	Value string `json:"value"`
}

// entry checks the value of one of churn's arrays, whose bytes are its number,
// or 0 before they are set.
func (c *checker) entry(e entry) error {
	name := c.names["map"][e.MapID]
	parts, n, ok := churned(name, "cm")
	if !ok || parts[0] != "array" {
		return nil
	}
	c.checked++
	b, err := hex.DecodeString(e.Value)
	if err != nil || len(b) != 4*(1+n%7) {
		return fmt.Errorf("map %d %s has the value %q", e.MapID, name, e.Value)
	}
	for _, x := range b {
		if x != 0 && x != byte(n) {
			return fmt.Errorf("map %d %s has the value %s", e.MapID, name, e.Value)
		}
	}
	return nil
}

type link struct {
	ID      int      `json:"id"`
	Type    string   `json:"type"`
	ProgID  int      `json:"prog_id"`
	Attach  string   `json:"attach_type"`
	Targets []target `json:"targets"`
}

func (c *checker) link(l link) error {
	name := c.names["prog"][l.ProgID]
	parts, _, ok := churned(name, "ct")
	if !ok {
		return nil
	}
	c.checked++
	if l.Type != "tracing" || l.Attach != "trace_"+kinds[parts[0]] {
		return fmt.Errorf("link %d of prog %d %s is %s, %s", l.ID, l.ProgID, name, l.Type, l.Attach)
	}
	for _, t := range l.Targets {
		if want := "bpf_fentry_test" + parts[1]; t.Name != "" && t.Name != want {
			return fmt.Errorf("link %d of prog %d %s has the target %s, not %s", l.ID, l.ProgID, name, t.Name, want)
		}
	}
	return nil
}

type trampoline struct {
	Addr   string `json:"addr"`
	Target target `json:"target"`
	Progs  []struct {
		ID   int    `json:"id"`
		Name string `json:"name"`
		When string `json:"when"`
	} `json:"progs"`
}

func (c *checker) trampoline(t trampoline) error {
	for _, p := range t.Progs {
		if err := c.see("prog", p.ID, p.Name); err != nil {
			return fmt.Errorf("trampoline %s: %w", t.Addr, err)
		}
		parts, _, ok := churned(p.Name, "ct")
		if !ok {
			continue
		}
		if want := "bpf_fentry_test" + parts[1]; t.Target.Name != want || p.When != kinds[parts[0]] {
			return fmt.Errorf("trampoline %s of %s has prog %d %s as %s", t.Addr, t.Target.Name, p.ID, p.Name, p.When)
		}
	}
	return nil
}

type code struct {
	Name string `json:"name"`
	Kind string `json:"kind"`
}

// code checks that the function is the program's that was asked for.
func (c *checker) code(d code, args []string) error {
	_, word, _ := strings.Cut(args[len(args)-1], ":")
	id, err := strconv.Atoi(word)
	if err != nil {
		return nil
	}
	c.checked++
	if name := c.names["prog"][id]; strings.HasPrefix(name, "c") && !strings.Contains(d.Name, name) {
		return fmt.Errorf("prog %d is %s, its code %s", id, name, d.Name)
	}
	return nil
}
