/* extended_run.c: Describe and Execute: on the server bound to, on several shards, or right here. */
#include "proxy/extended.h"

#include <stdlib.h>
#include <string.h>

#include "pgshunt/arena.h"
#include "pgshunt/log.h"
#include "pgshunt/wire.h"
#include "proxy/bucket_hold.h"
#include "proxy/cursor.h"
#include "proxy/lookup.h"
#include "proxy/pool.h"

#define ABORTED "current transaction is aborted, commands ignored until end of transaction block"

/* ---- Describe ---- */

/* What a FETCH over several shards gives, or its like, which gives nothing. */
static void describe_cursor(struct client *client, const struct statement *statement,
                            bool parameters)
{
    struct buffer bytes = {0};
    const struct cursor *cursor = cursor_of_statement(client, statement);
    if (parameters) {
        size_t begin = wire_begin(&bytes, 't');
        wire_put16(&bytes, 0);
        wire_end(&bytes, begin);
    }
    if (cursor && strcmp(statement->tag, "FETCH") == 0)
        cursor_describe(cursor, &bytes);
    else
        wire_put_simple(&bytes, 'n');
    batch_answer(client, &bytes);
}

/* Of a result that parts were taken of, or of SQL's DECLARE. */
static bool describe_open_cursor(struct client *client, const char *name)
{
    bool gone = false;
    struct portal *portal = names_portal(&client->extended->names, name);
    const struct cursor *cursor =
        portal ? cursor_of_portal(client, portal, &gone) : cursor_find(client, name);
    if (!cursor)
        return false;
    struct buffer bytes = {0};
    cursor_describe(cursor, &bytes);
    batch_answer(client, &bytes);
    return true;
}

static bool describe_statement(struct client *client, const char *name)
{
    struct extended *ext = client->extended;
    struct prepared *prepared = batch_find_statement(client, name);
    enum reach reached;
    if (!prepared || own_describe(client, prepared) || batch_refuse_failed(client, prepared))
        return true;
    if (prepared->statements.count == 1 &&
        cursor_of_statement(client, prepared->statements.items[0])) {
        describe_cursor(client, prepared->statements.items[0], true);
        return true;
    }
    reached = batch_reach_for_description(client, prepared);
    if (reached != REACH_READY)
        return reached == REACH_FAILED;
    batch_ensure_prepared(client, prepared, batch_is_named(name));
    wire_put_describe(&ext->out, 'S', batch_server_name(prepared, name));
    server_expect(ext->server, EXPECT_DESCRIBE)->prepared = prepared_ref(prepared);
    return true;
}

/* Execute of the same portal stands right behind: the fan-out itself describes its rows then. */
static bool is_executed_next(const struct incoming *message, const char *name)
{
    size_t len = strlen(name) + 1;
    return message->rest_len >= WIRE_HEADER + len && message->rest[0] == 'E' &&
           wire_get32(message->rest + 1) >= 4 + len &&
           memcmp(message->rest + WIRE_HEADER, name, len) == 0;
}

/* A fan-out that is not executed yet has no portal on any server: one describes the client's text. */
static bool describe_scatter(struct client *client, const struct portal *portal)
{
    struct extended *ext = client->extended;
    struct wire_bind bind;
    if (!wire_read_bind(buffer_head(&portal->bind), buffer_length(&portal->bind), &bind)) {
        batch_malformed(client);
        return true;
    }
    enum reach reached = batch_reach_for_description(client, portal->prepared);
    if (reached != REACH_READY)
        return reached == REACH_FAILED;
    batch_ensure_prepared(client, portal->prepared, true);
    wire_put_describe(&ext->out, 'S', portal->prepared->server_name);
    struct expect *expect = server_expect(ext->server, EXPECT_DESCRIBE);
    expect->prepared = prepared_ref(portal->prepared);
    expect_more(expect)->formats = mem_alloc(bind.results_len);
    memcpy(expect->more->formats, bind.results, bind.results_len);
    return true;
}

