/*
 * change.c: a change whose rows go from shard to shard, all of it in one transaction on all of them.
 *
 *   CHECKING --> [ CREATING ] --> [ MAKING --> COLLECTING <--> FEEDING ]...  tables are gathered, as gather.c does
 *      |                         |
 *      |--> LOOKING: which rows get keys of other shards; they are locked
 *      v       |
 *   DESCRIBING <'--> READING <----------------------------.   rows come through portals, some at a time,
 *                      | all have given their first rows  |
 *                      v                                  |
 *                   STAYING --> INSERTING ----------------'
 *                                  | no more rows
 *                                  v
 *                               CLEARING --> SETTLING --> DONE
 *
 * CHECKING lets a server judge the statement as it is, without running it: its errors and its result's
 * columns are Postgres' own. Rows that move are deleted with the first part of the READING, everywhere, before
 * anything is inserted, so that keys can be exchanged. A portal sees what was there when it was opened,
 * none of the rows inserted meanwhile. CREATING makes a table of rows that were gathered, after that; or one that is
 * to have rows everywhere, ahead of them.
 */
#include "proxy/change_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pgshunt/failpoint.h"
#include "pgshunt/wire.h"
#include "proxy/gather.h"

#define OUT_MAX 65536
#define PORTAL "pgshunt_change"
/* Rows asked for in one go, of one shard; of wide rows fewer, so that it is about CHUNK_BYTES. */
#define CHUNK_MIN 50
#define CHUNK_MAX 5000
#define CHUNK_BYTES 1048576
/* Fewer rows are planned for well enough without statistics. */
#define ANALYZE_ROWS 1000

static void check_size(struct change *change);

/* ---- sending ---- */

void change_send(struct change *change, int index, struct buffer *out, int syncs)
{
    struct scatter *scatter = change->scatter;
    struct part *part = &scatter->parts[index];
    if (part->server) {
        for (int i = 0; i < syncs; i++)
            scatter_await(scatter, part);
        part->server->unnamed = (struct prepared_key){0};
        conn_send(&part->server->conn, buffer_head(out), buffer_length(out));
    }
    buffer_release(out);
}

static void send_sql(struct change *change, int index, const char *sql)
{
    struct buffer out = {0};
    wire_put_query(&out, sql);
    change_send(change, index, &out, 1);
}

void change_fail(struct change *change, const char *sqlstate, const char *message, const char *hint)
{
    struct pg_error error = {.sqlstate = sqlstate, .message = message, .hint = hint};
    scatter_fail(change->scatter, &error, NULL);
}

static int home(const struct change *change)
{
    return (int)change->scatter->plan->shard;
}

static const struct gather_plan *gathered(const struct change *change)
{
    return change->plan->gather;
}

/* The client's parameters, and then the list of rows. */
static void list_rows(struct change *change, struct buffer *list, struct scatter_ask *ask)
{
    const struct change_move *move = change->plan->move;
    struct param *items = (struct param *)change->listed.items;
    buffer_append(list, "}", 1);
    for (int i = 0; i < move->list && i < change->params.count; i++)
        items[i] = change->params.items[i];
    items[move->list] = (struct param){.bytes = buffer_head(list),
                                       .length = (int)buffer_length(list),
                                       .type_oid = move->list_type};
    *ask = change->ask;
    ask->params = &change->listed;
}

/* ---- reading ---- */

static int64_t next_chunk(const struct change_part *part)
{
    if (!part->rows)
        return CHUNK_MIN;
    int64_t wide = part->bytes / part->rows + 1, rows = CHUNK_BYTES / wide;
    return rows < 1 ? 1 : rows > CHUNK_MAX ? CHUNK_MAX : rows;
}

static void put_fetch(struct change_part *part, struct buffer *out)
{
    size_t begin = wire_begin(out, 'E');
    wire_put_cstring(out, PORTAL);
    wire_put32(out, (int32_t)next_chunk(part));
    wire_end(out, begin);
    wire_put_simple(out, 'S');
}

