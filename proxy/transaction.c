/* transaction.c: a client's transaction block: its begin, its savepoints, and what its end brings into
 * effect or forgets. */
#include "proxy/session.h"

#include <stdlib.h>
#include <string.h>

#include "pgshunt/arena.h"
#include "proxy/cursor.h"
#include "proxy/epoch.h"
#include "proxy/monitor.h"
#include "proxy/reported.h"

/* ---- savepoints ---- */

struct savepoint *transaction_savepoint(struct transaction *tx, const char *name)
{
    for (int i = tx->nsavepoints - 1; i >= 0; i--)
        if (strcmp(tx->savepoints[i].name, name) == 0)
            return &tx->savepoints[i];
    return NULL;
}

void transaction_add_savepoint(struct transaction *tx, const char *name)
{
    size_t size = sizeof *tx->savepoints * (size_t)(tx->nsavepoints + 1);
    tx->savepoints = mem_realloc(tx->savepoints, size);
    tx->savepoints[tx->nsavepoints++] =
        (struct savepoint){mem_strdup(name), tx->settings.count, tx->listens.count, tx->own.count};
}

void transaction_drop_savepoints(struct transaction *tx, int keep)
{
    while (tx->nsavepoints > keep)
        free(tx->savepoints[--tx->nsavepoints].name);
}

void transaction_release_savepoint(struct transaction *tx, const char *name)
{
    struct savepoint *savepoint = transaction_savepoint(tx, name);
    if (!savepoint)
        return;
    cursors_release(tx->cursors, (int)(savepoint - tx->savepoints));
    transaction_drop_savepoints(tx, (int)(savepoint - tx->savepoints));
}

void transaction_rollback_to(struct client *client, const char *name)
{
    struct transaction *tx = client->tx;
    struct savepoint *savepoint = transaction_savepoint(tx, name);
    if (!savepoint)
        return;
    guc_pending_truncate(&tx->settings, savepoint->pending);
    listen_changes_truncate(&tx->listens, savepoint->listens);
    own_settings_undo(client, savepoint->own);
    cursors_rollback_to(tx->cursors, (int)(savepoint - tx->savepoints));
    transaction_drop_savepoints(tx, (int)(savepoint - tx->savepoints) + 1);
    tx->state = TX_OPEN;
}

/* ---- begin and end ---- */

static char *begin_sql(const struct statement *statement)
{
    const char *options = statement && statement->begin_options ? statement->begin_options : "";
    struct buffer sql = {0};
    buffer_printf(&sql, *options ? "BEGIN %s" : "BEGIN%s", options);
    char *copy = mem_strdup(buffer_head(&sql));
    buffer_release(&sql);
    return copy;
}

static bool read_only_by_default(const struct client *client)
{
    const char *value = guc_set_get(client->guc, "default_transaction_read_only");
    return value && strstr(value, "on") != NULL;
}

void transaction_begin(struct client *client, const struct statement *statement)
{
    struct transaction *tx = mem_alloc(sizeof *tx);
    tx->state = TX_DEFERRED;
    tx->started_at = worker_now(client->worker);
    tx->begin_sql = begin_sql(statement);
    tx->read_only = statement && !statement->tx_read_write &&
                    (statement->tx_read_only || read_only_by_default(client));
    client->tx = tx;
}

void transaction_becomes_block(struct client *client, const struct statement *begin)
{
    struct transaction *tx = client->tx;
    tx->implicit = false;
    if (tx->state != TX_DEFERRED)
        return;
    free(tx->begin_sql);
    tx->begin_sql = begin_sql(begin);
    tx->read_only = !begin->tx_read_write && (begin->tx_read_only || read_only_by_default(client));
}

void transaction_schema_changed(struct client *client)
{
    topology_schema_changes(client->database);
    monitor_schema_changed(client->worker->daemon->monitor, client->database);
}

