/* epoch.c: server connections carry the number of the map that their statements were planned by. */
#include "proxy/epoch.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "pgshunt/guard.h"
#include "pgshunt/wire.h"
#include "proxy/pool.h"

void epoch_put_startup(struct server *server, struct buffer *out)
{
    const struct database *database =
        topology_database(server->worker->topology, server->pool->account->database);
    char number[24];
    server->epoch = database ? epoch_of_map(database->map) : 0;
    if (!server->epoch)
        return;
    snprintf(number, sizeof number, "%" PRId64, server->epoch);
    wire_put_cstring(out, GUARD_SETTING);
    wire_put_cstring(out, number);
}

/* In a transaction block it is for that one: the map may be another afterwards, and a rollback would undo it. A block that
 * has failed takes no statement that it could matter for. */
void epoch_put(const struct client *client, struct server *server, struct buffer *sql)
{
    int64_t epoch = epoch_of_map(client->database->map);
    bool inside = server->begun || server->tx_status == 'T';
    if (server->tx_status == 'E')
        return;
    server->epoch = epoch;
    server->epoch_is_local |= inside;
    buffer_printf(sql,
                  inside ? "SET LOCAL " GUARD_SETTING " = %" PRId64 ";"
                         : "BEGIN;SET " GUARD_SETTING " = %" PRId64 ";COMMIT;",
                  epoch);
}

bool epoch_is_refusal(const struct pg_error *error)
{
    return strcmp(error->sqlstate, GUARD_SQLSTATE) == 0 &&
           strncmp(error->message, GUARD_MESSAGE, sizeof GUARD_MESSAGE - 1) == 0;
}

void epoch_explain(struct pg_error *error)
{
    *error = (struct pg_error){
        .sqlstate = "40001",
        .message = "rows of this transaction have moved to another shard since it began",
        .hint = "Run the transaction again: it goes to where the rows are now."};
}