/* Opens the portal and asks for its first rows. */
static void open_portal(struct change *change, int index, const struct scatter_ask *ask,
                        const struct shard_query *query, enum shard_formats formats)
{
    struct change_part *part = &change->parts[index];
    struct buffer out = {0};
    if (part->opened)
        wire_put_close(&out, 'P', PORTAL);
    part->query = query;
    part->opened = true;
    part->done = false;
    part->rows = part->bytes = 0;
    shard_query_put_portal(ask, query, formats, 0, PORTAL, &out);
    put_fetch(part, &out);
    change_send(change, index, &out, 1);
}

static bool all_read(const struct change *change)
{
    for (int i = 0; i < change->nparts; i++)
        if (change->parts[i].query && !change->parts[i].done)
            return false;
    return true;
}

static void fetch_more(struct change *change)
{
    for (int i = 0; i < change->nparts; i++) {
        struct change_part *part = &change->parts[i];
        struct buffer out = {0};
        if (!part->query || part->done)
            continue;
        put_fetch(part, &out);
        change_send(change, i, &out, 1);
    }
}

static void forget_portals(struct change *change)
{
    for (int i = 0; i < change->nparts; i++)
        change->parts[i].query = NULL;
}

/* ---- CHECKING ---- */

static void check(struct change *change)
{
    struct buffer out = {0};
    const struct prepared *declared = change->scatter->ask.prepared;
    change->phase = CHANGE_CHECKING;
    wire_put_parse(&out, "", change->plan->text, declared ? declared->types : NULL,
                   declared ? declared->ntypes : 0);
    wire_put_describe(&out, 'S', "");
    wire_put_simple(&out, 'S');
    change_send(change, (int)change->plan->judge, &out, 1);
}

static void take_types(struct change *change, const char *body, size_t len)
{
    struct wire_reader reader = wire_reader(body, len);
    int count = (uint16_t)wire_read16(&reader);
    free(change->typed.types);
    change->typed.types = mem_alloc(sizeof(uint32_t) * ((size_t)count + 2));
    for (int i = 0; i < count; i++)
        change->typed.types[i] = (uint32_t)wire_read32(&reader);
    change->typed.ntypes = count;
}

/* The statement's own RowDescription, in the formats that the client has asked for. */
static void describe(struct change *change, const char *body, size_t len)
{
    struct scatter *scatter = change->scatter;
    const struct scatter_ask *ask = &scatter->ask;
    struct wire_reader reader = wire_reader(body, len);
    int count = ask->result_formats_len >= 2 ? wire_get16(ask->result_formats) : 0;
    scatter->described = true;
    if (!ask->describe)
        return;
    size_t begin = wire_begin(&scatter->out, 'T');
    int columns = wire_read16(&reader);
    wire_put16(&scatter->out, columns);
    for (int i = 0; i < columns && !reader.bad; i++) {
        int at = count == 1 ? 0 : i;
        wire_put_cstring(&scatter->out, wire_read_cstring(&reader));
        const char *middle = wire_read_bytes(&reader, 16);
        if (middle)
            wire_put_bytes(&scatter->out, middle, 16);
        wire_read16(&reader);
        wire_put16(&scatter->out,
                   at < count ? wire_get16(ask->result_formats + 2 + 2 * (size_t)at) : 0);
    }
    wire_end(&scatter->out, begin);
}

/* ---- gathering ---- */

static const struct gather_table *table(const struct change *change)
{
    return &gathered(change)->tables[change->table];
}

static void make_table(struct change *change)
{
    struct buffer out = {0};
    int syncs = 1;
    change->phase = CHANGE_MAKING;
    change->table_rows = 0;
    change->scatter->parts[home(change)].server->gathered = true;
    for (int i = 0; !change->table && i < gathered(change)->nchecks; i++, syncs++)
        wire_put_query(&out, gathered(change)->checks[i]);
    shard_query_put(&change->ask,
                    table(change)->rows_here ? &table(change)->create : &table(change)->make,
                    &(struct shard_form){.formats = SHARD_TEXT}, &out);
    change_send(change, home(change), &out, syncs);
}

