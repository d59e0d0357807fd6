package rerun

import (
	"fmt"
	"github.com/ksleuth/ksleuth/internal/example"
	"os"
	"testing"
)

func TestScratchWhy(t *testing.T) {
	if os.Getenv("SCRATCH") == "" {
		t.Skip()
	}
	k := example.KernelOf(t, os.Getenv("SCRATCH"))
	fmt.Println(why(t, k, os.Getenv("CALL")))
}

func TestScratchTrace(t *testing.T) {
	if os.Getenv("SCRATCH") == "" {
		t.Skip()
	}
	k := example.KernelOf(t, os.Getenv("SCRATCH"))
	fmt.Println(traced(t, k, os.Getenv("CALL"), os.Getenv("KIND"), 100))
}
