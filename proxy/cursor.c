/*
 * cursor.c: a result of several shards taken in parts.
 *
 *   OPENING --described--> PARKED --Execute, FETCH--> FETCHING --the part is out--> PARKED ... --> dead
 *                                                      |   ^
 *                          the merge starves for rows  v   | they are here
 *                                                     (shards asked)
 *
 * While it is at work client->scatter leads to it, as to any fan-out; when it is parked nothing does but
 * its transaction, and no answer of a server is awaited.
 */
#include "proxy/cursor.h"

#include <stdlib.h>
#include <string.h>

#include "pgshunt/arena.h"
#include "pgshunt/merge.h"
#include "pgshunt/wire.h"
#include "proxy/extended.h"
#include "proxy/gather.h"
#include "proxy/keyless.h"
#include "proxy/late_cancel.h"
#include "proxy/reported.h"
#include "proxy/shard_error.h"
#include "proxy/shard_query.h"

#define OUT_MAX 65536
/* Rows asked for in one go, of one shard; of wide rows fewer, so that it is about CHUNK_BYTES. */
#define CHUNK_MIN 100
#define CHUNK_MAX 10000
#define CHUNK_BYTES 1048576
#define ALL_ROWS (-1)

enum cursor_op { OP_DECLARE, OP_EXECUTE, OP_FETCH, OP_MOVE, OP_CLOSE };

struct part {
    unsigned shard;
    const char *shard_name;
    bool open;      /* the server has its portal */
    bool done;      /* all its rows have come */
    bool awaited;   /* a ReadyForQuery is to come */
    bool cancelled; /* asked to stop: its error is ours and means nothing */
    int skip;       /* CommandCompletes to come that are not the portal's */
    int64_t rows, bytes;
};

/* What it is doing; all zero while it is parked. */
struct run {
    enum cursor_op op;
    bool silent, describe;
    bool ended;  /* there are no more rows */
    bool partly; /* some of it has gone out */
    size_t from; /* where in `out` its own answer begins */
    bool failed;
    int awaited;
    int64_t wanted; /* ALL_ROWS, or as many */
    int64_t sent;
    struct buffer out;
    struct pg_error error;
};

struct cursor {
    struct cursor *next;
    struct client *client;
    uint32_t id;
    const char *name;        /* the client's, of the cursor or the portal */
    const char *server_name; /* of the portals on the servers */
    bool sql;                /* made by DECLARE */
    bool binary;
    bool dead; /* nothing can be had of it any more */
    int depth; /* savepoints there were when it was made */
    bool write;
    const struct statement *completes; /* while it is opened: what its first answer completes */
    char *verb;                        /* of the shards' tags: SELECT, INSERT 0, ... */
    struct merge_spec spec;
    struct merge *merge;
    struct buffer description; /* its RowDescription */
    struct arena arena;
    struct run run;
    int nparts;
    struct part parts[];
};

struct cursors {
    struct cursor *first;
    uint32_t made;
};

/* ---- life ---- */

static void *copy_array(struct arena *arena, const void *items, size_t size, int count)
{
    if (!items || count <= 0)
        return NULL;
    void *copy = arena_alloc(arena, size * (size_t)count);
    memcpy(copy, items, size * (size_t)count);
    return copy;
}

/* It has to outlive the plan, which goes with its request. */
static void copy_spec(struct arena *arena, const struct merge_spec *from, struct merge_spec *to)
{
    *to = *from;
    to->sort = copy_array(arena, from->sort, sizeof *from->sort, from->nsort);
    to->sort_names = copy_array(arena, from->sort_names, sizeof *from->sort_names, from->nsort);
    for (int i = 0; to->sort_names && i < from->nsort; i++)
        if (from->sort_names[i])
            to->sort_names[i] = arena_strdup(arena, from->sort_names[i]);
    to->columns = copy_array(arena, from->columns, sizeof *from->columns, from->ncolumns);
    to->group_keys =
        copy_array(arena, from->group_keys, sizeof *from->group_keys, from->ngroup_keys);
    to->row_source = copy_array(arena, from->row_source, sizeof *from->row_source, from->nrows);
    if (from->collate)
        to->collate = arena_strdup(arena, from->collate);
}

