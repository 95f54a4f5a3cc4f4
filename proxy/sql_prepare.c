/*
 * sql_prepare.c: PREPARE and EXECUTE of SQL in transaction mode. The client's names are its own; on servers
 * a statement has the name made from its content, and is prepared where it is missing.
 *
 *   PREPARE p (int) AS q   sent as PREPARE pgshunt_... (int) AS q, once, for the server to judge
 *   EXECUTE p (1)          sent as EXECUTE pgshunt_... (1), that statement ahead where it is missing; in a
 *                          database of several shards to where q with (1)::int in place of $1 would go, and
 *                          where that is several shards q itself is sent like that
 *
 * The same where EXPLAIN or CREATE TABLE AS is about an EXECUTE. Names are shared with Parse, as in Postgres.
 */
#include "proxy/extended.h"

#include <string.h>

#include "pgshunt/arena.h"
#include "pgshunt/prepare_text.h"
#include "pgshunt/wire.h"
#include "proxy/pins.h"
#include "proxy/pool.h"
#include "proxy/series.h"

/* The EXECUTE a statement is, or is about; NULL: there is none. */
static const struct statement *execute_in(const struct statement *statement)
{
    while (statement &&
           (statement->kind == STMT_EXPLAIN || statement->kind == STMT_CREATE_TABLE_AS))
        statement = statement->inner;
    return statement && statement->kind == STMT_EXECUTE ? statement : NULL;
}

static bool is_failed(const struct client *client)
{
    return client->tx && client->tx->state == TX_FAILED;
}

/* ---- EXECUTE ---- */

struct mapping {
    struct prepared *prepared; /* what the name stands for */
    const char *text;          /* all of `sql` with the servers' name */
    const char
        *in_place;   /* all of `sql` with the query, its values in place; several shards only */
    bool miscounted; /* it gives more or fewer values than the query has parameters */
    struct text_shift shift; /* of `text`, against `sql` */
};

static const char *span(struct arena *arena, const char *text, const struct text_span *at)
{
    return arena_strndup(arena, text + at->start, at->end - at->start);
}

static const char **spans(struct arena *arena, const char *text, const struct prepare_text *parts)
{
    const char **texts = arena_array(arena, const char *, parts->nargs + 1);
    for (int i = 0; i < parts->nargs; i++)
        texts[i] = span(arena, text, &parts->args[i]);
    return texts;
}

/* Types as PREPARE had them. */
static int declared_types(struct arena *arena, const struct prepared *prepared,
                          const char *const **types)
{
    struct prepare_text parts;
    *types = NULL;
    if (!prepared->prepare_sql)
        return 0;
    struct statement_list list = statement_parse(prepared->prepare_sql, arena);
    if (list.count != 1 || !prepare_text(list.items[0], arena, &parts))
        return 0;
    *types = spans(arena, list.items[0]->text, &parts);
    return parts.nargs;
}

static int parameters(const struct prepared *prepared, int declared)
{
    int count = prepared->statements.count ? prepared->statements.items[0]->max_param : 0;
    if (declared > count)
        count = declared;
    return prepared->ntypes > count ? prepared->ntypes : count;
}

static bool wrong_number(struct arena *arena, const char *name, int expected, int got,
                         struct pg_error *error)
{
    if (expected == got)
        return false;
    *error = (struct pg_error){
        .sqlstate = "42601",
        .message =
            arena_printf(arena, "wrong number of parameters for prepared statement \"%s\"", name),
        .detail = arena_printf(arena, "Expected %d parameters but got %d.", expected, got)};
    return true;
}

/* `sql` with another text from `start` to `end` of the EXECUTE in it. */
static const char *replaced(struct arena *arena, const char *sql, const struct statement *execute,
                            size_t start, size_t end, const char *by)
{
    int at = execute->location;
    return arena_printf(arena, "%.*s%s%s", at + (int)start, sql, by, sql + at + end);
}

/* As a server counts them in UTF-8. */
static long characters(const char *text, size_t length)
{
    long count = 0;
    for (size_t i = 0; i < length; i++)
        count += ((unsigned char)text[i] & 0xc0) != 0x80;
    return count;
}

static struct text_shift shift_of(const char *sql, const struct statement *execute,
                                  const struct text_span *name, const char *server_name)
{
    const char *at = sql + execute->location + name->start;
    long length = (long)strlen(server_name);
    return (struct text_shift){
        .behind = characters(sql, (size_t)(at - sql)) + length,
        .less = length - characters(at, name->end - name->start),
    };
}

