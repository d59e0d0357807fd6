//go:build ignore
// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Case D: the tail call hierarchy, and a program that tail-calls itself twice,
 * which stops after so many rounds.
 */
#include "guest.h"

char _license[] SEC("license") = "GPL";

int classifier_0(struct __sk_buff *ctx);
int classifier_1(struct __sk_buff *ctx);
int entry2(struct __sk_buff *ctx);

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 2);
	__uint(key_size, sizeof(__u32));
	__array(values, int(struct __sk_buff *));
} jmp SEC(".maps") = {
	.values = { [0] = classifier_0, [1] = classifier_1 },
};

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(__u32));
	__array(values, int(struct __sk_buff *));
} jmp2 SEC(".maps") = {
	.values = { [0] = entry2 },
};

__u64 count0, count1, count2;
__u64 stop;

static __noinline int subprog_a(struct __sk_buff *ctx)
{
	volatile int ret = 1;

	bpf_tail_call(ctx, &jmp, 0);
	return ret;
}

static __noinline int subprog_b(struct __sk_buff *ctx)
{
	volatile int ret = 1;

	bpf_tail_call(ctx, &jmp, 1);
	return ret;
}

SEC("tc")
int entry(struct __sk_buff *ctx)
{
	subprog_a(ctx);
	subprog_b(ctx);
	return 0;
}

SEC("tc")
int classifier_0(struct __sk_buff *ctx)
{
	count0++;
	subprog_a(ctx);
	return 0;
}

SEC("tc")
int classifier_1(struct __sk_buff *ctx)
{
	count1++;
	subprog_b(ctx);
	return 0;
}

static __noinline int subprog_c(struct __sk_buff *ctx)
{
	volatile int ret = 1;

	bpf_tail_call(ctx, &jmp2, 0);
	return ret;
}

SEC("tc")
int entry2(struct __sk_buff *ctx)
{
	if (count2 >= stop)
		return 0;
	count2++;
	subprog_c(ctx);
	subprog_c(ctx);
	return 0;
}
