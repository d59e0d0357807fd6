//go:build ignore
// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Variants of the conntrack kfunc bug (fixed by 6f6183a39533): the lookup
 * refuses its options and stores -EINVAL, four bytes, at opts+4. Where the
 * options lie less than eight bytes below a frame pointer, the store reaches
 * into the saved frame pointer of the caller.
 *
 * fp-N in a comment is where the options are in the frame of their function;
 * the store then goes to fp-N+4 and the three bytes behind.
 */
#include "guest.h"

char _license[] SEC("license") = "GPL";

struct nf_conn {
	unsigned long status;
} preserve_access_index;

struct bpf_sock_tuple {
	__u32 saddr;
} preserve_access_index;

struct bpf_ct_opts {
	__s32 netns_id;
	__s32 error;
} preserve_access_index;

extern struct nf_conn *bpf_skb_ct_lookup(struct __sk_buff *skb_ctx, struct bpf_sock_tuple *bpf_tuple,
					 __u32 tuple__sz, struct bpf_ct_opts *opts, __u32 opts__sz) __ksym;
extern struct nf_conn *bpf_xdp_ct_lookup(struct xdp_md *xdp_ctx, struct bpf_sock_tuple *bpf_tuple,
					 __u32 tuple__sz, struct bpf_ct_opts *opts, __u32 opts__sz) __ksym;
extern void bpf_ct_release(struct nf_conn *nfct) __ksym;

/* Looks up with the same bytes as tuple and options. */
static __always_inline int look(struct __sk_buff *ctx, void *buf, __u32 size)
{
	struct nf_conn *ct = bpf_skb_ct_lookup(ctx, buf, size, buf, size);

	if (!ct)
		return 0;
	bpf_ct_release(ct);
	return 1;
}

/* xdp: the sibling for XDP; fp-1. */
static __noinline int xdp_lookup(struct xdp_md *ctx)
{
	char buf[1];
	struct nf_conn *ct;

	ct = bpf_xdp_ct_lookup(ctx, (struct bpf_sock_tuple *)buf, 0, (struct bpf_ct_opts *)buf, 0);
	if (!ct)
		return 0;
	bpf_ct_release(ct);
	return 1;
}

SEC("xdp")
int xdp_main(struct xdp_md *ctx)
{
	volatile int verdict = 2;
	int found;

	found = xdp_lookup(ctx);
	return found + verdict;
}

/* size2: a buffer of two bytes, fp-2. */
static __noinline int size2_lookup(struct __sk_buff *ctx)
{
	char buf[2];

	return look(ctx, buf, 0);
}

SEC("tc")
int size2_main(struct __sk_buff *ctx)
{
	volatile int verdict = 7;
	int found;

	found = size2_lookup(ctx);
	return found + verdict;
}

/* size3: three bytes, fp-3, and their true size, which is still wrong. */
static __noinline int size3_lookup(struct __sk_buff *ctx)
{
	volatile char buf[3];

	buf[0] = buf[1] = buf[2] = 0;
	return look(ctx, (void *)buf, sizeof(buf));
}

SEC("tc")
int size3_main(struct __sk_buff *ctx)
{
	volatile int verdict = 7;
	int found;

	found = size3_lookup(ctx);
	return found + verdict;
}

/* size4: the last four bytes of a local, fp-4: a plausible netns_id without the
 * rest. The store just reaches the frame pointer's lower half.
 */
static __noinline int size4_lookup(struct __sk_buff *ctx)
{
	volatile char local[12];

	local[0] = local[8] = local[9] = local[10] = local[11] = 0;
	return look(ctx, (void *)(local + 8), 4) + local[0];
}

SEC("tc")
int size4_main(struct __sk_buff *ctx)
{
	volatile int verdict = 7;
	int found;

	found = size4_lookup(ctx);
	return found + verdict;
}

/* pos5: the options start one byte into a buffer of six, fp-5: the first byte
 * of the error lands in the buffer, three in the saved frame pointer.
 */
static __noinline int pos5_lookup(struct __sk_buff *ctx)
{
	volatile char buf[6];

	buf[1] = 0;
	return look(ctx, (void *)(buf + 1), 1);
}

SEC("tc")
int pos5_main(struct __sk_buff *ctx)
{
	volatile int verdict = 7;
	int found;

	found = pos5_lookup(ctx);
	return found + verdict;
}

/* ptr: the buffer is in the caller, fp-1 there, and the caller's callee makes
 * the call: it damages its caller's caller.
 */
static __noinline int ptr_lookup(struct __sk_buff *ctx, char *buf)
{
	return look(ctx, buf, 0);
}

static __noinline int ptr_buffer(struct __sk_buff *ctx)
{
	char buf[1];
	int found;

	found = ptr_lookup(ctx, buf);
	return found ? ctx->mark : 3;
}

SEC("tc")
int ptr_main(struct __sk_buff *ctx)
{
	volatile int verdict = 7;
	int found;

	found = ptr_buffer(ctx);
	return found + verdict;
}

/* deep: the damage is found in a function between main and the buffer's. */
static __noinline int deep_lookup(struct __sk_buff *ctx)
{
	char buf[1];

	return look(ctx, buf, 0);
}

static __noinline int deep_middle(struct __sk_buff *ctx)
{
	volatile int weight = 5;
	int found;

	found = deep_lookup(ctx);
	return found + weight;
}

SEC("tc")
int deep_main(struct __sk_buff *ctx)
{
	volatile int verdict = 7;
	int sum;

	sum = deep_middle(ctx);
	return sum + verdict;
}

/* main: the program's main function has the buffer, fp-1: the damage is to
 * rbp of the kernel's function that runs programs, bpf_test_run, which keeps
 * the context there and passes it to the program when it runs it again.
 */
SEC("tc")
int main_main(struct __sk_buff *ctx)
{
	char buf[1];

	return look(ctx, buf, 0);
}

/* plain: nothing uses the damaged frame pointer but the epilogue; fp-1. */
static __noinline int plain_lookup(struct __sk_buff *ctx)
{
	char buf[1];

	return look(ctx, buf, 0);
}

SEC("tc")
int plain_main(struct __sk_buff *ctx)
{
	return plain_lookup(ctx) + 2;
}

/* ret: the same with one damaged byte, the lowest: fp-7. The epilogue leaves
 * through some other place of the stack.
 */
static __noinline int ret_lookup(struct __sk_buff *ctx)
{
	volatile char buf[7];

	buf[0] = 0;
	return look(ctx, (void *)buf, 1);
}

SEC("tc")
int ret_main(struct __sk_buff *ctx)
{
	return ret_lookup(ctx) + 2;
}
