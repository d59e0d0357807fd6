package main

import "slices"

const sentence = "the quick brown fox jumps over the lazy dog"

// stringRows: lib/string.c, lib/string_helpers.c, lib/glob.c, fs/nls, ...
func stringRows() []row {
	return slices.Concat(
		each("strlen", "", "a", "kernel", sentence),
		[]row{
			call("strnlen", sentence, 7), call("strnlen", "abc", 7), call("strnlen", "", 0),
			call("strcmp", "abc", "abc"), call("strcmp", "abc", "abd"), call("strcmp", "b", "abd"), call("strcmp", "", "x"),
			call("strncmp", "abcdef", "abcxyz", 3), call("strncmp", "abcdef", "abcxyz", 4), call("strncmp", "a", "b", 0),
			call("strcasecmp", "HeLLo", "hEllO"), call("strcasecmp", "hello", "help"),
			call("strncasecmp", "HELLO world", "hello WORLT", 10), call("strncasecmp", "HELLO world", "hello WORLT", 11),
			call("strchr", sentence, 'q'), call("strchr", sentence, 'Q'), call("strchr", sentence, 0),
			call("strchrnul", sentence, 'z'), call("strchrnul", sentence, '#'),
			call("strrchr", "/a/b/c", '/'), call("strrchr", "abc", '/'),
			call("strnchr", sentence, 9, 'q'), call("strnchr", sentence, 3, 'q'),
			call("strnchrnul", sentence, 9, 'q'), call("strnchrnul", sentence, 3, 'q'),
			call("strstr", sentence, "fox"), call("strstr", sentence, "cat"), call("strstr", sentence, ""),
			call("strnstr", sentence, "fox", 30), call("strnstr", sentence, "fox", 17),
			call("strspn", "aabbcc", "ab"), call("strcspn", "aabbcc", "c"), call("strpbrk", sentence, "xyz"), call("strpbrk", "abc", "xyz"),
			call("memcmp", "abcdefgh1", "abcdefgh2", 9).returns(4), call("memcmp", "abcdefgh1", "abcdefgh2", 8).returns(4),
			call("memcmp", []byte{0xff, 1}, []byte{1, 0xff}, 2).returns(4),
			call("bcmp", "abcdefgh1", "abcdefgh2", 9).returns(4), call("bcmp", "same", "same", 4).returns(4),
			call("memchr", sentence, 'x', 43), call("memchr", sentence, 'x', 4),
			call("memchr_inv", []byte{7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 9, 7}, 7, 20), call("memchr_inv", space(64), 0, 64),
			call("memscan", sentence, 'x', 43), call("memscan", sentence, '!', 43),
			call("sysfs_streq", "enabled\n", "enabled"), call("sysfs_streq", "enabled", "disabled"), call("sysfs_streq", "a\n", "a\n\n"),
			call("match_string", ptrs{"none", "auto", "full"}, 3, "full"), call("match_string", ptrs{"none", "auto", "full"}, 2, "full"),
			call("__sysfs_match_string", ptrs{"none", "auto", "full"}, 3, "auto\n"), call("__sysfs_match_string", ptrs{"none", "auto"}, 2, "x"),
			call("strim", "  padded \n\t"), call("strim", "none"),
			call("skip_spaces", " \t\n text"), call("skip_spaces", "text"),
			call("strsep", ptrs{"a,b;c"}, ",;"), call("strsep", ptrs{"abc"}, ","), call("strsep", words{0}, ","),
			call("strcpy", space(32), "copied"),
			call("strcat", []byte("one\x00\x00\x00\x00\x00\x00"), "two"),
			call("strncat", []byte("one\x00\x00\x00\x00\x00\x00"), "twofold", 3),
			call("strlcat", []byte("one\x00\x00\x00\x00"), "twofold", 7),
			call("strncpy", space(16), "copied", 4), call("strlcpy", space(16), "copied", 4), call("strscpy", space(16), "copied", 4), call("strscpy", space(16), "copied", 16),
			call("strreplace", "a-b-c", '-', '_'),
			call("memcpy", space(48), sentence, 43).returns(8), call("memmove", []byte("abcdefghijklmnop"), "xyz", 3).returns(8), call("memset", space(32), 0x5a, 19).returns(8),
			call("__memcpy", space(16), "tail", 4).returns(8), call("__memset", space(100), 1, 100).returns(8), call("__memmove", space(64), sentence, 40).returns(8),
			call("hashlen_string", 0, "eth0"), call("hashlen_string", 0x1234, sentence),
			call("full_name_hash", 0, "passwd", 6), call("full_name_hash", 99, sentence, 43),
			call("glob_match", "vmlinu?-[0-9]*", "vmlinuz-6.1"), call("glob_match", "*.ko", "a.k"), call("glob_match", "[!a]*", "abc"),
			call("parse_option_str", "quiet,debug,ro", "debug"), call("parse_option_str", "quiet,debugger", "debug"),
			call("match_wildcard", "cpu*freq", "cpu0_freq"), call("match_wildcard", "cpu?", "cpu10"),
			call("parent_len", "/usr/lib/modules"), call("parent_len", "name"), call("parent_len", "/a/b///"),
			call("ucs2_strlen", []byte("e\x00f\x00i\x00\x00\x00")), call("ucs2_strnlen", []byte("e\x00f\x00i\x00\x00\x00"), 2),
			call("ucs2_strsize", []byte("e\x00f\x00i\x00\x00\x00"), 100), call("ucs2_utf8size", []byte("\xe9\x00f\x00\xac\x20\x00\x00")),
			call("ucs2_strncmp", []byte("a\x00b\x00\x00\x00"), []byte("a\x00c\x00\x00\x00"), 2),
			call("ucs2_as_utf8", space(16), []byte("\xe9\x00f\x00\xac\x20\x00\x00"), 16),
			call("utf8_to_utf32", "\u20ac", 3, space(4)), call("utf8_to_utf32", "\xff", 1, space(4)),
			call("utf32_to_utf8", 0x20ac, space(8), 8), call("utf32_to_utf8", 0x110000, space(8), 8),
			call("utf8s_to_utf16s", "a\u20ac\U0001f40d", 8, 1, space(32), 16), call("utf16s_to_utf8s", []byte("a\x00\xac\x20\x00\x00"), 2, 1, space(16), 16),
			call("audit_comparator", 5, 2, 5), call("audit_comparator", 5, 3, 5), call("audit_comparator", 6, 7, 2), call("audit_comparator", 6, 1, 2),
		},
	)
}

