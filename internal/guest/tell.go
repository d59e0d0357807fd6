package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// ps prints "pid ppid state threads comm" of all processes but itself, by pid.
func ps([]string) error {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return err
	}
	type process struct {
		pid  int
		line string
	}
	var all []process
	for _, d := range dirs {
		pid, err := strconv.Atoi(filepath.Base(d))
		if err != nil || pid == os.Getpid() {
			continue
		}
		b, err := os.ReadFile(filepath.Join(d, "stat"))
		if err != nil {
			continue // it has ended
		}
		// proc(5): the name is in parentheses and may hold any character.
		stat := string(b)
		open, end := strings.IndexByte(stat, '('), strings.LastIndexByte(stat, ')')
		fields := strings.Fields(stat[end+1:])
		const state, ppid, threads = 0, 1, 17
		all = append(all, process{pid, fmt.Sprintf("%d %s %s %s %s", pid, fields[ppid], fields[state], fields[threads], stat[open+1:end])})
	}
	slices.SortFunc(all, func(a, b process) int { return cmp.Compare(a.pid, b.pid) })
	for _, p := range all {
		fmt.Println(p.line)
	}
	return nil
}

// dmesg prints the kernel's log as syslog(2) has it, level and time included.
func dmesg([]string) error {
	const readAll, size = 3, 10
	n, err := unix.Klogctl(size, nil)
	if err != nil {
		return err
	}
	buf := make([]byte, n)
	if n, err = unix.Klogctl(readAll, buf); err != nil {
		return err
	}
	_, err = os.Stdout.Write(buf[:n])
	return err
}

// listBPF prints what bpf(2) tells of all BPF objects:
//
//	prog ID TYPE NAME TAG maps=ID,...
//	map ID TYPE NAME key=BYTES value=BYTES max=ENTRIES
//	link ID TYPE prog=ID
func listBPF([]string) error {
	if err := listPrograms(); err != nil {
		return err
	}
	if err := listMaps(); err != nil {
		return err
	}
	return listLinks()
}

func listPrograms() error {
	var id ebpf.ProgramID
	for {
		var err error
		if id, err = ebpf.ProgramGetNextID(id); err != nil {
			return ignoreEnd(err)
		}
		p, err := ebpf.NewProgramFromID(id)
		if err != nil {
			return err
		}
		info, err := p.Info()
		p.Close()
		if err != nil {
			return err
		}
		maps, _ := info.MapIDs()
		fmt.Printf("prog %d %v %s %s maps=%s\n", id, info.Type, info.Name, info.Tag, strings.Trim(strings.ReplaceAll(fmt.Sprint(maps), " ", ","), "[]"))
	}
}

func listMaps() error {
	var id ebpf.MapID
	for {
		var err error
		if id, err = ebpf.MapGetNextID(id); err != nil {
			return ignoreEnd(err)
		}
		m, err := ebpf.NewMapFromID(id)
		if err != nil {
			return err
		}
		info, err := m.Info()
		m.Close()
		if err != nil {
			return err
		}
		fmt.Printf("map %d %v %s key=%d value=%d max=%d\n", id, info.Type, info.Name, info.KeySize, info.ValueSize, info.MaxEntries)
	}
}

func listLinks() error {
	var it link.Iterator
	defer it.Close()
	for it.Next() {
		info, err := it.Link.Info()
		if err != nil {
			return err
		}
		fmt.Printf("link %d %d prog=%d\n", info.ID, info.Type, info.Program)
	}
	return it.Err()
}

// ignoreEnd turns the end of a list into success.
func ignoreEnd(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}
