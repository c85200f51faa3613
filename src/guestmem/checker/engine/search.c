/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Breadth-first search over packed states, exact.
 *
 * The states stand in one array in the order they were found, which is also the queue; a parent index for each gives
 * the shortest path to it.  A set answers "seen before".  Generating successors and looking them up are kept apart,
 * with a prefetch in between: a lookup is a cache miss, and finishing one before starting the next is half the speed.
 */
#include "world.h" /* in its place stands the world that is searched */

#include "set.h"

static void new_state(struct search *x, const u64 *s, u32 parent)
{
	u64 copy[WORDS];
	rules_t broken;

	memcpy(x->states + x->count * WORDS, s, sizeof(copy));
	x->parents[x->count] = parent;
	if (x->others)
		x->others[x->count] = (u32)x->count;
	memcpy(copy, s, sizeof(copy));
	if (STATE_SITUATIONS && ~x->reached & ((1ull << STATE_SITUATIONS) - 1))
		x->reached |= situations(copy, &x->ctx);
	x->ctx.turns = 0;
	broken = broken_rules(copy, &x->ctx, NULL);
	if (__builtin_expect(broken != 0, 0)) {
		x->broken[x->count] = broken;
		x->breaks = 1;
		if (x->stop_at_first)
			x->status = STOPPED;
	}
	x->count++;
}

/* A step of `thread` has broken properties that held before it. */
static void __attribute__((noinline)) newly_broken(struct search *x, u32 before, int thread, const u64 *s, rules_t broken)
{
	int sites[PROPERTIES + 1];
	u64 copy[WORDS];

	memcpy(copy, s, sizeof(copy));
	for (int i = 0; i < PROPERTIES; i++)
		sites[i] = -1;
	x->ctx.turns = 0;
	broken_rules(copy, &x->ctx, sites);
	for (int i = 0; i < PROPERTIES; i++) {
		if (!(broken >> i & 1))
			continue;
		if (sites[i] < 0)
			x->told[thread + 1] |= (rules_t)1 << i;
		/* The initial state, which nothing is before, is state 0. */
		violate(x, IN_STATE, thread, sites[i] < 0 ? i : -1 - sites[i], before == NONE ? 0 : before,
			before == NONE ? 0 : x->depth + 1);
	}
}

/* Which properties the steps of a batch have broken: also those that lead to states known before. */
static void __attribute__((noinline)) judge_batch(struct search *x, u32 n)
{
	for (u32 i = 0; i < n; i++) {
		u32 before = x->batch_parents[i];
		int thread = x->batch_threads[i] == NOBODY ? -1 : x->batch_threads[i];
		const u64 *s = x->batch + i * WORDS;
		rules_t broken;
#if WORDS == 1
		u64 copy = *s;

		x->ctx.turns = 0;
		broken = broken_rules(&copy, &x->ctx, NULL);
#else
		broken = x->batch_hashes[i] < x->count ? x->broken[x->batch_hashes[i]] : 0;
#endif
		if (before != NONE)
			broken &= (rules_t)~x->broken[before];
		if (broken & ~x->told[thread + 1])
			newly_broken(x, before, thread, s, broken);
	}
}

/* Hash the successors of the state at `head` that are in the batch, and prefetch what looking them up will read. */
static inline void hash_batch(struct search *x)
{
	for (u32 i = x->hashed; i < x->pending; i++) {
		u64 h = hash(x->batch + i * WORDS);

		x->batch_hashes[i] = h;
		x->batch_parents[i] = (u32)x->head;
		__builtin_prefetch(&x->set.slots[home(&x->set, h)], 1);
	}
	x->hashed = x->pending;
}

/* Make room in the set for n more; 0, with the status set, if there is none. */
static int make_room(struct search *x, u32 n)
{
	struct set *set = &x->set;
	u64 size = set->size;

	while ((set->used + n) * 100 >= size * FULL)
		size = (size + size / 4 + LINE) / LINE * LINE;
	if (size == set->size)
		return 1;
	if (size > set->room || bytes_used(x) + (size - set->size) * sizeof(u64) > x->limit_bytes) {
		x->status = OUT_OF_MEMORY;
		return 0;
	}
	if (!set_grow(set, size)) {
		x->status = NO_MEMORY;
		return 0;
	}
	return 1;
}

