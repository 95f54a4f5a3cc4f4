/* copyio.c: COPY through libpq without blocking in it. */
#include "pgshunt/copyio.h"

#include <poll.h>
#include <stdio.h>

#define LOOK_EVERY_MS 100
/* An answer to the end of a COPY may take its time: constraints, a full disk's checkpoint. */
#define ANSWER_MS 3600000

static bool fails(struct db_error *error, const char *text, const PGresult *result)
{
    const char *sqlstate = result ? PQresultErrorField(result, PG_DIAG_SQLSTATE) : NULL;
    const char *primary = result ? PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY) : NULL;
    const char *context = result ? PQresultErrorField(result, PG_DIAG_CONTEXT) : NULL;
    const char *hint = result ? PQresultErrorField(result, PG_DIAG_MESSAGE_HINT) : NULL;
    *error = (struct db_error){.text = ""};
    snprintf(error->text, sizeof error->text, "%s%s%s%s", primary ? primary : text,
             context ? " (" : "", context ? context : "", context ? ")" : "");
    snprintf(error->sqlstate, sizeof error->sqlstate, "%s", sqlstate ? sqlstate : "");
    snprintf(error->hint, sizeof error->hint, "%s", hint ? hint : "");
    for (char *p = error->text; *p; p++)
        if (*p == '\n' || *p == '\t')
            *p = ' ';
    return false;
}

/* False: stopped. */
static bool wait_socket(const struct copyio *io, bool for_writing, struct db_error *error)
{
    for (;;) {
        struct pollfd socket = {.fd = PQsocket(db_connection(io->db)),
                                .events = POLLIN | (for_writing ? POLLOUT : 0)};
        if (io->stop && *io->stop)
            return fails(error, "interrupted", NULL);
        if (poll(&socket, 1, LOOK_EVERY_MS) > 0)
            return true;
    }
}

bool copyio_flush(const struct copyio *io, struct db_error *error)
{
    PGconn *pg = db_connection(io->db);
    int unsent;
    while ((unsent = PQflush(pg)) > 0) {
        if (!wait_socket(io, true, error))
            return false;
        if (!PQconsumeInput(pg))
            return fails(error, PQerrorMessage(pg), NULL);
    }
    return unsent == 0 || fails(error, PQerrorMessage(pg), NULL);
}

/* The next result; NULL: there is none, or stopped or lost (then error->text is not empty). */
static PGresult *next_result(const struct copyio *io, struct db_error *error)
{
    PGconn *pg = db_connection(io->db);
    error->text[0] = '\0';
    if (!copyio_flush(io, error))
        return NULL;
    while (PQisBusy(pg)) {
        if (!wait_socket(io, false, error))
            return NULL;
        if (!PQconsumeInput(pg)) {
            fails(error, PQerrorMessage(pg), NULL);
            return NULL;
        }
    }
    return PQgetResult(pg);
}

static bool begin(const struct copyio *io, const char *sql, ExecStatusType wanted,
                  struct db_error *error)
{
    if (!db_send(io->db, error, sql))
        return false;
    PGresult *result = next_result(io, error);
    bool good = result && PQresultStatus(result) == wanted;
    if (!good && !error->text[0])
        fails(error, "the server did not begin the COPY", result);
    PQclear(result);
    if (!good && db_is_open(io->db)) { /* so that the session can be used on */
        struct db_error ignored;
        PQclear(db_take(io->db, ANSWER_MS, &ignored));
    }
    return good;
}

bool copyio_begin_in(const struct copyio *io, const char *sql, struct db_error *error)
{
    return begin(io, sql, PGRES_COPY_IN, error);
}

bool copyio_put(const struct copyio *io, const char *bytes, size_t length, struct db_error *error)
{
    PGconn *pg = db_connection(io->db);
    if (length && PQputCopyData(pg, bytes, (int)length) != 1)
        return fails(error, PQerrorMessage(pg), NULL);
    return copyio_flush(io, error);
}

/* What ends a COPY: its tag or its error, and no more results behind it. */
static bool take_end(const struct copyio *io, struct db_error *error)
{
    struct db_error ignored;
    PGresult *result = next_result(io, error);
    bool good = result && PQresultStatus(result) == PGRES_COMMAND_OK;
    if (!good && !error->text[0])
        fails(error, "the COPY did not end as it should", result);
    PQclear(result);
    if (result && db_is_open(io->db)) {
        while ((result = next_result(io, &ignored)))
            PQclear(result);
    }
    return good;
}

bool copyio_end_in(const struct copyio *io, struct db_error *error)
{
    PGconn *pg = db_connection(io->db);
    if (PQputCopyEnd(pg, NULL) != 1)
        return fails(error, PQerrorMessage(pg), NULL);
    return take_end(io, error);
}

bool copyio_begin_out(const struct copyio *io, const char *sql, struct db_error *error)
{
    return begin(io, sql, PGRES_COPY_OUT, error);
}

int copyio_get(const struct copyio *io, char **bytes, struct db_error *error)
{
    PGconn *pg = db_connection(io->db);
    int length;
    while ((length = PQgetCopyData(pg, bytes, 1)) == 0) {
        if (!wait_socket(io, false, error))
            return -1;
        if (!PQconsumeInput(pg)) {
            fails(error, PQerrorMessage(pg), NULL);
            return -1;
        }
    }
    if (length > 0)
        return length;
    if (length == -2) {
        fails(error, PQerrorMessage(pg), NULL);
        return -1;
    }
    return take_end(io, error) ? 0 : -1;
}
