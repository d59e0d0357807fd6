//go:build !linux

package vmcore

import "os"

// onProc reports whether f is a file of procfs, which only Linux has.
func onProc(*os.File) bool { return false }
