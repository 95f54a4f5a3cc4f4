/*
 * gather.c: rows of several shards brought to one server, the home, which then answers the query.
 *
 *   MAKING --table made, all its rows are here--> MAKING (the next) ... --> ANSWERING --> ENDING --> (done)
 *     |  ^                                                 '--into a cursor---> READY --> (cursor.h)
 *     v  | the others' rows are in
 *   FILLING
 *
 * Where semi-joins may leave rows out (gather_reduce.c), ESTIMATING comes first, and LISTING ahead of a MAKING that
 * depends on what was fetched before.
 *
 * Each table is made with the rows that the home has itself; those of the other shards stream into it
 * through a COPY: a DataRow's body is a binary COPY's row, byte by byte. A shard is read only as fast as
 * the home takes its rows. Outside of a transaction all of it is one of its own at home; inside a block
 * it is behind a savepoint, and the tables are dropped at the end. In a READ ONLY block no table can be made,
 * so there the home is begun as READ WRITE; READ ONLY is what stands behind another savepoint, between gathers. The final answer passes through as it
 * comes.
 */
#include "proxy/gather_internal.h"

#include <stdlib.h>
#include <string.h>

#include "pgshunt/log.h"
#include "pgshunt/wire.h"
#include "proxy/cursor.h"
#include "proxy/extended.h"
#include "proxy/late_cancel.h"
#include "proxy/reported.h"
#include "proxy/series.h"
#include "proxy/shard_error.h"

#define QUEUE_MAX 65536
/* Behind it a transaction on the home is READ ONLY, if it is to be (server.h: guarded). */
#define GUARD "pgshunt_read_only"
/* Fewer rows are planned for well enough without statistics. */
#define ANALYZE_ROWS 1000

static void advance(struct gather *g);

static const struct gather_table *current_table(const struct gather *g)
{
    return &g->plan->gather->tables[g->table];
}

/* ---- failing ---- */

static void stop_sources(struct gather *g)
{
    for (int i = 0; i < g->nsources; i++) {
        struct source *source = &g->sources[i];
        if (!source->running || source->cancelled)
            continue;
        source->cancelled = true;
        late_cancel_send(source->server);
    }
}

static void fail(struct gather *g, const struct pg_error *error, const char *shard_name)
{
    if (g->failed)
        return;
    g->failed = true;
    g->error = shard_error_keep(&g->arena, error, shard_name);
    g->error.position = 0; /* it points into another text */
    stop_sources(g);
}

static void check_size(struct gather *g)
{
    int64_t most = g->client->topology->config->max_gather;
    if (!most || g->bytes <= most || g->failed)
        return;
    struct pg_error error = {
        .sqlstate = "53400",
        .message =
            arena_printf(&g->arena,
                         "the rows of table \"%s\" that this query needs on one server are more "
                         "than limits.max_gather allows (%lld rows of it so far, %lld bytes in "
                         "all)",
                         current_table(g)->name, (long long)g->rows, (long long)g->bytes),
        .hint =
            "Name keys, or conditions on that table's own columns, so that fewer rows are needed; "
            "or raise limits.max_gather."};
    fail(g, &error, NULL);
}

/* ---- sending ---- */

static void send_home(struct gather *g, struct buffer *bytes)
{
    conn_send(&g->home->conn, buffer_head(bytes), buffer_length(bytes));
    buffer_clear(bytes);
}

static void await_home(struct gather *g)
{
    server_expect(g->home, EXPECT_QUERY);
    g->awaited++;
}

static void put_home_query(struct gather *g, const char *sql)
{
    wire_put_query(&g->feed, sql);
    await_home(g);
}

void gather_put_home(struct gather *g, const struct shard_query *query, enum shard_formats formats)
{
    shard_query_put(&g->ask, query, &(struct shard_form){.formats = formats}, &g->feed);
    await_home(g);
}

