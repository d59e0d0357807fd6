package cli_test

import (
	"encoding"
	"flag"
	"fmt"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-quicktest/qt"

	"github.com/ksleuth/ksleuth/cli"
)

var update = flag.Bool("update", false, "write the documentation and expectations anew from what the program says")

// A jsonField is a field of the data of a JSON type: of an object in an array
// it is written a[].b.
type jsonField struct {
	path, kind string
	optional   bool
}

// jsonFields lists the fields of a Go type as encoding/json writes them. Of a
// type in itself, as calls made in a call, only the outer fields are listed.
func jsonFields(t reflect.Type, prefix string, around ...reflect.Type) []jsonField {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct || isText(t) || slices.Contains(around, t) {
		return nil
	}
	around = append(slices.Clone(around), t)
	var out []jsonField
	for i := range t.NumField() {
		f := t.Field(i)
		if f.Anonymous {
			out = append(out, jsonFields(f.Type, prefix, around...)...)
			continue
		}
		name, opts, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "-" || !f.IsExported() {
			continue
		}
		path := prefix + name
		out = append(out, jsonField{path, kindOf(f.Type), opts == "omitempty" || opts == "omitzero"})
		if elem := f.Type; elem.Kind() == reflect.Slice {
			out = append(out, jsonFields(elem.Elem(), path+"[].", around...)...)
		} else {
			out = append(out, jsonFields(elem, path+".", around...)...)
		}
	}
	return out
}

func isText(t reflect.Type) bool {
	return reflect.PointerTo(t).Implements(reflect.TypeFor[encoding.TextMarshaler]())
}

// kindOf names the JSON form of a Go type.
func kindOf(t reflect.Type) string {
	switch {
	case isText(t) || t.Kind() == reflect.Pointer && isText(t.Elem()):
		return "hex string"
	case t == reflect.TypeFor[time.Duration]():
		return "nanoseconds"
	}
	switch t.Kind() {
	case reflect.Pointer:
		return kindOf(t.Elem())
	case reflect.Slice:
		return "array of " + kindOf(t.Elem()) + "s"
	case reflect.Struct:
		return "object"
	case reflect.String:
		return "string"
	case reflect.Bool:
		return "boolean"
	case reflect.Interface:
		return "any"
	}
	return "number"
}

// jsonDoc is where the JSON types are documented: a heading and a table each.
const jsonDoc = "../docs/json.md"

var rowPattern = regexp.MustCompile("^\\| `([^`]+)` \\| ([^|]*) \\| (.*) \\|$")

// TestJSONDoc holds the tables of docs/json.md against the Go types: each
// field is there, with its form and a meaning, and no other. With -update the
// rows are written anew; the meanings stay.
func TestJSONDoc(t *testing.T) {
	b, err := os.ReadFile(jsonDoc)
	qt.Assert(t, qt.IsNil(err))
	section := ""
	meaning := make(map[string]string)
	tables := make(map[string][]string)
	var rest []string // the document without its rows, which go below the lines "|---|"
	for line := range strings.Lines(string(b)) {
		line = strings.TrimSuffix(line, "\n")
		if name, ok := strings.CutPrefix(line, "## "); ok {
			section = strings.Trim(name, "`")
		}
		if m := rowPattern.FindStringSubmatch(line); m != nil {
			tables[section] = append(tables[section], line)
			meaning[section+" "+m[1]] = strings.TrimSpace(m[3])
			continue
		}
		rest = append(rest, line)
	}
	want := make(map[string][]string)
	for name, v := range cli.JSONTypes() {
		for _, f := range jsonFields(reflect.TypeOf(v), "") {
			if f.optional {
				f.kind += ", optional"
			}
			m := meaning[name+" "+f.path]
			if m == "" && !*update {
				t.Errorf("%s does not say what %s of %s means", jsonDoc, f.path, name)
			}
			want[name] = append(want[name], fmt.Sprintf("| `%s` | %s | %s |", f.path, f.kind, m))
		}
	}
	if *update {
		writeJSONDoc(t, rest, want)
		return
	}
	for name := range want {
		qt.Check(t, qt.DeepEquals(tables[name], want[name]), qt.Commentf("table of %s in %s; go test ./cli -run JSONDoc -update writes it", name, jsonDoc))
	}
	for name := range tables {
		qt.Check(t, qt.IsTrue(slices.Contains(typeNames(), name)), qt.Commentf("%s has a table of %q, which is no type", jsonDoc, name))
	}
}

func typeNames() []string {
	var names []string
	for name := range cli.JSONTypes() {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func writeJSONDoc(t *testing.T, rest []string, want map[string][]string) {
	t.Helper()
	var out []string
	section := ""
	for _, line := range rest {
		if name, ok := strings.CutPrefix(line, "## "); ok {
			section = strings.Trim(name, "`")
		}
		out = append(out, line)
		if strings.HasPrefix(line, "|---") {
			out = append(out, want[section]...)
			delete(want, section)
		}
	}
	qt.Check(t, qt.HasLen(want, 0), qt.Commentf("types without a heading and a table"))
	qt.Assert(t, qt.IsNil(os.WriteFile(jsonDoc, []byte(strings.Join(out, "\n")+"\n"), 0o644)))
}