static struct cursor *new_cursor(struct client *client, const char *name, bool sql)
{
    const struct plan *plan = &client->request.plan;
    static const struct merge_spec as_it_comes = {.visible = -1, .limit = -1};
    struct transaction *tx = client->tx;
    int nparts = plan->gather ? 1 : plan->nqueries;
    struct cursor *c = mem_alloc(sizeof *c + sizeof(struct part) * (size_t)nparts);
    if (!tx->cursors)
        tx->cursors = mem_alloc(sizeof *tx->cursors);
    arena_init(&c->arena);
    c->client = client;
    c->id = ++tx->cursors->made;
    c->name = arena_strdup(&c->arena, name);
    c->server_name = arena_printf(&c->arena, "pgshunt_p%u", c->id);
    c->sql = sql;
    c->depth = tx->nsavepoints;
    c->write = plan->write;
    copy_spec(&c->arena, plan->gather ? &as_it_comes : plan->merge, &c->spec);
    c->merge = merge_new(&c->spec, nparts, client->topology->config->max_groups);
    merge_want_description(c->merge, true);
    c->nparts = nparts;
    for (int i = 0; i < c->nparts; i++) {
        unsigned shard = plan->gather ? plan->shard : plan->queries[i].shard;
        c->parts[i].shard = shard;
        c->parts[i].shard_name = arena_strdup(&c->arena, client->database->shards[shard].name);
    }
    c->next = tx->cursors->first;
    tx->cursors->first = c;
    return c;
}

static void drop_rows(struct cursor *c)
{
    merge_free(c->merge);
    c->merge = NULL;
    c->dead = true;
}

static void free_cursor(struct cursor *c)
{
    merge_free(c->merge);
    buffer_release(&c->description);
    buffer_release(&c->run.out);
    free(c->verb);
    arena_free(&c->arena);
    free(c);
}

void cursors_free(struct cursors *cursors)
{
    if (!cursors)
        return;
    while (cursors->first) {
        struct cursor *c = cursors->first;
        cursors->first = c->next;
        free_cursor(c);
    }
    free(cursors);
}

void cursors_rollback_to(struct cursors *cursors, int savepoint)
{
    for (struct cursor *c = cursors ? cursors->first : NULL; c; c = c->next) {
        if (c->depth <= savepoint)
            continue;
        drop_rows(c); /* the servers have dropped their portals */
        for (int i = 0; i < c->nparts; i++)
            c->parts[i].open = false;
    }
}

void cursors_release(struct cursors *cursors, int savepoint)
{
    for (struct cursor *c = cursors ? cursors->first : NULL; c; c = c->next)
        if (c->depth > savepoint)
            c->depth = savepoint;
}

/* The client has closed its portal, or bound the name anew. */
static bool is_orphan(const struct cursor *c)
{
    if (c->sql || !c->client->extended)
        return false;
    const struct portal *portal = names_portal(&c->client->extended->names, c->name);
    return !portal || portal->cursor != c->id;
}

static bool has_open_part(const struct cursor *c)
{
    for (int i = 0; i < c->nparts; i++)
        if (c->parts[i].open)
            return true;
    return false;
}

/* Portals of cursors that are gone are closed on the way. */
static void close_dead(struct cursors *cursors, unsigned shard, struct buffer *out)
{
    for (struct cursor *c = cursors->first; c; c = c->next) {
        if (!c->dead && is_orphan(c))
            drop_rows(c);
        for (int i = 0; c->dead && i < c->nparts; i++) {
            struct part *part = &c->parts[i];
            if (part->shard == shard && part->open)
                wire_put_close(out, 'P', c->server_name);
            part->open &= part->shard != shard;
        }
    }
}

/* A portal's is kept while its name stands: it tells that the rows cannot be had again. */
static void forget_dead(struct cursors *cursors)
{
    struct cursor **at = &cursors->first;
    while (*at) {
        struct cursor *c = *at;
        if (c->dead && !has_open_part(c) && (c->sql || is_orphan(c))) {
            *at = c->next;
            free_cursor(c);
        } else {
            at = &c->next;
        }
    }
}

/* ---- failing ---- */

static void stop_others(struct cursor *c)
{
    for (int i = 0; i < c->nparts; i++) {
        struct part *part = &c->parts[i];
        struct server *server = client_participant(c->client, part->shard);
        if (!part->awaited || part->cancelled || !server)
            continue;
        part->cancelled = true;
        late_cancel_send(server);
    }
}

