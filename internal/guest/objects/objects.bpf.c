//go:build ignore
// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Bystanders: programs, maps and links of several kinds that are alive while
 * something else happens.
 */
#include "guest.h"

char _license[] SEC("license") = "GPL";

struct visit {
	__u64 first_ns;
	__u64 count;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 256);
	__type(key, __u32);
	__type(value, struct visit);
} visits SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, __u64);
} packets SEC(".maps");

int pass_all(struct __sk_buff *ctx);
int drop_marked(struct __sk_buff *ctx);

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 4);
	__uint(key_size, sizeof(__u32));
	__array(values, int(struct __sk_buff *));
} verdicts SEC(".maps") = {
	.values = {
		[0] = pass_all,
		[2] = drop_marked,
	},
};

static __noinline void count(__u32 slot)
{
	__u64 *n = bpf_map_lookup_elem(&packets, &slot);

	if (n)
		*n += 1;
}

SEC("raw_tracepoint/sys_enter")
int count_syscalls(void *ctx)
{
	__u32 pid = bpf_get_current_pid_tgid() >> 32;
	struct visit *v = bpf_map_lookup_elem(&visits, &pid);
	struct visit fresh = {};

	if (v) {
		v->count++;
		return 0;
	}
	fresh.first_ns = bpf_ktime_get_ns();
	fresh.count = 1;
	bpf_map_update_elem(&visits, &pid, &fresh, 0);
	return 0;
}

SEC("tc")
int pass_all(struct __sk_buff *ctx)
{
	count(0);
	return 0;
}

SEC("tc")
int drop_marked(struct __sk_buff *ctx)
{
	count(2);
	return ctx->mark ? 2 : 0;
}

SEC("tc")
int classify(struct __sk_buff *ctx)
{
	bpf_tail_call(ctx, &verdicts, ctx->mark & 3);
	count(1);
	return 0;
}

SEC("xdp")
int count_lo(struct xdp_md *ctx)
{
	count(3);
	return 2;
}

SEC("fentry/count_lo")
int see_count_lo(void *ctx)
{
	count(1);
	return 0;
}
