package emulate

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/ksleuth/ksleuth/mem"
	"github.com/ksleuth/ksleuth/x86"
)

var update = flag.Bool("update", false, "write the golden files")

// often is how many times an instruction must stand in a text to be one of its:
// there are a few bytes of data among the code, other ones on each boot.
const often = 5

// TestUnsupported holds what of each kernel's text cannot be executed, and why,
// against testdata/unsupported.txt: all that stands there often, and nothing that
// does not stand there at least twice.
func TestUnsupported(t *testing.T) {
	file := filepath.Join("testdata", "unsupported.txt")
	var b strings.Builder
	listed := golden(t, file)
	for _, version := range formKernels {
		k := formKernel(t, "idle-"+version)
		total, counts := 0, map[string]map[x86.Op]int{}
		for _, r := range textRanges(t, k) {
			code, err := mem.Bytes(k.Mem(), r.Start, int(r.End-r.Start))
			qt.Assert(t, qt.IsNil(err))
			eachUnsupported(code, r.Start, &total, counts)
		}
		fmt.Fprintf(&b, "%s\n", version)
		for _, why := range sortedKeys(counts) {
			var line strings.Builder
			for _, op := range sortedKeys(counts[why]) {
				n, place := counts[why][op], version+" "+why+" "+op.String()
				if n >= often {
					fmt.Fprintf(&line, " %v", op)
				}
				if !*update && (n >= often && !listed[place] || n < 2 && listed[place]) {
					t.Errorf("%s: %d times, in %s: %t", place, n, file, listed[place])
				}
				delete(listed, place)
			}
			if line.Len() > 0 {
				fmt.Fprintf(&b, "\t%s:%s\n", why, line.String())
			}
		}
		qt.Check(t, qt.IsTrue(total > 1_000_000))
	}
	if *update {
		qt.Assert(t, qt.IsNil(os.WriteFile(file, []byte(b.String()), 0o644)))
		return
	}
	qt.Check(t, qt.HasLen(listed, 0), qt.Commentf("no longer there; -update writes %s", file))
}

// golden reads the file: "KERNEL REASON OPERATION" of each one.
func golden(t *testing.T, file string) map[string]bool {
	t.Helper()
	text, err := os.ReadFile(file)
	qt.Assert(t, qt.IsNil(err))
	out := map[string]bool{}
	version := ""
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSuffix(line, "\n")
		why, ops, ok := strings.Cut(line, ":")
		if !ok {
			version = line
			continue
		}
		for op := range strings.FieldsSeq(ops) {
			out[version+" "+strings.TrimSpace(why)+" "+op] = true
		}
	}
	return out
}

// eachUnsupported counts instructions that have no exec, by reason.
func eachUnsupported(code []byte, addr uint64, total *int, counts map[string]map[x86.Op]int) {
	m := New(NewMemory(mem.Snapshot{}), Options{})
	var in x86.Inst
	for i := 0; i < len(code); i += max(in.Len, 1) {
		if in.Decode(code[i:], addr+uint64(i)) != nil {
			continue
		}
		*total++
		if _, ok := ops[in.Op]; ok {
			if !otherRegister(&in) {
				continue
			}
			m.insts = append(m.insts[:0], in)
			if u := m.translate(&m.insts[0]); !isUnsupported(&u) {
				continue
			}
		}
		w := why(in.Op)
		if counts[w] == nil {
			counts[w] = map[x86.Op]int{}
		}
		counts[w][in.Op]++
	}
}

// otherRegister says whether an operand is a register of which [register] does not know.
func otherRegister(in *x86.Inst) bool {
	return slices.ContainsFunc(in.Args[:in.NArgs], func(a x86.Arg) bool {
		k, _ := register(a.Reg)
		return a.Kind == x86.KindReg && k == kNone
	})
}

// isUnsupported says whether u does nothing but say so.
func isUnsupported(u *uop) bool {
	return reflect.ValueOf(u.exec).Pointer() == reflect.ValueOf(execUnsupported).Pointer()
}

func sortedKeys[K interface{ ~string | ~uint16 }, V any](m map[K]V) []K {
	var out []K
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}
