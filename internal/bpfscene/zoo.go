package main

import (
	_ "embed"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/rlimit"

	"github.com/ksleuth/ksleuth/internal/guest/rtnl"
)

// listPath is where a scene says what it made and what it left out.
const listPath = "/objects.txt"

var (
	//go:embed zoo.bpf.o
	zooObject []byte
	//go:embed idioms.bpf.o
	idiomsObject []byte
	//go:embed tcp.bpf.o
	tcpObject []byte
)

// A zoo is all objects that were made, by name. They live as long as the
// program.
type zoo struct {
	progs   map[string]*ebpf.Program
	maps    map[string]*ebpf.Map
	links   map[string]link.Link
	kept    []any // sockets, files: what else must not be closed
	made    []string
	leftOut []string
	cgroup  *os.File
	dummy   *net.Interface
}

// errAbsent says that what something needs was itself left out.
var errAbsent = errors.New("something it needs was left out")

// showZoo makes all, writes the list, says "ready" and stays.
func showZoo([]string) error {
	if err := rlimit.RemoveMemlock(); err != nil {
		return err
	}
	z := &zoo{progs: map[string]*ebpf.Program{}, maps: map[string]*ebpf.Map{}, links: map[string]link.Link{}}
	// Finalizers close what nothing refers to any more.
	defer runtime.KeepAlive(z)
	for _, part := range []func(*zoo) error{
		(*zoo).makeHabitat,
		(*zoo).loadObjects,
		(*zoo).makeMaps,
		(*zoo).makePrograms,
		(*zoo).fillMaps,
		(*zoo).makeLinks,
		(*zoo).attachWithoutLinks,
		(*zoo).makeIdioms,
		(*zoo).makeTrampolines,
		(*zoo).runSome,
		(*zoo).pin,
		(*zoo).share,
	} {
		if err := part(z); err != nil {
			return err
		}
	}
	slices.Sort(z.made)
	slices.Sort(z.leftOut)
	list := strings.Join(z.made, "\n") + "\n" + strings.Join(z.leftOut, "\n") + "\n"
	if err := os.WriteFile(listPath, []byte(list), 0o644); err != nil {
		return err
	}
	fmt.Println("ready")
	forever()
	return nil
}

// try makes one thing. A kernel that cannot is no reason to stop.
func (z *zoo) try(what string, make func() error) {
	if err := make(); err != nil {
		// The verifier's words may be many lines.
		first, _, _ := strings.Cut(err.Error(), "\n")
		z.leftOut = append(z.leftOut, "left out: "+what+": "+first)
		return
	}
	z.made = append(z.made, "made: "+what)
}

// prog returns a program that was loaded, or errAbsent.
func (z *zoo) prog(name string) (*ebpf.Program, error) {
	if p := z.progs[name]; p != nil {
		return p, nil
	}
	return nil, fmt.Errorf("program %s: %w", name, errAbsent)
}

// keepLink keeps a new link.
func (z *zoo) keepLink(name string, l link.Link, err error) error {
	if err == nil {
		z.links[name] = l
	}
	return err
}

// makeHabitat makes what objects are attached to: devices and a cgroup in
// which nobody lives.
func (z *zoo) makeHabitat() error {
	// Devices that come up would send packets of their own.
	if err := os.WriteFile("/proc/sys/net/ipv6/conf/default/disable_ipv6", []byte("1"), 0); err != nil {
		return err
	}
	z.try("device zoo0 (dummy)", func() error { return rtnl.AddLink("zoo0", "dummy", nil) })
	z.try("devices zoov0, zoov1 (veth)", func() error { return rtnl.AddPair("zoov0", "zoov1", "veth") })
	z.try("devices zook0, zook1 (netkit)", func() error { return rtnl.AddPair("zook0", "zook1", "netkit") })
	for _, name := range []string{"zoo0", "zoov0", "zoov1", "zook0", "zook1"} {
		if _, err := rtnl.Index(name); err == nil {
			z.try("device "+name+" is up", func() error { return rtnl.Raise(name) })
		}
	}
	var err error
	if z.dummy, err = net.InterfaceByName("zoo0"); err != nil {
		return err
	}
	for _, dir := range []string{"/sys/fs/cgroup/zoo", "/sys/fs/cgroup/zoo/cage"} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
	}
	z.cgroup, err = os.Open("/sys/fs/cgroup/zoo")
	return err
}

// loadObjects loads what was compiled from C.
func (z *zoo) loadObjects() error {
	return z.loadObject("zoo", zooObject)
}