// parseRows: lib/kstrtox.c, lib/vsprintf.c, lib/cmdline.c, lib/hexdump.c, net/core/utils.c, ...
func parseRows() []row {
	return []row{
		call("kstrtoull", "18446744073709551615", 10, space(8)), call("kstrtoull", "18446744073709551616", 10, space(8)),
		call("kstrtoull", "0x1f\n", 0, space(8)), call("kstrtoull", "12z", 10, space(8)), call("kstrtoull", "", 10, space(8)),
		call("kstrtoll", "-9223372036854775808", 10, space(8)), call("kstrtoll", "-9223372036854775809", 10, space(8)),
		call("kstrtouint", "4294967295", 0, space(4)), call("kstrtouint", "4294967296", 0, space(4)), call("kstrtouint", "0777", 0, space(4)),
		call("kstrtoint", "-2147483648", 10, space(4)), call("kstrtoint", "2147483648", 10, space(4)),
		call("kstrtou16", "65535", 10, space(2)), call("kstrtou16", "65536", 10, space(2)),
		call("kstrtos16", "-32768", 10, space(2)), call("kstrtos16", "32768", 10, space(2)),
		call("kstrtou8", "255", 10, space(1)), call("kstrtou8", "256", 10, space(1)),
		call("kstrtos8", "-128", 10, space(1)), call("kstrtos8", "128", 10, space(1)),
		call("kstrtobool", "yes", space(1)), call("kstrtobool", "off", space(1)), call("kstrtobool", "maybe", space(1)),
		call("_kstrtoul", "123456", 10, space(8)), call("_kstrtol", "-123456", 10, space(8)),
		call("simple_strtoul", "123abc", space(8), 10), call("simple_strtoul", "0xffg", space(8), 0),
		call("simple_strtoull", "99999999999999", space(8), 10), call("simple_strtol", "-42 rest", space(8), 10), call("simple_strtoll", "-0x7f", space(8), 16),
		call("_parse_integer", "123x", 10, space(8)), call("_parse_integer", "zz", 10, space(8)),
		call("_parse_integer_limit", "123456", 10, space(8), 3), call("_parse_integer_fixup_radix", "0x10", words{0}), call("_parse_integer_fixup_radix", "010", words{0}),
		call("get_option", ptrs{"12,13"}, space(4)), call("get_option", ptrs{"5-9"}, space(4)), call("get_option", ptrs{"x"}, space(4)),
		call("get_options", "1,3-6,9 rest", 16, space(64)), call("get_options", "1,2,3,4", 3, space(16)),
		call("memparse", "64M", space(8)), call("memparse", "0x10k,", space(8)), call("memparse", "7", space(8)),
		call("next_arg", "console=ttyS0 quiet", space(8), space(8)), call("next_arg", "name=\"a b\" c", space(8), space(8)),
		call("hex_to_bin", 'c'), call("hex_to_bin", 'g'), call("hex_to_bin", '7'),
		call("hex2bin", space(8), "00ff7Fa5", 4), call("hex2bin", space(8), "0x", 1),
		call("bin2hex", space(16), []byte{0, 0xff, 0x7f, 0xa5}, 4),
		call("mac_pton", "02:42:ac:11:00:02", space(6)), call("mac_pton", "02:42:ac:11:00", space(6)), call("mac_pton", "02:42:ac:11:00:zz", space(6)),
		call("uuid_is_valid", "6ba7b810-9dad-11d1-80b4-00c04fd430c8"), call("uuid_is_valid", "6ba7b810_9dad-11d1-80b4-00c04fd430c8"),
		call("uuid_parse", "6ba7b810-9dad-11d1-80b4-00c04fd430c8", space(16)), call("guid_parse", "6ba7b810-9dad-11d1-80b4-00c04fd430c8", space(16)), call("guid_parse", "?", space(16)),
		call("in_aton", "192.168.1.2"), call("in_aton", "10"),
		call("in4_pton", "10.1.2.3", 8, space(4), -1, space(8)), call("in4_pton", "10.1.2", 6, space(4), -1, space(8)), call("in4_pton", "256.1.1.1", 9, space(4), -1, space(8)),
		call("in6_pton", "fe80::1", 7, space(16), -1, space(8)), call("in6_pton", "1:2:3:4:5:6:7:8", 15, space(16), -1, space(8)), call("in6_pton", "1::2::3", 7, space(16), -1, space(8)),
		call("sscanf", "7 eleven", "%d %s", space(4), space(16)), call("sscanf", "x", "%d", space(4)), call("sscanf", "0x1f:22", "%x:%u", space(4), space(4)),
		call("filter_parse_regex", "*stat*", 6, space(8), space(4)), call("filter_parse_regex", "!sys_*", 6, space(8), space(4)), call("filter_parse_regex", "plain", 5, space(8), space(4)),
		call("bpf_strtol", "-77 ", 4, 10, space(8)), call("bpf_strtol", "x", 1, 0, space(8)), call("bpf_strtol", "0x40", 4, 0, space(8)),
		call("bpf_strtoul", "4096", 4, 0, space(8)), call("bpf_strtoul", "-1", 2, 0, space(8)),
		call("__bpf_strtoull", "8192 ", 5, 0, space(8), space(1)),
		call("bpf_strncmp", "filter", 6, "filtes"), call("bpf_strncmp", "filter", 5, "filtes"),
		call("bpf_strlen", "kfunc"), call("bpf_strcmp", "a", "b"), call("bpf_strchr", "abc", 'c'), call("bpf_strstr", sentence, "fox"), call("bpf_strspn", "aab", "a"),
		call("bpf_strcspn", "aab", "b"), call("bpf_strrchr", "aba", 'a'), call("bpf_strchrnul", "aba", 'x'), call("bpf_strnlen", "abc", 2), call("bpf_strnchr", "abc", 2, 'c'), call("bpf_strcasecmp", "ABC", "abd"),
		call("string_unescape", "a\\n\\x41\\101z", space(32), 32, 15),
		call("nla_strcmp", []byte("\x08\x00\x01\x00eth0"), "eth0"), call("nla_strcmp", []byte("\x09\x00\x01\x00eth0\x00\x00\x00\x00"), "eth1"),
		call("nla_find", []byte("\x08\x00\x01\x00aaaa\x08\x00\x02\x00bbbb"), 16, 2), call("nla_find", []byte("\x08\x00\x01\x00aaaa\x08\x00\x02\x00bbbb"), 16, 3),
		call("nla_memcmp", []byte("\x08\x00\x01\x00aaaa"), "aaab", 4), call("nla_memcpy", space(8), []byte("\x08\x00\x01\x00aaaa"), 8),
		call("find_module_all|find_module", "dummy"), call("find_module", "no_such_module"),
		call("dev_valid_name", "eth0"), call("dev_valid_name", "a/b"), call("dev_valid_name", ".."), call("dev_valid_name", "averyveryverylongname"),
		call("security_ismaclabel", "security.selinux"), call("regs_query_register_offset", "ip"), call("regs_query_register_offset", "none"),
		call("tcp_ca_find", "cubic"), call("tcp_ca_find", "reno"), call("tcp_ca_find", "none"),
		call("dmi_name_in_vendors", "QEMU"), call("dmi_name_in_vendors", "ACME"), call("dmi_match", 4, "QEMU"), call("dmi_match", 5, "x"),
		call("look_up_OID", []byte{0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01}, 9), call("look_up_OID", []byte{0x2a}, 1),
		call("bpf_core_essential_name_len", "task_struct___old"), call("bpf_core_essential_name_len", "task_struct"),
		call("memchr", space(3), 1, 3),
	}
}

