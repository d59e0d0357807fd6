package main

import (
	"fmt"
	"os"
	"runtime"
	"strconv"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/rlimit"
)

// many makes N programs and N maps, says "ready" and stays. Program i uses map
// i; the types and sizes vary.
func many(args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("many needs a number")
	}
	n, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	if err := rlimit.RemoveMemlock(); err != nil {
		return err
	}
	types := []ebpf.MapType{ebpf.Hash, ebpf.Array, ebpf.PerCPUArray, ebpf.LRUHash}
	programs := []ebpf.ProgramType{ebpf.SocketFilter, ebpf.XDP, ebpf.SchedCLS, ebpf.Kprobe}
	var kept []any
	defer func() { runtime.KeepAlive(kept) }()
	for i := range n {
		m, err := ebpf.NewMap(&ebpf.MapSpec{Name: fmt.Sprintf("many_map_%d", i), Type: types[i%len(types)], KeySize: 4, ValueSize: 8, MaxEntries: uint32(1 + i%16)})
		if err != nil {
			return fmt.Errorf("map %d: %w", i, err)
		}
		p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
			Name: fmt.Sprintf("many_prog_%d", i), Type: programs[i%len(programs)], License: "GPL",
			Instructions: lookUp(m, i%64),
		})
		if err != nil {
			return fmt.Errorf("program %d: %w", i, err)
		}
		kept = append(kept, m, p)
	}
	if err := os.WriteFile(listPath, nil, 0o644); err != nil {
		return err
	}
	fmt.Println("ready")
	forever()
	return nil
}

// lookUp is a program that looks up key 0 in a map, with some filling.
func lookUp(m *ebpf.Map, filling int) asm.Instructions {
	insns := asm.Instructions{
		asm.StoreImm(asm.RFP, -4, 0, asm.Word),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, -4),
		asm.LoadMapPtr(asm.R1, m.FD()),
		asm.FnMapLookupElem.Call(),
	}
	for i := range filling {
		insns = append(insns, asm.Mov.Imm(asm.R3, int32(i)))
	}
	return append(insns, asm.Mov.Imm(asm.R0, 0), asm.Return())
}
