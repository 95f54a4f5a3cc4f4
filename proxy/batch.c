/* batch.c: what the messages of an extended-protocol batch share: names, held Parses, answers in order,
 * errors, and the server the batch is on. */
#include "proxy/extended.h"

#include <stdlib.h>
#include <string.h>

#include "pgshunt/arena.h"
#include "pgshunt/log.h"
#include "pgshunt/wire.h"
#include "proxy/bucket_hold.h"
#include "proxy/pool.h"
#include "proxy/schema_wait.h"
#include "proxy/sequences.h"

#define NO_SUCH_PORTAL "pgshunt_abort"
#define KEPT_MAX 2      /* entries of its arrays that an idle client keeps room for */
#define EARLY_MAX 16384 /* answers held back, at most: then the batch cannot be repeated */

/* ---- names ---- */

void *batch_grow(void *array, size_t size, int count, int *cap)
{
    if (count < *cap)
        return array;
    *cap = count ? 2 * count : 1;
    return mem_realloc(array, size * (size_t)*cap);
}

void *batch_shrink(void *array, int *cap)
{
    if (*cap <= KEPT_MAX)
        return array;
    free(array);
    *cap = 0;
    return NULL;
}

static void remember_forgotten(struct extended *ext, bool undo)
{
    for (int i = 0; i < ext->nforgotten; i++) {
        struct held_parse *was = &ext->forgotten[i];
        if (undo)
            names_define(&ext->names, was->name, was->prepared);
        else
            prepared_unref(ext->names.table, was->prepared);
        name_free(was->name);
    }
    ext->forgotten = batch_shrink(ext->forgotten, &ext->forgotten_cap);
    ext->nforgotten = 0;
}

static void forget_defined(struct extended *ext, bool undo)
{
    for (int i = 0; i < ext->ndefined; i++) {
        if (undo)
            names_undefine(&ext->names, ext->defined[i]);
        name_free(ext->defined[i]);
    }
    ext->defined = batch_shrink(ext->defined, &ext->defined_cap);
    ext->ndefined = 0;
    if (ext->nforgotten)
        remember_forgotten(ext, undo);
}

static bool is_defined_in_batch(const struct extended *ext, const char *name)
{
    for (int i = 0; i < ext->ndefined; i++)
        if (strcmp(ext->defined[i], name) == 0)
            return true;
    return false;
}

void batch_note_forgotten(struct client *client, const char *name, struct prepared *prepared)
{
    struct extended *ext = client->extended;
    if (!ext->unsafe || client->request.incomplete || ext->ahead || is_defined_in_batch(ext, name))
        return;
    ext->forgotten =
        batch_grow(ext->forgotten, sizeof *ext->forgotten, ext->nforgotten, &ext->forgotten_cap);
    ext->forgotten[ext->nforgotten++] =
        (struct held_parse){name_keep(name), prepared_ref(prepared), NULL};
}

void extended_undefine(struct client *client, const char *name)
{
    if (client->extended)
        names_undefine(&client->extended->names, name);
}

void extended_forget_all(struct client *client)
{
    if (client->extended)
        names_forget_statements(&client->extended->names);
}

void extended_restore(struct client *client, const char *name, struct prepared *prepared)
{
    if (client->extended)
        names_define(&client->extended->names, name, prepared_ref(prepared));
}

void extended_define(struct client *client, const char *name, struct prepared *prepared)
{
    names_define(&extended_of(client)->names, name, prepared_ref(prepared));
}

struct prepared *extended_statement(const struct client *client, const char *name)
{
    return client->extended ? names_statement(&client->extended->names, name) : NULL;
}

const char *extended_name_of(const struct client *client, const struct prepared *prepared,
                             uint32_t hash)
{
    const struct names *names = client->extended ? &client->extended->names : NULL;
    return names ? names_of_statement(names, prepared, hash) : NULL;
}

void extended_close_portals(struct client *client)
{
    if (client->extended)
        names_close_all(&client->extended->names);
}

bool extended_deallocate(struct client *client, const char *name)
{
    if (!client->extended || !names_statement(&client->extended->names, name))
        return false;
    names_undefine(&client->extended->names, name);
    return true;
}

void batch_free(struct extended *ext, bool undo)
{
    batch_drop_held(ext);
    forget_defined(ext, undo);
    buffer_release(&ext->out);
    buffer_release(&ext->early);
    ext->server = NULL;
    ext->executed_write = ext->failed = ext->judging = ext->described = ext->unsafe = false;
    ext->alone = ext->stalled = ext->parsed = ext->pushed = false;
    ext->ahead = ext->run = 0;
    ext->kept = 0;
    ext->state = BATCH_CLOSED;
}

