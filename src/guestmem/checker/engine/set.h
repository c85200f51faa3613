/* SPDX-License-Identifier: Apache-2.0 */
/* A set of states, by a hash of them: of their indices, or of states of one word themselves. */
#ifndef SET_H
#define SET_H
#include <sys/mman.h>
#ifdef __AVX2__
#include <immintrin.h>
#endif

#include "engine.h"

#define HUGE_PAGE (2ul << 20)
#define NONE UINT32_MAX
#define LINE 8 /* slots in a cache line */
#define FULL (WORDS == 1 ? 85 : 67) /* percent of a set; lines are searched whole if WORDS == 1, slot by slot otherwise */

static inline void *reserve(u64 bytes)
{
	void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (at == MAP_FAILED)
		return NULL;
	if (bytes >= HUGE_PAGE)
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

static inline u64 hash(const u64 *s)
{
	u64 h = mix(s[0]);

	for (int i = 1; i < WORDS; i++)
		h = mix(h + s[i]);
	return h;
}

/*
 * Where to begin looking: a cache line, whatever the size of the set; it grows with the upper half of the hash, which is
 * also the upper half of what a slot holds.  A line fills from the left; what does not fit goes to the next one.
 */
static inline u64 home(const struct set *set, u64 h)
{
	return ((h >> 32) * (set->size / LINE) >> 32) * LINE;
}

static inline int set_init(struct set *set, u64 size, u64 room)
{
	set->size = size;
	set->room = room;
	set->used = 0;
	set->slots = reserve(room * sizeof(u64));
	return set->slots != NULL;
}

static inline void put(struct set *set, uint8_t *fill, u64 slot)
{
	u64 at = home(set, slot) / LINE;

	while (__builtin_expect(fill[at] == LINE, 0))
		at = at + 1 == set->size / LINE ? 0 : at + 1;
	set->slots[at * LINE + fill[at]++] = slot;
}

/*
 * The set grows in place: as a line's place grows with the hash, going from the last line down, each slot moves up to
 * where all lines have been gone through.  The lowest lines, where that is not so, are put aside first.
 */
#define ASIDE (256 * LINE)

static inline int set_grow(struct set *set, u64 size)
{
	u64 aside[ASIDE], line[LINE], old = set->size, low = old < ASIDE ? old : ASIDE;
	uint8_t *fill = calloc(size / LINE, 1); /* slots used in a line; reading them from there would wait for the stores */

	if (!fill)
		return 0;
	memcpy(aside, set->slots, low * sizeof(u64));
	memset(set->slots, 0, low * sizeof(u64));
	set->size = size;
	for (u64 at = old; at > low; at -= LINE) {
		u64 *from = set->slots + at - LINE;

		memcpy(line, from, sizeof(line));
		memset(from, 0, sizeof(line));
		for (int i = 0; i < LINE && line[i]; i++) {
			if (home(set, line[i]) + LINE < at) {
				free(fill);
				return 0;
			}
			put(set, fill, line[i]);
		}
	}
	for (u64 i = 0; i < low; i++)
		if (aside[i])
			put(set, fill, aside[i]);
	free(fill);
	return 1;
}

/* A set of indices into the states: the slot is the index plus one, below the upper half of the hash. */

static inline u64 next_slot(const struct set *set, u64 at)
{
	return at + 1 == set->size ? 0 : at + 1;
}

/* The first slot from `at` on that is empty or whose state may have this hash. */
static inline u64 candidate(const struct set *set, u64 at, u64 h)
{
	while (set->slots[at] && (set->slots[at] ^ h) >> 32)
		at = next_slot(set, at);
	return at;
}

/* The slot of a state, or the empty one where it belongs. */
static inline u64 *index_find(const struct set *set, const u64 *states, const u64 *s, u64 h)
{
	u64 at = candidate(set, home(set, h), h);

	while (set->slots[at] && !same(states + ((u32)set->slots[at] - 1ull) * WORDS, s))
		at = candidate(set, next_slot(set, at), h);
	return &set->slots[at];
}

static inline u64 index_slot(u64 h, u64 index)
{
	return h >> 32 << 32 | (index + 1);
}

#if WORDS == 1
/* States of one word are kept in the set themselves: mix() is a bijection, so the hash is the state. */

/* The slot of the line at `at` that holds h or is empty; LINE if neither is there. */
static inline u32 find_in_line(const u64 *line, u64 h)
{
	u32 hits = 1 << LINE;

#ifdef __AVX2__
	__m256i key = _mm256_set1_epi64x((long long)h), none = _mm256_setzero_si256();

	for (u32 i = 0; i < LINE; i += 4) {
		__m256i four = _mm256_load_si256((const __m256i *)(line + i));
		__m256i hit = _mm256_or_si256(_mm256_cmpeq_epi64(four, key), _mm256_cmpeq_epi64(four, none));

		hits |= (u32)_mm256_movemask_pd(_mm256_castsi256_pd(hit)) << i;
	}
#else
	for (u32 i = 0; i < LINE; i++)
		hits |= (u32)(line[i] == h || line[i] == 0) << i;
#endif
	return (u32)__builtin_ctz(hits);
}
#endif

#endif
