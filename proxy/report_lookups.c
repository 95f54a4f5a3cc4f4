/* report_lookups.c: the lookups of all databases, as rows of a report. */
#include <stdio.h>

#include "proxy/lookup_internal.h"
#include "proxy/report.h"

static void add_row(struct report *report, const struct database *database,
                    const struct lookup_rule *lookup, struct report_lookup ***end)
{
    struct schema_ref *schema = topology_schema(database);
    struct report_lookup *row = arena_new(&report->arena, struct report_lookup);
    *row = (struct report_lookup){
        .database = database->name,
        .lookup = lookup,
        .ready = schema &&
                 schema_function(schema->schema, "pgshunt", lookup->function) != VOLATILITY_UNKNOWN,
    };
    schema_unref(schema);
    **end = row;
    *end = &row->next;
}

static void add_rows(struct report *report)
{
    struct report_lookup **end = &report->lookups;
    for (int d = 0; d < report->topology->ndatabases; d++) {
        const struct database *database = &report->topology->databases[d];
        const struct lookup_rule *lookup;
        for (unsigned i = 0; (lookup = shardmap_lookup(database->map, i)); i++)
            add_row(report, database, lookup, &end);
    }
}

void report_list_lookups(struct report *report, const struct worker *worker)
{
    if (!report->lookups)
        add_rows(report);
    if (!worker->lookups)
        return;
    for (struct report_lookup *row = report->lookups; row; row = row->next) {
        const struct lookup_stats *stats =
            lookup_stats_of(worker->lookups, row->database, row->lookup);
        row->cached += stats->cached;
        row->hits += stats->hits;
        row->misses += stats->misses;
        row->stale += stats->stale;
        row->failed += stats->failed;
    }
}