static void collect(struct change *change)
{
    const struct gather_table *from = table(change);
    change->phase = CHANGE_COLLECTING;
    forget_portals(change);
    for (int i = 0; i < from->nshards; i++) {
        struct shard_query *query = &change->parts[from->shards[i]].own;
        *query = *gather_source(from, from->shards[i]);
        if (from->identified)
            query->sql = change_of_shard(query->sql, from->shards[i], &change->scatter->arena);
        open_portal(change, (int)from->shards[i], &change->ask, query,
                    from->text ? SHARD_TEXT : SHARD_BINARY);
    }
}

static void feed(struct change *change)
{
    struct buffer out = {0};
    bool text = table(change)->text;
    change->phase = CHANGE_FEEDING;
    wire_put_query(&out, arena_printf(&change->scatter->arena, "COPY %s FROM STDIN%s",
                                      table(change)->relation, text ? "" : " (FORMAT binary)"));
    if (!text)
        gather_put_header(&out);
    buffer_append(&out, buffer_head(&change->feed), buffer_length(&change->feed));
    buffer_clear(&change->feed);
    gather_put_end(&out, text);
    change_send(change, home(change), &out, 1);
}

static void put_about_tables(struct change *change, const char *command, struct buffer *out)
{
    struct buffer sql = {0};
    buffer_printf(&sql, "%s ", command);
    for (int i = 0; i < gathered(change)->ntables; i++)
        buffer_printf(&sql, "%s%s", i ? ", " : "", gathered(change)->tables[i].relation);
    buffer_append(&sql, "", 1);
    wire_put_query(out, buffer_head(&sql));
    buffer_release(&sql);
}

/* The query finds them as gather.c leaves them. */
int change_put_finishing(struct change *change, struct buffer *out)
{
    int count = 0;
    for (int i = 0; i < gathered(change)->ntables; i++) {
        if (!gathered(change)->tables[i].add_key)
            continue;
        wire_put_query(out, gathered(change)->tables[i].add_key);
        count++;
    }
    if (change->most_rows >= ANALYZE_ROWS) {
        put_about_tables(change, "ANALYZE", out);
        count++;
    }
    return count;
}

static void collected_row(struct change *change, const char *body, size_t len)
{
    change->table_rows++;
    change->bytes += (int64_t)len;
    if (!gather_put_row(&change->feed, table(change)->text, body, len))
        change_fail(change, "08P01", "a shard sent a malformed row", NULL);
    check_size(change);
}

static void check_size(struct change *change)
{
    int64_t most = change->scatter->client->topology->config->max_gather;
    if (!most || change->bytes <= most)
        return;
    change_fail(change, "53400",
                arena_printf(&change->scatter->arena,
                             "the rows that this change needs at once are more than "
                             "limits.max_gather allows (%lld bytes so far)",
                             (long long)change->bytes),
                "Change fewer rows with each statement, or raise limits.max_gather.");
}

/* ---- LOOKING ---- */

static void look(struct change *change)
{
    const struct change_move *move = change->plan->move;
    change->phase = CHANGE_LOOKING;
    for (int i = 0; i < change->plan->nlook_at; i++) {
        struct buffer out = {0};
        shard_query_put(&change->ask, &move->looks[i], &(struct shard_form){.formats = SHARD_TEXT},
                        &out);
        wire_put_query(&out, move->checks);
        change_send(change, (int)change->plan->look_at[i], &out, 2);
    }
}

/* Identities have no character that would need an escape. */
static void list_row(struct change *change, struct buffer *list, const char *row, int32_t length)
{
    buffer_append(list, buffer_length(list) ? ",\"" : "{\"", 2);
    buffer_append(list, row, (size_t)length);
    buffer_append(list, "\"", 1);
    change->bytes += length + 3;
}