/* Look up the successors of the batch, and keep the new ones. */
static void flush(struct search *x)
{
	u32 n = x->pending, *fresh = x->fresh, new = 0;
	struct set set;

	x->pending = x->hashed = 0;
	if (x->status != RUNNING || !make_room(x, n))
		return;
	set = x->set;
#if WORDS == 1
	for (u32 i = 0; i < n; i++) {
		u64 h = x->batch_hashes[i], *line = set.slots + home(&set, h);
		u32 slot;

		if (__builtin_expect(h == 0, 0)) {
			if (!x->zero_seen)
				fresh[new++] = i;
			x->zero_seen = 1;
			continue;
		}
		while (__builtin_expect((slot = find_in_line(line, h)) == LINE, 0))
			line = line + LINE == set.slots + set.size ? set.slots : line + LINE;
		if (!line[slot]) {
			line[slot] = h;
			fresh[new++] = i;
		}
	}
#else
	/* First find which old state each could be, so that reading it is no miss later. */
	for (u32 i = 0; i < n; i++) {
		u64 entry = set.slots[candidate(&set, home(&set, x->batch_hashes[i]), x->batch_hashes[i])];

		if (entry)
			__builtin_prefetch(x->states + ((u32)entry - 1ull) * WORDS);
	}
	for (u32 i = 0; i < n; i++) {
		u64 *s = x->batch + i * WORDS, h = x->batch_hashes[i], *slot = index_find(&set, x->states, s, h);

		/* The states of this batch are stored as they are found, as later ones are compared with them. */
		if (*slot) {
			if (THREADS > 1)
				x->others[x->batch_parents[i]] = (u32)*slot - 1;
			x->batch_hashes[i] = (u32)*slot - 1;
		} else {
			x->batch_hashes[i] = x->count + new;
			*slot = index_slot(h, x->count + new);
			if (x->count + new < x->capacity)
				memcpy(x->states + (x->count + new) * WORDS, s, WORDS * sizeof(u64));
			fresh[new++] = i;
		}
	}
#endif
	x->set.used += new;
	for (u32 i = 0; i < new && x->status == RUNNING; i++) {
		if (x->count == x->limit_states)
			x->status = OUT_OF_STATES;
		else if (x->count == x->capacity)
			x->status = OUT_OF_MEMORY;
		else
			new_state(x, x->batch + fresh[i] * WORDS, x->batch_parents[fresh[i]]);
	}
	if (__builtin_expect(x->breaks, 0))
		judge_batch(x, n);
}

void lookup(struct search *x)
{
	hash_batch(x);
	flush(x);
}

static void __attribute__((noinline)) broken_step(struct search *x, int thread, const struct ctx *c)
{
	struct violation *v = violate(x, IN_STEP, thread, c->site, (u32)x->head, x->depth + 1);

	if (!v)
		return;
	v->stepped = c->stepped;
	v->choices = c->cursor;
	memcpy(v->chosen, c->chosen, sizeof(v->chosen));
}

/* Everything one thread can do next: each combination of choices, from a fresh copy of the state. */
#define EXPAND(t) \
	{ \
		u64 next[WORDS]; \
		struct ctx *c = &x->ctx; \
		c->depth = 0; \
		c->self = t; \
		do { \
			int st; \
			for (int i = 0; i < WORDS; i++) \
				next[i] = now[i]; \
			c->cursor = 0; \
			c->stepped = 0; \
			c->turns = 0; \
			c->reached = 0; \
			st = thread_##t(next, c); \
			if (st == DONE) { \
				moved |= (threads_t)1 << t; \
				x->reached |= c->reached; \
				found(x, now, next); \
			} else if (st == BROKEN) { \
				moved |= (threads_t)1 << t; \
				x->transitions++; \
				broken_step(x, t, c); \
			} else if (st == FINISHED) { \
				moved |= (threads_t)1 << t; \
				finished |= (threads_t)1 << t; \
			} \
		} while (next_choices(c)); \
	}

/* A thread that repeats one step, its choices unfolded; what broke a rule is run again to know the choices. */
#define FORK(t, ...) \
	{ \
		u64 before = x->transitions; \
		x->ctx.self = t; \
		x->ctx.turns = 0; \
		if (fork_##t(x, now, now __VA_ARGS__) & BROKEN) { \
			moved |= (threads_t)1 << t; \
			broken_fork(x, t, now); \
		} \
		if (x->transitions != before) \
			moved |= (threads_t)1 << t; \
	}

static void __attribute__((noinline)) __attribute__((unused)) broken_fork(struct search *x, int thread, const u64 *now)
{
	u64 next[WORDS];

	x->ctx.depth = 0;
	do {
		memcpy(next, now, sizeof(next));
		x->ctx.cursor = 0;
		x->ctx.stepped = 0;
		x->ctx.turns = 0;
		if (advance[thread](next, &x->ctx) == BROKEN) {
			x->transitions++;
			broken_step(x, thread, &x->ctx);
		}
	} while (next_choices(&x->ctx));
}

