// Package vm boots kernels in QEMU for a moment: to run a static program on
// one, to dump its memory, to patch it.
//
// A guest has a kernel image and an initramfs made on the spot, no disk and no
// network. Its process 1 is a static binary that calls [InitMain] first thing
// in main, by default the running program itself, so that neither a Go
// toolchain nor a root file system is needed where a guest is started:
//
//	func main() {
//		vm.InitMain()
//		...
//	}
//
//	kernel, err := vm.FindKernel("6.1")
//	guest, err := vm.Start(ctx, vm.Config{Kernel: kernel, Files: map[string]string{"/bin/prog": prog}})
//	defer guest.Close()
//	err = guest.Run(ctx, vm.Cmd{Path: "/bin/prog", Stdout: os.Stdout})
//
// Two serial lines connect guest and host: ttyS0 is the kernel's console, on
// ttyS1 the init takes requests and sends output in frames. Serial lines work
// on every kernel without modules, and go on after most of a kernel has died.
package vm

import "github.com/ksleuth/ksleuth/internal/guest/guestinit"

// InitMain becomes the init of a guest if the program runs as one, and then
// does not return. On a host it does nothing.
func InitMain() {
	if guestinit.Wanted() {
		guestinit.Main()
	}
}