/* A row of the query, (identity, parts of the key), or of the checks. */
static void looked_row(struct change *change, int index, const char *body, size_t len)
{
    struct change_part *part = &change->parts[index];
    struct wire_reader reader = wire_reader(body, len);
    int columns = wire_read16(&reader);
    int32_t length = wire_read32(&reader);
    const char *row = length >= 0 ? wire_read_bytes(&reader, (size_t)length) : NULL;
    if (columns == 1) {
        if (row)
            snprintf(part->reason, sizeof part->reason, "%.*s", (int)length, row);
        return;
    }
    struct change_value key[SHARDMAP_MAX_PARTS];
    unsigned shard, nkeys = change->plan->rows.nkeys;
    for (unsigned i = 0; i < nkeys; i++) {
        int32_t size = wire_read32(&reader);
        const char *bytes = size >= 0 ? wire_read_bytes(&reader, (size_t)size) : NULL;
        key[i] = (struct change_value){0, bytes, size};
    }
    if (reader.bad || !row || columns != (int)nkeys + 1) {
        change_fail(change, "08P01", "a shard sent a malformed row", NULL);
        return;
    }
    if (!change_find_shard(change, key, &shard))
        return;
    bool stays = shard == (unsigned)index;
    list_row(change, stays ? &part->stay : &part->go, row, length);
    part->nstay += stays;
    part->ngo += !stays;
    check_size(change);
}

static const char *explain(struct change *change, const char *reason)
{
    const char *name = change->plan->rows.table;
    struct arena *arena = &change->scatter->arena;
    if (strcmp(reason, "columns") == 0)
        return arena_printf(arena, "the columns of table \"%s\" have changed a moment ago", name);
    if (strcmp(reason, "children") == 0)
        return arena_printf(arena, "table \"%s\" has inheritance children, whose rows", name);
    return arena_printf(arena,
                        "rows of other tables are deleted, or lose their reference, together "
                        "with those of \"%s\", which",
                        name);
}

/* Nothing that is not known to go with the rows may be lost with them. */
static bool may_move(struct change *change)
{
    for (int i = 0; i < change->nparts; i++) {
        const struct change_part *part = &change->parts[i];
        if (!part->ngo || !part->reason[0])
            continue;
        bool again = strcmp(part->reason, "columns") == 0;
        change_fail(
            change, again ? "55000" : "0A000",
            arena_printf(&change->scatter->arena, "%s%s", explain(change, part->reason),
                         again ? "" : " cannot be moved to another shard by a change of the key"),
            again ? "Run the statement again."
                  : "Insert the row under its new key, change what refers to it, and delete "
                    "the old one, in one transaction.");
        return false;
    }
    return true;
}

/* ---- the rows ---- */

/* Calls `visit` for each shard that gives rows, with what it is asked. False: there is none. */
static bool ask_for_rows(struct change *change,
                         void (*visit)(struct change *, int, const struct scatter_ask *,
                                       const struct shard_query *))
{
    const struct change_plan *plan = change->plan;
    bool any = false;
    for (int i = 0; !plan->move && i < plan->nsources; i++, any = true)
        visit(change, (int)plan->sources[i].shard, &change->ask, &plan->sources[i]);
    for (int i = 0; plan->move && i < change->nparts; i++) {
        struct scatter_ask ask;
        if (!change->parts[i].ngo)
            continue;
        list_rows(change, &change->parts[i].go, &ask);
        visit(change, i, &ask, &plan->move->go);
        change->parts[i].go.end--; /* the list may be needed again */
        any = true;
    }
    return any;
}

static void describe_rows(struct change *change, int index, const struct scatter_ask *ask,
                          const struct shard_query *query)
{
    struct buffer out = {0};
    int syncs = 1;
    if (change->phase == CHANGE_DESCRIBING) /* one tells for all */
        return;
    change->phase = CHANGE_DESCRIBING;
    if (gathered(change))
        syncs += change_put_finishing(change, &out);
    shard_query_put_portal(ask, query, SHARD_TEXT, 0, "", &out);
    wire_put_simple(&out, 'S');
    change_send(change, index, &out, syncs);
}

