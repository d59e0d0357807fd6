package ctype

import (
	"sync"
	"testing"
)

// TestConcurrent is for go test -race.
func TestConcurrent(t *testing.T) {
	m := tasks(t)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			task := m.task(initTask, "init_task")
			_, _ = FormatValue(task, FormatOptions{})
			_ = FormatType(task.Type())
			_, _ = m.ts.Struct("nowhere")
			_, _ = m.ts.ParseType("struct mm **")
		})
	}
	wg.Wait()
}
