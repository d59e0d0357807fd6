package graph_test

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/go-quicktest/qt"

	"github.com/ksleuth/ksleuth/bpf"
	"github.com/ksleuth/ksleuth/graph"
)

func svg(t *testing.T, inv bpf.Inventory) string {
	t.Helper()
	var b bytes.Buffer
	qt.Assert(t, qt.IsNil(graph.Build(inv).SVG(&b)))
	return b.String()
}

func dot(t *testing.T, inv bpf.Inventory) string {
	t.Helper()
	var b bytes.Buffer
	qt.Assert(t, qt.IsNil(graph.Build(inv).DOT(&b)))
	return b.String()
}

func TestPictureGolden(t *testing.T) {
	golden(t, "some.svg", svg(t, some()))
	golden(t, "some.dot", dot(t, some()))
}

// area is where something is drawn.
type area struct {
	x, y, w, h float64
	what       string
}

func (a area) overlaps(b area) bool {
	const touch = 0.05
	return a.x < b.x+b.w-touch && b.x < a.x+a.w-touch && a.y < b.y+b.h-touch && b.y < a.y+a.h-touch
}

func (a area) contains(b area) bool {
	return a.x <= b.x && b.x+b.w <= a.x+a.w && a.y <= b.y && b.y+b.h <= a.y+a.h
}

// page is what an SVG shows: rectangles, and text in a fixed-width font.
type page struct {
	all          area
	rects, texts []area
}

var (
	translate = regexp.MustCompile(`^translate\(([-\d.]+),([-\d.]+)\)$`)
)

// read parses an SVG. It must be well-formed, and refer to nothing outside.
func read(t *testing.T, text string) page {
	t.Helper()
	var p page
	d := xml.NewDecoder(strings.NewReader(text))
	type frame struct{ x, y float64 }
	stack := []frame{{}}
	var last area
	for {
		tok, err := d.Token()
		if errors.Is(err, io.EOF) {
			return p
		}
		qt.Assert(t, qt.IsNil(err))
		switch tok := tok.(type) {
		case xml.StartElement:
			at := make(map[string]string)
			for _, a := range tok.Attr {
				at[a.Name.Local] = a.Value
				qt.Check(t, qt.IsFalse(a.Name.Local == "href" || strings.HasPrefix(a.Name.Local, "on")))
			}
			num := func(name string) float64 {
				v, err := strconv.ParseFloat(at[name], 64)
				qt.Assert(t, qt.IsNil(err), qt.Commentf("%s of %s", name, tok.Name.Local))
				return v
			}
			f := stack[len(stack)-1]
			if m := translate.FindStringSubmatch(at["transform"]); m != nil {
				x, _ := strconv.ParseFloat(m[1], 64)
				y, _ := strconv.ParseFloat(m[2], 64)
				f = frame{f.x + x, f.y + y}
			}
			stack = append(stack, f)
			switch tok.Name.Local {
			case "svg":
				p.all = area{0, 0, num("width"), num("height"), "all"}
			case "rect":
				if at["class"] != "bg" {
					p.rects = append(p.rects, area{f.x + num("x"), f.y + num("y"), num("width"), num("height"), at["class"]})
				}
			case "text":
				size := 11.0
				switch at["class"] {
				case "t":
					size = 12
				case "h1":
					size = 17
				case "h2":
					size = 13
				}
				last = area{f.x + num("x"), f.y + num("y") - 0.75*size, 0.6025 * size, size, ""}
			case "script", "image", "foreignObject":
				t.Errorf("a picture has a %s", tok.Name.Local)
			}
		case xml.CharData:
			if last.h > 0 {
				last.what = string(tok)
				last.w *= float64(utf8.RuneCount(tok))
				p.texts = append(p.texts, last)
				last = area{}
			}
		case xml.EndElement:
			stack = stack[:len(stack)-1]
		}
	}
}

