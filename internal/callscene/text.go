package main

import (
	"fmt"
	"strings"
)

// text is a call as people write it.
func text(r row) string {
	name, _, _ := strings.Cut(r.fn, "|")
	return name + "(" + list(r.args) + ")"
}

func list(args []any) string {
	var out []string
	for _, a := range args {
		out = append(out, expression(a))
	}
	return strings.Join(out, ", ")
}

// expression is an argument in the manner of C.
func expression(a any) string {
	switch a := a.(type) {
	case string, rune:
		return fmt.Sprintf("%q", a)
	case uint64:
		return hexWord(a)
	case []byte:
		return fmt.Sprintf("hex(%x)", a)
	case space:
		return fmt.Sprintf("buffer(%d)", int(a))
	case words:
		const most = 4
		var out []string
		for _, w := range a[:min(len(a), most)] {
			out = append(out, hexWord(w))
		}
		if len(a) > most {
			out = append(out, "...")
		}
		return "{" + strings.Join(out, ", ") + "}"
	case ptrs:
		return "{" + list(a) + "}"
	case sym:
		return "&" + string(a)
	case kept:
		return string(a)
	case at:
		return fmt.Sprintf("&(%s)->%s", expression(a.of), a.field)
	case load:
		return fmt.Sprintf("(%s)->%s", expression(a.of), a.field)
	case off:
		return fmt.Sprintf("(void *)%s+%d", expression(a.of), a.n)
	case deref:
		return "*" + expression(a.of)
	case percpu:
		return fmt.Sprintf("per_cpu(%s, %d)", a.name, a.cpu)
	case idmap:
		return "no_idmap"
	}
	return fmt.Sprint(a)
}