static void read_rows(struct change *change, int index, const struct scatter_ask *ask,
                      const struct shard_query *query)
{
    struct scatter_ask formatted = *ask;
    formatted.result_formats = buffer_head(&change->formats);
    formatted.result_formats_len = buffer_length(&change->formats);
    change->scatter->parts[index].server->wrote |= change->plan->move != NULL || !gathered(change);
    open_portal(change, index, &formatted, query, SHARD_AS_ASKED);
}

static void start_reading(struct change *change)
{
    forget_portals(change);
    ask_for_rows(change, read_rows);
    change->phase = CHANGE_READING;
}

/* The rows that keep their shard. */
static void update_in_place(struct change *change)
{
    change->phase = CHANGE_STAYING;
    for (int i = 0; i < change->nparts; i++) {
        struct change_part *part = &change->parts[i];
        struct scatter_ask ask;
        struct buffer out = {0};
        if (!part->nstay)
            continue;
        list_rows(change, &part->stay, &ask);
        shard_query_put(&ask, &change->plan->move->stay,
                        &(struct shard_form){.formats = SHARD_AS_ASKED}, &out);
        buffer_release(&part->stay);
        change->scatter->parts[i].server->wrote = true;
        change_send(change, i, &out, 1);
    }
}

static void insert(struct change *change)
{
    change->phase = CHANGE_INSERTING;
    change_insert(change, all_read(change));
    check_size(change);
}

/* Rows that were found, and locked, are changed all, and each once. */
static bool is_complete(struct change *change)
{
    if (change->plan->rows.by_shard && change->counted != change->given) {
        change_fail(change, "40001",
                    "rows that were found to be changed were changed meanwhile, or kept back by a "
                    "trigger",
                    "Nothing was changed; run the statement again.");
        return false;
    }
    for (int i = 0; change->plan->move && i < change->nparts; i++) {
        const struct change_part *part = &change->parts[i];
        if (part->stayed == part->nstay && (!part->ngo || part->rows == part->ngo))
            continue;
        change_fail(change, "27000",
                    "a row that gets another key was changed or kept back by a trigger, or is "
                    "joined with several rows",
                    "Change such rows one by one: insert the row under its new key and delete the "
                    "old one, in one transaction.");
        return false;
    }
    return true;
}

static int64_t moved(const struct change *change)
{
    int64_t count = 0;
    for (int i = 0; i < change->nparts; i++)
        count += change->parts[i].ngo;
    return count;
}

/* ---- the end ---- */

static void clear(struct change *change)
{
    bool block = change->scatter->client->tx != NULL;
    change->phase = CHANGE_CLEARING;
    for (int i = 0; block && i < change->nparts; i++) {
        struct buffer out = {0};
        int syncs = 0;
        if (change->parts[i].opened) {
            wire_put_close(&out, 'P', PORTAL);
            wire_put_simple(&out, 'S');
            syncs++;
        }
        if (gathered(change) && i == home(change)) {
            put_about_tables(change, "DROP TABLE", &out);
            syncs++;
        }
        if (syncs)
            change_send(change, i, &out, syncs);
    }
}

static void tell(struct change *change)
{
    struct scatter *scatter = change->scatter;
    int64_t count = moved(change);
    struct pg_error notice = {.severity = "NOTICE", .sqlstate = "00000"};
    char tag[48];
    if (change->plan->create && (!change->plan->create->everywhere || change->exists))
        return; /* a server has said it */
    snprintf(tag, sizeof tag, "%s %lld", change->plan->verb, (long long)change->counted);
    free(scatter->parts[0].tag);
    scatter->parts[0].tag = mem_strdup(tag);
    if (!count)
        return;
    notice.message =
        arena_printf(&scatter->arena, "%lld row%s of table \"%s\" moved to the shard of %s new key",
                     (long long)count, count == 1 ? "" : "s", change->plan->rows.table,
                     count == 1 ? "its" : "their");
    wire_put_notice(&scatter->out, &notice);
}

