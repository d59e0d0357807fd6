package vm

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/go-quicktest/qt"
)

// bzImage makes the part of an image that is looked at.
func bzImage(version string) []byte {
	b := make([]byte, 0x400)
	copy(b[0x202:], "HdrS")
	binary.LittleEndian.PutUint16(b[0x20e:], 0x100)
	copy(b[0x300:], version)
	return b
}

func TestFindKernel(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("KSLEUTH_KERNELS", dir)
	qt.Assert(t, qt.IsNil(os.MkdirAll(filepath.Join(dir, "9.9-9.9.1", "modules"), 0o755)))
	image := filepath.Join(dir, "9.9-9.9.1", "vmlinuz")
	qt.Assert(t, qt.IsNil(os.WriteFile(image, bzImage("9.9.1-test (builder) #1\x00"), 0o644)))
	qt.Assert(t, qt.IsNil(os.Symlink("9.9-9.9.1", filepath.Join(dir, "9.9"))))

	k, err := FindKernel("9.9")
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.Equals(k, Kernel{Name: "9.9", Release: "9.9.1-test", Image: image, Modules: filepath.Join(dir, "9.9-9.9.1", "modules")}))

	k, err = FindKernel(image)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.Equals(k, Kernel{Name: image, Release: "9.9.1-test", Image: image}))

	_, err = FindKernel("8.8")
	var missing *KernelNotFoundError
	qt.Assert(t, qt.IsTrue(errors.As(err, &missing)))
	qt.Assert(t, qt.ErrorMatches(err, `no kernel "8.8" in .*: run scripts/kernels 8.8, or set KSLEUTH_KERNELS .*`))
}

func TestDamagedImages(t *testing.T) {
	short := bzImage("")
	binary.LittleEndian.PutUint16(short[0x20e:], 0xffff)
	for _, test := range []struct {
		image []byte
		want  string
	}{
		{nil, `.*: not a bzImage: no HdrS at offset 0x202`},
		{make([]byte, 0x20f), `.*: not a bzImage: .*`},
		{short, `.*: version string at offset 0x101ff, behind the setup code`},
	} {
		file := filepath.Join(t.TempDir(), "vmlinuz")
		qt.Assert(t, qt.IsNil(os.WriteFile(file, test.image, 0o644)))
		_, err := FindKernel(file)
		qt.Check(t, qt.ErrorMatches(err, test.want))
	}
}
