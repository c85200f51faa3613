/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What never ends, once all states are known: a thread that waits for ever, and one that never leaves its loop.
 *
 * A wait ends if from every state in which a thread cannot go on, some state can be reached in which it can.
 *
 * A loop ends if it is left whatever the scheduler does.  That may be unkind, but it is fair: who is able to go on all
 * the time does go on some time; and so is what is left to chance: an alternative that is offered again and again is taken
 * some time.  So a loop is not left where there are states, connected with each other by steps, in which the thread takes
 * steps without leaving it; no alternative of the steps that are taken leads elsewhere; and each other thread takes some
 * step too, or is somewhere unable to.
 *
 * A step that breaks a rule leads nowhere, and who can do nothing else is dead: what others wait for then, or go round
 * for, is nothing to blame them for.
 */
#include "world.h" /* in its place stands the world that is searched */

#include "set.h"

static u32 depth_of(const struct search *x, u64 state)
{
	u32 depth = 0;

	for (; x->parents[state] != NONE; depth++)
		state = x->parents[state];
	return depth;
}

static inline threads_t bit(int thread)
{
	return (threads_t)((threads_t)1 << thread);
}

/* Run the next slice of a thread; its status.  Call with c->depth 0 and then while next_choices() says there are more. */
static inline int slice(int thread, struct ctx *c, const u64 *now, u64 *next)
{
	memcpy(next, now, WORDS * sizeof(u64));
	c->cursor = 0;
	c->stepped = 0;
	c->turns = 0;
	c->left = 0;
	return advance[thread](next, c);
}

/* The states by what they are, for states that the search did not keep by index. */
static int index_all(const struct search *x, struct set *own)
{
	u64 size = (x->count + x->count / 2) / LINE * LINE + 2 * LINE;

	if (!set_init(own, size, size))
		return 0;
	for (u64 i = 0; i < x->count; i++) {
		u64 h = hash(x->states + i * WORDS);

		*index_find(own, x->states, x->states + i * WORDS, h) = index_slot(h, i);
	}
	return 1;
}

static inline u32 index_of(const struct search *x, const struct set *set, const u64 *s)
{
	return (u32)*index_find(set, x->states, s, hash(s)) - 1;
}

/* ---- waits */

/* The threads that can go on in a state or in one that follows it, as far as is known. */
static threads_t going_on(const struct search *x, const struct set *set, u64 i)
{
	const u64 *now = x->states + i * WORDS;
	threads_t mask = x->moved[i];
	struct ctx c;

	memset(&c, 0, sizeof(c));
	for (int t = 0; t < THREADS; t++) {
		int done = 0, broken = 0;

		c.depth = 0;
		do {
			u64 next[WORDS];
			int status;

			if (mask == ALL_THREADS)
				return mask;
			status = slice(t, &c, now, next);
			done |= status == DONE;
			broken |= status == BROKEN;
			if (status == DONE && !same(next, now))
				mask |= x->moved[index_of(x, set, next)];
		} while (next_choices(&c));
		if (broken && !done)
			return ALL_THREADS;
	}
	return mask;
}

/* Hand on what is known of the threads that can go on, from states to those they follow; whether that told anything. */
static int hand_on(struct search *x)
{
	int news = 0;

	for (u64 i = x->count; i-- > 0;) {
		threads_t mask = x->moved[i];

		if (x->others)
			mask |= x->moved[x->others[i]];
		news |= mask != x->moved[i];
		x->moved[i] = mask;
		if (i)
			x->moved[x->parents[i]] |= mask;
	}
	return news;
}

/* Whether nobody can do anything in a state. */
static int dead_end(const struct search *x, u64 i)
{
	struct ctx c;
	u64 next[WORDS];

	memset(&c, 0, sizeof(c));
	for (int t = 0; t < THREADS; t++) {
		c.depth = 0;
		do {
			int status = slice(t, &c, x->states + i * WORDS, next);

			if (status == DONE || status == BROKEN)
				return 0;
		} while (next_choices(&c));
	}
	return 1;
}

/*
 * Note the first state of each thread that waits for ever, unless everybody does there, which the search has noted.
 *
 * Two successors of a state are known from the search, its child in the tree and another; only where they are not
 * enough are all of them generated again.
 */
