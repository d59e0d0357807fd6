//go:build ignore

/* Programs that observe calls. SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
 *
 * Each is a template: package probe puts a point's constants and generated
 * functions into a copy, and the verifier leaves out what the constants rule
 * out, so that a point pays only for what it uses.
 */
#include "probe.bpf.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* A constant of the point: a 64-bit load that Go finds by this number. */
#define K(name) ({ u64 k_; asm volatile("%0 = %1 ll" : "=r"(k_) : "i"(0x6b736c7500000000 + K_##name)); k_; })

/* Go has the same list: constants.go. */
enum constant {
	K_POINT,	/* index of the point */
	K_COOKIE,	/* or the attachment's cookie is the index */
	K_KIND,		/* of records made at once */
	K_NARGS,
	K_DIRECT,	/* the verifier knows the types of all arguments */
	K_RETURNS,	/* there is a return value to read */
	K_SELF,		/* process to leave out */
	K_TASKSTACK,	/* offset of task_struct.stack */
	K_PID,
	K_COMM,		/* compare with the two words: */
	K_COMM0,
	K_COMM1,
	K_CGROUP,
	K_NETNS,
	K_MINIMUM,	/* duration, ns */
	K_TREE,
	K_MODE,
	K_BYRETURN,
	K_FULL,		/* generated code reads all of struct call */
	K_FILTER,
	K_SHOW,
	K_EXITFILTER,
	K_EXITSHOW,
	K_SLOTS,	/* bytes */
	K_PACKET,	/* its kind */
	K_PACKETARG,
	K_PACKETFILTER,
	K_RAWFILTER,
	K_SNAP,		/* bytes, a multiple of 8 */
	K_TRACK,
	K_FRESH,	/* each call is about a new packet */
	K_STACK,	/* bytes */
	K_RECORD,	/* bytes of a record, and where its parts are: */
	K_ATSLOTS,
	K_ATPACKET,
	K_ATSTACK,
	K_ATSNAP,	/* in struct open: behind the slots */
	K_ATTRACE,	/* the stack, behind that */
	K_RESIDENT,	/* elements to keep in the map of open calls */
	K_NEEDENTRY,	/* whether a call is wanted shows at its entry only */
	K_SPENTRY,	/* to add to the stack pointer for the frame's address */
	K_SPEXIT,
	K_N
};

enum { EVENTS, COUNT, HIST };
enum { NO_PACKET, SKB, XDP_BUFF, XDP_FRAME };
enum { RETURNED = 1, ENTERED, FIRED };
enum { NO_SLOTS = 1 };
enum form { TRAMP, REGS };

/* abi.go has the offsets. */
struct call {
	u64 args[12];
	u64 ret, start, now, pid_tgid, uid_gid, cgroup;
	u32 cpu, faults;
	char comm[16];
};
struct packet {
	u64 start;
	u32 head, len, undecided, pad;
};

/* What is kept of a packet; then come the bytes. */
struct seen {
	u64 id;
	u32 len, kept, ifindex, netns, raw, pad;
};
struct id {
	u64 frame, start;
};
/* A call under way, or the memory of one that was; then come slots and the
 * packet's bytes. */
struct open {
	struct call call; /* start is 0 if none is under way */
	struct id parent;
	u32 point, has_packet;
	struct seen packet;
};
/* A record; then come arguments, slots, packet and stack. */
struct record {
	u32 point;
	u8 kind, flags;
	u16 pad;
	u64 frame, start, end;
	struct id parent;
	u64 ret, pid_tgid;
	char comm[16];
	u32 cpu, faults;
	u64 args[];
};
struct record *record_type SEC(".data.types"); /* so that it is described */
enum constant constant_type SEC(".data.types");
struct count {
	u32 point, bucket;
	u64 ret;
};
struct lost {
	u64 buffer, open, undecided, counts;
};

