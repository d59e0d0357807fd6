package graph

import (
	"fmt"
	"hash/fnv"
	"slices"
	"strings"
)

// fold draws components of the same shape once: of a hundred cgroups with the
// same programs a person wants to see one.
func fold(cs []*component) []*component {
	first := make(map[string]*component)
	count := make(map[string]int)
	shapes := make([]string, len(cs))
	for i, c := range cs {
		shapes[i] = c.shape()
		count[shapes[i]]++
	}
	var out []*component
	for i, c := range cs {
		s := shapes[i]
		switch {
		case count[s] < fewLike:
			out = append(out, c)
		case first[s] == nil:
			first[s] = c
			out = append(out, c)
		default:
			first[s].alike = append(first[s].alike, c)
		}
	}
	for _, c := range out {
		c.describe()
	}
	return out
}

// describe says which components are not drawn for they look like this one.
func (c *component) describe() {
	if len(c.alike) == 0 {
		return
	}
	const lines, width = 3, 60
	var names []string
	for _, a := range c.alike {
		names = append(names, a.boxes[0].title)
	}
	line := fmt.Sprintf("and %d more like it:", len(c.alike))
	for i, n := range names {
		n = shorten(n, width/2)
		if i < len(names)-1 {
			n += ","
		}
		if columns(line)+1+columns(n) > width {
			c.note = append(c.note, line)
			if len(c.note) == lines {
				c.note[lines-1] = shorten(line, width-2) + " …"
				return
			}
			line = ""
		}
		line = strings.TrimPrefix(line+" "+n, " ")
	}
	c.note = append(c.note, line)
}

// shape is the same for components that differ in numbers and in the names of
// what programs act on alone, as far as a few rounds of comparing the boxes
// with those they are wired to can tell.
func (c *component) shape() string {
	label := make(map[*box]string, len(c.boxes))
	for _, b := range c.boxes {
		n := b.node
		s := fmt.Sprintf("%s %s", n.Kind, n.Type)
		if !n.Kind.Source() && n.Kind != Link && n.Kind != Trampoline {
			s += " " + n.Name
		}
		for _, r := range b.rows {
			s += "\n" + r.class + " " + withoutDigits(r.text)
		}
		label[b] = hash(s)
	}
	const rounds = 3
	for range rounds {
		around := make(map[*box][]string, len(c.boxes))
		for _, w := range c.wires {
			at := fmt.Sprintf("%s %d ", w.class, w.row)
			around[w.from] = append(around[w.from], "to "+at+label[w.to])
			around[w.to] = append(around[w.to], "by "+at+label[w.from])
		}
		for _, b := range c.boxes {
			slices.Sort(around[b])
			label[b] = hash(label[b] + strings.Join(around[b], "\n"))
		}
	}
	all := make([]string, 0, len(c.boxes))
	for _, b := range c.boxes {
		all = append(all, label[b])
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

func hash(s string) string {
	h := fnv.New64a()
	h.Write([]byte(s)) // never fails
	return fmt.Sprintf("%x", h.Sum64())
}

func withoutDigits(s string) string {
	return strings.Map(func(r rune) rune {
		if '0' <= r && r <= '9' {
			return -1
		}
		return r
	}, s)
}