/* `unsafe` stays: what is kept of several batches is repeated together, or not at all. */
void batch_begin_behind(struct extended *ext)
{
    forget_defined(ext, false);
    ext->executed_write = ext->failed = ext->described = ext->parsed = false;
    ext->pressed = ext->pushed = false;
    ext->state = BATCH_OPEN;
}

void extended_reset(struct client *client)
{
    if (!client->extended)
        return;
    batch_free(client->extended, true);
    names_close_all(&client->extended->names);
}

void extended_free(struct client *client)
{
    if (!client->extended)
        return;
    batch_free(client->extended, false);
    names_close_all(&client->extended->names);
    names_forget_statements(&client->extended->names);
    free(client->extended->held);
    free(client->extended->defined);
    free(client->extended->forgotten);
    free(client->extended);
    client->extended = NULL;
}

/* ---- output ---- */

void batch_flush(struct extended *ext)
{
    if (!ext->server || !buffer_length(&ext->out))
        return;
    conn_send(&ext->server->conn, buffer_head(&ext->out), buffer_length(&ext->out));
    worker_buffer_give(ext->server->worker, &ext->out);
}

/* An answer of our own, behind the answers still awaited. */
void batch_answer(struct client *client, struct buffer *bytes)
{
    struct extended *ext = client->extended;
    batch_accept_held(client); /* their answers come first */
    if (ext->server && ext->server->expect_count) {
        expect_more(server_expect(ext->server, EXPECT_LOCAL))->answer = *bytes;
        *bytes = (struct buffer){0};
        return;
    }
    if (!ext->server) {
        /* A fan-out may follow, and lose a shard before its first row: then nothing must be out. */
        buffer_append(&ext->early, buffer_head(bytes), buffer_length(bytes));
        buffer_release(bytes);
        if (buffer_length(&ext->early) > EARLY_MAX)
            batch_send_early(client);
        return;
    }
    client->request.forwarded = true;
    client_send_buffer(client, bytes);
}

void batch_send_early(struct client *client)
{
    struct extended *ext = client->extended;
    if (!buffer_length(&ext->early))
        return;
    client->request.forwarded = true;
    client_send_buffer(client, &ext->early);
}

void batch_emit_heads(struct client *client)
{
    struct server *server = client->extended->server;
    struct expect *head;
    while (server && (head = server_expected(server)) && head->kind == EXPECT_LOCAL) {
        client->request.forwarded = true;
        struct buffer said = {0};
        expect_take_answer(head, &said);
        client_send_buffer(client, &said);
        server_expect_pop(server);
    }
}

void batch_answer_simple(struct client *client, char type)
{
    struct buffer bytes = {0};
    wire_put_simple(&bytes, type);
    batch_answer(client, &bytes);
}

/* ---- errors ---- */

void extended_refuse(struct client *client, const struct pg_error *error)
{
    struct extended *ext = client->extended;
    struct buffer bytes = {0};
    wire_put_error(&bytes, error);
    if (ext->state == BATCH_OPEN && !ext->judging)
        batch_accept_held(client);
    batch_drop_held(ext);
    ext->state = BATCH_FAILED;
    if (ext->server) {
        /* The server has to fail too, so that it rolls back what the batch has done there: it is
         * asked for a portal that does not exist, and its error is replaced by ours. */
        size_t begin = wire_begin(&ext->out, 'E');
        wire_put_cstring(&ext->out, NO_SUCH_PORTAL);
        wire_put32(&ext->out, 0);
        wire_end(&ext->out, begin);
        expect_more(server_expect(ext->server, EXPECT_EXECUTE))->answer = bytes;
        batch_flush(ext);
        return;
    }
    if (client->tx)
        client->tx->state = TX_FAILED;
    client->state = CLIENT_BUSY;
    client->request.forwarded = true;
    batch_send_early(client);
    client_send_buffer(client, &bytes);
    if (!client->processing)
        client_continue(client);
}

/* A server of the batch was lost. */
void extended_fail(struct client *client, const struct pg_error *error)
{
    struct extended *ext = client->extended;
    bool syncing = ext->state == BATCH_SYNCING;
    if (ext->ahead)
        error = pipeline_fail(client, error);
    ext->server = NULL;
    buffer_release(&ext->out);
    batch_drop_held(ext);
    batch_send_early(client);
    client_error(client, error);
    client->state = CLIENT_BUSY;
    ext->state = BATCH_FAILED;
    if (syncing) {
        batch_free(ext, false);
        session_ready(client);
    } else if (!client->processing) {
        client_continue(client);
    }
}

bool batch_fails_alone(const struct client *client)
{
    if (!client->tx || client->tx->state != TX_FAILED)
        return false;
    for (int i = 0; i < client->nparticipants; i++)
        if (client->participants[i]->begun)
            return false;
    return true;
}

