package live

import (
	"encoding/binary"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/ksleuth/ksleuth/mem"
	"github.com/ksleuth/ksleuth/vmcore"
)

// maxNote bounds the note of VMCOREINFO, which has a page or two.
const maxNote = 1 << 20

// exportedInfo reads the VMCOREINFO note whose physical address and size
// /sys/kernel/vmcoreinfo gives (kernel/ksysfs.c).
func exportedInfo(phys mem.Reader) (vmcore.VMCoreInfo, bool) {
	addr, size, err := exportedNote()
	if err != nil {
		return vmcore.VMCoreInfo{}, false
	}
	note, err := mem.Bytes(phys, addr, size)
	if err != nil {
		return vmcore.VMCoreInfo{}, false
	}
	text, ok := noteText(note)
	return vmcore.ParseVMCoreInfo(text), ok
}

func exportedNote() (addr uint64, size int, err error) {
	const path = "/sys/kernel/vmcoreinfo"
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, 0, err
	}
	f := strings.Fields(string(b))
	if len(f) != 2 {
		return 0, 0, fmt.Errorf("%s: %q", path, b)
	}
	addr, err1 := strconv.ParseUint(strings.TrimPrefix(f[0], "0x"), 16, 64)
	n, err2 := strconv.ParseUint(f[1], 16, 64)
	if err1 != nil || err2 != nil || addr == 0 || n == 0 || n > maxNote {
		return 0, 0, fmt.Errorf("%s: %q", path, b)
	}
	return addr, int(n), nil
}

// The head of the note: three words, then the name, padded to words.
const (
	noteHeader = 12
	noteName   = "VMCOREINFO\x00\x00"
)

// noteText returns the descriptor of the ELF note VMCOREINFO.
func noteText(note []byte) (string, bool) {
	const at = noteHeader + len(noteName)
	if len(note) < at || string(note[noteHeader:at]) != noteName {
		return "", false
	}
	n := binary.LittleEndian.Uint32(note[4:])
	desc := note[at:]
	return string(desc[:min(uint64(n), uint64(len(desc)))]), true
}

// lockdownConfidentiality is the mode of kernel lockdown that forbids to read
// the kernel's memory (kernel_lockdown(7)).
const lockdownConfidentiality = "confidentiality"

// lockdown returns the mode of kernel lockdown; "" if it cannot be told. Where
// securityfs is not mounted the kernel's command line may tell.
func lockdown() string {
	if b, err := os.ReadFile("/sys/kernel/security/lockdown"); err == nil {
		return lockdownMode(string(b))
	}
	b, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return ""
	}
	for option := range strings.FieldsSeq(string(b)) {
		if mode, ok := strings.CutPrefix(option, "lockdown="); ok {
			return mode
		}
	}
	return ""
}

// lockdownMode takes the mode in force out of "none [integrity] confidentiality".
func lockdownMode(s string) string {
	_, s, _ = strings.Cut(s, "[")
	mode, _, _ := strings.Cut(s, "]")
	return mode
}

// A capability is a bit of CapEff (linux/capability.h).
type capability struct {
	bit  uint
	name string
}

var (
	capSysRawIO = capability{17, "CAP_SYS_RAWIO"}
	capSysAdmin = capability{21, "CAP_SYS_ADMIN"}
	capPerfmon  = capability{38, "CAP_PERFMON"}
	capBPF      = capability{39, "CAP_BPF"}
)

// missingCaps names those of caps that this process does not have.
func missingCaps(caps ...capability) string {
	have, err := effectiveCaps()
	if err != nil {
		return ""
	}
	var out []string
	for _, c := range caps {
		if have>>c.bit&1 == 0 {
			out = append(out, c.name)
		}
	}
	return strings.Join(out, " and ")
}

func effectiveCaps() (uint64, error) {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, err
	}
	_, rest, ok := strings.Cut(string(b), "\nCapEff:")
	if !ok {
		return 0, fmt.Errorf("/proc/self/status has no CapEff")
	}
	line, _, _ := strings.Cut(rest, "\n")
	return strconv.ParseUint(strings.TrimSpace(line), 16, 64)
}
