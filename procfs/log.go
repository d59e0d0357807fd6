//go:build linux

package procfs

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ksleuth/ksleuth/kobj"
)

// kmsg gives a record a read.
const kmsg = "/dev/kmsg"

// Log returns the messages of the kernel's log, oldest first, and whether they
// say who wrote them: the kernel prints callers only with CONFIG_PRINTK_CALLER.
// Times are in microseconds. They are read from /dev/kmsg, or, where that cannot
// be read, by syslog(2), which has no devices and makes a record of each line.
func Log() (log []kobj.LogRecord, callers bool, err error) {
	log, callers, err = readKmsg()
	if err == nil {
		return log, callers, nil
	}
	text, errSyslog := readSyslog()
	if errSyslog == nil {
		log, callers = parseSyslog(text)
		return log, callers, nil
	}
	// The capability passes kernel.dmesg_restrict.
	const need = "CAP_SYSLOG (or the sysctl kernel.dmesg_restrict=0)"
	if errors.Is(errSyslog, fs.ErrPermission) {
		return nil, false, needs("reading the kernel log by "+kmsg+" and syslog(2)", need, errSyslog)
	}
	return nil, false, fmt.Errorf("reading the kernel log: %s: %w; syslog(2): %w", kmsg, err, errSyslog)
}

func readKmsg() (log []kobj.LogRecord, callers bool, err error) {
	fd, err := unix.Open(kmsg, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, false, err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, false, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFCHR || st.Rdev != unix.Mkdev(1, 11) { // Documentation/admin-guide/devices.txt
		return nil, false, errors.New("something else is in its place")
	}
	// A record has at most CONSOLE_EXT_LOG_MAX, 8192, or since 6.3
	// PRINTK_MESSAGE_MAX, 2048 bytes.
	buf := make([]byte, 16<<10)
	for {
		n, err := unix.Read(fd, buf)
		switch {
		case errors.Is(err, unix.EAGAIN):
			return log, callers, nil // no more
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.EPIPE): // the latter: overwritten, go on with the oldest
			continue
		case err != nil:
			return log, callers, err
		case n <= 0:
			return log, callers, nil
		}
		rec, caller, err := parseKmsg(buf[:n])
		if err != nil {
			return log, callers, err
		}
		callers = callers || caller
		log = append(log, rec)
	}
}

// parseKmsg reads a record "PRIO,SEQ,USEC,FLAGS[,caller=T1];TEXT", behind which
// come lines " KEY=VALUE" (Documentation/ABI/testing/dev-kmsg). More fields may
// stand before the semicolon.
func parseKmsg(b []byte) (rec kobj.LogRecord, caller bool, err error) {
	head, body, ok := strings.Cut(string(b), ";")
	f := strings.Split(head, ",")
	if !ok || len(f) < 4 {
		return rec, false, fmt.Errorf("no record of the log: %.80q", b)
	}
	prio, err1 := strconv.ParseUint(f[0], 10, 32)
	seq, err2 := strconv.ParseUint(f[1], 10, 64)
	usec, err3 := strconv.ParseInt(f[2], 10, 64)
	if err := errors.Join(err1, err2, err3); err != nil {
		return rec, false, fmt.Errorf("record of the log: %w", err)
	}
	rec = kobj.LogRecord{Seq: seq, Time: time.Duration(usec) * time.Microsecond, Level: int(prio & 7), Facility: int(prio >> 3)}
	for _, field := range f[4:] {
		if id, ok := strings.CutPrefix(field, "caller="); ok {
			caller = setCaller(&rec, id)
		}
	}
	text, rest, _ := strings.Cut(body, "\n")
	rec.Text = unescape(text)
	var subsystem, device string
	for line := range strings.Lines(rest) {
		key, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		switch key {
		case " SUBSYSTEM":
			subsystem = unescape(value)
		case " DEVICE":
			device = unescape(value)
		}
	}
	if subsystem != "" || device != "" {
		rec.Device = subsystem + "/" + device
	}
	return rec, caller, nil
}

// setCaller reads "T1", a task, or "C0", a CPU.
func setCaller(rec *kobj.LogRecord, id string) bool {
	if id == "" || id[0] != 'T' && id[0] != 'C' {
		return false
	}
	n, err := strconv.ParseUint(id[1:], 10, 31)
	if err != nil {
		return false
	}
	rec.Caller, rec.CallerIsCPU = uint32(n), id[0] == 'C'
	return true
}

// unescape puts bytes in that are written \xHH: those below 32 and from 127 on,
// and the backslash.
func unescape(s string) string {
	if !strings.Contains(s, `\x`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if strings.HasPrefix(s[i:], `\x`) && len(s) >= i+4 {
			if c, err := strconv.ParseUint(s[i+2:i+4], 16, 8); err == nil {
				b.WriteByte(byte(c))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

func readSyslog() ([]byte, error) {
	size, err := unix.Klogctl(unix.SYSLOG_ACTION_SIZE_BUFFER, nil)
	if err != nil {
		return nil, err
	}
	// Text takes more room than in the buffer: priorities and times are added.
	buf := make([]byte, min(max(size, 1<<16)*4, 256<<20))
	n, err := unix.Klogctl(unix.SYSLOG_ACTION_READ_ALL, buf)
	if err != nil {
		return nil, err
	}
	return buf[:n], nil
}

// parseSyslog reads lines "<PRIO>[SECONDS.MICROSECONDS][CALLER] TEXT"; time and
// caller need not be there. Lines are numbered: syslog(2) tells no numbers.
func parseSyslog(text []byte) (log []kobj.LogRecord, callers bool) {
	for line := range bytes.Lines(text) {
		s := strings.TrimSuffix(string(line), "\n")
		rec := kobj.LogRecord{Seq: uint64(len(log))}
		if prio, rest, ok := cutNumber(s, "<", ">"); ok {
			rec.Level, rec.Facility, s = int(prio&7), int(prio>>3), rest
		}
		if at, rest, ok := cutBetween(s, "[", "]"); ok {
			sec, frac, _ := strings.Cut(strings.TrimSpace(at), ".")
			n, err1 := strconv.ParseInt(sec, 10, 33)
			usec, err2 := strconv.ParseInt(frac, 10, 32)
			if err1 == nil && err2 == nil && len(frac) == 6 {
				rec.Time, s = time.Duration(n)*time.Second+time.Duration(usec)*time.Microsecond, rest
			}
		}
		if id, rest, ok := cutBetween(s, "[", "]"); ok && setCaller(&rec, strings.ReplaceAll(id, " ", "")) {
			callers, s = true, rest
		}
		rec.Text = strings.TrimPrefix(s, " ")
		log = append(log, rec)
	}
	return log, callers
}

// cutBetween splits s, if it starts with open, at the next end.
func cutBetween(s, open, end string) (inside, rest string, ok bool) {
	if s, ok = strings.CutPrefix(s, open); !ok {
		return "", "", false
	}
	return strings.Cut(s, end)
}

func cutNumber(s, open, end string) (n uint64, rest string, ok bool) {
	inside, rest, ok := cutBetween(s, open, end)
	if !ok {
		return 0, s, false
	}
	n, err := strconv.ParseUint(inside, 10, 32)
	return n, rest, err == nil
}
