/*
 * monitor_health.c: one node: when it is taken out, and when it is back.
 *
 *   UNKNOWN --- a check is answered ---> UP <--- health.rise in a row are answered (a primary, or where
 *      |                                 ^ |     nothing else is left: one) ---.
 *      |                                 | '---- health.fall in a row are not, |
 *      |                                 |       or one is refused ------> DOWN'
 *      '--- as from UP ------------------|-------------------------------------^
 *                                        |
 *                           breaker open | health.breaker_open has passed, or no
 *                           on a replica v other node is left that could serve reads
 *                                      DOWN
 *
 * The breaker counts what the checks do not explain: connections of workers that fail while checks are
 * answered, checks that fail now and then, and a node that goes down again and again. What workers meet
 * on a node that then turns out to be down counts no more than that.
 */
#include "proxy/monitor_internal.h"

#include "pgshunt/log.h"
#include "proxy/node_health.h"

#define MS 1000

static bool is_primary(const struct watch *watch)
{
    return atomic_load(&watch->node->role) == NODE_ROLE_PRIMARY;
}

static struct breaker_limits limits_of(const struct watch *watch)
{
    const struct config *config = watch->monitor->topology->config;
    return (struct breaker_limits){.failures = config->breaker_failures,
                                   .open_us = config->breaker_open * MS,
                                   .reset_us = config->breaker_reset * MS};
}

/* ---- what follows ---- */

/* Is there another node that reads could go to? */
static bool has_spare(const struct watch *watch)
{
    const struct group *group = watch->group;
    for (int i = 0; group && i < group->nwatches; i++) {
        const struct watch *other = group->watches[i];
        if (other != watch && other->verdict == NODE_STATE_UP &&
            (is_primary(other) ? !other->fenced : other->breaker.state != BREAKER_OPEN))
            return true;
    }
    return false;
}

static bool breaker_holds(const struct watch *watch)
{
    return watch->breaker.state == BREAKER_OPEN && !is_primary(watch) && has_spare(watch);
}

void health_publish(struct watch *watch)
{
    struct node *node = watch->node;
    enum node_state state = watch->verdict;
    if (state == NODE_STATE_UP && breaker_holds(watch))
        state = NODE_STATE_DOWN;
    atomic_store(&node->breaker, (int)watch->breaker.state);
    atomic_store(&node->breaker_failures, watch->breaker.failures);
    atomic_store(&node->state, (int)state);
}

/* ---- the breaker ---- */

static void report_breaker(const struct watch *watch)
{
    const char *role = node_role_name((enum node_role)atomic_load(&watch->node->role));
    if (watch->breaker.state == BREAKER_OPEN)
        log_event(LOG_WARNING, "the circuit breaker of a node is open", LOG_S("node", watch->name),
                  LOG_S("database", watch->node->dbname), LOG_S("role", role),
                  LOG_I("failures", watch->breaker.failures),
                  LOG_S("effect", is_primary(watch) ? "one login at a time"
                                                    : "no reads, unless it is the last node"));
    else
        log_event(LOG_INFO, "the circuit breaker of a node has changed", LOG_S("node", watch->name),
                  LOG_S("database", watch->node->dbname), LOG_S("role", role),
                  LOG_S("breaker", breaker_state_name(watch->breaker.state)));
}

/* Others may be let in again, or be needed no more. */
static void breaker_changed(struct watch *watch)
{
    if (watch->breaker.state == BREAKER_OPEN)
        atomic_fetch_add(&watch->node->breaker_opened, 1);
    report_breaker(watch);
    group_settle(watch->group);
}

static void count_failures(struct watch *watch, int count)
{
    struct breaker_limits limits = limits_of(watch);
    if (breaker_fail(&watch->breaker, &limits, count, clock_us()))
        breaker_changed(watch);
}

void health_tick(struct watch *watch, int64_t now)
{
    struct breaker_limits limits = limits_of(watch);
    if (breaker_tick(&watch->breaker, &limits, now))
        breaker_changed(watch);
    else if (atomic_load(&watch->node->breaker_failures) != watch->breaker.failures)
        health_publish(watch);
}

/* ---- down and up ---- */

void health_down(struct watch *watch, const char *why)
{
    watch->checked_once = true;
    watch->answers = 0;
    node_take_failures(watch->node);
    if (watch->verdict == NODE_STATE_DOWN)
        return;
    watch->verdict = NODE_STATE_DOWN;
    atomic_store(&watch->node->dead_since, clock_us());
    health_publish(watch);
    log_event(LOG_WARNING, "node is down", LOG_S("node", watch->name),
              LOG_S("database", watch->node->dbname),
              LOG_S("role", node_role_name((enum node_role)atomic_load(&watch->node->role))),
              LOG_S("reason", why));
    group_settle(watch->group);
    count_failures(watch, 1);
}

static bool has_risen(struct watch *watch)
{
    return is_primary(watch) || !has_spare(watch) ||
           ++watch->answers >= watch->monitor->topology->config->health_rise;
}

void health_answered(struct watch *watch, bool new_role)
{
    int failures = node_take_failures(watch->node);
    if (new_role)
        watch->breaker = (struct breaker){0};
    if (watch->failures && watch->verdict == NODE_STATE_UP)
        failures++; /* it was late, or silent, and is well now */
    watch->failures = 0;
    if (watch->verdict == NODE_STATE_DOWN && !has_risen(watch))
        return;
    watch->verdict = NODE_STATE_UP;
    watch->answers = 0;
    atomic_store(&watch->node->dead_since, 0);
    health_publish(watch);
    /* Where it is kept out, what succeeds was begun before. */
    if (atomic_exchange(&watch->node->proved, false) && !breaker_holds(watch) &&
        breaker_succeed(&watch->breaker, clock_us()))
        breaker_changed(watch);
    count_failures(watch, failures);
}
