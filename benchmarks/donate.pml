/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The shared test model (tests/donate.py) for Spin:
 *
 *   spin -a -DPAGES=4 donate.pml && cc -O3 -DSAFETY -DBFS -o pan pan.c && ./pan
 */
#ifndef PAGES
#define PAGES 4
#endif
#define HOST 0
#define PRIV 1
#define SHRD 2

typedef page_t {
	unsigned owner : 2 = 0;
	bit direct = 1;
	bit stage2 = 1;
	bit guest = 0;
	bit allocated = 0;
	unsigned pins : 2 = 0;
	bit stale0 = 0;
	bit stale1 = 0
};

page_t page[PAGES];
byte lock = 0;

#define quiet(p) (!page[p].direct && page[p].pins == 0 && !page[p].stale0 && !page[p].stale1)
#define reachable(p) (!(page[p].direct || page[p].stale0 || page[p].stale1) || page[p].stage2)

#define OPTIONS(p) \
	:: d_step { page[p].allocated && page[p].owner != PRIV && page[p].direct && page[p].pins < 2 -> page[p].pins++ } \
	:: d_step { page[p].pins > 0 -> page[p].pins-- } \
	:: d_step { page[p].allocated && page[p].owner != HOST && !page[p].guest -> page[p].guest = 1 } \
	:: d_step { lock != 0 && !page[p].allocated -> page[p].allocated = 1 } \
	:: d_step { lock != 0 && page[p].allocated && page[p].owner != PRIV && page[p].direct && page[p].pins == 0 -> \
		page[p].direct = 0; page[p].stale0 = 1; page[p].stale1 = 1 } \
	:: d_step { lock != 0 && page[p].stale0 -> page[p].stale0 = 0 } \
	:: d_step { lock != 0 && page[p].stale1 -> page[p].stale1 = 0 } \
	:: d_step { lock != 0 && page[p].owner != PRIV && page[p].stage2 && !page[p].direct -> \
		page[p].direct = 1; page[p].stale0 = 0; page[p].stale1 = 0 } \
	:: d_step { lock != 0 && page[p].allocated && page[p].owner == HOST && quiet(p) -> \
		page[p].owner = PRIV; page[p].stage2 = 0; assert(reachable(p)) } \
	:: d_step { lock != 0 && page[p].owner == PRIV -> page[p].owner = SHRD; page[p].stage2 = 1 } \
	:: d_step { lock != 0 && page[p].owner == SHRD && quiet(p) -> \
		page[p].owner = PRIV; page[p].stage2 = 0; assert(reachable(p)) } \
	:: d_step { lock != 0 && page[p].allocated && page[p].pins == 0 -> \
		page[p].owner = HOST; page[p].direct = 1; page[p].stage2 = 1; page[p].guest = 0; page[p].allocated = 0; \
		page[p].stale0 = 0; page[p].stale1 = 0 }

active proctype everybody()
{
	do
	:: d_step { lock == 0 -> lock = 1 }
	:: d_step { lock == 0 -> lock = 2 }
	:: d_step { lock != 0 -> lock = 0 }
	OPTIONS(0)
#if PAGES > 1
	OPTIONS(1)
#endif
#if PAGES > 2
	OPTIONS(2)
#endif
#if PAGES > 3
	OPTIONS(3)
#endif
#if PAGES > 4
	OPTIONS(4)
#endif
	od
}
