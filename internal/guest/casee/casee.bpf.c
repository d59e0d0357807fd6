//go:build ignore
// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* The conntrack kfunc that stores its error through an options pointer of
 * size 0. lookup's buf lies one byte below its frame pointer, so the store of
 * four bytes at opts+4 lands in the saved frame pointer of call_kfunc, which
 * then faults reading its own stack. Fixed by 6f6183a39533.
 */
#include "guest.h"

char _license[] SEC("license") = "GPL";

struct nf_conn {
	unsigned long status;
} preserve_access_index;

/* Sizes do not matter: no field is read here, and the kernel is told 0. */
struct bpf_sock_tuple {
	__u32 saddr;
} preserve_access_index;

struct bpf_ct_opts {
	__s32 netns_id;
	__s32 error;
} preserve_access_index;

extern struct nf_conn *bpf_skb_ct_lookup(struct __sk_buff *skb_ctx, struct bpf_sock_tuple *bpf_tuple,
					 __u32 tuple__sz, struct bpf_ct_opts *opts, __u32 opts__sz) __ksym;
extern void bpf_ct_release(struct nf_conn *nfct) __ksym;

static __noinline int lookup(struct __sk_buff *ctx)
{
	char buf[1];
	struct nf_conn *ct;

	ct = bpf_skb_ct_lookup(ctx, (struct bpf_sock_tuple *)buf, 0, (struct bpf_ct_opts *)buf, 0);
	if (!ct)
		return 0;
	bpf_ct_release(ct);
	return 1;
}

SEC("tc")
int call_kfunc(struct __sk_buff *ctx)
{
	volatile int verdict = 7;
	int found;

	found = lookup(ctx);
	return found + verdict;
}
