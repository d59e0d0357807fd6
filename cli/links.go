package cli

import (
	"github.com/spf13/cobra"

	"github.com/ksleuth/ksleuth/bpf"
	"github.com/ksleuth/ksleuth/render"
)

func (a *app) linksCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "links [ID|TYPE...]",
		Short:   "BPF links, and programs attached without one",
		GroupID: groupInspect,
		Long: `Links lists what ties BPF programs to what they act on: links of every type with
their target, and below them the programs that are attached without a link: to
queueing disciplines, by netlink to devices, to cgroups, network namespaces,
sockets and perf events. With arguments it tells all about some of the links,
which are named by id, type, type of attachment or pinned path.`,
		Example: `  ksleuth links
  ksleuth links 3
  ksleuth links kprobe_multi
  ksleuth -t vmcore -o json links`,
		RunE: func(_ *cobra.Command, args []string) error {
			src, err := a.bpfSource()
			if err != nil {
				return err
			}
			links, err := src.Links(a.ctx)
			if links, err = partly(a, links, err); err != nil {
				return err
			}
			if len(args) > 0 {
				if links, err = pickAll(bpf.PickLinks, links, args); err != nil {
					return err
				}
			}
			var attached []bpf.Attachment
			if len(args) == 0 {
				attached, err = src.Attachments(a.ctx)
				a.gap(err)
			}
			if a.output == "json" {
				if err := emitAll(a, "link", links); err != nil {
					return err
				}
				return emitAll(a, "attachment", attached)
			}
			src.Users = false
			progs, err := src.Programs(a.ctx)
			a.gap(err)
			if len(args) == 0 {
				a.printer().Links(links, attached, progs)
				return nil
			}
			for i, l := range links {
				a.detail(i, func(p *render.Printer) { p.Link(l, progs) })
			}
			return nil
		},
	}
}