/* Maps by name: Go makes them, of the sizes that the session needs. */
#define MAP(name, t, k, v) struct { int (*type)[t]; int (*max_entries)[1]; typeof(k) *key; typeof(v) *value; } name SEC(".maps")
struct { int (*type)[27]; int (*max_entries)[4096]; } records SEC(".maps");
MAP(open_calls, 1, u64, struct open);
MAP(blank, 2, u32, struct open);
MAP(innermost, 9, u64, struct id);
MAP(lost, 6, u32, struct lost);
MAP(totals, 6, u32, u64);
MAP(counts, 5, struct count, u64);
MAP(tracked, 9, u64, u64);

volatile u32 armed SEC(".data.armed") = 0;   /* 1: calls are observed; 2: only their ends */
volatile s64 resident SEC(".data.resident") = 0; /* elements of open_calls */

/* Functions whose bodies are generated. */
#define GENERATED(name, type) \
	static __noinline int name(type *a, void *b) \
	{ \
		int r; \
		asm volatile("%0 = 0" : "=r"(r) : "r"(a), "r"(b) : "memory"); \
		return r; \
	}
GENERATED(gen_filter, struct call)
GENERATED(gen_show, struct call)
GENERATED(gen_exit_filter, struct call)
GENERATED(gen_exit_show, struct call)
GENERATED(gen_packet, struct packet)
GENERATED(gen_raw_packet, struct packet)

#define add(p, v) asm volatile("lock *(u64 *)(%0 + 0) += %1" : : "r"(p), "r"(v) : "memory")
#define miss(what) ({ u32 zero_ = 0; struct lost *l_ = map_lookup(&lost, &zero_); if (l_) add(&l_->what, 1LL); })
#define get(dst, src) probe_read(&(dst), sizeof(dst), &(src))

/* Pointers that the verifier knows to be such cannot be calculated with, nor be
 * keys; in memory that was added to they are numbers. */
static __inline u64 number(void *ctx)
{
	volatile u64 n = 0;

	add(&n, ctx);
	return n;
}

static __inline u32 point_of(void *ctx)
{
	return K(COOKIE) ? get_attach_cookie(ctx) : K(POINT);
}

/* Arguments, at the entry; and of trampolines at the return. */
static __inline void get_args(void *ctx, enum form form, u64 *to, int direct)
{
	u64 *from = ctx;
	u64 n = K(NARGS);

	if (form == REGS) {
		struct pt_regs *r = ctx;

		if (n > 0) to[0] = r->di;
		if (n > 1) to[1] = r->si;
		if (n > 2) to[2] = r->dx;
		if (n > 3) to[3] = r->cx;
		if (n > 4) to[4] = r->r8;
		if (n > 5) to[5] = r->r9;
	} else if (direct && K(DIRECT)) {
#define ARG(i) if (n > i) *(volatile u64 *)&to[i] = *(volatile u64 *)&from[i]
		ARG(0); ARG(1); ARG(2); ARG(3); ARG(4); ARG(5);
		ARG(6); ARG(7); ARG(8); ARG(9); ARG(10); ARG(11);
	} else if (n > 0) {
		probe_read(to, n * 8, from);
	}
}

static __inline u64 get_ret(void *ctx, enum form form)
{
	u64 *from = ctx;
	u64 n = K(NARGS), ret = 0;

	if (form == REGS)
		return ((struct pt_regs *)ctx)->ax;
	if (!K(RETURNS))
		return 0;
	if (K(DIRECT)) {
#define RET(i) if (n == i) return *(volatile u64 *)&from[i]
		RET(0); RET(1); RET(2); RET(3); RET(4); RET(5); RET(6);
		RET(7); RET(8); RET(9); RET(10); RET(11); RET(12);
	}
	probe_read(&ret, sizeof(ret), (void *)from + n * 8);
	return ret;
}

/* Who reads the records makes calls, too. An interrupt's are not its own: they
 * are on another stack. */
static __inline int is_self(u64 id, u64 frame)
{
	u64 stack = 0;

	if (!K(SELF) || id >> 32 != K(SELF))
		return 0;
	if (!K(TASKSTACK))
		return 1;
	probe_read(&stack, sizeof(stack), (void *)get_current_task() + K(TASKSTACK));
	return frame - stack < 16384; /* THREAD_SIZE */
}

