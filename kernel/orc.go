package kernel

import (
	"errors"

	"github.com/ksleuth/ksleuth/orc"
)

// loadORC finds the kernel's own ORC tables.
func (k *Kernel) loadORC() (*orc.Table, error) {
	loc, ok := orc.LocationsFrom(func(name string) (uint64, bool) {
		s, ok := k.coreLookup(name)
		return s.Addr, ok
	})
	if !ok {
		return nil, errors.New("the kernel has no ORC tables (CONFIG_UNWINDER_ORC): its stacks cannot be followed")
	}
	return orc.Load(k.mem, loc)
}

// ORC returns how to unwind code at pc, a text address of the kernel or of a
// module. It reports false where the tables do not cover pc.
func (k *Kernel) ORC(pc uint64) (orc.Entry, bool, error) {
	t, err := k.orc()
	if err != nil {
		return orc.Entry{}, false, err
	}
	m, ok := k.ModuleAt(pc)
	if !ok {
		return t.Find(pc)
	}
	mt, err := k.moduleORC(t, m)
	if err != nil {
		return orc.Entry{}, false, err
	}
	return mt.Find(pc)
}

func (k *Kernel) moduleORC(core *orc.Table, m *Module) (*orc.Table, error) {
	if t, ok := k.modORC.Load(m); ok {
		return t.(*orc.Table), nil
	}
	arch := k.Object("module", m.Addr).Field("arch")
	n, ip, unwind := arch.Uint("num_orcs"), arch.Ptr("orc_unwind_ip"), arch.Ptr("orc_unwind")
	if err := arch.Err(); err != nil {
		return nil, err
	}
	t, err := core.Module(uint32(n), ip, unwind)
	if err != nil {
		return nil, err
	}
	k.modORC.Store(m, t)
	return t, nil
}
