package jit

// verdict says whether the trampoline keeps the tail-call count.
func (t *tramp) verdict() {
	if t.opts.Kind == StructOps || t.leave < 0 {
		return
	}
	keeps := t.saved >= 0 && t.reload > t.clobber && t.reload < t.leave
	if !keeps && !t.wantsCount() {
		return
	}
	t.KeepsTailCalls = &keeps
	show := []int{t.clobber, t.leave}
	if keeps {
		show = []int{t.saved, t.reload, t.leave}
	}
	for _, i := range show {
		if i >= 0 {
			t.Evidence = append(t.Evidence, t.show(i))
		}
	}
}

// wantsCount says that the function is known to take a tail-call count: the
// options say so, or it is BPF code, which the options do not deny.
func (t *tramp) wantsCount() bool {
	if t.opts.TailCallReachable != nil {
		return *t.opts.TailCallReachable
	}
	if t.opts.Sym == nil || t.Original == 0 {
		return false
	}
	name, _, ok := t.opts.Sym(t.Original)
	if !ok {
		return false
	}
	_, ok = functionName(name)
	return ok
}