// formatRows: lib/vsprintf.c and names of numbers.
func formatRows() []row {
	out := []row{
		call("snprintf", space(64), 64, "%d %s", 42, "ok"), call("snprintf", space(8), 8, "%#llx", uint64(0xffffffffdeadbeef)),
		call("scnprintf", space(8), 8, "%s", sentence), call("sprintf", space(64), "%08x|%-6d|%c", 0xbeef, 17, 'q'), call("sprintf", space(64), "%pI4", []byte{127, 0, 0, 1}),
		call("num_to_str", space(24), 24, 1234567890123, 0), call("num_to_str", space(24), 2, 1234, 0),
		call("string_get_size", 123456789, 512, 0, space(32), 32), call("string_get_size", 1<<30, 1, 1, space(32), 32),
		call("sprint_oid", []byte{0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d}, 6, space(64), 64),
		call("sprint_symbol", space(512), sym("_stext")), call("sprint_symbol", space(512), off{sym("schedule"), 5}), call("sprint_symbol_no_offset", space(512), off{sym("schedule"), 5}),
		call("lookup_symbol_name", off{sym("schedule"), 3}, space(512)), call("lookup_symbol_name", 0, space(512)),
		call("tcp_ca_get_name_by_key", 0, space(16)), call("tnum_strn", space(32), 32, 4, 3), call("tnum_sbin", space(80), 80, 4, 3),
		call("acpi_ex_eisa_id_to_string", space(8), 0x0a0cd041),
	}
	for _, r := range []struct {
		fn   string
		args []any
	}{
		{"errname", []any{22, 1, 512, 9999}},
		{"blk_op_str", []any{0, 1, 3, 200}},
		{"blk_status_to_errno", []any{0, 1, 10}},
		{"errno_to_blk_status", []any{0, -5, -28, -110}},
		{"netdev_cmd_to_name", []any{1, 2, 5}},
		{"regs_query_register_name", []any{0, 80, 128}},
		{"stack_type_name", []any{1, 2, 3, 4}},
		{"dmi_get_system_info", []any{1, 4, 5}},
	} {
		out = append(out, each(r.fn, r.args...)...)
	}
	return append(out, call("mangle_path", space(64), "/a b/c\n", " \n"), call("dmi_get_bios_year"), call("dmi_get_date", 2, space(4), space(4), space(4)))
}
