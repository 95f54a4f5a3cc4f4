/* node_health.c: notes what workers meet on a node, and which server connections are to go. */
#include "proxy/node_health.h"

#include <string.h>

static atomic_uint disowned;

static bool is_class(const char *sqlstate, const char *class)
{
    return strncmp(sqlstate, class, 2) == 0;
}

/*
 * Class 08: no connection; 57P02, 57P03: it crashed, starts or stops; 53, 58, XX: it is out of memory or disk, or broken.
 * But 53300 means that it is in use, not ill.
 */
static bool speaks_against(const char *sqlstate)
{
    if (strcmp(sqlstate, "53300") == 0)
        return false;
    return is_class(sqlstate, "08") || is_class(sqlstate, "53") || is_class(sqlstate, "58") ||
           is_class(sqlstate, "XX") || strcmp(sqlstate, "57P02") == 0 ||
           strcmp(sqlstate, "57P03") == 0;
}

void node_refused(struct node *node, const char *sqlstate)
{
    if (speaks_against(sqlstate))
        atomic_fetch_add(&node->refusals, 1);
}

/* 57P01, 57P05 and the like are somebody's will, and no illness. */
void node_broke(struct node *node, const char *sqlstate)
{
    if (!*sqlstate || speaks_against(sqlstate))
        atomic_store(&node->broke, true);
}

void node_erred(struct node *node, const char *sqlstate)
{
    if (strcmp(sqlstate, "53100") == 0 || strcmp(sqlstate, "58030") == 0)
        atomic_fetch_add(&node->disk_errors, 1);
}

void node_proved(struct node *node)
{
    if (atomic_load(&node->breaker) != BREAKER_CLOSED)
        atomic_store(&node->proved, true);
}

int node_take_failures(struct node *node)
{
    return atomic_exchange(&node->refusals, 0) + atomic_exchange(&node->disk_errors, 0) +
           atomic_exchange(&node->broke, false);
}

void node_leave(struct node *node, int64_t before)
{
    atomic_store(&node->leave_before, before);
    atomic_fetch_add(&disowned, 1);
}

void node_disown(struct node *node, int64_t before)
{
    atomic_store(&node->lost_before, before);
    atomic_fetch_add(&disowned, 1);
}

unsigned node_disowned_count(void)
{
    return atomic_load(&disowned);
}