static void fail(struct cursor *c, const struct pg_error *error, const char *shard_name)
{
    struct run *run = &c->run;
    if (run->failed)
        return;
    run->failed = true;
    run->error = shard_error_keep(&c->arena, error, shard_name);
    run->error.position = 0; /* it points into another text */
    stop_others(c);
}

/* ---- asking the shards ---- */

static int32_t chunk(const struct cursor *c, const struct part *part)
{
    const struct run *run = &c->run;
    int64_t rows = run->wanted == ALL_ROWS ? CHUNK_MAX : run->wanted - run->sent;
    if (rows < CHUNK_MIN && c->nparts > 1) /* of one server no row is asked for too early */
        rows = CHUNK_MIN;
    if (rows > CHUNK_MAX)
        rows = CHUNK_MAX;
    int64_t fitting = part->rows ? CHUNK_BYTES / (part->bytes / part->rows + 1) : CHUNK_MIN;
    if (rows > fitting)
        rows = fitting;
    return rows > 0 ? (int32_t)rows : 1;
}

static void put_execute(const struct cursor *c, const struct part *part, struct buffer *out)
{
    size_t begin = wire_begin(out, 'E');
    wire_put_cstring(out, c->server_name);
    wire_put32(out, chunk(c, part));
    wire_end(out, begin);
}

/* `more` goes to the part's server, behind what has to go ahead of it. */
static void send_part(struct cursor *c, struct part *part, struct server *server,
                      const struct buffer *more)
{
    struct buffer out = {0};
    attach_prefix(c->client, server, &out);
    buffer_append(&out, buffer_head(more), buffer_length(more));
    wire_put_simple(&out, 'S');
    server_expect(server, EXPECT_QUERY);
    server->request_at = c->client->request.started_at;
    part->awaited = true;
    c->run.awaited++;
    conn_send(&server->conn, buffer_head(&out), buffer_length(&out));
    buffer_release(&out);
}

static void fail_lost(struct cursor *c, const struct part *part, const char *reason)
{
    struct pg_error error = {.sqlstate = "08006",
                             .message =
                                 arena_printf(&c->arena, "lost the connection to shard %s: %s",
                                              part->shard_name, reason),
                             .hint = "Roll back, and run the transaction again."};
    fail(c, &error, NULL);
}

static void open_parts(struct cursor *c, const struct scatter_ask *ask)
{
    const struct plan *plan = &c->client->request.plan;
    enum shard_formats formats = c->binary ? SHARD_BINARY : SHARD_AS_ASKED;
    for (int i = 0; i < c->nparts; i++) {
        struct part *part = &c->parts[i];
        struct server *server = client_participant(c->client, part->shard);
        struct buffer more = {0};
        close_dead(c->client->tx->cursors, part->shard, &more);
        shard_query_put_portal(ask, &plan->queries[i], formats, c->spec.hidden, c->server_name,
                               &more);
        if (c->run.op != OP_DECLARE)
            put_execute(c, part, &more);
        part->open = true;
        server->unnamed = (struct prepared_key){0};
        send_part(c, part, server, &more);
        buffer_release(&more);
    }
}

static void open_gathered(struct cursor *c, const struct scatter_ask *ask)
{
    struct part *part = &c->parts[0];
    struct server *server = client_participant(c->client, part->shard);
    struct buffer more = {0};
    close_dead(c->client->tx->cursors, part->shard, &more);
    shard_query_put_portal(ask, &c->client->request.plan.gather->query,
                           c->binary ? SHARD_BINARY : SHARD_AS_ASKED, 0, c->server_name, &more);
    part->skip = gather_put_renaming(c->client->request.plan.gather, c->id, server->guarded, &more);
    if (c->run.op != OP_DECLARE)
        put_execute(c, part, &more);
    part->open = true;
    server->unnamed = (struct prepared_key){0};
    send_part(c, part, server, &more);
    buffer_release(&more);
}