static __inline int wanted_process(u64 id, u64 frame)
{
	return !is_self(id, frame) && (!K(PID) || id >> 32 == K(PID));
}

static __inline int wanted_task(void)
{
	if (K(COMM)) {
		union { char b[16]; u64 w[2]; } c = {};

		get_current_comm(c.b, sizeof(c.b));
		if (c.w[0] != K(COMM0) || c.w[1] != K(COMM1))
			return 0;
	}
	if (K(CGROUP) && get_current_cgroup_id() != K(CGROUP))
		return 0;
	if (K(NETNS) && !K(PACKET)) {
		struct task_struct *t = (void *)get_current_task();
		struct nsproxy *p = 0;
		struct net *n = 0;
		u32 inum = 0;

		get(p, t->nsproxy);
		get(n, p->net_ns);
		get(inum, n->ns.inum);
		if (inum != K(NETNS))
			return 0;
	}
	return 1;
}

/* What generated code may ask for. */
static __inline void describe(struct call *c, u64 id, u64 now)
{
	c->now = now;
	c->pid_tgid = id;
	c->cpu = get_smp_processor_id();
	c->faults = 0;
	if (K(FULL)) {
		c->uid_gid = get_current_uid_gid();
		c->cgroup = get_current_cgroup_id();
		get_current_comm(c->comm, sizeof(c->comm));
	}
}

/* Where a packet is, and of what device. head is the buffer it is in. */
static __inline void find_packet(u64 arg, struct seen *s, struct packet *p, u64 *buffer)
{
	struct net_device *dev = 0;
	struct net *net = 0;
	u64 end = 0;

	if (K(PACKET) == SKB) {
		struct sk_buff *skb = (void *)arg;
		u64 head = 0, data = 0, start;
		u32 tail = 0, len = 0;
		u16 mac = 0xffff, network = 0;

		get(head, skb->head);
		get(data, skb->data);
		get(tail, skb->tail);
		get(len, skb->len);
		get(mac, skb->mac_header);
		get(network, skb->network_header);
		get(dev, skb->dev);
		start = data;
		s->raw = 1;
		if (mac != 0xffff && (network == 0 || mac < network)) {
			start = head + mac;
			s->raw = 0;
		} else if (network != 0 && network <= tail) {
			start = head + network;
		}
		end = head + tail;
		p->start = start;
		p->len = len + (u32)(data - start);
		if (!dev) {
			struct sock *sk = 0;

			get(sk, skb->sk);
			if (sk)
				get(net, sk->__sk_common.skc_net.net);
		}
		*buffer = head;
	} else if (K(PACKET) == XDP_BUFF) {
		struct xdp_buff *x = (void *)arg;
		struct xdp_rxq_info *rxq = 0;

		get(p->start, x->data);
		get(end, x->data_end);
		get(*buffer, x->data_hard_start);
		get(rxq, x->rxq);
		get(dev, rxq->dev);
		p->len = end - p->start;
	} else {
		struct xdp_frame *x = (void *)arg;
		u32 len = 0;

		get(p->start, x->data);
		probe_read(&len, __builtin_preserve_field_info(x->len, 1 /* its size */), &x->len);
		get(dev, x->dev_rx);
		end = p->start + len;
		p->len = len;
		*buffer = arg;
	}
	if (dev) {
		get(s->ifindex, dev->ifindex);
		get(net, dev->nd_net.net);
	}
	if (net)
		get(s->netns, net->ns.inum);
	if (end > p->start)
		p->head = end - p->start < p->len ? end - p->start : p->len;
	s->len = p->len;
}

/* Packets once wanted stay so: a sk_buff by its address, and by the buffer it
 * is in whatever is made of it. */
