/*
 * pgoutput.h: messages of logical replication (pgoutput, protocol 1 and 2), taken apart.
 *
 * PostgreSQL documentation, "Logical Replication Message Formats" and "Streaming Replication Protocol". Pure: bytes
 * in, values out, which point into those bytes. Any bytes may come: what is no message is an error, nothing else.
 */
#ifndef PGSHUNT_RESHARDER_PGOUTPUT_H
#define PGSHUNT_RESHARDER_PGOUTPUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "pgshunt/buffer.h"
#include "pgshunt/error.h"

/* ---- frames of the replication connection ---- */

struct replication_frame {
    char kind;      /* 'w': data, 'k': keepalive */
    uint64_t start; /* 'w': where in the WAL the data is */
    uint64_t end;   /* 'k': how far the server has sent */
    bool wants_reply;
    const char *data;
    size_t length;
};

MUST_CHECK bool replication_read_frame(const char *bytes, size_t length,
                                       struct replication_frame *frame);
/* Appends a standby's status: what it has received, and what is safe on the target. `time`: PG_TIME_NOW. */
void replication_put_status(struct buffer *out, uint64_t received, uint64_t flushed, int64_t time,
                            bool wants_reply);

/* ---- messages ---- */

enum pgoutput_kind {
    PGOUTPUT_BEGIN = 'B',
    PGOUTPUT_COMMIT = 'C',
    PGOUTPUT_ORIGIN = 'O',
    PGOUTPUT_RELATION = 'R',
    PGOUTPUT_TYPE = 'Y',
    PGOUTPUT_INSERT = 'I',
    PGOUTPUT_UPDATE = 'U',
    PGOUTPUT_DELETE = 'D',
    PGOUTPUT_TRUNCATE = 'T',
    PGOUTPUT_MESSAGE = 'M',
    PGOUTPUT_STREAM_START = 'S',
    PGOUTPUT_STREAM_STOP = 'E',
    PGOUTPUT_STREAM_COMMIT = 'c',
    PGOUTPUT_STREAM_ABORT = 'A',
};

enum pgoutput_value_kind {
    PGOUTPUT_NULL = 'n',
    PGOUTPUT_UNCHANGED = 'u', /* TOASTed and as it was: not sent */
    PGOUTPUT_TEXT = 't',
    PGOUTPUT_BINARY = 'b',
};

struct pgoutput_value {
    const char *bytes; /* NULL: PGOUTPUT_NULL, PGOUTPUT_UNCHANGED */
    uint32_t length;
    enum pgoutput_value_kind kind;
};

struct pgoutput_tuple {
    struct pgoutput_value *values;
    int count;
};

struct pgoutput_column {
    const char *name;
    uint32_t type;
    int32_t modifier;
    bool identity; /* part of the replica identity */
};

#define PGOUTPUT_CASCADE 1
#define PGOUTPUT_RESTART_SEQUENCES 2

struct pgoutput_message {
    enum pgoutput_kind kind;
    uint32_t
        xid; /* BEGIN; STREAM_*: of the whole transaction; others, streamed: the (sub)transaction's */
    uint32_t subxid; /* STREAM_ABORT */
    bool first;      /* STREAM_START: the transaction's first block */
    uint64_t lsn;    /* BEGIN, COMMIT, STREAM_COMMIT: of the commit; ORIGIN: there; MESSAGE */
    uint64_t end;    /* COMMIT, STREAM_COMMIT: behind the commit */
    int64_t time;    /* BEGIN, COMMIT, STREAM_COMMIT: microseconds since 2000 */
    const char *schema,
        *name;     /* RELATION, TYPE ("": pg_catalog); ORIGIN: its name; MESSAGE: its prefix */
    uint32_t oid;  /* of the relation, or the type */
    char identity; /* RELATION: pg_class.relreplident */
    char old_kind; /* UPDATE, DELETE: 'K' columns of the identity, 'O' all; 0: not sent */
    struct pgoutput_tuple old, new;
    struct pgoutput_column *columns; /* RELATION */
    int ncolumns;
    uint32_t *relations; /* TRUNCATE */
    int nrelations;
    int options;        /* TRUNCATE: PGOUTPUT_CASCADE | PGOUTPUT_RESTART_SEQUENCES */
    bool transactional; /* MESSAGE */
    const char *content;
    size_t content_length;
};

/* Memory that messages are read into; the newest message's values live until the next is read. Zero: empty. */
struct pgoutput_parser {
    struct pgoutput_value *values; /* old and new */
    size_t nvalues;
    struct pgoutput_column *columns;
    size_t ncolumns;
    uint32_t *relations;
    size_t nrelations;
};

/*
 * Reads one message. `streamed`: it stands between STREAM_START and STREAM_STOP, where changes have an xid.
 * NULL, or what is wrong with the bytes.
 */
MUST_CHECK const char *pgoutput_read(struct pgoutput_parser *parser, const char *bytes,
                                     size_t length, bool streamed,
                                     struct pgoutput_message *message);
void pgoutput_release(struct pgoutput_parser *parser);

#endif