/* The rows that the merge cannot go on without. */
static void refill(struct cursor *c)
{
    for (int i = 0; i < c->nparts && !c->run.failed; i++) {
        struct part *part = &c->parts[i];
        struct server *server = client_participant(c->client, part->shard);
        struct buffer more = {0};
        if (part->done || !merge_starves(c->merge, i))
            continue;
        if (!server) {
            fail_lost(c, part, "it is gone");
            return;
        }
        put_execute(c, part, &more);
        send_part(c, part, server, &more);
        buffer_release(&more);
    }
}

/* ---- the answer ---- */

/* The merge writes the description once, ahead of the first row: it is kept. */
static enum merge_status first_step(struct cursor *c, size_t room)
{
    struct buffer rows = {0};
    enum merge_status status = merge_run(c->merge, &rows, room);
    if (buffer_length(&rows) > WIRE_HEADER && buffer_head(&rows)[0] == 'T') {
        size_t size = 1 + (size_t)wire_get32(buffer_head(&rows) + 1);
        buffer_append(&c->description, buffer_head(&rows), size);
        buffer_consume(&rows, size);
        if (c->run.describe)
            cursor_describe(c, &c->run.out);
    }
    buffer_append(&c->run.out, buffer_head(&rows), buffer_length(&rows));
    buffer_release(&rows);
    return status;
}

static enum merge_status step(struct cursor *c)
{
    struct run *run = &c->run;
    size_t room = run->wanted == ALL_ROWS ? OUT_MAX : 1; /* 1: one row */
    int64_t before = merge_rows(c->merge);
    size_t kept = buffer_length(&run->out);
    enum merge_status status =
        buffer_length(&c->description) ? merge_run(c->merge, &run->out, room) : first_step(c, room);
    run->sent += merge_rows(c->merge) - before;
    if (run->op == OP_MOVE)
        run->out.end = run->out.start + kept;
    if (buffer_length(&run->out) >= OUT_MAX) {
        client_answer(c->client, &c->run.out);
        run->partly = true;
    }
    return status;
}

/* Takes rows out of the merge. True: the part is out; false: shards or the client are waited for. */
static bool produce(struct cursor *c)
{
    struct run *run = &c->run;
    while (!run->failed && run->op != OP_CLOSE) {
        bool enough = run->op == OP_DECLARE || (run->wanted >= 0 && run->sent >= run->wanted);
        if (enough && buffer_length(&c->description))
            return true;
        if (conn_queued(&c->client->conn) > OUT_MAX)
            return false;
        enum merge_status status = step(c);
        if (status == MERGE_FAILED) {
            fail(c, merge_error(c->merge), NULL);
        } else if (status == MERGE_DONE) {
            run->ended = run->wanted == ALL_ROWS || run->sent < run->wanted;
            return true;
        } else if (status == MERGE_WAIT) {
            if (run->op == OP_DECLARE || (run->wanted >= 0 && run->sent >= run->wanted))
                return true;
            refill(c);
            if (!run->failed)
                return run->awaited == 0;
        }
    }
    return true;
}

static void put_tag(struct cursor *c)
{
    struct run *run = &c->run;
    const char *word = "FETCH";
    switch (run->op) {
    case OP_DECLARE:
        wire_put_complete(&run->out, "DECLARE CURSOR");
        return;
    case OP_CLOSE:
        if (c->sql && !run->silent)
            wire_put_complete(&run->out, "CLOSE CURSOR");
        return;
    case OP_EXECUTE:
        if (!run->ended) {
            wire_put_simple(&run->out, 's');
            return;
        }
        word = c->verb ? c->verb : "SELECT";
        break;
    case OP_MOVE:
        word = "MOVE";
        break;
    case OP_FETCH:
        break;
    }
    wire_put_complete(&run->out, arena_printf(&c->arena, "%s %lld", word, (long long)run->sent));
}

static void follow_transaction(struct cursor *c)
{
    struct client *client = c->client;
    for (int i = 0; i < c->nparts; i++) {
        struct server *server = client_participant(client, c->parts[i].shard);
        if (server)
            session_saw(client, server);
        else
            session_saw_anything(client);
    }
    client->tx->state = c->run.failed ? TX_FAILED : TX_OPEN;
}

static void note_completion(struct cursor *c)
{
    struct server *server = client_participant(c->client, c->parts[0].shard);
    if (!c->completes || c->run.failed || !server)
        return;
    statement_completed(c->client, server, c->completes, c->verb ? c->verb : "SELECT 1", c->write);
}

