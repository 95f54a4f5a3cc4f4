/* extended_bind.c: Parse and Bind: a statement gets its name, then its values and its place. */
#include "proxy/extended.h"

#include <stdlib.h>
#include <string.h>

#include "pgshunt/arena.h"
#include "pgshunt/log.h"
#include "pgshunt/wire.h"
#include "proxy/bucket_hold.h"
#include "proxy/cursor.h"
#include "proxy/keyless.h"
#include "proxy/lookup.h"
#include "proxy/pool.h"
#include "proxy/schema_wait.h"

/* Most who parse without names parse the same text again: to compare it costs less than to look it up. */
static bool is_unnamed_one(const struct client *client, const char *sql, const uint32_t *types,
                           int count)
{
    const struct client_statement *unnamed = client->extended->names.unnamed;
    const struct prepared *prepared = unnamed ? unnamed->prepared : NULL;
    return prepared && !prepared->prepare_sql && !prepared->uses && prepared->ntypes == count &&
           strcmp(prepared->sql, sql) == 0 &&
           (!count || memcmp(prepared->types, types, sizeof *types * (size_t)count) == 0);
}

static bool read_parse(struct client *client, const struct incoming *message, const char **name,
                       struct prepared **prepared)
{
    struct wire_reader reader = wire_reader(message->body, message->len);
    uint32_t few[16], *types = few;
    *name = wire_read_cstring(&reader);
    const char *sql = wire_read_cstring(&reader);
    int count = wire_read16(&reader);
    if (reader.bad || count < 0 || wire_left(&reader) != 4 * (size_t)count)
        return false;
    if (count > 16)
        types = arena_array(client->request.arena, uint32_t, count);
    for (int i = 0; i < count; i++)
        types[i] = (uint32_t)wire_read32(&reader);
    *prepared = is_unnamed_one(client, sql, types, count)
                    ? prepared_ref(client->extended->names.unnamed->prepared)
                    : prepared_get(&client->worker->prepared, sql, types, count);
    return true;
}

#define ABORTED "current transaction is aborted, commands ignored until end of transaction block"

static bool in_failed_transaction(const struct client *client)
{
    return client->tx && client->tx->state == TX_FAILED;
}

/* In a failed transaction Postgres takes a Parse of what ends it, and of nothing else. */
static bool parse_is_aborted(const struct client *client, const struct prepared *prepared)
{
    if (!in_failed_transaction(client) || prepared->statements.count != 1)
        return false;
    const struct statement *statement = prepared->statements.items[0];
    enum statement_kind kind = statement->kind;
    return !statement->syntax_error && kind != STMT_COMMIT && kind != STMT_ROLLBACK &&
           kind != STMT_ROLLBACK_TO && kind != STMT_PREPARE_TRANSACTION;
}

/* The one without a name goes with any Parse that comes to be looked at. */
static void refuse_aborted(struct client *client, const char *name)
{
    struct extended *ext = client->extended;
    struct prepared *older = batch_is_named(name) ? NULL : names_statement(&ext->names, name);
    if (older)
        prepared_ref(older);
    if (!batch_is_named(name))
        names_undefine(&ext->names, name);
    batch_refuse(client, "25P02", ABORTED);
    if (older && ext->server) {
        server_last_expected(ext->server)->defines = name_keep(name);
        server_last_expected(ext->server)->older = older;
    } else {
        prepared_unref(ext->names.table, older);
    }
}

/* ParseComplete of our own. An error in front of it takes the meaning back. */
static void answer_local(struct client *client, const char *name, struct prepared *older)
{
    struct extended *ext = client->extended;
    bool awaited = ext->server && ext->server->expect_count;
    batch_answer_simple(client, '1');
    if (awaited) {
        server_last_expected(ext->server)->defines = name_keep(name);
        server_last_expected(ext->server)->older = older;
    } else {
        prepared_unref(ext->names.table, older);
    }
}

static void define(struct client *client, const char *name, struct prepared *prepared)
{
    struct extended *ext = client->extended;
    struct prepared *older = names_statement(&ext->names, name);
    if (older)
        prepared_ref(older);
    if (older && ext->unsafe)
        batch_note_forgotten(client, name, older);
    batch_define(client, name, prepared);
    bool empty = !prepared->statements.count;
    if (prepared->own || (empty && batch_fails_alone(client)))
        answer_local(client, name, older);
    else
        batch_hold_parse(client, name, prepared, older);
    if (ext->server)
        batch_release_held(client);
}

bool extended_parse(struct client *client, const struct incoming *message)
{
    struct extended *ext = client->extended;
    struct prepared *prepared;
    const char *name;
    if (!read_parse(client, message, &name, &prepared)) {
        batch_malformed(client);
        return true;
    }
    if (ext->ahead && !prepared->plain) {
        prepared_unref(&client->worker->prepared, prepared);
        return pipeline_stall(ext);
    }
    client->stats->client_parses++;
    prepared = sql_prepare_parse(client, prepared);
    if (!prepared)
        return true;
    ext->alone |= batch_is_named(name);
    ext->parsed |= !batch_is_named(name);
    if (parse_is_aborted(client, prepared)) {
        refuse_aborted(client, name);
    } else if (batch_is_named(name) && names_statement(&ext->names, name)) {
        batch_refuse(
            client, "42P05",
            arena_printf(client->request.arena, "prepared statement \"%s\" already exists", name));
    } else if (!batch_too_many(client, prepared)) {
        define(client, name, prepared);
    }
    prepared_unref(&client->worker->prepared, prepared);
    return true;
}

