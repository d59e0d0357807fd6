package cli

import (
	"fmt"

	"github.com/spf13/cobra"
)

// noArgs, atMost and exactly check the number of a command's arguments. Their
// errors name the command's synopsis, which cobra's do not.
func noArgs(c *cobra.Command, args []string) error { return atMost(0)(c, args) }

func atMost(n int) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) > n {
			return usage(fmt.Errorf("%s: unexpected argument %q (usage: %s)", c.Name(), args[n], c.UseLine()))
		}
		return nil
	}
}

func exactly(n int, what string) cobra.PositionalArgs { return between(n, n, what) }

func atLeast(n int, what string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) < n {
			return usage(fmt.Errorf("%s needs %s (usage: %s)", c.Name(), what, c.UseLine()))
		}
		return nil
	}
}

func between(least, most int, what string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if err := atLeast(least, what)(c, args); err != nil {
			return err
		}
		return atMost(most)(c, args)
	}
}