static void find_waits(struct search *x, const struct set *set)
{
	threads_t waits = 0;
	int changed = 1;

	while (changed) {
		changed = 0;
		while (hand_on(x))
			;
		for (u64 i = x->count; i-- > 0;) {
			threads_t mask = x->moved[i];

			if (mask == ALL_THREADS)
				continue;
			x->moved[i] = going_on(x, set, i);
			changed |= x->moved[i] != mask;
		}
	}
	for (u64 i = 0; i < x->count && waits != ALL_THREADS; i++) {
		threads_t new = (threads_t)(ALL_THREADS & ~x->moved[i] & ~waits);

		waits |= new;
		if (!new || dead_end(x, i))
			continue;
		for (int t = 0; t < THREADS; t++)
			if (new & bit(t))
				violate(x, WAITS_FOR_EVER, t, 0, (u32)i, depth_of(x, i));
	}
}

/* ---- loops */

/* The states in which a thread is in a loop, and the steps from them that keep it there. */
struct graph {
	u64 n, edges, room, bytes, limit;
	u32 *index;              /* of a state here: which of all it is; in their order */
	u32 *local;              /* the other way, or NONE */
	u64 *first;              /* edges of a state: from first[i] up to first[i + 1] */
	u32 *to;
	uint8_t *by;
	uint8_t *own;            /* the thread is not in an inner loop that is known not to end */
	threads_t *acts, *able;  /* whose steps lead nowhere else; who is able to go on */
	u32 *component;          /* states that can reach each other; n: of none yet */
	threads_t *acted, *always; /* by component: who takes steps in it; who is able to go on in all of it */
	u32 *visit, *low, *path, *held, *from;
	u64 *next;
};

static void *room_for(struct graph *g, u64 count, u64 size)
{
	g->bytes += count * size;
	return g->bytes > g->limit ? NULL : calloc(count + 1, size);
}

static void graph_free(struct graph *g)
{
	void *all[] = {g->index, g->local, g->first, g->to, g->by, g->own, g->acts, g->able, g->component, g->acted, g->always,
		       g->visit, g->low, g->path, g->held, g->from, g->next};

	for (u32 i = 0; i < sizeof(all) / sizeof(*all); i++)
		free(all[i]);
}

/* Note where a step of the thread of a loop leads from a state, if all its alternatives stay in the loop. */
static void stays(const u64 *now, int number, struct ctx *c, char *leads)
{
	const struct loop *loop = &loops[number];
	int n = loop->boundaries, from = pc_of(now, loop->thread), left = 0;

	c->loop = number + 1;
	for (int pass = 0; pass < 2 && !left; pass++) {
		c->depth = 0;
		do {
			u64 next[WORDS];

			if (slice(loop->thread, c, now, next) != DONE)
				continue;
			left |= c->left || loop->inside[pc_of(next, loop->thread)] == '0';
			if (pass)
				leads[from * n + pc_of(next, loop->thread)] = 1;
		} while (next_choices(c) && !left);
	}
}

/*
 * Where the steps of the threads themselves that stay in their loops can lead: `leads[loop][from * n + to]` for the n
 * boundaries of its thread.  What cannot come back, even so, is in no cycle; most loops end here.
 */
static void all_stays(const struct search *x, char **leads)
{
	struct ctx c;

	memset(&c, 0, sizeof(c));
	for (u64 i = 0; i < x->count; i++)
		for (int number = 0; number < LOOPS; number++) {
			const u64 *now = x->states + i * WORDS;

			if (loops[number].inside[pc_of(now, loops[number].thread)] == '1')
				stays(now, number, &c, leads[number]);
		}
	for (int number = 0; number < LOOPS; number++) {
		int n = loops[number].boundaries;

		for (int k = 0; k < n; k++)
			for (int i = 0; i < n; i++)
				for (int j = 0; leads[number][i * n + k] && j < n; j++)
					leads[number][i * n + j] |= leads[number][k * n + j];
	}
}

