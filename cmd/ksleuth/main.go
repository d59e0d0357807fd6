// Command ksleuth answers the questions people have when BPF programs or the
// Linux kernel misbehave, on the running kernel or on its crash dump.
package main

import (
	"context"
	"os"
	"os/signal"

	"github.com/ksleuth/ksleuth/cli"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends even what does not heed the first
	code := cli.Run(ctx, os.Args[1:], cli.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr})
	stop()
	os.Exit(code)
}
