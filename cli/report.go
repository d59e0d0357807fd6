package cli

import (
	"errors"

	"github.com/spf13/cobra"

	"github.com/ksleuth/ksleuth/render"
	"github.com/ksleuth/ksleuth/report"
)

func (a *app) reportCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "report",
		Short:   "What crashed and why",
		GroupID: groupInvestigate,
		Long: `Report says what crashed and why: the code at fault, its exact stack with BPF
programs named, the decoded exception, and what is wrong with the registers.
Everything is read from the dump. The exit status is 1 if the kernel panicked or
its log holds an oops.`,
		Example: `  ksleuth -t vmcore report
  ksleuth -t vmcore -o json report | jq .data.fingerprint`,
		Args: noArgs,
		RunE: func(*cobra.Command, []string) error {
			if len(a.dumps) == 0 && a.core == nil {
				return usage(errors.New("report explains a crash dump: name one with -t FILE (of the running kernel, log and bt tell)"))
			}
			k, err := a.open()
			if err != nil {
				return err
			}
			r := report.Build(a.ctx, k, a.core)
			a.fault = r.Task != nil || r.Panic != "" || r.Headline != ""
			a.gaps = len(r.Unread) > 0
			return a.emit("report", r, func(p *render.Printer) { p.Report(r) })
		},
	}
}