static __inline int follow(struct seen *s, u64 arg, u64 buffer, u64 now, int wanted)
{
	u64 *id = 0;

	if (K(PACKET) == SKB)
		id = map_lookup(&tracked, &arg);
	if (!id && !K(FRESH))
		id = map_lookup(&tracked, &buffer);
	if (id) {
		s->id = *id;
		if (K(PACKET) != SKB)
			return 1;
	} else if (wanted) {
		s->id = now << 8 | (get_smp_processor_id() & 255);
	} else {
		if (K(FRESH))
			map_delete(&tracked, &buffer);
		return 0;
	}
	if (K(PACKET) == SKB)
		map_update(&tracked, &arg, &s->id, 0);
	map_update(&tracked, &buffer, &s->id, 0);
	return 1;
}

/* A function of its own for the sake of the stack. */
static __noinline int see_packet(u64 arg, struct seen *s, u64 now, u64 *start)
{
	struct packet p = {};
	u64 buffer = 0;
	int wanted = 1;

	__builtin_memset(s, 0, sizeof(*s));
	find_packet(arg, s, &p, &buffer);
	if (K(NETNS) && s->netns != K(NETNS))
		return 0;
	if (!s->raw && K(PACKETFILTER))
		wanted = gen_packet(&p, 0);
	else if (s->raw && K(RAWFILTER))
		wanted = gen_raw_packet(&p, 0);
	if (p.undecided)
		miss(undecided);
	if (K(TRACK))
		wanted = follow(s, arg, buffer, now, wanted);
	*start = p.start;
	s->kept = p.head < K(SNAP) ? p.head : K(SNAP);
	return wanted;
}

/* Copies a packet's bytes. */
static __inline void keep_packet(struct seen *s, u64 start, void *to)
{
	u64 n = s->kept;

	if (!K(SNAP))
		return;
	/* In a form that no verifier misunderstands. */
	asm volatile("if %0 <= %1 goto +1\n\t%0 = %1" : "+r"(n) : "r"(K(SNAP)));
	if (probe_read(to, n, (void *)start))
		s->kept = 0;
}

static __inline u64 packet_arg(const u64 *args)
{
	u64 i = K(PACKETARG);

	return *(const u64 *)((const void *)args + i * 8);
}

/* Calls of one task are nested; so are an interrupt's in the task's. */
static __inline u64 task_key(u64 id)
{
	return (u32)id ? (u32)id : 1ULL << 63 | get_smp_processor_id();
}

/* Frames of one stack grow downwards: a call around this one has a higher one.
 * If it has not, its end was missed. */
static __inline int stale(struct id *outer, u64 frame)
{
	return outer->frame >> 14 == frame >> 14 && outer->frame <= frame;
}

static __inline void enclosing(struct id *in, u64 frame, struct id *parent)
{
	*parent = *in;
#pragma unroll
	for (int i = 0; i < 4; i++) {
		struct open *o;

		if (!stale(parent, frame))
			return;
		o = map_lookup(&open_calls, &parent->frame);
		if (!o || o->call.start != parent->start)
			break;
		*parent = o->parent;
	}
	if (stale(parent, frame))
		parent->frame = parent->start = 0;
}

static __inline void enter(u64 id, u64 frame, u64 now, struct id *parent)
{
	u64 task = task_key(id);
	struct id *in = map_lookup(&innermost, &task);

	if (in) {
		struct id p;

		enclosing(in, frame, &p);
		*parent = p;
		in->frame = frame;
		in->start = now;
	} else {
		struct id self = {frame, now};

		parent->frame = parent->start = 0;
		map_update(&innermost, &task, &self, 0);
	}
}

static __inline void leave(u64 id, struct id *parent)
{
	u64 task = task_key(id);
	struct id *in = map_lookup(&innermost, &task);

	if (in)
		*in = *parent;
}

static __inline void surrounding(u64 id, u64 frame, struct id *parent)
{
	u64 task = task_key(id);
	struct id *in = map_lookup(&innermost, &task);

	parent->frame = parent->start = 0;
	if (in) {
		struct id p;

		enclosing(in, frame, &p);
		*parent = p;
	}
}

/* 0 for 0, else one more than the number of the highest bit. */
static __inline u32 bucket_of(u64 v)
{
	u32 n = 0;

	if (!v)
		return 0;
	if (v >> 32) { n += 32; v >>= 32; }
	if (v >> 16) { n += 16; v >>= 16; }
	if (v >> 8) { n += 8; v >>= 8; }
	if (v >> 4) { n += 4; v >>= 4; }
	if (v >> 2) { n += 2; v >>= 2; }
	return n + (v >> 1) + 1;
}

