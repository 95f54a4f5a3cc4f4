/* listen.c: clients' subscriptions to channels, and notifications on their way to them. */
#include "proxy/listen.h"

#include <stdlib.h>
#include <string.h>
#include <uthash.h>

#include "pgshunt/arena.h"
#include "pgshunt/log.h"
#include "pgshunt/session_function.h"
#include "pgshunt/wire.h"
#include "proxy/hub.h"
#include "proxy/pool.h"
#include "proxy/session.h"

/* Somebody else's notification must not look like the client's own: no process has such a pid. */
#define NOT_YOURS 0x40000000
/* A ReadyForQuery is held no longer. */
#define HELD_MAX_US 5000000

/* A channel as the clients of this worker have it in common. */
struct worker_channel {
    struct list_node subscriptions; /* of clients */
    struct list_node waiting; /* clients whose LISTEN is not confirmed yet (client->waiting) */
    uint32_t ticket;
    bool confirmed;
    UT_hash_handle hh; /* worker->channels, by key */
    size_t name_at;
    char key[]; /* database, NUL, channel */
};

struct subscription {
    struct list_node link; /* of the channel */
    struct subscription *next;
    struct client *client;
    struct worker_channel *channel;
    bool active; /* else it is of a transaction that has not ended */
};

struct listener {
    struct subscription *subscriptions;
    struct worker_channel *awaited; /* the client is on its waiting list */
    struct buffer queue;            /* messages for a moment when the client is idle */
    struct buffer
        early;       /* of its own transaction, on channels that it begins to listen to with it */
    bool wrote;      /* ... and may be told of it: listen_owes() */
    int32_t own_pid; /* the server's by which it did so; 0: it has not since `queue` was empty */
    bool held;       /* its ReadyForQuery is: on worker->listen_held (client->waiting) */
    uint32_t ticket;
    int64_t held_since;
};

static const char *name_of(const struct worker_channel *channel)
{
    return channel->key + channel->name_at;
}

/* ---- channels ---- */

static struct worker_channel *find_channel(struct worker *worker, const char *database,
                                           const char *name)
{
    size_t at = strlen(database) + 1, size = at + strlen(name) + 1;
    struct buffer key = {0};
    struct worker_channel *channel;
    buffer_append(&key, database, at);
    buffer_append(&key, name, size - at);
    HASH_FIND(hh, worker->channels, buffer_head(&key), size, channel);
    buffer_release(&key);
    return channel;
}

static struct worker_channel *new_channel(struct client *client, const char *name)
{
    struct worker *worker = client->worker;
    size_t at = strlen(client->database_name) + 1, size = at + strlen(name) + 1;
    struct worker_channel *channel = mem_alloc(sizeof *channel + size);
    list_init(&channel->subscriptions);
    list_init(&channel->waiting);
    channel->name_at = at;
    memcpy(channel->key, client->database_name, at);
    memcpy(channel->key + at, name, size - at);
    channel->ticket = ++worker->listen_tickets;
    HASH_ADD(hh, worker->channels, key, size, channel);
    hub_subscribe(worker, client->database_name, client->user, name, channel->ticket);
    return channel;
}

static void drop_channel(struct worker *worker, struct worker_channel *channel)
{
    hub_unsubscribe(worker, channel->key, name_of(channel), channel->ticket);
    HASH_DEL(worker->channels, channel);
    free(channel);
}

/* ---- subscriptions ---- */

static struct subscription *find_subscription(const struct client *client, const char *name)
{
    struct subscription *at = client->listener ? client->listener->subscriptions : NULL;
    while (at && strcmp(name_of(at->channel), name) != 0)
        at = at->next;
    return at;
}

static struct subscription *subscribe(struct client *client, const char *name)
{
    struct subscription *subscription = mem_alloc(sizeof *subscription);
    struct worker_channel *channel = find_channel(client->worker, client->database_name, name);
    if (!client->listener)
        client->listener = mem_alloc(sizeof *client->listener);
    subscription->client = client;
    subscription->channel = channel ? channel : new_channel(client, name);
    subscription->next = client->listener->subscriptions;
    client->listener->subscriptions = subscription;
    list_push_back(&subscription->channel->subscriptions, &subscription->link);
    return subscription;
}