static void put_home_statement(struct gather *g, const struct shard_query *query)
{
    shard_query_put(
        &g->ask, query,
        &(struct shard_form){.formats = SHARD_AS_ASKED, .describe = g->phase == GATHER_ANSWERING},
        &g->feed);
    await_home(g);
}

static void make_table(struct gather *g)
{
    const struct gather_table *table = current_table(g);
    bool empty = g->plan->gather->empty, filled = table->nshards && !empty;
    struct shard_query make = table->make;
    g->phase = filled ? GATHER_FILLING : GATHER_MAKING;
    g->rows = g->home_rows = 0;
    if (table->rows_here && !empty && !reduction_create(g, &make))
        make = table->make;
    gather_put_home(g, &make, SHARD_TEXT);
    if (filled)
        put_home_query(g, arena_printf(&g->arena, "COPY %s FROM STDIN%s", table->relation,
                                       table->text ? "" : " (FORMAT binary)"));
    send_home(g, &g->feed);
}

void gather_put_source(struct gather *g, struct source *source, const struct shard_query *query,
                       enum shard_formats formats, struct buffer *out)
{
    if (!buffer_length(out))
        attach_prefix(g->client, source->server, out);
    shard_query_put(&g->ask, query, &(struct shard_form){.formats = formats}, out);
    server_expect(source->server, EXPECT_QUERY);
    source->awaited++;
}

void gather_ask_source(struct gather *g, struct source *source, struct buffer *out)
{
    struct server *server = source->server;
    server->unnamed = (struct prepared_key){0};
    server->request_at = g->client->request.started_at;
    source->running = true;
    source->asked_at = clock_us();
    g->running++;
    conn_send(&server->conn, buffer_head(out), buffer_length(out));
    buffer_release(out);
}

static void ask_source(struct gather *g, struct source *source)
{
    struct shard_query query;
    struct buffer out = {0};
    if (!reduction_source(g, source->shard, &query))
        return;
    gather_put_source(g, source, &query, current_table(g)->text ? SHARD_TEXT : SHARD_BINARY, &out);
    gather_ask_source(g, source, &out);
}

static struct source *source_of_shard(struct gather *g, unsigned shard)
{
    for (int i = 0; i < g->nsources; i++)
        if (g->sources[i].shard == shard)
            return &g->sources[i];
    return NULL;
}

void gather_put_header(struct buffer *out)
{
    static const char header[] = "PGCOPY\n\377\r\n\0\0\0\0\0\0\0\0\0";
    size_t begin = wire_begin(out, 'd');
    wire_put_bytes(out, header, 19);
    wire_end(out, begin);
}

void gather_put_end(struct buffer *out, bool text)
{
    if (!text) {
        size_t begin = wire_begin(out, 'd');
        wire_put16(out, -1);
        wire_end(out, begin);
    }
    wire_put_simple(out, 'c');
}

/* The home waits for rows. */
static void start_filling(struct gather *g)
{
    const struct gather_table *table = current_table(g);
    g->copying = true;
    if (!table->text)
        gather_put_header(&g->feed);
    for (int i = 0; i < table->nshards && !g->failed; i++) {
        struct source *source = source_of_shard(g, table->shards[i]);
        if (source && source->server)
            ask_source(g, source);
    }
}

/* All rows are there, or there will be no more. */
static void end_filling(struct gather *g)
{
    size_t begin;
    g->copying = false;
    if (g->rows > g->most_rows)
        g->most_rows = g->rows;
    if (g->failed) {
        buffer_clear(&g->feed);
        begin = wire_begin(&g->feed, 'f');
        wire_put_cstring(&g->feed, "pgshunt: a shard failed");
        wire_end(&g->feed, begin);
    } else {
        gather_put_end(&g->feed, current_table(g)->text);
    }
    send_home(g, &g->feed);
}

static void put_relations(const struct gather *g, struct buffer *sql)
{
    const struct gather_plan *plan = g->plan->gather;
    for (int i = 0; i < plan->ntables; i++)
        buffer_printf(sql, "%s%s", i ? ", " : "", plan->tables[i].relation);
}

