/* breaker.c: when a node that keeps failing is left alone, and when it is tried again. */
#include "proxy/breaker.h"

const char *breaker_state_name(enum breaker_state state)
{
    switch (state) {
    case BREAKER_CLOSED:
        return "closed";
    case BREAKER_OPEN:
        return "open";
    case BREAKER_HALF_OPEN:
        return "half-open";
    }
    return "?";
}

static bool change(struct breaker *breaker, enum breaker_state state, int64_t now)
{
    breaker->state = state;
    breaker->since = now;
    if (state != BREAKER_OPEN)
        breaker->failures = 0;
    return true;
}

bool breaker_fail(struct breaker *breaker, const struct breaker_limits *limits, int count,
                  int64_t now)
{
    if (count <= 0 || limits->failures == 0 || breaker->state == BREAKER_OPEN)
        return false;
    if (breaker->failures == 0 || now - breaker->first_at > limits->reset_us) {
        breaker->failures = 0;
        breaker->first_at = now;
    }
    breaker->failures += count;
    if (breaker->state == BREAKER_CLOSED && breaker->failures < limits->failures)
        return false;
    return change(breaker, BREAKER_OPEN, now);
}

bool breaker_succeed(struct breaker *breaker, int64_t now)
{
    return breaker->state != BREAKER_CLOSED && change(breaker, BREAKER_CLOSED, now);
}

bool breaker_tick(struct breaker *breaker, const struct breaker_limits *limits, int64_t now)
{
    if (breaker->state == BREAKER_CLOSED) {
        if (now - breaker->first_at > limits->reset_us)
            breaker->failures = 0;
        return false;
    }
    if (limits->failures == 0) /* switched off by a reload */
        return change(breaker, BREAKER_CLOSED, now);
    if (breaker->state == BREAKER_OPEN && now - breaker->since >= limits->open_us)
        return change(breaker, BREAKER_HALF_OPEN, now);
    if (breaker->state == BREAKER_HALF_OPEN && now - breaker->since >= limits->reset_us)
        return change(breaker, BREAKER_CLOSED, now);
    return false;
}