/* Ends the subscriptions to a channel (NULL: all of them; `idle_only`: those that are not active). */
static void unsubscribe(struct client *client, const char *name, bool idle_only)
{
    struct subscription **at = client->listener ? &client->listener->subscriptions : NULL;
    while (at && *at) {
        struct subscription *subscription = *at;
        struct worker_channel *channel = subscription->channel;
        if ((name && strcmp(name_of(channel), name) != 0) || (idle_only && subscription->active)) {
            at = &subscription->next;
            continue;
        }
        *at = subscription->next;
        list_remove(&subscription->link);
        free(subscription);
        if (list_empty(&channel->subscriptions))
            drop_channel(client->worker, channel);
    }
}

/* ---- statements ---- */

static void add_change(struct listen_changes *changes, bool listen, const char *channel)
{
    changes->items =
        mem_realloc(changes->items, sizeof *changes->items * (size_t)(changes->count + 1));
    changes->items[changes->count++] =
        (struct listen_change){listen, channel ? mem_strdup(channel) : NULL};
}

enum listen_answer listen_to(struct client *client, const char *channel)
{
    struct subscription *subscription = find_subscription(client, channel);
    if (!subscription)
        subscription = subscribe(client, channel);
    if (!subscription->channel->confirmed) {
        client->listener->awaited = subscription->channel;
        list_push_back(&subscription->channel->waiting, &client->waiting);
        client->state = CLIENT_WAITING;
        return LISTEN_WAIT;
    }
    if (client->tx)
        add_change(&client->tx->listens, true, channel);
    else
        subscription->active = true;
    return LISTEN_DONE;
}

void listen_moved(struct client *client, const char *channel)
{
    unsubscribe(client, channel, false);
}

void listen_changes_truncate(struct listen_changes *changes, int count)
{
    while (changes->count > count)
        free(changes->items[--changes->count].channel);
}

/* Moves what the client listens to into its queue, and what is no notification; the rest is for nobody. */
static void queue_listened(struct client *client, struct buffer *messages)
{
    const char *at = buffer_head(messages);
    for (size_t left = buffer_length(messages), size; left; at += size, left -= size) {
        size = 1 + (size_t)wire_get32(at + 1);
        const struct subscription *subscription =
            at[0] == 'A' ? find_subscription(client, at + WIRE_HEADER + 4) : NULL;
        if (at[0] != 'A' || (subscription && subscription->active))
            buffer_append(&client->listener->queue, at, size);
    }
    buffer_release(messages);
}

/* What came while the transaction went on, or before its end was known to us: Postgres tells it at the end, by what
 * is listened to then. */
static void settle_queue(struct client *client, bool committed)
{
    struct listener *listener = client->listener;
    struct buffer queue = listener->queue;
    listener->queue = (struct buffer){0};
    queue_listened(client, &queue);
    if (committed)
        queue_listened(client, &listener->early);
    buffer_release(&listener->early);
}

void listen_stop(struct client *client, const char *channel)
{
    if (client->tx) {
        add_change(&client->tx->listens, false, channel);
        return;
    }
    unsubscribe(client, channel, false);
    if (client->listener)
        settle_queue(client, true);
}

void listen_transaction_end(struct client *client, struct listen_changes *changes, bool committed)
{
    for (int i = 0; committed && i < changes->count; i++) {
        const struct listen_change *change = &changes->items[i];
        struct subscription *subscription =
            change->listen ? find_subscription(client, change->channel) : NULL;
        if (subscription)
            subscription->active = true;
        else if (!change->listen && !change->channel)
            for (struct subscription *at = client->listener ? client->listener->subscriptions
                                                            : NULL;
                 at; at = at->next)
                at->active = false;
        else if (!change->listen && (subscription = find_subscription(client, change->channel)))
            subscription->active = false;
    }
    if (client->listener) {
        settle_queue(client, committed);
        unsubscribe(client, NULL, true);
    }
    listen_changes_truncate(changes, 0);
    free(changes->items);
    *changes = (struct listen_changes){0};
}

