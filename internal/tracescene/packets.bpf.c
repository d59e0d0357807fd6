//go:build ignore
// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Programs that copy what they see of each packet, by XDP and by tc: an
 * account of the packets that is no tracer's.
 */
#include "tracescene.h"

char _license[] SEC("license") = "GPL";

static long (*bpf_skb_load_bytes)(const void *skb, __u32 offset, void *to, __u32 len) = (void *)26;

#define HEAD 96
#define PACKETS 4096

struct seen {
	__u32 len;
	__s32 returned;
	__u32 class;
	__u8 head[HEAD];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, PACKETS);
	__type(key, __u32);
	__type(value, struct seen);
} seen_xdp SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, PACKETS);
	__type(key, __u32);
	__type(value, struct seen);
} seen_tc SEC(".maps");

/* How many were seen. Packets are sent one by one. */
__u32 count_xdp, count_tc;

/* A function whose value depends on the packet. */
__noinline int size_class(__u32 len)
{
	return len / 100;
}

SEC("xdp")
int see(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	__u32 n = count_xdp;
	struct seen *s = bpf_map_lookup_elem(&seen_xdp, &n);
	__u8 *p = data;
	__u32 i;

	if (!s)
		return XDP_PASS;
	s->len = end - data;
	s->returned = XDP_PASS;
	for (i = 0; i < HEAD; i++) {
		if ((void *)(p + i + 1) > end)
			break;
		s->head[i] = p[i];
	}
	s->class = size_class(s->len);
	count_xdp = n + 1;
	return XDP_PASS;
}

/* Its values are TC_ACT_OK, UNSPEC, SHOT and PIPE, by the length modulo 4. */
SEC("tc")
int see_tc(struct __sk_buff *ctx)
{
	__u32 n = count_tc;
	struct seen *s = bpf_map_lookup_elem(&seen_tc, &n);
	__u32 len = ctx->len, last;

	if (!s)
		return 0;
	s->len = len;
	s->returned = len & 3;
	if (s->returned == 1)
		s->returned = -1; /* TC_ACT_UNSPEC: RECLASSIFY would loop */
	if (len > HEAD)
		len = HEAD;
	last = len - 1;
	opaque(last);
	if (last < HEAD)
		bpf_skb_load_bytes(ctx, 0, s->head, last + 1);
	count_tc = n + 1;
	return s->returned;
}
