/* misroute.c: what a replica has refused is asked again where it will not be. */
#include "proxy/misroute.h"

#include <string.h>

#include "pgshunt/log.h"
#include "proxy/listen_points.h"
#include "proxy/pool.h"
#include "proxy/session.h"

#define TEXT_MAX 1000     /* bytes of a statement in the log */
#define LOG_EVERY 1000000 /* us between lines of one worker: a bad declaration makes one per call */

static bool is_write(const struct pg_error *error)
{
    return strcmp(error->sqlstate, "25006") == 0;
}

/* Outside transaction blocks nothing else on a standby gives these. */
static bool is_conflict(const struct pg_error *error)
{
    return strcmp(error->sqlstate, "40001") == 0 || strcmp(error->sqlstate, "40P01") == 0;
}

/* Something in what is under way was routed to this replica by us, not tied to it by its transaction. */
static bool chose_replica(const struct client *client, const struct server *server)
{
    return client->state == CLIENT_BUSY && client->peer.tag != LISTEN_REPLICA && !client->tx &&
           !server->pinned && !client_keeps_servers(client) && !client->request.on_primary &&
           atomic_load(&server->pool->node->role) == NODE_ROLE_REPLICA;
}

static void tell(const struct client *client, const struct server *server,
                 const struct pg_error *error, const char *text, bool again)
{
    static _Thread_local int64_t told_at;
    int64_t now = worker_now(client->worker);
    char sql[TEXT_MAX + 1];
    if (told_at && now - told_at < LOG_EVERY)
        return;
    told_at = now;
    size_t length = strnlen(text, TEXT_MAX);
    memcpy(sql, text, length);
    sql[length] = '\0';
    log_event(LOG_WARNING,
              again ? "a replica refused a statement taken for a read: repeated on the primary"
                    : "a replica refused a statement taken for a read",
              LOG_S("database", client->database_name), LOG_S("user", client->user),
              LOG_S("node", server->pool->node->host), LOG_I("port", server->pool->node->port),
              LOG_S("error", error->message), LOG_S("statement", sql),
              LOG_S("hint", "a function it calls writes: declare it VOLATILE"));
}

bool misroute_happened(struct client *client, struct server *server, const struct pg_error *error,
                       const char *text, bool whole)
{
    struct request *request = &client->request;
    bool write = is_write(error) && !(guc_set_facts(client->guc) & GUC_READ_ONLY);
    if ((!write && !is_conflict(error)) || !chose_replica(client, server))
        return false;
    bool again = whole && request->retriable && !request->incomplete && request->attempts < 3;
    if (write) {
        client->stats->misrouted++;
        tell(client, server, error, text, again);
    }
    if (!again)
        return false;
    request->on_primary = write;
    request->avoid = server->pool->node;
    return true;
}