/* Room for one more edge. */
static int edge_room(struct graph *g)
{
	u64 room = g->room ? 2 * g->room : 1024, each = sizeof(*g->to) + sizeof(*g->by);
	void *to, *by;

	if (g->edges < g->room)
		return 1;
	if (g->bytes + (room - g->room) * each > g->limit)
		return 0;
	to = realloc(g->to, room * sizeof(*g->to));
	g->to = to ? to : g->to;
	by = realloc(g->by, room * sizeof(*g->by));
	g->by = by ? by : g->by;
	g->bytes += (room - g->room) * each;
	g->room = room;
	return to && by;
}

/* What can happen in a state, as far as it stays in the graph; 0: no room. */
static int add_edges(const struct search *x, const struct set *set, struct graph *g, int number, u64 i)
{
	const u64 *now = x->states + (u64)g->index[i] * WORDS;
	struct ctx c;

	memset(&c, 0, sizeof(c));
	c.loop = number + 1;
	g->first[i] = g->edges;
	for (int t = 0; t < THREADS; t++) {
		int out = 0;
		u64 before = g->edges;

		c.depth = 0;
		do {
			u64 next[WORDS];
			int status = slice(t, &c, now, next);

			if (status == DONE || status == BROKEN)
				g->able[i] |= bit(t);
			if (status != DONE)
				continue;
			if (!edge_room(g))
				return 0;
			g->to[g->edges] = g->local[index_of(x, set, next)];
			g->by[g->edges] = (uint8_t)t;
			out |= g->to[g->edges++] == NONE || c.left;
		} while (next_choices(&c));
		if (out)
			g->edges = before;
		else if (g->edges != before)
			g->acts[i] |= bit(t);
	}
	g->first[i + 1] = g->edges;
	return 1;
}

/* The graph of the states in which the thread of a loop stands at one of these boundaries; 0: no room. */
static int build(const struct search *x, const struct set *set, struct graph *g, int number, const char *at, const char *own)
{
	int thread = loops[number].thread;

	for (u64 i = 0; i < x->count; i++)
		g->n += at[pc_of(x->states + i * WORDS, thread)];
	g->index = room_for(g, g->n, sizeof(u32));
	g->local = room_for(g, x->count, sizeof(u32));
	g->first = room_for(g, g->n + 1, sizeof(u64));
	g->own = room_for(g, g->n, 1);
	g->acts = room_for(g, g->n, sizeof(threads_t));
	g->able = room_for(g, g->n, sizeof(threads_t));
	g->component = room_for(g, g->n, sizeof(u32));
	g->acted = room_for(g, g->n, sizeof(threads_t));
	g->always = room_for(g, g->n, sizeof(threads_t));
	g->visit = room_for(g, g->n, sizeof(u32));
	g->low = room_for(g, g->n, sizeof(u32));
	g->path = room_for(g, g->n, sizeof(u32));
	g->held = room_for(g, g->n, sizeof(u32));
	g->from = room_for(g, g->n, sizeof(u32));
	g->next = room_for(g, g->n, sizeof(u64));
	if (!g->index || !g->local || !g->first || !g->own || !g->acts || !g->able || !g->component || !g->acted || !g->always ||
	    !g->visit || !g->low || !g->path || !g->held || !g->from || !g->next)
		return 0;
	g->n = 0;
	for (u64 i = 0; i < x->count; i++) {
		int pc = pc_of(x->states + i * WORDS, thread);

		g->local[i] = at[pc] ? (u32)g->n : NONE;
		g->own[g->n] = (uint8_t)own[pc];
		g->index[g->n] = (u32)i;
		g->n += at[pc];
	}
	for (u64 i = 0; i < g->n; i++)
		if (!add_edges(x, set, g, number, i))
			return 0;
	return 1;
}

/* The next edge of a state that is still there, from edge e on; first[i + 1] if there is none. */
static inline u64 edge_from(const struct graph *g, u64 i, u64 e)
{
	while (e < g->first[i + 1] && !(g->acts[i] & bit(g->by[e])))
		e++;
	return e;
}

