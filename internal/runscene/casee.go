package main

import (
	"bytes"
	_ "embed"
	"fmt"
	"os"
	"strconv"

	"github.com/cilium/ebpf"
)

//go:embed casee.bpf.o
var caseEObject []byte

// programsFile is where caseE records what it has loaded; other commands leave
// it empty.
const programsFile = "/programs.txt"

// caseE loads the program VARIANT_main of the object alone, records it, and
// runs it over an empty packet when told, once or so often.
func caseE(args []string) error {
	if len(args) < 1 || len(args) > 2 {
		return fmt.Errorf("casee needs a variant, and may have a number")
	}
	repeat := 1
	if len(args) == 2 {
		n, err := strconv.Atoi(args[1])
		if err != nil {
			return err
		}
		repeat = n
	}
	spec, err := ebpf.LoadCollectionSpecFromReader(bytes.NewReader(caseEObject))
	if err != nil {
		return fmt.Errorf("reading the object: %w", err)
	}
	name := args[0] + "_main"
	chosen := spec.Programs[name]
	if chosen == nil {
		return fmt.Errorf("the object has no program %s", name)
	}
	spec.Programs = map[string]*ebpf.ProgramSpec{name: chosen}
	coll, err := ebpf.NewCollection(spec)
	if err != nil {
		return fmt.Errorf("loading %s: %+v", name, err)
	}
	defer coll.Close()
	prog := coll.Programs[name]
	if err := record(prog); err != nil {
		return err
	}
	awaitTrigger()
	verdict, err := prog.Run(&ebpf.RunOptions{Data: make([]byte, 64), Repeat: uint32(repeat)})
	if err != nil {
		return fmt.Errorf("running %s: %w", name, err)
	}
	return say("%s returned %d", name, int32(verdict))
}

// record writes the program's "id type name tag". Its functions are in
// /proc/kallsyms.
func record(prog *ebpf.Program) error {
	info, err := prog.Info()
	if err != nil {
		return err
	}
	id, _ := info.ID()
	return os.WriteFile(programsFile, fmt.Appendf(nil, "%d %v %s %s\n", id, info.Type, info.Name, info.Tag), 0o644)
}
