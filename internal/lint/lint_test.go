// Package lint holds the module to its own rules: which package may import
// which, and what a library package must not do.
package lint

import (
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
	"golang.org/x/tools/go/packages"
)

const module = "github.com/ksleuth/ksleuth"

// layers are the packages from the bottom up. A package imports only packages
// of layers below its own: data flows one way, and each package can be used
// without those above or beside it.
var layers = [][]string{
	{"mem"},
	{"vmcore", "paging", "kallsyms", "orc", "x86", "ctype", "finding", "cpulist"}, // formats, and the form of conclusions
	{"cexpr", "jit", "cfg", "emulate", "live", "sample", "hwbreak", "pcapfilter", "knownbug"},
	{"kernel", "bpfexpr"}, // symbols, types and memory of one kernel; expressions for the kernel to evaluate
	{"unwind", "bpf", "kobj", "typeflow"},
	{"bpfsys"},
	{"stack", "disasm", "bpfview"},
	{"procfs"},                    // the same without memory
	{"tracee"},                    // what can be traced
	{"rerun", "probe"},            // the kernel's code, run offline; tracing
	{"culprit", "guard", "trace"}, // what made a register wrong, by running code again; before tracing; calls and what they mean
	{"report", "graph"},
	{"render"},
	{"cli"},
	{"cmd/ksleuth"},
}

// apart are packages beside the layers, with all they may import of ours.
// Packages below internal/ and an internal directory of a layer's package are
// for those around them, and import nothing of ours but what stands here.
var apart = map[string][]string{
	"vm":                       {"mem", "internal/guest/guestinit", "internal/guest/wire", "vm/internal/cpio", "vm/internal/gdbremote", "vm/internal/qmp"},
	"internal/guest":           {"internal/guest/casee", "internal/guest/guestinit", "internal/guest/objects"},
	"internal/guest/guestinit": {"internal/guest/wire"},
	"internal/bpfscene":        {"internal/guest/guestinit", "internal/guest/rtnl"},
	"internal/tracescene":      {"internal/guest/guestinit", "internal/guest/rtnl"},
	"internal/rival":           {"vm"},
	"internal/runscene":        {"internal/guest/guestinit"},
	"internal/callscene":       {"internal/callscene/callgate", "internal/guest/guestinit"},
	"internal/bpfrounds":       {"cli"},
	"internal/example":         {"kernel", "mem", "vmcore"},
	"internal/dumptest":        {"internal/callscene/callgate", "vm"},
	"internal/dumptest/kimage": {"internal/dumptest", "vmcore"},
	"internal/unicorn":         {},
	"internal/cmd/bench":       {"emulate", "internal/dumptest", "internal/rival", "internal/unicorn", "kernel", "mem", "vm", "vmcore", "x86"},
	"internal/cmd/mkdumps":     {"internal/dumptest"},
	"internal/cmd/vmexec":      {"vm"},
	"x86/gen":                  {},
}

// owners are modules that only some packages may import.
var owners = map[string][]string{
	"github.com/spf13/":             {"cli"},
	"charm.land/":                   {"render"},
	"github.com/elastic/go-perf":    {"sample", "hwbreak"},
	"github.com/cloudflare/cbpfc":   {"pcapfilter"},
	"github.com/gopacket/gopacket":  {"trace"},
	"golang.org/x/net/bpf":          {"pcapfilter"},
	"github.com/ebitengine/purego":  {"internal/unicorn"},
	"github.com/cilium/ebpf":        {"bpfexpr", "pcapfilter", "probe", "guard", "hwbreak", "trace", "internal/tracescene", "internal/guest", "internal/guest/casee", "internal/guest/objects", "internal/bpfscene", "internal/runscene", "internal/callscene"},
	"github.com/klauspost/compress": {"vmcore", "vm"},
	"github.com/anchore/go-lzo":     {"vmcore"},
	"golang.org/x/arch":             {"x86", "cfg", "emulate", "unwind", "typeflow", "disasm", "rerun", "culprit", "report"},
	"log/slog":                      {"cli"},
}

// load returns every package of the module, without tests.
func load(t *testing.T) []*packages.Package {
	t.Helper()
	pkgs, err := packages.Load(&packages.Config{
		Mode: packages.NeedName | packages.NeedFiles | packages.NeedImports |
			packages.NeedTypes | packages.NeedSyntax | packages.NeedTypesInfo | packages.NeedExportFile,
	}, module+"/...")
	qt.Assert(t, qt.IsNil(err))
	var out []*packages.Package
	for _, p := range pkgs {
		for _, e := range p.Errors {
			t.Errorf("%s: %v", p.PkgPath, e)
		}
		if len(p.GoFiles) > 0 { // this package has only tests
			out = append(out, p)
		}
	}
	return out
}

