/* simple.c: a Query message: parsed, planned, and sent to the server or servers it concerns. */
#include "proxy/session.h"

#include <string.h>

#include "pgshunt/arena.h"
#include "pgshunt/shape.h"
#include "pgshunt/wire.h"
#include "proxy/bucket_hold.h"
#include "proxy/cursor.h"
#include "proxy/epoch.h"
#include "proxy/keyless.h"
#include "proxy/lookup.h"
#include "proxy/pool.h"
#include "proxy/schema_wait.h"
#include "proxy/series.h"

#define KEPT_MAX 16384 /* bytes of a statement that may have to be asked again */

/* ---- transaction control that concerns several servers ---- */

static int begun_participants(const struct client *client)
{
    int begun = 0;
    for (int i = 0; i < client->nparticipants; i++)
        begun += client->participants[i]->begun;
    return begun;
}

static bool ends_transaction(const struct statement *statement)
{
    return statement->kind == STMT_COMMIT || statement->kind == STMT_ROLLBACK;
}

static bool goes_to_all(const struct statement *statement)
{
    switch ((int)statement->kind) {
    case STMT_COMMIT:
    case STMT_ROLLBACK:
    case STMT_SAVEPOINT:
    case STMT_RELEASE:
    case STMT_ROLLBACK_TO:
    case STMT_SET:
    case STMT_RESET:
    case STMT_RESET_ALL:
    case STMT_SET_TRANSACTION:
        return true;
    default:
        return false;
    }
}

/* The same SQL for every server that is in the transaction. */
static void plan_for_begun(struct client *client, const char *sql, struct arena *arena,
                           struct plan *plan)
{
    *plan = (struct plan){.kind = PLAN_SCATTER,
                          .node = NODE_CLASS_PRIMARY,
                          .mode = SCATTER_UTILITY,
                          .no_transaction = true,
                          .reason = "transaction control"};
    plan->queries = arena_array(arena, struct shard_query, client->nparticipants);
    for (int i = 0; i < client->nparticipants; i++)
        if (client->participants[i]->begun)
            plan->queries[plan->nqueries++] =
                (struct shard_query){.shard = client->participants[i]->shard, .sql = sql};
}

bool statement_broadcast(struct client *client, const struct statement *statement,
                         struct arena *arena, struct plan *plan)
{
    int begun = begun_participants(client);
    bool failed = client->tx && client->tx->state == TX_FAILED;
    bool failed_here = failed && begun == 1 && client->participants[0]->tx_status != 'E';
    if (!client->tx || !goes_to_all(statement) ||
        !(begun > 1 || (failed_here && ends_transaction(statement))))
        return false;
    bool as_rollback = failed && statement->kind == STMT_COMMIT;
    const char *rollback = statement->chain ? "ROLLBACK AND CHAIN" : "ROLLBACK";
    plan_for_begun(client, as_rollback ? rollback : statement->text, arena, plan);
    return true;
}

void statement_plan_end(struct client *client, bool commit, struct arena *arena, struct plan *plan)
{
    plan_for_begun(client, commit ? "COMMIT" : "ROLLBACK", arena, plan);
}

/* ---- EXPLAIN ---- */

void statement_explain_rows(struct client *client, const struct statement *statement,
                            const struct plan *plan, struct buffer *rows)
{
    const char **lines;
    int count;
    if (!statement || statement->kind != STMT_EXPLAIN || !statement->inner ||
        statement->explain_format)
        return;
    count = router_explain(plan, client->database->map, client->request.arena, &lines);
    for (int i = 0; i < count; i++)
        wire_put_text_row(rows, &lines[i], 1);
}

/* ---- sending ---- */

static void keep_sql(struct client *client)
{
    struct request *request = &client->request;
    if (request->sql_kept)
        return;
    request->sql = arena_strdup(request->arena, request->sql);
    request->sql_kept = true;
}

/* To ask another node if this one dies before it answers: a copy of the message, unless a borrowed
 * statement has the text until then. */
static void keep_message(struct client *client)
{
    struct request *request = &client->request;
    buffer_clear(&request->again);
    if (!request->shape)
        wire_put_query(&request->again, request->names ? request->names->asked : request->sql);
}

static void keep_for_retry(struct client *client)
{
    client->request.retriable = true;
    keep_message(client);
}

void simple_again(const struct client *client, struct buffer *message)
{
    const struct request *request = &client->request;
    if (!buffer_length(message) && request->shape)
        wire_put_query(message, request->shape->list.items[0]->text);
}

