package main

import (
	"testing"
	"time"

	"github.com/go-quicktest/qt"
)

func TestMedian(t *testing.T) {
	got := median([]cost{{3 * time.Second, 10}, {time.Second, 30}, {2 * time.Second, 20}})
	qt.Check(t, qt.Equals(got, cost{2 * time.Second, 20}))
}

func TestMeasure(t *testing.T) {
	m, err := measure(t.Context(), 2, peer("true", "", "true"), peer("cat", "text", "cat"))
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.HasLen(m, 2))
	for _, c := range m {
		qt.Check(t, qt.IsTrue(c.wall > 0 && c.rss > 0))
	}
	_, err = measure(t.Context(), 1, peer("failing", "", "sh", "-c", "echo why >&2; exit 3"))
	qt.Check(t, qt.ErrorMatches(err, "failing: exit status 3: why\n"))
}