/* slots are {status, value}; a value that was not read counts nowhere. */
static __inline void count(u32 point, u64 ret, const s64 *slots, u64 duration)
{
	struct count key = {.point = point};
	u64 one = 1, *n;

	if (K(MODE) == COUNT && !K(BYRETURN)) {
		n = map_lookup(&totals, &point);
		if (n)
			add(n, one);
		return;
	}
	if (K(BYRETURN))
		key.ret = ret;
	if (K(MODE) == HIST) {
		u64 v = duration;

		if (K(SLOTS)) {
			if (slots[0])
				return;
			v = slots[1];
		}
		key.bucket = bucket_of(v);
	}
	n = map_lookup(&counts, &key);
	if (!n) {
		u64 zero = 0;

		map_update(&counts, &key, &zero, 1 /* BPF_NOEXIST */);
		n = map_lookup(&counts, &key);
	}
	if (n)
		add(n, one);
	else
		miss(counts);
}

static __inline struct record *reserve(void)
{
	struct record *r = ringbuf_reserve(&records, K(RECORD), 0);

	if (!r)
		miss(buffer);
	return r;
}

static __inline void keep_stack(void *ctx, s64 *to)
{
	to[0] = get_stack(ctx, to + 1, K(STACK), 0);
}

/* An element for a call: the one that the last call at this place left, or a
 * new one. */
static __inline struct open *open_at(u64 frame)
{
	struct open *o = map_lookup(&open_calls, &frame), *blank_;
	u32 zero = 0;

	if (o)
		return o;
	blank_ = map_lookup(&blank, &zero);
	if (!blank_)
		return 0;
	if (map_update(&open_calls, &frame, blank_, 0)) {
		miss(open);
		return 0;
	}
	add(&resident, 1LL);
	return map_lookup(&open_calls, &frame);
}

static __inline void forget(struct open *o, u64 frame)
{
	o->call.start = 0;
	if (resident > (s64)K(RESIDENT)) {
		add(&resident, -1LL);
		map_delete(&open_calls, &frame);
	}
}

/* A call that is told at once, from one program: its return where its entry is
 * not looked at, or was not seen; an entry; a tracepoint. */
static __inline int moment(void *ctx, enum form form, u64 frame, u64 id, int late)
{
	u64 kind = late ? RETURNED : K(KIND);
	u64 now, ret = 0, start = 0;
	struct call local, *c = &local;
	struct open *o = 0;
	struct record *r;
	u32 faults = 0;

	if (!wanted_task())
		return 0;
	now = ktime_get_ns();
	if (kind == RETURNED || form == REGS)
		ret = get_ret(ctx, form);
	if (K(PACKET)) { /* the stack has no room for a packet filter's, too */
		o = open_at(frame);
		if (!o)
			return 0;
		o->call.start = 0;
		c = &o->call;
	}
	if (K(FULL) || K(PACKET)) {
		if (!K(PACKET))
			__builtin_memset(&local, 0, sizeof(local));
		get_args(ctx, form, c->args, 0);
		describe(c, id, now);
		c->ret = ret;
		if (o && !see_packet(packet_arg(o->call.args), &o->packet, now, &start))
			goto done;
		if (!late && K(FILTER) && !gen_filter(c, c))
			goto done;
		if (K(EXITFILTER) && !gen_exit_filter(c, c))
			goto done;
	}
	if (K(MODE) != EVENTS && !K(SLOTS)) {
		if (K(MODE) == COUNT)
			count(point_of(ctx), ret, 0, 0);
		goto done;
	}
	if (K(MODE) != EVENTS) {
		s64 slots[2];

		slots[1] = 0;
		slots[0] = 1;
		asm volatile("" : : "r"(slots) : "memory");
		/* Only the first slot, a number, is asked for. */
		if (!late && K(SHOW))
			gen_show(c, slots);
		if (K(EXITSHOW))
			gen_exit_show(c, slots);
		count(point_of(ctx), ret, slots, 0);
		goto done;
	}
	r = reserve();
	if (!r)
		goto done;
	if (K(FULL)) {
		if (!late && K(SHOW))
			gen_show(c, (void *)r + K(ATSLOTS));
		if (K(EXITSHOW) && !(late && K(SHOW)))
			gen_exit_show(c, (void *)r + K(ATSLOTS));
		faults = c->faults;
	}
	r->point = point_of(ctx);
	r->kind = kind;
	r->flags = late && K(SHOW) ? NO_SLOTS : 0;
	r->pad = 0;
	r->frame = frame;
	r->start = 0;
	r->end = now;
	r->parent.frame = r->parent.start = 0;
	if (K(TREE)) {
		struct id p;

		surrounding(id, frame, &p);
		r->parent = p;
	}
	r->ret = ret;
	r->pid_tgid = id;
	get_current_comm(r->comm, sizeof(r->comm));
	r->cpu = get_smp_processor_id();
	r->faults = faults;
	get_args(ctx, form, r->args, 1);
	if (o) {
		struct seen *to = (void *)r + K(ATPACKET);

		keep_packet(&o->packet, start, to + 1);
		*to = o->packet;
	}
	if (K(STACK))
		keep_stack(ctx, (void *)r + K(ATSTACK));
	ringbuf_submit(r, 0);
done:
	if (o)
		forget(o, frame);
	return 0;
}

