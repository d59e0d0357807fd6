//go:build ignore
// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* A congestion control that no socket chooses. */
#include "scene.h"

char _license[] SEC("license") = "GPL";

struct sock {
	__u32 unused;
};

struct tcp_congestion_ops {
	__u32 (*ssthresh)(struct sock *sk);
	void (*cong_avoid)(struct sock *sk, __u32 ack, __u32 acked);
	__u32 (*undo_cwnd)(struct sock *sk);
	char name[16];
};

SEC("struct_ops/zoo_ssthresh")
__u32 zoo_ssthresh(__u64 *ctx)
{
	return 2;
}

SEC("struct_ops/zoo_cong_avoid")
void zoo_cong_avoid(__u64 *ctx)
{
}

SEC("struct_ops/zoo_undo_cwnd")
__u32 zoo_undo_cwnd(__u64 *ctx)
{
	return 4;
}

SEC(".struct_ops.link")
struct tcp_congestion_ops zoo_tcp = {
	.ssthresh = (void *)zoo_ssthresh,
	.cong_avoid = (void *)zoo_cong_avoid,
	.undo_cwnd = (void *)zoo_undo_cwnd,
	.name = "bpf_zoo",
};
