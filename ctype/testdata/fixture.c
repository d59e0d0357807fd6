// The types the tests of ctype and cexpr read. Built by gen.sh.

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef int s32;
typedef _Bool bool;

struct list_head {
	struct list_head *next, *prev;
};

struct hlist_node {
	struct hlist_node *next, **pprev;
};

struct hlist_head {
	struct hlist_node *first;
};

typedef struct {
	int counter;
} atomic_t;

typedef struct spinlock {
	union {
		u32 raw;
		struct {
			u8 locked;
			u8 pending;
		};
		struct {
			u16 locked_pending;
			u16 tail;
		};
	};
} spinlock_t;

enum state {
	STATE_IDLE,
	STATE_BUSY = 5,
	STATE_BAD = -1,
};

enum flags {
	F_READ = 1,
	F_WRITE = 2,
	F_EXEC = 4,
};

struct opaque;
struct task;

struct ops {
	int (*open)(struct task *, const char *);
	void (*release)(void);
	int (*printf)(const char *, ...);
	void (*(*lookup)(int))(u64);
	const char *const name;
};

struct bits {
	u32 a : 3;
	u32 b : 5;
	s32 c : 7;
	u8 tail;
	u64 wide : 40;
	u64 over : 24;
	u16 last : 1;
};

struct holes {
	u8 a;
	u64 b;
	u16 c;
	struct {
		u32 x;
		u8 y;
	} d[2];
	u8 e;
};

struct __attribute__((packed)) packed {
	u8 a;
	u64 b;
	u32 f : 9;
	u32 g : 30;
};

struct mm {
	u64 *pgd;
	atomic_t users;
	struct {
		u64 start, end;
	} ranges[3];
};

struct task {
	volatile long state;
	int pid;
	enum state st;
	enum flags fl;
	char comm[16];
	struct list_head tasks;
	struct hlist_node hash;
	struct mm *mm;
	struct task *parent;
	const struct ops *ops;
	union {
		u64 token;
		struct {
			u32 lo;
			u32 hi;
		};
	};
	struct bits bits;
	spinlock_t lock;
	bool traced;
	signed char nice;
	u8 mac[6];
	const char *label;
	u32 matrix[2][3];
	u32 (*rows)[3];
	struct opaque *priv;
	void *data;
	enum { NONE, SOME } kind;
	const struct {
		u8 first;
		u32 second;
	};
	u64 counters[8];
	struct list_head children;
	struct {
	} empty;
	char flex[];
};

struct list_head list_root;
struct hlist_head hlist_root;
struct task init_task;
struct ops default_ops;
struct mm init_mm;
struct holes h;
struct packed p;
struct opaque *o;

__attribute__((noinline)) int task_open(struct task *task, const char *name, u64 flags)
{
	return task->pid + name[0] + (int)flags;
}

__attribute__((noinline)) void task_close(struct task *task)
{
	task->pid = 0;
}
