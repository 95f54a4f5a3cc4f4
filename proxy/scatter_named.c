/* scatter_named.c: what a client has prepared under a name is prepared on each shard too, for fan-outs of it. */
#include "proxy/scatter_internal.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "proxy/extended.h"
#include "proxy/relay_internal.h"
#include "proxy/shard_query.h"

/*
 * The text for the shards is made anew for each execution, and may have values in it that are others the next
 * time: only one that has come twice in a row is worth a statement on the servers.
 */
bool scatter_has_names(const struct scatter *scatter)
{
    const struct plan *plan = scatter->plan;
    struct prepared *prepared = scatter->ask.prepared;
    if (!scatter->ask.named || !prepared || plan->mode != SCATTER_ROWS || plan->copy ||
        is_explain(scatter))
        return false;
    for (int i = 1; i < plan->nqueries; i++)
        if (strcmp(plan->queries[i].sql, plan->queries[0].sql) != 0)
            return false;
    uint64_t text = XXH3_64bits(plan->queries[0].sql, strlen(plan->queries[0].sql));
    bool again = prepared->scattered == text;
    prepared->scattered = text;
    return again;
}

/* A reference. The client's own statement, where the shards get its text. */
static struct prepared *statement_of_part(const struct scatter *scatter,
                                          const struct shard_query *query)
{
    const struct scatter_ask *ask = &scatter->ask;
    if (!query->params && strcmp(query->sql, ask->prepared->sql) == 0)
        return prepared_ref(ask->prepared);
    int count;
    uint32_t *types = shard_query_types(ask, query, &count);
    struct prepared *prepared =
        prepared_get(&scatter->client->worker->prepared, query->sql, types, count);
    free(types);
    return prepared;
}

const char *scatter_name_part(struct scatter *scatter, struct part *part,
                              const struct shard_query *query, struct buffer *out)
{
    struct client *client = scatter->client;
    struct server *server = part->server;
    part->named = statement_of_part(scatter, query);
    part->parses = marks_look(&server->marks, part->named, batch_path(client)) != MARK_HELD;
    if (part->parses)
        batch_room_ahead(client, server, out, part->named);
    else
        marks_use(&server->marks, part->named);
    return part->named->server_name;
}

void scatter_part_parsed(struct scatter *scatter, struct part *part)
{
    if (part->named && part->parses)
        marks_add(&part->server->marks, part->named, batch_path(scatter->client));
    part->parses = false;
}

void scatter_forget_names(struct scatter *scatter)
{
    for (int i = 0; i < scatter->nparts; i++) {
        prepared_unref(&scatter->client->worker->prepared, scatter->parts[i].named);
        scatter->parts[i].named = NULL;
    }
}

bool scatter_is_outdated(struct scatter *scatter, struct part *part, const struct pg_error *error)
{
    const struct client *client = scatter->client;
    const struct request *request = &client->request;
    bool shape;
    if (!part->named || !relay_finds_outdated(part->server, part->named, error, &shape))
        return false;
    /* A client that asks for no description counts on one it had before: it must hear of the change. */
    return !scatter->failed && !scatter->plan->write && !client->tx && !client->extended->unsafe &&
           !request->forwarded && !request->incomplete && request->attempts < 3 &&
           buffer_length(&request->again) && (!shape || scatter->ask.describe);
}
