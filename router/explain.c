/* explain.c: a plan in words, one line each. */
#include "router/plan_internal.h"

#include "pgshunt/buffer.h"
#include "pgshunt/change.h"

struct lines {
    struct arena *arena;
    const char **items;
    int count, room;
};

static void add_line(struct lines *lines, const char *text)
{
    if (lines->count == lines->room) {
        int room = lines->room ? lines->room * 2 : 8;
        const char **items = arena_array(lines->arena, const char *, room);
        if (lines->count)
            memcpy(items, lines->items, sizeof *items * (size_t)lines->count);
        lines->items = items;
        lines->room = room;
    }
    lines->items[lines->count++] = text;
}

static const char *node_words(const struct plan *plan)
{
    return plan->node == NODE_CLASS_REPLICA ? "replica" : "primary";
}

static const char *details(const struct plan *plan, struct arena *arena)
{
    return arena_printf(arena, "(%s%s%s%s%s)", node_words(plan), plan->node_reason ? ": " : "",
                        plan->node_reason ? plan->node_reason : "", plan->reason ? "; " : "",
                        plan->reason ? plan->reason : "");
}

/* ---- merging ---- */

static void add_sort(const struct merge_spec *spec, struct buffer *out)
{
    for (int i = 0; i < spec->nsort; i++) {
        const struct merge_sort_key *key = &spec->sort[i];
        buffer_printf(out, i ? ", " : "sort by ");
        if (key->column >= 0)
            buffer_printf(out, "%d", key->column + 1);
        else if (key->column == -1)
            buffer_printf(out, "\"%s\"", spec->sort_names[i]);
        else
            buffer_printf(out, "hidden %d", -1 - key->column);
        if (key->descending)
            buffer_printf(out, " DESC");
        if (key->nulls_first != key->descending)
            buffer_printf(out, key->nulls_first ? " NULLS FIRST" : " NULLS LAST");
    }
}

static void add_group(const struct merge_spec *spec, struct buffer *out)
{
    static const char *const names[] = {"", "count", "sum", "min", "max", "avg"};
    const char *between = "";
    buffer_printf(out, "combine ");
    for (int i = 0; i < spec->ncolumns; i++) {
        if (spec->columns[i].aggregate == AGGREGATE_NONE)
            continue;
        buffer_printf(out, "%s%s %d", between, names[spec->columns[i].aggregate], i + 1);
        between = ", ";
    }
    if (!*between)
        buffer_printf(out, "groups");
    for (int i = 0; i < spec->ngroup_keys; i++)
        buffer_printf(out, "%s%d", i ? ", " : " by ", spec->group_keys[i] + 1);
}

static void add_bound(struct buffer *out, const char *word, int64_t value, int64_t none, int param)
{
    const char *comma = buffer_length(out) ? ", " : "";
    if (param)
        buffer_printf(out, "%s%s $%d", comma, word, param);
    else if (value != none)
        buffer_printf(out, "%s%s %lld", comma, word, (long long)value);
}

static const char *merge_words(const struct merge_spec *spec, struct arena *arena)
{
    struct buffer out = {0};
    if (spec->group)
        add_group(spec, &out);
    if (spec->distinct)
        buffer_printf(&out, "distinct");
    if (spec->nsort) {
        if (buffer_length(&out))
            buffer_printf(&out, ", ");
        add_sort(spec, &out);
    }
    add_bound(&out, "limit", spec->limit, -1, spec->limit_param);
    add_bound(&out, "offset", spec->offset, 0, spec->offset_param);
    if (spec->row_source)
        buffer_printf(&out, "rows in the order of VALUES");
    if (!buffer_length(&out))
        buffer_printf(&out, "append");
    const char *words = arena_strndup(arena, buffer_head(&out), buffer_length(&out));
    buffer_release(&out);
    return words;
}

/* ---- kinds of plan ---- */

