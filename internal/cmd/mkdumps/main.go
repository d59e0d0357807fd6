// Mkdumps makes the standard dumps of the tests, or those named, and prints
// where they are.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"

	"github.com/ksleuth/ksleuth/internal/dumptest"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	names := os.Args[1:]
	if len(names) == 0 {
		names = dumptest.Scenes()
	}
	failed := false
	for _, name := range names {
		dir, err := dumptest.Make(ctx, name)
		if err != nil {
			fmt.Fprintln(os.Stderr, "mkdumps:", err)
			failed = true
			continue
		}
		fmt.Println(name, dir)
	}
	if failed {
		os.Exit(1)
	}
}
