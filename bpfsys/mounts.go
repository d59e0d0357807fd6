//go:build linux

package bpfsys

import (
	"bufio"
	"context"
	"io"
	"os"
	"strconv"
	"strings"
)

// A mount is a line of /proc/PID/mountinfo.
type mount struct {
	dev   string // "0:31": of the superblock
	root  string // what of the file system is mounted
	point string // where, as seen from the process
	typ   string // bpf, cgroup2, nsfs
}

// maxMounts bounds a list of mounts; fs.mount-max is 100,000.
const maxMounts = 1 << 18

// mountsOf lists the mounts of some types that a process sees.
func mountsOf(pid string, types ...string) ([]mount, error) {
	f, err := os.Open("/proc/" + pid + "/mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return parseMounts(f, types)
}

// parseMounts reads lines as proc_pid_mountinfo(5) has them.
func parseMounts(r io.Reader, types []string) ([]mount, error) {
	var out []mount
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() && len(out) < maxMounts {
		head, tail, ok := strings.Cut(lines.Text(), " - ")
		f, rest := strings.Fields(head), strings.Fields(tail)
		if !ok || len(f) < 5 || len(rest) == 0 {
			continue
		}
		for _, t := range types {
			if rest[0] == t {
				out = append(out, mount{dev: f[2], root: unescape(f[3]), point: unescape(f[4]), typ: t})
			}
		}
	}
	return out, lines.Err()
}

// unescape undoes mangle_path of the kernel: "\040" is a blank.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if c, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(c))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// A place is a mount with the path that leads there from here.
type place struct {
	mount
	path string
}

// places lists the mounts of some types in this mount namespace and, where
// their processes can be looked into, in others. What is mounted in several
// places is there once for each place in this namespace; of another, only if
// it is nowhere in this.
func places(ctx context.Context, types ...string) ([]place, error) {
	own, err := mountsOf("self", types...)
	if err != nil {
		return nil, err
	}
	var out []place
	seen := make(map[string]bool) // superblock and root
	for _, m := range own {
		out = append(out, place{m, m.point})
		seen[m.dev+m.root] = true
	}
	pids, err := processes()
	if err != nil {
		return out, err
	}
	self, _ := os.Readlink("/proc/self/ns/mnt")
	namespaces := map[string]bool{self: true}
	for _, pid := range pids {
		if err := ctx.Err(); err != nil {
			return out, err
		}
		proc := strconv.Itoa(pid)
		ns, err := os.Readlink("/proc/" + proc + "/ns/mnt")
		if err != nil || namespaces[ns] {
			continue // gone, a kernel thread, or not to be looked into
		}
		mounts, err := mountsOf(proc, types...)
		if err != nil {
			continue
		}
		namespaces[ns] = true
		for _, m := range mounts {
			if !seen[m.dev+m.root] {
				seen[m.dev+m.root] = true
				out = append(out, place{m, "/proc/" + proc + "/root" + m.point})
			}
		}
	}
	return out, nil
}
