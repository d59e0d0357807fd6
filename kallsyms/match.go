package kallsyms

// headLen is how many characters of a name a matcher looks at first.
const headLen = 4

// A matcher compares compressed names with a few wanted ones. It looks at the
// first characters before expanding a name, which rules nearly all out.
type matcher struct {
	t     *Table
	names []string
	index map[string]int
	heads [1 << 12]bool // by the hash of the first characters
	buf   []byte
}

func newMatcher(t *Table, names ...string) *matcher {
	m := &matcher{t: t, names: names, index: make(map[string]int, len(names))}
	for i, n := range names {
		if n == "" {
			continue
		}
		m.index[n] = i
		var head [headLen]byte
		copy(head[:], n)
		m.heads[hash(head)] = true
	}
	return m
}

// hash spreads the first characters of names over 12 bits.
func hash(h [headLen]byte) uint32 {
	v := uint32(h[0]) | uint32(h[1])<<8 | uint32(h[2])<<16 | uint32(h[3])<<24
	return v * 2654435761 >> 20 // the golden ratio, as in Knuth's multiplicative hash
}

// match returns the index of the wanted name that the compressed one is, or -1.
func (m *matcher) match(name []byte) int {
	var head [1 + headLen]byte // the type letter goes first
	n := 0
	for _, b := range name {
		n += copy(head[n:], m.t.tokens.get(b))
		if n == len(head) {
			break
		}
	}
	if !m.heads[hash([headLen]byte(head[1:]))] {
		return -1
	}
	m.buf = m.t.expand(m.buf[:0], name)
	if len(m.buf) < 2 {
		return -1
	}
	if i, ok := m.index[string(m.buf[1:])]; ok {
		return i
	}
	return -1
}
