/* scatter_copy.c: rows of COPY from a client to several shards, and from several shards to a client. */
#include "proxy/scatter_copy.h"

#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>

#include "pgshunt/copysplit.h"
#include "pgshunt/wire.h"

/* Less than this for a shard waits for more. */
#define SEND_MIN 32768
#define BINARY_HEADER 19

enum copy_state { COPY_OPENING, COPY_STREAMING, COPY_ENDED };

struct scatter_copy {
    struct client *client;
    const struct plan *plan;
    enum copy_state state;
    struct copy_split *split; /* NULL: every shard gets every row, or it is a COPY TO */
    int nparts, opened;
    bool described; /* TO: CopyOutResponse is out */
    bool headed;    /* TO: the header too */
    bool has_rows;
    bool *begun;          /* TO: by part, its first message was there */
    struct buffer *parts; /* FROM: rows by shard; without split only the first */
};

struct scatter_copy *scatter_copy_new(struct client *client, const struct plan *plan)
{
    struct scatter_copy *copy = mem_alloc(sizeof *copy);
    size_t most = (size_t)client->topology->config->max_message;
    copy->client = client;
    copy->plan = plan;
    copy->nparts = plan->nqueries;
    copy->begun = mem_alloc(sizeof *copy->begun * (size_t)copy->nparts);
    copy->parts = mem_alloc(sizeof *copy->parts * (size_t)copy->nparts);
    if (plan->mode == SCATTER_COPY_IN && plan->copy->keyspace)
        copy->split = copy_split_new(plan->copy, most);
    return copy;
}

void scatter_copy_free(struct scatter_copy *copy)
{
    if (!copy)
        return;
    for (int i = 0; i < copy->nparts; i++)
        buffer_release(&copy->parts[i]);
    copy_split_free(copy->split);
    free(copy->parts);
    free(copy->begun);
    free(copy);
}

/* ---- FROM STDIN ---- */

static void put_message(struct buffer *out, char type, const char *body, size_t len)
{
    size_t begin = wire_begin(out, type);
    wire_put_bytes(out, body, len);
    wire_end(out, begin);
}

bool scatter_copy_opened(struct scatter_copy *copy, const char *body, size_t len,
                         struct buffer *out)
{
    if (++copy->opened < copy->nparts || copy->state != COPY_OPENING)
        return false;
    put_message(out, 'G', body, len);
    copy->state = COPY_STREAMING;
    return true;
}

bool scatter_copy_streams(const struct scatter_copy *copy)
{
    return copy->state == COPY_STREAMING;
}

static struct server *server_of(const struct scatter_copy *copy, int part)
{
    return client_participant(copy->client, copy->plan->queries[part].shard);
}

static void send_rows(struct server *server, const struct buffer *rows)
{
    char header[WIRE_HEADER] = {'d'};
    struct iovec message[] = {{header, sizeof header}, {buffer_head(rows), buffer_length(rows)}};
    wire_set32(header + 1, (uint32_t)(4 + buffer_length(rows)));
    if (server)
        conn_sendv(&server->conn, message, 2);
}

static void send_at_least(struct scatter_copy *copy, size_t least)
{
    for (int i = 0; i < copy->nparts; i++) {
        struct buffer *rows = &copy->parts[copy->split ? i : 0];
        if (buffer_length(rows) >= least)
            send_rows(server_of(copy, i), rows);
        if (buffer_length(rows) >= least && (copy->split || i == copy->nparts - 1))
            buffer_clear(rows);
    }
}

void scatter_copy_send(struct scatter_copy *copy)
{
    if (copy->state == COPY_STREAMING)
        send_at_least(copy, SEND_MIN);
}

/* Rows by shard are in the order of the queries: a COPY FROM goes to all shards. */
bool scatter_copy_rows(struct scatter_copy *copy, const char *bytes, size_t len,
                       const struct pg_error **error)
{
    if (!copy->split) {
        buffer_append(&copy->parts[0], bytes, len);
        return true;
    }
    *error = copy_split_error(copy->split);
    return copy_split_feed(copy->split, bytes, len, copy->parts);
}

