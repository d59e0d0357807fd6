/* What probe.bpf.c needs of the kernel. SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef PROBE_BPF_H
#define PROBE_BPF_H

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef int s32;
typedef unsigned long long u64;
typedef long long s64;

#define SEC(name) __attribute__((section(name), used))
#define __noinline __attribute__((noinline))
#define __inline inline __attribute__((always_inline))
#define core __attribute__((preserve_access_index))

/* Helpers by number: enum bpf_func_id of include/uapi/linux/bpf.h. */
static void *(*map_lookup)(void *map, const void *key) = (void *)1;
static long (*map_update)(void *map, const void *key, const void *value, u64 flags) = (void *)2;
static long (*map_delete)(void *map, const void *key) = (void *)3;
static u64 (*ktime_get_ns)(void) = (void *)5;
static u32 (*get_smp_processor_id)(void) = (void *)8;
static u64 (*get_current_pid_tgid)(void) = (void *)14;
static u64 (*get_current_uid_gid)(void) = (void *)15;
static long (*get_current_comm)(void *buf, u32 size) = (void *)16;
static u64 (*get_current_task)(void) = (void *)35;
static long (*get_stack)(void *ctx, void *buf, u32 size, u64 flags) = (void *)67;
static u64 (*get_current_cgroup_id)(void) = (void *)80;
static long (*probe_read)(void *dst, u64 size, const void *src) = (void *)113; /* of the kernel */
static void *(*ringbuf_reserve)(void *ringbuf, u64 size, u64 flags) = (void *)131;
static void (*ringbuf_submit)(void *data, u64 flags) = (void *)132;
static u64 (*get_attach_cookie)(void *ctx) = (void *)174; /* 5.15 */

/* A function of the kernel (7.0 for what is used here); Go puts its number in. */
extern _Bool bpf_session_is_return(void *ctx) __attribute__((section(".ksyms")));

/* struct pt_regs of x86-64, which programs of probes and of perf events see. */
struct pt_regs {
	u64 r15, r14, r13, r12, bp, bx, r11, r10, r9, r8, ax, cx, dx, si, di;
	u64 orig_ax, ip, cs, flags, sp, ss;
};

/* Structs of the kernel, relocated by name. */
struct ns_common {
	u32 inum;
} core;
struct net {
	struct ns_common ns;
} core;
typedef struct {
	struct net *net;
} possible_net_t;
struct net_device {
	s32 ifindex;
	possible_net_t nd_net;
} core;
struct sock_common {
	possible_net_t skc_net;
} core;
struct sock {
	struct sock_common __sk_common;
} core;
struct sk_buff {
	struct net_device *dev;
	struct sock *sk;
	u32 len;
	u16 network_header;
	u16 mac_header;
	u32 tail;
	u8 *head;
	u8 *data;
} core;
struct xdp_rxq_info {
	struct net_device *dev;
} core;
struct xdp_buff {
	u8 *data;
	u8 *data_end;
	u8 *data_hard_start;
	struct xdp_rxq_info *rxq;
} core;
struct xdp_frame {
	u8 *data;
	u32 len; /* u16 before 6.14 */
	struct net_device *dev_rx;
} core;
struct nsproxy {
	struct net *net_ns;
} core;
struct task_struct {
	struct nsproxy *nsproxy;
} core;

#endif
