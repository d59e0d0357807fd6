package render

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ksleuth/ksleuth/bpf"
)

// Programs writes BPF programs as a table.
func (p *Printer) Programs(progs []*bpf.Program) {
	if len(progs) == 0 {
		p.Line("no BPF programs")
		return
	}
	rows := make([][]string, len(progs))
	for i, g := range progs {
		name := g.Name
		if n := len(g.Subprogs) - 1; n > 0 {
			name += fmt.Sprintf(" +%d", n)
		}
		runs := ""
		if g.RunCount > 0 {
			runs = fmt.Sprint(g.RunCount)
		}
		rows[i] = []string{
			fmt.Sprint(g.ID), g.Type, name, g.Tag, codeSize(g), runs, ids(g.MapIDs), purpose(g), users(g.Holders, g.Pins),
		}
	}
	p.table([]column{
		{title: "ID", right: true}, {title: "TYPE"}, {title: "NAME", most: 28}, {title: "TAG"}, {title: "CODE", right: true},
		{title: "RUNS", right: true}, {title: "MAPS", most: 12}, {title: "FOR", most: 32}, {title: "HELD BY"},
	}, rows)
}

func codeSize(g *bpf.Program) string {
	if !g.Jited {
		return "not jited"
	}
	return fmt.Sprintf("%d B", g.JitedLen)
}

// purpose says what a program was loaded for.
func purpose(g *bpf.Program) string {
	if g.Target == nil {
		return ""
	}
	return strings.TrimPrefix(strings.TrimPrefix(g.Attach, "trace_"), "modify_") + " " + g.Target.String()
}

// users names the processes that hold an object, and where it is pinned.
func users(hs []bpf.Holder, pins []string) string {
	var out []string
	for _, h := range hs {
		out = append(out, fmt.Sprintf("%s(%d)", h.Comm, h.PID))
	}
	return strings.Join(append(out, pins...), " ")
}

// ids writes numbers with commas.
func ids(list []int) string {
	out := make([]string, len(list))
	for i, id := range list {
		out[i] = fmt.Sprint(id)
	}
	return strings.Join(out, ",")
}

// fieldWidth is the margin of the fields of one object.
const fieldWidth = 12

// field writes a named property of an object, if there is one.
func (p *Printer) field(name, text string) {
	if text == "" {
		return
	}
	for i, line := range Wrap(Clean(text), Width-fieldWidth) {
		if i > 0 {
			name = ""
		}
		p.Line(p.Dim(pad(name, fieldWidth)) + line)
	}
}

// Program writes one program with all that is known of it; maps are those it
// uses.
func (p *Printer) Program(g *bpf.Program, maps []*bpf.Map, links []*bpf.Link) {
	p.Line(p.Label(fmt.Sprintf("prog %d  %s", g.ID, Clean(g.Name))) + fmt.Sprintf("  %s, tag %s", programType(g), g.Tag))
	if g.Target != nil {
		p.field("for", purpose(g))
	}
	p.field("loaded", loaded(g))
	p.field("code", fmt.Sprintf("%s of machine code from %s (%d bytes) in %s",
		codeSize(g), count(g.XlatedLen/8, "instruction"), g.XlatedLen, count(len(g.Subprogs), "function")))
	for _, s := range g.Subprogs {
		if s.Addr != 0 {
			p.Line(strings.Repeat(" ", fieldWidth) + p.Dim(s.Addr.String()) + fmt.Sprintf("  %5d  ", s.Len) + p.Name(Clean(s.Name)))
		}
	}
	if g.Verified > 0 {
		p.field("verified", count(g.Verified, "instruction")+" walked")
	}
	if g.TailCall != nil && *g.TailCall {
		p.field("tail calls", "a function it calls can make one: its functions hand the tail-call count on")
	}
	if g.Extended != nil && *g.Extended {
		p.field("extended", "a freplace program stands in for one of its functions")
	}
	if g.RunCount > 0 {
		p.field("runs", fmt.Sprintf("%d in %s, %s each", g.RunCount, Duration(time.Duration(g.RunTime)), time.Duration(g.RunTime/g.RunCount)))
	}
	if g.Missed > 0 {
		p.field("missed", fmt.Sprintf("%d runs, for it was running on that CPU already", g.Missed))
	}
	p.field("maps", mapNames(g.MapIDs, maps))
	for _, l := range links {
		p.field("link", linkLine(l))
	}
	p.properties(g)
	id := fmt.Sprint("prog:", g.ID)
	p.next([]nextStep{
		{"disasm --explain " + id, "its machine code, annotated"},
		{"graph --from " + id, "what it hangs together with"},
	})
}

