//go:build ignore
// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Maps whose contents have types worth printing, and programs with
 * subprograms, global data and source lines.
 */
#include "scene.h"

char _license[] SEC("license") = "GPL";

enum color { RED, GREEN = 5, BLUE = 0x7fffffff };

struct point {
	__s32 x, y;
};

union number {
	__u64 whole;
	struct {
		__u32 low, high;
	};
	unsigned char bytes[8];
};

typedef __u32 port_t;

struct record {
	__u64 id;
	char name[16];
	struct point at;
	union number num;
	enum color color;
	__u32 flag_a : 1;
	__u32 flag_b : 3;
	__s32 level : 12;
	__u32 rest : 16;
	__s16 temps[3];
	struct point corners[2];
	unsigned char mac[6];
	_Bool on;
	const void *self;
	struct {
		port_t in;
		__u8 raw[4];
	} tail;
};

/* Global data: .rodata, .data and .bss. */
const volatile __u32 limit = 1500;
const volatile char greeting[12] = "hello, zoo";
struct point origin = { -3, 4 };
__u64 seen[4] = { 11, 22, 33, 44 };
__u64 packets_total;
struct record last;
/* A section of one's own. */
__u32 knob SEC(".data.knobs") = 42;

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 64);
	__type(key, __u32);
	__type(value, struct record);
} records SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 64);
	__type(key, char[16]);
	__type(value, __u64);
} by_name SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 3);
	__type(key, __u32);
	__type(value, struct record);
} slots SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, 16);
	__type(key, struct point);
	__type(value, struct point);
} percpu_points SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, __u64);
} counters SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 32);
	__type(key, __u64);
	__type(value, enum color);
} recent SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_PERCPU_HASH);
	__uint(max_entries, 32);
	__type(key, __u32);
	__type(value, __u32);
} recent_percpu SEC(".maps");

struct route_key {
	__u32 prefixlen;
	__u8 addr[4];
};

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 16);
	__type(key, struct route_key);
	__type(value, union number);
} routes SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2);
	__uint(map_flags, BPF_F_RDONLY_PROG);
	__type(key, __u32);
	__type(value, struct point);
} frozen SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_QUEUE);
	__uint(max_entries, 4);
	__uint(key_size, 0);
	__uint(value_size, sizeof(struct point));
} queue SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_STACK);
	__uint(max_entries, 4);
	__uint(key_size, 0);
	__uint(value_size, sizeof(__u32));
} stack SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} events SEC(".maps");

struct inner {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8);
	__type(key, __u32);
	__type(value, struct point);
} inner SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH_OF_MAPS);
	__uint(max_entries, 8);
	__type(key, __u32);
	__array(values, struct inner);
} outer_hash SEC(".maps") = {
	.values = { [7] = &inner },
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 4);
	__type(key, __u32);
	__array(values, struct inner);
} outer_array SEC(".maps") = {
	.values = { [2] = &inner },
};

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __s32);
	__type(value, struct point);
} of_sockets SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_INODE_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __s32);
	__type(value, struct point);
} of_inodes SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __s32);
	__type(value, struct point);
} of_tasks SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_CGRP_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __s32);
	__type(value, struct point);
} of_cgroups SEC(".maps");

struct cgroup_key {
	__u64 cgroup;
	__u32 attach_type;
};

struct {
	__uint(type, BPF_MAP_TYPE_CGROUP_STORAGE);
	__type(key, struct cgroup_key);
	__type(value, struct point);
} cgroup_local SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_CGROUP_STORAGE);
	__type(key, struct cgroup_key);
	__type(value, __u64);
} cgroup_percpu SEC(".maps");

int zoo_tc_even(struct __sk_buff *ctx);
int zoo_tc_odd(struct __sk_buff *ctx);

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 6);
	__uint(key_size, sizeof(__u32));
	__array(values, int(struct __sk_buff *));
} jumps SEC(".maps") = {
	.values = {
		[0] = zoo_tc_even,
		[3] = zoo_tc_odd,
	},
};

static __noinline void count(__u32 slot)
{
	__u64 *n = bpf_map_lookup_elem(&counters, &slot);

	if (n)
		*n += 1;
}

/* Global: verified on its own. */
__noinline int size_class(__u32 len)
{
	if (len > limit)
		return 2;
	return len > 64;
}

SEC("xdp")
int zoo_xdp(struct xdp_md *ctx)
{
	__u32 len = ctx->data_end - ctx->data;
	struct record *r;
	__u32 key = 1;

	packets_total++;
	last.id = len;
	seen[len & 3]++;
	count(size_class(len));
	r = bpf_map_lookup_elem(&records, &key);
	if (r)
		r->at.x += origin.x;
	key = knob;
	bpf_ringbuf_output(&events, &key, sizeof(key), 0);
	return 2;
}

SEC("tc")
int zoo_tc_even(struct __sk_buff *ctx)
{
	count(0);
	return 0;
}

SEC("tc")
int zoo_tc_odd(struct __sk_buff *ctx)
{
	count(3);
	return 0;
}

SEC("tc")
int zoo_tc(struct __sk_buff *ctx)
{
	if (ctx->mark & 1)
		bpf_tail_call(ctx, &jumps, 3);
	bpf_tail_call(ctx, &jumps, ctx->mark & 7);
	count(1);
	return 0;
}

SEC("tc")
int a_program_with_a_name_far_longer_than_fifteen(struct __sk_buff *ctx)
{
	char fmt[] = "a long name";

	bpf_trace_printk(fmt, sizeof(fmt));
	return 0;
}

/* Enough stack to get a private one where kernels have them (6.13). */
SEC("kprobe")
int zoo_private_stack(void *ctx)
{
	volatile __u64 buf[40];
	__u32 i;

	for (i = 0; i < 40; i++)
		buf[i] = i;
	count(buf[bpf_get_smp_processor_id() & 31]);
	return 0;
}

SEC("cgroup_skb/egress")
int zoo_cgroup_storage(struct __sk_buff *ctx)
{
	struct point *p = bpf_get_local_storage(&cgroup_local, 0);
	__u64 *n = bpf_get_local_storage(&cgroup_percpu, 0);

	p->x++;
	*n += 1;
	return 1;
}
