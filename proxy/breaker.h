/*
 * breaker.h: a node's circuit breaker: counts what goes wrong, says when the node is to be left alone and
 * when it may be tried again.
 *
 *              `failures` within `reset_us`            open_us has passed
 *     CLOSED ------------------------------> OPEN ---------------------------> HALF_OPEN
 *       ^                                     ^                                 |    |
 *       |                                     '-------- the next failure -------'    |
 *       '---------- a connection that succeeds, or reset_us without a failure -------'
 *
 * A success closes it while it is open, too: of a node that is needed nonetheless.
 *
 * Pure: the caller brings the clock.
 */
#ifndef PGSHUNT_PROXY_BREAKER_H
#define PGSHUNT_PROXY_BREAKER_H

#include <stdbool.h>
#include <stdint.h>

enum breaker_state {
    BREAKER_CLOSED,    /* the node is used as its role allows */
    BREAKER_OPEN,      /* it is left alone */
    BREAKER_HALF_OPEN, /* it is being tried */
};

struct breaker_limits {
    int failures;     /* so many open it; 0: it never opens */
    int64_t open_us;  /* how long it stays open */
    int64_t reset_us; /* failures older than that count no more */
};

/* All zero: closed, nothing counted. */
struct breaker {
    enum breaker_state state;
    int failures;     /* since `first_at` */
    int64_t first_at; /* the first of them */
    int64_t since;    /* last change of state */
};

/* Each returns whether the state changed. */
bool breaker_fail(struct breaker *breaker, const struct breaker_limits *limits, int count,
                  int64_t now);
/* A connection was made and could be used: by one who had reason to try. */
bool breaker_succeed(struct breaker *breaker, int64_t now);
/* Time passes. */
bool breaker_tick(struct breaker *breaker, const struct breaker_limits *limits, int64_t now);

const char *breaker_state_name(enum breaker_state state);

#endif
