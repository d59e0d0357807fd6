//go:build ignore
// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* A firewall of modules: stubs that are replaced, or that tail-call in a ring. */
#include "guest.h"

char _license[] SEC("license") = "GPL";

#define use(x) asm volatile("" : : "r"(x))

int fw_one(struct xdp_md *ctx);
int fw_two(struct xdp_md *ctx);

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 4);
	__uint(key_size, sizeof(__u32));
	__array(values, int(struct xdp_md *));
} fw_jumps SEC(".maps") = {
	.values = { [1] = fw_one, [2] = fw_two },
};

__noinline int fw_stub(struct xdp_md *ctx)
{
	volatile int retval = 11;

	use(ctx);
	return retval;
}

static __noinline int fw_sum(int a, int b)
{
	volatile int sum = a + b;

	return sum;
}

__noinline int fw_jump(struct xdp_md *ctx)
{
	volatile int retval = 33;

	bpf_tail_call(ctx, &fw_jumps, 1);
	return retval;
}

SEC("xdp")
int fw_main_with_a_long_name(struct xdp_md *ctx)
{
	int verdict = fw_stub(ctx);

	if (verdict == 11)
		verdict = fw_jump(ctx);
	return fw_sum(verdict, 1);
}

SEC("xdp")
int fw_one(struct xdp_md *ctx)
{
	bpf_tail_call(ctx, &fw_jumps, 2);
	return 2;
}

SEC("xdp")
int fw_two(struct xdp_md *ctx)
{
	bpf_tail_call(ctx, &fw_jumps, 1);
	return 2;
}

static __noinline int fw_part(struct xdp_md *ctx)
{
	volatile int retval = 2;

	use(ctx);
	return retval;
}

SEC("freplace/fw_stub")
int fw_instead(struct xdp_md *ctx)
{
	return fw_part(ctx);
}

/* Called as a function of the kernel is. */
SEC("tc")
int tcp_connect(struct __sk_buff *ctx)
{
	return 0;
}