/* The components of the graph (Tarjan, without recursion). */
static void components(struct graph *g)
{
	u32 visits = 0, found = 0;
	u64 deep = 0, held = 0;

	memset(g->visit, 0, g->n * sizeof(u32));
	for (u64 i = 0; i < g->n; i++)
		g->component[i] = (u32)g->n;
	for (u64 root = 0; root < g->n; root++) {
		if (!g->visit[root])
			g->path[deep++] = (u32)root;
		while (deep) {
			u32 at = g->path[deep - 1], to = NONE;

			if (!g->visit[at]) {
				g->visit[at] = g->low[at] = ++visits;
				g->held[held++] = at;
				g->next[at] = g->first[at];
			}
			while ((g->next[at] = edge_from(g, at, g->next[at])) < g->first[at + 1]) {
				to = g->to[g->next[at]];
				if (!g->visit[to])
					break;
				if (g->component[to] == g->n && g->low[to] < g->low[at])
					g->low[at] = g->low[to];
				g->next[at]++;
			}
			if (g->next[at] < g->first[at + 1]) {
				g->path[deep++] = to;
				continue;
			}
			deep--;
			if (g->low[at] != g->visit[at])
				continue;
			do {
				to = g->held[--held];
				g->component[to] = found;
			} while (to != at);
			found++;
		}
	}
}

/* Take out the steps of which an alternative leads out of a component, until there are none. */
static void close_components(struct graph *g)
{
	int changed = 1;

	while (changed) {
		changed = 0;
		components(g);
		for (u64 i = 0; i < g->n; i++)
			for (u64 e = edge_from(g, i, g->first[i]); e < g->first[i + 1]; e = edge_from(g, i, e + 1))
				if (g->component[g->to[e]] != g->component[i]) {
					g->acts[i] &= (threads_t)~bit(g->by[e]);
					changed = 1;
				}
	}
}

/* Who takes steps in a state, as far as that makes the thread go round the loop itself. */
static inline threads_t acts(const struct graph *g, u64 i, int thread)
{
	return g->own[i] ? g->acts[i] : (threads_t)(g->acts[i] & ~bit(thread));
}

/* The first state of a component in which the thread can go round for ever, in all fairness; n: there is none. */
static u64 first_fair(struct graph *g, int thread)
{
	memset(g->always, 0xff, g->n * sizeof(threads_t));
	for (u64 i = 0; i < g->n; i++) {
		g->acted[g->component[i]] |= acts(g, i, thread);
		g->always[g->component[i]] &= g->able[i];
	}
	for (u64 i = 0; i < g->n; i++) {
		threads_t acted = g->acted[g->component[i]], unable = (threads_t)~g->always[g->component[i]];

		if (acted & bit(thread) && ((acted | unable) & ALL_THREADS) == ALL_THREADS)
			return i;
	}
	return g->n;
}

/*
 * The shortest way from a state to a step of one of `missing`, or to a state where one of `unable` is unable to go on; if
 * there are none to look for, to the state `end`.  Appended to the cycle; the state where it ends, or NONE: no memory.
 */
static u32 go(struct graph *g, struct violation *v, u32 start, threads_t missing, threads_t unable, u32 end)
{
	u64 head = 0, tail = 0, last = 0;
	u32 at = start, length = 0;
	struct turn *cycle;

	for (u64 i = 0; i < g->n; i++)
		g->visit[i] = 0;
	g->visit[start] = 1;
	g->path[tail++] = start;
	for (int found = 0; !found;) {
		at = g->path[head++];
		for (u64 e = edge_from(g, at, g->first[at]); e < g->first[at + 1] && !found; e = edge_from(g, at, e + 1)) {
			u32 to = g->to[e];

			found = missing ? (acts(g, at, v->thread) & missing & bit(g->by[e])) || (unable & ~g->able[to]) : to == end;
			if (!found && g->visit[to])
				continue;
			last = e;
			if (found)
				break;
			g->visit[to] = 1;
			g->from[to] = at;
			g->next[to] = e;
			g->path[tail++] = to;
		}
	}
	for (u32 i = at; i != start; i = g->from[i])
		length++;
	cycle = realloc(v->cycle, (v->turns + length + 1) * sizeof(*cycle));
	if (!cycle)
		return NONE;
	v->cycle = cycle;
	v->turns += length + 1;
	cycle += v->turns - 1;
	for (u64 e = last;; at = g->from[at], cycle--) {
		cycle->thread = g->by[e];
		cycle->state = g->index[g->to[e]];
		if (at == start)
			break;
		e = g->next[at];
	}
	return g->to[last];
}

