package ctype

import "golang.org/x/sys/unix"

// maxErrno is MAX_ERRNO: pointers and numbers from -4095 to -1 are errors
// (include/linux/err.h).
const maxErrno = 4095

// kernelErrors are the error numbers that never reach user space
// (include/linux/errno.h).
var kernelErrors = map[int64]string{
	512: "ERESTARTSYS", 513: "ERESTARTNOINTR", 514: "ERESTARTNOHAND", 515: "ENOIOCTLCMD", 516: "ERESTART_RESTARTBLOCK",
	517: "EPROBE_DEFER", 518: "EOPENSTALE", 519: "ENOPARAM", 521: "EBADHANDLE", 522: "ENOTSYNC", 523: "EBADCOOKIE",
	524: "ENOTSUPP", 525: "ETOOSMALL", 526: "ESERVERFAULT", 527: "EBADTYPE", 528: "EJUKEBOX", 529: "EIOCBQUEUED",
	530: "ERECALLCONFLICT", 531: "ENOGRACE",
}

// ErrorName returns "-EINVAL" for -22, "" for what is no error number.
func ErrorName(v int64) string {
	if v >= 0 || v < -maxErrno {
		return ""
	}
	name := kernelErrors[-v]
	if name == "" {
		name = unix.ErrnoName(unix.Errno(-v))
	}
	if name == "" {
		return ""
	}
	return "-" + name
}
