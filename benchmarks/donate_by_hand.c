/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The shared test model (tests/donate.py) with everything written by hand for it: the state is one word of 10 bits a
 * page and 2 of lock, a successor is a few shifts, the set holds the states, lookups are prefetched in batches.
 * What a checker for any model is measured against.
 *
 *   cc -O2 -DPAGES=4 -o by_hand donate_by_hand.c && ./by_hand
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

typedef uint64_t u64;
typedef uint32_t u32;

#define BATCH 1024

/* A page: owner 2 bits (host 0, private 1, shared 2), then one bit or two each. */
enum { OWNER = 3, DIRECT = 1 << 2, STAGE2 = 1 << 3, GUEST = 1 << 4, ALLOCATED = 1 << 5, PIN = 1 << 6, PINS = 3 << 6, STALE0 = 1 << 8, STALE1 = 1 << 9 };
enum { HOST, PRIVATE, SHARED };
#define STALE (STALE0 | STALE1)
#define LOCK (10 * PAGES)

static u64 states_room, table_size, count, transitions;
static u64 *states, *table;
static u32 *parents;
static u64 batch[2 * BATCH];
static u32 batch_parents[BATCH];
static int pending;

static void *reserve(u64 bytes)
{
	void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (at == MAP_FAILED)
		exit(1);
	madvise(at, bytes, MADV_HUGEPAGE);
	return at;
}

static inline u64 mix(u64 h)
{
	h *= 0x9e3779b97f4a7c15ull;
	h ^= h >> 32;
	h *= 0xd6e8feb86659fd93ull;
	return h ^ h >> 32;
}

static inline u64 slot_of(u64 h) { return (u64)((unsigned __int128)h * table_size >> 64); }

static void flush(void)
{
	for (int i = 0; i < pending; i++) {
		u64 s = batch[2 * i], h = batch[2 * i + 1] | 1, at = slot_of(h);

		while (table[at] && table[at] != s + 1)
			at = at + 1 == table_size ? 0 : at + 1;
		if (table[at])
			continue;
		table[at] = s + 1;
		for (int p = 0; p < PAGES; p++) {
			u64 page = s >> 10 * p;

			if ((page & (DIRECT | STALE)) && !(page & STAGE2)) {
				printf("broken\n");
				exit(1);
			}
		}
		states[count] = s;
		parents[count++] = batch_parents[i];
	}
	pending = 0;
}

static inline void successor(u64 s, u32 parent)
{
	u64 h = mix(s);

	transitions++;
	batch[2 * pending] = s;
	batch[2 * pending + 1] = h;
	batch_parents[pending] = parent;
	__builtin_prefetch(&table[slot_of(h | 1)], 1);
	if (++pending == BATCH)
		flush();
}

static void expand(u64 s, u32 at)
{
	u64 lock = s >> LOCK;

	if (lock) {
		successor(s & ~(3ull << LOCK), at);
	} else {
		successor(s | 1ull << LOCK, at);
		successor(s | 2ull << LOCK, at);
	}
	for (int p = 0; p < PAGES; p++) {
		int shift = 10 * p, page = s >> shift & 1023, owner = page & OWNER;
		u64 rest = s & ~(1023ull << shift);
#define GO(to) successor(rest | (u64)(to) << shift, at)
		int quiet = !(page & (DIRECT | PINS | STALE));

		if ((page & ALLOCATED) && owner != PRIVATE && (page & DIRECT) && (page & PINS) != 2 * PIN)
			GO(page + PIN);
		if (page & PINS)
			GO(page - PIN);
		if ((page & ALLOCATED) && owner != HOST && !(page & GUEST))
			GO(page | GUEST);
		if (!lock)
			continue;
		if (!(page & ALLOCATED))
			GO(page | ALLOCATED);
		if ((page & ALLOCATED) && owner != PRIVATE && (page & DIRECT) && !(page & PINS))
			GO((page & ~DIRECT) | STALE);
		if (page & STALE0)
			GO(page & ~STALE0);
		if (page & STALE1)
			GO(page & ~STALE1);
		if (owner != PRIVATE && (page & STAGE2) && !(page & DIRECT))
			GO((page | DIRECT) & ~STALE);
		if ((page & ALLOCATED) && owner == HOST && quiet)
			GO((page & ~STAGE2) | PRIVATE);
		if (owner == PRIVATE)
			GO((page & ~OWNER) | SHARED | STAGE2);
		if (owner == SHARED && quiet)
			GO((page & ~(OWNER | STAGE2)) | PRIVATE);
		if ((page & ALLOCATED) && !(page & PINS))
			GO(DIRECT | STAGE2);
	}
}

int main(void)
{
	u64 initial = 0, head, expected = 3;
	struct timespec a, b;

	for (int p = 0; p < PAGES; p++) {
		initial |= (u64)(DIRECT | STAGE2) << 10 * p;
		expected *= 24;
	}
	states_room = expected + BATCH;
	table_size = expected * 14 / 10;
	states = reserve(states_room * 8);
	parents = reserve(states_room * 4);
	table = reserve(table_size * 8);
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &a);
	successor(initial, 0);
	transitions = 0;
	flush();
	for (head = 0; head < count; head++) {
		expand(states[head], (u32)head);
		if (head + 1 == count)
			flush();
	}
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &b);
	printf("states=%llu transitions=%llu seconds=%.4f bytes=%.1f\n", (unsigned long long)count,
	       (unsigned long long)transitions, (b.tv_sec - a.tv_sec) + (b.tv_nsec - a.tv_nsec) / 1e9,
	       (states_room * 12 + table_size * 8) / (double)count);
	return 0;
}
