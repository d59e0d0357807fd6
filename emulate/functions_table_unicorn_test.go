//go:build unicorn

package emulate

// A function is what TestKernelFunctionsUnicorn calls.
type function struct {
	name  string // or names, with | between: the first that the kernel has
	out   string // what the first call writes at its first argument, "" for nothing
	calls [][]any
}

func call(args ...any) []any                       { return args }
func calls(name string, c ...[]any) function       { return function{name: name, calls: c} }
func writes(name, out string, c ...[]any) function { return function{name: name, out: out, calls: c} }
func zero(n int) []byte                            { return make([]byte, n) }

// noiseBytes returns bytes that look random.
func noiseBytes(n int) []byte {
	b := make([]byte, n)
	x := uint64(88172645463325252)
	for i := range b {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		b[i] = byte(x >> 32)
	}
	return b
}

const sentence = "the quick brown fox jumps over the lazy dog"

// functionTable: functions that read and write memory and need nothing else.
// That the kernels' versions take other arguments, some of them, does not matter:
// both sides run the same.
var functionTable = []function{
	// Strings.
	calls("strlen", call(""), call(sentence)),
	calls("strnlen", call(sentence, 10), call(sentence, 100)),
	calls("strcmp", call("abc", "abd"), call("abc", "abc"), call("", "x")),
	calls("strncmp", call("abcd", "abce", 3), call("abcd", "abce", 4)),
	calls("strcasecmp", call("HeLLo", "hEllO"), call("a", "B")),
	calls("strncasecmp", call("HeLLo", "hEllX", 4), call("HeLLo", "hEllX", 5), call("a", "b", 0)),
	writes("strcpy", sentence, call(zero(64), sentence)),
	writes("strncpy", "the qui", call(zero(64), sentence, 7), call(zero(64), "x", 20)),
	writes("sized_strscpy|strscpy", "the qui", call(zero(64), sentence, 8), call(zero(64), "x", 20), call(zero(8), "abc", 0)),
	writes("strlcpy", "the qui", call(zero(64), sentence, 8)),
	writes("strcat", "abcdef", call([]byte("abc\x00        "), "def")),
	writes("strncat", "abcde", call([]byte("abc\x00        "), "def", 2)),
	writes("strlcat", "abcde", call([]byte("abc\x00        "), "def", 6)),
	calls("strchr", call(sentence, 'q'), call(sentence, '!'), call(sentence, 0)),
	calls("strchrnul", call(sentence, '!'), call(sentence, 'z')),
	calls("strnchr", call(sentence, 43, 'g'), call(sentence, 10, 'z')),
	calls("strrchr", call(sentence, 'o'), call(sentence, '!')),
	calls("strspn", call(sentence, "theq "), call(sentence, "")),
	calls("strcspn", call(sentence, "kq"), call(sentence, "!")),
	calls("strpbrk", call(sentence, "zx"), call(sentence, "!")),
	calls("strstr", call(sentence, "lazy"), call(sentence, "cat"), call(sentence, "")),
	calls("strnstr", call(sentence, "fox", 43), call(sentence, "dog", 20)),
	calls("strim", call("  some text   "), call("    ")),
	calls("skip_spaces", call("   x"), call("")),
	calls("strreplace", call([]byte("a/b/c\x00"), '/', '!')),
	calls("sysfs_streq", call("abc", "abc\n"), call("abc", "abd")),
	calls("glob_match", call("f*[a-k]?x", "fooabcx"), call("*.c", "main.h")),
	calls("parse_option_str", call("one,two,three", "two"), call("one,two", "tw")),
	calls("match_string", call(encode([]uint64{twinBuf, twinBuf, 0}), 2, "x")),

	// Memory.
	calls("memcmp", call(noiseBytes(100), noiseBytes(100), 100), call("abcdefghij", "abcdefghik", 10), call("a", "b", 0)),
	calls("bcmp", call(noiseBytes(100), noiseBytes(100), 100), call("abc", "abd", 3)),
	writes("memcpy|__memcpy", sentence, call(zero(64), sentence, 44), call(zero(512), noiseBytes(300), 300)),
	writes("memmove|__memmove", "quick brown", call([]byte("the quick brown\x00"), uint64(twinBuf+4), 12),
		call(noiseBytes(1024), uint64(twinBuf+8), 700), call(noiseBytes(64), uint64(twinBuf), 64), call(noiseBytes(1024), uint64(twinBuf+100), 3)),
	calls("__memcpy", call(zero(4096), noiseBytes(4096), 4096)),
	writes("memset|__memset", "aaaaa", call(zero(16), 'a', 5), call(noiseBytes(1024), 0, 1000)),
	calls("memset16", call(zero(64), 0x1234, 30)),
	calls("memchr", call(sentence, 'z', 44), call(sentence, '!', 44)),
	calls("memchr_inv", call(zero(300), 0, 300), call(noiseBytes(300), noiseBytes(1)[0], 300)),
	calls("memscan", call(sentence, 'z', 44)),
	calls("memweight", call(noiseBytes(333), 333)),
	calls("clear_page_orig", call(uint64(twinBuf))),
	calls("copy_page", call(noiseBytes(4096), noiseBytes(4096))),

	// Bits and bitmaps.
	calls("_find_first_bit|find_first_bit", call(zero(64), 512), call([]byte{0, 0, 4, 0, 0, 0, 0, 0}, 64)),
	calls("_find_first_zero_bit|find_first_zero_bit", call([]byte{255, 255, 3, 0, 0, 0, 0, 0}, 64)),
	calls("_find_next_bit|find_next_bit", call(noiseBytes(64), 512, 100), call(zero(64), 512, 3), call(noiseBytes(64), uint64(twinBuf), 512, 5, 0, 0)),
	calls("_find_next_zero_bit", call(noiseBytes(64), 512, 100)),
	calls("_find_last_bit|find_last_bit", call([]byte{1, 2, 3, 0, 0, 0, 0, 0}, 64)),
	calls("_find_next_and_bit|find_next_and_bit", call(noiseBytes(64), noiseBytes(128), 512, 77)),
	calls("find_next_clump8", call(zero(8), noiseBytes(64), 512, 9)),
	calls("__bitmap_and", call(zero(64), noiseBytes(64), noiseBytes(128), 500)),
	calls("__bitmap_andnot", call(zero(64), noiseBytes(64), noiseBytes(70), 500)),
	calls("__bitmap_or", call(zero(64), noiseBytes(64), noiseBytes(70), 500)),
	calls("__bitmap_xor", call(zero(64), noiseBytes(64), noiseBytes(70), 500)),
	calls("__bitmap_complement", call(zero(64), noiseBytes(64), 500)),
	calls("__bitmap_equal", call(noiseBytes(64), noiseBytes(64), 500), call(noiseBytes(64), zero(64), 500)),
	calls("__bitmap_subset", call(zero(64), noiseBytes(64), 500), call(noiseBytes(64), noiseBytes(64), 500)),
	calls("__bitmap_intersects", call(zero(64), noiseBytes(64), 500), call(noiseBytes(64), noiseBytes(64), 500)),
	calls("__bitmap_weight", call(noiseBytes(64), 500), call(zero(8), 64)),
	calls("__bitmap_set", call(zero(64), 3, 200)),
	calls("__bitmap_clear", call(noiseBytes(64), 70, 300)),
	calls("__bitmap_shift_left", call(zero(64), noiseBytes(64), 77, 500)),
	calls("__bitmap_shift_right", call(zero(64), noiseBytes(64), 77, 500)),
	calls("__bitmap_replace", call(zero(64), noiseBytes(64), zero(64), noiseBytes(64), 500)),
	calls("bitmap_find_next_zero_area_off", call(noiseBytes(64), 512, 3, 3, 0, 0)),
	calls("bitmap_find_free_region", call(noiseBytes(64), 512, 1)),
	calls("bitmap_allocate_region", call(zero(64), 16, 3)),
	calls("bitmap_release_region", call(noiseBytes(64), 16, 3)),
	calls("bitmap_cut", call(zero(64), noiseBytes(64), 5, 10, 300)),
	calls("bitmap_to_arr32", call(zero(64), noiseBytes(64), 300)),
	calls("bitmap_from_arr32", call(zero(64), noiseBytes(64), 300)),
	calls("bitmap_parselist", call("1-5,9,60-63", zero(8), 64), call("5-1", zero(8), 64)),
	calls("bitmap_parse", call("ff,00000001", 11, zero(8), 64)),
	calls("bitmap_print_to_pagebuf", call(1, uint64(twinBuf+4096), noiseBytes(64), 512)),
	calls("__sw_hweight32", call(0x12345678), call(uint64(0xffffffff))),
	calls("__sw_hweight64", call(uint64(0x123456789abcdef0))),
	calls("cpumask_next|find_next_bit", call(0, sym("__cpu_possible_mask"))),

	// Trees and lists.
	calls("rb_first_postorder", call(treeOf(33))),
	calls("rb_first", call(treeOf(40)), call(treeOf(0))),
	calls("rb_last", call(treeOf(40))),
	calls("rb_next", call(treeNode(0)), call(treeNode(7)), call(treeNode(39))),
	calls("rb_prev", call(treeNode(0)), call(treeNode(9))),
	calls("rb_next_postorder", call(treeNode(5))),
	calls("rb_erase", call(treeNode(12), uint64(twinBuf)), call(treeNode(3), uint64(twinBuf)), call(treeNode(20), uint64(twinBuf))),
	calls("rb_replace_node", call(treeNode(2), zero(32), uint64(twinBuf))),
	calls("rb_first", call(sym("free_vmap_area_root")), call(sym("vmap_area_root"))),
	calls("list_sort", call(0, listOf(50), sym("plug_rq_cmp")), call(0, listOf(50), sym("plug_ctx_cmp|sched_rq_cmp|plug_rq_cmp")), call(0, listOf(1), sym("plug_rq_cmp"))),
	calls("sort", call(noiseBytes(64*16), 64, 16, sym("cmp_range"), 0), call(noiseBytes(40*8), 40, 8, sym("cmp_ex_sort|cmp_range"), 0)),
	calls("sort_r", call(noiseBytes(20*16), 20, 16, sym("cmp_range"), 0, 0)),
	calls("bsearch", call(noiseBytes(16), noiseBytes(64*16), 64, 16, sym("cmp_range"))),
	calls("radix_tree_lookup", call(sym("init_pid_ns"), 1), call(sym("irq_desc_tree"), 4)),
	calls("xa_load", call(sym("init_pid_ns"), 1), call(sym("irq_desc_tree"), 4)),
	calls("find_pid_ns", call(1, sym("init_pid_ns")), call(2, sym("init_pid_ns")), call(999999, sym("init_pid_ns"))),
	calls("find_ge_pid", call(3, sym("init_pid_ns")), call(100000, sym("init_pid_ns"))),
	calls("pid_task", call(sym("init_struct_pid"), 0)),
	calls("find_task_by_pid_ns", call(1, sym("init_pid_ns")), call(2, sym("init_pid_ns"))),
	calls("irq_to_desc", call(1), call(4), call(500)),
	calls("mt_find", call(sym("sparse_irqs"), encode([]uint64{2}), 100)),
	calls("mtree_load", call(sym("sparse_irqs"), 4), call(sym("sparse_irqs"), 4000)),
	calls("irq_get_next_irq", call(3), call(20)),
	calls("find_vma", call(sym("init_mm"), 4096)),
	calls("lookup_resource", call(sym("iomem_resource"), 0x1000)),
	calls("iomem_map_sanity_check", call(0x100000, 4096)),
	calls("find_module", call("ext4")),
	calls("nr_processes", call()), calls("nr_running", call()), calls("nr_context_switches", call()),
	calls("nr_iowait", call()), calls("si_mem_available", call()), calls("nr_free_buffer_pages", call()),
	calls("single_task_running", call()),
	calls("get_avenrun", call(zero(24), 0, 0)),

	// Sums, hashes, random numbers.
	calls("crc32_le_base|crc32_le", call(0xffffffff, noiseBytes(15), 15), call(0, "a", 1)), // longer: 7.2 takes the FPU
	calls("crc32_be_base|crc32_be", call(0xffffffff, noiseBytes(1000), 1000)),
	calls("__crc32c_le|crc32c_base", call(0xffffffff, noiseBytes(1000), 1000)),
	calls("crc16", call(0, noiseBytes(300), 300)),
	calls("crc_ccitt", call(0, noiseBytes(300), 300)),
	calls("crc_t10dif_generic", call(0, noiseBytes(300), 300)),
	calls("csum_partial", call(noiseBytes(1500), 1499, 0), call(noiseBytes(1500), 40, 7), call(noiseBytes(16), 3, 0)),
	calls("ip_compute_csum", call(noiseBytes(1500), 1499)),
	calls("csum_ipv6_magic", call(noiseBytes(16), noiseBytes(32), 1000, 6, 77)),
	calls("csum_partial_copy_nocheck|csum_partial_copy_generic", call(noiseBytes(600), zero(600), 600)),
	calls("sha1_transform", call(zero(20), noiseBytes(64), zero(64))),
	calls("sha1_init", call(zero(20))),
	calls("sha256_transform", call(zero(32), noiseBytes(64), zero(256))),
	calls("sha256_update", call(zero(200), noiseBytes(300), 300)),
	calls("sha256_blocks_generic|sha256_transform_blocks", call(zero(32), noiseBytes(256), 3)),
	calls("blake2s_compress_generic", call(zero(256), noiseBytes(64), 1, 64)),
	calls("chacha_block_generic", call(noiseBytes(64), zero(64), 20)),
	calls("hchacha_block_generic", call(noiseBytes(64), zero(64), 20)),
	calls("__siphash_unaligned|__siphash_aligned", call(noiseBytes(99), 99, noiseBytes(16))),
	calls("__siphash_aligned", call(noiseBytes(96), 96, noiseBytes(16))),
	calls("siphash_1u64", call(uint64(0x123456789abcdef), noiseBytes(16))),
	calls("siphash_2u64", call(uint64(0x123456789abcdef), 2, noiseBytes(16))),
	calls("siphash_3u32", call(1, 2, 3, noiseBytes(16))),
	calls("__hsiphash_unaligned|__hsiphash_aligned", call(noiseBytes(99), 99, noiseBytes(16))),
	calls("hsiphash_2u32", call(1, 2, noiseBytes(16))),
	calls("half_md4_transform", call(noiseBytes(16), noiseBytes(32))),
	calls("full_name_hash", call(0, sentence, 43), call(7, sentence, 3)),
	calls("hashlen_string", call(0, sentence)),
	calls("rhashtable_jhash2|jhash2", call(noiseBytes(40), 10, 5)),
	calls("xxh32", call(noiseBytes(100), 99, 7)),
	calls("xxh64", call(noiseBytes(100), 99, 7)),
	calls("prandom_u32_state", call(noiseBytes(16))),
	calls("prandom_bytes_state", call(noiseBytes(16), zero(100), 99)),
	calls("__flow_hash_from_keys|flow_hash_from_keys_seed", call(noiseBytes(64), noiseBytes(16))),

	// Arithmetic.
	calls("int_sqrt", call(0), call(uint64(1)<<62), call(1000003)),
	calls("gcd", call(12345678, 87654320), call(0, 5), call(17, 17)),
	calls("lcm", call(12, 18), call(0, 3)),
	calls("lcm_not_zero", call(12, 0)),
	calls("int_pow", call(3, 20)),
	calls("reciprocal_value", call(7), call(1000)),
	calls("reciprocal_value_adv", call(7, 30), call(1000, 12)),
	calls("rational_best_approximation", call(31415926, 10000000, 1000, 1000, zero(8), zero(8))),
	calls("mul_u64_u64_div_u64|mul_u64_add_u64_div_u64", call(uint64(1)<<40, 3000, 7, 9)),
	calls("intlog2", call(1000), call(1)),
	calls("intlog10", call(1000)),
	calls("iter_div_u64_rem", call(1000000, 300, zero(8))), calls("__iter_div_u64_rem", call(1000, 3, zero(8))),

	// Numbers and text.
	calls("simple_strtoul", call("0x1234zz", zero(8), 0), call("755", 0, 8), call("99", 0, 10)),
	calls("simple_strtoull", call("18446744073709551615", zero(8), 10)),
	calls("simple_strtol", call("-77", zero(8), 10)),
	calls("kstrtoull", call("123456789012345\n", 10, zero(8)), call("99999999999999999999", 10, zero(8)), call("0x7f", 0, zero(8))),
	calls("kstrtoll", call("-9223372036854775808", 10, zero(8))),
	calls("kstrtoint", call("-5", 0, zero(8)), call("5x", 0, zero(8))),
	calls("kstrtou8", call("255", 0, zero(8)), call("256", 0, zero(8))),
	calls("kstrtobool", call("yes", zero(8)), call("off", zero(8)), call("maybe", zero(8))),
	calls("memparse", call("64M", zero(8)), call("0x10k", zero(8)), call("3", 0)),
	calls("get_option", call(encode([]uint64{twinBuf + 8, 0x352d3331}), zero(8))),
	calls("get_options", call("3,1-4,99", 12, zero(64))),
	calls("num_to_str", call(zero(32), 32, uint64(12345678901), 0), call(zero(32), 3, 12345, 0), call(zero(32), 32, 7, 9)),
	calls("hex_to_bin", call('f'), call('G'), call('9')),
	calls("hex2bin", call(zero(8), "0123456789abcdef", 8), call(zero(8), "0x", 1)),
	writes("bin2hex", "010203ff", call(zero(32), []byte{1, 2, 3, 255}, 4)),
	calls("hex_dump_to_buffer", call(noiseBytes(32), 32, 16, 1, zero(128), 128, 1), call(noiseBytes(32), 32, 32, 8, zero(128), 128, 0)),
	writes("snprintf", "x=-42 u=4000000000 0x00beef str%  z", call(zero(128), 128, "x=%d u=%u %#08x %s%%%3c", -42&0xffffffff, uint64(4000000000), 0xbeef, "str", 'z'),
		call(zero(128), 10, "%s %s", sentence, sentence), call(zero(128), 128, "%pI4 %pM %*ph", noiseBytes(8), noiseBytes(8), 6, noiseBytes(8)),
		call(zero(128), 128, "%pUb %20s|%-8.3s", noiseBytes(16), "right", "left!"), call(zero(128), 128, "%ps", sym("schedule")), call(zero(128), 128, "%llx %lld", ^uint64(0), 1<<62)),
	writes("sprintf", "007", call(zero(64), "%03d", 7)),
	writes("scnprintf", "abc", call(zero(64), 4, "%s", "abcdef")),
	calls("sscanf", call("12 0x34 word", "%d %x %s", zero(8), zero(8), zero(16))),
	calls("string_get_size", call(uint64(123456789), 512, 0, zero(32), 32)),
	calls("string_unescape", call("a\\n\\x41\\101", zero(32), 32, 15)),
	calls("string_escape_mem", call("a\nb\x01", 4, zero(32), 32, 15, 0)),
	calls("in4_pton", call("192.168.1.77", 0xffffffff, zero(8), 0xffffffff, 0)),
	calls("in6_pton", call("fe80::1:2", 0xffffffff, zero(16), 0xffffffff, 0)),
	calls("in_aton", call("10.1.2.3")),
	calls("uuid_is_valid", call("12345678-1234-1234-1234-123456789abc"), call("12345678x")),
	calls("uuid_parse", call("12345678-1234-1234-1234-123456789abc", zero(16))),
	calls("__ipv6_addr_type", call(noiseBytes(16)), call(zero(16))),
	calls("utf8_to_utf32", call("\u20ac", 3, zero(8))),
	calls("utf8s_to_utf16s", call("gr\u00fcn \u20ac", 10, 1, zero(64), 30)),
	calls("utf16s_to_utf8s", call([]byte("a\x00b\x00\xac\x20"), 3, 1, zero(64), 30)),
	calls("ucs2_strlen|ucs2_strnlen", call([]byte("a\x00b\x00\x00\x00"), 9)),

	// Time.
	calls("time64_to_tm", call(1700000000, 3600, zero(64)), call(uint64(1<<63), 0, zero(64))),
	calls("mktime64", call(2024, 2, 29, 12, 30, 45)),
	calls("jiffies_to_msecs", call(123456)),
	calls("jiffies_to_usecs", call(1234)),
	calls("__msecs_to_jiffies", call(123456)),
	calls("__usecs_to_jiffies", call(123456)),
	calls("nsecs_to_jiffies64|nsecs_to_jiffies", call(uint64(123456789012))),
	calls("jiffies64_to_nsecs", call(uint64(123456789))),
	calls("nsec_to_clock_t", call(uint64(123456789012))),
	calls("ns_to_timespec64", call(uint64(1700000000123456789)), call(^uint64(5))),
	calls("set_normalized_timespec64", call(zero(16), 5, uint64(7999999999)), call(zero(16), 5, ^uint64(7999999999))),
	calls("timespec64_to_jiffies", call(encode([]uint64{5, 77}))),
	calls("rtc_month_days", call(1, 2024)),
	calls("rtc_time64_to_tm", call(1700000000, zero(64))),

	// Symbols and the like.
	calls("kallsyms_lookup_name", call("schedule")),
	calls("kallsyms_lookup_size_offset", call(sym("schedule"), zero(8), zero(8))),
	calls("sprint_symbol", call(zero(512), sym("schedule"))),
	calls("sprint_symbol_no_offset", call(zero(512), sym("vsnprintf"))),
	calls("search_exception_tables", call(sym("schedule"))),
	calls("kernel_text_address|core_kernel_text", call(sym("schedule")), call(12345)),
	calls("is_module_address", call(sym("schedule"))),

	// Compression and code.
	calls("LZ4_decompress_safe", call([]byte("\x50hello\x05\x00\x50world"), zero(64), 13, 64)),
	calls("lzo1x_1_compress", call(append(noiseBytes(300), noiseBytes(300)...), 600, zero(1024), zero(8), zero(16384))),
	calls("zlib_inflate_workspacesize", call()),
	calls("insn_init", call(noiseBytes(256), noiseBytes(16), 15, 1)),
	calls("insn_get_length", call(encode([]uint64{0, 0}))),
}