/* One command about all the tables. */
static void put_about_tables(struct gather *g, const char *before, const char *after)
{
    struct buffer sql = {0};
    buffer_printf(&sql, "%s", before);
    put_relations(g, &sql);
    buffer_append(&sql, after, strlen(after) + 1);
    put_home_query(g, buffer_head(&sql));
    buffer_release(&sql);
}

/* The query itself is not to write either. */
static void guard_query(struct gather *g)
{
    if (g->home->guarded && !g->cursor)
        put_home_query(g, "SAVEPOINT pgshunt_query; SET TRANSACTION READ ONLY");
}

static void answer(struct gather *g)
{
    for (int i = 0; i < g->plan->gather->ntables; i++)
        if (g->plan->gather->tables[i].add_key)
            put_home_query(g, g->plan->gather->tables[i].add_key);
    if (g->most_rows >= ANALYZE_ROWS)
        put_about_tables(g, "ANALYZE ", "");
    guard_query(g);
    g->phase = g->cursor ? GATHER_READY : GATHER_ANSWERING;
    if (!g->cursor)
        put_home_statement(g, &g->plan->gather->query);
    send_home(g, &g->feed);
}

static void put_utility(const char *sql, struct buffer *out)
{
    wire_put_parse(out, "", sql, NULL, 0);
    size_t begin = wire_begin(out, 'B');
    wire_put_bytes(out, "\0\0\0\0\0\0\0\0", 8);
    wire_end(out, begin);
    begin = wire_begin(out, 'E');
    wire_put_bytes(out, "\0\0\0\0\0", 5);
    wire_end(out, begin);
}

int gather_put_renaming(const struct gather_plan *gather, uint32_t id, bool guarded,
                        struct buffer *out)
{
    struct buffer sql = {0};
    for (int i = 0; i < gather->ntables; i++) {
        buffer_clear(&sql);
        buffer_printf(&sql, "ALTER TABLE %s RENAME TO pgshunt_c%u_%d", gather->tables[i].relation,
                      id, i);
        buffer_append(&sql, "", 1);
        put_utility(buffer_head(&sql), out);
    }
    buffer_release(&sql);
    put_utility("RELEASE SAVEPOINT " GATHER_SAVEPOINT, out);
    if (!guarded)
        return gather->ntables + 1;
    put_utility("SAVEPOINT " GUARD, out);
    put_utility("SET TRANSACTION READ ONLY", out);
    return gather->ntables + 3;
}

/* All rows are there: what is left is a cursor's business, which takes them from the home's portal. */
static void hand_over(struct gather *g)
{
    struct client *client = g->client;
    struct scatter_ask ask = g->ask;
    const char *portal = g->portal ? arena_strdup(client->request.arena, g->portal) : NULL;
    int32_t max_rows = g->max_rows;
    if (ask.silent)
        buffer_append(&client->extended->early, buffer_head(&g->out), buffer_length(&g->out));
    for (int i = 0; i < client->nparticipants; i++)
        conn_set_reading(&client->participants[i]->conn, true);
    scatter_free(client);
    cursor_open_gathered(client, portal, &ask, max_rows);
}

static void end(struct gather *g)
{
    g->phase = GATHER_ENDING;
    if (!g->home || (g->block && g->failed)) /* a failed block is the client's to end */
        return;
    if (g->block && g->home->guarded)
        put_about_tables(g, "RELEASE SAVEPOINT pgshunt_query; DROP TABLE ",
                         "; RELEASE SAVEPOINT " GATHER_SAVEPOINT "; SAVEPOINT " GUARD
                         "; SET TRANSACTION READ ONLY");
    else if (g->block)
        put_about_tables(g, "DROP TABLE ", "; RELEASE SAVEPOINT " GATHER_SAVEPOINT);
    else if (g->home->tx_status != 'I')
        put_home_query(g, g->failed ? "ROLLBACK" : "COMMIT");
    send_home(g, &g->feed);
}

/* ---- start and end ---- */