/* ---- pg_listening_channels() ---- */

bool listen_asks(const struct statement *statement)
{
    for (int i = 0; statement->facts & FACT_SESSION && i < statement->nfunctions; i++)
        if (session_function(statement->functions[i].name) == SESSION_LISTENING)
            return true;
    return false;
}

static bool is_the_call(const struct expr *expr)
{
    return expr && expr->kind == EXPR_FUNC && !expr->nargs && !expr->call->over &&
           !expr->call->filter && strcmp(expr->name, "pg_listening_channels") == 0;
}

/* SELECT pg_listening_channels(), SELECT * FROM pg_listening_channels(): nothing else. */
bool listen_is_question(const struct statement *statement)
{
    const struct query *q = statement->kind == STMT_QUERY ? statement->query : NULL;
    if (!q || q->kind != QUERY_SELECT || statement->nfunctions != 1 || !listen_asks(statement) ||
        statement->nrelations || q->ntargets != 1 || q->nctes || q->where || q->ngroup_by ||
        q->having || q->distinct || q->limit || q->offset || q->norder_by || q->locking || q->into)
        return false;
    if (!q->nfrom)
        return is_the_call(q->targets[0].expr) && !q->targets[0].alias;
    return q->nfrom == 1 && q->from[0]->kind == FROM_FUNCTION && !q->from[0]->alias &&
           is_the_call(q->from[0]->function) && q->targets[0].expr->kind == EXPR_STAR;
}

bool listen_has_channels(const struct client *client)
{
    return client->listener && client->listener->subscriptions;
}

void listen_put_channels(const struct client *client, struct buffer *answer)
{
    struct wire_column column = {"pg_listening_channels", 25};
    int rows = 0;
    wire_put_row_description(answer, &column, 1);
    for (struct subscription *at = client->listener ? client->listener->subscriptions : NULL; at;
         at = at->next) {
        const char *name = name_of(at->channel);
        if (!at->active)
            continue;
        wire_put_text_row(answer, &name, 1);
        rows++;
    }
    wire_put_complete(answer, arena_printf(client->request.arena, "SELECT %d", rows));
}

/* ---- waiting for the hub ---- */

void listen_cancel(struct client *client)
{
    struct listener *listener = client->listener;
    if (!listener)
        return;
    if (listener->held)
        list_remove(&client->waiting);
    listener->held = false;
    if (!listener->awaited)
        return;
    list_remove(&client->waiting);
    listener->awaited = NULL;
    if (!client->tx)
        unsubscribe(client, NULL, true);
}

static void go_on(struct client *client)
{
    list_remove(&client->waiting);
    client->listener->awaited = NULL;
    client->state = CLIENT_BUSY;
    if (extended_in_batch(client))
        extended_continue(client);
    else
        simple_start_over(client);
}

static struct worker_channel *ticket_channel(struct worker *worker, const char *database,
                                             const char *name, uint32_t ticket)
{
    struct worker_channel *channel = find_channel(worker, database, name);
    return channel && channel->ticket == ticket ? channel : NULL;
}

void listen_confirmed(struct worker *worker, const char *database, const char *name,
                      uint32_t ticket)
{
    struct worker_channel *channel = ticket_channel(worker, database, name, ticket);
    if (!channel)
        return;
    channel->confirmed = true;
    /* What they go on with may end the channel: it is looked up each time. */
    while (channel && !list_empty(&channel->waiting)) {
        go_on(list_entry(channel->waiting.next, struct client, waiting));
        channel = ticket_channel(worker, database, name, ticket);
    }
}

static void refuse(struct client *client, const struct pg_error *error)
{
    listen_cancel(client);
    client->request.attempts = 1000; /* there is nowhere else to try */
    client_no_server(client, error->sqlstate, error->message, error->hint);
}

void listen_failed(struct worker *worker, const char *database, const char *name, uint32_t ticket,
                   const struct pg_error *error)
{
    struct worker_channel *channel = ticket_channel(worker, database, name, ticket);
    while (channel && !list_empty(&channel->waiting)) {
        refuse(list_entry(channel->waiting.next, struct client, waiting), error);
        channel = ticket_channel(worker, database, name, ticket);
    }
    /* Clients in a transaction hold on to it until that has ended: the hub is asked again. */
    if (channel) {
        channel->ticket = ++worker->listen_tickets;
        struct subscription *first =
            list_entry(channel->subscriptions.next, struct subscription, link);
        hub_subscribe(worker, database, first->client->user, name, channel->ticket);
    }
}

