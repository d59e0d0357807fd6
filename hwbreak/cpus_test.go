package hwbreak

import (
	"testing"

	"github.com/go-quicktest/qt"
)

func TestParseCPUs(t *testing.T) {
	for _, c := range []struct {
		list string
		want []int
	}{
		{"0", []int{0}},
		{"0-2,5", []int{0, 1, 2, 5}},
		{"", nil},
		{"3-1", nil},
		{"0-65536", nil},
		{"0-60000,0-60000", nil},
		{"-1", nil},
	} {
		got, err := parseCPUs(c.list)
		qt.Check(t, qt.Equals(err == nil, c.want != nil), qt.Commentf("%q", c.list))
		qt.Check(t, qt.DeepEquals(got, c.want), qt.Commentf("%q", c.list))
	}
}