/* What a commit could still fail of, and who has something to commit. */
static void settle(struct change *change)
{
    struct scatter *scatter = change->scatter;
    change->phase = CHANGE_SETTLING;
    tell(change);
    for (int i = 0; i < change->nparts; i++) {
        scatter->parts[i].complete = true;
        if (scatter->ends_itself)
            send_sql(change, i, COMMIT_CHECK);
    }
}

/* ---- course ---- */

static void after_tables(struct change *change)
{
    if (change->plan->move) {
        look(change);
        return;
    }
    if (change->plan->create && !change->plan->create->everywhere) {
        change_create(change);
        return;
    }
    ask_for_rows(change, describe_rows);
}

static void next_table(struct change *change)
{
    if (change->table_rows > change->most_rows)
        change->most_rows = change->table_rows;
    if (change->phase != CHANGE_CHECKING && change->phase != CHANGE_CREATING)
        change->table++;
    if (gathered(change) && change->table < gathered(change)->ntables)
        make_table(change);
    else
        after_tables(change);
}

static void after_looking(struct change *change)
{
    if (may_move(change) && !ask_for_rows(change, describe_rows))
        update_in_place(change);
}

static void after_inserting(struct change *change)
{
    if (!all_read(change)) {
        change->phase = CHANGE_READING;
        fetch_more(change);
    } else if (is_complete(change)) {
        clear(change);
    }
}

static void collected(struct change *change)
{
    if (buffer_length(&change->feed))
        feed(change);
    else
        next_table(change);
}

static void fed(struct change *change)
{
    change->phase = CHANGE_COLLECTING;
    if (all_read(change))
        next_table(change);
    else
        fetch_more(change);
}

static void after_creating(struct change *change)
{
    if (change->plan->create->exists && !change->looked) {
        change->looked = true;
        change_create(change);
    } else if (change_create_goes_on(change)) {
        next_table(change);
    } else {
        clear(change);
    }
}

/* After all answers of the phase. */
static void step(struct change *change)
{
    switch (change->phase) {
    case CHANGE_STARTED:
        check(change);
        break;
    case CHANGE_CHECKING:
        if (change->plan->create && change->plan->create->everywhere)
            change_create(change);
        else
            next_table(change);
        break;
    case CHANGE_MAKING:
        collect(change);
        break;
    case CHANGE_COLLECTING:
        collected(change);
        break;
    case CHANGE_FEEDING:
        fed(change);
        break;
    case CHANGE_LOOKING:
        failpoint("change_looked");
        after_looking(change);
        break;
    case CHANGE_DESCRIBING:
        start_reading(change);
        break;
    case CHANGE_READING:
        failpoint("change_read");
        if (change->plan->move && !change->stayed)
            update_in_place(change);
        else
            insert(change);
        break;
    case CHANGE_STAYING:
        failpoint("change_stayed");
        change->stayed = true;
        insert(change);
        break;
    case CHANGE_INSERTING:
        failpoint("change_inserted");
        after_inserting(change);
        break;
    case CHANGE_CREATING:
        failpoint("change_created");
        after_creating(change);
        break;
    case CHANGE_CLEARING:
        settle(change);
        break;
    case CHANGE_SETTLING:
        failpoint("change_settled");
        change->phase = CHANGE_DONE;
        break;
    case CHANGE_DONE:
        break;
    }
}

bool change_advance(struct change *change)
{
    struct scatter *scatter = change->scatter;
    while (!scatter->failed && !scatter->awaited && change->phase != CHANGE_DONE) {
        if (buffer_length(&scatter->out) > OUT_MAX)
            client_answer(scatter->client, &scatter->out);
        if (conn_queued(&scatter->client->conn) > OUT_MAX)
            return false; /* comes back when the client has taken it */
        step(change);
    }
    return scatter->failed ? !scatter->awaited : change->phase == CHANGE_DONE;
}

/* ---- messages ---- */