static void give_up_holding(struct worker *worker, int64_t now)
{
    while (!list_empty(&worker->listen_held)) {
        struct client *client = list_entry(worker->listen_held.next, struct client, waiting);
        if (now - client->listener->held_since < HELD_MAX_US)
            return;
        listen_let_go(client);
    }
}

void listen_tick(struct worker *worker, int64_t now)
{
    static const struct pg_error late = {
        .sqlstate = "08006",
        .message = "LISTEN was not confirmed in time (pool.query_wait_timeout)",
        .hint =
            "The primary of the first shard does not answer; see SHOW NODES on the admin console."};
    int64_t limit = worker->topology->config->pool.query_wait_timeout * 1000;
    struct worker_channel *channel, *next;
    give_up_holding(worker, now);
    if (!limit)
        return;
    HASH_ITER(hh, worker->channels, channel, next)
    {
        list_each(at, following, &channel->waiting)
        {
            struct client *client = list_entry(at, struct client, waiting);
            if (now - client->request.started_at > limit) {
                refuse(client, &late);
                return; /* the rest in a second: the channel may be gone */
            }
        }
    }
}

/* ---- delivery ---- */

/* False: the client was closed, because it takes nothing off. */
static bool may_take(struct client *client, size_t more)
{
    int64_t most = client->worker->topology->config->max_notifications;
    if ((int64_t)(buffer_length(&client->listener->queue) + conn_queued(&client->conn) + more) <=
        most)
        return true;
    log_event(LOG_WARNING, "a client does not take its notifications", LOG_I("client", client->id));
    client_close(client, "more notifications wait than limits.notifications allows");
    return false;
}

/* The pids that a client may take for its own, with that of its key, are its own ones. */
static void show_pid(const struct client *client, int32_t own, char *message)
{
    char *at = message + WIRE_HEADER;
    int32_t pid = (int32_t)wire_get32(at);
    if (own && pid == own)
        wire_set32(at, (uint32_t)client->cancel_pid);
    else if (pid == client->cancel_pid)
        wire_set32(at, (uint32_t)pid ^ NOT_YOURS);
}

static void show_pids(const struct client *client, int32_t own, char *messages, size_t len)
{
    for (size_t size; len; messages += size, len -= size) {
        size = 1 + (size_t)wire_get32(messages + 1);
        if (messages[0] == 'A')
            show_pid(client, own, messages);
    }
}

void listen_own_pid(const struct client *client, const struct server *server, char *message,
                    size_t len)
{
    if (len >= WIRE_HEADER + 4)
        show_pid(client, server->backend_pid, message);
}

static void deliver(struct client *client, const char *bytes, size_t len)
{
    struct buffer *queue = &client->listener->queue;
    if (client->terminate || !may_take(client, len))
        return;
    buffer_append(queue, bytes, len);
    if (client->state == CLIENT_IDLE && !client->tx && !client->processing)
        listen_flush(client);
}

/* It will listen to the channel if its transaction commits, as it may have done. */
static void deliver_early(struct client *client, const char *bytes, size_t len)
{
    const struct server *server = client_participant(client, 0);
    if (!client->tx || !server || server->backend_pid != (int32_t)wire_get32(bytes + WIRE_HEADER))
        return;
    if (!client->terminate && may_take(client, len))
        buffer_append(&client->listener->early, bytes, len);
}

void listen_put_queue(struct client *client, struct buffer *out)
{
    struct listener *listener = client->listener;
    struct buffer *queue = &listener->queue;
    if (client->tx || !buffer_length(queue))
        return;
    show_pids(client, listener->own_pid, buffer_head(queue), buffer_length(queue));
    buffer_append(out, buffer_head(queue), buffer_length(queue));
    buffer_release(queue);
    listener->own_pid = 0;
}