static void explain_direct(const struct plan *plan, const struct shardmap *map, struct lines *lines)
{
    const char *where = plan->any_shard ? "any shard, here" : "shard";
    add_line(lines,
             arena_printf(lines->arena, "pgshunt: direct to %s %s %s", where,
                          shardmap_shard_name(map, plan->shard), details(plan, lines->arena)));
    if (plan->needs_params)
        add_line(lines, "  the shard is chosen when the parameters are bound");
}

static const char *shard_names(const struct plan *plan, const struct shardmap *map,
                               struct arena *arena)
{
    struct buffer out = {0};
    for (int i = 0; i < plan->nqueries; i++)
        buffer_printf(&out, "%s%s", i ? ", " : "",
                      shardmap_shard_name(map, plan->queries[i].shard));
    const char *names = arena_strndup(arena, buffer_head(&out), buffer_length(&out));
    buffer_release(&out);
    return names;
}

/* The shards that get this text. */
static const char *source_names(const struct gather_table *table, const struct shard_query *source,
                                const struct shardmap *map, struct arena *arena)
{
    const char *names = "";
    for (int i = 0; i < table->nshards; i++)
        if (gather_source(table, table->shards[i]) == source)
            names = arena_printf(arena, "%s%s%s", names, *names ? ", " : "",
                                 shardmap_shard_name(map, table->shards[i]));
    return names;
}

static void explain_source(const struct gather_table *table, const struct shard_query *source,
                           const struct shardmap *map, struct lines *lines)
{
    const char *names = source_names(table, source, map, lines->arena);
    if (*names)
        add_line(lines, arena_printf(lines->arena, "  from %s: %s", names, source->sql));
}

static void explain_sources(const struct gather_table *table, const struct shardmap *map,
                            struct lines *lines)
{
    explain_source(table, &table->source, map, lines);
    explain_source(table, &table->hidden, map, lines);
}

static void explain_tables(const struct gather_plan *gather, const struct shardmap *map,
                           struct lines *lines)
{
    struct arena *arena = lines->arena;
    for (int i = 0; i < gather->nchecks; i++)
        add_line(lines, arena_printf(arena, "  check: %s", gather->checks[i]));
    for (int i = 0; i < gather->ntables; i++) {
        const struct gather_table *table = &gather->tables[i];
        add_line(lines, arena_printf(arena, "  here: %s",
                                     table->rows_here ? table->create.sql : table->make.sql));
        explain_sources(table, map, lines);
    }
}

static void explain_gather(const struct plan *plan, const struct shardmap *map, struct lines *lines)
{
    add_line(lines,
             arena_printf(lines->arena, "pgshunt: gather on %s %s",
                          shardmap_shard_name(map, plan->shard), details(plan, lines->arena)));
    explain_tables(plan->gather, map, lines);
    for (int i = 0; i < plan->gather->nedges; i++) {
        const struct gather_edge *edge = &plan->gather->edges[i];
        add_line(lines, arena_printf(lines->arena, "  joined: %s.%s with %s.%s",
                                     plan->gather->tables[edge->table].name, edge->column,
                                     edge->source_name, edge->source_column));
    }
}

static void explain_create(const struct plan *plan, const struct shardmap *map, struct lines *lines)
{
    const struct change_create *create = plan->change->create;
    struct arena *arena = lines->arena;
    for (unsigned s = 0; create->each && s < shardmap_shards(map); s++)
        add_line(lines, arena_printf(arena, "  on %s: %s", shardmap_shard_name(map, s),
                                     create->each[s].sql));
    if (create->everywhere && !create->each)
        add_line(lines, arena_printf(arena, "  on all: %s", create->without.sql));
    if (create->everywhere)
        return;
    add_line(lines, arena_printf(arena, "  on %s: %s", shardmap_shard_name(map, plan->shard),
                                 create->filled.sql));
    if (create->without.sql)
        add_line(lines, arena_printf(arena, "  on the others: %s", create->without.sql));
}

