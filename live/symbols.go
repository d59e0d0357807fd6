package live

import (
	"bufio"
	"bytes"
	"errors"
	"os"
	"slices"
	"strconv"
)

// encMask is the mask of AMD's memory encryption (7744ccdbc16f, 4.14).
const encMask = "sme_me_mask"

// topTable is what x86-64 calls swapper_pg_dir
// (arch/x86/include/asm/pgtable_64.h).
const topTable = "init_top_pgt"

// neededSymbols are those that VMCOREINFO would give.
var neededSymbols = []string{
	"_text", "_stext", topTable, encMask, "init_uts_ns", "prb", "log_buf",
	"kallsyms_num_syms", "kallsyms_names", "kallsyms_token_table", "kallsyms_token_index",
	"kallsyms_offsets", "kallsyms_relative_base",
}

// readKallsyms finds the needed symbols in /proc/kallsyms.
func readKallsyms(path string) (map[string]uint64, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, &Refusal{Class: ErrUnsupported, Err: err, Enable: "it takes a kernel with CONFIG_KALLSYMS"}
	}
	defer f.Close()
	out := make(map[string]uint64, len(neededSymbols))
	hidden := false
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		line := lines.Bytes() // "address type name"; those of modules have a fourth field
		addr, rest, _ := bytes.Cut(line, []byte(" "))
		if len(rest) < 3 || bytes.IndexByte(rest, '\t') >= 0 || !slices.Contains(neededSymbols, string(rest[2:])) {
			continue
		}
		n, err := strconv.ParseUint(string(addr), 16, 64)
		hidden = hidden || err == nil && n == 0
		if n != 0 {
			out[string(rest[2:])] = n
		}
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	if hidden && len(out) == 0 {
		return nil, &Refusal{Class: ErrDenied, Err: errors.New("/proc/kallsyms hides addresses"),
			Enable: "it takes CAP_SYSLOG and sysctl kernel.kptr_restrict below 2"}
	}
	return out, nil
}