/* Parses that no server has seen stand in front: one of them may be what is wrong. */
static bool is_in_doubt(const struct client *client)
{
    const struct extended *ext = client->extended;
    return ext->state == BATCH_OPEN && ext->nheld && !ext->server && !batch_fails_alone(client) &&
           !batch_held_accepted(client);
}

void batch_refuse(struct client *client, const char *sqlstate, const char *message)
{
    if (is_in_doubt(client)) {
        client->extended->doubts = true;
        return;
    }
    struct pg_error error = {.sqlstate = sqlstate, .message = message};
    if (strcmp(sqlstate, "25P02") == 0)
        bucket_hold_has_failed(client, &error);
    client->stats->refused++;
    extended_refuse(client, &error);
}

void extended_server_error(struct client *client)
{
    struct extended *ext = client->extended;
    if (!extended_in_batch(client) || ext->ahead) /* of one that has its Sync */
        return;
    ext->failed = true;
    if (ext->state != BATCH_OPEN)
        return;
    ext->state = BATCH_FAILED; /* the server skips to Sync: what was not sent need not be */
    buffer_release(&ext->out);
    batch_drop_held(ext);
}

/* ---- choosing the server ---- */

/* All answers awaited from the batch's server must come before what follows: it is synced. */
void batch_settle(struct client *client)
{
    struct extended *ext = client->extended;
    wire_put_simple(&ext->out, 'S');
    server_expect(ext->server, EXPECT_SYNC)->swallow = true;
    batch_flush(ext);
    ext->alone = true;
    ext->state = BATCH_SETTLING;
}

bool extended_has_written(const struct client *client)
{
    return extended_in_batch(client) && client->extended->executed_write;
}

bool batch_leaves_writes(const struct client *client)
{
    return client->extended->executed_write && !client->tx;
}

enum reach batch_refuse_two_shards(struct client *client)
{
    struct pg_error error = {
        .sqlstate = "0A000",
        .message = "a pipeline outside a transaction writes to several shards",
        .hint = "Send a Sync between its statements, or put them into BEGIN ... COMMIT."};
    client->stats->refused++;
    extended_refuse(client, &error);
    return REACH_FAILED;
}

/* Makes `shard`'s server the batch's. WAIT: the message at hand is to be tried again later. */
enum reach batch_reach(struct client *client, unsigned shard, enum node_class class)
{
    struct extended *ext = client->extended;
    if (ext->server) {
        bool replica = atomic_load(&ext->server->pool->node->role) == NODE_ROLE_REPLICA;
        bool misplaced = replica && class == NODE_CLASS_PRIMARY && !client->tx;
        if (ext->server->shard == shard && !misplaced &&
            !sequences_in_the_way(client, ext->server)) {
            sequences_used(client, ext->server);
            return REACH_READY;
        }
        if (batch_leaves_writes(client))
            return batch_refuse_two_shards(client);
        batch_settle(client);
        return REACH_WAIT;
    }
    enum attach attached = attach_shard(client, shard, class);
    if (attached != ATTACH_READY)
        return attached == ATTACH_WAITING ? REACH_WAIT : REACH_FAILED;
    ext->server = client_participant(client, shard);
    attach_prefix(client, ext->server, &ext->out);
    if (buffer_length(&ext->early)) { /* goes out with what the server answers, or not at all */
        expect_more(server_expect(ext->server, EXPECT_LOCAL))->answer = ext->early;
        ext->early = (struct buffer){0};
    }
    client->stats->direct++;
    batch_release_held(client);
    return REACH_READY;
}

/* ---- statements ---- */

bool batch_too_many(struct client *client, const struct prepared *more)
{
    const struct names *names = &client->extended->names;
    const struct config *config = client->topology->config;
    size_t size = more ? more->arena.total : 0;
    bool many = more && names_count(names) >= config->client_statements;
    if (!many && names->memory + size <= (size_t)config->client_statement_memory)
        return false;
    struct pg_error error = {
        .sqlstate = "53400",
        .message = many ? "this client has too many prepared statements"
                        : "this client's prepared statements and portals take too much memory",
        .hint = many ? "Close those no longer needed, or raise limits.client_statements."
                     : "Close those no longer needed, or raise limits.client_statement_memory."};
    session_refuse(client, &error);
    return true;
}

void batch_define(struct client *client, const char *name, struct prepared *prepared)
{
    struct extended *ext = client->extended;
    names_define(&ext->names, name, prepared_ref(prepared));
    if (client->request.incomplete ||
        ext->ahead) /* it will not be repeated; has the unnamed alone */
        return;
    ext->defined = batch_grow(ext->defined, sizeof *ext->defined, ext->ndefined, &ext->defined_cap);
    ext->defined[ext->ndefined++] = name_keep(name);
}

