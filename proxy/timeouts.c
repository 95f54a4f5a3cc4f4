/* timeouts.c: clients that are idle, in a transaction, or asking for too long. */
#include "proxy/timeouts.h"

#include "proxy/client.h"
#include "proxy/pool.h"
#include "proxy/shard_deadlock.h"
#include "proxy/worker.h"

/* Who waits and is told off makes it look again, so often at most. */
#define LOOKS_MAX 100

#define AGAIN "Connect again."

struct reason {
    const char *sqlstate;
    const char *message;
    const char *hint;
};

static const struct reason idle_session = {
    "57P05", "terminating connection due to client_idle_timeout", AGAIN};
static const struct reason idle_transaction = {
    "25P03", "terminating connection due to idle_transaction_timeout",
    "The transaction was rolled back. " AGAIN};
static const struct reason long_transaction = {"25P04",
                                               "terminating connection due to transaction_timeout",
                                               "The transaction was rolled back. " AGAIN};
static const struct reason stubborn_query = {
    "57014", "terminating connection because its query did not end after query_timeout", AGAIN};

static bool is_over(int64_t limit_ms, int64_t since, int64_t now)
{
    return limit_ms && since && now - since > limit_ms * 1000;
}

static const struct reason *judge_idle(const struct client *client, int64_t now)
{
    const struct pool_settings *limits = &client->account->settings;
    if (!client->tx)
        return is_over(limits->client_idle_timeout, client->idle_since, now) ? &idle_session : NULL;
    if (is_over(limits->idle_transaction_timeout, client->idle_since, now))
        return &idle_transaction;
    return is_over(limits->transaction_timeout, client->tx->started_at, now) ? &long_transaction
                                                                             : NULL;
}

static const struct reason *judge_query(struct client *client, int64_t now)
{
    const struct pool_settings *limits = &client->account->settings;
    int64_t asked_at = client->request.started_at;
    int64_t since = client->tx ? client->tx->started_at : asked_at;
    if (is_over(limits->transaction_timeout, since, now))
        return &long_transaction;
    if (!is_over(limits->query_timeout, asked_at, now))
        return NULL;
    int64_t grace = client->worker->topology->config->cancel_wait_timeout;
    if (client->request.timed_out)
        return is_over(limits->query_timeout + grace, asked_at, now) ? &stubborn_query : NULL;
    client_cancel_late(client);
    return NULL;
}

/* True: it was closed. */
static bool judge(struct client *client, int64_t now)
{
    const struct reason *reason = NULL;
    if (!client->account || client->terminate)
        return false;
    switch (client->state) {
    case CLIENT_IDLE:
        reason = judge_idle(client, now);
        break;
    case CLIENT_WAITING:
    case CLIENT_BUSY:
        if (client->nparticipants > 1)
            shard_deadlock_look(client, now);
        reason = judge_query(client, now);
        break;
    case CLIENT_STARTUP:
    case CLIENT_AUTH:
    case CLIENT_GREETING:
    case CLIENT_REPLICATING:
    case CLIENT_CANCELLING:
    case CLIENT_CLOSED:
        break;
    }
    if (reason)
        client_kill(client, reason->sqlstate, reason->message, reason->hint);
    return reason != NULL;
}

/* Visited, for another's end may end one. */
void timeouts_tick(struct worker *worker, int64_t now)
{
    struct list_node seen, *at;
    list_init(&seen);
    while ((at = list_visit(&worker->servers, &seen))) {
        const struct server *server = list_entry(at, struct server, all);
        if (server->client)
            judge(server->client, now);
    }
    list_put_back(&worker->servers, &seen);
}

/* False: the list may have changed. */
static bool look_at_idle(struct worker *worker, int64_t now)
{
    list_each(at, following, &worker->clients)
    {
        struct client *client = list_entry(at, struct client, all);
        bool waits = client->state == CLIENT_WAITING;
        if (client->nparticipants)
            continue;
        bool closed = judge(client, now);
        if (waits && (closed || client->state != CLIENT_WAITING))
            return false;
    }
    return true;
}

void timeouts_tick_idle(struct worker *worker, int64_t now)
{
    for (int i = 0; i < LOOKS_MAX && !look_at_idle(worker, now); i++)
        continue;
}
