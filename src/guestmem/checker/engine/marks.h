/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What was executed: MARKS words of bits, none if nothing is watched.
 *
 * A slice, or an alternative, that turns out to wait has not happened: what it marks is pending until it has.  Between slices
 * only properties mark; theirs is kept when the next slice begins.
 */
#ifndef MARKS_H
#define MARKS_H
#include "engine.h"

struct marks {
	u64 word[MARKS];
};

static struct marks executed, pending;

static inline void mark(int bit)
{
	pending.word[bit / 64] |= 1ull << bit % 64;
}

static inline void keep_marks(void)
{
	for (int i = 0; i < MARKS; i++) {
		executed.word[i] |= pending.word[i];
		pending.word[i] = 0;
	}
}

/* The end of a slice, with its status. */
static inline int settle_marks(int status)
{
	if (status == WAITS)
		memset(&pending, 0, sizeof(pending));
	keep_marks();
	return status;
}

/* Forget what was executed. */
void marks_clear(void)
{
	memset(&executed, 0, sizeof(executed));
	memset(&pending, 0, sizeof(pending));
}

/* What was executed since. */
void marks_read(u64 *to)
{
	keep_marks();
	memcpy(to, &executed, sizeof(executed));
}

#endif
