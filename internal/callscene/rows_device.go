package main

import "slices"

// netRows: net/core, net/ipv4, net/ipv6.
func netRows() []row {
	lo := kept("lo")
	v4 := func(a, b, c, d uint64) uint64 { return a | b<<8 | c<<16 | d<<24 }
	v6 := func(s string) []byte { return append([]byte(s), make([]byte, 16-len(s))...) }
	loopback := []byte{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}
	out := slices.Concat(
		each("dev_get_flags", lo), each("netif_is_rxfh_configured", lo), each("dev_get_iflink", lo), each("sock_inuse_get", initNet), each("ipv6_ext_hdr", 0, 6, 43, 59),
		each("__ipv6_addr_type", loopback, v6("\xfe\x80"), v6("\xff\x02"), v6("\x20\x01\x0d\xb8"), v6("")),
		each("inet_addr_is_any", []byte("\x02\x00\x00\x50\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"), []byte("\x02\x00\x00\x50\x7f\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00")),
	)
	for _, addr := range []uint64{v4(127, 0, 0, 1), v4(127, 1, 2, 3), v4(8, 8, 8, 8), v4(224, 0, 0, 1), v4(255, 255, 255, 255), 0} {
		out = append(out,
			call("inet_addr_type", initNet, addr), call("inet_addr_type_table", initNet, addr, 255), call("inet_dev_addr_type", initNet, lo, addr),
			call("__ip_dev_find", initNet, addr, false), call("inet_lookup_ifaddr_rcu", initNet, addr), call("inet_confirm_addr", initNet, 0, 0, addr, 254), call("inet_select_addr", lo, addr, 254),
		)
	}
	return append(out,
		call("dev_get_by_index_rcu", initNet, 1), call("dev_get_by_index_rcu", initNet, 99), call("__dev_get_by_index", initNet, 1), call("__dev_get_by_index", initNet, 99),
		call("__dev_get_by_name", initNet, "lo"), call("__dev_get_by_name", initNet, "nothing"), call("dev_get_by_name_rcu", initNet, "lo"),
		call("netdev_get_name", initNet, space(16), 1), call("netdev_get_name", initNet, space(16), 99), call("dev_getbyhwaddr_rcu", initNet, 772, space(6)), call("netdev_txq_to_tc", lo, 0), call("netdev_drivername", lo),
		call("ipv6_chk_addr", initNet, loopback, 0, 0), call("ipv6_chk_addr", initNet, v6("\xfe\x80"), 0, 0), call("ipv6_chk_prefix", loopback, lo),
		call("fib_get_table", initNet, 255), call("fib_get_table", initNet, 7), call("fib_new_table", initNet, 254), call("peernet2id", initNet, initNet), call("sock_prot_inuse_get", initNet, sym("tcp_prot")),
		call("netlink_has_listeners", load{initNet, "net", "rtnl"}, 1), call("netlink_has_listeners", load{initNet, "net", "rtnl"}, 5), call("tty_driver_name", 0), call("tty_name", 0),
		call("inet_pton_with_scope", initNet, 2, "10.0.0.1", "80", space(128)), call("inet_pton_with_scope", initNet, 2, "10.0.0", "80", space(128)), call("inet_pton_with_scope", initNet, 10, "::1", "443", space(128)),
		call("ip_check_mc_rcu", load{lo, "net_device", "ip_ptr"}, v4(224, 0, 0, 1), 0, 0),
	)
}