/* The Bind with the server's name of the statement instead of the client's. */
static void put_bind(struct buffer *out, const struct wire_bind *bind, const char *statement,
                     const struct incoming *message)
{
    if (!*statement && !*bind->statement) {
        incoming_pass_on(out, message);
        return;
    }
    const char *after = bind->statement + strlen(bind->statement) + 1;
    size_t begin = wire_begin(out, 'B');
    wire_put_cstring(out, bind->portal);
    wire_put_cstring(out, statement);
    wire_put_bytes(out, after, (size_t)(message->body + message->len - after));
    wire_end(out, begin);
}

static void keep_scatter(struct client *client, const struct incoming *message,
                         const struct wire_bind *bind, struct prepared *prepared,
                         const struct plan *plan)
{
    struct portal *portal =
        names_open(&client->extended->names, bind->portal, PORTAL_SCATTER, prepared);
    portal->write = plan->write;
    names_keep_bind(&client->extended->names, portal, message->body, message->len);
}

/* True if the batch ends behind this one statement, run once, as far as can be seen: then it may run on
 * a replica. A later write in the same batch must find itself on the primary. */
static bool ends_here(const char *data, size_t len)
{
    bool executed = false;
    while (len >= WIRE_HEADER) {
        size_t size = 1 + (size_t)wire_get32(data + 1);
        if (data[0] == 'S')
            return true;
        if (data[0] != 'D' && (data[0] != 'E' || executed) && data[0] != 'C' && data[0] != 'H')
            return false;
        executed |= data[0] == 'E';
        if (size > len)
            return false;
        data += size;
        len -= size;
    }
    return false;
}

/* Looked at once, and only where it matters. */
enum ending { ENDING_UNKNOWN, ENDING_HERE, ENDING_LATER };

static bool is_last_statement(const struct incoming *message, enum ending ending)
{
    return ending == ENDING_UNKNOWN ? ends_here(message->rest, message->rest_len)
                                    : ending == ENDING_HERE;
}

static bool is_explain(const struct prepared *prepared)
{
    return prepared->statements.count == 1 && prepared->statements.items[0]->kind == STMT_EXPLAIN;
}

/* pgshunt's lines go ahead of the next rows: those of another EXPLAIN in the batch have to be out. */
static bool explains_next(struct client *client, const struct prepared *prepared)
{
    struct buffer *lines = &client->request.explain;
    if (!is_explain(prepared) || !buffer_length(lines))
        return true;
    if (client->extended->server && !batch_leaves_writes(client)) {
        batch_settle(client);
        return false;
    }
    buffer_clear(lines);
    return true;
}

/* A statement bound for one server. False: try again later. */
static bool bind_direct(struct client *client, const struct incoming *message, enum ending ending,
                        const struct wire_bind *bind, struct prepared *prepared,
                        const struct params *params, const struct plan *plan)
{
    struct extended *ext = client->extended;
    bool named = batch_is_named(bind->statement);
    enum node_class class = plan->node;
    if (!prepared->plain && !explains_next(client, prepared))
        return false;
    bool in_block = client->tx && !client->tx->implicit;
    if (class == NODE_CLASS_REPLICA && !ext->server && !in_block &&
        !is_last_statement(message, ending)) {
        class = NODE_CLASS_PRIMARY;
        client->request.writes = true; /* it may, in what follows */
    }
    enum reach reached = batch_reach(client, plan->shard, class);
    if (reached != REACH_READY)
        return reached == REACH_FAILED;
    ext->unsafe |= class != NODE_CLASS_REPLICA || client->tx || ext->server->pinned;
    client->request.retriable = !ext->unsafe && !client->request.incomplete;
    batch_ensure_prepared(client, prepared, named);
    put_bind(&ext->out, bind, batch_server_name(prepared, bind->statement), message);
    struct expect *expect = server_expect(ext->server, EXPECT_BIND);
    expect->prepared = prepared_ref(prepared);
    expect->called = named ? name_hash(bind->statement) : 0;
    struct portal *portal = names_open(&ext->names, bind->portal, PORTAL_SERVER, prepared);
    portal->shard = plan->shard;
    portal->write = plan->write;
    if (prepared->plain)
        return true;
    portal->settings = statement_set_configs(prepared, params);
    statement_explain_rows(client,
                           prepared->statements.count ? prepared->statements.items[0] : NULL, plan,
                           &client->request.explain);
    return true;
}

/* A pipeline is one transaction. Where it may come to several shards it is made one on all of them;
 * on one server Postgres does that by itself. */
