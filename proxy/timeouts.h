/*
 * timeouts.h: limits on how long clients may be idle, in a transaction, or asking.
 *
 * There is no timer per query. Each tick looks at the clients that hold a server, which are as many as
 * there are servers; once a second at all others: idle ones, and those that wait.
 */
#ifndef PGSHUNT_PROXY_TIMEOUTS_H
#define PGSHUNT_PROXY_TIMEOUTS_H

#include <stdint.h>

struct worker;

void timeouts_tick(struct worker *worker, int64_t now);
void timeouts_tick_idle(struct worker *worker, int64_t now); /* about once a second */

#endif
