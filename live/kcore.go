package live

import (
	"errors"
	"io/fs"
	"os"
	"syscall"

	"github.com/ksleuth/ksleuth/vmcore"
)

const kcorePath = "/proc/kcore"

// kcore is memory by way of /proc/kcore, whose program headers have the
// physical address of every piece of RAM. Addresses are translated by us: by
// its virtual addresses the file gives zeros for what is not mapped.
type kcore struct {
	*vmcore.Core
	note vmcore.VMCoreInfo
	ok   bool
}

func openKCore() (physical, error) {
	if err := checkKCore(); err != nil {
		return nil, err
	}
	core, err := vmcore.Open(kcorePath)
	if err != nil {
		return nil, refuseKCore(err)
	}
	k := &kcore{Core: core}
	if k.note, k.ok = core.NotedVMCoreInfo(); !k.ok { // before 23c85094fe18 (4.19)
		k.note, k.ok = exportedInfo(core)
	}
	if !k.ok { // without CONFIG_VMCORE_INFO
		k.note, k.ok = k.infoBySymbols()
	}
	return k, nil
}

// infoBySymbols says of the kernel what its symbols and the program headers
// tell: one is of the image, those before it of the direct map.
func (k *kcore) infoBySymbols() (vmcore.VMCoreInfo, bool) {
	syms, err := readKallsyms("/proc/kallsyms")
	if err != nil || syms[topTable] == 0 || k.Virtual() == nil {
		return vmcore.VMCoreInfo{}, false
	}
	var textPhys, base uint64
	for _, s := range k.Segments() {
		switch text := syms["_text"]; {
		case !s.HasPhys:
		case s.Virt >= kernelMap && text >= s.Virt && text-s.Virt < s.MemSize:
			textPhys = s.Phys + text - s.Virt
		case s.Virt < kernelMap:
			base = s.Virt - s.Phys
		}
	}
	if textPhys == 0 || base == 0 {
		return vmcore.VMCoreInfo{}, false
	}
	return synthesize(syms, textPhys, base, k.Virtual()), true
}

// checkKCore finds out what stands at the file's place: containers put an
// empty file or /dev/null over it.
func checkKCore() error {
	st, err := os.Stat(kcorePath)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return &Refusal{Class: ErrUnsupported, Err: errors.New("there is none"), Enable: "a kernel with CONFIG_PROC_KCORE has it"}
	case err != nil:
		return refuseKCore(err)
	case !st.Mode().IsRegular() || st.Size() == 0:
		return &Refusal{Class: ErrDenied, Err: errors.New("hidden behind another file, as container runtimes do"),
			Enable: "run ksleuth on the host, or in a privileged container"}
	}
	return nil
}

// refuseKCore says what is missing to open the file.
func refuseKCore(err error) error {
	var file *fs.PathError
	if errors.As(err, &file) {
		err = file.Err // Refusal names the file
	}
	r := &Refusal{Class: ErrUnsupported, Err: err}
	switch {
	case errors.Is(err, syscall.EPERM) && lockdown() == lockdownConfidentiality:
		r.Class, r.Err = ErrDenied, errors.New("kernel lockdown is in the mode confidentiality")
		r.Enable = "boot without lockdown=confidentiality"
	case errors.Is(err, fs.ErrPermission):
		r.Class, r.Enable = ErrDenied, "it takes root with CAP_SYS_RAWIO"
		if missing := missingCaps(capSysRawIO); missing != "" {
			r.Enable += ", and this process lacks " + missing
		} else {
			r.Enable = "kernel lockdown (confidentiality), a security module or a user namespace forbids it"
		}
	}
	return r
}

func (k *kcore) info() (vmcore.VMCoreInfo, bool) { return k.note, k.ok }
func (k *kcore) ranges() ([]vmcore.Range, error) { return k.StoredRanges() }
func (k *kcore) describe() string                { return kcorePath }