/* False: refused, see `error`; mapping->prepared NULL: the name is none of the client's. A miscounted one has a
 * text to be refused by a server, too. */
static bool map_execute(struct client *client, const char *sql, const struct statement *execute,
                        struct mapping *mapping, struct pg_error *error)
{
    struct arena *arena = client->request.arena;
    struct prepare_text parts;
    const char *const *types;
    *mapping = (struct mapping){.prepared = extended_statement(client, execute->name)};
    if (!mapping->prepared || is_failed(client))
        return mapping->prepared = NULL, true;
    if (!prepare_text(execute, arena, &parts)) {
        *error = (struct pg_error){
            .sqlstate = "0A000",
            .message = "names of prepared statements with Unicode escapes are not supported",
            .hint = "Write the name as a plain or a quoted identifier."};
        return false;
    }
    mapping->text = replaced(arena, sql, execute, parts.name.start, parts.name.end,
                             mapping->prepared->server_name);
    mapping->shift = shift_of(sql, execute, &parts.name, mapping->prepared->server_name);
    int declared = declared_types(arena, mapping->prepared, &types);
    mapping->miscounted = wrong_number(arena, execute->name,
                                       parameters(mapping->prepared, declared), parts.nargs, error);
    if (mapping->miscounted)
        return false;
    if (client->database->nshards > 1)
        mapping->in_place =
            replaced(arena, sql, execute, 0, parts.end,
                     prepare_substitute(mapping->prepared->sql, types, declared,
                                        spans(arena, execute->text, &parts), parts.nargs, arena));
    return true;
}

/* ---- PREPARE ---- */

static struct prepared *prepared_for(struct client *client, const struct statement *prepare)
{
    struct prepare_text parts;
    if (!prepare_text(prepare, client->request.arena, &parts))
        return NULL;
    return prepared_get_sql(&client->worker->prepared, parts.query, parts.tail);
}

static bool refuse_name(struct client *client, const struct statement *prepare,
                        struct pg_error *error)
{
    if (extended_statement(client, prepare->name)) {
        *error = (struct pg_error){
            .sqlstate = "42P05",
            .message = arena_printf(client->request.arena,
                                    "prepared statement \"%s\" already exists", prepare->name)};
        return true;
    }
    return false;
}

static void answer_prepare(struct client *client)
{
    struct buffer answer = {0};
    wire_put_complete(&answer, "PREPARE");
    simple_answer(client, &answer);
}

/* ---- in a Query ---- */

static struct sql_names *names_of(struct client *client)
{
    struct request *request = &client->request;
    if (!request->names) {
        request->names = arena_new(request->arena, struct sql_names);
        request->names->asked = arena_strdup(request->arena, request->sql);
    }
    return request->names;
}

static void add_shift(struct client *client, const struct text_shift *shift)
{
    struct sql_names *names = names_of(client);
    struct text_shift *shifts =
        arena_array(client->request.arena, struct text_shift, names->nshifts + 1);
    if (names->nshifts)
        memcpy(shifts, names->shifts, sizeof *shifts * (size_t)names->nshifts);
    shifts[names->nshifts++] = *shift;
    names->shifts = shifts;
}

/* What is behind the name and the words in front of it stands as it was. */
static void note_prepare_shift(struct client *client, const struct statement *prepare,
                               const char *sent)
{
    struct prepare_text parts;
    if (!prepare_text(prepare, client->request.arena, &parts))
        return;
    long behind = characters(sent, strlen(sent) - strlen(parts.tail));
    size_t before = (size_t)prepare->location + strlen(prepare->text) - strlen(parts.tail);
    struct text_shift shift = {behind, behind - characters(names_of(client)->asked, before)};
    add_shift(client, &shift);
}

static void use_text(struct client *client, const char *text)
{
    struct request *request = &client->request;
    request->sql = text;
    request->sql_kept = true;
    request->statements = statement_parse(text, request->arena);
}

