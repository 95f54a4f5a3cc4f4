/* pipe.c: statements sent ahead of the answers to those before. */
#include "resharder/pipe.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "pgshunt/arena.h"

#define UNSENT_MAX (128 * 1024) /* more waits until the server has taken it */
#define EXPECTED_MAX 1024

/* ---- failures ---- */

bool pipe_fail(struct pipe *pipe, const char *text)
{
    if (pipe->failed)
        return false;
    pipe->failed = true;
    pipe->error = (struct db_error){.text = ""};
    size_t used = 0;
    for (const char *p = text; *p && used + 1 < sizeof pipe->error.text; p++)
        pipe->error.text[used++] = *p == '\n' || *p == '\t' ? ' ' : *p;
    while (used && pipe->error.text[used - 1] == ' ')
        pipe->error.text[--used] = '\0';
    return false;
}

static bool lost(struct pipe *pipe)
{
    return pipe_fail(pipe, PQerrorMessage(pipe->pg));
}

static const char *field_of(const PGresult *result, int field)
{
    const char *text = PQresultErrorField(result, field);
    return text ? text : "";
}

static void refused(struct pipe *pipe, const PGresult *result)
{
    if (pipe->failed)
        return;
    const char *primary = field_of(result, PG_DIAG_MESSAGE_PRIMARY);
    const char *detail = field_of(result, PG_DIAG_MESSAGE_DETAIL);
    struct db_error *error = &pipe->error;
    pipe_fail(pipe, *primary ? primary : PQresultErrorMessage(result));
    size_t used = strlen(error->text);
    if (*detail)
        snprintf(error->text + used, sizeof error->text - used, " (%s)", detail);
    snprintf(error->sqlstate, sizeof error->sqlstate, "%s", field_of(result, PG_DIAG_SQLSTATE));
    snprintf(error->hint, sizeof error->hint, "%s", field_of(result, PG_DIAG_MESSAGE_HINT));
}

/* ---- opening ---- */

bool pipe_open(struct pipe *pipe, struct db *db, void *arg, void (*attend)(void *arg),
               const volatile sig_atomic_t *stop)
{
    *pipe = (struct pipe){.db = db, .arg = arg, .attend = attend, .stop = stop};
    pipe->pg = db_connection(db);
    if (!db_is_open(db) || PQsetnonblocking(pipe->pg, 1) != 0 || !PQenterPipelineMode(pipe->pg))
        return pipe_fail(pipe, "the connection is lost");
    return true;
}

void pipe_close(struct pipe *pipe)
{
    db_close(pipe->db);
    free(pipe->ring);
    *pipe = (struct pipe){.failed = true};
}

/* ---- answers ---- */

static struct pipe_expected *first_of(struct pipe *pipe)
{
    return &pipe->ring[pipe->head];
}

static void drop_first(struct pipe *pipe)
{
    pipe->head = (pipe->head + 1) % pipe->room;
    pipe->count--;
    pipe->has_result = false;
}

static void tell(struct pipe *pipe, const PGresult *result)
{
    const struct pipe_expected *expected = first_of(pipe);
    if (expected->take && !pipe->failed)
        expected->take(pipe->arg, expected, result);
}

static void take_result(struct pipe *pipe, PGresult *result)
{
    switch ((int)PQresultStatus(result)) {
    case PGRES_PIPELINE_SYNC:
        tell(pipe, result);
        drop_first(pipe);
        break;
    case PGRES_COMMAND_OK:
    case PGRES_TUPLES_OK:
        pipe->has_result = true;
        tell(pipe, result);
        break;
    case PGRES_PIPELINE_ABORTED: /* behind a failure */
        pipe->has_result = true;
        break;
    default:
        pipe->has_result = true;
        refused(pipe, result);
    }
    PQclear(result);
}

static bool take_some(struct pipe *pipe)
{
    /* NULL ends a statement's results; where none has come it means that there is nothing yet. */
    while (pipe->count && !PQisBusy(pipe->pg)) {
        PGresult *result = PQgetResult(pipe->pg);
        if (result)
            take_result(pipe, result);
        else if (pipe->has_result)
            drop_first(pipe);
        else
            break;
    }
    return !pipe->failed;
}

bool pipe_take(struct pipe *pipe)
{
    if (pipe->failed)
        return false;
    if (!PQconsumeInput(pipe->pg)) {
        (void)take_some(pipe); /* the server's last words */
        return lost(pipe);
    }
    return take_some(pipe);
}

/* ---- waiting ---- */

static bool send_some(struct pipe *pipe)
{
    int left = PQflush(pipe->pg);
    if (left < 0)
        return lost(pipe);
    if (left == 0)
        pipe->unsent = 0;
    return true;
}

