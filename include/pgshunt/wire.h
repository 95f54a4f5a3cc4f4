/*
 * wire.h: the PostgreSQL frontend/backend protocol, version 3: building and taking apart messages.
 * PostgreSQL documentation, chapter "Frontend/Backend Protocol", "Message Formats".
 *
 * Building appends to a struct buffer; wire_begin() remembers where the length goes. Reading goes
 * through a cursor that never passes its end: after any overrun `bad` is set and every further read
 * gives 0 or "", so a reader checks once, at the end.
 */
#ifndef PGSHUNT_WIRE_H
#define PGSHUNT_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "pgshunt/buffer.h"
#include "pgshunt/error.h"

#define WIRE_HEADER 5 /* type byte and length */
#define WIRE_PROTOCOL_3_0 196608
#define WIRE_PROTOCOL_3_2 196610 /* the newest we know: cancel keys of up to 256 bytes */
#define WIRE_CANCEL_REQUEST 80877102
#define WIRE_SSL_REQUEST 80877103
#define WIRE_GSSENC_REQUEST 80877104
#define WIRE_MESSAGE_MAX 0x3fffffff /* as Postgres: PQ_LARGE_MESSAGE_LIMIT, a gigabyte */
#define WIRE_SMALL_MESSAGE_MAX                                                                     \
    10000                      /* as Postgres: PQ_SMALL_MESSAGE_LIMIT, for those without values */
#define WIRE_STARTUP_MAX 10000 /* as Postgres: MAX_STARTUP_PACKET_LENGTH */

static inline uint32_t wire_get32(const void *p)
{
    const unsigned char *b = p;
    return (uint32_t)b[0] << 24 | (uint32_t)b[1] << 16 | (uint32_t)b[2] << 8 | b[3];
}

static inline uint16_t wire_get16(const void *p)
{
    const unsigned char *b = p;
    return (uint16_t)(b[0] << 8 | b[1]);
}

static inline void wire_set32(void *p, uint32_t v)
{
    unsigned char *b = p;
    b[0] = (unsigned char)(v >> 24);
    b[1] = (unsigned char)(v >> 16);
    b[2] = (unsigned char)(v >> 8);
    b[3] = (unsigned char)v;
}

/* ---- building ---- */

/* Starts a message of `type` (0: none, for startup packets); returns its position for wire_end. */
size_t wire_begin(struct buffer *buf, char type);
void wire_end(struct buffer *buf, size_t begin);
void wire_put8(struct buffer *buf, int value);
void wire_put16(struct buffer *buf, int value);
void wire_put32(struct buffer *buf, int64_t value);
void wire_put64(struct buffer *buf, int64_t value);
void wire_put_cstring(struct buffer *buf, const char *text);
void wire_put_bytes(struct buffer *buf, const void *bytes, size_t len);

/* Whole messages. */
void wire_put_query(struct buffer *buf, const char *sql);
void wire_put_parse(struct buffer *buf, const char *name, const char *sql, const uint32_t *types,
                    int ntypes);
/* Takes RowDescriptions and DataRows out of whole messages of our own, from that byte on. */
void wire_drop_rows(struct buffer *messages, size_t from);
void wire_put_simple(struct buffer *buf, char type); /* Sync, Flush, '1', '2', '3', 'n', ... */
void wire_put_close(struct buffer *buf, char kind, const char *name);
void wire_put_describe(struct buffer *buf, char kind, const char *name);
void wire_put_ready(struct buffer *buf, char status);
void wire_put_complete(struct buffer *buf, const char *tag);
void wire_put_parameter_status(struct buffer *buf, const char *name, const char *value);
COLD void wire_put_error(struct buffer *buf, const struct pg_error *error);
COLD void wire_put_notice(struct buffer *buf, const struct pg_error *notice);

/* A text-format result of the proxy's own (console, SHOW, EXPLAIN). */
struct wire_column {
    const char *name;
    uint32_t type_oid;
};
void wire_put_row_description(struct buffer *buf, const struct wire_column *columns, int count);
/* NULL values are SQL NULL. */
void wire_put_text_row(struct buffer *buf, const char *const *values, int count);

/* ---- reading ---- */

struct wire_reader {
    const char *at;
    const char *end;
    bool bad;
};

static inline struct wire_reader wire_reader(const char *bytes, size_t len)
{
    return (struct wire_reader){bytes, len ? bytes + len : bytes, false};
}

int wire_read8(struct wire_reader *reader);
int wire_read16(struct wire_reader *reader); /* signed */
int32_t wire_read32(struct wire_reader *reader);
int64_t wire_read64(struct wire_reader *reader);
/* Points into the message; "" when bad. */
const char *wire_read_cstring(struct wire_reader *reader);
const char *wire_read_bytes(struct wire_reader *reader, size_t len); /* NULL when bad */
static inline size_t wire_left(const struct wire_reader *reader)
{
    return (size_t)(reader->end - reader->at);
}

/* Takes an ErrorResponse or NoticeResponse body apart; missing fields get harmless defaults ("",
 * "XX000"), never NULL (except detail and hint). Strings point into the body. */
void wire_read_error(const char *body, size_t len, struct pg_error *error);

/* Rows counted by a CommandComplete tag ("INSERT 0 5": 5, "SELECT 3": 3); -1 if the tag has none. */
int64_t wire_tag_rows(const char *tag);

struct wire_field { /* one column of a RowDescription */
    const char *name;
    uint32_t table_oid;
    int column_number;
    uint32_t type_oid;
    int type_size;
    int32_t type_modifier;
    int format; /* 0 text, 1 binary */
};
/* Number of fields, or -1 if the body is not one. `fields` has room for `max`. */
int wire_read_row_description(const char *body, size_t len, struct wire_field *fields, int max);

struct wire_bind { /* pointers go into the body */
    const char *portal;
    const char *statement;
    int nformats;
    const char *formats; /* nformats 16-bit codes */
    int nparams;
    const char *params;  /* nparams times length and bytes */
    const char *results; /* rest of the message: result formats, count first */
    size_t results_len;
};
MUST_CHECK bool wire_read_bind(const char *body, size_t len, struct wire_bind *bind);
/* Format code of parameter i as the protocol says: none: text, one: all alike. */
int wire_bind_format(const struct wire_bind *bind, int index);

#endif