// traceRows: kernel/trace.
func traceRows() []row {
	buffer := load{sym("global_trace"), "trace_array", "array_buffer.buffer"}
	var out []row
	for _, fn := range []string{"ring_buffer_size", "ring_buffer_entries_cpu", "ring_buffer_empty_cpu", "ring_buffer_overrun_cpu", "ring_buffer_commit_overrun_cpu", "ring_buffer_bytes_cpu",
		"ring_buffer_dropped_events_cpu", "ring_buffer_read_events_cpu", "ring_buffer_oldest_event_ts"} {
		out = append(out, call(fn, buffer, 0), call(fn, buffer, 1), call(fn, buffer, 5))
	}
	for _, fn := range []string{"ring_buffer_empty", "ring_buffer_entries", "ring_buffer_overruns", "ring_buffer_record_is_on", "ring_buffer_record_is_set_on", "ring_buffer_time_stamp_abs", "ring_buffer_max_event_size"} {
		out = append(out, call(fn, buffer))
	}
	return append(out,
		call("tracing_is_on"), call("tracer_tracing_is_on", sym("global_trace")), call("is_tracing_stopped"), call("ftrace_is_dead"), call("tracing_is_enabled"),
		call("ring_buffer_event_length", words{0x0000000400000002, 0, 0, 0, 0}), call("ring_buffer_event_data", words{0x0000000400000002, 0, 0, 0}), call("ring_buffer_event_length", words{0x0000000400000000, 0, 0}),
		call("ftrace_find_event", 1), call("ftrace_find_event", 5), call("ftrace_find_event", 99999), call("trace_find_event", 5),
		call("trace_find_event_field", sym("event_sched_switch"), "next_pid"), call("trace_find_event_field", sym("event_sched_switch"), "none"), call("trace_find_event_field", sym("event_sched_switch"), "common_pid"),
		call("trace_event_get_offsets", sym("event_sched_switch")), call("is_named_trigger", space(256)),
	)
}

// bpfRows: kernel/bpf.
func bpfRows(o *objects) []row {
	b := kept("btf")
	out := []row{
		call("bpf_get_btf_vmlinux").as("btf"), call("btf_type_by_id", b, 0), call("btf_type_by_id", b, 1<<30),
		call("btf_find_by_name_kind", b, "task_struct", 4).as("task_struct_id"), call("btf_find_by_name_kind", b, "no_such_type_at_all", 4).as("none"),
		call("btf_nr_types", b), call("btf_is_kernel", b), call("btf_obj_id", b),
		call("btf_name_by_offset", b, 1), call("btf_name_by_offset", b, uint64(0xffffffff)),
		call("idr_find", sym("map_idr"), o.ids[0]).as("hash"), call("idr_find", sym("map_idr"), o.ids[1]).as("array"), call("idr_find", sym("map_idr"), o.ids[2]).as("trie"),
		call("bpf_map_meta_equal", kept("hash"), kept("hash")), call("bpf_map_meta_equal", kept("hash"), kept("array")),
		call("htab_map_get_next_key", kept("hash"), 0, space(4)), call("htab_map_get_next_key", kept("hash"), u32(2), space(4)), call("array_map_get_next_key|bpf_array_get_next_key", kept("array"), u32(2), space(4)),
		call("array_map_get_next_key|bpf_array_get_next_key", kept("array"), u32(3), space(4)),
		call("trie_lookup_elem", kept("trie"), []byte{32, 0, 0, 0, 10, 1, 2, 3}), call("trie_lookup_elem", kept("trie"), []byte{32, 0, 0, 0, 11, 1, 2, 3}), call("trie_lookup_elem", kept("trie"), []byte{32, 0, 0, 0, 192, 168, 7, 9}),
		call("bpf_prog_array_is_empty", sym("bpf_empty_prog_array")), call("bpf_prog_array_length", sym("bpf_empty_prog_array")),
		call("bpf_rdonly_cast", initTask, 1), call("bpf_dynptr_size", words{0, 0x10}), call("bpf_dynptr_is_null", words{0, 0}), call("bpf_dynptr_is_rdonly", words{1, 0}),
		call("bpf_iter_num_new", space(8), 1, 5), call("bpf_iter_num_new", space(8), 5, 1), call("bpf_iter_num_next", []byte("\x01\x00\x00\x00\x05\x00\x00\x00")), call("bpf_iter_num_next", []byte("\x05\x00\x00\x00\x05\x00\x00\x00")),
	}
	for _, id := range []int{1, 2, 77, 5000} {
		out = append(out, call("btf_type_by_id", b, id).as("btftype"), call("btf_type_skip_modifiers", b, id, space(4)), call("btf_type_resolve_ptr", b, id, space(4)), call("btf_type_resolve_func_ptr", b, id, space(4)))
	}
	out = append(out, call("btf_type_by_id", b, kept("task_struct_id")).as("btftype"), call("btf_resolve_size", b, kept("btftype"), space(4)), call("btf_type_is_void", kept("btftype")), call("btf_type_str", kept("btftype")))
	for _, key := range []uint32{0, 1, 3, 4, 77} {
		out = append(out, call("htab_map_lookup_elem", kept("hash"), u32(key)), call("array_map_lookup_elem", kept("array"), u32(key)),
			call("bpf_map_lookup_elem", kept("hash"), u32(key), 0, 0, 0), call("bpf_map_lookup_elem", kept("array"), u32(key), 0, 0, 0))
	}
	return out
}

