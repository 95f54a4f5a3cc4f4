/*
 * pipeline.c: batches sent behind one that is not answered yet.
 *
 *   client   B E S | B E S | B E S           input: whole batches
 *              |       |       |
 *   server   B E S   B E S   B E S           one after the other, none waits for an answer
 *            ^ahead  ^ahead  ^the batch of struct extended, translated now
 *
 * A batch is begun behind others (`ahead` counts them) only where what is done with it now cannot hang on
 * their outcome: it goes to their server, and all of them are plain: queries, on statements whose meaning
 * is known. Whatever is not so waits (`stalled`) until nothing is ahead, and is then treated as ever. What
 * follows from an answer takes effect when the answer comes, and an error skips to the Sync of its own batch.
 */
#include "proxy/extended.h"

#include <string.h>

#include "pgshunt/wire.h"
#include "proxy/epoch.h"
#include "proxy/pool.h"
#include "proxy/sequences.h"

#define MESSAGES_MAX 256 /* of a batch that is sent behind another */
#define RUN_MAX                                                                                    \
    256 /* batches until one waits: the server, the node, the configuration may change */
#define UNSENT_MAX (32 * 1024) /* bytes that the server has not taken yet */
#define BINDS_MAX MESSAGES_MAX

/* ---- whether one may be begun ---- */

static bool replica(const struct server *server)
{
    return atomic_load(&server->pool->node->role) == NODE_ROLE_REPLICA;
}

/* Everything of the batch in front was sent, and none of it changes what the next one's plan is made of. */
static bool is_plain_in_front(const struct client *client)
{
    const struct extended *ext = client->extended;
    const struct request *request = &client->request;
    const struct expect *last = server_last_expected(ext->server);
    return !ext->alone && last && last->kind == EXPECT_SYNC && !last->swallow &&
           client->state == CLIENT_BUSY && client->nparticipants == 1 && !client->scatter &&
           !request->repeat && !request->timed_out && !request->settings.count;
}

static bool has_room(const struct server *server)
{
    return server->expect_count < EXPECTS_MAX && conn_queued(&server->conn) < UNSENT_MAX &&
           !server->copy_in && !server->copy_rest && !server->cancels;
}

static bool in_open_transaction(const struct transaction *tx, const struct server *server)
{
    return tx->state == TX_OPEN && !tx->implicit && !tx->in_query && !tx->went_back &&
           server->begun && !server->committed;
}

/* What a replica refuses is asked again elsewhere (misroute.h), with all that is behind it, so all of it has to be
 * reads that may be asked again, with their bytes kept. */
static bool may_all_repeat(const struct client *client)
{
    const struct request *request = &client->request;
    return request->retriable && !request->incomplete && !client->extended->unsafe &&
           !request->on_primary;
}

/* Outside of transactions the server is the client's for as long as a batch is under way: nobody else may
 * be kept waiting for it, nor anything that happens between transactions. */
static bool may_stay(const struct client *client, const struct server *server)
{
    if (server->pinned || client_keeps_servers(client))
        return true;
    return (!replica(server) || may_all_repeat(client)) && !server->pool->nwaiting &&
           !server->discard && !server->doubtful_pins &&
           client->topology == client->worker->topology && !client->worker->gates &&
           !client->listener && !client->pins_told;
}

/*
 * This proxy may have been left behind by a switch, and a guard may refuse what the batch in front writes, or begins its transaction with
 * (epoch.h): it is asked again then, and what stands behind it must not have run before.
 */
static bool may_be_refused(const struct client *client)
{
    const struct database *database = client->database;
    bool refusable =
        client->tx ? client->request.begins && !client->tx->ran : client->extended->executed_write;
    return refusable && database->recorded && epoch_of_map(database->map) > 0 &&
           worker_now(client->worker) >= atomic_load(&database->recorded->counted_until);
}

static bool server_allows(const struct client *client)
{
    const struct server *server = client->extended->server;
    if (!has_room(server) || may_be_refused(client))
        return false;
    return client->tx ? in_open_transaction(client->tx, server) : may_stay(client, server);
}

/* Outside of transactions several statements may want several servers, or a primary after a replica. */
static int binds_allowed(const struct client *client)
{
    bool one_place = client->database->nshards == 1 && !replica(client->extended->server);
    return client->tx || one_place ? BINDS_MAX : 1;
}

/* Bytes that may be kept besides those that are: a batch behind others on a replica must not make them too many. */
static size_t room_to_keep(const struct client *client)
{
    size_t kept = buffer_length(&client->request.again);
    if (client->tx || !replica(client->extended->server))
        return SIZE_MAX;
    return kept < EXTENDED_KEPT_MAX ? EXTENDED_KEPT_MAX - kept : 0;
}

