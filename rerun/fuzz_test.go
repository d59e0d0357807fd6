package rerun

import (
	"context"
	"strings"
	"testing"

	"github.com/ksleuth/ksleuth/emulate"
	"github.com/ksleuth/ksleuth/internal/example"
)

// FuzzParse: no text makes finding a call panic or hang, nor running it.
func FuzzParse(f *testing.F) {
	for _, s := range []string{
		`strlen("a")`, `snprintf(buffer(64), 64, "%d", -1)`, "prog:9(buffer(64))", "prog:9/lookup(0, 0)", "find_vpid(1)",
		"((int (*)(int))&int_sqrt)(-1)", "strlen((char *)current->comm)", "memset(buffer(8), 1, 1 ? 3 : 4)", `strcmp('a', "b\")")`,
		"init_task.comm = \"x\"", "%rax = 5",
	} {
		f.Add(s)
	}
	s, err := New(example.Kernel(f), Options{Limits: emulate.Options{Steps: 2000}})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s.args = 0
		_ = s.Set(text)
		target, err := s.Parse(context.Background(), text)
		if err != nil {
			if strings.TrimSpace(err.Error()) == "" {
				t.Fatal("an error without words")
			}
			return
		}
		r, err := s.Run(context.Background(), target, nil)
		if err == nil {
			s.Emulation(target, r)
		}
	})
}
