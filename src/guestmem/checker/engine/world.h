/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A world of two threads that count, one up and one down: it stands where the text of a translated world stands otherwise,
 * so that each file of the engine compiles alone, and opens in an editor.
 */
#ifndef WORLD_H
#define WORLD_H
#ifndef WORDS
#define WORDS 2
#endif
#define THREADS 2
#define MOST_CHOICES 64
#define MOST_TURNS 1024
#define ENDLESS 0
#define PROPERTIES 1
#define LOOPS 1
#define SITUATIONS 1
#define STATE_SITUATIONS 1
#define MARKS 1
#include "engine.h"
#include "marks.h"

static inline int thread_0(u64 *s, struct ctx *c)
{
	num by = 0;

	if (s[0] == 3)
		return WAITS;
	if (choose(c, 2, &by))
		return BROKEN;
	s[0] += (u64)by;
	return DONE;
}

static inline int thread_1(u64 *s, struct ctx *c)
{
	c->stepped = 1;
	if (!s[0])
		return WAITS;
	s[0]--;
	return DONE;
}

static inline int advance_0(u64 *s, struct ctx *c) { c->self = 0; return thread_0(s, c); }
static inline int advance_1(u64 *s, struct ctx *c) { c->self = 1; return thread_1(s, c); }
static int (*const advance[])(u64 *, struct ctx *) = {advance_0, advance_1};
#define EXPAND_ALL EXPAND(0) EXPAND(1)

static inline rules_t broken_rules(u64 *s, struct ctx *c, int *sites)
{
	(void)c;
	(void)sites;
	return s[0] > 3;
}

static inline u64 situations(u64 *s, struct ctx *c)
{
	(void)c;
	return s[0] == 3;
}

static inline int pc_of(const u64 *s, int thread)
{
	(void)s;
	return thread;
}

static const struct loop loops[LOOPS + 1] __attribute__((unused)) = {{0, -1, 1, "1"}, {-1, -1, 0, 0}};

#endif