static __inline int on_moment(void *ctx, enum form form, u64 frame)
{
	u64 id;

	if (!armed)
		return 0;
	id = get_current_pid_tgid();
	if (!wanted_process(id, frame))
		return 0;
	return moment(ctx, form, frame, id, 0);
}

static __inline int on_entry(void *ctx, enum form form, u64 frame)
{
	u64 id, now, start;
	struct open *o;

	if (armed != 1)
		return 0;
	id = get_current_pid_tgid();
	if (!wanted_process(id, frame) || !wanted_task())
		return 0;
	o = open_at(frame);
	if (!o)
		return 0;
	o->call.start = 0;
	get_args(ctx, form, o->call.args, 1);
	now = ktime_get_ns();
	describe(&o->call, id, now);
	o->call.ret = 0;
	if (K(PACKET)) {
		struct seen s;

		if (!see_packet(packet_arg(o->call.args), &s, now, &start))
			goto unwanted;
		keep_packet(&s, start, (void *)o + K(ATSNAP));
		o->packet = s;
	}
	o->call.start = now;
	if (K(FILTER) && !gen_filter(&o->call, o + 1))
		goto unwanted;
	if (K(SHOW))
		gen_show(&o->call, o + 1);
	if (form == REGS && K(STACK))
		keep_stack(ctx, (void *)o + K(ATTRACE));
	o->point = point_of(ctx);
	if (K(TREE))
		enter(id, frame, now, &o->parent);
	return 0;
unwanted:
	forget(o, frame);
	return 0;
}

static __inline void tell(void *ctx, enum form form, struct open *o, u64 frame, u64 now, u64 ret, u64 id)
{
	struct record *r = reserve();
	u64 n = K(NARGS);

	if (!r)
		return;
	r->point = o->point;
	r->kind = RETURNED;
	r->flags = 0;
	r->pad = 0;
	r->frame = frame;
	r->start = o->call.start;
	r->end = now;
	r->parent.frame = r->parent.start = 0;
	if (K(TREE))
		r->parent = o->parent;
	r->ret = ret;
	r->pid_tgid = id;
	get_current_comm(r->comm, sizeof(r->comm));
	r->cpu = get_smp_processor_id();
	r->faults = o->call.faults;
#define KEPT(i) if (n > i) r->args[i] = o->call.args[i]
	KEPT(0); KEPT(1); KEPT(2); KEPT(3); KEPT(4); KEPT(5);
	KEPT(6); KEPT(7); KEPT(8); KEPT(9); KEPT(10); KEPT(11);
	if (K(SLOTS))
		probe_read((void *)r + K(ATSLOTS), K(SLOTS), o + 1);
	if (K(PACKET)) {
		struct seen *to = (void *)r + K(ATPACKET);

		*to = o->packet;
		if (K(SNAP))
			probe_read(to + 1, K(SNAP), (void *)o + K(ATSNAP));
	}
	if (K(STACK)) { /* where a probe's function returns there is none to be had */
		if (form == REGS)
			probe_read((void *)r + K(ATSTACK), K(STACK) + 8, (void *)o + K(ATTRACE));
		else
			keep_stack(ctx, (void *)r + K(ATSTACK));
	}
	ringbuf_submit(r, 0);
}