/* Others, and the schema that statements are planned by, learn of it at the end; views have to be known
 * before, for what is behind them may be anywhere. */
void transaction_follow_schema(struct client *client, const struct statement *statement)
{
    struct transaction *tx = client->tx;
    if (!tx) {
        transaction_schema_changed(client);
        return;
    }
    tx->changed_schema = true;
    if (!strstr(statement->tag, "VIEW"))
        return;
    size_t count = 0;
    while (tx->changed_views && tx->changed_views[count])
        count++;
    size_t room = count + (size_t)statement->nrelations + 1;
    tx->changed_views = mem_realloc(tx->changed_views, sizeof *tx->changed_views * room);
    for (int i = 0; i < statement->nrelations; i++)
        if (statement->relations[i].written)
            tx->changed_views[count++] = mem_strdup(statement->relations[i].name);
    tx->changed_views[count] = NULL;
}

static void free_names(char **names)
{
    for (char **at = names; at && *at; at++)
        free(*at);
    free(names);
}

/* Every server of the transaction counts. */
static void note_where_it_wrote(struct client *client)
{
    bool noted = false;
    for (int i = 0; i < client->nparticipants; i++) {
        if (!client->participants[i]->begun)
            continue;
        session_wrote(client, client->participants[i]);
        noted = true;
    }
    if (!noted)
        session_saw_anything(client);
}

void transaction_end(struct client *client, bool committed)
{
    struct transaction *tx = client->tx;
    if (!tx)
        return;
    if (committed) {
        guc_pending_apply(&tx->settings, client->startup, &client->guc);
        if (tx->wrote)
            note_where_it_wrote(client);
        if (tx->changed_schema)
            transaction_schema_changed(client);
    }
    for (int i = 0; i < client->nparticipants; i++) {
        struct server *server = client->participants[i];
        if (server->begun && committed)
            guc_pending_apply(&tx->settings, NULL, &server->guc);
        if (server->begun)
            reported_settle(client, server, committed ? &tx->settings : NULL);
        server->begun = server->wrote = false;
        epoch_undone(server);
        server->gathered = server->guarded = server->notified = false;
    }
    extended_close_portals(client);
    own_settings_end(client, committed);
    guc_pending_free(&tx->settings);
    if (tx->listens.count || client->listener)
        listen_transaction_end(client, &tx->listens, committed);
    cursors_free(tx->cursors);
    free_names(tx->changed_views);
    transaction_drop_savepoints(tx, 0);
    free(tx->savepoints);
    free(tx->begin_sql);
    free(tx);
    client->tx = NULL;
}

void transaction_note_place(struct transaction *tx)
{
    tx->before = (struct savepoint){NULL, tx->settings.count, tx->listens.count, tx->own.count};
    tx->before_savepoints = tx->nsavepoints;
}

void transaction_go_back(struct client *client)
{
    struct transaction *tx = client->tx;
    guc_pending_truncate(&tx->settings, tx->before.pending);
    listen_changes_truncate(&tx->listens, tx->before.listens);
    own_settings_undo(client, tx->before.own);
    transaction_drop_savepoints(tx, tx->before_savepoints);
    cursors_free(tx->cursors);
    tx->cursors = NULL;
    free_names(tx->changed_views);
    tx->changed_views = NULL;
    tx->ran = tx->wrote = tx->changed_schema = tx->went_back = false;
    tx->state = TX_DEFERRED;
}

void transaction_chain(struct client *client, bool committed)
{
    char *begin_sql = mem_strdup(client->tx->begin_sql);
    bool read_only = client->tx->read_only;
    transaction_end(client, committed);
    transaction_begin(client, NULL);
    free(client->tx->begin_sql);
    client->tx->begin_sql = begin_sql;
    client->tx->read_only = read_only;
    for (int i = 0; i < client->nparticipants; i++)
        client->participants[i]->begun = client->participants[i]->tx_status == 'T';
}
