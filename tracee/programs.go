package tracee

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/ksleuth/ksleuth/bpf"
	"github.com/ksleuth/ksleuth/ctype"
)

// byProgram resolves prog:WHICH and prog:WHICH/FUNC. A pinned path has slashes
// of its own: the whole is tried first.
func (r *resolver) byProgram(which string) error {
	progs, err := r.progs()
	found, none := bpf.PickPrograms(progs, which)
	if none == nil {
		return r.addPrograms(found)
	}
	i := strings.LastIndexByte(which, '/')
	if i <= 0 || i == len(which)-1 {
		return r.notPicked(none, err)
	}
	found, none = bpf.PickPrograms(progs, which[:i])
	if none != nil {
		return r.notPicked(none, err)
	}
	if r.addSubprograms(found, which[i+1:]) {
		return nil
	}
	var names []string
	for _, p := range found {
		for _, s := range p.Subprogs {
			names = append(names, s.Name)
		}
	}
	return r.notFound(nil, ctype.Suggest(which[i+1:], names), "%s has no function %s", programs(found), which[i+1:])
}

// programs names programs in a sentence.
func programs(progs []*bpf.Program) string {
	if len(progs) == 1 {
		return fmt.Sprintf("BPF program %d %s", progs[0].ID, progs[0].Name)
	}
	return fmt.Sprintf("none of the %d BPF programs", len(progs))
}

// notPicked turns what bpf.Pick* say into an error of this package. If objects
// could not be read at all, that alone is the reason.
func (r *resolver) notPicked(err, reading error) error {
	var none *bpf.SelectError
	if !errors.As(err, &none) {
		return err
	}
	return r.notFound(reading, nil, "%s", none.Text)
}

// addPrograms adds the main functions of programs or, if so asked, all that
// belongs to them.
func (r *resolver) addPrograms(progs []*bpf.Program) error {
	for _, p := range progs {
		r.add(r.function(p, 0))
		if r.o.Subprogs {
			if err := r.expand(p); err != nil {
				return err
			}
		}
	}
	return nil
}

// addSubprograms adds the functions of programs whose names fit, and reports
// whether there are any.
func (r *resolver) addSubprograms(progs []*bpf.Program, name string) bool {
	found := false
	for _, p := range progs {
		for i := range p.Subprogs {
			f := r.function(p, i)
			if bpf.Fits(name, f.Name) {
				r.add(f)
				found = true
			}
		}
	}
	return found
}

// byType resolves type:TYPE.
func (r *resolver) byType(typ string) error {
	progs, err := r.progs()
	found := filter(progs, func(p *bpf.Program) bool { return bpf.Fits(typ, p.Type) })
	if len(found) > 0 {
		return r.addPrograms(found)
	}
	types := make([]string, 0, len(progs))
	for _, p := range progs {
		types = append(types, p.Type)
	}
	slices.Sort(types)
	return r.notFound(err, ctype.Suggest(typ, slices.Compact(types)), "no BPF program of type %s is loaded", typ)
}

// byProcess resolves pid:N.
func (r *resolver) byProcess(which string) error {
	pid, err := strconv.Atoi(which)
	if err != nil {
		return &PatternError{r.pattern, "behind pid: stands the number of a process"}
	}
	progs, err := r.progs()
	found := filter(progs, func(p *bpf.Program) bool {
		return slices.ContainsFunc(p.Holders, func(h bpf.Holder) bool { return h.PID == pid })
	})
	if len(found) == 0 {
		return r.notFound(err, nil, "process %d holds no BPF program, nor a link of one", pid)
	}
	return r.addPrograms(found)
}

// byLink resolves link:WHICH.
func (r *resolver) byLink(which string) error {
	links, err := r.links()
	found, none := bpf.PickLinks(links, which)
	if none != nil {
		return r.notPicked(none, err)
	}
	return r.addLinks(found)
}

func (r *resolver) addLinks(links []*bpf.Link) error {
	var ids []int
	for _, l := range links {
		if l.ProgID != 0 {
			ids = append(ids, l.ProgID)
		}
	}
	if len(ids) == 0 {
		return r.notFound(nil, nil, "link %d has no program", links[0].ID)
	}
	return r.addIDs(ids)
}

// byMap resolves map:WHICH.
func (r *resolver) byMap(which string) error {
	maps, err := r.maps()
	found, none := bpf.PickMaps(maps, which)
	if none != nil {
		return r.notPicked(none, err)
	}
	return r.addMaps(found)
}

func (r *resolver) addMaps(maps []*bpf.Map) error {
	arrays, err := r.arrays()
	var ids []int
	for _, m := range maps {
		for _, in := range arrays.progs[m.ID] {
			ids = append(ids, in.prog)
		}
	}
	if len(ids) > 0 {
		return r.addIDs(ids)
	}
	if m := maps[0]; m.Type != progArray {
		return r.notFound(nil, nil, "map %d %s is no program array but of type %s", m.ID, m.Name, m.Type)
	}
	return r.notFound(err, nil, "there is no program in map %d %s", maps[0].ID, maps[0].Name)
}

// byPin resolves pin:PATH.
func (r *resolver) byPin(path string) error {
	progs, perr := r.progs()
	if found := filter(progs, func(p *bpf.Program) bool { return bpf.Fits(path, p.Pins...) }); len(found) > 0 {
		return r.addPrograms(found)
	}
	links, lerr := r.links()
	if found := filter(links, func(l *bpf.Link) bool { return bpf.Fits(path, l.Pins...) }); len(found) > 0 {
		return r.addLinks(found)
	}
	maps, merr := r.maps()
	if found := filter(maps, func(m *bpf.Map) bool { return bpf.Fits(path, m.Pins...) }); len(found) > 0 {
		return r.addMaps(found)
	}
	var pins []string
	for _, p := range progs {
		pins = append(pins, p.Pins...)
	}
	for _, l := range links {
		pins = append(pins, l.Pins...)
	}
	return r.notFound(errors.Join(perr, lerr, merr), ctype.Suggest(path, pins), "no BPF program is pinned at %s, nor a link or an array of programs", path)
}

// addIDs adds programs by id; those that have gone since are left out.
func (r *resolver) addIDs(ids []int) error {
	progs, err := r.progs()
	var found []*bpf.Program
	for _, id := range ids {
		if i := slices.IndexFunc(progs, func(p *bpf.Program) bool { return p.ID == id }); i >= 0 && !slices.Contains(found, progs[i]) {
			found = append(found, progs[i])
		}
	}
	if len(found) == 0 {
		return r.notFound(err, nil, "the programs that %s stands for are not there any more", r.pattern)
	}
	return r.addPrograms(found)
}