/* True: answered. */
static bool prepare_query(struct client *client, const struct statement *prepare)
{
    struct pg_error error;
    struct request *request = &client->request;
    if (is_failed(client))
        return false;
    if (refuse_name(client, prepare, &error)) {
        session_refuse(client, &error);
        return true;
    }
    struct prepared *prepared = prepared_for(client, prepare);
    if (!prepared)
        return false;
    extended_of(client);
    bool answered = batch_too_many(client, prepared);
    if (!answered && prepared->accepted == batch_judge(client)) {
        extended_define(client, prepare->name, prepared);
        answer_prepare(client);
        answered = true;
    } else if (!answered) {
        struct sql_names *names = names_of(client);
        names->making = prepare;
        names->routed = prepare->inner;
        note_prepare_shift(client, prepare, prepared->prepare_sql);
        request->sql = arena_strdup(request->arena, prepared->prepare_sql);
        request->sql_kept = true;
    }
    prepared_unref(&client->worker->prepared, prepared);
    return answered;
}

static void add_use(struct client *client, struct prepared *prepared)
{
    struct sql_names *names = names_of(client);
    for (int i = 0; i < names->nuses; i++)
        if (names->uses[i] == prepared)
            return;
    struct prepared **uses =
        arena_array(client->request.arena, struct prepared *, names->nuses + 1);
    if (names->nuses)
        memcpy(uses, names->uses, sizeof *uses * (size_t)names->nuses);
    uses[names->nuses++] = prepared;
    names->uses = uses;
}

/*
 * The statement at `index` of the message: maps the name in it. False: refused, the client was told; or the message
 * is run one by one. That is so where a wrong number of values is to be refused when its turn comes, and where
 * there are several shards: text with values in place of parameters names columns otherwise than the statement.
 */
static bool execute_query(struct client *client, int index)
{
    struct request *request = &client->request;
    const struct statement *statement = request->statements.items[index];
    const struct statement *execute = execute_in(statement);
    struct mapping mapping;
    struct pg_error error;
    bool mapped = map_execute(client, request->sql, execute, &mapping, &error);
    if (request->statements.count > 1 && (mapped ? mapping.in_place != NULL : mapping.miscounted)) {
        series_start(client);
        return false;
    }
    if (!mapped) {
        session_refuse(client, &error);
        return false;
    }
    if (!mapping.prepared)
        return true;
    names_of(client);
    bool alone = request->statements.count == 1 && statement->kind != STMT_CREATE_TABLE_AS &&
                 mapping.prepared->statements.count == 1;
    if (mapping.in_place && !alone) {
        request->names->in_place = true;
        use_text(client, mapping.in_place);
        return true;
    }
    add_use(client, mapping.prepared);
    if (alone)
        request->names->routed = mapping.in_place
                                     ? statement_parse(mapping.in_place, request->arena).items[0]
                                     : mapping.prepared->statements.items[0];
    add_shift(client, &mapping.shift);
    use_text(client, mapping.text);
    return true;
}

/* Names that the message itself prepares are the server's to know: it keeps them, and is kept. */
static bool prepares_in(const struct statement_list *list, const char *name)
{
    for (int i = 0; i < list->count; i++)
        if (list->items[i]->kind == STMT_PREPARE && strcmp(list->items[i]->name, name) == 0)
            return true;
    return false;
}

/* It would take the statement from others on that server, and leave the client its name. */
static bool refuse_deallocate(struct client *client, const struct statement *statement)
{
    static const struct pg_error error = {
        .sqlstate = "0A000",
        .message = "DEALLOCATE of this statement cannot be sent together with other statements",
        .hint = "Send it as a message of its own."};
    if (statement->kind != STMT_DEALLOCATE || !statement->name ||
        (!extended_statement(client, statement->name) &&
         strncmp(statement->name, PREPARED_PREFIX, strlen(PREPARED_PREFIX))))
        return false;
    session_refuse(client, &error);
    return true;
}

/* An EXECUTE behind the ROLLBACK of a failed block: the names mean something only when that has been run. */
static bool executes_behind(const struct client *client, const struct statement_list *list)
{
    for (int i = 1; is_failed(client) && i < list->count; i++)
        if (execute_in(list->items[i]))
            return true;
    return false;
}

bool sql_prepare_query(struct client *client)
{
    const struct request *request = &client->request;
    if (request->statements.count == 1 && request->statements.items[0]->kind == STMT_PREPARE)
        return prepare_query(client, request->statements.items[0]);
    if (executes_behind(client, &request->statements)) {
        series_start(client);
        return true;
    }
    for (int i = 0; i < request->statements.count; i++) {
        if (request->statements.count > 1 &&
            refuse_deallocate(client, request->statements.items[i]))
            return true;
        const struct statement *execute = execute_in(request->statements.items[i]);
        if (execute && !prepares_in(&request->statements, execute->name) &&
            !execute_query(client, i))
            return true;
    }
    return false;
}