static __inline int on_exit(void *ctx, enum form form, u64 frame)
{
	u64 id, now, ret;
	struct open *o;

	if (!armed)
		return 0;
	id = get_current_pid_tgid();
	if (!wanted_process(id, frame))
		return 0;
	o = map_lookup(&open_calls, &frame);
	if (!o || !o->call.start || o->point != point_of(ctx) || o->call.pid_tgid != id) {
		if (K(NEEDENTRY))
			return 0;
		return moment(ctx, form, frame, id, 1);
	}
	now = ktime_get_ns();
	if (K(TREE))
		leave(id, &o->parent);
	ret = get_ret(ctx, form);
	o->call.ret = ret;
	o->call.now = now;
	if (K(MINIMUM) && now - o->call.start < K(MINIMUM))
		goto done;
	if (K(EXITFILTER) && !gen_exit_filter(&o->call, o + 1))
		goto done;
	if (K(EXITSHOW))
		gen_exit_show(&o->call, o + 1);
	if (K(MODE) == EVENTS)
		tell(ctx, form, o, frame, now, ret, id);
	else
		count(o->point, ret, (void *)(o + 1), now - o->call.start);
done:
	forget(o, frame);
	return 0;
}

static __inline u64 frame_of(struct pt_regs *r, u64 adjust)
{
	return r->sp + adjust;
}

SEC("fentry/entry") int tramp_entry(void *ctx) { return on_entry(ctx, TRAMP, number(ctx)); }
SEC("fexit/exit") int tramp_exit(void *ctx) { return on_exit(ctx, TRAMP, number(ctx)); }
SEC("fexit/moment") int tramp_moment(void *ctx) { return on_moment(ctx, TRAMP, number(ctx)); }
SEC("fexit/session") int tramp_session(void *ctx)
{
	return bpf_session_is_return(ctx) ? on_exit(ctx, TRAMP, number(ctx)) : on_entry(ctx, TRAMP, number(ctx));
}
SEC("kprobe.multi/entry") int regs_entry(struct pt_regs *r) { return on_entry(r, REGS, frame_of(r, K(SPENTRY))); }
SEC("kprobe.multi/exit") int regs_exit(struct pt_regs *r) { return on_exit(r, REGS, frame_of(r, K(SPEXIT))); }
SEC("kprobe.multi/moment") int regs_moment(struct pt_regs *r) { return on_moment(r, REGS, frame_of(r, K(SPENTRY))); }

/* What is cloned and copied of a packet is the packet. */
SEC("fexit/clone") int track_clone(u64 *ctx)
{
	u64 from = 0, to = 0, *id;

	probe_read(&from, sizeof(from), ctx);
	probe_read(&to, sizeof(to), (void *)ctx + K(NARGS) * 8);
	id = to ? map_lookup(&tracked, &from) : 0;
	if (id) {
		u64 v = *id;

		map_update(&tracked, &to, &v, 0);
	}
	return 0;
}

/* The memory of a sk_buff is given back: the next in it is another. */
SEC("fentry/free") int track_free(u64 *ctx)
{
	struct sk_buff *skb = 0;
	u64 key = 0, head = 0;

	probe_read(&key, sizeof(key), ctx);
	if (map_delete(&tracked, &key))
		return 0;
	skb = (void *)key;
	get(head, skb->head);
	map_delete(&tracked, &head);
	return 0;
}
