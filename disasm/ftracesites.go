package disasm

import (
	"fmt"
	"sort"

	"github.com/ksleuth/ksleuth/kernel"
	"github.com/ksleuth/ksleuth/mem"
)

// A recordPage is a block of ftrace's records, in the order of addresses.
type recordPage struct {
	addr, n     uint64
	size, ip    uint64 // of a record, and where its address is
	first, last uint64 // addresses of the sites
}

const (
	maxRecordPages = 1 << 16
	maxRecords     = 1 << 20 // of a block
)

// ftracePages reads which functions the blocks of records are of.
func (d *Disassembler) ftracePages() ([]recordPage, error) {
	start, ok := d.symbols()["ftrace_pages_start"]
	size := d.k.Sizeof("dyn_ftrace")
	if !ok || size == 0 {
		return nil, nil // CONFIG_DYNAMIC_FTRACE is off
	}
	ip, err := d.k.Offset("dyn_ftrace", "ip")
	if err != nil {
		return nil, err
	}
	at, err := mem.U64(d.k.Mem(), start.Addr)
	if err != nil {
		return nil, err
	}
	var out []recordPage
	for at != 0 {
		o := d.k.Object("ftrace_page", at)
		p := recordPage{addr: o.Ptr("records"), n: uint64(uint32(o.Uint("index"))), size: size, ip: ip}
		next := o.Ptr("next")
		if err := o.Err(); err != nil {
			return out, err
		}
		if p.n > maxRecords || len(out) == maxRecordPages {
			return out, fmt.Errorf("ftrace_page at %#x: damaged", at)
		}
		if at = next; p.n == 0 {
			continue
		}
		if p.first, err = p.record(d.k, 0); err == nil {
			p.last, err = p.record(d.k, p.n-1)
		}
		if err != nil {
			return out, err
		}
		out = append(out, p)
	}
	return out, nil
}

// record returns the address of the i-th record's site.
func (p recordPage) record(k *kernel.Kernel, i uint64) (uint64, error) {
	return mem.U64(k.Mem(), p.addr+i*p.size+p.ip)
}

// ftraceSites adds the functions that ftrace can hook.
func (d *Disassembler) ftraceSites(start, end uint64, out map[uint64]site, fail func(string, error)) {
	pages, err := d.records()
	fail("no notes on ftrace", err)
	for _, p := range pages {
		if p.first >= end || p.last < start {
			continue
		}
		var err error
		i := sort.Search(int(p.n), func(i int) bool {
			ip, e := p.record(d.k, uint64(i))
			if e != nil {
				err = e
			}
			return ip >= start
		})
		for ; i < int(p.n) && err == nil; i++ {
			var ip uint64
			if ip, err = p.record(d.k, uint64(i)); err != nil || ip >= end {
				break
			}
			out[ip] = ftraceSite{ip}
		}
		fail("no notes on ftrace", err)
	}
}
