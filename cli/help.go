package cli

import (
	"fmt"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"
)

// usageTemplate is what stands below a command's description. Options of every
// command are written before the command, as in the examples.
const usageTemplate = `Usage:
  {{if .HasParent}}ksleuth [-t DUMP]... {{.Use}}{{if .HasAvailableLocalFlags}} [OPTIONS]{{end}}{{else}}{{.UseLine}}{{end}}{{if .Aliases}}

Alias:
 {{range .Aliases}} {{.}}{{end}}{{end}}{{if .HasExample}}

Examples:
{{.Example}}{{end}}{{if .HasAvailableSubCommands}}{{$cmds := .Commands}}{{range $group := .Groups}}

{{.Title}}{{range $cmds}}{{if and (eq .GroupID $group.ID) .IsAvailableCommand}}
  {{rpad .Name .NamePadding}} {{.Short}}{{end}}{{end}}{{end}}{{end}}{{if .HasAvailableLocalFlags}}

Options:
{{.LocalFlags.FlagUsages | trimTrailingWhitespaces}}{{end}}{{if .HasAvailableInheritedFlags}}

Options of every command:
{{.InheritedFlags.FlagUsages | trimTrailingWhitespaces}}{{end}}{{if .HasAvailableSubCommands}}

Exit status:
  0  fine                                     3  not permitted
  1  the thing examined is at fault           4  this kernel lacks what is needed
  2  the command line is wrong                5  not all could be read: a damaged or
                                              incomplete dump

"ksleuth help COMMAND" says more about a command.{{end}}
`

// dress gives the root command its help, version and answers to mistakes.
func dress(root *cobra.Command) {
	root.SuggestionsMinimumDistance = 2
	root.Version = version()
	root.SetVersionTemplate("ksleuth {{.Version}}\n")
	root.SetUsageTemplate(usageTemplate)
	root.Args = func(c *cobra.Command, args []string) error {
		if len(args) == 0 {
			return nil
		}
		return unknownCommand(c, args[0])
	}
	root.RunE = func(c *cobra.Command, _ []string) error { return c.Help() }
	root.SetHelpCommand(&cobra.Command{
		Use:    "help [COMMAND]",
		Short:  "Help about a command",
		Hidden: true, // the last line of the help tells
		RunE: func(c *cobra.Command, args []string) error {
			found, rest, err := root.Find(args)
			if err != nil {
				return usage(err)
			}
			if len(rest) > 0 {
				return unknownCommand(found, rest[0])
			}
			found.InitDefaultHelpFlag()
			return found.Help()
		},
	})
	for _, c := range root.Commands() {
		c.DisableFlagsInUseLine = true
	}
	root.DisableFlagsInUseLine = true
}

func unknownCommand(c *cobra.Command, name string) error {
	hint := "ksleuth help lists them"
	if near := c.SuggestionsFor(name); len(near) > 0 {
		hint = "did you mean " + strings.Join(near, ", ") + "?"
	}
	return usage(fmt.Errorf("there is no command %q; %s", name, hint))
}

// version says what this program was built from, as far as the build knew.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "(unknown)"
	}
	v := strings.Trim(info.Main.Version, "()")
	if v == "" {
		v = "devel"
	}
	return v + " (" + info.GoVersion + ")"
}