static bool describe_portal(struct client *client, const struct incoming *message, const char *name)
{
    struct extended *ext = client->extended;
    if (describe_open_cursor(client, name))
        return true;
    struct portal *portal = batch_find_portal(client, name);
    if (!portal)
        return true;
    switch (portal->kind) {
    case PORTAL_FETCH:
        describe_cursor(client, portal->prepared->statements.items[0], false);
        return true;
    case PORTAL_LOCAL:
        own_describe_portal(client, portal);
        return true;
    case PORTAL_SCATTER:
        if (!is_executed_next(message, name))
            return describe_scatter(client, portal);
        portal->describe = true;
        return true;
    case PORTAL_SERVER:
    case PORTAL_CURSOR:
        break;
    }
    enum reach reached = batch_reach(client, portal->shard, NODE_CLASS_REPLICA);
    if (reached != REACH_READY)
        return reached == REACH_FAILED;
    incoming_pass_on(&ext->out, message);
    server_expect(ext->server, EXPECT_DESCRIBE);
    return true;
}

bool extended_describe(struct client *client, const struct incoming *message)
{
    struct wire_reader reader = wire_reader(message->body, message->len);
    int kind = wire_read8(&reader);
    const char *name = wire_read_cstring(&reader);
    if (reader.bad || wire_left(&reader)) {
        batch_malformed(client);
        return true;
    }
    if (kind != 'S' && kind != 'P') {
        batch_refuse_subtype(client, "DESCRIBE", kind);
        return true;
    }
    struct extended *ext = client->extended;
    if (ext->ahead && !(kind == 'S' ? pipeline_takes_statement(client, name)
                                    : pipeline_takes_portal(client, name)))
        return pipeline_stall(ext);
    ext->described = true;
    return kind == 'S' ? describe_statement(client, name) : describe_portal(client, message, name);
}

/* ---- Execute ---- */

struct expect *batch_expect_executed(struct client *client, struct prepared *prepared, bool write)
{
    struct extended *ext = client->extended;
    struct expect *expect = server_expect(ext->server, EXPECT_EXECUTE);
    expect->prepared = prepared_ref(prepared);
    expect->list = &expect->prepared->statements;
    expect->write = write;
    ext->executed_write |= write;
    ext->alone |= !prepared->plain;
    return expect;
}

struct expect *batch_execute(struct client *client, const char *portal, int32_t max_rows,
                             struct prepared *prepared, bool write)
{
    struct extended *ext = client->extended;
    size_t begin = wire_begin(&ext->out, 'E');
    wire_put_cstring(&ext->out, portal);
    wire_put32(&ext->out, max_rows);
    wire_end(&ext->out, begin);
    return batch_expect_executed(client, prepared, write);
}

/* Runs a fan-out: first everything before it has to be answered. */
bool batch_scatter(struct client *client, struct scatter_ask *ask)
{
    struct extended *ext = client->extended;
    if (ext->server) {
        if (batch_leaves_writes(client)) {
            batch_refuse_two_shards(client);
            return true;
        }
        batch_settle(client);
        return false;
    }
    enum attach attached = attach_all(client, &client->request.plan);
    if (attached != ATTACH_READY)
        return attached == ATTACH_FAILED;
    client->request.retriable = client->request.plan.node == NODE_CLASS_REPLICA && !client->tx &&
                                !ext->unsafe && !client->request.incomplete;
    ext->state = BATCH_SCATTER;
    if (client->request.plan.mode == SCATTER_CURSOR ||
        (client->request.plan.gather && client->request.plan.gather->cursor))
        cursor_declare(client, ask);
    else
        scatter_start(client, ask);
    return true;
}

