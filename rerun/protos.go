package rerun

import (
	"strings"

	"github.com/ksleuth/ksleuth/ctype"
)

// prototypes are those of functions that BTF lacks, or has as void(void): of
// functions written in assembler, and, up to 5.10, of those that ftrace cannot
// trace, among them what C's library has. They have not changed.
var prototypes = []struct{ names, result, params string }{
	{"memcpy __memcpy memcpy_orig memmove __memmove", "void *", "void * dst, const void * src, size_t n"},
	{"memset __memset memset_orig", "void *", "void * s, int c, size_t n"},
	{"memcmp bcmp", "int", "const void * a, const void * b, size_t n"},
	{"memchr memchr_inv memscan", "void *", "const void * s, int c, size_t n"},
	{"strlen", "size_t", "const char * s"},
	{"strnlen", "size_t", "const char * s, size_t n"},
	{"strcmp strcasecmp", "int", "const char * a, const char * b"},
	{"strncmp strncasecmp", "int", "const char * a, const char * b, size_t n"},
	{"strchr strrchr strchrnul", "char *", "const char * s, int c"},
	{"strnchr", "char *", "const char * s, size_t n, int c"},
	{"strstr", "char *", "const char * s, const char * what"},
	{"strnstr", "char *", "const char * s, const char * what, size_t n"},
	{"strpbrk", "char *", "const char * s, const char * any"},
	{"strspn strcspn", "size_t", "const char * s, const char * any"},
	{"strcpy strcat", "char *", "char * dst, const char * src"},
	{"strncpy strncat", "char *", "char * dst, const char * src, size_t n"},
	{"strlcpy strlcat", "size_t", "char * dst, const char * src, size_t n"},
	{"strscpy", "ssize_t", "char * dst, const char * src, size_t n"},
	{"simple_strtoul", "unsigned long", "const char * s, char ** end, unsigned int base"},
	{"simple_strtol", "long", "const char * s, char ** end, unsigned int base"},
	{"kstrtoint", "int", "const char * s, unsigned int base, int * res"},
	{"kstrtouint", "int", "const char * s, unsigned int base, unsigned int * res"},
	{"kstrtoull", "int", "const char * s, unsigned int base, unsigned long long * res"},
	{"kstrtoll", "int", "const char * s, unsigned int base, long long * res"},
	{"snprintf scnprintf", "int", "char * buf, size_t size, const char * fmt, ..."},
	{"sprintf", "int", "char * buf, const char * fmt, ..."},
	{"printk _printk", "int", "const char * fmt, ..."},
	{"_copy_from_user", "unsigned long", "void * to, const void * from, unsigned long n"},
	{"_copy_to_user", "unsigned long", "void * to, const void * from, unsigned long n"},
	{"copy_from_kernel_nofault copy_to_kernel_nofault", "long", "void * dst, const void * src, size_t n"},
	{"strnlen_user", "long", "const char * s, long n"},
	{"strncpy_from_user", "long", "char * dst, const char * src, long n"},
	{"int_sqrt", "unsigned long", "unsigned long x"},
	{"gcd lcm", "unsigned long", "unsigned long a, unsigned long b"},
	{"__sw_hweight32", "unsigned int", "unsigned int w"},
	{"__sw_hweight64", "unsigned long", "unsigned long w"},
	{"csum_partial", "unsigned int", "const void * buf, int n, unsigned int sum"},
	{"crc32_le crc32_be", "unsigned int", "unsigned int crc, const unsigned char * p, size_t n"},
	{"clear_page_rep clear_page_orig clear_page_erms", "void", "void * page"},
	{"copy_page", "void", "void * to, void * from"},
	{"copy_user_generic_unrolled copy_user_generic_string copy_user_enhanced_fast_string rep_movs_alternative", "unsigned long", "void * to, void * from, unsigned int n"},
}

// proto returns the prototype of a function, or nil.
func (s *Session) proto(name string) *ctype.Type {
	var known *ctype.Type
	if t, err := s.types.FuncProto(name); err == nil {
		known = proto(t)
	}
	if vague(known) {
		if p, ok := s.tableProto(name); ok {
			return p
		}
	}
	return known
}

// vague says whether BTF may have no more to say than that there is a function.
func vague(t *ctype.Type) bool {
	return t == nil || len(t.Params()) == 0 && t.Elem().Strip().Kind() == ctype.Void
}

// tableProto returns the prototype that the table has for a function.
func (s *Session) tableProto(name string) (*ctype.Type, bool) {
	if strings.HasPrefix(name, "__x64_sys_") { // SYSCALL_DEFINEx
		p := s.declared("long", "const struct pt_regs * regs")
		return p, p != nil
	}
	for _, row := range prototypes {
		for n := range strings.FieldsSeq(row.names) {
			if n == name {
				p := s.declared(row.result, row.params)
				return p, p != nil
			}
		}
	}
	return nil, false
}

// declared makes a prototype of the table.
func (s *Session) declared(result, params string) *ctype.Type {
	res, err := s.types.ParseType(result)
	if err != nil {
		return nil
	}
	var out []ctype.Param
	for p := range strings.SplitSeq(params, ", ") {
		if p == "..." {
			void, err := s.types.ParseType("void")
			if err != nil {
				return nil
			}
			out = append(out, ctype.Param{Type: void})
			continue
		}
		i := strings.LastIndexByte(p, ' ')
		t, err := s.types.ParseType(p[:i])
		if err != nil {
			return nil
		}
		out = append(out, ctype.Param{Name: p[i+1:], Type: t})
	}
	return ctype.FuncOf(res, out)
}