static bool wait_once(struct pipe *pipe)
{
    if (!send_some(pipe))
        return false;
    struct pollfd socket = {.fd = PQsocket(pipe->pg),
                            .events = (short)(POLLIN | (pipe->unsent ? POLLOUT : 0))};
    poll(&socket, 1, PIPE_ATTEND_MS);
    pipe->waiting = true;
    pipe->attend(pipe->arg);
    pipe->waiting = false;
    if (pipe->stop && *pipe->stop)
        return pipe_fail(pipe, "interrupted");
    return pipe_take(pipe);
}

/* Until it is asked to, the server sends answers only when it has a buffer full of them. */
static bool ask_for_answers(struct pipe *pipe)
{
    if (!pipe->unasked)
        return true;
    pipe->unasked = false;
    return PQsendFlushRequest(pipe->pg) || lost(pipe);
}

bool pipe_wait(struct pipe *pipe, size_t left)
{
    if (!pipe_take(pipe) || (pipe->count > left && !ask_for_answers(pipe)))
        return false;
    while (pipe->count > left)
        if (!wait_once(pipe))
            return false;
    return send_some(pipe);
}

static bool make_room(struct pipe *pipe)
{
    if (pipe->unsent > UNSENT_MAX && !send_some(pipe))
        return false;
    while (pipe->unsent > UNSENT_MAX)
        if (!wait_once(pipe))
            return false;
    return pipe->count < EXPECTED_MAX || pipe_wait(pipe, EXPECTED_MAX / 2);
}

/* ---- sending ---- */

static bool expect(struct pipe *pipe, int sent, const struct pipe_expected *expected, size_t bytes)
{
    if (!sent)
        return lost(pipe);
    if (pipe->count == pipe->room) {
        size_t room = pipe->room ? 2 * pipe->room : 64;
        struct pipe_expected *ring = mem_alloc(room * sizeof *ring);
        for (size_t i = 0; i < pipe->count; i++)
            ring[i] = pipe->ring[(pipe->head + i) % pipe->room];
        free(pipe->ring);
        pipe->ring = ring;
        pipe->head = 0;
        pipe->room = room;
    }
    pipe->ring[(pipe->head + pipe->count++) % pipe->room] =
        expected ? *expected : (struct pipe_expected){.take = NULL};
    pipe->unsent += bytes + 32;
    pipe->unasked = true;
    return make_room(pipe);
}

bool pipe_prepare(struct pipe *pipe, const char *name, const char *sql, int ntypes,
                  const uint32_t *types)
{
    if (pipe->failed)
        return false;
    int sent = PQsendPrepare(pipe->pg, name, sql, ntypes, types);
    return expect(pipe, sent, NULL, strlen(sql) + 4 * (size_t)ntypes);
}

static size_t bytes_of(const struct pipe_parameters *parameters)
{
    size_t bytes = 0;
    for (int i = 0; i < parameters->count; i++)
        bytes += 4 + (!parameters->values[i] ? 0
                      : parameters->lengths  ? (size_t)parameters->lengths[i]
                                             : strlen(parameters->values[i]));
    return bytes;
}

bool pipe_query(struct pipe *pipe, const char *sql, const struct pipe_parameters *parameters,
                const struct pipe_expected *expected)
{
    if (pipe->failed)
        return false;
    int sent = PQsendQueryParams(pipe->pg, sql, parameters->count, NULL, parameters->values,
                                 parameters->lengths, parameters->formats, 0);
    return expect(pipe, sent, expected, strlen(sql) + bytes_of(parameters));
}

bool pipe_execute(struct pipe *pipe, const char *name, const struct pipe_parameters *parameters,
                  const struct pipe_expected *expected)
{
    if (pipe->failed)
        return false;
    int sent = PQsendQueryPrepared(pipe->pg, name, parameters->count, parameters->values,
                                   parameters->lengths, parameters->formats, 0);
    return expect(pipe, sent, expected, bytes_of(parameters));
}

bool pipe_run(struct pipe *pipe, const char *sql, const struct pipe_expected *expected)
{
    const struct pipe_parameters none = {.count = 0};
    return pipe_query(pipe, sql, &none, expected);
}

bool pipe_sync(struct pipe *pipe, const struct pipe_expected *expected)
{
    if (pipe->failed)
        return false;
    bool sent = expect(pipe, PQpipelineSync(pipe->pg), expected, 5);
    pipe->unasked = false;
    return sent && send_some(pipe);
}

static void keep_rows(void *arg, const struct pipe_expected *expected, const PGresult *result)
{
    (void)arg;
    PGresult **kept = expected->object;
    *kept = PQcopyResult(result, PG_COPYRES_ATTRS | PG_COPYRES_TUPLES);
}

PGresult *pipe_ask(struct pipe *pipe, const char *sql, const struct pipe_parameters *parameters)
{
    const struct pipe_parameters none = {.count = 0};
    PGresult *kept = NULL;
    struct pipe_expected expected = {.take = keep_rows, .object = &kept};
    if (!pipe_query(pipe, sql, parameters ? parameters : &none, &expected) || !pipe_wait(pipe, 0)) {
        PQclear(kept);
        return NULL;
    }
    return kept;
}
