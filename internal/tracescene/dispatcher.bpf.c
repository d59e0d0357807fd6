//go:build ignore
// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* A dispatcher of ten modules: plain functions, replaced ones and tail calls,
 * nested. Each passes the packet on with CONTINUE, but the one that the
 * packet's sequence number names, which gives the verdict. All count, and leave
 * their mark in the packet's record.
 */
#include "tracescene.h"

char _license[] SEC("license") = "GPL";

#define CONTINUE 31

/* As dispatcherNames. */
enum {
	DISPATCHER,
	STUB0, STUB1, STUB2, STUB3, STUB4, STUB5, STUB6, STUB7, STUB8, STUB9,
	EXT0, EXT3, EXT3_SUB, EXT6, EXT8,
	TAIL2, TAIL4, TAIL4_JUMP, TAIL4B, PLAIN5, TAIL6,
	TAIL8, TAIL8_PLAIN, TAIL8_HOOK, TAIL8_JUMP, TAIL8B, TAIL8B_JUMP, TAIL8C,
};

/* What happened to the packet of a sequence number. */
struct record {
	__u64 path; /* bits by number of who was entered */
	__u32 verdict;
	__u32 times;
};

#define PACKETS (1 << 16)

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, PACKETS);
	__type(key, __u32);
	__type(value, struct record);
} records SEC(".maps");

int tail2(struct xdp_md *ctx);
int tail4(struct xdp_md *ctx);
int tail4b(struct xdp_md *ctx);
int tail8(struct xdp_md *ctx);
int tail8b(struct xdp_md *ctx);
int tail8c(struct xdp_md *ctx);

/* Slots 6 and 7 are empty. */
struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 16);
	__uint(key_size, sizeof(__u32));
	__array(values, int(struct xdp_md *));
} jmp SEC(".maps") = {
	.values = {
		[2] = tail2, [4] = tail4, [5] = tail4b,
		[8] = tail8, [9] = tail8b, [10] = tail8c,
	},
};

/* ext6's own: before 6.2 (1c123c567fb1) a program that replaces another and
 * one that does not could not be used with the same array.
 */
struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(__u32));
} jmp_ext SEC(".maps");

static __always_inline void enter(struct xdp_md *ctx, __u32 who)
{
	__u32 seq = sequence(ctx);
	struct record *r;

	entered(who);
	r = bpf_map_lookup_elem(&records, &seq);
	if (r)
		r->path |= 1ULL << who;
}

/* The verdict of a module about the packet. */
static __always_inline int decide(struct xdp_md *ctx, __u32 module)
{
	__u32 seq = sequence(ctx);

	if (seq == NO_SEQUENCE || seq % 10 != module)
		return CONTINUE;
	switch (seq / 10 % 4) {
	case 0:
		return XDP_PASS;
	case 1:
		return XDP_DROP;
	case 2:
		return XDP_TX;
	}
	return XDP_ABORTED;
}

#define STUB(n)                                          \
	__noinline int stub##n(struct xdp_md *ctx)       \
	{                                                \
		volatile int ret = CONTINUE;             \
							 \
		use(ctx);                                \
		return ret;                              \
	}

#define JUMPING(name, slot)                              \
	int name(struct xdp_md *ctx)                     \
	{                                                \
		volatile int ret = CONTINUE;             \
							 \
		bpf_tail_call(ctx, &jmp, slot);          \
		return ret;                              \
	}

STUB(0)
__noinline JUMPING(stub2, 2)
STUB(3)
__noinline JUMPING(stub4, 4)
/* As what replaces it, for that may not do more with a packet (1a4607ffba35). */
__noinline JUMPING(stub6, 6)
__noinline JUMPING(stub7, 7)
__noinline JUMPING(stub8, 8)

__noinline int stub1(struct xdp_md *ctx)
{
	return decide(ctx, 1);
}

static __noinline int plain5(struct xdp_md *ctx)
{
	enter(ctx, PLAIN5);
	return returned(PLAIN5, decide(ctx, 5));
}

__noinline int stub5(struct xdp_md *ctx)
{
	int verdict = plain5(ctx);

	return verdict;
}

__noinline int stub9(struct xdp_md *ctx)
{
	return decide(ctx, 9);
}

