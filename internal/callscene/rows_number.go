package main

import "slices"

const (
	ones = ^uint64(0)
	mix  = uint64(0x9e3779b97f4a7c15)
)

// numberRows: lib/math, crypto/mpi, kernel/bpf/tnum.c, ...
func numberRows() []row {
	return slices.Concat(
		each("int_sqrt", 0, 1, 99, 144, ones),
		each("_bcd2bin", 0x59, 0x00, 0x99), each("_bin2bcd", 59, 0, 99),
		each("intlog2", 1, 8, 1000), each("intlog10", 1, 1000),
		each("FSE_isError", 0, ones), each("HUF_isError", 7, uint64(0xffffffffffffff88)),
		each("zstd_is_error", 0, ones), each("zstd_get_error_code", ones-9), each("ZSTD_compressBound", 1000, 1<<20), each("HUF_compressBound", 4096),
		each("x86_family", 0x000906ea, 0x00800f12), each("x86_model", 0x000906ea, 0x00800f12), each("x86_stepping", 0x000906ea, 0x00800f12),
		each("inat_get_opcode_attribute", 0x0f, 0x8b, 0xc7), each("inat_get_last_prefix_id", 0x66, 0xf3, 0x90),
		each("bpf_opcode_in_insntable", 0xb7, 0x8d, 0xff),
		[]row{
			call("int_pow", 3, 13), call("int_pow", 10, 0), call("int_pow", 2, 63),
			call("gcd", 1071, 462), call("gcd", 0, 5), call("gcd", 17, 31), call("lcm", 21, 6), call("lcm", 0, 6), call("lcm_not_zero", 0, 6), call("lcm_not_zero", 4, 6),
			call("iter_div_u64_rem", 1003, 10, space(8)),
			call("mpihelp_cmp", words{1, 2}, words{1, 3}, 2), call("mpihelp_cmp", words{9, 2}, words{1, 2}, 2), call("mpihelp_cmp", words{9, 2}, words{9, 2}, 2),
			call("mpihelp_add_n", space(16), words{ones, 1}, words{1, ones - 2}, 2).returns(8), call("mpihelp_sub_n", space(16), words{0, 5}, words{1, 2}, 2).returns(8),
			call("mpihelp_mul_1", space(16), words{ones, 7}, 2, 10).returns(8), call("mpihelp_lshift", space(16), words{mix, ones}, 2, 5).returns(8),
			call("tnum_is_aligned", 8, 0, 4), call("tnum_is_aligned", 8, 2, 4), call("tnum_in", 0, 0xff, 0x10, 0xf), call("tnum_in", 0, 0xf, 0x10, 0xf),
			call("bpf_jit_needs_zext"), call("bpf_helper_changes_pkt_data", sym("bpf_skb_change_head")), call("bpf_helper_changes_pkt_data", sym("bpf_jiffies64")),
			call("bpf_helper_changes_pkt_data", 44),
			call("minmax_running_max", space(24), 100, 5, 9), call("minmax_running_min", space(24), 100, 5, 9),
			call("inat_get_escape_attribute", 0xaf, 0, 1), call("inat_get_group_attribute", 0xc8, 0, 0), call("inat_get_avx_attribute", 0x58, 1, 0),
			call("insn_decode", space(256), []byte{0x48, 0x8b, 0x47, 0x70, 0xc3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, 15, 1),
			call("insn_decode", space(256), []byte{0xf0, 0x48, 0x0f, 0xb1, 0x94, 0x24, 1, 2, 3, 4, 0, 0, 0, 0, 0}, 15, 1),
			call("insn_decode", space(256), []byte{0x48}, 1, 1),
			call("ZSTD_isFrame", []byte{0x28, 0xb5, 0x2f, 0xfd, 0}, 5), call("ZSTD_isFrame", "none!", 5),
			call("LZ4_decompress_safe", []byte{0x50, 'h', 'e', 'l', 'l', 'o'}, space(16), 6, 16),
			call("LZ4_decompress_safe", []byte{0x14, 'a', 1, 0, 0x50, 'b', 'c', 'd', 'e', 'f'}, space(64), 10, 64), call("LZ4_decompress_safe", []byte{0xf0}, space(16), 1, 16),
			call("lzo1x_decompress_safe", []byte{22, 'h', 'e', 'l', 'l', 'o', 0x11, 0, 0}, 9, space(16), words{16}),
			call("clocks_calc_max_nsecs", 4194304, 22, 0, uint64(0xffffffff), space(8)), call("clocks_calc_max_nsecs", 12345678, 24, 1000, ones, 0),
			call("blk_status_to_errno", 5),
			call("refcount_dec_not_one", words{7}), call("refcount_dec_not_one", words{1}), call("refcount_dec_if_one", words{1}), call("refcount_dec_if_one", words{2}),
			call("lockref_get_not_zero", words{0x300000000}), call("lockref_get_not_zero", words{0}), call("lockref_get_not_dead", words{0x500000000}),
			call("errseq_sample", words{0x1005}), call("errseq_check", words{0x1ffb}, 0x0ffb), call("errseq_check", words{0x1ffb}, 0x1ffb),
			call("__node_distance", 0, 0), call("__node_distance", 0, 1),
			call("audit_classify_arch", 0xc000003e), call("audit_classify_syscall", 0xc000003e, 257), call("audit_classify_syscall", 0xc000003e, 59),
			call("bsearch", u32(30), []byte("\x0a\x00\x00\x00\x14\x00\x00\x00\x1e\x00\x00\x00"), 3, 4, sym("gid_cmp")),
			call("bsearch", u32(31), []byte("\x0a\x00\x00\x00\x14\x00\x00\x00\x1e\x00\x00\x00"), 3, 4, sym("gid_cmp")),
			call("sg_nents", words{0x1000, 0x1000, 0, 0, 0x1002, 0x800, 0, 0}), call("sg_nents_for_len", words{0x1000, 0x1000 << 32, 0, 0, 0x1002, 0x800 << 32, 0, 0}, 5),
			call("sg_last", words{0x1000, 0x1000, 0, 0, 0x1002, 0x800, 0, 0}, 2), call("sg_next", words{0x1000, 0x1000, 0, 0, 0x1002, 0x800, 0, 0}),
			call("llist_reverse_order", words{0}), call("llist_reverse_order", ptrs{words{0}}),
			call("zlib_inflate_workspacesize"),
		},
	)
}

// bitRows: lib/find_bit.c, lib/bitmap.c, lib/hweight.c, kernel/bpf/cpumask.c.
func bitRows() []row {
	sparse := words{0, 1 << 40, 0, 0x8000000000000001}
	dense := words{ones, ones &^ (1 << 13), ones, 0xff}
	var out []row
	for _, m := range []words{sparse, dense, {0, 0, 0, 0}} {
		for _, n := range []int{256, 200, 64} {
			out = append(out,
				call("find_first_bit|_find_first_bit", m, n).returns(8), call("find_first_zero_bit|_find_first_zero_bit", m, n).returns(8),
				call("find_last_bit|_find_last_bit", m, n).returns(8),
				call("find_next_bit|_find_next_bit", m, n, 3).returns(8), call("find_next_zero_bit|_find_next_zero_bit", m, n, 70).returns(8),
				call("find_next_and_bit|_find_next_and_bit", m, dense, n, 3).returns(8), call("_find_first_and_bit", m, dense, n),
				call("_find_next_andnot_bit", dense, m, n, 1), call("_find_next_or_bit", m, sparse, n, 2), call("_find_first_andnot_bit", dense, m, n),
				call("__find_nth_bit", m, n, 2), call("__find_nth_and_bit", m, dense, n, 1),
				call("__bitmap_weight", m, n), call("__bitmap_weight_and", m, dense, n), call("__bitmap_weight_andnot", dense, m, n),
				call("__bitmap_equal", m, dense, n), call("__bitmap_intersects", m, dense, n), call("__bitmap_subset", m, dense, n),
				call("__bitmap_and", space(32), m, dense, n), call("__bitmap_andnot", space(32), dense, m, n), call("__bitmap_or_equal", m, dense, dense, n),
				call("find_next_clump8", space(8), m, n, 0),
			)
		}
	}
	for _, n := range []uint64{0, 1, mix, ones} {
		out = append(out, call("__sw_hweight64", n).returns(8), call("__sw_hweight32", n).returns(4))
	}
	mask := words{2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0} // of 1024 CPUs, of which there may be fewer
	for len(mask) < 128 {
		mask = append(mask, 0)
	}
	return append(out,
		call("bitmap_bitremap", 3, words{0xf}, words{0xf0}, 64), call("bitmap_bitremap", 9, words{0xf}, words{0xf0}, 64),
		call("bitmap_pos_to_ord", words{0xf0f0}, 6, 64), call("bitmap_ord_to_pos", words{0xf0f0}, 2, 64).returns(4),
		call("bitmap_parse", "f0,00000001", 11, space(16), 64), call("bitmap_parse", "zz", 2, space(16), 64),
		call("bitmap_parselist", "0-3,8,10-20:2/4", space(16), 64), call("bitmap_parselist", "5-1", space(16), 64), call("bitmap_parselist", "all", space(16), 64),
		call("bitmap_find_free_region", words{0xff, 0}, 128, 3), call("bitmap_allocate_region", words{0xff, 0}, 8, 2), call("bitmap_allocate_region", words{0xff, 0}, 4, 2),
		call("bitmap_print_to_pagebuf", true, space(64), words{0xf0f0}, 64),
		call("cpumask_next", 0, mask).returns(4), call("cpumask_next_and", -1, mask, sym("__cpu_online_mask")).returns(4), call("cpumask_any_but", mask, 0).returns(4), call("cpumask_next", -1, sym("__cpu_online_mask")).returns(4),
		call("cpumask_local_spread", 0, 0), call("cpumask_local_spread", 1, -1),
		call("bpf_cpumask_first", mask), call("bpf_cpumask_first_zero", mask), call("bpf_cpumask_weight", mask), call("bpf_cpumask_test_cpu", 1, mask), call("bpf_cpumask_test_cpu", 99999, mask),
		call("bpf_cpumask_equal", mask, sym("__cpu_online_mask")), call("bpf_cpumask_intersects", mask, sym("__cpu_online_mask")), call("bpf_cpumask_subset", mask, sym("__cpu_online_mask")),
		call("bpf_cpumask_empty", mask), call("bpf_cpumask_full", sym("__cpu_online_mask")), call("bpf_cpumask_and", append(words{}, mask...), mask, sym("__cpu_online_mask")),
	)
}

// sumRows: lib/crc*.c, lib/checksum.c, lib/siphash.c, lib/xxhash.c, ...
func sumRows() []row {
	var out []row
	for _, data := range []string{"", "1", "123456789", sentence} {
		n := len(data)
		out = append(out,
			call("crc32_le", ones, data, n), call("crc32_be", ones, data, n), call("crc32_le_base", ones, data, n).returns(4), call("crc32_be_base", 0, data, n).returns(4), call("__crc32c_le", ones, data, n),
			call("crc16", 0, data, n), call("crc_ccitt", 0xffff, data, n), call("crc64_be", 0, data, n),
			call("csum_partial", data, n, 0), call("csum_partial", data, n, 0x1234), call("ip_compute_csum", data, n),
			call("xxh32", data, n, 7), call("xxh64", data, n, 7), call("__crypto_memneq", data, sentence, n),
			call("bpf_csum_diff", 0, 0, data, n&^3, 0), call("bpf_csum_diff", sentence, 8, data, n&^3, 5),
		)
	}
	key := words{0x0706050403020100, 0x0f0e0d0c0b0a0908}
	return append(out,
		call("csum_partial", []byte(sentence+sentence+sentence), 120, 0), call("ip_compute_csum", []byte("\x45\x00\x00\x73\x00\x00\x40\x00\x40\x11\x00\x00\xc0\xa8\x00\x01\xc0\xa8\x00\xc7"), 20),
		call("csum_ipv6_magic", []byte("\xfe\x80\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01"), []byte("\xfe\x80\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02"), 64, 58, 0x1234).returns(2),
		call("crc32_le_shift", mix&0xffffffff, 100), call("__crc32c_le_shift", mix&0xffffffff, 100),
		call("siphash_1u64", mix, key), call("siphash_2u64", mix, 1, key), call("siphash_3u64", mix, 1, 2, key), call("siphash_4u64", mix, 1, 2, 3, key),
		call("siphash_1u32", 7, key), call("siphash_3u32", 7, 8, 9, key),
		call("hsiphash_1u32", 7, key), call("hsiphash_2u32", 7, 8, key), call("hsiphash_3u32", 7, 8, 9, key), call("hsiphash_4u32", 7, 8, 9, 10, key),
		call("rhashtable_jhash2", sentence, 5, 1), call("rhashtable_jhash2", sentence, 10, 77),
		call("aes_expandkey", space(512), "0123456789abcdef", 16), call("aes_expandkey", space(512), "0123456789abcdef", 15),
	)
}

// timeRows: kernel/time/time.c, drivers/rtc/lib.c.
func timeRows() []row {
	rtc := func(sec, min, hour, mday, mon, year uint32) []byte {
		var b []byte
		for _, v := range []uint32{sec, min, hour, mday, mon, year, 0, 0, 0} {
			b = append(b, u32(v)...)
		}
		return b
	}
	return slices.Concat(
		each("ns_to_timespec64", 1, 1500000000, 1<<60, ones), each("ns_to_kernel_old_timeval", 1500000000, ones-5),
		each("jiffies_to_msecs", 1, 1000, ones), each("jiffies_to_usecs", 1, 1000), each("nsecs_to_jiffies", 1, 1<<40), each("nsecs_to_jiffies64", 1, 1<<40),
		each("__msecs_to_jiffies", 1, 1001, ones), each("__usecs_to_jiffies", 1, 1000001, 4000000000),
		each("timespec64_to_jiffies", words{5, 300}, words{ones >> 1, 0}),
		each("jiffies_to_clock_t", 250, 12345), each("clock_t_to_jiffies", 100, 12345), each("jiffies_64_to_clock_t", 1<<40), each("nsec_to_clock_t", 1<<50),
		each("jiffies64_to_nsecs", 250), each("jiffies64_to_msecs", 250),
		each("rtc_tm_to_time64", rtc(59, 59, 23, 31, 11, 99), rtc(0, 0, 0, 29, 1, 124)), each("rtc_valid_tm", rtc(59, 59, 23, 31, 11, 99), rtc(0, 0, 0, 30, 1, 124), rtc(60, 0, 0, 1, 1, 124)),
		[]row{
			call("ktime_add_safe", 5, 6), call("ktime_add_safe", ones>>1, 6), call("timespec64_add_safe", 5, 999999999, 6, 1), call("timespec64_add_safe", ones>>1, 0, 6, 1),
			call("rtc_month_days", 1, 2024), call("rtc_month_days", 1, 2100), call("rtc_year_days", 31, 11, 2000),
			call("trace_clock_in_ns", sym("global_trace")),
		},
	)
}