static void estimate(struct gather *g)
{
    g->phase = GATHER_ESTIMATING;
    reduction_estimate(g);
    send_home(g, &g->feed);
}

static void find_servers(struct gather *g)
{
    struct client *client = g->client;
    const struct plan *plan = g->plan;
    for (int i = 0; i < plan->nqueries; i++) {
        unsigned shard = plan->queries[i].shard;
        struct server *server = client_participant(client, shard);
        const char *name = client->database->shards[shard].name;
        if (shard == plan->shard) {
            g->home = server;
            g->home_name = name;
        } else {
            g->sources[g->nsources++] =
                (struct source){.server = server, .shard_name = name, .shard = shard};
        }
    }
}

struct gather *gather_start(struct client *client, const struct scatter_ask *ask)
{
    const struct plan *plan = &client->request.plan;
    struct gather *g = mem_alloc(sizeof *g + sizeof(struct source) * (size_t)plan->nqueries);
    g->client = client;
    g->ask = *ask;
    g->plan = plan;
    g->block = client->tx != NULL;
    arena_init(&g->arena);
    find_servers(g);
    if (ask->silent) { /* goes out with the answer */
        buffer_append(&g->out, buffer_head(&client->extended->early),
                      buffer_length(&client->extended->early));
        buffer_release(&client->extended->early);
    }
    bool begun = g->home->begun;
    g->home->guarded |= g->block && client->tx->read_only && !begun;
    attach_prefix(client, g->home, &g->feed);
    if (begun && g->home->guarded)
        put_home_query(g, "RELEASE SAVEPOINT " GUARD);
    g->home->gathered = g->block;
    g->home->unnamed = (struct prepared_key){0};
    g->home->request_at = client->request.started_at;
    bool reduces = reduction_make(g);
    put_home_query(g, g->block ? "SAVEPOINT " GATHER_SAVEPOINT
                      : reduces && plan->gather->steady
                          ? "BEGIN ISOLATION LEVEL REPEATABLE READ READ WRITE"
                          : "BEGIN READ WRITE");
    for (int i = 0; i < plan->gather->nchecks; i++)
        put_home_query(g, plan->gather->checks[i]);
    if (reduces)
        estimate(g);
    else
        make_table(g);
    return g;
}

void gather_into_cursor(struct gather *g, const char *portal, int32_t max_rows)
{
    g->cursor = true;
    g->portal = portal ? arena_strdup(&g->arena, portal) : NULL;
    g->max_rows = max_rows;
}

void gather_free(struct gather *g)
{
    buffer_release(&g->feed);
    buffer_release(&g->out);
    arena_free(&g->arena);
    free(g->tag);
    free(g);
}

/* What the client's later reads have to be as new as. */
static void note_seen(struct gather *g)
{
    struct client *client = g->client;
    bool lost = !g->home;
    for (int i = 0; i < g->nsources; i++)
        lost |= !g->sources[i].server;
    if (lost) {
        session_saw_anything(client);
        return;
    }
    session_saw(client, g->home);
    for (int i = 0; i < g->nsources; i++)
        session_saw(client, g->sources[i].server);
}

static void follow_transaction(struct gather *g)
{
    struct client *client = g->client;
    note_seen(g);
    if (client->tx) {
        client->tx->state = g->failed ? TX_FAILED : TX_OPEN;
        return;
    }
    if (g->plan->write && g->home)
        session_wrote(client, g->home);
    if (g->home) {
        statement_settle(client, g->home, !g->failed);
        reported_settle(client, g->home, NULL);
    }
    for (int i = 0; i < g->nsources; i++)
        if (g->sources[i].server)
            reported_settle(client, g->sources[i].server, NULL);
}

