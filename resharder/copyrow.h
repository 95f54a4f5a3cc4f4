/*
 * copyrow.h: the rows of a COPY TO in text or binary format, each given to who wants it. Pure.
 *
 * The sharding key's columns come first in each row, so that who gets it is known before the rest of the row is
 * there: rows of any size pass in little memory. Bytes come in pieces of any size. Binary: the header and the
 * trailer are taken off, tuples are passed on as they are; text: lines with their newlines.
 */
#ifndef PGSHUNT_RESHARDER_COPYROW_H
#define PGSHUNT_RESHARDER_COPYROW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "pgshunt/buffer.h"
#include "pgshunt/error.h"
#include "resharder/move.h"

#define COPYROW_NOBODY (-1)
#define COPYROW_HEADER_SIZE 19
/* What a COPY FROM in binary format begins and ends with. */
extern const char copyrow_header[COPYROW_HEADER_SIZE];
extern const char copyrow_trailer[2];
/* No key may be longer, as it came. */
#define COPYROW_KEY_MAX (1 << 20)
/* ... and of no more columns: a sharding key, and one more that its taker may want. */
#define COPYROW_KEY_COLUMNS (SHARDMAP_MAX_PARTS + 1)

/* What the rows' taker says and gets. `key`: one value for each column of the key, alive during the call. */
struct copyrow_taker {
    int (*choose)(void *arg, const struct move_value *key); /* COPYROW_NOBODY: the row is dropped */
    void (*take)(void *arg, int who, const char *bytes, size_t length); /* once or more per row */
    void (*end)(void *arg, int who); /* the row is whole; may be NULL */
    void *arg;
};

/* Where in the stream it is. */
enum copyrow_place {
    COPYROW_HEADER,  /* binary: the first bytes */
    COPYROW_KEY,     /* between rows, or in one whose key is not whole yet */
    COPYROW_BODY,    /* behind the key; `who` gets it */
    COPYROW_TRAILER, /* binary: nothing more may come */
};

struct copyrow {
    struct copyrow_taker taker;
    bool binary;
    unsigned nkey, ncolumns;
    enum copyrow_place place;
    int who;
    unsigned fields; /* BODY: fields not begun yet */
    uint32_t field;  /* BODY: bytes of the field that are still to come */
    struct buffer
        held; /* bytes of what HEADER or KEY waits for, or of a field's length in BODY; owned */
    struct buffer text; /* the key's columns without escapes; owned */
    int64_t rows;       /* whole ones, dropped ones included */
    const char *error;  /* what is wrong with the stream */
};

/* Rows of `ncolumns` columns, the first `nkey` of which are the key. */
void copyrow_begin(struct copyrow *row, const struct copyrow_taker *taker, bool binary,
                   unsigned nkey, unsigned ncolumns);
/* False: row->error. */
MUST_CHECK bool copyrow_feed(struct copyrow *row, const char *bytes, size_t length);
/* There is no more. False: it ended too early. */
MUST_CHECK bool copyrow_finish(struct copyrow *row);
void copyrow_release(struct copyrow *row);

#endif
