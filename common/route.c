/* route.c: takes apart what is said about routing, and lays it over what others say. */
#include "pgshunt/route.h"

#include <string.h>
#include <strings.h>

#include "config_internal.h"

#define REGION_MAX 255
#define LAG_MAX_MS (INT64_C(7) * 86400000) /* as routing.max_lag */

void route_wish_lay_over(struct route_wish *wish, const struct route_wish *over)
{
    if (over->route != ROUTE_UNSAID)
        wish->route = over->route;
    if (over->region)
        wish->region = over->region;
    if (over->max_lag_us >= 0)
        wish->max_lag_us = over->max_lag_us;
    if (over->read_your_writes != NOT_SAID)
        wish->read_your_writes = over->read_your_writes;
    if (over->monotonic_reads != NOT_SAID)
        wish->monotonic_reads = over->monotonic_reads;
}

static bool take_route(struct route_wish *wish, const char *value, const char **allowed)
{
    int index = config_choice_index(ROUTE_WORDS, value);
    *allowed = "auto, primary or replica";
    if (index >= 0)
        wish->route = (enum route)index;
    return index >= 0;
}

static bool take_max_lag(struct route_wish *wish, const char *value, const char **allowed)
{
    int64_t lag;
    *allowed = "a duration of at most 7d, with its unit (ms, s, min, h, d): 200ms";
    if (!config_number_parse(SETTING_DURATION, value, &lag) || lag < 0 || lag > LAG_MAX_MS)
        return false;
    wish->max_lag_us = lag * 1000;
    return true;
}

/* As Postgres takes truth values, but for their beginnings. */
static bool take_truth(enum said *said, const char *value, const char **allowed)
{
    static const char *const words[][2] = {
        {"off", "on"}, {"false", "true"}, {"no", "yes"}, {"0", "1"}};
    *allowed = "on or off";
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        for (int truth = 0; truth < 2; truth++)
            if (strcasecmp(value, words[i][truth]) == 0) {
                *said = truth ? SAID_ON : SAID_OFF;
                return true;
            }
    return false;
}

bool route_wish_take(struct route_wish *wish, const char *name, const char *value,
                     const char **allowed)
{
    if (strcmp(name, "route") == 0)
        return take_route(wish, value, allowed);
    if (strcmp(name, "max_lag") == 0)
        return take_max_lag(wish, value, allowed);
    if (strcmp(name, "read_your_writes") == 0)
        return take_truth(&wish->read_your_writes, value, allowed);
    if (strcmp(name, "monotonic_reads") == 0)
        return take_truth(&wish->monotonic_reads, value, allowed);
    *allowed = "the region of a node, a word of at most 255 bytes";
    if (strcmp(name, "region") != 0 || strlen(value) > REGION_MAX)
        return false;
    wish->region = value;
    return true;
}