static void finish(struct gather *g)
{
    struct client *client = g->client;
    bool failed = g->failed, silent = g->ask.silent;
    if (failed)
        client->stats->errors++, series_failed(client);
    if (failed && !g->told)
        wire_put_error(&g->out, &g->error);
    else if (!failed && g->ask.statement)
        statement_completed(client, g->home, g->ask.statement, g->tag ? g->tag : "",
                            g->plan->write);
    if (!failed && g->tag)
        wire_put_complete(&g->out, g->tag);
    follow_transaction(g);
    if (g->home)
        reported_tell(client, g->home, &g->out);
    client_answer(g->client, &g->out);
    for (int i = 0; i < client->nparticipants; i++)
        conn_set_reading(&client->participants[i]->conn, true);
    scatter_free(client);
    if (silent)
        extended_scatter_done(client, failed);
    else
        session_ready(client);
}

/* The transaction's next statement is not to be hit by what has stopped this one. */
static void finish_quietly(struct gather *g)
{
    if (!g->block || !late_cancel_is_under_way(g->client))
        finish(g);
}

static bool choose_table(struct gather *g)
{
    if (g->reduction)
        return reduction_next(g);
    return ++g->table < g->plan->gather->ntables;
}

/* The next table, or the values that it may be reduced by; when all are there, the query itself. */
static void go_on(struct gather *g)
{
    if (g->phase == GATHER_LISTING) {
        reduction_decide(g);
        make_table(g);
        return;
    }
    if (g->reduction && g->phase != GATHER_ESTIMATING)
        reduction_fetched(g);
    if (!choose_table(g)) {
        answer(g);
    } else if (g->reduction && reduction_list(g)) {
        g->phase = GATHER_LISTING;
        send_home(g, &g->feed);
    } else {
        make_table(g);
    }
}

/* Nothing of this step is awaited any more: the next one. */
static void advance(struct gather *g)
{
    if (g->running || (g->copying && g->home)) {
        if (!g->running && g->copying)
            end_filling(g);
        return;
    }
    if (g->awaited)
        return;
    if (g->phase == GATHER_READY && !g->failed && g->home) {
        hand_over(g);
        return;
    }
    if (g->phase == GATHER_ENDING) {
        finish_quietly(g);
        return;
    }
    if (g->failed || !g->home || g->phase == GATHER_ANSWERING)
        end(g);
    else
        go_on(g);
    if (g->phase == GATHER_READY && !g->awaited) {
        hand_over(g);
        return;
    }
    if (g->phase == GATHER_ENDING && !g->awaited)
        finish_quietly(g);
}

/* ---- rows on their way home ---- */

static bool home_is_full(const struct gather *g)
{
    return g->home && conn_queued(&g->home->conn) > QUEUE_MAX;
}

static void pace(struct gather *g)
{
    bool full = home_is_full(g);
    for (int i = 0; i < g->nsources; i++)
        if (g->sources[i].running && !g->sources[i].cancelled)
            conn_set_reading(&g->sources[i].server->conn, !full);
    if (g->home && g->phase == GATHER_ANSWERING)
        conn_set_reading(&g->home->conn, conn_queued(&g->client->conn) <= QUEUE_MAX);
}

/* Text as COPY has it: what would be taken for its own marks stands behind a backslash. */
static void put_escaped(struct buffer *out, const char *text, size_t len)
{
    static const char marks[] = "\b\f\n\r\t\v\\", letters[] = "bfnrtv\\";
    size_t from = 0;
    for (size_t i = 0; i < len; i++) {
        const char *mark = text[i] ? strchr(marks, text[i]) : NULL;
        if (!mark)
            continue;
        buffer_append(out, text + from, i - from);
        buffer_append(out, "\\", 1);
        buffer_append(out, &letters[mark - marks], 1);
        from = i + 1;
    }
    buffer_append(out, text + from, len - from);
}

/* False: the row is not what it should be. */
static bool put_text_row(struct buffer *out, const char *body, size_t len)
{
    struct wire_reader reader = wire_reader(body, len);
    int count = wire_read16(&reader);
    for (int i = 0; i < count && !reader.bad; i++) {
        int32_t length = wire_read32(&reader);
        if (i)
            buffer_append(out, "\t", 1);
        if (length < 0) {
            buffer_append(out, "\\N", 2);
            continue;
        }
        const char *value = wire_read_bytes(&reader, (size_t)length);
        if (!reader.bad)
            put_escaped(out, value, (size_t)length);
    }
    buffer_append(out, "\n", 1);
    return !reader.bad;
}