/* The batch is here as a whole, and changes no names but the unnamed statement's. */
static bool fits(const char *data, size_t len, int binds, size_t room)
{
    const char *begin = data;
    for (int i = 0; i < MESSAGES_MAX && len > WIRE_HEADER; i++) {
        size_t size = 1 + (size_t)wire_get32(data + 1);
        if (data[0] == 'S')
            return (size_t)(data - begin) + size < room;
        if (size <= WIRE_HEADER || size >= len || !strchr("PBDECH", data[0]) ||
            (data[0] == 'P' && data[WIRE_HEADER] != '\0') || (data[0] == 'B' && --binds < 0) ||
            (data[0] == 'C' && data[WIRE_HEADER] == 'S'))
            return false;
        data += size;
        len -= size;
    }
    return len == WIRE_HEADER && data[0] == 'S' && (size_t)(data - begin) + len < room;
}

/* The bytes kept for a repetition, up to here, are the former batch's; none are if it is not to be repeated. */
static void divide_kept(struct client *client)
{
    struct extended *ext = client->extended;
    struct request *request = &client->request;
    if (client->tx || ext->unsafe || request->incomplete) {
        request->incomplete = true;
        request->retriable = false;
        worker_buffer_give(client->worker, &request->again);
        ext->kept = 0;
        return;
    }
    server_last_expected(ext->server)->kept = (int)(buffer_length(&request->again) - ext->kept);
    ext->kept = buffer_length(&request->again);
}

bool pipeline_begin(struct client *client, const char *data, size_t len)
{
    struct extended *ext = client->extended;
    if (client->request.guess || !is_plain_in_front(client) || ext->run >= RUN_MAX ||
        !server_allows(client) || !fits(data, len, binds_allowed(client), room_to_keep(client)))
        return false;
    divide_kept(client);
    ext->ahead++;
    ext->run++;
    batch_begin_behind(ext);
    if (!client->tx) /* the Sync in front ends them */
        names_close_all(&ext->names);
    client->stats->pipelined++;
    return true;
}

/* ---- what it may consist of ---- */

/* What is on its way there may be skipped: only what is there, or comes in this very batch, counts. */
static bool is_there(const struct client *client, const struct prepared *prepared, const char *name)
{
    const struct extended *ext = client->extended;
    const struct server *server = ext->server;
    if (batch_is_named(name) || prepared->prepare_sql)
        return marks_look(&server->marks, prepared, batch_path(client)) == MARK_HELD;
    return ext->parsed || (!server->parsing_unnamed &&
                           memcmp(&server->unnamed, &prepared->key, sizeof prepared->key) == 0);
}

bool pipeline_takes_statement(const struct client *client, const char *name)
{
    const struct prepared *prepared = names_statement(&client->extended->names, name);
    return prepared && prepared->plain && is_there(client, prepared, name);
}

bool pipeline_takes_plan(const struct client *client, const struct plan *plan)
{
    const struct server *server = client->extended->server;
    return plan->kind == PLAN_DIRECT && plan->shard == server->shard && !plan->needs_schema &&
           !plan->touches_held && !plan->nwants &&
           (client->tx || plan->node == NODE_CLASS_REPLICA || !replica(server)) &&
           !sequences_in_the_way(client, server);
}

bool pipeline_takes_portal(const struct client *client, const char *name)
{
    const struct portal *portal = names_portal(&client->extended->names, name);
    return portal && portal->kind == PORTAL_SERVER && portal->prepared->plain &&
           portal->shard == client->extended->server->shard;
}

/* ---- answers ---- */

bool extended_passed(struct client *client, size_t kept)
{
    struct extended *ext = client->extended;
    struct request *request = &client->request;
    if (!ext || !ext->ahead)
        return false;
    ext->ahead--;
    session_count_request(client);
    if (ext->kept) {
        buffer_consume(&request->again, kept);
        ext->kept -= kept;
    }
    request->started_at = worker_now(client->worker); /* the next one has the server from here on */
    request->forwarded = request->timed_out = request->deadlocked = false;
    ext->stalled &= ext->ahead > 0;
    return true;
}

/* Those ahead of the one at hand had no answer to their end: each gets its own. */
const struct pg_error *pipeline_fail(struct client *client, const struct pg_error *error)
{
    static const struct pg_error aborted = {
        .sqlstate = "25P02",
        .message =
            "current transaction is aborted, commands ignored until end of transaction block"};
    struct extended *ext = client->extended;
    ext->stalled = false;
    for (; ext->ahead; ext->ahead--) {
        struct buffer ready = {0};
        client_error(client, error);
        wire_put_ready(&ready, session_status(client));
        client_send_buffer(client, &ready);
        session_count_request(client);
        if (client->tx)
            error = &aborted;
    }
    return error;
}
