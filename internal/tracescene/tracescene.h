/* What the scenes' programs share. SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef TRACESCENE_H
#define TRACESCENE_H

#include "guest.h"

enum { XDP_ABORTED, XDP_DROP, XDP_PASS, XDP_TX };

/* Callers of a function that leaves its argument unused would pass garbage. */
#define use(x) asm volatile("" : : "r"(x))

/* Keeps the compiler from moving a bound to where verifiers do not see it. */
#define opaque(x) asm volatile("" : "+r"(x))

/* What a program or function of a scene did: how often it was entered, and
 * what it returned. A value is counted by its lowest byte. A function that
 * makes a tail call is counted by its caller, or never returns.
 */
#define VALUES 256

struct count {
	__u64 entered;
	__u64 returned[VALUES];
};

/* Per CPU, because 5.10 has no atomic operation that all compilers emit. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 48);
	__type(key, __u32);
	__type(value, struct count);
} counts SEC(".maps");

static __always_inline void entered(__u32 who)
{
	struct count *c = bpf_map_lookup_elem(&counts, &who);

	if (c)
		c->entered++;
}

static __always_inline int returned(__u32 who, int value)
{
	struct count *c = bpf_map_lookup_elem(&counts, &who);
	__u64 slot = value;

	if (!c)
		return value;
	opaque(slot);
	slot &= VALUES - 1;
	c->returned[slot]++;
	return value;
}

/* The packets that the scene sends: Ethernet, IPv4, UDP, and as payload a
 * magic number and the packet's sequence number, both in network order.
 */
#define MAGIC 0x6b736c65
#define PAYLOAD 42
#define NO_SEQUENCE 0xffffffff

static __always_inline __u32 sequence(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	__u32 *payload = data + PAYLOAD;

	if (data + PAYLOAD + 8 > end || payload[0] != __builtin_bswap32(MAGIC))
		return NO_SEQUENCE;
	return __builtin_bswap32(payload[1]);
}

/* For the sending end: what is sent back needs a program there. */
SEC("xdp")
int sender(struct xdp_md *ctx)
{
	return XDP_PASS;
}

#endif