/* Describe was answered ahead of the Execute that failed, as far as shards have told. */
static void describe_failed(struct cursor *c)
{
    size_t kept = buffer_length(&c->run.out);
    (void)first_step(c, 1);
    c->run.out.end = c->run.out.start + kept + buffer_length(&c->description);
}

static void finish(struct cursor *c)
{
    struct client *client = c->client;
    struct run *run = &c->run;
    bool failed = run->failed, silent = run->silent;
    if (failed) {
        if (run->describe && !buffer_length(&c->description) && run->op == OP_EXECUTE)
            describe_failed(c);
        if (run->op == OP_FETCH && !run->partly) /* Postgres has all its rows before it gives one */
            wire_drop_rows(&run->out, run->from);
        client->stats->errors++;
        wire_put_error(&run->out, &run->error);
    } else {
        put_tag(c);
    }
    note_completion(c);
    follow_transaction(c);
    struct server *server = client_participant(client, c->parts[0].shard);
    if (server)
        reported_tell(client, server, &run->out);
    client_answer(c->client, &c->run.out);
    if (failed || run->op == OP_CLOSE)
        drop_rows(c);
    scatter_free(client);
    forget_dead(client->tx->cursors);
    if (silent)
        extended_scatter_done(client, failed);
    else
        session_ready(client);
}

static void advance(struct cursor *c)
{
    bool out = !c->run.awaited && produce(c) && !c->run.awaited;
    if (out && !(c->run.failed && late_cancel_is_under_way(c->client)))
        finish(c);
}

void cursor_drained(struct cursor *cursor)
{
    advance(cursor);
}

void cursor_stop(struct cursor *c)
{
    buffer_release(&c->run.out);
    c->run = (struct run){0};
    c->completes = NULL;
}

void cursor_describe(const struct cursor *cursor, struct buffer *out)
{
    buffer_append(out, buffer_head(&cursor->description), buffer_length(&cursor->description));
}

/* ---- messages from the shards ---- */

static struct part *find_part(struct cursor *c, const struct server *server, int *index)
{
    for (int i = 0; i < c->nparts; i++) {
        if (c->parts[i].awaited && client_participant(c->client, c->parts[i].shard) == server) {
            *index = i;
            return &c->parts[i];
        }
    }
    return NULL;
}

static void keep_verb(struct cursor *c, const char *tag, size_t len)
{
    if (c->verb || !len || tag[len - 1])
        return;
    size_t size = strncmp(tag, "INSERT 0", 8) == 0 ? 8 : strcspn(tag, " ");
    c->verb = mem_strdup(tag);
    c->verb[size] = '\0';
}

static void feed(struct cursor *c, struct part *part, int index, char type, const char *body,
                 size_t len)
{
    if (type == 'C' && part->skip) {
        part->skip--;
        return;
    }
    if (type == 'D') {
        part->rows++;
        part->bytes += (int64_t)len;
    }
    if (type == 'C') {
        part->done = true;
        keep_verb(c, body, len);
        len = 0;
    }
    if (!c->run.failed && c->run.op != OP_CLOSE && !merge_feed(c->merge, index, type, body, len))
        fail(c, merge_error(c->merge), NULL);
}

static void error_message(struct cursor *c, const struct part *part, const char *body, size_t len)
{
    struct pg_error error;
    wire_read_error(body, len, &error);
    if (!part->cancelled || strcmp(error.sqlstate, "57014") != 0)
        fail(c, &error, part->shard_name);
}

static void notice_message(struct cursor *c, int index, const char *body, size_t len)
{
    if (index != 0)
        return;
    size_t begin = wire_begin(&c->run.out, 'N');
    wire_put_bytes(&c->run.out, body, len);
    wire_end(&c->run.out, begin);
}

static void ready_message(struct cursor *c, struct part *part, struct server *server,
                          const char *body, size_t len)
{
    server->tx_status = len == 1 ? body[0] : 'E';
    server_expect_pop(server);
    part->awaited = false;
    c->run.awaited--;
    advance(c);
}

static void parameter_message(struct server *server, const char *body, size_t len)
{
    struct wire_reader reader = wire_reader(body, len);
    const char *name = wire_read_cstring(&reader), *value = wire_read_cstring(&reader);
    if (!reader.bad)
        reported_take(server, name, value, true);
}