// short returns a package's path within the module.
func short(path string) string { return strings.TrimPrefix(strings.TrimPrefix(path, module), "/") }

func layerOf(pkg string) int {
	return slices.IndexFunc(layers, func(l []string) bool { return slices.Contains(l, pkg) })
}

func TestRules(t *testing.T) {
	pkgs := load(t)
	t.Run("imports", func(t *testing.T) { checkImports(t, pkgs) })
	t.Run("quiet", func(t *testing.T) { checkQuiet(t, pkgs) })
}

func checkImports(t *testing.T, pkgs []*packages.Package) {
	exists := make(map[string]bool)
	for _, p := range pkgs {
		pkg := short(p.PkgPath)
		exists[pkg] = true
		for path := range p.Imports {
			for prefix, users := range owners {
				if strings.HasPrefix(path, prefix) && !slices.Contains(users, pkg) {
					t.Errorf("%s imports %s, which is for %s alone", pkg, path, strings.Join(users, ", "))
				}
			}
			if strings.HasPrefix(path, module+"/") {
				if why := forbidden(pkg, short(path)); why != "" {
					t.Errorf("%s imports %s: %s", pkg, short(path), why)
				}
			}
		}
		_, known := apart[pkg]
		if !known && layerOf(pkg) < 0 && !strings.Contains(pkg, "internal/") {
			t.Errorf("%s has no layer: give it one in this test", pkg)
		}
	}
	for _, l := range layers {
		for _, pkg := range l {
			qt.Check(t, qt.IsTrue(exists[pkg]), qt.Commentf("layer of a package %s that is no more", pkg))
		}
	}
}

// forbidden says why a package must not import another, or "".
func forbidden(pkg, imported string) string {
	if allowed, ok := apart[pkg]; ok {
		if slices.Contains(allowed, imported) {
			return ""
		}
		return "it may import " + strings.Join(allowed, ", ")
	}
	if strings.HasPrefix(imported, pkg+"/internal/") {
		return ""
	}
	from, to := layerOf(pkg), layerOf(imported)
	switch {
	case from < 0:
		return "internal packages import nothing of ours"
	case to < 0:
		return "not a package of the layers"
	case to >= from:
		return fmt.Sprintf("layer %d is not below layer %d", to, from)
	}
	return ""
}

func TestForbidden(t *testing.T) {
	for _, c := range []struct {
		pkg, imported string
		ok            bool
	}{
		{"kernel", "mem", true},
		{"vmcore", "vmcore/internal/inflate", true},
		{"mem", "vmcore", false},
		{"kobj", "bpf", false},
		{"report", "render", false},
		{"stack", "cli", false},
		{"vmcore", "vm", false},
		{"vm/internal/qmp", "mem", false},
		{"internal/dumptest", "kernel", false},
	} {
		qt.Check(t, qt.Equals(forbidden(c.pkg, c.imported) == "", c.ok), qt.Commentf("%s -> %s", c.pkg, c.imported))
	}
}

// isProgram says that a package is, or is a part of, a program that runs for
// itself: it may print and exit.
func isProgram(p *packages.Package) bool {
	return p.Name == "main" || short(p.PkgPath) == "internal/guest/guestinit"
}

// checkQuiet: a library returns errors and data. It does not print, exit,
// panic or log, and keeps nothing between calls in package-level variables.
func checkQuiet(t *testing.T, pkgs []*packages.Package) {
	for _, p := range pkgs {
		if isProgram(p) {
			continue
		}
		for _, v := range violations(p) {
			t.Error(v)
		}
	}
}

// noisySource breaks every rule once a line that says so.
const noisySource = `package p

import ("fmt"; "log"; "os"; "sync")

var table = map[string]int{"a": 1}
var once sync.Once // want
var count int
var ok struct{ n int }

func f(local map[string]int) {
	local["b"] = table["a"]
	table["b"] = 2 // want
	count++ // want
	ok.n = 1 // want
	delete(table, "a") // want
	fmt.Println() // want
	_ = fmt.Sprint()
	log.Print() // want
	fmt.Fprintln(os.Stderr) // want
	os.Exit(1) // want
	panic("no") // want
}
`