bool scatter_copy_done(struct scatter_copy *copy, const struct pg_error **error)
{
    struct buffer done = {0};
    if (copy->split && !copy_split_end(copy->split, copy->parts)) {
        *error = copy_split_error(copy->split);
        return false;
    }
    send_at_least(copy, 1);
    copy->state = COPY_ENDED;
    wire_put_simple(&done, 'c');
    for (int i = 0; i < copy->nparts; i++) {
        struct server *server = server_of(copy, i);
        if (server)
            conn_send(&server->conn, buffer_head(&done), buffer_length(&done));
    }
    buffer_release(&done);
    return true;
}

/* Behind the table's name in "COPY t, line 5", which may follow other lines; NULL: there is no such. */
static const char *behind_table(const char *where, const char *table)
{
    size_t length = strlen(table);
    for (const char *at = where; at; at = strchr(at, '\n')) {
        at += *at == '\n';
        if (strncmp(at, "COPY ", 5) == 0 && strncmp(at + 5, table, length) == 0)
            return at + 5 + length;
    }
    return NULL;
}

const char *scatter_copy_where(const struct scatter_copy *copy, int index, const char *where,
                               struct arena *arena)
{
    const char *digits = where && copy->split ? behind_table(where, copy->plan->copy->table) : NULL;
    char *end;
    if (!digits)
        return where;
    digits += strcspn(digits, "0123456789\n:\""); /* the word for "line" is of any language */
    int64_t line = strtoll(digits, &end, 10);
    if (end == digits)
        return where;
    line = copy_split_line(copy->split, (unsigned)index, line);
    if (line)
        return arena_printf(arena, "%.*s%lld%s", (int)(digits - where), where, (long long)line,
                            end);
    return arena_printf(arena, "%s\nThe line is counted among those that went to this shard.",
                        where);
}

void scatter_copy_give_up(struct scatter_copy *copy, struct server *server)
{
    struct buffer out = {0};
    if (copy->plan->mode != SCATTER_COPY_IN)
        return;
    put_message(&out, 'f', "pgshunt: another shard failed", 30);
    conn_send(&server->conn, buffer_head(&out), buffer_length(&out));
    buffer_release(&out);
}

void scatter_copy_stop(struct scatter_copy *copy)
{
    copy->state = COPY_ENDED;
}

/* ---- TO STDOUT ---- */

bool scatter_copy_is_out(const struct scatter_copy *copy)
{
    return copy->plan->mode == SCATTER_COPY_OUT;
}

bool scatter_copy_has_rows(const struct scatter_copy *copy)
{
    return copy->has_rows;
}

static bool is_trailer(const char *at, size_t len)
{
    return len == 2 && at[0] == '\377' && at[1] == '\377';
}

/* A shard's first message has the header, and the first row behind it; its last one is the trailer, which
 * is put back once. Returns what of it is for the client. */
static size_t cut_binary(struct scatter_copy *copy, bool first, const char **body, size_t len)
{
    if (first && len >= BINARY_HEADER) {
        size_t header = BINARY_HEADER + (size_t)wire_get32(*body + BINARY_HEADER - 4);
        header = header < len ? header : len;
        bool keep = !copy->headed;
        copy->headed = true;
        if (keep) /* with the row, if it is one */
            return is_trailer(*body + header, len - header) ? header : len;
        *body += header;
        len -= header;
    }
    return is_trailer(*body, len) ? 0 : len;
}

void scatter_copy_out(struct scatter_copy *copy, int index, char type, const char *body, size_t len,
                      struct buffer *out)
{
    const struct copy_rows *rows = copy->plan->copy;
    if (type == 'H') {
        if (!copy->described)
            put_message(out, 'H', body, len);
        copy->described = true;
        return;
    }
    bool first = !copy->begun[index];
    copy->begun[index] = true;
    if (rows->format == COPY_BINARY) {
        len = cut_binary(copy, first, &body, len);
        if (!len)
            return;
    } else if (first && rows->header) {
        if (copy->headed)
            return;
        copy->headed = true;
    }
    copy->has_rows = true;
    put_message(out, 'd', body, len);
}

void scatter_copy_out_end(const struct scatter_copy *copy, struct buffer *out)
{
    if (copy->plan->copy->format == COPY_BINARY)
        put_message(out, 'd', "\377\377", 2);
    wire_put_simple(out, 'c');
}
