package cli

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ksleuth/ksleuth/kernel"
	"github.com/ksleuth/ksleuth/kobj"
	"github.com/ksleuth/ksleuth/procfs"
)

func (a *app) logCommand() *cobra.Command {
	var raw, caller bool
	var level string
	c := &cobra.Command{
		Use:     "log",
		Short:   "The kernel's log",
		GroupID: groupInspect,
		Long: `Log prints the kernel's log buffer, as dmesg does. It needs little of a dump or a
running kernel: VMCOREINFO and the buffer itself, no types. Where the running
kernel's memory cannot be read, it is what /dev/kmsg or syslog(2) tell. Errors and
worse are red.`,
		Example: `  ksleuth -t vmcore log
  ksleuth -t vmcore log --level err      # errors and worse
  ksleuth -t vmcore log --caller         # which task or CPU wrote each line
  ksleuth -t vmcore log --raw            # with priorities, as dmesg --raw`,
		Args: noArgs,
		RunE: func(*cobra.Command, []string) error {
			most, ok := kobj.ParseLevel(level)
			if !ok {
				return usage(fmt.Errorf("--level %q: one of %s", level, strings.Join(kobj.Levels[:], ", ")))
			}
			log, callers, err := a.messages()
			if err != nil {
				return err
			}
			if caller && !callers {
				a.note("who wrote the messages is not told: it takes the kernel's memory or CONFIG_PRINTK_CALLER")
				caller = false
			}
			log = slices.DeleteFunc(log, func(r kobj.LogRecord) bool { return r.Level > most })
			switch {
			case a.output == "json":
				for i := range log {
					var data any = &log[i]
					if !callers {
						data = procLog{LogRecord: &log[i]}
					}
					if err := a.emitJSON("log", data); err != nil {
						return err
					}
				}
			case raw:
				var buf []byte
				for i := range log {
					buf = log[i].AppendSyslog(buf[:0])
					a.out.Write(buf) // an error sticks until the flush
				}
			default:
				a.printer().Log(log, caller)
			}
			return nil
		},
	}
	c.Flags().BoolVar(&raw, "raw", false, "print <priority> before each line and nothing else changed")
	c.Flags().BoolVar(&caller, "caller", false, "print the task (T) or CPU (C) that wrote each line")
	c.Flags().StringVar(&level, "level", "debug", "leave out what is less urgent than this `LEVEL`:\n"+strings.Join(kobj.Levels[:], ", "))
	return c
}

// messages returns the log, and whether its records say who wrote them. What
// could not be read of it is said.
func (a *app) messages() (log []kobj.LogRecord, callers bool, err error) {
	k, err := a.open()
	if a.withoutMemory("the log is told by /dev/kmsg or syslog(2)", err) {
		return procfs.Log()
	}
	if err != nil {
		return nil, false, err
	}
	log, gaps, err := readLog(k)
	for _, g := range gaps {
		a.gap(g.Err)
	}
	return log, true, err
}

// readLog reads the log, on a running kernel again if records were overwritten
// meanwhile.
func readLog(k *kernel.Kernel) (log []kobj.LogRecord, gaps []kobj.LogGap, err error) {
	var failed error
	read := func() error {
		log, gaps, failed = kobj.Log(k)
		if failed == nil && len(gaps) > 0 {
			return gaps[0].Err
		}
		return failed
	}
	_ = k.Retry(read) // what is left of it is in gaps and failed
	return log, gaps, failed
}