/* Runs a module; a verdict ends it all. */
#define run(n)                                           \
	do {                                             \
		enter(ctx, STUB##n);                     \
		verdict = returned(STUB##n, stub##n(ctx)); \
		if (verdict != CONTINUE)                 \
			goto decided;                    \
	} while (0)

SEC("xdp")
int dispatcher(struct xdp_md *ctx)
{
	struct record *r;
	int verdict;
	__u32 seq;

	enter(ctx, DISPATCHER);
	run(0);
	run(1);
	run(2);
	run(3);
	run(4);
	run(5);
	run(6);
	run(7);
	run(8);
	run(9);
	verdict = XDP_PASS;
decided:
	seq = sequence(ctx);
	r = bpf_map_lookup_elem(&records, &seq);
	if (r) {
		r->verdict = verdict;
		r->times++;
	}
	return returned(DISPATCHER, verdict);
}

SEC("freplace/stub0")
int ext0(struct xdp_md *ctx)
{
	enter(ctx, EXT0);
	return returned(EXT0, decide(ctx, 0));
}

SEC("xdp")
int tail2(struct xdp_md *ctx)
{
	enter(ctx, TAIL2);
	return returned(TAIL2, decide(ctx, 2));
}

static __noinline int ext3_sub(struct xdp_md *ctx)
{
	enter(ctx, EXT3_SUB);
	return returned(EXT3_SUB, decide(ctx, 3));
}

SEC("freplace/stub3")
int ext3(struct xdp_md *ctx)
{
	int verdict;

	enter(ctx, EXT3);
	verdict = ext3_sub(ctx);
	return returned(EXT3, verdict);
}

static __noinline JUMPING(tail4_jump, 5)

SEC("xdp")
int tail4(struct xdp_md *ctx)
{
	int verdict;

	enter(ctx, TAIL4);
	enter(ctx, TAIL4_JUMP);
	verdict = returned(TAIL4_JUMP, tail4_jump(ctx));
	return returned(TAIL4, verdict);
}

SEC("xdp")
int tail4b(struct xdp_md *ctx)
{
	enter(ctx, TAIL4B);
	return returned(TAIL4B, decide(ctx, 4));
}

/* A program that replaces another and makes a tail call: it is entered, and
 * returns only if that is refused.
 */
SEC("freplace/stub6")
int ext6(struct xdp_md *ctx)
{
	enter(ctx, EXT6);
	bpf_tail_call(ctx, &jmp_ext, 0);
	return returned(EXT6, CONTINUE);
}

/* Instead, where that cannot be loaded. */
SEC("freplace/stub6")
int ext6_plain(struct xdp_md *ctx)
{
	enter(ctx, EXT6);
	return returned(EXT6, decide(ctx, 6));
}

static __always_inline int six(struct xdp_md *ctx)
{
	enter(ctx, TAIL6);
	return returned(TAIL6, decide(ctx, 6));
}

SEC("xdp")
int tail6(struct xdp_md *ctx)
{
	return six(ctx);
}

/* The same for kernels on which ext6 tail-calls only its like. */
SEC("freplace/stub6")
int tail6_ext(struct xdp_md *ctx)
{
	return six(ctx);
}

static __noinline int tail8_plain(struct xdp_md *ctx)
{
	__u32 seq = sequence(ctx);

	enter(ctx, TAIL8_PLAIN);
	if (seq / 40 % 2)
		return returned(TAIL8_PLAIN, CONTINUE);
	return returned(TAIL8_PLAIN, decide(ctx, 8));
}

/* Replaced where a program of a program array may be. */
__noinline int tail8_hook(struct xdp_md *ctx)
{
	volatile int ret = CONTINUE;

	use(ctx);
	return ret;
}

SEC("freplace/tail8_hook")
int ext8(struct xdp_md *ctx)
{
	enter(ctx, EXT8);
	return returned(EXT8, CONTINUE);
}

static __noinline JUMPING(tail8_jump, 9)

SEC("xdp")
int tail8(struct xdp_md *ctx)
{
	int verdict;

	enter(ctx, TAIL8);
	verdict = tail8_plain(ctx);
	if (verdict != CONTINUE)
		return returned(TAIL8, verdict);
	enter(ctx, TAIL8_HOOK);
	verdict = returned(TAIL8_HOOK, tail8_hook(ctx));
	if (verdict != CONTINUE)
		return returned(TAIL8, verdict);
	enter(ctx, TAIL8_JUMP);
	verdict = returned(TAIL8_JUMP, tail8_jump(ctx));
	return returned(TAIL8, verdict);
}

static __noinline JUMPING(tail8b_jump, 10)

SEC("xdp")
int tail8b(struct xdp_md *ctx)
{
	int verdict;

	enter(ctx, TAIL8B);
	enter(ctx, TAIL8B_JUMP);
	verdict = returned(TAIL8B_JUMP, tail8b_jump(ctx));
	return returned(TAIL8B, verdict);
}

SEC("xdp")
int tail8c(struct xdp_md *ctx)
{
	enter(ctx, TAIL8C);
	return returned(TAIL8C, decide(ctx, 8));
}
