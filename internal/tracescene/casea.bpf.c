//go:build ignore
// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Case A: a verdict by modules, of which the first is replaced, the second is a
 * plain function, and the third makes a tail call. The functions do nothing but
 * what they do in the case; their callers count.
 */
#include "tracescene.h"

char _license[] SEC("license") = "GPL";

/* As caseANames. */
enum { MAIN, MODULE1, MODULE2, MODULE3, FW_MOD, XDP_MOD };

int xdp_mod(struct xdp_md *ctx);

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 8);
	__uint(key_size, sizeof(__u32));
	__array(values, int(struct xdp_md *));
} prog_array SEC(".maps") = {
	.values = { [3] = xdp_mod },
};

/* Replaced by fw_mod. */
__noinline int module1(struct xdp_md *ctx)
{
	volatile int retval = 11;

	use(ctx);
	return retval;
}

__noinline int module2(struct xdp_md *ctx)
{
	volatile int retval = XDP_PASS;

	use(ctx);
	return retval;
}

/* The default, 33, is not seen but when the tail call is refused. */
__noinline int module3(struct xdp_md *ctx)
{
	volatile int retval = 33;

	bpf_tail_call(ctx, &prog_array, 3);
	return retval;
}

SEC("xdp")
int xdp_main(struct xdp_md *ctx)
{
	int verdict;

	entered(MAIN);
	entered(MODULE1);
	verdict = returned(MODULE1, module1(ctx));
	if (verdict != XDP_PASS)
		return returned(MAIN, verdict);
	entered(MODULE2);
	verdict = returned(MODULE2, module2(ctx));
	if (verdict != XDP_PASS)
		return returned(MAIN, verdict);
	entered(MODULE3);
	verdict = returned(MODULE3, module3(ctx));
	return returned(MAIN, verdict);
}

SEC("xdp")
int xdp_mod(struct xdp_md *ctx)
{
	entered(XDP_MOD);
	return returned(XDP_MOD, XDP_PASS);
}

SEC("freplace/module1")
int fw_mod(struct xdp_md *ctx)
{
	use(ctx);
	entered(FW_MOD);
	return returned(FW_MOD, XDP_PASS);
}

/* The tracers of the case, for the scene to show the harm by itself. */
SEC("fentry/module3")
int module3_entry(__u64 *ctx)
{
	return 0;
}

SEC("fexit/module3")
int module3_exit(__u64 *ctx)
{
	return 0;
}
