package bpf

import (
	"bytes"
	"strings"

	"github.com/ksleuth/ksleuth/ctype"
)

// TypeText returns the C declaration of a type by its number in types, as
// "struct flow" or "unsigned int", a data section's name, or "" for a number
// that stands for no type.
func TypeText(types *ctype.Types, id uint32) string {
	if types == nil || id == 0 {
		return ""
	}
	t, err := types.ByID("", id)
	if err != nil {
		return ""
	}
	if t.Kind() == ctype.Datasec {
		return t.Name()
	}
	return t.String()
}

// FormatEntry fills in the texts of an entry, in C notation on one line, by the
// numbers in types of the key's and the value's type. A number of 0, or a type
// larger than the bytes, gives no text.
func FormatEntry(e *Entry, types *ctype.Types, key, value uint32) {
	e.KeyText = formatBytes(types, key, e.Key)
	e.ValueText = formatBytes(types, value, e.Value)
	for i := range e.PerCPU {
		e.PerCPU[i].Text = formatBytes(types, value, e.PerCPU[i].Value)
	}
}

// formatBytes prints bytes that are a value of a type, or variables of a data
// section.
func formatBytes(types *ctype.Types, id uint32, b []byte) string {
	if types == nil || id == 0 || len(b) == 0 {
		return ""
	}
	t, err := types.ByID("", id)
	if err != nil {
		return ""
	}
	if t.Kind() == ctype.Datasec {
		return formatSection(types, t, b)
	}
	if n, err := types.Sizeof(t); err != nil || n > len(b) {
		return ""
	}
	text, err := ctype.FormatValue(types.Blob(nil, t, b, "value"), ctype.FormatOptions{})
	if err != nil {
		return ""
	}
	return oneLine(text)
}

// formatSection prints the variables of a data section as if they were the
// members of a struct.
func formatSection(types *ctype.Types, sec *ctype.Type, b []byte) string {
	var parts []string
	for _, v := range sec.Variables() {
		off := int(v.Offset / 8)
		n, err := types.Sizeof(v.Type)
		if err != nil || off+n > len(b) {
			continue
		}
		text, err := ctype.FormatValue(types.Blob(nil, v.Type, b[off:off+n], v.Name), ctype.FormatOptions{})
		if err == nil {
			parts = append(parts, "."+v.Name+" = "+oneLine(text))
		}
	}
	return "{" + strings.Join(parts, ", ") + "}"
}

// oneLine folds the lines of a printed value, without the type in front. Text
// inside of it has no line ends of its own: they are escaped.
func oneLine(text string) string {
	if strings.HasPrefix(text, "(") {
		if _, rest, ok := strings.Cut(text, "){"); ok {
			text = "{" + rest
		}
	}
	var out []byte
	for line := range strings.Lines(text) {
		line = strings.Trim(line, "\t\n")
		switch {
		case line == "":
			continue
		case len(out) == 0 || out[len(out)-1] == '{':
		case line[0] == '}':
			out = bytes.TrimSuffix(out, []byte{','})
		default:
			out = append(out, ' ')
		}
		out = append(out, line...)
	}
	return string(out)
}