bool gather_put_row(struct buffer *out, bool text, const char *body, size_t len)
{
    bool good = true;
    size_t begin = wire_begin(out, 'd');
    if (text)
        good = put_text_row(out, body, len);
    else
        wire_put_bytes(out, body, len);
    wire_end(out, begin);
    return good;
}

static void source_row(struct gather *g, const char *body, size_t len)
{
    if (g->failed || !g->copying)
        return;
    bool good = gather_put_row(&g->feed, current_table(g)->text, body, len);
    g->rows++;
    g->bytes += (int64_t)len;
    if (!good)
        fail(g, &(struct pg_error){.sqlstate = "08P01", .message = "a shard sent a malformed row"},
             NULL);
    check_size(g);
    if (buffer_length(&g->feed) > QUEUE_MAX && !g->failed)
        send_home(g, &g->feed);
}

static void source_error(struct gather *g, struct source *source, const char *body, size_t len)
{
    struct pg_error error;
    wire_read_error(body, len, &error);
    if (!source->cancelled || strcmp(error.sqlstate, "57014") != 0)
        fail(g, &error, source->shard_name);
}

static void source_message(struct gather *g, struct source *source, char type, const char *body,
                           size_t len)
{
    switch (type) {
    case 'D':
        if (g->phase == GATHER_ESTIMATING) {
            reduction_source_row(g, source, body, len);
            break;
        }
        source->rows++;
        source_row(g, body, len);
        break;
    case 'E':
        source_error(g, source, body, len);
        break;
    case 'Z':
        source->server->tx_status = len == 1 ? body[0] : 'E';
        server_expect_pop(source->server);
        if (--source->awaited)
            break;
        source->running = source->cancelled = false;
        source->us += clock_us() - source->asked_at;
        g->running--;
        if (!g->running)
            advance(g);
        break;
    default:
        break;
    }
}

/* ---- the home's messages ---- */

static void copy_message(struct buffer *out, char type, const char *body, size_t len)
{
    size_t begin = wire_begin(out, type);
    wire_put_bytes(out, body, len);
    wire_end(out, begin);
}

static void home_error(struct gather *g, const char *body, size_t len)
{
    struct pg_error error;
    wire_read_error(body, len, &error);
    g->copying = false;
    if (g->failed)
        return;
    if (g->phase == GATHER_ANSWERING && !g->failed) { /* as it is: it may point into the query */
        copy_message(&g->out, 'E', body, len);
        g->told = true;
    }
    fail(g, &error, g->home_name);
}

/* EXPLAIN ANALYZE: what the others have given, ahead of the home's own plan. */
static void put_sources(struct gather *g)
{
    const struct statement *statement = g->ask.statement;
    if (!statement || statement->kind != STMT_EXPLAIN || statement->explain_format)
        return;
    reduction_explain(g, &g->out);
    if (!statement->explain_analyze)
        return;
    for (int i = 0; i < g->nsources; i++) {
        const struct source *source = &g->sources[i];
        const char *line = arena_printf(&g->arena, "  rows from %s: %lld in %lld.%03d ms",
                                        source->shard_name, (long long)source->rows,
                                        (long long)(source->us / 1000), (int)(source->us % 1000));
        wire_put_text_row(&g->out, &line, 1);
    }
}