// properties writes what is seldom asked.
func (p *Printer) properties(g *bpf.Program) {
	if g.BTF != 0 {
		p.field("btf", fmt.Sprint(g.BTF))
	}
	if g.Memory > 0 {
		p.field("memory", fmt.Sprintf("%d bytes", g.Memory))
	}
	if g.Addr != 0 {
		p.field("bpf_prog", g.Addr.String())
	}
	p.field("held by", users(g.Holders, nil))
	p.field("pinned", strings.Join(g.Pins, " "))
}

func programType(g *bpf.Program) string {
	t := g.Type
	if g.Attach != "" {
		t += " (" + g.Attach + ")"
	}
	if g.Sleepable {
		t += ", sleepable"
	}
	return t
}

func loaded(g *bpf.Program) string {
	s := fmt.Sprintf("%s after boot by uid %d", Duration(time.Duration(g.LoadTime)), g.UID)
	if g.LoadedAt > 0 {
		s = time.Unix(g.LoadedAt, 0).UTC().Format("2006-01-02 15:04:05 UTC") + ", " + s
	}
	if !g.GPL {
		s += ", not GPL-compatible"
	}
	return s
}

// mapNames names maps by id, as far as they are known.
func mapNames(list []int, maps []*bpf.Map) string {
	var out []string
	for _, id := range list {
		name := fmt.Sprint(id)
		if i := slices.IndexFunc(maps, func(m *bpf.Map) bool { return m.ID == id }); i >= 0 {
			name = fmt.Sprintf("%d %s (%s)", id, maps[i].Name, maps[i].Type)
		}
		out = append(out, strings.ReplaceAll(name, " ", "\u00a0"))
	}
	return strings.Join(out, ", ")
}

// Maps writes BPF maps as a table.
func (p *Printer) Maps(maps []*bpf.Map) {
	if len(maps) == 0 {
		p.Line("no BPF maps")
		return
	}
	rows := make([][]string, len(maps))
	for i, m := range maps {
		memory := ""
		if m.Memory > 0 {
			memory = fmt.Sprint(m.Memory)
		}
		rows[i] = []string{
			fmt.Sprint(m.ID), m.Type, m.Name, fmt.Sprint(m.KeySize), fmt.Sprint(m.ValueSize), fmt.Sprint(m.MaxEntries),
			memory, ids(m.ProgIDs), users(m.Holders, m.Pins),
		}
	}
	p.table([]column{
		{title: "ID", right: true}, {title: "TYPE"}, {title: "NAME", most: 28}, {title: "KEY", right: true}, {title: "VALUE", right: true},
		{title: "ENTRIES", right: true}, {title: "MEMORY", right: true}, {title: "PROGS", most: 16}, {title: "HELD BY"},
	}, rows)
}