/* A cycle from a state and back, in which everybody takes a step or is somewhere unable to; 0: no memory. */
static int close_cycle(struct graph *g, struct violation *v, u32 start)
{
	threads_t missing = ALL_THREADS;
	u32 at = start, done = 0;

	for (;;) {
		missing &= (threads_t)(g->able[at] | bit(v->thread));
		if (!missing && at == start)
			return 1;
		at = go(g, v, at, missing, (threads_t)(missing & ~bit(v->thread)), start);
		if (at == NONE)
			return 0;
		for (; done < v->turns; done++) {
			u32 before = done ? g->local[v->cycle[done - 1].state] : start, after = g->local[v->cycle[done].state];

			if (v->cycle[done].thread != (u32)v->thread || g->own[before])
				missing &= (threads_t)~bit(v->cycle[done].thread);
			missing &= (threads_t)(g->able[after] | bit(v->thread));
		}
	}
}

/* Look at a loop, where its thread stands at boundaries between which it can go to and fro; 0: no room. */
static int look(struct search *x, const struct set *set, int number, const char *at, const char *own, u64 limit, char *endless)
{
	struct graph g = {.limit = limit};
	int ok = build(x, set, &g, number, at, own), thread = loops[number].thread;

	if (ok) {
		u64 state;

		close_components(&g);
		state = first_fair(&g, thread);
		if (state < g.n) {
			u32 global = g.index[state];
			struct violation *v = violate(x, SPINS, thread, number, global, depth_of(x, global));

			endless[number] = 1;
			ok = x->status != NO_MEMORY && (!v || close_cycle(&g, v, (u32)state));
		}
	}
	graph_free(&g);
	return ok;
}

/* Note the loops that a thread may never leave, inner ones first; 0: no room. */
static int find_loops(struct search *x, const struct set *set, u64 limit)
{
	char endless[LOOPS + 1] = {0}, *all[LOOPS + 1] = {0};
	int ok = 1;

	for (int number = 0; number < LOOPS; number++) {
		all[number] = calloc((u64)loops[number].boundaries, (u64)loops[number].boundaries);
		ok &= all[number] != NULL;
	}
	if (ok && LOOPS)
		all_stays(x, all);
	for (int number = 0; number < LOOPS && ok && x->status == COMPLETE; number++) {
		u64 n = (u64)loops[number].boundaries;
		char *leads = all[number], *own = calloc(n, 1), *at = calloc(n, 1);

		ok = own && at;
		for (u64 i = 0; i < n && ok; i++)
			own[i] = loops[number].inside[i] == '1';
		for (int inner = 0; inner < number && ok; inner++)
			for (int outer = endless[inner] ? loops[inner].outer : -1; outer >= 0; outer = loops[outer].outer)
				for (u64 i = 0; outer == number && i < n; i++)
					own[i] &= loops[inner].inside[i] == '0';
		for (u64 pc = 0; pc < n && ok; pc++) {
			if (!leads[pc * n + pc])
				continue;
			for (u64 i = 0; i < n; i++)
				at[i] = leads[pc * n + i] && leads[i * n + pc];
			ok = look(x, set, number, at, own, limit, endless);
			for (u64 i = 0; i < n; i++)
				leads[i * n + i] &= !at[i];
		}
		free(own);
		free(at);
	}
	for (int number = 0; number < LOOPS; number++)
		free(all[number]);
	return ok;
}

/* Call when complete; notes who waits for ever, and who never leaves a loop.  The status: COMPLETE, or no more memory. */
int search_waits(struct search *x)
{
	struct set own = {0}, *set = &x->set;
	u64 used;

	if (THREADS == 1 && !LOOPS)
		return COMPLETE;
	if (WORDS == 1) {
		set = &own;
		if (!index_all(x, &own))
			return NO_MEMORY;
	}
	used = bytes_used(x) + own.size * sizeof(u64);
	if (THREADS > 1)
		find_waits(x, set);
	if (x->status == COMPLETE && !find_loops(x, set, x->limit_bytes > used ? x->limit_bytes - used : 0))
		x->status = OUT_OF_MEMORY;
	if (own.slots)
		munmap(own.slots, own.room * sizeof(u64));
	return x->status == STOPPED ? COMPLETE : x->status;
}
