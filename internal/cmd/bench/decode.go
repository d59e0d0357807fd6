package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"

	"github.com/ksleuth/ksleuth/kernel"
	"github.com/ksleuth/ksleuth/mem"
	"github.com/ksleuth/ksleuth/vmcore"
	"github.com/ksleuth/ksleuth/x86"
)

// decoding measures the decoding and formatting of a whole kernel's text, as it
// was in memory, beside objdump's. Ours is this program, called with -decode.
func decoding(ctx context.Context, w io.Writer, _ string, runs int) error {
	base, err := scene(ctx, "idle-"+judged)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "text")
	start, err := saveText(ctx, base+".elf", file)
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	n, err := decodeFile(file, start)
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "the text of a running %s (%s, %d instructions)\n", judged, size(file), n)
	d := duel{
		ours: command{name: "decode and format", args: []string{self, "-decode", file, "-base", fmt.Sprintf("%#x", start)}},
		peer: command{name: "objdump", args: []string{"objdump", "-D", "-w", "-b", "binary", "-m", "i386:x86-64",
			fmt.Sprintf("--adjust-vma=%#x", start), file}, discard: true},
	}
	if exec.CommandContext(ctx, "objdump", "--version").Run() != nil {
		d.missing = "it is not installed"
	}
	return d.run(ctx, w, runs)
}

// saveText writes the kernel's text in a dump to a file and returns its address.
func saveText(ctx context.Context, dump, file string) (uint64, error) {
	core, err := vmcore.Open(dump)
	if err != nil {
		return 0, err
	}
	defer core.Close()
	k, err := kernel.FromSource(ctx, core)
	if err != nil {
		return 0, err
	}
	start, err := k.Addr("_stext")
	if err != nil {
		return 0, err
	}
	end, err := k.Addr("_etext")
	if err != nil {
		return 0, err
	}
	const most = 64 << 20
	if end <= start || end-start > most {
		return 0, fmt.Errorf("text from %#x to %#x", start, end)
	}
	text, err := mem.Bytes(k.Mem(), start, int(end-start))
	if err != nil {
		return 0, err
	}
	return start, os.WriteFile(file, text, 0o600)
}

// decodeFile decodes a file of code and formats every instruction, into one
// buffer.
func decodeFile(file string, base uint64) (instructions int, err error) {
	code, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	var in x86.Inst
	var buf []byte
	for len(code) > 0 {
		_ = in.Decode(code, base) // what cannot be decoded is (bad), of a length
		buf = in.AppendGNU(buf[:0], nil)
		n := min(max(in.Len, 1), len(code))
		code, base = code[n:], base+uint64(n)
		instructions++
	}
	return instructions, nil
}

// decodeOnly is the program that is measured.
func decodeOnly(file, base string) error {
	addr, err := strconv.ParseUint(base, 0, 64)
	if err == nil {
		_, err = decodeFile(file, addr)
	}
	return err
}
