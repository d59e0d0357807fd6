/* Programs whose functions call each other. SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#include <guest.h>

char LICENSE[] SEC("license") = "GPL";

/* Verdicts pass through: 7, then 2, then 2. */
__noinline int leaf(struct xdp_md *ctx)
{
	volatile int ret = 7;

	return ctx ? ret : 0;
}

__noinline int middle(struct xdp_md *ctx)
{
	volatile int ret = leaf(ctx);

	return ret - 5;
}

SEC("xdp") int outer(struct xdp_md *ctx)
{
	volatile int ret = middle(ctx);

	return ret;
}

SEC("tc") int classify(struct __sk_buff *skb)
{
	volatile int ret = 1;

	return ret;
}
