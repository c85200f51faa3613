/* SPDX-License-Identifier: Apache-2.0 */
/* What the text of a world and the engine share.  The sizes in capitals are defined before it. */
#ifndef ENGINE_H
#define ENGINE_H
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef uint64_t u64;
typedef uint32_t u32;
typedef int64_t num;   /* a value of the model */
typedef __int128 wide; /* one that may not fit a num */

#define ALWAYS_INLINE static inline __attribute__((always_inline))

enum { DONE, WAITS, BROKEN, FINISHED };

/* One run of a slice: the choices it is to make, and what it did. */
struct ctx {
	int start;    /* run a thread to its first boundary, instead of one slice */
	int self;     /* the running thread */
	int cursor;   /* choices made in this run */
	int depth;    /* choices prescribed */
	int stepped;  /* whether the slice executed a step */
	int turns;    /* of loops without a step, in the slice */
	int site;     /* where a rule broke */
	int loop;     /* 0, or 1 + the loop that is looked at */
	int left;     /* whether that was left */
	u64 reached;  /* situations met */
	int chosen[MOST_CHOICES];
	int of[MOST_CHOICES];
};

static inline int choose(struct ctx *c, num n, num *result)
{
	int i = c->cursor;

	if (i == MOST_CHOICES || n > INT32_MAX) {
		c->site = ENDLESS;
		return BROKEN;
	}
	if (i == c->depth) {
		c->chosen[i] = 0;
		c->of[i] = n;
		c->depth++;
	}
	c->cursor = i + 1;
	*result = c->chosen[i];
	return DONE;
}

/* Prescribe the next combination of choices; 0 when all were tried. */
static inline int next_choices(struct ctx *c)
{
	while (c->depth > 0) {
		if (++c->chosen[c->depth - 1] < c->of[c->depth - 1])
			return 1;
		c->depth--;
	}
	return 0;
}

/*
 * The operations of a type.  Whether a result does not fit; it is not the least number either, so that every number has its
 * negative.
 */