static void expand(struct search *x)
{
	u64 now[WORDS];
	threads_t moved = 0, finished = 0;

	for (int i = 0; i < WORDS; i++)
		now[i] = x->states[x->head * WORDS + i];
	EXPAND_ALL
	if (moved == finished && moved != ALL_THREADS)
		violate(x, WAITS_FOR_EVER, -1, 0, (u32)x->head, x->depth);
	if (THREADS > 1)
		x->moved[x->head] = moved;
}

void search_free(struct search *x)
{
	if (!x)
		return;
	if (x->states)
		munmap(x->states, x->capacity * WORDS * sizeof(u64));
	if (x->parents)
		munmap(x->parents, x->capacity * sizeof(u32));
	if (x->moved)
		munmap(x->moved, x->capacity * sizeof(threads_t));
	if (x->others)
		munmap(x->others, x->capacity * sizeof(u32));
	if (x->broken)
		munmap(x->broken, x->capacity * sizeof(rules_t));
	if (x->set.slots)
		munmap(x->set.slots, x->set.room * sizeof(u64));
	free(x->batch);
	free(x->batch_hashes);
	free(x->batch_parents);
	free(x->fresh);
	free(x->batch_threads);
	for (int i = 0; i < x->violations; i++)
		free(x->violation[i].cycle);
	free(x->violation);
	free(x);
}

/*
 * Begin at the world whose fields `initial` holds.  Threads run to their first boundary, in order; `BROKEN` there is
 * the caller's to report (see model_start).  NULL: not enough memory.
 */
struct search *search_new(const u64 *initial, u64 limit_states, u64 limit_bytes, int stop_at_first)
{
	struct search *x = calloc(1, sizeof(*x));
	u64 start = 1024;

	if (!x)
		return NULL;
	x->limit_states = limit_states;
	x->limit_bytes = limit_bytes;
	x->stop_at_first = stop_at_first;
	x->capacity = limit_bytes / (WORDS * sizeof(u64) + sizeof(u32));
	if (x->capacity > NONE - 1)
		x->capacity = NONE - 1;
	if (x->capacity > limit_states)
		x->capacity = limit_states;
	x->states = reserve(x->capacity * WORDS * sizeof(u64));
	x->parents = reserve(x->capacity * sizeof(u32));
	x->moved = THREADS > 1 ? reserve(x->capacity * sizeof(threads_t)) : NULL;
	x->others = THREADS > 1 && WORDS > 1 ? reserve(x->capacity * sizeof(u32)) : NULL;
	x->broken = reserve(x->capacity * sizeof(rules_t));
	x->batch = malloc(ROOM * WORDS * sizeof(u64));
	x->batch_hashes = malloc(ROOM * sizeof(u64));
	x->batch_parents = malloc(ROOM * sizeof(u32));
	x->batch_threads = malloc(ROOM);
	x->fresh = malloc((ROOM + 1) * sizeof(u32));
	if (!x->states || !x->parents || (THREADS > 1 && !x->moved) || (THREADS > 1 && WORDS > 1 && !x->others) || !x->broken || !x->batch ||
	    !x->batch_hashes || !x->batch_parents || !x->batch_threads || !x->fresh ||
	    !set_init(&x->set, start, limit_bytes / sizeof(u64) / LINE * LINE)) {
		search_free(x);
		return NULL;
	}
	x->head = NONE;
	memcpy(x->batch, initial, WORDS * sizeof(u64));
	x->batch_threads[0] = NOBODY;
	x->pending = 1;
	lookup(x);
	x->head = 0;
	x->level_end = 1;
	return x;
}

/* Expand at most `most` states; the status. */
int search_run(struct search *x, u64 most)
{
	while (x->status == RUNNING && most--) {
		if (x->head == x->count)
			flush(x);
		if (x->status != RUNNING)
			break;
		if (x->head == x->count) {
			x->status = COMPLETE;
			break;
		}
		if (x->head == x->level_end) {
			flush(x);
			x->depth++;
			x->level_end = x->count;
			if (x->status != RUNNING)
				break;
		}
		expand(x);
		hash_batch(x);
		if (x->pending >= BATCH)
			flush(x);
		x->head++;
	}
	return x->status;
}

void search_summary(const struct search *x, struct summary *out)
{
	out->count = x->count;
	out->head = x->head;
	out->transitions = x->transitions;
	out->reached = x->reached;
	out->bytes = bytes_used(x);
	out->table_bytes = x->set.size * sizeof(u64);
	out->depth = x->depth;
	out->status = x->status;
	out->violations = x->violations;
}

const struct violation *search_violation(const struct search *x, int i) { return &x->violation[i]; }
const u64 *search_state(const struct search *x, u64 i) { return x->states + i * WORDS; }
u32 search_parent(const struct search *x, u64 i) { return x->parents[i]; }
