/* batch_prepare.c: Parses of a batch: held until a server is known, then sent only where they are missing,
 * with room made for them in the same write. */
#include "proxy/extended.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "pgshunt/arena.h"
#include "pgshunt/wire.h"
#include "proxy/pool.h"

/* What SQL's PREPARE is sent under; any name that clients cannot have and contents do not make. */
#define CARRIER "pgshunt_carrier"

/* ---- what a statement means ---- */

uint32_t batch_path(const struct client *client)
{
    const char *path = client->guc ? guc_set_get(client->guc, "search_path") : NULL;
    return path ? (uint32_t)XXH3_64bits(path, strlen(path)) | 1 : 0;
}

uint64_t batch_judge(const struct client *client)
{
    uint64_t account = (uint64_t)(uintptr_t)client->account;
    uint64_t settings = client->guc ? client->guc->hash : 0;
    /* Asked for with every Parse: spread far apart by odd numbers, which is enough for few accounts and
     * versions, beside what is a hash already. */
    return (account * 0x9e3779b97f4a7c15u ^ client->schema_version * 0xc2b2ae3d27d4eb4fu ^
            settings) |
           1;
}

/* ---- held Parses ---- */

void batch_drop_held(struct extended *ext)
{
    for (int i = 0; i < ext->nheld; i++) {
        name_free(ext->held[i].name);
        prepared_unref(ext->names.table, ext->held[i].prepared);
        prepared_unref(ext->names.table, ext->held[i].older);
    }
    ext->held = batch_shrink(ext->held, &ext->held_cap);
    ext->nheld = 0;
}

void batch_hold_parse(struct client *client, const char *name, struct prepared *prepared,
                      struct prepared *older)
{
    struct extended *ext = client->extended;
    ext->held = batch_grow(ext->held, sizeof *ext->held, ext->nheld, &ext->held_cap);
    ext->held[ext->nheld++] = (struct held_parse){name_keep(name), prepared_ref(prepared), older};
}

bool batch_held_accepted(const struct client *client)
{
    const struct extended *ext = client->extended;
    uint64_t judge = ext->nheld ? batch_judge(client) : 0;
    for (int i = 0; i < ext->nheld; i++)
        if (ext->held[i].prepared->accepted != judge)
            return false;
    return true;
}

/* Answers the Parses that no server was needed for yet, without asking one. */
void batch_accept_held(struct client *client)
{
    struct extended *ext = client->extended;
    struct buffer bytes = {0};
    if (!ext->nheld)
        return;
    for (int i = 0; i < ext->nheld; i++)
        wire_put_simple(&bytes, '1');
    batch_drop_held(ext);
    batch_answer(client, &bytes);
}

/* ---- onto the server ---- */

static void put_close(struct server *server, struct buffer *out, const struct prepared_key *key)
{
    char name[PREPARED_NAME_SIZE];
    prepared_name(key, name);
    wire_put_close(out, 'S', name);
    struct expect *expect = server_expect(server, EXPECT_CLOSE);
    expect->swallow = true;
    expect_more(expect)->key = *key;
    marks_closing(&server->marks, key);
}

/* The least recently used go, so that there is room for more. What is bound already keeps its plan. */
static void make_room(const struct client *client, struct server *server, struct buffer *out,
                      int more)
{
    int limit = client->topology->config->max_prepared_statements - more - server->parsing;
    struct mark *mark;
    while ((mark = marks_surplus(&server->marks, limit > 0 ? limit : 0))) {
        const struct prepared_key key = mark->key;
        put_close(server, out, &key);
    }
}

static void expect_swallowed(struct server *server, enum expect_kind kind)
{
    server_expect(server, kind)->swallow = true;
}

/*
 * SQL's PREPARE has types by name, which only the server can resolve: it is run as a statement of its
 * own, in messages, so that it also fits between those of a batch. Its error is the client's.
 */
static void put_sql_prepare(struct server *server, struct buffer *out, struct prepared *prepared)
{
    wire_put_close(out, 'S', CARRIER);
    expect_swallowed(server, EXPECT_CLOSE);
    wire_put_parse(out, CARRIER, prepared->prepare_sql, NULL, 0);
    expect_swallowed(server, EXPECT_PARSE);
    server->parsing++;
    size_t begin = wire_begin(out, 'B');
    wire_put_cstring(out, CARRIER);
    wire_put_cstring(out, CARRIER);
    wire_put16(out, 0);
    wire_put16(out, 0);
    wire_put16(out, 0);
    wire_end(out, begin);
    expect_swallowed(server, EXPECT_BIND);
    begin = wire_begin(out, 'E');
    wire_put_cstring(out, CARRIER);
    wire_put32(out, 0);
    wire_end(out, begin);
    struct expect *expect = server_expect(server, EXPECT_EXECUTE);
    expect->swallow = expect->prepares = true;
    expect->prepared = prepared_ref(prepared);
    server->parsing++;
    wire_put_close(out, 'P', CARRIER);
    expect_swallowed(server, EXPECT_CLOSE);
}