static void read_row(struct change *change, int index, const char *body, size_t len)
{
    struct change_part *part = &change->parts[index];
    part->rows++;
    part->bytes += (int64_t)len;
    if (change->phase == CHANGE_COLLECTING)
        collected_row(change, body, len);
    else
        change_take_row(change, body, len);
}

/* Of a reference table's rows, those of the first shard are the answer. */
static bool counts(const struct change *change, int index)
{
    return change->plan->rows.key || change->plan->rows.by_shard || index == 0;
}

static void answer_row(struct change *change, int index, const char *body, size_t len)
{
    struct buffer *out = &change->scatter->out;
    if (!counts(change, index))
        return;
    size_t begin = wire_begin(out, 'D');
    wire_put_bytes(out, body, len);
    wire_end(out, begin);
}

static void row(struct change *change, int index, const char *body, size_t len)
{
    switch ((int)change->phase) {
    case CHANGE_COLLECTING:
    case CHANGE_READING:
        read_row(change, index, body, len);
        break;
    case CHANGE_LOOKING:
        looked_row(change, index, body, len);
        break;
    case CHANGE_CREATING:
        change_create_row(change, body, len);
        break;
    case CHANGE_STAYING:
    case CHANGE_INSERTING:
        answer_row(change, index, body, len);
        break;
    default:
        break;
    }
}

static void completed(struct change *change, int index, const char *body, size_t len)
{
    if (!len || body[len - 1] != '\0')
        return;
    int64_t rows = wire_tag_rows(body);
    switch ((int)change->phase) {
    case CHANGE_COLLECTING:
    case CHANGE_READING:
        change->parts[index].done = true;
        break;
    case CHANGE_STAYING:
        change->parts[index].stayed = rows;
        change->counted += rows;
        break;
    case CHANGE_INSERTING:
        if (counts(change, index))
            change->counted += rows;
        break;
    case CHANGE_CREATING:
        change_created(change, index, body);
        break;
    default:
        break;
    }
}

void change_message(struct change *change, int index, char type, const char *body, size_t len)
{
    if (change->scatter->failed)
        return;
    switch (type) {
    case 't':
        if (change->phase == CHANGE_CHECKING)
            take_types(change, body, len);
        break;
    case 'T':
        if (change->phase == CHANGE_CHECKING)
            describe(change, body, len);
        else if (change->phase == CHANGE_DESCRIBING)
            change_take_columns(change, body, len);
        break;
    case 'D':
        row(change, index, body, len);
        break;
    case 'C':
    case 'I':
        completed(change, index, type == 'I' ? "" : body, type == 'I' ? 1 : len);
        break;
    default:
        break;
    }
}

/* ---- life ---- */

struct change *change_start(struct scatter *scatter)
{
    const struct plan *plan = scatter->plan;
    int nparts = scatter->nparts;
    struct change *change = mem_alloc(sizeof *change + sizeof(struct change_part) * (size_t)nparts);
    int list = plan->change->move ? plan->change->move->list : 0;
    change->scatter = scatter;
    change->plan = plan->change;
    change->nparts = nparts;
    change->skip = plan->change->rows.skip;
    for (unsigned k = 0; k < plan->change->rows.nkeys; k++)
        change->key_at[k] = plan->change->rows.keys[k].position;
    change->ask = scatter->ask;
    if (scatter->ask.params)
        change->params = *scatter->ask.params;
    change->ask.params = &change->params;
    change->ask.prepared = &change->typed;
    change->listed.items = mem_alloc(sizeof(struct param) * ((size_t)list + 1));
    change->listed.count = list + 1;
    return change;
}

void change_free(struct change *change)
{
    if (!change)
        return;
    for (int i = 0; i < change->nparts; i++) {
        buffer_release(&change->parts[i].in);
        buffer_release(&change->parts[i].stay);
        buffer_release(&change->parts[i].go);
    }
    buffer_release(&change->feed);
    buffer_release(&change->formats);
    free(change->column_types);
    buffer_release(&change->names);
    free(change->typed.types);
    free((void *)change->listed.items);
    free(change);
}
