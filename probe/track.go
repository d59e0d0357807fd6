package probe

import (
	"fmt"

	"github.com/cilium/ebpf/btf"
)

// A follower is a function of the kernel that makes a packet of another, or
// gives its memory back.
type follower struct {
	name     string
	template string
	attach   uint32
	args     uint64
}

// followers are what a packet is followed by. A kernel may lack some.
var followers = [...]follower{
	{"skb_clone", "track_clone", attachFexit, 2},
	{"skb_copy", "track_clone", attachFexit, 2},
	{"__pskb_copy_fclone", "track_clone", attachFexit, 4},
	{"skb_copy_expand", "track_clone", attachFexit, 4},
	{"kfree_skbmem", "track_free", attachFentry, 1},
}

// trackJobs attach the programs that follow packets.
func (l *loader) trackJobs() []func() []PointError {
	kernel, err := btf.LoadKernelSpec()
	if err != nil {
		return []func() []PointError{func() []PointError { return []PointError{{-1, err}} }}
	}
	var jobs []func() []PointError
	for _, f := range followers {
		var fn *btf.Func
		if err := kernel.TypeByName(f.name, &fn); err != nil {
			continue
		}
		id, err := kernel.TypeID(fn)
		if err != nil {
			continue
		}
		jobs = append(jobs, func() []PointError {
			if err := l.follow(&f, uint32(id)); err != nil {
				return []PointError{{-1, fmt.Errorf("follow packets through %s: %w", f.name, err)}}
			}
			return nil
		})
	}
	return jobs
}

func (l *loader) follow(f *follower, id uint32) error {
	v := values{kNargs: f.args}
	code, err := l.s.templates.link(f.template, nil, &v)
	if err != nil {
		return err
	}
	p := program{name: "ksleuth_follow", typ: typeTracing, attach: f.attach, btfID: id, code: code}
	prog, err := p.load(nil)
	if err != nil {
		return err
	}
	l.mu.Lock()
	l.s.progs = append(l.s.progs, loaded{nil, prog})
	l.mu.Unlock()
	link, err := openRawTP(prog)
	if err != nil {
		return err
	}
	l.keep(link)
	return nil
}
