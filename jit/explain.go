package jit

import (
	"slices"
	"strings"
)

// Explain returns notes on the instructions of the code at addr that belong to
// a known idiom, by their offset. No two notes cover the same instruction. The
// code must begin where that of the function or image begins: code that does
// not begin as its kind does gets no note at all.
func Explain(b []byte, addr uint64, o Options) []Note {
	c, whole := decode(b, addr, o)
	var notes []Note
	r := &reader{code: c, m: new(match), notes: &notes}
	switch o.Kind {
	case Trampoline, StructOps:
		c.trampoline(&notes)
	case Dispatcher:
		if r.fit("cmp ${prog},%rdx; (je|jg) {to}") == 0 {
			return nil
		}
		r.run(dispatcherIdioms, nil)
	case Program, Subprogram, ExceptionCallback:
		p, n, ok := c.prologue(&notes)
		if !ok || !whole || !c.likeProgram(n) {
			return nil
		}
		r.i = n
		r.run(programIdioms, &p)
	}
	slices.SortStableFunc(notes, func(a, b Note) int { return a.Off - b.Off })
	return notes
}

// likeProgram says that the code from instruction n on can be a program's,
// which a compiler's with the same first instructions hardly is: it drops its
// frame with leave in one place and never uses the stack but through rbp, push
// and pop.
func (c *code) likeProgram(n int) bool {
	leaves := 0
	for i := n; i < len(c.insts); i++ {
		text := c.text[i]
		switch {
		case text == "leave":
			if _, ok := c.seq(new(match), "leave; (ret|jmp {thunk})", i); !ok {
				return false
			}
			leaves++
		case strings.Contains(text, "%rsp") && text != "mov %rcx,(%rsp)" &&
			!c.insn(new(match), "(add|sub) ${n},%rsp", i):
			return false
		}
	}
	return leaves == 1
}

// An idiom is a sequence of instructions that belong together, in steps that
// have a note each. It is recognised as a whole.
type idiom struct {
	steps []step
	// when says whether a match is one; nil: it is.
	when func(r *reader, p *Prologue) bool
}

// A step is a part of an idiom: a pattern and the note on it, in which {x} is
// what x stands for, {name:x} the symbol and {reg:%x} the BPF register of it,
// {dec:x} a decimal number, {off:x} an offset into the code. An empty note is none; say, where not nil, words it.
type step struct {
	code, note string
	say        func(r *reader, p *Prologue) string
}

// run walks through the code and notes the idioms it knows.
func (r *reader) run(table []idiom, p *Prologue) {
	for r.i < len(r.insts) {
		if !r.one(table, p) {
			r.i++
		}
	}
}

// one notes the first idiom of the table that begins at the instruction, and
// steps past it.
func (r *reader) one(table []idiom, p *Prologue) bool {
	for i := range table {
		if r.idiom(&table[i], p) {
			return true
		}
	}
	return false
}

func (r *reader) idiom(id *idiom, p *Prologue) bool {
	const maxSteps = 12
	var lens [maxSteps]int
	r.m.caps = r.m.caps[:0]
	i := r.i
	for s := range id.steps[:min(len(id.steps), maxSteps)] {
		n, ok := r.seq(r.m, id.steps[s].code, i)
		if !ok {
			return false
		}
		lens[s] = n
		i += n
	}
	if i == r.i || !r.m.bind("end", hex(r.at(i))) {
		return false
	}
	if id.when != nil && !id.when(r, p) {
		return false
	}
	for s := range id.steps {
		text := r.expand(id.steps[s].note)
		if say := id.steps[s].say; say != nil {
			text = say(r, p)
		}
		if lens[s] > 0 {
			r.note(lens[s], text)
			r.i += lens[s]
		}
	}
	return true
}

// expand fills in the names of a note.
func (r *reader) expand(note string) string {
	var b strings.Builder
	for {
		before, rest, ok := strings.Cut(note, "{")
		b.WriteString(before)
		if !ok {
			return b.String()
		}
		name, after, _ := strings.Cut(rest, "}")
		b.WriteString(r.value(name))
		note = after
	}
}

// value returns what a name in a note is replaced by.
func (r *reader) value(name string) string {
	how, name, ok := strings.Cut(name, ":")
	if !ok {
		how, name = "", how
	}
	text, _ := r.m.get(name)
	switch how {
	case "name":
		return r.sym(number64(text))
	case "reg":
		return bpfReg(text)
	case "off":
		return "+" + hex(number64(text)-r.addr)
	case "dec":
		return decimal(number(text))
	}
	return text
}

// fit matches instructions, with nothing captured before, and returns how many
// they are.
func (r *reader) fit(pattern string) int {
	r.m.caps = r.m.caps[:0]
	n, ok := r.seq(r.m, pattern, r.i)
	if !ok {
		return 0
	}
	return n
}

// step steps past n instructions with a note.
func (r *reader) step(n int, text string) {
	r.note(n, text)
	r.i += n
}