void batch_refuse_subtype(struct client *client, const char *message, int subtype)
{
    batch_refuse(
        client, "08P01",
        arena_printf(client->request.arena, "invalid %s message subtype %d", message, subtype));
}

void batch_malformed(struct client *client)
{
    if (client->extended->ahead) { /* they are answered first */
        pipeline_stall(client->extended);
        return;
    }
    client_fatal(client, "08P01", "malformed extended-protocol message", NULL);
}

struct prepared *batch_find_statement(struct client *client, const char *name)
{
    struct prepared *prepared = names_statement(&client->extended->names, name);
    if (!prepared)
        batch_refuse(client, "26000",
                     arena_printf(client->request.arena,
                                  batch_is_named(name)
                                      ? "prepared statement \"%s\" does not exist"
                                      : "unnamed prepared statement does not exist%s",
                                  name));
    return prepared;
}

/* The Bind's parameter values, for the router. */
bool batch_read_params(struct client *client, const struct prepared *prepared,
                       const struct wire_bind *bind, struct params *params)
{
    struct wire_reader reader = wire_reader(bind->params, (size_t)(bind->results - bind->params));
    struct param *items = arena_array(client->request.arena, struct param, bind->nparams);
    for (int i = 0; i < bind->nparams; i++) {
        int32_t length = wire_read32(&reader);
        items[i].length = length;
        items[i].bytes = length < 0 ? NULL : wire_read_bytes(&reader, (size_t)length);
        items[i].binary = wire_bind_format(bind, i) == 1;
        items[i].type_oid = i < prepared->ntypes ? prepared->types[i] : 0;
        if (reader.bad)
            return false;
    }
    *params = (struct params){items, bind->nparams};
    return true;
}

/* Of one shard: EXECUTE and EXPLAIN of it go where the statement itself goes. */
static const struct prepared *plain_execute(const struct prepared *prepared)
{
    bool creates = prepared->statements.items[0]->kind == STMT_CREATE_TABLE_AS;
    return creates ? prepared : prepared->uses;
}

void batch_plan(struct client *client, const struct prepared *prepared, const struct params *params,
                struct plan *plan)
{
    struct request *request = &client->request;
    if (prepared->routed)
        prepared = prepared->routed;
    else if (prepared->uses)
        prepared = plain_execute(prepared);
    if (prepared->statements.count == 1)
        attach_route(client, prepared->statements.items[0], params, request->arena, plan);
    else if (prepared->statements.count > 1)
        attach_route_list(client, &prepared->statements, request->arena, plan);
    else
        *plan = (struct plan){.kind = PLAN_DIRECT, .any_shard = true, .node = NODE_CLASS_REPLICA};
    request->planned = true;
}

bool batch_refuse_failed(struct client *client, const struct prepared *prepared)
{
    struct pg_error error;
    if (prepared->statements.count != 1 ||
        !statement_fails(client, prepared->statements.items[0], &error))
        return false;
    extended_refuse(client, &error);
    return true;
}

/* A name of SQL's DECLARE is a portal of the server's, and so is what a failed Query has left without a
 * name: the server judges. */
static struct portal *find_cursor(struct client *client, const char *name)
{
    struct names *names = &client->extended->names;
    if (!client->tx || client->tx->implicit || client->nparticipants != 1 ||
        !client->participants[0]->begun ||
        (!batch_is_named(name) && client->participants[0]->tx_status != 'E'))
        return NULL;
    struct prepared *nothing = prepared_get(names->table, "", NULL, 0);
    struct portal *portal = names_open(names, name, PORTAL_CURSOR, nothing);
    prepared_unref(names->table, nothing);
    portal->shard = client->participants[0]->shard;
    return portal;
}

struct portal *batch_portal(struct client *client, const char *name)
{
    struct portal *portal = names_portal(&client->extended->names, name);
    return portal ? portal : find_cursor(client, name);
}

struct portal *batch_find_portal(struct client *client, const char *name)
{
    struct portal *portal = batch_portal(client, name);
    if (!portal)
        batch_refuse(client, "34000",
                     arena_printf(client->request.arena, "portal \"%s\" does not exist", name));
    return portal;
}

/* Any shard can describe a statement: it is asked with the original text. */
enum reach batch_reach_for_description(struct client *client, struct prepared *prepared)
{
    struct plan *plan = &client->request.plan;
    if (client->extended->server)
        return REACH_READY;
    batch_plan(client, prepared, NULL, plan);
    if (plan->needs_schema && schema_wait(client, plan->needs_schema))
        return REACH_WAIT;
    unsigned shard = plan->kind == PLAN_DIRECT ? plan->shard : 0;
    if (plan->kind != PLAN_DIRECT && client->nparticipants)
        shard = client->participants[0]->shard;
    return batch_reach(client, shard, plan->node);
}