// Map writes one map with all that is known of it; progs are those that use
// it.
func (p *Printer) Map(m *bpf.Map, progs []*bpf.Program) {
	p.Line(p.Label(fmt.Sprintf("map %d  %s", m.ID, Clean(m.Name))) + "  " + m.Type)
	p.field("key", sizeAndType(m.KeySize, m.KeyType))
	p.field("value", sizeAndType(m.ValueSize, m.ValueType))
	p.field("entries", fmt.Sprintf("%d at most", m.MaxEntries))
	if m.Flags != 0 {
		p.field("flags", strings.Join(m.FlagNames(), ", "))
	}
	if m.Frozen {
		p.field("frozen", "bpf(2) can no longer change it")
	}
	if m.OwnerType != "" {
		p.field("takes", "programs of type "+m.OwnerType+map[bool]string{true: ", jited", false: ", not jited"}[m.OwnerJited])
	}
	if in := m.Inner; in != nil {
		p.field("takes", fmt.Sprintf("maps of type %s, key %d, value %d bytes, %d entries", in.Type, in.KeySize, in.ValueSize, in.MaxEntries))
	}
	if m.Extra != 0 {
		p.field("extra", fmt.Sprintf("%#x", m.Extra))
	}
	if m.BTF != 0 {
		p.field("btf", fmt.Sprint(m.BTF))
	}
	if m.Memory > 0 {
		p.field("memory", fmt.Sprintf("%d bytes", m.Memory))
	}
	if m.Addr != 0 {
		p.field("bpf_map", m.Addr.String())
	}
	p.field("used by", progNames(m.ProgIDs, progs))
	p.field("held by", users(m.Holders, nil))
	p.field("pinned", strings.Join(m.Pins, " "))
}

// MapNext writes what to do next about a map whose elements were not asked for.
func (p *Printer) MapNext(m *bpf.Map) {
	p.next([]nextStep{{fmt.Sprintf("maps %d --entries", m.ID), "what is in it"}})
}

func sizeAndType(size uint32, typ string) string {
	s := count(int(size), "byte")
	if typ != "" {
		s += "  " + typ
	}
	return s
}

// progNames names programs by id, as far as they are known.
func progNames(list []int, progs []*bpf.Program) string {
	var out []string
	for _, id := range list {
		name := fmt.Sprintf("prog %d", id)
		if i := slices.IndexFunc(progs, func(g *bpf.Program) bool { return g.ID == id }); i >= 0 {
			name += " " + progs[i].Name
		}
		out = append(out, strings.ReplaceAll(name, " ", "\u00a0"))
	}
	return strings.Join(out, ", ")
}

// EntryCount writes the line above the elements of a map.
func (p *Printer) EntryCount(n int) {
	switch n {
	case 0:
		p.Heading("EMPTY")
	case 1:
		p.Heading("1 ENTRY")
	default:
		p.Heading(fmt.Sprintf("%d ENTRIES", n))
	}
}

// indexed are the types of maps whose keys are the numbers of slots.
var indexed = map[string]bool{
	"array": true, "percpu_array": true, "prog_array": true, "perf_event_array": true, "cgroup_array": true,
	"array_of_maps": true, "devmap": true, "cpumap": true, "xskmap": true, "sockmap": true,
	"reuseport_sockarray": true, "insn_array": true,
}

// entryWidth is the margin of the lines of an element.
const entryWidth = 7

// Entry writes an element of a map.
func (p *Printer) Entry(m *bpf.Map, e bpf.Entry) {
	key := e.KeyText
	if key == "" && indexed[m.Type] && len(e.Key) == 4 {
		key = fmt.Sprint(binary.LittleEndian.Uint32(e.Key))
	}
	if len(e.Key) > 0 {
		p.entryLine("key", key, e.Key)
	}
	if e.Object != nil {
		p.Line(p.Dim(pad("value", entryWidth)) + p.Name(Clean(e.Object.String())))
		return
	}
	for _, v := range e.PerCPU {
		p.entryLine(fmt.Sprintf("cpu%d", v.CPU), v.Text, v.Value)
	}
	if len(e.PerCPU) == 0 {
		p.entryLine("value", e.ValueText, e.Value)
	}
}

// entryLine writes a key or value in C notation, or else its bytes.
func (p *Printer) entryLine(label, text string, raw bpf.Bytes) {
	var lines []string
	if text != "" {
		lines = Wrap(strings.ReplaceAll(Clean(text), " = ", "\u00a0=\u00a0"), Width-entryWidth)
	} else {
		const perLine = 16
		for part := range slices.Chunk(raw, perLine) {
			lines = append(lines, fmt.Sprintf("% x", []byte(part)))
		}
	}
	for _, line := range lines {
		p.Line(p.Dim(pad(label, entryWidth)) + line)
		label = ""
	}
}