#define OPERATIONS(T, BITS) \
	static inline T min_##T(T a, T b) { return a < b ? a : b; } \
	static inline T max_##T(T a, T b) { return a > b ? a : b; } \
	static inline T floordiv_##T(T a, T b) { return a / b - (a % b != 0 && (a < 0) != (b < 0)); } \
	static inline T floormod_##T(T a, T b) { return a - b * floordiv_##T(a, b); } \
	static inline T shl_##T(T a, T b) { return a ? a * ((T)1 << b) : 0; } \
	static inline T shr_##T(T a, T b) { return a >> (b < BITS ? b : BITS); } \
	static inline int least_##T(T a) { return a == (T)1 << BITS; } \
	static inline int add_overflow_##T(T a, T b, T *r) { return __builtin_add_overflow(a, b, r) || least_##T(*r); } \
	static inline int sub_overflow_##T(T a, T b, T *r) { return __builtin_sub_overflow(a, b, r) || least_##T(*r); } \
	static inline int mul_overflow_##T(T a, T b, T *r) { return __builtin_mul_overflow(a, b, r) || least_##T(*r); } \
	static inline int shl_overflow_##T(T a, T b, T *r) \
	{ return mul_overflow_##T(a, b < BITS && a ? (T)1 << b : !!a, r) || (a && b >= BITS); } \
	static inline int and_overflow_##T(T a, T b, T *r) { return least_##T(*r = a & b); } \
	static inline int or_overflow_##T(T a, T b, T *r) { return least_##T(*r = a | b); } \
	static inline int xor_overflow_##T(T a, T b, T *r) { return least_##T(*r = a ^ b); }

OPERATIONS(num, 63)
OPERATIONS(wide, 127)

/* An operation whose result may not fit: the body ends there. */
#define CHECKED(T, op, a, b, number) \
	({ T r; if (op##_overflow_##T(a, b, &r)) { c->site = number; return BROKEN; } r; })

/* Successors are collected in a batch before they are looked up; one state may have more than BATCH. */
#define BATCH 1024
#define ROOM (4 * BATCH)
#define NOBODY UINT8_MAX /* in batch_threads: no thread made the initial state */

#if THREADS <= 8
typedef uint8_t threads_t;
#else
typedef u64 threads_t;
#endif
#define ALL_THREADS ((threads_t)(THREADS < 64 ? (1ull << (THREADS % 64)) - 1 : ~0ull))

#if PROPERTIES <= 8
typedef uint8_t rules_t;
#elif PROPERTIES <= 16
typedef uint16_t rules_t;
#else
typedef u64 rules_t;
#endif

enum status { RUNNING, COMPLETE, STOPPED, OUT_OF_STATES, OUT_OF_MEMORY, NO_MEMORY };
enum kind { IN_STEP, IN_STATE, WAITS_FOR_EVER, SPINS };

struct violation {
	int kind;
	int thread;         /* who made the last step, -1: nobody; for WAITS_FOR_EVER who waits, -1: everybody; for SPINS who */
	int site;           /* IN_STEP: the place in the source; IN_STATE: the property, or -1 - site; SPINS: the loop */
	u32 state;          /* before the step; where there is no step, the state itself */
	u32 depth;          /* steps of the trace */
	struct turn *cycle; /* SPINS: from the state and back to it */
	u32 turns;
	int stepped, choices;
	int chosen[MOST_CHOICES];
};

/* A loop that a thread must leave: the number of the loop around it or -1, and for each of its boundaries '1' if that lies inside. */
struct loop {
	int thread, outer, boundaries;
	const char *inside;
};

/* A step of a cycle: who made it, and the state after it. */
struct turn {
	u32 thread, state;
};

struct edge {
	int thread, status, site, stepped, choices;
	int chosen[MOST_CHOICES];
	u64 state[WORDS];
};

/* A set of indices into the states, by a hash of what stands there: index + 1, and 32 bits of the hash above it. */
struct set {
	u64 *slots, size, room, used;
};

struct search {
	u64 *states, *batch, *batch_hashes;
	u32 *parents, *batch_parents, *fresh;
	uint8_t *batch_threads;
	threads_t *moved;       /* threads that can go on, or have finished */
	u32 *others;            /* a successor that is no child in the search tree, or itself; not for states of one word */
	u64 count, head, capacity, transitions, level_end, limit_states, limit_bytes, reached;
	u32 depth, pending, hashed; /* successors in the batch, and how many of them have their hash */
	int status, stop_at_first, violations;
	struct set set;
	int zero_seen;
	rules_t *broken;        /* the properties a state breaks */
	rules_t told[THREADS + 1]; /* the properties known to be broken by a thread's step; first: by nobody's */
	int breaks;             /* some state breaks a property */
	struct violation *violation;
	struct ctx ctx;
};

/* How far a search has come. */
struct summary {
	u64 count, head, transitions, reached, bytes, table_bytes;
	u32 depth;
	int status, violations;
};

static inline int same(const u64 *a, const u64 *b)
{
	u64 d = 0;

	for (int i = 0; i < WORDS; i++)
		d |= a[i] ^ b[i];
	return !d;
}

void lookup(struct search *x); /* search.c */

/* A successor of `now`. */
static inline void found(struct search *x, const u64 *now, const u64 *s)
{
	u64 *to = x->batch + x->pending * WORDS;

	x->transitions++;
	for (int i = 0; i < WORDS; i++)
		to[i] = s[i];
	x->batch_threads[x->pending] = (uint8_t)x->ctx.self;
	x->pending += !same(s, now);
	if (__builtin_expect(x->pending == ROOM, 0))
		lookup(x);
}

/* Note a violation, unless one of this kind, place and thread is known: that came first, so it is as short; NULL then. */
static inline struct violation *violate(struct search *x, int kind, int thread, int site, u32 state, u32 depth)
{
	struct violation *v;

	for (int i = 0; i < x->violations; i++) {
		v = &x->violation[i];
		if (v->kind == kind && v->thread == thread && v->site == site)
			return NULL;
	}
	v = realloc(x->violation, (u64)(x->violations + 1) * sizeof(*v));
	if (!v) {
		x->status = NO_MEMORY;
		return NULL;
	}
	x->violation = v;
	v += x->violations++;
	memset(v, 0, sizeof(*v));
	v->kind = kind;
	v->thread = thread;
	v->site = site;
	v->state = state;
	v->depth = depth;
	if (x->stop_at_first)
		x->status = STOPPED;
	return v;
}

/* What the states and the set take, of the memory that the search may use. */
static inline u64 bytes_used(const struct search *x)
{
	u64 each = WORDS * sizeof(u64) + sizeof(u32) + (x->moved ? sizeof(threads_t) : 0) + (x->others ? sizeof(u32) : 0);

	each += x->breaks ? sizeof(rules_t) : 0;
	return x->count * each + x->set.size * sizeof(u64);
}

#endif
