package main

import (
	"os"
	"testing"
)

func TestZZ(t *testing.T) {
	if err := objects(t.Context(), os.Stdout, "/tmp/scenes/in/ksleuth", 5); err != nil {
		t.Fatal(err)
	}
}