// Links writes links, and below them the attachments without one, as tables;
// progs are the programs they run.
func (p *Printer) Links(links []*bpf.Link, attached []bpf.Attachment, progs []*bpf.Program) {
	if len(links) == 0 && len(attached) == 0 {
		p.Line("no BPF links, and no programs attached without one")
		return
	}
	known := byID(progs)
	if len(links) > 0 {
		rows := make([][]string, len(links))
		for i, l := range links {
			rows[i] = []string{fmt.Sprint(l.ID), l.Type, known.name(l.ProgID), known.how(l), targets(l.Targets), users(l.Holders, l.Pins)}
		}
		p.table([]column{
			{title: "ID", right: true}, {title: "TYPE"}, {title: "PROG", most: 28}, {title: "ATTACHED AS"}, {title: "TO", most: 48}, {title: "HELD BY"},
		}, rows)
	}
	if len(attached) == 0 {
		return
	}
	p.Heading("WITHOUT A LINK")
	rows := make([][]string, len(attached))
	for i, a := range attached {
		place := ""
		if a.Prio != 0 || a.Handle != 0 {
			place = fmt.Sprintf("prio %d handle %s chain %d", a.Prio, a.Handle, a.Chain)
		}
		rows[i] = []string{a.Kind, known.name(a.ProgID), a.Attach, a.Target.String(), place}
	}
	p.table([]column{{title: "KIND"}, {title: "PROG", most: 28}, {title: "ATTACHED AS"}, {title: "TO", most: 40}, {title: "WHERE"}}, rows)
}

type programsByID map[int]*bpf.Program

func byID(progs []*bpf.Program) programsByID {
	out := make(programsByID, len(progs))
	for _, g := range progs {
		out[g.ID] = g
	}
	return out
}

// name returns a program's id and name.
func (b programsByID) name(id int) string {
	if id == 0 {
		return ""
	}
	if g := b[id]; g != nil {
		return fmt.Sprintf("%d %s", id, g.Name)
	}
	return fmt.Sprint(id)
}

// how says how a link's program is attached. An extension's link has the type
// of attachment 0, which is another's name.
func (b programsByID) how(l *bpf.Link) string {
	if g := b[l.ProgID]; g != nil && g.Type == "ext" {
		return "freplace"
	}
	return l.Attach
}

// targets names what a link acts on: the first few.
func targets(ts []bpf.Target) string {
	const most = 2
	var out []string
	for i, t := range ts {
		if i == most {
			out = append(out, fmt.Sprintf("and %d more", len(ts)-most))
			break
		}
		out = append(out, t.String())
	}
	return strings.Join(out, ", ")
}

// linkLine names a link in a line.
func linkLine(l *bpf.Link) string {
	return strings.TrimSpace(fmt.Sprintf("%d %s %s → %s", l.ID, l.Type, l.Attach, targets(l.Targets)))
}

// Link writes one link with all that is known of it.
func (p *Printer) Link(l *bpf.Link, progs []*bpf.Program) {
	p.Line(p.Label(fmt.Sprintf("link %d", l.ID)) + "  " + strings.TrimSpace(l.Type+" "+byID(progs).how(l)))
	if l.ProgID != 0 {
		p.field("runs", progNames([]int{l.ProgID}, progs))
	}
	for _, t := range l.Targets {
		text := t.String()
		if t.Addr != 0 && t.Name != "" {
			text += "  " + t.Addr.String()
		}
		if t.Cookie != 0 {
			text += fmt.Sprintf("  cookie %#x", t.Cookie)
		}
		p.field("on", text)
	}
	if len(l.Targets) == 0 {
		p.field("on", "nothing any more: what it was attached to is gone, or not known")
	}
	if l.Cookie != 0 {
		p.field("cookie", fmt.Sprintf("%#x", l.Cookie))
	}
	if l.Missed != 0 {
		p.field("missed", fmt.Sprintf("%d runs", l.Missed))
	}
	if l.Addr != 0 {
		p.field("bpf_link", l.Addr.String())
	}
	p.field("held by", users(l.Holders, nil))
	p.field("pinned", strings.Join(l.Pins, " "))
}
