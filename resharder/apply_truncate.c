/* apply_truncate.c: a TRUNCATE on the source removes the rows on the target that came from there, and no others. */
#include <stdlib.h>
#include <string.h>

#include "resharder/apply_internal.h"

static bool run(struct apply *apply, const char *sql)
{
    return pipe_run(&apply->target, sql, NULL) ||
           apply_pipe_failed(apply, &apply->target, "target");
}

/* All rows of the table: whose they are, their buckets say; those that are moved here came from this source. */
static const char *declare(struct apply_relation *relation)
{
    struct arena *arena = &relation->arena;
    const char *keys = "";
    for (unsigned i = 0; i < relation->nkey; i++)
        keys =
            arena_printf(arena, "%s, t.%s::text", keys, relation->columns[relation->key[i]].quoted);
    return arena_printf(arena,
                        "DECLARE pgshunt_truncate NO SCROLL CURSOR FOR SELECT t.tableoid, t.ctid%s"
                        " FROM %s t",
                        keys, relation->quoted);
}

static bool is_ours(const struct apply *apply, const struct apply_relation *relation,
                    const PGresult *rows, int row)
{
    const struct keyspace *keyspace = relation->table->rule->keyspace;
    struct move_value parts[SHARDMAP_MAX_PARTS];
    unsigned bucket;
    for (unsigned i = 0; i < relation->nkey; i++)
        parts[i] = (struct move_value){.bytes = PQgetvalue(rows, row, 2 + (int)i),
                                       .length = (size_t)PQgetlength(rows, row, 2 + (int)i)};
    if (!move_bucket(keyspace, parts, relation->key_types, &bucket))
        return false;
    const struct move *move = moves_find(apply->options.moves, keyspace, bucket);
    return move && move->source == apply->options.link.source &&
           move->target == apply->options.link.target;
}

/* Deletes those of the rows that are ours, by their places. */
static bool delete_rows(struct apply *apply, const struct apply_relation *relation,
                        const PGresult *rows)
{
    struct buffer tables = {0}, places = {0};
    int count = 0;
    for (int i = 0; i < PQntuples(rows); i++) {
        if (!is_ours(apply, relation, rows, i))
            continue;
        buffer_printf(&tables, "%c%s", count ? ',' : '{', PQgetvalue(rows, i, 0));
        buffer_printf(&places, "%c\"%s\"", count++ ? ',' : '{', PQgetvalue(rows, i, 1));
    }
    bool good = true;
    if (count) {
        buffer_append(&tables, "}", 2);
        buffer_append(&places, "}", 2);
        buffer_clear(&apply->sql);
        buffer_printf(&apply->sql,
                      "DELETE FROM %s AS t USING unnest($1::oid[], $2::tid[]) AS v(o, c)"
                      " WHERE t.tableoid = v.o AND t.ctid = v.c",
                      relation->quoted);
        buffer_append(&apply->sql, "", 1);
        const char *values[] = {buffer_head(&tables), buffer_head(&places)};
        const struct pipe_parameters parameters = {2, values, NULL, NULL};
        good = pipe_query(&apply->target, buffer_head(&apply->sql), &parameters, NULL) ||
               apply_pipe_failed(apply, &apply->target, "target");
    }
    apply->progress.deleted += count;
    buffer_release(&tables);
    buffer_release(&places);
    return good;
}

static bool truncate_relation(struct apply *apply, struct apply_relation *relation)
{
    bool more = true;
    if (!apply_send_relation(apply, relation) || !apply_owes_none(apply, relation) ||
        !run(apply, declare(relation)))
        return false;
    while (more) {
        PGresult *rows = pipe_ask(&apply->target, "FETCH 1000 FROM pgshunt_truncate", NULL);
        if (!rows)
            return apply_pipe_failed(apply, &apply->target, "target");
        more = PQntuples(rows) > 0;
        bool good = delete_rows(apply, relation, rows);
        PQclear(rows);
        if (!good)
            return false;
    }
    return run(apply, "CLOSE pgshunt_truncate");
}

bool apply_truncate(struct apply *apply, const struct pgoutput_message *message)
{
    for (int i = 0; i < message->nrelations; i++) {
        struct apply_relation *relation = apply_find_relation(apply, message->relations[i]);
        if (!relation)
            return apply_problem(apply, NULL,
                                 "the source truncated a table that it has not described");
        if (!relation->table)
            continue;
        if (relation->unfit)
            apply->failure = *relation->unfit;
        if (relation->unfit)
            return false;
        if (!apply_open_transaction(apply) || !truncate_relation(apply, relation))
            return false;
        apply->rows++;
    }
    return true;
}