// TestPicture: whatever there is to draw, text is on the page, inside of its
// box, and over no other text; boxes do not overlap but for the shadow of
// those that stand for many.
func TestPicture(t *testing.T) {
	for name, inv := range inventories {
		t.Run(name, func(t *testing.T) {
			p := read(t, svg(t, inv()))
			for i, a := range p.texts {
				qt.Check(t, qt.IsTrue(p.all.contains(a)), qt.Commentf("%+v is off the page", a))
				for _, b := range p.texts[i+1:] {
					if a.overlaps(b) {
						t.Errorf("text over text: %+v, %+v", a, b)
					}
				}
				for _, r := range p.rects {
					if a.overlaps(r) && !r.contains(a) {
						t.Errorf("text across a border: %+v, %+v", a, r)
					}
				}
			}
			for i, a := range p.rects {
				for _, b := range p.rects[i+1:] {
					shadow := a.w == b.w && a.h == b.h && a.x == b.x+3 && a.y == b.y+3
					if a.overlaps(b) && !shadow {
						t.Errorf("box over box: %+v, %+v", a, b)
					}
				}
			}
		})
	}
}

// TestPictureNames: every program and map that has a box, a line or a cell of
// its own is found by its name; of 500 programs none is left out.
func TestPictureNames(t *testing.T) {
	text := svg(t, some())
	for _, want := range []string{"eth0", "xdp_main", "module3()", "fw_mod", "loses the tail-call count", "[0-2]", "only_here", "xdp, link 1", "vfs_read", "my_cc", "ssthresh", "alone", "idle", "and 34 more"} {
		qt.Check(t, qt.StringContains(text, want))
	}
	big := svg(t, many(500))
	for i := range 335 {
		if name := fmt.Sprintf(" filter_%d<", i); !strings.Contains(big, name) {
			t.Errorf("no %s", name)
		}
	}
}

// TestPictureGrows: the picture of many objects is one that can be scrolled
// through, not a strip.
func TestPictureGrows(t *testing.T) {
	p := read(t, svg(t, many(500)))
	qt.Check(t, qt.IsTrue(p.all.w <= 4000), qt.Commentf("%.0f wide", p.all.w))
	qt.Check(t, qt.IsTrue(p.all.h <= 4000), qt.Commentf("%.0f high", p.all.h))
}

// dotToken is a token of Graphviz' language, as far as we write it.
var dotToken = regexp.MustCompile(`^(?:\s+|"(?:[^"\\\n]|\\.)*"|[A-Za-z_][A-Za-z_0-9]*|-?[\d.]+|->|[{}\[\];=,])`)

// TestDOT: what is written is in the language, with every node and edge.
func TestDOT(t *testing.T) {
	for name, inv := range inventories {
		text, g := dot(t, inv()), graph.Build(inv())
		edges := 0
		for rest := text; rest != ""; {
			tok := dotToken.FindString(rest)
			qt.Assert(t, qt.Not(qt.Equals(tok, "")), qt.Commentf("%s: no token: %.60q", name, rest))
			if tok == "->" {
				edges++
			}
			rest = rest[len(tok):]
		}
		qt.Check(t, qt.Equals(edges, len(g.Edges)), qt.Commentf("%s", name))
	}
}

// TestGraphviz has dot itself read the graphs, where it is installed. It is
// given but time to read: laying out hundreds of nodes takes it a while.
func TestGraphviz(t *testing.T) {
	gc, err := exec.LookPath("gc") // of Graphviz: counts nodes and edges
	if err != nil {
		t.Skip("Graphviz is not installed")
	}
	for name, inv := range inventories {
		g := graph.Build(inv())
		cmd := exec.CommandContext(t.Context(), gc, "-n", "-e")
		cmd.Stdin = strings.NewReader(dot(t, inv()))
		var said bytes.Buffer
		cmd.Stderr = &said
		out, err := cmd.Output()
		qt.Assert(t, qt.IsNil(err), qt.Commentf("%s: %s", name, said.String()))
		qt.Check(t, qt.Equals(said.String(), ""), qt.Commentf("%s", name))
		f := strings.Fields(string(out))
		qt.Assert(t, qt.IsTrue(len(f) >= 2), qt.Commentf("%s: %q", name, out))
		qt.Check(t, qt.Equals(f[0]+" "+f[1], fmt.Sprintf("%d %d", len(g.Nodes), len(g.Edges))), qt.Commentf("%s", name))
	}
}
