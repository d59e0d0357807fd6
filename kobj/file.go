package kobj

import (
	"errors"
	"fmt"
	"strings"

	"github.com/ksleuth/ksleuth/kernel"
	"github.com/ksleuth/ksleuth/mem"
)

// A File is an open file of a process.
type File struct {
	FD   int      `json:"fd"`
	Addr mem.Addr `json:"addr,omitzero"` // of the struct file; 0 where memory cannot be read
	Type string   `json:"type"`          // REG DIR CHR BLK FIFO SOCK LNK, or the kind of an anonymous inode
	Path string   `json:"path"`
	Ops  string   `json:"ops"` // name of its file_operations: tells what the private data is
	// Private is file.private_data: for BPF files the program, map, link or
	// BTF itself.
	Private mem.Addr `json:"private"`
}

const maxFDs = 1 << 20 // sysctl_nr_open

// fileTypes are the S_IFMT bits of an inode's mode.
var fileTypes = map[uint64]string{
	0o140000: "SOCK", 0o120000: "LNK", 0o100000: "REG", 0o060000: "BLK",
	0o040000: "DIR", 0o020000: "CHR", 0o010000: "FIFO",
}

// Files returns the open files of a task. With an error comes what was read.
func Files(k *kernel.Kernel, t Task) ([]File, error) {
	task := k.Object("task_struct", uint64(t.Addr))
	if task.Ptr("files") == 0 && task.Err() == nil {
		return nil, nil // a kernel thread, or a task that exits
	}
	fdt := task.Deref("files").Deref("fdt")
	n, fds, open := fdt.Uint("max_fds"), fdt.Ptr("fd"), fdt.Ptr("open_fds")
	if err := errors.Join(task.Err(), fdt.Err()); err != nil {
		return nil, fmt.Errorf("files of pid %d: %w", t.PID, err)
	}
	if n > maxFDs {
		return nil, fmt.Errorf("files of pid %d: fdtable at 0x%x has %d entries: damaged", t.PID, fdt.Addr, n)
	}
	var out []File
	var errs kernel.Errors
	for word := uint64(0); word < n && !errs.TooMany(); word += 64 {
		bits, err := mem.U64(k.Mem(), open+word/8)
		if err != nil {
			errs.Add(fmt.Errorf("open_fds: %w", err))
			break
		}
		for i := range uint64(64) {
			if bits>>i&1 == 0 || word+i >= n {
				continue
			}
			fd := word + i
			addr, err := mem.U64(k.Mem(), fds+8*fd)
			if err != nil || addr == 0 { // reserved by an open(2) under way
				errs.Add(err)
				continue
			}
			f, err := file(k, int(fd), addr)
			if err != nil {
				errs.Add(fmt.Errorf("fd %d: %w", fd, err))
			}
			out = append(out, f)
		}
	}
	if err := errs.Err(); err != nil {
		return out, fmt.Errorf("files of pid %d: %w", t.PID, err)
	}
	return out, nil
}

func file(k *kernel.Kernel, fd int, addr uint64) (File, error) {
	o := k.Object("file", addr)
	f := File{FD: fd, Addr: mem.Addr(addr), Private: mem.Addr(o.Ptr("private_data"))}
	if s, off, ok := k.Symbolize(o.Ptr("f_op")); ok && off == 0 {
		f.Ops = s.Name
	}
	inode := o.Deref("f_inode")
	f.Type = fileTypes[inode.Uint("i_mode")&0o170000]
	var err error
	if f.Path, err = k.Path(o.Field("f_path")); err != nil {
		return f, err
	}
	// Files without a place in any tree: their dentry's name tells the kind,
	// as d_path shows it.
	switch magic := inode.Deref("i_sb").Uint("s_magic"); magic {
	case 0x09041934: // ANON_INODE_FS_MAGIC
		f.Type = "ANON"
		f.Path = "anon_inode:" + strings.TrimPrefix(f.Path, "/")
	case 0x50494446: // PID_FS_MAGIC, where pidfds are since cb12fd8e0dab (6.9)
		f.Type = "ANON"
		f.Path = "anon_inode:[pidfd]"
	case 0x534F434B: // SOCKFS_MAGIC
		f.Path = fmt.Sprintf("socket:[%d]", inode.Uint("i_ino"))
	case 0x50495045: // PIPEFS_MAGIC
		f.Path = fmt.Sprintf("pipe:[%d]", inode.Uint("i_ino"))
	}
	return f, errors.Join(o.Err(), inode.Err())
}
