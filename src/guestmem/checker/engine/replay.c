/* SPDX-License-Identifier: Apache-2.0 */
/* One state at a time: where a world begins, what can happen, which rule is broken. */
#include "world.h" /* in its place stands the world that is looked at */

/* All that can happen in a state; the number of edges, or -1 if there are more than `most`. */
int model_edges(const u64 *now, struct edge *edges, int most)
{
	struct ctx c;
	int n = 0;

	memset(&c, 0, sizeof(c));
	for (int t = 0; t < THREADS; t++) {
		c.depth = 0;
		do {
			struct edge *e = &edges[n];
			int status;

			if (n == most)
				return -1;
			memcpy(e->state, now, sizeof(e->state));
			c.cursor = 0;
			c.stepped = 0;
			c.turns = 0;
			status = advance[t](e->state, &c);
			if (status == FINISHED || status == WAITS)
				continue;
			e->thread = t;
			e->status = status;
			e->site = c.site;
			e->stepped = c.stepped;
			e->choices = c.cursor;
			memcpy(e->chosen, c.chosen, sizeof(e->chosen));
			n++;
		} while (next_choices(&c));
	}
	return n;
}

/* Run each thread to its first boundary; 0, or 1 + the thread that broke a rule doing so (`*site`). */
int model_start(u64 *s, int *site)
{
	struct ctx c;

	memset(&c, 0, sizeof(c));
	c.start = 1;
	for (int t = 0; t < THREADS; t++) {
		c.depth = 0;
		c.cursor = 0;
		if (advance[t](s, &c) != DONE) {
			*site = c.site;
			return t + 1;
		}
	}
	return 0;
}

/* The properties a state breaks, as bits; `sites`: -1, or where evaluating one broke a rule. */
u64 model_broken_rules(const u64 *s, int *sites)
{
	u64 copy[WORDS];
	struct ctx c;

	memset(&c, 0, sizeof(c));
	memcpy(copy, s, sizeof(copy));
	for (int i = 0; i < PROPERTIES; i++)
		sites[i] = -1;
	return broken_rules(copy, &c, sites);
}

/* Sizes of what Python reads, and the last of each enumeration: it compares them with its own. */
const int engine_sizes[] = {
	sizeof(struct edge), sizeof(struct turn), sizeof(struct violation), sizeof(struct summary), FINISHED, NO_MEMORY, SPINS,
};