/* The message goes on as it came, out of the receive buffer, unless it had to wait. */
static void send_message(struct client *client, struct server *server, struct buffer *prefix)
{
    const struct request *request = &client->request;
    if (request->function_call) {
        buffer_append(prefix, request->sql, 1 + (size_t)wire_get32(request->sql + 1));
        conn_send(&server->conn, buffer_head(prefix), buffer_length(prefix));
        buffer_release(prefix);
        return;
    }
    size_t len = strlen(request->sql) + 1;
    if (!request->sql_kept && !buffer_length(prefix)) {
        conn_send(&server->conn, request->sql - WIRE_HEADER, WIRE_HEADER + len);
        return;
    }
    wire_put_query(prefix, request->sql);
    conn_send(&server->conn, buffer_head(prefix), buffer_length(prefix));
    buffer_release(prefix);
}

/* A guard may refuse it (epoch.h); what is long is not kept for that. */
static bool may_be_stale(const struct client *client, int64_t epoch)
{
    const struct request *request = &client->request;
    return epoch > 0 && request->plan.write && (!client->tx || request->begins) &&
           !request->function_call && strnlen(request->sql, KEPT_MAX) < KEPT_MAX;
}

static void send_direct(struct client *client, struct server *server)
{
    struct request *request = &client->request;
    struct buffer prefix = {0};
    attach_prefix(client, server, &prefix);
    if (request->names && sql_prepare_attached(client, server, &prefix))
        return;
    struct expect *expect = server_expect(server, EXPECT_QUERY);
    expect->list = &request->statements;
    expect->write = request->plan.write;
    if (request->names)
        sql_prepare_sent(client, server, expect);
    if (request->plan.node == NODE_CLASS_REPLICA && !client->tx && !server->pinned)
        keep_for_retry(client);
    else if (request->guess || (!server->pinned && may_be_stale(client, server->epoch)))
        keep_message(client);
    server->request_at = request->started_at;
    server->unnamed = (struct prepared_key){0}; /* a Query forgets the unnamed statement */
    client->stats->direct++;
    send_message(client, server, &prefix);
}

static void start_scatter(struct client *client)
{
    struct request *request = &client->request;
    struct scatter_ask ask = {.describe = true};
    if (request->statements.count == 1)
        ask.statement = request->statements.items[0];
    request->begins = client->tx && session_may_begin_again(client);
    if (request->plan.node == NODE_CLASS_REPLICA && !client->tx)
        keep_for_retry(client);
    else if (!request->series && may_be_stale(client, epoch_of_map(client->database->map)))
        keep_message(client);
    if (request->plan.mode == SCATTER_DRAW)
        keep_sql(client);
    if (request->plan.mode == SCATTER_CURSOR ||
        (request->plan.gather && request->plan.gather->cursor))
        cursor_declare(client, &ask);
    else
        scatter_start(client, &ask);
}

/* Attaches what a fan-out needs, one shard after the other, in their order: so that two fan-outs can
 * never wait for each other. After a wait it starts over: a server attached before may be gone. */
enum attach attach_all(struct client *client, const struct plan *plan)
{
    for (int i = 0; i < plan->nqueries; i++) {
        const struct shard_query *query = &plan->queries[i];
        enum attach attached =
            attach_shard(client, query->shard, query->primary ? NODE_CLASS_PRIMARY : plan->node);
        if (attached != ATTACH_READY)
            return attached;
    }
    return ATTACH_READY;
}

void simple_continue(struct client *client)
{
    struct request *request = &client->request;
    const struct plan *plan = &request->plan;
    enum attach attached = ATTACH_FAILED;
    switch (plan->kind) {
    case PLAN_REFUSE:
        keyless_planned(client, plan,
                        request->statements.count == 1 ? request->statements.items[0] : NULL);
        session_refuse(client, &plan->error);
        return;
    case PLAN_DIRECT:
        attached = attach_shard(client, plan->shard, plan->node);
        break;
    case PLAN_SCATTER:
        attached = attach_all(client, plan);
        break;
    }
    if (attached == ATTACH_WAITING)
        keep_sql(client);
    if (attached != ATTACH_READY)
        return;
    if (plan->kind == PLAN_DIRECT)
        send_direct(client, client_participant(client, plan->shard));
    else
        start_scatter(client);
}

/* ---- a new query ---- */

/* PREPARE: any shard can judge the text; where it is run depends on the values. */
static void anywhere(struct client *client, struct plan *plan)
{
    unsigned shard = client->nparticipants ? client->participants[0]->shard : 0;
    *plan =
        (struct plan){.kind = PLAN_DIRECT, .node = plan->node, .shard = shard, .reason = "PREPARE"};
}