static enum ending begin_implicit(struct client *client, const struct incoming *message,
                                  const struct plan *plan)
{
    if (client->tx || client->extended->server || client->database->nshards < 2 ||
        plan->no_transaction)
        return ENDING_UNKNOWN;
    if (is_last_statement(message, ENDING_UNKNOWN))
        return ENDING_HERE;
    transaction_begin(client, NULL);
    client->tx->implicit = true;
    return ENDING_LATER;
}

/* FETCH and its like, of a cursor over several shards, and a DECLARE of the name of one. */
static bool is_about_cursor(const struct client *client, const struct prepared *prepared)
{
    if (prepared->statements.count != 1)
        return false;
    const struct statement *statement = prepared->statements.items[0];
    return cursor_of_statement(client, statement) ||
           (statement->kind == STMT_DECLARE_CURSOR && cursor_find(client, statement->name));
}

static bool asks_for_binary(const struct wire_bind *bind)
{
    for (size_t i = 2; i + 2 <= bind->results_len; i += 2)
        if (wire_get16(bind->results + i) == 1)
            return true;
    return false;
}

static void bind_cursor(struct client *client, const struct wire_bind *bind,
                        struct prepared *prepared)
{
    static const struct pg_error error = {
        .sqlstate = "0A000",
        .message = "FETCH from a cursor over several shards with results in binary format is not "
                   "supported",
        .hint = "Ask for text, or DECLARE the cursor BINARY."};
    if (asks_for_binary(bind)) {
        extended_refuse(client, &error);
        return;
    }
    batch_accept_held(client);
    names_open(&client->extended->names, bind->portal, PORTAL_FETCH, prepared);
    batch_answer_simple(client, '2');
}

/* What is behind the Bind describes and executes it, and that is all: the batch can be asked again. */
static bool is_all_there_is(const struct client *client, const struct incoming *message)
{
    const char *data = message->rest;
    size_t len = message->rest_len;
    bool kept = buffer_length(&client->request.again) + len < EXTENDED_KEPT_MAX;
    if (client->extended->server || client->extended->ahead || !kept)
        return false;
    for (const char *kinds = "DES"; *kinds; kinds++) {
        size_t size = len >= WIRE_HEADER ? 1 + (size_t)wire_get32(data + 1) : len + 1;
        if (size > len || (data[0] != *kinds && *kinds != 'D'))
            return false;
        if (data[0] != *kinds)
            continue;
        data += size;
        len -= size;
    }
    return !len;
}

struct bound {
    struct prepared *prepared;
    const struct params *params;
};

static void plan_again(struct client *client, void *arg)
{
    const struct bound *bound = arg;
    batch_plan(client, bound->prepared, bound->params, &client->request.plan);
}

bool extended_bind(struct client *client, const struct incoming *message)
{
    struct wire_bind bind;
    struct params params;
    struct plan *plan = &client->request.plan;
    if (!wire_read_bind(message->body, message->len, &bind)) {
        batch_malformed(client);
        return true;
    }
    if (client->extended->ahead && !pipeline_takes_statement(client, bind.statement))
        return pipeline_stall(client->extended);
    client->stats->binds++;
    struct prepared *prepared = batch_find_statement(client, bind.statement);
    if (!prepared || (in_failed_transaction(client) && own_refuses_bind(client, prepared, &bind)) ||
        batch_refuse_failed(client, prepared) || batch_too_many(client, NULL))
        return true;
    if (prepared->own) {
        own_bind(client, prepared, &bind);
        return true;
    }
    if (!prepared->plain && is_about_cursor(client, prepared)) {
        bind_cursor(client, &bind, prepared);
        return true;
    }
    if (!batch_read_params(client, prepared, &bind, &params)) {
        batch_malformed(client);
        return true;
    }
    if (client->topology != client->worker->topology)
        session_follow_in_batch(client);
    batch_plan(client, prepared, &params, plan);
    if (client->extended->ahead && !pipeline_takes_plan(client, plan))
        return pipeline_stall(client->extended);
    if (plan->touches_held) {
        enum bucket_hold held = bucket_hold(client, plan_again, &(struct bound){prepared, &params});
        if (held != BUCKET_HOLD_NONE)
            return held == BUCKET_HOLD_REFUSED;
    }
    if (plan->needs_schema && schema_wait(client, plan->needs_schema))
        return false;
    if (plan->nwants && lookup_wait(client, is_all_there_is(client, message), plan_again,
                                    &(struct bound){prepared, &params}))
        return false;
    enum ending ending = begin_implicit(client, message, plan);
    switch (plan->kind) {
    case PLAN_REFUSE:
        client->stats->refused++;
        keyless_planned(client, plan,
                        prepared->statements.count ? prepared->statements.items[0] : NULL);
        extended_refuse(client, &plan->error);
        return true;
    case PLAN_SCATTER:
        batch_accept_held(client);
        keep_scatter(client, message, &bind, prepared, plan);
        batch_answer_simple(client, '2');
        return true;
    case PLAN_DIRECT:
        return bind_direct(client, message, ending, &bind, prepared, &params, plan);
    }
    return true;
}
