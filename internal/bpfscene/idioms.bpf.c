//go:build ignore
// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Programs with the idioms of tail calls and extensions. They are loaded and
 * attached to each other, and never run.
 */
#include "scene.h"

char _license[] SEC("license") = "GPL";

/* Callers of a function that leaves its argument unused would pass garbage. */
#define use(x) asm volatile("" : : "r"(x))

/* A firewall of modules: stubs that are replaced, or that tail-call. */
int xdp_mod(struct xdp_md *ctx);

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 8);
	__uint(key_size, sizeof(__u32));
	__array(values, int(struct xdp_md *));
} prog_array SEC(".maps") = {
	.values = { [3] = xdp_mod },
};

__noinline int module1(struct xdp_md *ctx)
{
	volatile int retval = 11;

	use(ctx);
	return retval;
}

__noinline int module2(struct xdp_md *ctx)
{
	volatile int retval = 22;

	use(ctx);
	return retval;
}

__noinline int module3(struct xdp_md *ctx)
{
	volatile int retval = 33;

	bpf_tail_call(ctx, &prog_array, 3);
	return retval;
}

SEC("xdp")
int xdp_main(struct xdp_md *ctx)
{
	int verdict = module1(ctx);

	if (verdict == 11)
		verdict = module2(ctx);
	if (verdict == 22)
		verdict = module3(ctx);
	return verdict;
}

SEC("xdp")
int xdp_mod(struct xdp_md *ctx)
{
	return 2;
}

SEC("freplace/module1")
int fw_mod(struct xdp_md *ctx)
{
	volatile int retval = 2;

	use(ctx);
	return retval;
}

SEC("fentry/module3")
int module3_entry(void *ctx)
{
	return 0;
}

SEC("fexit/module3")
int module3_exit(void *ctx)
{
	return 0;
}

/* Traces the extension. */
SEC("fentry/fw_mod")
int fw_mod_entry(void *ctx)
{
	return 0;
}

SEC("fexit/xdp_main")
int xdp_main_exit(void *ctx)
{
	return 0;
}

/* The tail call hierarchy. */
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

__u64 count0, count1;

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
	count0++;
	subprog_c(ctx);
	subprog_c(ctx);
	return 0;
}