static void plan_query(struct client *client)
{
    struct request *request = &client->request;
    const struct statement_list *list = &request->statements;
    if (list->count > 1) {
        attach_route_list(client, list, request->arena, &request->plan);
    } else if (!statement_broadcast(client, list->items[0], request->arena, &request->plan)) {
        struct statement *as = request->names ? request->names->routed : NULL;
        attach_route(client, as ? as : list->items[0], NULL, request->arena, &request->plan);
        if (as && request->names->making && request->plan.kind != PLAN_DIRECT)
            anywhere(client, &request->plan);
        if (as && request->names->making) /* nothing is run */
            request->plan.touches_held = false;
        buffer_clear(&request->explain);
        statement_explain_rows(client, list->items[0], &request->plan, &request->explain);
    }
    request->planned = true;
}

void simple_answer(struct client *client, struct buffer *answer)
{
    if (!client->request.series && client->listener)
        listen_put_queue(client, answer);
    if (!client->request.series)
        wire_put_ready(answer, session_status(client));
    client_send_buffer(client, answer);
    if (!series_goes_on(client))
        session_end_request(client);
}

static bool handle_list(struct client *client, const struct statement_list *list)
{
    static const struct pg_error of_cursor = {
        .sqlstate = "0A000",
        .message = "a cursor over several shards cannot be used together with other statements",
        .hint = "Send the statement as a message of its own."};
    struct pg_error by_mode;
    for (int i = 0; i < list->count; i++) {
        bool refused = statement_refused_by_mode(client, list->items[i], &by_mode);
        if (refused || cursor_of_statement(client, list->items[i])) {
            session_refuse(client, refused ? &by_mode : &of_cursor);
            return true;
        }
    }
    if (!series_has_own(list))
        return false;
    series_start(client);
    return true;
}

static bool handle_locally(struct client *client, const struct statement_list *list)
{
    struct buffer answer = {0};
    struct pg_error error;
    if (!list->count) {
        wire_put_simple(&answer, 'I');
        simple_answer(client, &answer);
        return true;
    }
    if (list->count > 1)
        return handle_list(client, list);
    switch (statement_local(client, list->items[0], &answer, &error)) {
    case LOCAL_NO:
        return cursor_statement(client, list->items[0], false, true);
    case LOCAL_DONE:
        simple_answer(client, &answer);
        return true;
    case LOCAL_REFUSED:
        session_refuse(client, &error);
        return true;
    case LOCAL_WAIT:
        keep_sql(client);
        return true;
    }
    return false;
}

/* Only a plan that sends the text as it is can do with a borrowed tree: see shape.h. */
static void parse_for_good(struct client *client)
{
    struct request *request = &client->request;
    shape_give(client->worker->shapes, request->shape);
    request->shape = NULL;
    request->statements = statement_parse(request->sql, request->arena);
}

static void parse(struct client *client, size_t length)
{
    struct request *request = &client->request;
    request->shape = shape_take(client->worker->shapes, request->sql, length);
    request->statements =
        request->shape ? request->shape->list : statement_parse(request->sql, request->arena);
}

static void plan_for_good(struct client *client)
{
    if (client->request.shape && client->request.plan.kind == PLAN_SCATTER) {
        parse_for_good(client);
        plan_query(client);
    }
}

static void plan_again(struct client *client, void *arg)
{
    (void)arg;
    plan_query(client);
}

/* True: it waits, or was told why not. */
static bool is_held(struct client *client)
{
    enum bucket_hold held = bucket_hold(client, plan_again, NULL);
    if (held == BUCKET_HOLD_WAITS)
        keep_sql(client);
    return held != BUCKET_HOLD_NONE;
}

void simple_replan(struct client *client)
{
    plan_query(client);
    if (client->request.plan.touches_held && is_held(client))
        return;
    if (client->request.plan.needs_schema &&
        schema_wait(client, client->request.plan.needs_schema)) {
        keep_sql(client);
        return;
    }
    bool alone = client->request.statements.count == 1 && !client->request.function_call;
    if (client->request.plan.nwants && lookup_wait(client, alone, plan_again, NULL)) {
        keep_sql(client);
        return;
    }
    plan_for_good(client);
    if (client->request.statements.count > 1 && series_is_needed(client))
        series_start(client);
    else
        simple_continue(client);
}

void simple_run(struct client *client)
{
    if (!handle_locally(client, &client->request.statements) && !sql_prepare_query(client))
        simple_replan(client);
}

void simple_start_over(struct client *client)
{
    if (!handle_locally(client, &client->request.statements))
        simple_replan(client);
}

void simple_query(struct client *client, const char *body, size_t len)
{
    struct request *request = &client->request;
    session_begin_request(client);
    if (client->state != CLIENT_BUSY)
        return;
    request->sql = body;
    extended_undefine(client, ""); /* as Postgres does */
    parse(client, len - 1);
    simple_run(client);
}
