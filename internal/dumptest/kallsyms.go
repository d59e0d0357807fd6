package dumptest

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
)

// Idle are the scenes of idle guests, one of each kernel.
var Idle = [...]string{"idle-5.10", "idle-6.1", "idle-6.12", "idle-7.2"}

// A Symbol is a line of /proc/kallsyms.
type Symbol struct {
	Addr uint64
	Type byte
	Name string
}

// Kallsyms returns the core kernel's part of a scene's /proc/kallsyms.
func Kallsyms(t testing.TB, scene string) []Symbol {
	t.Helper()
	out, err := readKallsyms(Get(t, scene+".kallsyms"))
	qt.Assert(t, qt.IsNil(err))
	return out
}

func readKallsyms(path string) ([]Symbol, error) {
	all, err := readAllKallsyms(path)
	return all[""], err
}

// readAllKallsyms reads the symbols by module; the core kernel's is "".
func readAllKallsyms(path string) (map[string][]Symbol, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	out := map[string][]Symbol{}
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		module := ""
		if len(fields) > 3 {
			module = strings.Trim(fields[3], "[]") // "bpf" of programs
		}
		addr, err := strconv.ParseUint(fields[0], 16, 64)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		out[module] = append(out[module], Symbol{addr, fields[1][0], fields[2]})
	}
	return out, lines.Err()
}
