package cpulist_test

import (
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/ksleuth/ksleuth/cpulist"
)

func TestParse(t *testing.T) {
	for _, c := range []struct {
		list string
		want []int
	}{
		{"0", []int{0}},
		{"0-3", []int{0, 1, 2, 3}},
		{"0-2,5", []int{0, 1, 2, 5}},
		{"0-1,4,6-7", []int{0, 1, 4, 6, 7}},
		{"", nil},
		{"x", nil},
		{"3-1", nil},
		{"-1", nil},
		{"0-65536", nil},
		{"0-99999999", nil},
		{"0-60000,0-60000", nil},
	} {
		got, err := cpulist.Parse(c.list)
		qt.Check(t, qt.DeepEquals(got, c.want), qt.Commentf("%q", c.list))
		if c.want != nil {
			qt.Check(t, qt.IsNil(err), qt.Commentf("%q", c.list))
		} else {
			qt.Check(t, qt.ErrorMatches(err, `".*" is no list of CPUs`))
		}
	}
}