// deviceRows: drivers/base, kernel/irq, drivers/char.
func deviceRows() []row {
	out := each("dev_driver_string", kept("cpudev"))
	for _, irq := range []int{0, 4, 9, 500000} {
		out = append(out, call("irq_to_desc", irq), call("irq_get_irq_data", irq), call("irq_can_set_affinity", irq), call("can_request_irq", irq, 0), call("irq_has_action", irq), call("irq_check_status_bit", irq, 0x400), call("irq_get_next_irq", irq))
	}
	return append(out, call("kstat_irqs_cpu", 9, 1), call("kstat_irqs_cpu", 500000, 0), call("input_scancode_to_scalar", []byte("\x00\x02\x00\x00\x34\x12\x00\x00"), space(4)))
}

// acpiRows: drivers/acpi/acpica.
func acpiRows() []row {
	return slices.Concat(
		each("acpi_ut_ascii_char_to_hex", '7', 'a', 'F'), each("acpi_ut_get_type_name", 1, 6, 99), each("acpi_ut_detect_hex_prefix", ptrs{"0x1f"}, ptrs{"1f"}), each("acpi_ut_detect_octal_prefix", ptrs{"017"}, ptrs{"17"}),
		each("acpi_ut_valid_nameseg", "_SB_", "1abc"), each("acpi_ut_dword_byte_swap", 0x11223344), each("acpi_ut_remove_leading_zeros", ptrs{"00012"}), each("acpi_ut_remove_whitespace", ptrs{"  \tx"}),
		each("acpi_ut_remove_hex_prefix", ptrs{"0Xff"}), each("acpi_format_exception", 0, 5, 0x1001), each("acpi_ps_get_opcode_info", 0x10, 0x5b80, 0xffff), each("acpi_ps_get_opcode_size", 0x10, 0x5b80),
		each("acpi_ps_get_opcode_name", 0x10), each("acpi_ns_opens_scope", 6, 1), each("acpi_ns_local", 6, 8), each("acpi_hw_get_bit_register_info", 0, 5, 999), each("acpi_ut_is_pci_root_bridge", "PNP0A03", "PNP0A04"),
		each("acpi_ut_get_event_name", 0, 2, 77), each("acpi_ut_validate_exception", 0, 0x3005), each("acpi_ps_get_argument_count", 0, 2, 0x20), each("acpi_ut_get_region_name", 0, 5, 0x80), each("acpi_ut_get_mutex_name", 0, 3, 99),

		[]row{
			call("acpi_ut_short_divide", 1003, 10, space(8), space(4)), call("acpi_ut_divide", 1003, 10, space(8), space(8)), call("acpi_ut_short_multiply", 1003, 10, space(8)), call("acpi_ut_short_shift_left", mix, 9, space(8)), call("acpi_ut_short_shift_right", mix, 9, space(8)),
			call("acpi_ut_strtoul64", "0x1234", space(8)), call("acpi_ut_convert_hex_string", "beef", space(8)), call("acpi_ut_convert_decimal_string", "1234", space(8)), call("acpi_ut_convert_octal_string", "777", space(8)),
			call("acpi_ut_explicit_strtoul64", "0x77"), call("acpi_ut_implicit_strtoul64", "0077"), call("acpi_ut_hex_to_ascii_char", 0xabcd, 4), call("acpi_ut_hex_to_ascii_char", 0xabcd, 12), call("acpi_ut_stricmp", "AbC", "aBd"), call("acpi_ut_stricmp", "AbC", "aBc"),
			call("acpi_ut_valid_name_char", '_', 0), call("acpi_ut_valid_name_char", '1', 0), call("acpi_ut_valid_name_char", '1', 1), call("acpi_ut_get_node_name", 0), call("acpi_ns_get_type", 0), call("acpi_osi_is_win8"),
		},
	)
}
