package bpfview

import "github.com/ksleuth/ksleuth/bpf"

// targets completes what attached programs of the running kernel were loaded
// for: once a program is attached to another one, its link alone knows that.
func (s Source) targets(progs []*bpf.Program) error {
	open := make(map[int]*bpf.Target)
	for _, p := range progs {
		if t := p.Target; t != nil && t.Kind == bpf.TargetProgram && (t.ProgID == 0 || t.Addr == 0) {
			open[p.ID] = t
		}
	}
	if len(open) == 0 {
		return nil
	}
	ls, err := objects(s, nil, links)
	for _, l := range ls {
		t := open[l.ProgID]
		if t == nil || l.Type != "tracing" || len(l.Targets) != 1 {
			continue
		}
		if of := l.Targets[0]; of.Kind == bpf.TargetProgram && (t.ProgID == 0 || t.ProgID == of.ProgID) {
			t.ProgID, t.Addr = of.ProgID, of.Addr
		}
	}
	return err
}