void cursor_message(struct cursor *c, struct server *server, char type, const char *body,
                    size_t len)
{
    int index = 0;
    struct part *part = find_part(c, server, &index);
    if (!part)
        return;
    switch (type) {
    case 'T':
    case 'D':
    case 'C':
        feed(c, part, index, type, body, len);
        break;
    case 'E':
        error_message(c, part, body, len);
        break;
    case 'N':
        notice_message(c, index, body, len);
        break;
    case 'S':
        parameter_message(server, body, len);
        break;
    case 'Z':
        ready_message(c, part, server, body, len);
        break;
    default:
        break;
    }
}

void cursor_lost(struct cursor *c, struct server *server, const char *reason)
{
    for (int i = 0; i < c->nparts; i++) {
        struct part *part = &c->parts[i];
        if (part->shard != server->shard)
            continue;
        c->run.awaited -= part->awaited;
        part->awaited = part->open = false;
        fail_lost(c, part, reason);
    }
    advance(c);
}

/* ---- starting ---- */

static bool start(struct client *client, struct cursor *c, enum cursor_op op, int64_t wanted,
                  bool silent, bool describe)
{
    struct run *run = &c->run;
    *run = (struct run){.op = op, .wanted = wanted, .silent = silent, .describe = describe};
    client->stats->scatter++;
    client->request.retriable = false;
    scatter_start_cursor(client, c);
    if (silent) {
        struct buffer *early = &client->extended->early;
        client->extended->state = BATCH_SCATTER;
        buffer_append(&run->out, buffer_head(early), buffer_length(early));
        buffer_release(early);
        run->from = buffer_length(&run->out);
    }
    return true;
}

static bool in_failed_block(struct client *client)
{
    static const struct pg_error error = {
        .sqlstate = "25P02",
        .message =
            "current transaction is aborted, commands ignored until end of transaction block"};
    if (!client->tx || client->tx->state != TX_FAILED)
        return false;
    session_refuse(client, &error);
    return true;
}

void cursor_open_portal(struct client *client, struct portal *portal, const struct scatter_ask *ask,
                        int32_t max_rows)
{
    struct cursor *c = new_cursor(client, portal->name, false);
    c->completes = ask->statement;
    portal->cursor = c->id;
    keyless_planned(client, &client->request.plan, ask->statement);
    start(client, c, OP_EXECUTE, max_rows > 0 ? max_rows : ALL_ROWS, true, ask->describe);
    open_parts(c, ask);
}

struct cursor *cursor_of_portal(const struct client *client, const struct portal *portal,
                                bool *gone)
{
    *gone = false;
    if (!portal->cursor || !client->tx || !client->tx->cursors)
        return NULL;
    for (struct cursor *c = client->tx->cursors->first; c; c = c->next) {
        if (c->id == portal->cursor && !c->sql) {
            *gone = c->dead;
            return c->dead ? NULL : c;
        }
    }
    *gone = true;
    return NULL;
}

void cursor_execute(struct client *client, struct cursor *c, int32_t max_rows)
{
    if (in_failed_block(client))
        return;
    start(client, c, OP_EXECUTE, max_rows > 0 ? max_rows : ALL_ROWS, true, false);
    advance(c);
}

/* Where the transaction has failed the servers' portals cannot give anything any more, and end with it. */
static void close_parts(struct cursor *c)
{
    for (int i = 0; i < c->nparts; i++) {
        struct part *part = &c->parts[i];
        struct server *server = client_participant(c->client, part->shard);
        struct buffer more = {0};
        if (!part->open || !server)
            continue;
        part->open = false;
        wire_put_close(&more, 'P', c->server_name);
        send_part(c, part, server, &more);
        buffer_release(&more);
    }
}

void cursor_close(struct client *client, struct cursor *c)
{
    start(client, c, OP_CLOSE, 0, true, false);
    wire_put_simple(&c->run.out, '3');
    close_parts(c);
    advance(c);
}

/* ---- SQL ---- */

struct cursor *cursor_find(const struct client *client, const char *name)
{
    struct cursor *c =
        client->tx && client->tx->cursors && name ? client->tx->cursors->first : NULL;
    while (c && (c->dead || !c->sql || strcmp(c->name, name) != 0))
        c = c->next;
    return c;
}