bool sql_prepare_attached(struct client *client, struct server *server, struct buffer *out)
{
    const struct sql_names *names = client->request.names;
    for (int i = 0; i < names->nuses; i++)
        batch_prepare_ahead(client, server, out, names->uses[i]);
    if (!names->making)
        return false;
    struct prepared *prepared = prepared_for(client, names->making);
    bool there = marks_look(&server->marks, prepared, batch_path(client)) == MARK_HELD &&
                 !server->expect_count;
    if (there) {
        buffer_release(out);
        prepared->accepted = batch_judge(client);
        extended_define(client, names->making->name, prepared);
        answer_prepare(client);
    } else {
        batch_room_ahead(client, server, out, prepared);
    }
    prepared_unref(&client->worker->prepared, prepared);
    return there;
}

void sql_prepare_sent(struct client *client, struct server *server, struct expect *expect)
{
    const struct sql_names *names = client->request.names;
    if (names->making) {
        expect->prepared = prepared_for(client, names->making);
        expect->prepares = true;
        expect->defines = name_keep(names->making->name);
        expect->list = NULL;
        server->parsing++;
    } else if (names->routed) {
        expect->prepared = prepared_ref(names->uses[0]);
        if (client->request.statements.items[0]->kind == STMT_EXECUTE)
            expect->list = &expect->prepared->statements;
        if (!client->tx && !buffer_length(&client->request.again))
            wire_put_query(&client->request.again, names->asked); /* it may be out of date */
    }
}

/* ---- in a batch ---- */

struct prepared *sql_prepare_parse(struct client *client, struct prepared *prepared)
{
    struct prepared_table *table = &client->worker->prepared;
    const struct statement *execute =
        prepared->statements.count == 1 ? execute_in(prepared->statements.items[0]) : NULL;
    struct mapping mapping;
    struct pg_error error;
    if (!execute)
        return prepared;
    /* Values are counted at Execute: by a server, as they are computed. */
    if (!map_execute(client, prepared->sql, execute, &mapping, &error) && !mapping.miscounted) {
        prepared_unref(table, prepared);
        session_refuse(client, &error);
        return NULL;
    }
    if (!mapping.prepared)
        return prepared;
    struct prepared *mapped = prepared_get(table, mapping.text, prepared->types, prepared->ntypes);
    if (!mapped->uses)
        mapped->uses = prepared_ref(mapping.prepared);
    if (mapping.in_place && !mapped->routed)
        mapped->routed = prepared_get(table, mapping.in_place, prepared->types, prepared->ntypes);
    prepared_unref(table, prepared);
    return mapped;
}

static void answer_in_batch(struct client *client, const struct statement *prepare,
                            struct prepared *prepared)
{
    struct extended *ext = client->extended;
    struct buffer answer = {0};
    batch_define(client, prepare->name, prepared);
    wire_put_complete(&answer, "PREPARE");
    bool awaited = ext->server && ext->server->expect_count;
    batch_answer(client, &answer);
    if (awaited)
        server_last_expected(ext->server)->defines = name_keep(prepare->name);
}

/* Its text is judged by a server, as by Parse. False: try again later. */
static bool judge(struct client *client, struct prepared *prepared)
{
    if (prepared->accepted == batch_judge(client))
        return true;
    enum reach reached = batch_reach_for_description(client, prepared);
    if (reached == REACH_READY)
        batch_ensure_prepared(client, prepared, true);
    return reached != REACH_WAIT;
}

bool sql_prepare_execute(struct client *client, struct prepared *asked)
{
    struct extended *ext = client->extended;
    const struct statement *prepare = asked->statements.items[0];
    struct pg_error error = {
        .sqlstate = "25P02",
        .message =
            "current transaction is aborted, commands ignored until end of transaction block"};
    if (is_failed(client) || refuse_name(client, prepare, &error)) {
        extended_refuse(client, &error);
        return true;
    }
    struct prepared *prepared = prepared_for(client, prepare);
    if (!prepared) {
        batch_refuse(client, "0A000", "this form of PREPARE is not supported in a batch");
        return true;
    }
    bool done = batch_too_many(client, prepared) || judge(client, prepared);
    if (done && ext->state == BATCH_OPEN)
        answer_in_batch(client, prepare, prepared);
    prepared_unref(&client->worker->prepared, prepared);
    return done;
}
