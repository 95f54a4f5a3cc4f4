/* extended.c: the extended protocol: each message of a batch translated for the server it goes to. */
#include "proxy/extended.h"

#include <stdlib.h>
#include <string.h>

#include "pgshunt/arena.h"
#include "pgshunt/log.h"
#include "pgshunt/wire.h"
#include "proxy/pool.h"

#define OUT_MAX 16384 /* a batch longer than this leaves in parts */
#define NO_SUCH_PORTAL "pgshunt_abort"

static struct extended *get_extended(struct client *client)
{
    if (!client->extended) {
        client->extended = mem_alloc(sizeof *client->extended);
        client->extended->names.table = &client->worker->prepared;
    }
    return client->extended;
}

bool extended_in_batch(const struct client *client)
{
    return client->extended && client->extended->state != BATCH_CLOSED;
}

/* ---- names ---- */

static void forget_defined(struct extended *ext, bool undo)
{
    for (int i = 0; i < ext->ndefined; i++) {
        if (undo)
            names_undefine(&ext->names, ext->defined[i]);
        free(ext->defined[i]);
    }
    free(ext->defined);
    ext->defined = NULL;
    ext->ndefined = 0;
}

static void drop_held(struct extended *ext)
{
    for (int i = 0; i < ext->nheld; i++) {
        free(ext->held[i].name);
        prepared_unref(ext->names.table, ext->held[i].prepared);
    }
    free(ext->held);
    ext->held = NULL;
    ext->nheld = 0;
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

bool extended_deallocate(struct client *client, const char *name)
{
    if (!client->extended || !names_statement(&client->extended->names, name))
        return false;
    names_undefine(&client->extended->names, name);
    return true;
}

static void free_batch(struct extended *ext, bool undo)
{
    drop_held(ext);
    forget_defined(ext, undo);
    buffer_release(&ext->out);
    ext->server = NULL;
    ext->executed_write = ext->failed = false;
    ext->state = BATCH_CLOSED;
}

void extended_reset(struct client *client)
{
    if (!client->extended)
        return;
    free_batch(client->extended, true);
    names_close_all(&client->extended->names);
}

void extended_free(struct client *client)
{
    if (!client->extended)
        return;
    free_batch(client->extended, false);
    names_close_all(&client->extended->names);
    names_forget_statements(&client->extended->names);
    free(client->extended);
    client->extended = NULL;
}

/* ---- output ---- */

static void flush(struct extended *ext)
{
    if (!ext->server || !buffer_length(&ext->out))
        return;
    conn_send(&ext->server->conn, buffer_head(&ext->out), buffer_length(&ext->out));
    buffer_release(&ext->out);
}

/* An answer of our own, behind the answers still awaited. */
static void answer(struct client *client, struct buffer *bytes)
{
    struct extended *ext = client->extended;
    if (ext->server && ext->server->expect_count) {
        server_expect(ext->server, EXPECT_LOCAL)->answer = *bytes;
        *bytes = (struct buffer){0};
        return;
    }
    client->request.forwarded = true;
    client_send_buffer(client, bytes);
}

static void answer_simple(struct client *client, char type)
{
    struct buffer bytes = {0};
    wire_put_simple(&bytes, type);
    answer(client, &bytes);
}

/* ---- errors ---- */

void extended_refuse(struct client *client, const struct pg_error *error)
{
    struct extended *ext = client->extended;
    struct buffer bytes = {0};
    wire_put_error(&bytes, error);
    drop_held(ext);
    ext->state = BATCH_FAILED;
    if (ext->server) {
        /* The server has to fail too, so that it rolls back what the batch has done there: it is
         * asked for a portal that does not exist, and its error is replaced by ours. */
        size_t begin = wire_begin(&ext->out, 'E');
        wire_put_cstring(&ext->out, NO_SUCH_PORTAL);
        wire_put32(&ext->out, 0);
        wire_end(&ext->out, begin);
        server_expect(ext->server, EXPECT_EXECUTE)->answer = bytes;
        flush(ext);
        return;
    }
    if (client->tx)
        client->tx->state = TX_FAILED;
    client->state = CLIENT_BUSY;
    client->request.forwarded = true;
    client_send_buffer(client, &bytes);
    if (!client->processing)
        client_continue(client);
}

/* A server of the batch was lost. */
void extended_fail(struct client *client, const struct pg_error *error)
{
    struct extended *ext = client->extended;
    bool syncing = ext->state == BATCH_SYNCING;
    ext->server = NULL;
    buffer_release(&ext->out);
    drop_held(ext);
    client_error(client, error);
    client->state = CLIENT_BUSY;
    ext->state = BATCH_FAILED;
    if (syncing) {
        free_batch(ext, false);
        session_ready(client);
    } else if (!client->processing) {
        client_continue(client);
    }
}

static void refuse(struct client *client, const char *sqlstate, const char *message)
{
    struct pg_error error = {.sqlstate = sqlstate, .message = message};
    client->stats->refused++;
    extended_refuse(client, &error);
}

void extended_server_error(struct client *client)
{
    if (extended_in_batch(client))
        client->extended->failed = true;
}

/* ---- parsing ahead of the rest ---- */

static bool is_named(const char *name)
{
    return name[0] != '\0';
}

static void send_parse(struct client *client, struct prepared *prepared, bool named,
                       const char *defines, bool swallow)
{
    struct extended *ext = client->extended;
    wire_put_parse(&ext->out, named ? prepared->server_name : "", prepared->sql, prepared->types,
                   prepared->ntypes);
    struct expect *expect = server_expect(ext->server, EXPECT_PARSE);
    expect->prepared = prepared_ref(prepared);
    expect->unnamed = !named;
    expect->swallow = swallow;
    expect->defines = defines ? mem_strdup(defines) : NULL;
    (void)client;
}

/* Answers the Parses that waited: from what the server knows, or by asking it. */
static void release_held(struct client *client)
{
    struct extended *ext = client->extended;
    struct held_parse *held = ext->held;
    int count = ext->nheld;
    ext->held = NULL;
    ext->nheld = 0;
    for (int i = 0; i < count; i++) {
        bool named = is_named(held[i].name);
        if (named && server_has_prepared(ext->server, held[i].prepared))
            answer_simple(client, '1');
        else
            send_parse(client, held[i].prepared, named, held[i].name, false);
        free(held[i].name);
        prepared_unref(ext->names.table, held[i].prepared);
    }
    free(held);
}

static bool same_key(const struct prepared_key *a, const struct prepared_key *b)
{
    return a->low == b->low && a->high == b->high;
}

/* Whether a Parse of it is among those sent in this batch and not answered yet. */
static bool parse_under_way(const struct server *server, const struct prepared *prepared, bool named,
                            bool *other_unnamed)
{
    bool found = false;
    for (int i = 0; i < server->expect_count; i++) {
        const struct expect *expect =
            &server->expects[(server->expect_head + i) & (server->expect_cap - 1)];
        if (expect->kind != EXPECT_PARSE || expect->unnamed == named)
            continue;
        if (!named)
            *other_unnamed = found = false;
        if (same_key(&expect->prepared->key, &prepared->key))
            found = true;
        else
            *other_unnamed = true;
    }
    return found;
}

/* Makes sure that the server has the statement by the time it reads what follows. */
static void ensure_prepared(struct client *client, struct prepared *prepared, bool named)
{
    struct server *server = client->extended->server;
    bool other = false;
    if (parse_under_way(server, prepared, named, &other))
        return;
    if (named ? server_has_prepared(server, prepared)
              : !other && same_key(&server->unnamed, &prepared->key))
        return;
    send_parse(client, prepared, named, NULL, true);
}

/* ---- choosing the server ---- */

enum reach { REACH_READY, REACH_WAIT, REACH_FAILED };

/* All answers awaited from the batch's server must come before what follows: it is synced. */
static void settle(struct client *client)
{
    struct extended *ext = client->extended;
    wire_put_simple(&ext->out, 'S');
    server_expect(ext->server, EXPECT_SYNC)->swallow = true;
    flush(ext);
    ext->state = BATCH_SETTLING;
}

static bool leaves_writes_behind(const struct client *client)
{
    return client->extended->executed_write && !client->tx;
}

static enum reach refuse_two_shards(struct client *client)
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
static enum reach reach_server(struct client *client, unsigned shard, enum node_class class)
{
    struct extended *ext = client->extended;
    if (ext->server) {
        bool replica = atomic_load(&ext->server->pool->node->role) == NODE_ROLE_REPLICA;
        bool misplaced = replica && class == NODE_CLASS_PRIMARY && !client->tx;
        if (ext->server->shard == shard && !misplaced)
            return REACH_READY;
        if (leaves_writes_behind(client))
            return refuse_two_shards(client);
        settle(client);
        return REACH_WAIT;
    }
    enum attach attached = attach_shard(client, shard, class);
    if (attached != ATTACH_READY)
        return attached == ATTACH_WAITING ? REACH_WAIT : REACH_FAILED;
    ext->server = client_participant(client, shard);
    attach_prefix(client, ext->server, &ext->out);
    client->stats->direct++;
    release_held(client);
    return REACH_READY;
}

/* True if the batch ends behind this one statement, as far as can be seen: then it may run on a
 * replica. A later write in the same batch must find itself on the primary. */
static bool is_last_statement(const char *data, size_t len)
{
    while (len >= WIRE_HEADER) {
        size_t size = 1 + (size_t)wire_get32(data + 1);
        if (data[0] == 'S')
            return true;
        if (data[0] != 'D' && data[0] != 'E' && data[0] != 'C' && data[0] != 'H')
            return false;
        if (size > len)
            return false;
        data += size;
        len -= size;
    }
    return false;
}

/* ---- messages ---- */

/* One message being worked on. */
struct incoming {
    char type;
    const char *body;
    size_t len;
    const char *rest; /* what follows it in the input */
    size_t rest_len;
};

static bool is_session_statement(const struct prepared *prepared)
{
    if (prepared->statements.count != 1)
        return false;
    const struct statement *statement = prepared->statements.items[0];
    switch ((int)statement->kind) {
    case STMT_BEGIN:
    case STMT_COMMIT:
    case STMT_ROLLBACK:
    case STMT_SAVEPOINT:
    case STMT_RELEASE:
    case STMT_ROLLBACK_TO:
    case STMT_DEALLOCATE:
        return true;
    case STMT_SET:
    case STMT_RESET:
    case STMT_SHOW:
        return statement->name && strncmp(statement->name, "pgshunt.", 8) == 0;
    default:
        return false;
    }
}

static void hold_parse(struct client *client, const char *name, struct prepared *prepared)
{
    struct extended *ext = client->extended;
    ext->held = mem_realloc(ext->held, sizeof *ext->held * (size_t)(ext->nheld + 1));
    ext->held[ext->nheld++] = (struct held_parse){mem_strdup(name), prepared_ref(prepared)};
}

static void define(struct extended *ext, const char *name, struct prepared *prepared)
{
    names_define(&ext->names, name, prepared_ref(prepared));
    ext->defined = mem_realloc(ext->defined, sizeof *ext->defined * (size_t)(ext->ndefined + 1));
    ext->defined[ext->ndefined++] = mem_strdup(name);
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
    *prepared = prepared_get(&client->worker->prepared, sql, types, count);
    return true;
}

static void malformed(struct client *client)
{
    client_fatal(client, "08P01", "malformed extended-protocol message", NULL);
}

static bool parse_message(struct client *client, const struct incoming *message)
{
    struct extended *ext = client->extended;
    struct prepared *prepared;
    const char *name;
    if (!read_parse(client, message, &name, &prepared)) {
        malformed(client);
        return true;
    }
    client->stats->client_parses++;
    if (is_named(name) && names_statement(&ext->names, name)) {
        refuse(client, "42P05",
               arena_printf(client->request.arena, "prepared statement \"%s\" already exists", name));
    } else {
        define(ext, name, prepared);
        if (is_session_statement(prepared))
            answer_simple(client, '1');
        else
            hold_parse(client, name, prepared);
        if (ext->server)
            release_held(client);
    }
    prepared_unref(&client->worker->prepared, prepared);
    return true;
}

static struct prepared *find_statement(struct client *client, const char *name)
{
    struct prepared *prepared = names_statement(&client->extended->names, name);
    if (!prepared)
        refuse(client, "26000",
               arena_printf(client->request.arena,
                            is_named(name) ? "prepared statement \"%s\" does not exist"
                                           : "unnamed prepared statement does not exist%s",
                            name));
    return prepared;
}

/* The Bind's parameter values, for the router. */
static bool read_params(struct client *client, const struct prepared *prepared,
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

static void plan_statement(struct client *client, const struct prepared *prepared,
                           const struct params *params, struct plan *plan)
{
    struct request *request = &client->request;
    if (prepared->statements.count == 1)
        attach_route(client, prepared->statements.items[0], params, request->arena, plan);
    else if (prepared->statements.count > 1)
        attach_route_list(client, &prepared->statements, request->arena, plan);
    else
        *plan = (struct plan){.kind = PLAN_DIRECT, .any_shard = true, .node = NODE_CLASS_REPLICA};
    request->planned = true;
}

/* The Bind with the server's name of the statement instead of the client's. */
static void put_bind(struct buffer *out, const struct wire_bind *bind, const char *statement,
                     const struct incoming *message)
{
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
    buffer_append(&portal->bind, message->body, message->len);
}

/* Answers the Parses that no server was needed for yet, without asking one. */
static void accept_held(struct client *client)
{
    for (int i = 0; i < client->extended->nheld; i++)
        answer_simple(client, '1');
    drop_held(client->extended);
}

/* A statement bound for one server. False: try again later. */
static bool bind_direct(struct client *client, const struct incoming *message,
                        const struct wire_bind *bind, struct prepared *prepared,
                        const struct plan *plan)
{
    struct extended *ext = client->extended;
    bool named = is_named(bind->statement);
    enum node_class class = plan->node;
    if (class == NODE_CLASS_REPLICA && !ext->server && !client->tx &&
        !is_last_statement(message->rest, message->rest_len))
        class = NODE_CLASS_PRIMARY;
    enum reach reached = reach_server(client, plan->shard, class);
    if (reached != REACH_READY)
        return reached == REACH_FAILED;
    client->request.retriable = class == NODE_CLASS_REPLICA && !client->tx && !ext->server->pinned;
    ensure_prepared(client, prepared, named);
    put_bind(&ext->out, bind, named ? prepared->server_name : "", message);
    server_expect(ext->server, EXPECT_BIND);
    struct portal *portal = names_open(&ext->names, bind->portal, PORTAL_SERVER, prepared);
    portal->shard = plan->shard;
    portal->write = plan->write;
    statement_explain_rows(client, prepared->statements.count ? prepared->statements.items[0] : NULL,
                           plan, &client->request.explain);
    return true;
}

static bool refuse_failed_transaction(struct client *client, const struct prepared *prepared)
{
    struct buffer none = {0};
    struct pg_error error;
    if (prepared->statements.count != 1 || !client->tx || client->tx->state != TX_FAILED ||
        statement_local(client, prepared->statements.items[0], &none, &error) != LOCAL_REFUSED)
        return false;
    extended_refuse(client, &error);
    return true;
}

static bool bind_message(struct client *client, const struct incoming *message)
{
    struct wire_bind bind;
    struct params params;
    struct plan *plan = &client->request.plan;
    if (!wire_read_bind(message->body, message->len, &bind)) {
        malformed(client);
        return true;
    }
    client->stats->binds++;
    struct prepared *prepared = find_statement(client, bind.statement);
    if (!prepared || refuse_failed_transaction(client, prepared))
        return true;
    if (is_session_statement(prepared)) {
        names_open(&client->extended->names, bind.portal, PORTAL_LOCAL, prepared);
        answer_simple(client, '2');
        return true;
    }
    if (!read_params(client, prepared, &bind, &params)) {
        malformed(client);
        return true;
    }
    plan_statement(client, prepared, &params, plan);
    switch (plan->kind) {
    case PLAN_REFUSE:
        client->stats->refused++;
        extended_refuse(client, &plan->error);
        return true;
    case PLAN_SCATTER:
        accept_held(client);
        keep_scatter(client, message, &bind, prepared, plan);
        answer_simple(client, '2');
        return true;
    case PLAN_DIRECT:
        return bind_direct(client, message, &bind, prepared, plan);
    }
    return true;
}

/* ---- Describe ---- */

static void describe_session_statement(struct client *client, const struct prepared *prepared,
                                       bool statement)
{
    struct buffer bytes = {0};
    const struct statement *own = prepared->statements.items[0];
    if (statement) {
        size_t begin = wire_begin(&bytes, 't');
        wire_put16(&bytes, 0);
        wire_end(&bytes, begin);
    }
    if (own->kind == STMT_SHOW) {
        struct wire_column column = {own->name, 25};
        wire_put_row_description(&bytes, &column, 1);
    } else {
        wire_put_simple(&bytes, 'n');
    }
    answer(client, &bytes);
}

/* Any shard can describe a statement: it is asked with the original text. */
static bool reach_for_description(struct client *client, struct prepared *prepared,
                                  enum reach *reached)
{
    struct plan *plan = &client->request.plan;
    if (client->extended->server) {
        *reached = REACH_READY;
        return true;
    }
    plan_statement(client, prepared, NULL, plan);
    unsigned shard = plan->kind == PLAN_DIRECT ? plan->shard : 0;
    if (plan->kind != PLAN_DIRECT && client->nparticipants)
        shard = client->participants[0]->shard;
    *reached = reach_server(client, shard, client->tx ? plan->node : NODE_CLASS_REPLICA);
    return *reached != REACH_WAIT;
}

static bool describe_statement(struct client *client, const char *name)
{
    struct extended *ext = client->extended;
    struct prepared *prepared = find_statement(client, name);
    enum reach reached;
    if (!prepared || refuse_failed_transaction(client, prepared))
        return true;
    if (is_session_statement(prepared)) {
        describe_session_statement(client, prepared, true);
        return true;
    }
    if (!reach_for_description(client, prepared, &reached))
        return false;
    if (reached == REACH_FAILED)
        return true;
    ensure_prepared(client, prepared, is_named(name));
    wire_put_describe(&ext->out, 'S', is_named(name) ? prepared->server_name : "");
    server_expect(ext->server, EXPECT_DESCRIBE);
    return true;
}

static struct portal *find_portal(struct client *client, const char *name)
{
    struct portal *portal = names_portal(&client->extended->names, name);
    if (!portal)
        refuse(client, "34000",
               arena_printf(client->request.arena, "portal \"%s\" does not exist", name));
    return portal;
}

static bool describe_portal(struct client *client, const char *name)
{
    struct extended *ext = client->extended;
    struct portal *portal = find_portal(client, name);
    if (!portal)
        return true;
    switch (portal->kind) {
    case PORTAL_LOCAL:
        describe_session_statement(client, portal->prepared, false);
        return true;
    case PORTAL_SCATTER:
        portal->describe = true;
        return true;
    case PORTAL_SERVER:
        break;
    }
    enum reach reached = reach_server(client, portal->shard, NODE_CLASS_REPLICA);
    if (reached != REACH_READY)
        return reached == REACH_FAILED;
    wire_put_describe(&ext->out, 'P', name);
    server_expect(ext->server, EXPECT_DESCRIBE);
    return true;
}

static bool describe_message(struct client *client, const struct incoming *message)
{
    struct wire_reader reader = wire_reader(message->body, message->len);
    int kind = wire_read8(&reader);
    const char *name = wire_read_cstring(&reader);
    if (reader.bad || (kind != 'S' && kind != 'P')) {
        malformed(client);
        return true;
    }
    return kind == 'S' ? describe_statement(client, name) : describe_portal(client, name);
}

/* ---- Execute ---- */

static void send_execute(struct client *client, const char *portal, int32_t max_rows,
                         struct prepared *prepared, bool write)
{
    struct extended *ext = client->extended;
    size_t begin = wire_begin(&ext->out, 'E');
    wire_put_cstring(&ext->out, portal);
    wire_put32(&ext->out, max_rows);
    wire_end(&ext->out, begin);
    struct expect *expect = server_expect(ext->server, EXPECT_EXECUTE);
    expect->prepared = prepared_ref(prepared);
    expect->list = &expect->prepared->statements;
    expect->write = write;
    ext->executed_write |= write;
}

/* Runs a fan-out: first everything before it has to be answered. */
static bool start_scatter(struct client *client, struct scatter_ask *ask)
{
    struct extended *ext = client->extended;
    if (ext->server) {
        if (leaves_writes_behind(client)) {
            refuse_two_shards(client);
            return true;
        }
        settle(client);
        return false;
    }
    client->request.next_participant = 0;
    enum attach attached = attach_all(client, &client->request.plan);
    if (attached != ATTACH_READY)
        return attached == ATTACH_FAILED;
    client->request.retriable = client->request.plan.node == NODE_CLASS_REPLICA && !client->tx &&
                                buffer_length(&client->request.again) > 0;
    ext->state = BATCH_SCATTER;
    scatter_start(client, ask);
    return true;
}

static bool execute_scatter(struct client *client, struct portal *portal, int32_t max_rows)
{
    struct wire_bind bind;
    struct params params;
    struct plan *plan = &client->request.plan;
    if (max_rows > 0) {
        struct pg_error error = {
            .sqlstate = "0A000",
            .message = "fetching a result of several shards in parts is not supported yet",
            .hint = "Leave the fetch size at 0, or use LIMIT and OFFSET."};
        client->stats->refused++;
        extended_refuse(client, &error);
        return true;
    }
    if (!wire_read_bind(buffer_head(&portal->bind), buffer_length(&portal->bind), &bind) ||
        !read_params(client, portal->prepared, &bind, &params)) {
        malformed(client);
        return true;
    }
    plan_statement(client, portal->prepared, &params, plan);
    if (plan->kind != PLAN_SCATTER) { /* the map has changed since the Bind */
        refuse(client, "55000", "the shard map changed between Bind and Execute");
        return true;
    }
    struct scatter_ask ask = {.statement = portal->prepared->statements.items[0],
                              .describe = portal->describe,
                              .silent = true,
                              .params = arena_new(client->request.arena, struct params),
                              .prepared = portal->prepared,
                              .result_formats = bind.results,
                              .result_formats_len = bind.results_len};
    *(struct params *)ask.params = params;
    return start_scatter(client, &ask);
}

/* A transaction statement that a server has to carry out. */
static bool execute_on_server(struct client *client, struct prepared *prepared)
{
    struct extended *ext = client->extended;
    struct request *request = &client->request;
    if (statement_broadcast(client, prepared->statements.items[0], request->arena, &request->plan)) {
        struct scatter_ask ask = {.statement = prepared->statements.items[0], .silent = true};
        return start_scatter(client, &ask);
    }
    unsigned shard = client->nparticipants ? client->participants[0]->shard : 0;
    for (int i = 0; i < client->nparticipants; i++)
        if (client->participants[i]->begun)
            shard = client->participants[i]->shard;
    enum reach reached = reach_server(client, shard, NODE_CLASS_PRIMARY);
    if (reached != REACH_READY)
        return reached == REACH_FAILED;
    ensure_prepared(client, prepared, true);
    size_t begin = wire_begin(&ext->out, 'B');
    wire_put_cstring(&ext->out, "");
    wire_put_cstring(&ext->out, prepared->server_name);
    wire_put16(&ext->out, 0);
    wire_put16(&ext->out, 0);
    wire_put16(&ext->out, 0);
    wire_end(&ext->out, begin);
    server_expect(ext->server, EXPECT_BIND)->swallow = true;
    send_execute(client, "", 0, prepared, false);
    return true;
}

/* Cuts the RowDescription off an answer: Describe has given it. */
static void drop_description(struct buffer *bytes)
{
    if (buffer_length(bytes) > WIRE_HEADER && buffer_head(bytes)[0] == 'T')
        buffer_consume(bytes, 1 + wire_get32(buffer_head(bytes) + 1));
}

static bool execute_local(struct client *client, struct portal *portal)
{
    struct buffer bytes = {0};
    struct pg_error error;
    if (client->extended->server && !client->tx &&
        portal->prepared->statements.items[0]->kind == STMT_BEGIN) {
        /* A BEGIN behind other statements of the batch: their implicit transaction ends first. */
        settle(client);
        return false;
    }
    switch (statement_local(client, portal->prepared->statements.items[0], &bytes, &error)) {
    case LOCAL_DONE:
        drop_description(&bytes);
        answer(client, &bytes);
        return true;
    case LOCAL_REFUSED:
        extended_refuse(client, &error);
        return true;
    case LOCAL_NO:
        break;
    }
    return execute_on_server(client, portal->prepared);
}

static bool execute_message(struct client *client, const struct incoming *message)
{
    struct wire_reader reader = wire_reader(message->body, message->len);
    const char *name = wire_read_cstring(&reader);
    int32_t max_rows = wire_read32(&reader);
    if (reader.bad) {
        malformed(client);
        return true;
    }
    struct portal *portal = find_portal(client, name);
    if (!portal)
        return true;
    switch (portal->kind) {
    case PORTAL_LOCAL:
        return execute_local(client, portal);
    case PORTAL_SCATTER:
        return execute_scatter(client, portal, max_rows);
    case PORTAL_SERVER:
        break;
    }
    enum reach reached = reach_server(client, portal->shard, NODE_CLASS_REPLICA);
    if (reached != REACH_READY)
        return reached == REACH_FAILED;
    send_execute(client, name, max_rows, portal->prepared, portal->write);
    return true;
}

/* ---- Close, Flush, Sync ---- */

static bool close_message(struct client *client, const struct incoming *message)
{
    struct extended *ext = client->extended;
    struct wire_reader reader = wire_reader(message->body, message->len);
    int kind = wire_read8(&reader);
    const char *name = wire_read_cstring(&reader);
    if (reader.bad || (kind != 'S' && kind != 'P')) {
        malformed(client);
        return true;
    }
    if (kind == 'S') {
        /* Servers keep the statement: others may use it. */
        names_undefine(&ext->names, name);
        answer_simple(client, '3');
        return true;
    }
    struct portal *portal = names_portal(&ext->names, name);
    if (!portal || portal->kind != PORTAL_SERVER || !client_participant(client, portal->shard)) {
        names_close(&ext->names, name);
        answer_simple(client, '3');
        return true;
    }
    enum reach reached = reach_server(client, portal->shard, NODE_CLASS_REPLICA);
    if (reached != REACH_READY)
        return reached == REACH_FAILED;
    names_close(&ext->names, name);
    wire_put_close(&ext->out, 'P', name);
    server_expect(ext->server, EXPECT_CLOSE);
    return true;
}

/* Parses that nothing followed need a server's judgement. */
static bool judge_held(struct client *client)
{
    enum reach reached;
    if (!client->extended->nheld)
        return true;
    return reach_for_description(client, client->extended->held[0].prepared, &reached);
}

static bool flush_message(struct client *client)
{
    struct extended *ext = client->extended;
    if (!judge_held(client))
        return false;
    if (ext->server && ext->state == BATCH_OPEN) {
        wire_put_simple(&ext->out, 'H');
        flush(ext);
    }
    return true;
}

static void end_batch(struct client *client)
{
    struct extended *ext = client->extended;
    if (!client->tx)
        names_close_all(&ext->names);
    free_batch(ext, false);
}

static bool sync_message(struct client *client)
{
    struct extended *ext = client->extended;
    if (ext->state == BATCH_OPEN && !judge_held(client))
        return false;
    if (ext->server) {
        wire_put_simple(&ext->out, 'S');
        server_expect(ext->server, EXPECT_SYNC);
        flush(ext);
        ext->state = BATCH_SYNCING;
        return true;
    }
    end_batch(client);
    session_ready(client);
    return true;
}

/* ---- the batch ---- */

static bool handle(struct client *client, const struct incoming *message)
{
    struct extended *ext = client->extended;
    if (ext->state == BATCH_FAILED && message->type != 'S')
        return true;
    switch (message->type) {
    case 'P':
        return parse_message(client, message);
    case 'B':
        return bind_message(client, message);
    case 'D':
        return describe_message(client, message);
    case 'E':
        return execute_message(client, message);
    case 'C':
        return close_message(client, message);
    case 'H':
        return flush_message(client);
    case 'S':
        return sync_message(client);
    default:
        client_fatal(client, "0A000", "function call messages are not supported yet",
                     "Call the function with SELECT.");
        return true;
    }
}

static bool accepts_messages(const struct client *client)
{
    enum batch_state state = client->extended->state;
    return state == BATCH_OPEN || state == BATCH_FAILED;
}

static void open_batch(struct client *client)
{
    session_begin_request(client);
    if (client->state == CLIENT_BUSY)
        client->extended->state = BATCH_OPEN;
}

/* The bytes of a batch that may have to be repeated elsewhere are kept. */
static void keep_for_retry(struct client *client, const char *data, size_t len)
{
    struct request *request = &client->request;
    bool worth_it = !client->tx && (!client->extended->server || request->retriable);
    if (worth_it && request->arena && buffer_length(&request->again) + len < OUT_MAX)
        buffer_append(&request->again, data, len);
    else
        request->retriable = false;
}

size_t extended_input(struct client *client, const char *data, size_t len)
{
    struct extended *ext = get_extended(client);
    size_t size = 1 + (size_t)wire_get32(data + 1);
    if (len < size)
        return 0;
    if (ext->state == BATCH_CLOSED) {
        if (client->state != CLIENT_IDLE)
            return 0;
        open_batch(client);
    }
    if (!accepts_messages(client) || client->state != CLIENT_BUSY)
        return 0;
    struct incoming message = {data[0], data + WIRE_HEADER, size - WIRE_HEADER, data + size,
                               len - size};
    size_t kept = buffer_length(&client->request.again);
    keep_for_retry(client, data, size);
    bool used = handle(client, &message);
    if (!used && client->state != CLIENT_CLOSED && client->request.again.end > kept)
        client->request.again.end = client->request.again.start + kept; /* it will come again */
    if (client->extended && buffer_length(&ext->out) > OUT_MAX)
        flush(ext);
    return used ? size : 0;
}

void extended_continue(struct client *client)
{
    session_resume(client);
}

void extended_copy_in(struct client *client, struct server *server)
{
    struct extended *ext = client->extended;
    while (server->expect_count > 1) {
        int last = (server->expect_head + --server->expect_count) & (server->expect_cap - 1);
        struct expect *expect = &server->expects[last];
        prepared_unref(&client->worker->prepared, expect->prepared);
        free((char *)expect->defines);
        buffer_release(&expect->answer);
    }
    if (ext->state == BATCH_SYNCING)
        ext->state = BATCH_OPEN;
}

/* After settling: the server is free to stay (in a transaction) or to go. */
static void settled(struct client *client)
{
    struct extended *ext = client->extended;
    struct server *server = ext->server;
    ext->server = NULL;
    ext->executed_write = false;
    ext->state = ext->failed ? BATCH_FAILED : BATCH_OPEN;
    if (!client->tx && !server->pinned) {
        client_detach(client, server);
        pool_checkin(server);
    }
    client->request.retriable = false;
    if (!client->processing)
        client_continue(client);
}

void extended_synced(struct client *client)
{
    if (client->extended->state == BATCH_SETTLING) {
        settled(client);
        return;
    }
    if (client->extended->state != BATCH_SYNCING)
        return;
    end_batch(client);
    session_end_request(client);
}

void extended_scatter_done(struct client *client, bool failed)
{
    client->extended->state = failed ? BATCH_FAILED : BATCH_OPEN;
    client->request.next_participant = 0;
    if (!client->processing)
        client_continue(client);
}