func TestViolations(t *testing.T) {
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, "p.go", noisySource, 0)
	qt.Assert(t, qt.IsNil(err))
	info := &types.Info{Uses: make(map[*ast.Ident]types.Object)}
	conf := types.Config{Importer: importer.ForCompiler(fset, "source", nil)}
	pkg, err := conf.Check("p", fset, []*ast.File{f}, info)
	qt.Assert(t, qt.IsNil(err))
	got := violations(&packages.Package{PkgPath: "p", Fset: fset, Syntax: []*ast.File{f}, Types: pkg, TypesInfo: info})
	qt.Assert(t, qt.HasLen(got, strings.Count(noisySource, "// want")), qt.Commentf("%s", strings.Join(got, "\n")))
}

// violations returns what a library package does that it must not.
func violations(p *packages.Package) []string {
	var out []string
	complain := func(n ast.Node, format string, args ...any) {
		pos := p.Fset.Position(n.Pos())
		out = append(out, fmt.Sprintf("%s/%s:%d: %s", short(p.PkgPath), filepath.Base(pos.Filename), pos.Line, fmt.Sprintf(format, args...)))
	}
	for _, f := range p.Syntax {
		ast.Inspect(f, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.Ident:
				if what := noisy(p.TypesInfo.Uses[n]); what != "" {
					complain(n, "a library package does not use %s", what)
				}
			case *ast.AssignStmt:
				for _, lhs := range n.Lhs {
					if v := global(p, lhs); v != "" && n.Tok != token.DEFINE {
						complain(n, "assignment to the package-level variable %s", v)
					}
				}
			case *ast.IncDecStmt:
				if v := global(p, n.X); v != "" {
					complain(n, "assignment to the package-level variable %s", v)
				}
			case *ast.CallExpr:
				if id, ok := n.Fun.(*ast.Ident); ok && (id.Name == "delete" || id.Name == "clear") && len(n.Args) > 0 {
					if v := global(p, n.Args[0]); v != "" {
						complain(n, "%s of the package-level variable %s", id.Name, v)
					}
				}
			}
			return true
		})
	}
	for _, name := range p.Types.Scope().Names() {
		v, ok := p.Types.Scope().Lookup(name).(*types.Var)
		if !ok {
			continue
		}
		if s := v.Type().String(); strings.HasPrefix(s, "sync.") || strings.HasPrefix(s, "sync/atomic.") {
			out = append(out, fmt.Sprintf("%s: the package-level variable %s is a %s, which changes", short(p.PkgPath), name, s))
		}
	}
	return out
}

// noisy names an object that a library must not use, or returns "".
func noisy(o types.Object) string {
	if b, ok := o.(*types.Builtin); ok && slices.Contains([]string{"panic", "print", "println"}, b.Name()) {
		return b.Name()
	}
	if o == nil || o.Pkg() == nil || o.Parent() != o.Pkg().Scope() {
		return "" // a method or a local
	}
	name := o.Pkg().Path() + "." + o.Name()
	switch {
	case o.Pkg().Path() == "log", name == "os.Exit", name == "os.Stdout", name == "os.Stderr",
		strings.HasPrefix(name, "fmt.Print"):
		return name
	}
	return ""
}

// global returns the name of the package-level variable of p at the root of an
// assigned expression (v, v.f, v[i], *v), or "".
func global(p *packages.Package, e ast.Expr) string {
	for {
		switch x := e.(type) {
		case *ast.SelectorExpr:
			e = x.X
		case *ast.IndexExpr:
			e = x.X
		case *ast.StarExpr:
			e = x.X
		case *ast.ParenExpr:
			e = x.X
		case *ast.Ident:
			if v, ok := p.TypesInfo.Uses[x].(*types.Var); ok && v.Parent() == p.Types.Scope() {
				return v.Name()
			}
			return ""
		default:
			return ""
		}
	}
}

// TestUnicorn: the emulator that judges package emulate is under GPL-2. The
// binary is not made of it, nor of what loads it.
func TestUnicorn(t *testing.T) {
	for _, c := range []struct {
		program string
		want    bool
	}{{"cmd/ksleuth", false}, {"internal/cmd/bench", true}} {
		pkgs, err := packages.Load(&packages.Config{Mode: packages.NeedName | packages.NeedImports | packages.NeedDeps}, module+"/"+c.program)
		qt.Assert(t, qt.IsNil(err))
		found := false
		packages.Visit(pkgs, nil, func(p *packages.Package) {
			if p.PkgPath == module+"/internal/unicorn" || strings.HasPrefix(p.PkgPath, "github.com/ebitengine/purego") {
				found = true
			}
		})
		qt.Check(t, qt.Equals(found, c.want), qt.Commentf("%s has internal/unicorn in it", c.program))
	}
}
