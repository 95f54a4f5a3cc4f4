/*
 * copyio.h: the two directions of COPY on a session, heeding its stop flag; what waits, waits for as long as it takes.
 */
#ifndef PGSHUNT_COPYIO_H
#define PGSHUNT_COPYIO_H

#include <stdbool.h>
#include <stddef.h>

#include "pgshunt/db.h"
#include "pgshunt/error.h"

struct copyio {
    struct db *db;                     /* borrowed */
    const volatile sig_atomic_t *stop; /* not NULL and true: what waits fails */
};

/* Sends all that libpq keeps. */
MUST_CHECK bool copyio_flush(const struct copyio *io, struct db_error *error);
/* Begins `COPY ... FROM STDIN`. */
MUST_CHECK bool copyio_begin_in(const struct copyio *io, const char *sql, struct db_error *error);
/* Sends bytes; comes back when all are with the kernel, so that nothing piles up here. */
MUST_CHECK bool copyio_put(const struct copyio *io, const char *bytes, size_t length,
                           struct db_error *error);
MUST_CHECK bool copyio_end_in(const struct copyio *io, struct db_error *error);

/* Begins `COPY ... TO STDOUT`. */
MUST_CHECK bool copyio_begin_out(const struct copyio *io, const char *sql, struct db_error *error);
/* The next piece, to be given to PQfreemem(): its length. 0: the end, and the COPY is complete; -1: error. */
MUST_CHECK int copyio_get(const struct copyio *io, char **bytes, struct db_error *error);

#endif
