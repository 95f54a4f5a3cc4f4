/*
 * scatter_steps.c: statements that refuse a transaction (CREATE INDEX CONCURRENTLY, VACUUM, ...) on several shards:
 * each shard does its own, and a failure says which have, and how to go on.
 */
#include <string.h>
#include <strings.h>

#include "proxy/scatter_internal.h"

bool scatter_goes_on(const struct scatter *scatter)
{
    return scatter->plan->no_transaction && scatter->plan->mode == SCATTER_UTILITY &&
           !scatter->client->tx && scatter->nparts > 1;
}

static const char *names(struct scatter *scatter, bool done)
{
    const char *list = "";
    for (int i = 0; i < scatter->nparts; i++)
        if ((scatter->parts[i].tag != NULL) == done)
            list = arena_printf(&scatter->arena, "%s%s%s", list, *list ? ", " : "",
                                scatter->parts[i].shard_name);
    return list;
}

/* By the statement's first words. */
static const char *way_on(const struct scatter *scatter)
{
    static const struct {
        const char *words, *way;
    } ways[] = {
        {"CREATE INDEX", "Repeat it with IF NOT EXISTS and the index's name: shards that have the "
                         "index skip it, and "
                         "what was left INVALID on the others is built anew."},
        {"DROP INDEX", "Repeat it with IF EXISTS: shards that have dropped the index skip it."},
        {"REINDEX", "Repeat it, or run it on the other shards alone, with a comment ahead of it: "
                    "/* pgshunt: shard=... */. INVALID indexes named ..._ccnew can be dropped."},
    };
    const char *tag = scatter->statement ? scatter->statement->tag : "";
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++)
        if (strncasecmp(tag, ways[i].words, strlen(ways[i].words)) == 0)
            return ways[i].way;
    return "Run it on the other shards alone, with a comment ahead of it: /* pgshunt: shard=... */";
}

void scatter_explain_steps(struct scatter *scatter)
{
    struct pg_error *error = &scatter->error;
    const char *done = names(scatter, true), *left = names(scatter, false);
    error->detail = arena_printf(&scatter->arena, "%s%sDone on: %s. Not done on: %s.",
                                 error->detail ? error->detail : "", error->detail ? "\n" : "",
                                 *done ? done : "no shard", left);
    if (*done)
        error->hint = way_on(scatter);
}