/* Where its rows come from, and how they go in. */
static void explain_change(const struct plan *plan, const struct shardmap *map, struct lines *lines)
{
    const struct change_plan *change = plan->change;
    struct arena *arena = lines->arena;
    add_line(lines,
             arena_printf(arena, "pgshunt: rows from shard to shard %s", details(plan, arena)));
    if (change->gather)
        explain_tables(change->gather, map, lines);
    if (change->create)
        explain_create(plan, map, lines);
    if (change->create && (!change->create->everywhere || change->create->each))
        return;
    for (int i = 0; i < change->nsources; i++)
        add_line(lines, arena_printf(arena, "  from %s: %s",
                                     shardmap_shard_name(map, change->sources[i].shard),
                                     change->sources[i].sql));
    for (int i = 0; i < change->nlook_at; i++)
        add_line(lines, arena_printf(arena, "  look at %s: %s",
                                     shardmap_shard_name(map, change->look_at[i]),
                                     change->move->look.sql));
    if (change->move) {
        add_line(lines, arena_printf(arena, "  that stay: %s", change->move->stay.sql));
        add_line(lines, arena_printf(arena, "  that go: %s", change->move->go.sql));
    }
    add_line(lines, arena_printf(arena, "  %s: %sVALUES ...%s",
                                 change->rows.by_shard ? "where they are"
                                 : change->rows.key    ? "by key"
                                                       : "to all",
                                 change->rows.head, change->rows.tail.sql));
}

static void explain_scatter(const struct plan *plan, const struct shardmap *map,
                            struct lines *lines)
{
    static const char *const modes[] = {
        [SCATTER_ROWS] = "scatter-merge over",
        [SCATTER_WRITE] = "scatter write to",
        [SCATTER_UTILITY] = "same on",
        [SCATTER_CURSOR] = "a portal for each part of a scatter-merge over",
        [SCATTER_COPY_IN] = "rows to",
        [SCATTER_COPY_OUT] = "rows of",
        [SCATTER_DRAW] = "first, from",
    };
    struct arena *arena = lines->arena;
    if (plan->mode == SCATTER_GATHER) {
        explain_gather(plan, map, lines);
        return;
    }
    if (plan->mode == SCATTER_CHANGE) {
        explain_change(plan, map, lines);
        return;
    }
    add_line(lines, arena_printf(arena, "pgshunt: %s %s %s", modes[plan->mode],
                                 shard_names(plan, map, arena), details(plan, arena)));
    for (int i = 0; i < plan->nqueries; i++)
        add_line(lines,
                 arena_printf(arena, "  %s: %s", shardmap_shard_name(map, plan->queries[i].shard),
                              plan->queries[i].sql));
    if (plan->merge)
        add_line(lines, arena_printf(arena, "  merge: %s", merge_words(plan->merge, arena)));
}

static void explain_refusal(const struct plan *plan, struct lines *lines)
{
    add_line(lines, "pgshunt: refused");
    add_line(lines, arena_printf(lines->arena, "  refused: %s", plan->error.message));
    if (plan->error.hint)
        add_line(lines, arena_printf(lines->arena, "  hint: %s", plan->error.hint));
}

int router_explain(const struct plan *plan, const struct shardmap *map, struct arena *arena,
                   const char ***lines)
{
    struct lines out = {.arena = arena};
    switch (plan->kind) {
    case PLAN_DIRECT:
        explain_direct(plan, map, &out);
        break;
    case PLAN_SCATTER:
        explain_scatter(plan, map, &out);
        break;
    case PLAN_REFUSE:
        explain_refusal(plan, &out);
        break;
    }
    if (plan->keyless && plan->kind == PLAN_SCATTER)
        add_line(&out, arena_printf(arena, "  require_key: %s", plan->keyless->message));
    *lines = out.items;
    return out.count;
}
