package main

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"
)

// pinDir is where some objects are pinned.
const pinDir = "/sys/fs/bpf/zoo"

// runSome runs three programs, some of it while the kernel counts runs.
func (z *zoo) runSome() error {
	z.try("runs that are counted", func() error {
		stats, err := ebpf.EnableStats(unix.BPF_STATS_RUN_TIME)
		if err != nil {
			return err
		}
		defer stats.Close()
		for name, times := range map[string]int{"zoo_xdp": 5, "zoo_tc": 3, "tc": 2} {
			for range times {
				if _, err := z.progs[name].Run(&ebpf.RunOptions{Data: make([]byte, 100)}); err != nil {
					return fmt.Errorf("running %s: %w", name, err)
				}
			}
		}
		return nil
	})
	return nil
}

// pin pins a program, two maps and a link, and a program twice.
func (z *zoo) pin() error {
	if err := os.MkdirAll(pinDir+"/deep", 0o700); err != nil {
		return err
	}
	z.try("pinned program", func() error { return z.progs["zoo_xdp"].Pin(pinDir + "/prog") })
	z.try("program pinned twice", func() error {
		again, err := z.progs["zoo_xdp"].Clone()
		if err != nil {
			return err
		}
		z.kept = append(z.kept, again)
		return again.Pin(pinDir + "/deep/prog_again")
	})
	z.try("pinned map", func() error { return z.maps["records"].Pin(pinDir + "/records") })
	z.try("pinned map of maps", func() error { return z.maps["outer_hash"].Pin(pinDir + "/deep/outer") })
	for _, name := range []string{"xdp generic", "cgroup bind4", "iter task", "tracing fentry"} {
		z.try("pinned link "+name, func() error {
			l := z.links[name]
			if l == nil {
				return errAbsent
			}
			return l.Pin(pinDir + "/link_" + strings.ReplaceAll(name, " ", "_"))
		})
	}
	return nil
}

// share starts a process that holds some of the objects too, and one without
// privileges that has a program of its own.
func (z *zoo) share() error {
	z.try("process holder, which holds two programs and two maps", func() error {
		var ids []string
		for _, name := range []string{"zoo_xdp", "zoo_tc"} {
			info, err := z.progs[name].Info()
			if err != nil {
				return err
			}
			id, _ := info.ID()
			ids = append(ids, "prog", strconv.Itoa(int(id)))
		}
		for _, name := range []string{"records", "counters"} {
			info, err := z.maps[name].Info()
			if err != nil {
				return err
			}
			id, _ := info.ID()
			ids = append(ids, "map", strconv.Itoa(int(id)))
		}
		return z.start(exec.Command("/proc/self/exe", append([]string{"hold"}, ids...)...))
	})
	z.try("process nobody, which loaded a program without privileges", func() error {
		const sysctl = "/proc/sys/kernel/unprivileged_bpf_disabled"
		was, err := os.ReadFile(sysctl)
		if err != nil {
			return err
		}
		if err := os.WriteFile(sysctl, []byte("0"), 0); err != nil {
			return err
		}
		defer func() { _ = os.WriteFile(sysctl, was, 0) }()
		c := exec.Command("/proc/self/exe", "load")
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 1000, Gid: 1000}}
		return z.start(c)
	})
	return nil
}

// start starts a process and waits until it says something.
func (z *zoo) start(c *exec.Cmd) error {
	out, err := c.StdoutPipe()
	if err != nil {
		return err
	}
	c.Stderr = os.Stderr
	if err := c.Start(); err != nil {
		return err
	}
	z.kept = append(z.kept, c)
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || line != "ready\n" {
		return fmt.Errorf("it said %q: %v", line, err)
	}
	return nil
}

// named gives the process a name.
func named(name string) error {
	return os.WriteFile(fmt.Sprintf("/proc/self/task/%d/comm", os.Getpid()), []byte(name), 0)
}

// hold opens objects by kind and id and keeps them.
func hold(args []string) error {
	if err := named("holder"); err != nil {
		return err
	}
	var kept []any
	defer func() { runtime.KeepAlive(kept) }()
	for i := 0; i+1 < len(args); i += 2 {
		id, err := strconv.Atoi(args[i+1])
		if err != nil {
			return err
		}
		var object any
		if args[i] == "prog" {
			object, err = ebpf.NewProgramFromID(ebpf.ProgramID(id))
		} else {
			object, err = ebpf.NewMapFromID(ebpf.MapID(id))
		}
		if err != nil {
			return err
		}
		kept = append(kept, object)
	}
	fmt.Println("ready")
	forever()
	return nil
}

// loadUnprivileged loads a program as whoever runs it, and stays.
func loadUnprivileged([]string) error {
	m, err := ebpf.NewMap(&ebpf.MapSpec{Name: "", Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 1})
	if err != nil {
		return err
	}
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.SocketFilter, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
	})
	if err != nil {
		return err
	}
	defer runtime.KeepAlive(m)
	defer runtime.KeepAlive(p)
	fmt.Println("ready")
	forever()
	return nil
}