/* Drivers limit the rows of statements that have none, too (JDBC's executeUpdate asks for one). */
static bool answers_rows(const struct plan *plan, const struct statement *statement)
{
    if (plan->copy) /* no rows to a portal */
        return false;
    bool change = statement->query && (statement->query->kind == QUERY_INSERT ||
                                       statement->query->kind == QUERY_UPDATE ||
                                       statement->query->kind == QUERY_DELETE);
    bool gathered =
        ((plan->mode == SCATTER_GATHER && !plan->gather->cursor) || plan->mode == SCATTER_CHANGE) &&
        (!change || statement->query->nreturning);
    return plan->mode == SCATTER_ROWS || gathered ||
           (plan->merge && plan->mode != SCATTER_CURSOR) || statement->kind == STMT_EXPLAIN;
}

/* What is before it on the batch's server is answered first. False: the message is to come again. */
static bool is_alone(struct client *client)
{
    struct extended *ext = client->extended;
    if (!ext->server)
        return true;
    if (batch_leaves_writes(client))
        batch_refuse_two_shards(client);
    else
        batch_settle(client);
    return false;
}

static bool is_refused(const struct client *client)
{
    return client->extended->state == BATCH_FAILED;
}

/* The first part of a result. Outside a block the portal lives until Sync, which ends a transaction of
 * the pipeline's then. */
static bool start_portal(struct client *client, struct portal *portal,
                         const struct scatter_ask *ask, int32_t max_rows)
{
    struct plan *plan = &client->request.plan;
    bool gathered = plan->mode == SCATTER_GATHER && !plan->write;
    if ((!gathered && !plan->merge) || ask->statement->kind == STMT_EXPLAIN) {
        struct pg_error error = {
            .sqlstate = "0A000",
            .message = "fetching the rows of a change that is gathered, or EXPLAIN over several "
                       "shards, in parts is not supported yet",
            .hint = "Leave the fetch size at 0, or use LIMIT and OFFSET."};
        client->stats->refused++;
        extended_refuse(client, &error);
        return true;
    }
    if (!is_alone(client))
        return is_refused(client);
    if (!client->tx) {
        transaction_begin(client, NULL);
        client->tx->implicit = true;
        client->request.incomplete = true; /* it is not to be repeated */
    }
    enum attach attached = attach_all(client, plan);
    if (attached != ATTACH_READY)
        return attached == ATTACH_FAILED;
    client->extended->state = BATCH_SCATTER;
    if (gathered)
        scatter_start_portal(client, ask, portal->name, max_rows);
    else
        cursor_open_portal(client, portal, ask, max_rows);
    return true;
}

/* The next part of one. */
static bool go_on(struct client *client, struct cursor *cursor, int32_t max_rows)
{
    if (!is_alone(client))
        return is_refused(client);
    cursor_execute(client, cursor, max_rows);
    return true;
}

/* A FETCH and its like. */
static bool execute_cursor(struct client *client, struct portal *portal)
{
    const struct statement *statement = portal->prepared->statements.items[0];
    if (!is_alone(client))
        return is_refused(client);
    if (!cursor_statement(client, statement, true, false))
        batch_refuse(client, "34000",
                     arena_printf(client->request.arena, "cursor \"%s\" does not exist",
                                  statement->name ? statement->name : ""));
    return true;
}

struct bound {
    const struct prepared *prepared;
    const struct params *params;
};

static void plan_again(struct client *client, void *arg)
{
    const struct bound *bound = arg;
    batch_plan(client, bound->prepared, bound->params, &client->request.plan);
}