struct cursor *cursor_of_statement(const struct client *client, const struct statement *statement)
{
    bool about = statement->kind == STMT_FETCH || statement->kind == STMT_CLOSE_CURSOR;
    return about ? cursor_find(client, statement->name) : NULL;
}

static void refuse(struct client *client, const char *sqlstate, const char *hint,
                   const char *message)
{
    struct pg_error error = {.sqlstate = sqlstate, .message = message, .hint = hint};
    session_refuse(client, &error);
}

static void declare(struct client *client, const struct scatter_ask *ask)
{
    const struct statement *statement = ask->statement;
    struct cursor *c = new_cursor(client, statement->name, true);
    c->binary = statement->cursor_binary;
    start(client, c, OP_DECLARE, 0, ask->silent, false);
    if (ask->silent && ask->describe)
        wire_put_simple(&c->run.out, 'n');
    struct scatter_ask as_text =
        *ask; /* its own Bind's formats are about DECLARE, which has no rows */
    as_text.result_formats = NULL;
    as_text.result_formats_len = 0;
    if (client->request.plan.gather)
        open_gathered(c, &as_text);
    else
        open_parts(c, &as_text);
}

void cursor_declare(struct client *client, const struct scatter_ask *ask)
{
    const struct statement *statement = ask->statement;
    if (!client->tx || client->tx->implicit) {
        if (ask->silent && ask->describe)
            batch_answer_simple(client, 'n');
        refuse(client, "25P01", NULL, "DECLARE CURSOR can only be used in transaction blocks");
        return;
    }
    if (client->request.plan.gather) {
        scatter_start_portal(client, ask, NULL, 0);
        return;
    }
    keyless_planned(client, &client->request.plan, statement);
    declare(client, ask);
}

void cursor_open_gathered(struct client *client, const char *name, const struct scatter_ask *ask,
                          int32_t max_rows)
{
    if (!name) {
        declare(client, ask);
        return;
    }
    struct portal *portal = names_portal(&client->extended->names, name);
    struct cursor *c = new_cursor(client, name, false);
    c->completes = ask->statement;
    if (portal)
        portal->cursor = c->id;
    start(client, c, OP_EXECUTE, max_rows > 0 ? max_rows : ALL_ROWS, true, ask->describe);
    open_gathered(c, ask);
}

static void close_by_sql(struct client *client, struct cursor *c, bool silent)
{
    start(client, c, OP_CLOSE, 0, silent, false);
    if (silent)
        wire_put_complete(&c->run.out, "CLOSE CURSOR");
    close_parts(c);
    advance(c);
}

static void fetch(struct client *client, struct cursor *c, const struct statement *statement,
                  bool silent, bool describe)
{
    if (statement->fetch_rows < 0) {
        refuse(client, "0A000", "FETCH NEXT, FORWARD n and ALL are what it can.",
               "a cursor over several shards can only scan forward");
        return;
    }
    bool moves = strcmp(statement->tag, "MOVE") == 0;
    int64_t wanted = statement->fetch_rows == INT64_MAX ? ALL_ROWS : statement->fetch_rows;
    start(client, c, moves ? OP_MOVE : OP_FETCH, wanted, silent, false);
    if (describe && !moves)
        cursor_describe(c, &c->run.out);
    advance(c);
}

void cursors_close_all(struct client *client)
{
    struct cursor *c = client->tx && client->tx->cursors ? client->tx->cursors->first : NULL;
    for (; c; c = c->next)
        if (c->sql && !c->dead)
            drop_rows(c);
}

bool cursor_statement(struct client *client, const struct statement *statement, bool silent,
                      bool describe)
{
    struct cursor *c = cursor_of_statement(client, statement);
    if (statement->kind == STMT_DECLARE_CURSOR && cursor_find(client, statement->name)) {
        refuse(
            client, "42P03", NULL,
            arena_printf(client->request.arena, "cursor \"%s\" already exists", statement->name));
        return true;
    }
    if (!c || in_failed_block(client))
        return c != NULL;
    if (statement->kind == STMT_CLOSE_CURSOR)
        close_by_sql(client, c, silent);
    else
        fetch(client, c, statement, silent, describe);
    return true;
}