/* An answer to the query itself. */
static void answer_message(struct gather *g, char type, const char *body, size_t len)
{
    struct client *client = g->client;
    switch (type) {
    case 'T':
        if (g->ask.describe)
            copy_message(&g->out, type, body, len);
        statement_explain_rows(client, g->ask.statement, g->plan, &g->out);
        put_sources(g);
        break;
    case 'C':
        if (!g->tag && len && body[len - 1] == '\0')
            g->tag = mem_strdup(body);
        break;
    case 'D':
    case 'H':
    case 'c':
    case 'd':
    case 'N':
        copy_message(&g->out, type, body, len);
        break;
    case 'n':
        if (g->ask.describe)
            copy_message(&g->out, type, body, len);
        break;
    default:
        break;
    }
    if (buffer_length(&g->out) > QUEUE_MAX)
        client_answer(g->client, &g->out);
}

/* An answer on the way to the query: what the servers expect, values, or how many rows a table was made with. */
static void step_message(struct gather *g, char type, const char *body, size_t len)
{
    if (type == 'D' && g->phase <= GATHER_LISTING)
        reduction_home_row(g, body, len);
    if (type == 'C' && g->phase >= GATHER_MAKING && len > 7 && body[len - 1] == '\0' &&
        strncmp(body, "SELECT ", 7) == 0)
        g->home_rows = strtoll(body + 7, NULL, 10);
}

static void home_ready(struct gather *g, const char *body, size_t len)
{
    g->home->tx_status = len == 1 ? body[0] : 'E';
    server_expect_pop(g->home);
    g->awaited--;
    if (!g->awaited)
        advance(g);
}

static void home_message(struct gather *g, char type, const char *body, size_t len)
{
    struct wire_reader reader = wire_reader(body, len);
    switch (type) {
    case 'E':
        home_error(g, body, len);
        break;
    case 'G':
        start_filling(g);
        break;
    case 'Z':
        home_ready(g, body, len);
        break;
    case 'S': {
        const char *name = wire_read_cstring(&reader), *value = wire_read_cstring(&reader);
        if (!reader.bad)
            reported_take(g->home, name, value, true);
        break;
    }
    default:
        /* The ANALYZE ahead of the query answers first. */
        if (g->phase == GATHER_ANSWERING && g->awaited == 1)
            answer_message(g, type, body, len);
        else if (g->phase <= GATHER_FILLING)
            step_message(g, type, body, len);
        break;
    }
}

void gather_message(struct gather *g, struct server *server, char type, const char *body,
                    size_t len)
{
    if (server == g->home) {
        home_message(g, type, body, len);
        return;
    }
    for (int i = 0; i < g->nsources; i++)
        if (g->sources[i].server == server) {
            source_message(g, &g->sources[i], type, body, len);
            return;
        }
}

/* ---- flow ---- */

void gather_pump(struct gather *g)
{
    if (g->home && g->copying && buffer_length(&g->feed))
        send_home(g, &g->feed);
    if (g->phase >= GATHER_ANSWERING) /* till then a read whose server is lost can be repeated */
        client_answer(g->client, &g->out);
    pace(g);
    if (!g->running && g->copying)
        advance(g);
}

void gather_drained(struct gather *g)
{
    pace(g);
    if (g->phase == GATHER_ENDING) /* which may wait for cancels */
        advance(g);
}

/* ---- losing a server ---- */

static void forget(struct gather *g, struct server *server)
{
    if (server == g->home) {
        g->home = NULL;
        g->awaited = 0;
        g->copying = false;
    }
    for (int i = 0; i < g->nsources; i++) {
        struct source *source = &g->sources[i];
        if (source->server != server)
            continue;
        source->server = NULL;
        g->running -= source->running;
        source->running = false;
    }
}

void gather_lost(struct gather *g, struct server *server, const char *reason)
{
    const char *name = server == g->home ? g->home_name : NULL;
    for (int i = 0; i < g->nsources; i++)
        if (g->sources[i].server == server)
            name = g->sources[i].shard_name;
    if (!name)
        return;
    struct pg_error error = {
        .sqlstate = server->fatal_sqlstate[0] ? server->fatal_sqlstate : "08006",
        .message = arena_printf(&g->arena, "lost the connection to shard %s: %s", name, reason),
        .hint = "Nothing was changed; run the statement again."};
    forget(g, server);
    fail(g, &error, NULL);
    advance(g);
}