void listen_flush(struct client *client)
{
    struct buffer out = {0};
    listen_put_queue(client, &out);
    if (buffer_length(&out))
        client_send_buffer(client, &out);
}

void listen_notify(struct worker *worker, const char *database, const char *name, const char *bytes,
                   size_t len)
{
    struct worker_channel *channel = find_channel(worker, database, name);
    struct list_node *at = channel ? channel->subscriptions.next : NULL;
    while (channel && at != &channel->subscriptions) {
        struct subscription *subscription = list_entry(at, struct subscription, link);
        at = at->next;
        bool last =
            at == &channel->subscriptions; /* a client that is closed may take the channel along */
        if (subscription->active)
            deliver(subscription->client, bytes, len);
        else
            deliver_early(subscription->client, bytes, len);
        if (last)
            return;
    }
}

static bool is_listening(const struct client *client)
{
    for (struct subscription *at = client->listener->subscriptions; at; at = at->next)
        if (at->active)
            return true;
    return false;
}

static bool listens_in(const struct client *client, const char *database)
{
    return client->listener && strcmp(client->database_name, database) == 0 && is_listening(client);
}

/* ---- its own, ahead of ReadyForQuery ---- */

void listen_wrote(struct client *client, const struct server *server)
{
    if (server->shard != 0) /* the hub is elsewhere */
        return;
    client->listener->wrote = true;
    client->listener->own_pid = server->backend_pid;
}

bool listen_owes(const struct client *client)
{
    return client->listener->wrote && !client->tx && is_listening(client);
}

void listen_hold(struct client *client)
{
    struct listener *listener = client->listener;
    struct worker *worker = client->worker;
    listener->wrote = false;
    listener->held = true;
    listener->held_since = clock_us();
    listener->ticket = ++worker->listen_tickets;
    if (!listener->ticket)
        listener->ticket = ++worker->listen_tickets;
    list_push_back(&worker->listen_held, &client->waiting);
    client->state = CLIENT_WAITING;
    hub_catch_up(worker, client->database_name, listener->ticket);
}

bool listen_let_go(struct client *client)
{
    if (!client->listener || !client->listener->held)
        return false;
    list_remove(&client->waiting);
    client->listener->held = false;
    client->state = CLIENT_BUSY;
    session_ready(client);
    return true;
}

void listen_caught_up(struct worker *worker, uint32_t ticket)
{
    list_each(at, following, &worker->listen_held)
    {
        struct client *client = list_entry(at, struct client, waiting);
        if (client->listener->ticket != ticket)
            continue;
        listen_let_go(client);
        return;
    }
}

void listen_was_lost(struct worker *worker, const char *database)
{
    static const struct pg_error warning = {
        .severity = "WARNING",
        .sqlstate = "01000",
        .message = "the connection that notifications come over was lost and is there again: some "
                   "may have been missed",
        .hint = "Look at what they are about anew."};
    bool closes = worker->topology->config->listen_lost == LISTEN_LOST_CLOSE;
    struct buffer notice = {0};
    wire_put_notice(&notice, &warning);
    struct list_node seen, *at;
    list_init(&seen);
    while ((at = list_visit(&worker->clients, &seen))) {
        struct client *client = list_entry(at, struct client, all);
        if (!listens_in(client, database))
            continue;
        if (closes)
            client_fatal(client, "57P01", "the connection that notifications come over was lost",
                         "Connect again, and LISTEN again (pool.listen_lost).");
        else
            deliver(client, buffer_head(&notice), buffer_length(&notice));
    }
    list_put_back(&worker->clients, &seen);
    buffer_release(&notice);
}

/* ---- the end ---- */

void listen_free(struct client *client)
{
    if (!client->listener)
        return;
    listen_cancel(client);
    unsubscribe(client, NULL, false);
    buffer_release(&client->listener->queue);
    buffer_release(&client->listener->early);
    free(client->listener);
    client->listener = NULL;
}

void listen_worker_free(struct worker *worker)
{
    struct worker_channel *channel, *next;
    HASH_ITER(hh, worker->channels, channel, next)
    {
        HASH_DEL(worker->channels, channel);
        free(channel);
    }
}
