package x86

import (
	"strconv"
	"strings"

	"golang.org/x/arch/x86/x86asm"
)

// regNames holds the names of the registers as GNU syntax writes them; without
// the percent sign they are Intel's.
var regNames = func() (t [256]string) {
	for r := x86asm.AL; r <= x86asm.TR7; r++ {
		t[r] = "%" + strings.ToLower(r.String())
	}
	for i, n := range []string{"spl", "bpl", "sil", "dil"} {
		t[x86asm.SPB+Reg(i)] = "%" + n
	}
	for i := range 8 {
		n := strconv.Itoa(8 + i)
		t[x86asm.R8L+Reg(i)] = "%r" + n + "d"
		t[x86asm.F0+Reg(i)] = "%st(" + strconv.Itoa(i) + ")"
		t[x86asm.M0+Reg(i)] = "%mm" + strconv.Itoa(i)
	}
	for i := range 32 {
		n := strconv.Itoa(i)
		t[x86asm.X0+Reg(i)] = "%xmm" + n
		t[x86asm.Y0+Reg(i)] = "%ymm" + n
		t[x86asm.Z0+Reg(i)] = "%zmm" + n
	}
	for i := range 16 {
		t[x86asm.DR0+Reg(i)] = "%db" + strconv.Itoa(i)
	}
	return t
}()

// cmpPredicates are the comparisons of cmpps and vcmpps (SDM vol. 2, table 3-1);
// the legacy encoding has the first eight.
var cmpPredicates = [32]string{
	"eq", "lt", "le", "unord", "neq", "nlt", "nle", "ord",
	"eq_uq", "nge", "ngt", "false", "neq_oq", "ge", "gt", "true",
	"eq_os", "lt_oq", "le_oq", "unord_s", "neq_us", "nlt_uq", "nle_uq", "ord_s",
	"eq_us", "nge_uq", "ngt_uq", "false_os", "neq_os", "ge_oq", "gt_oq", "true_us",
}

// intPredicates are the comparisons of vpcmpd and its kin; 3 and 7 have no name.
var intPredicates = [8]string{"eq", "lt", "le", "", "neq", "nlt", "nle", ""}

// clmulNames tell which halves pclmulqdq multiplies, by its immediate.
var clmulNames = map[int64]string{0: "lqlq", 1: "hqlq", 0x10: "lqhq", 0x11: "hqhq"}

// sizeSuffix is the GNU suffix of an operand size in bytes.
func sizeSuffix(n uint16) byte {
	switch n {
	case 1:
		return 'b'
	case 2:
		return 'w'
	case 4:
		return 'l'
	}
	return 'q'
}

// intelPtr names the size of a memory operand in Intel syntax.
func intelPtr(n uint16) string {
	switch n {
	case 1:
		return "BYTE PTR "
	case 2:
		return "WORD PTR "
	case 4:
		return "DWORD PTR "
	case 6:
		return "FWORD PTR "
	case 8:
		return "QWORD PTR "
	case 10:
		return "TBYTE PTR "
	case 16:
		return "XMMWORD PTR "
	case 32:
		return "YMMWORD PTR "
	case 64:
		return "ZMMWORD PTR "
	}
	return ""
}