static void ensure(struct client *client, struct server *server, struct buffer *out,
                   struct prepared *prepared, bool named);

static void send_parse(struct client *client, struct server *server, struct buffer *out,
                       struct prepared *prepared, bool named, const char *defines, bool swallow)
{
    if (prepared->uses) /* ahead of it: Parse asks what EXECUTE returns */
        ensure(client, server, out, prepared->uses, true);
    if (named && marks_look(&server->marks, prepared, batch_path(client)) == MARK_STALE)
        put_close(server, out, &prepared->key);
    if (named)
        make_room(client, server, out, 1);
    if (prepared->prepare_sql) {
        put_sql_prepare(server, out, prepared);
        return;
    }
    wire_put_parse(out, named ? prepared->server_name : "", prepared->sql, prepared->types,
                   prepared->ntypes);
    struct expect *expect = server_expect(server, EXPECT_PARSE);
    expect->prepared = prepared_ref(prepared);
    expect->unnamed = !named;
    expect->swallow = swallow;
    expect->defines = defines ? name_keep(defines) : NULL;
    *(named ? &server->parsing : &server->parsing_unnamed) += 1;
}

/* ParseComplete of our own, in its place: with the first answer of the server that comes behind it. An
 * error in front of it undoes the name. */
static void answer_parse(struct client *client, const char *name)
{
    struct expect *expect = server_expect(client->extended->server, EXPECT_LOCAL);
    expect->says = '1';
    expect->defines = name_keep(name);
}

static bool same_key(const struct prepared_key *a, const struct prepared_key *b)
{
    return a->low == b->low && a->high == b->high;
}

/* Whether a Parse of it is among those sent in this batch and not answered yet. */
static bool parse_under_way(const struct server *server, const struct prepared *prepared,
                            bool named, bool *other_unnamed)
{
    bool found = false;
    if (!(named ? server->parsing : server->parsing_unnamed))
        return false;
    for (int i = 0; i < server->expect_count; i++) {
        const struct expect *expect =
            &server->expects[(server->expect_head + i) & (server->expect_cap - 1)];
        if ((expect->kind != EXPECT_PARSE && !expect->prepares) || !expect->prepared ||
            expect->unnamed == named)
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

static void release_parse(struct client *client, struct held_parse *held)
{
    struct server *server = client->extended->server;
    bool named = batch_is_named(held->name), other;
    if (named && marks_look(&server->marks, held->prepared, batch_path(client)) == MARK_HELD) {
        marks_use(&server->marks, held->prepared);
        held->prepared->accepted = batch_judge(client); /* that server, when another client asked */
        answer_parse(client, held->name);
    } else if (named && parse_under_way(server, held->prepared, true, &other)) {
        answer_parse(client, held->name);
    } else {
        send_parse(client, server, &client->extended->out, held->prepared, named, held->name,
                   false);
        if (!named) {
            server_last_expected(server)->older = held->older;
            held->older = NULL;
        }
    }
}

void batch_release_held(struct client *client)
{
    struct extended *ext = client->extended;
    for (int i = 0; i < ext->nheld; i++)
        release_parse(client, &ext->held[i]);
    batch_drop_held(ext);
}

static void ensure(struct client *client, struct server *server, struct buffer *out,
                   struct prepared *prepared, bool named)
{
    bool other = false;
    if (prepared->uses)
        ensure(client, server, out, prepared->uses, true);
    named |= prepared->prepare_sql != NULL;
    if (parse_under_way(server, prepared, named, &other))
        return;
    if (named && marks_look(&server->marks, prepared, batch_path(client)) == MARK_HELD) {
        marks_use(&server->marks, prepared);
        if (server->marks.count > client->topology->config->max_prepared_statements)
            make_room(client, server, out, 0);
        return;
    }
    if (!named && !other && same_key(&server->unnamed, &prepared->key))
        return;
    send_parse(client, server, out, prepared, named, NULL, true);
}

void batch_ensure_prepared(struct client *client, struct prepared *prepared, bool named)
{
    struct extended *ext = client->extended;
    ensure(client, ext->server, &ext->out, prepared, named);
}

/* ---- ahead of a Query ---- */

static void end_ahead(struct server *server, struct buffer *out)
{
    wire_put_simple(out, 'S');
    struct expect *sync = server_expect(server, EXPECT_SYNC);
    sync->swallow = sync->ahead = true;
}

void batch_prepare_ahead(struct client *client, struct server *server, struct buffer *out,
                         struct prepared *prepared)
{
    if (marks_look(&server->marks, prepared, batch_path(client)) == MARK_HELD) {
        marks_use(&server->marks, prepared);
        return;
    }
    send_parse(client, server, out, prepared, true, NULL, true);
    end_ahead(server, out);
}

void batch_room_ahead(struct client *client, struct server *server, struct buffer *out,
                      struct prepared *prepared)
{
    size_t before = buffer_length(out);
    if (marks_look(&server->marks, prepared, batch_path(client)) == MARK_STALE)
        put_close(server, out, &prepared->key);
    make_room(client, server, out, 1);
    if (buffer_length(out) > before)
        end_ahead(server, out);
}