static bool execute_scatter(struct client *client, struct portal *portal, int32_t max_rows)
{
    struct wire_bind bind;
    struct params params;
    struct plan *plan = &client->request.plan;
    bool gone;
    struct cursor *cursor = cursor_of_portal(client, portal, &gone);
    if (cursor)
        return go_on(client, cursor, max_rows);
    if (own_execute_again(client, portal, portal->rows))
        return true;
    if (gone && client->tx->state == TX_FAILED) {
        batch_refuse(client, "25P02", ABORTED);
        return true;
    }
    if (gone) {
        batch_refuse(
            client, "34000",
            arena_printf(client->request.arena, "portal \"%s\" does not exist", portal->name));
        return true;
    }
    if (!wire_read_bind(buffer_head(&portal->bind), buffer_length(&portal->bind), &bind) ||
        !batch_read_params(client, portal->prepared, &bind, &params)) {
        batch_malformed(client);
        return true;
    }
    if (client->topology != client->worker->topology)
        session_follow_in_batch(client);
    batch_plan(client, portal->prepared, &params, plan);
    if (plan->kind != PLAN_SCATTER && client->request.lookups) {
        lookup_off(client, true); /* what was looked up at the Bind has changed */
        batch_plan(client, portal->prepared, &params, plan);
        lookup_off(client, false);
    }
    if (plan->touches_held) { /* since the Bind */
        enum bucket_hold held =
            bucket_hold(client, plan_again, &(struct bound){portal->prepared, &params});
        if (held != BUCKET_HOLD_NONE)
            return held == BUCKET_HOLD_REFUSED;
    }
    if (plan->kind != PLAN_SCATTER) { /* the map has changed since the Bind */
        batch_refuse(client, "55000", "the shard map changed between Bind and Execute");
        return true;
    }
    struct scatter_ask ask = {.statement = portal->prepared->statements.items[0],
                              .describe = portal->describe,
                              .silent = true,
                              .params = arena_new(client->request.arena, struct params),
                              .prepared = portal->prepared,
                              .named = bind.statement[0] != '\0',
                              .result_formats = bind.results,
                              .result_formats_len = bind.results_len};
    *(struct params *)ask.params = params;
    if (plan->mode == SCATTER_DRAW) { /* the message comes again when the values are there */
        ask.describe = false;
        return batch_scatter(client, &ask) && is_refused(client);
    }
    bool rows = answers_rows(plan, ask.statement), in_parts = max_rows > 0 && rows;
    portal->done = !in_parts;
    bool used =
        in_parts ? start_portal(client, portal, &ask, max_rows) : batch_scatter(client, &ask);
    if (used && client->scatter) {
        portal->describe = false; /* once */
        portal->rows = rows;
    } else {
        portal->done = false;
    }
    return used;
}

/* What failed was of our own, and the portal's server would carry it out. */
static bool fails_unknown(const struct client *client, const struct portal *portal)
{
    if (!client->tx || client->tx->state != TX_FAILED || !portal->prepared->statements.count)
        return false;
    const struct server *server = client_participant(client, portal->shard);
    return server && server->tx_status == 'T';
}

bool extended_execute(struct client *client, const struct incoming *message)
{
    struct wire_reader reader = wire_reader(message->body, message->len);
    const char *name = wire_read_cstring(&reader);
    int32_t max_rows = wire_read32(&reader);
    if (reader.bad) {
        batch_malformed(client);
        return true;
    }
    struct extended *ext = client->extended;
    if (ext->ahead && !pipeline_takes_portal(client, name))
        return pipeline_stall(ext);
    struct cursor *cursor = names_portal(&ext->names, name) ? NULL : cursor_find(client, name);
    if (cursor)
        return go_on(client, cursor, max_rows);
    struct portal *portal = batch_find_portal(client, name);
    if (!portal)
        return true;
    switch (portal->kind) {
    case PORTAL_FETCH:
        return execute_cursor(client, portal);
    case PORTAL_LOCAL:
        ext->alone = true;
        return own_execute(client, portal);
    case PORTAL_SCATTER:
        return execute_scatter(client, portal, max_rows);
    case PORTAL_SERVER:
    case PORTAL_CURSOR:
        break;
    }
    if (fails_unknown(client, portal)) {
        batch_refuse(client, "25P02", ABORTED);
        return true;
    }
    enum reach reached = batch_reach(client, portal->shard, NODE_CLASS_REPLICA);
    if (reached != REACH_READY)
        return reached == REACH_FAILED;
    incoming_pass_on(&ext->out, message);
    struct expect *expect = batch_expect_executed(client, portal->prepared, portal->write);
    if (portal->settings)
        expect_more(expect)->settings = portal->settings;
    portal->done |= max_rows <= 0;
    portal->settings = NULL; /* a portal is executed whole, or again where it was suspended */
    return true;
}
