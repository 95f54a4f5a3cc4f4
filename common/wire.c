/* wire.c: building and taking apart messages of the PostgreSQL protocol. */
#include "pgshunt/wire.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SQLSTATE_LENGTH 5
#define NULL_VALUE (-1) /* length word of an SQL NULL */

/* ---- building ---- */

/* The position is relative to the first readable byte: growing may move the bytes to the start of the
 * buffer, but never drops one. */
size_t wire_begin(struct buffer *buf, char type)
{
    if (type)
        buffer_append(buf, &type, 1);
    size_t begin = buffer_length(buf);
    wire_put32(buf, 0);
    return begin;
}

/* Ends the process for a message the protocol cannot express (2 GB): a truncated length word would
 * let its rest be read as messages. */
void wire_end(struct buffer *buf, size_t begin)
{
    size_t len = buffer_length(buf) - begin;
    if (len > INT32_MAX)
        abort();
    wire_set32(buffer_head(buf) + begin, (uint32_t)len);
}

void wire_put8(struct buffer *buf, int value)
{
    char byte = (char)value;
    buffer_append(buf, &byte, 1);
}

void wire_put16(struct buffer *buf, int value)
{
    unsigned bits = (unsigned)value;
    unsigned char bytes[2] = {(unsigned char)(bits >> 8), (unsigned char)bits};
    buffer_append(buf, bytes, sizeof(bytes));
}

void wire_put32(struct buffer *buf, int64_t value)
{
    unsigned char bytes[4];
    wire_set32(bytes, (uint32_t)value);
    buffer_append(buf, bytes, sizeof(bytes));
}

void wire_put64(struct buffer *buf, int64_t value)
{
    unsigned char bytes[8];
    wire_set32(bytes, (uint32_t)((uint64_t)value >> 32));
    wire_set32(bytes + 4, (uint32_t)value);
    buffer_append(buf, bytes, sizeof(bytes));
}

void wire_put_cstring(struct buffer *buf, const char *text)
{
    buffer_append(buf, text, *text ? strlen(text) + 1 : 1);
}

void wire_put_bytes(struct buffer *buf, const void *bytes, size_t len)
{
    buffer_append(buf, bytes, len);
}

/* Makes room for a whole message whose length (4 or more) is known, and writes its header; returns where its
 * body goes. */
static char *put_header(struct buffer *buf, char type, size_t length)
{
    if (length > INT32_MAX)
        abort();
    char *at = buffer_reserve(buf, 1 + length);
    at[0] = type;
    wire_set32(at + 1, (uint32_t)length);
    buf->end += 1 + length;
    return at + WIRE_HEADER;
}

void wire_put_query(struct buffer *buf, const char *sql)
{
    size_t begin = wire_begin(buf, 'Q');
    wire_put_cstring(buf, sql);
    wire_end(buf, begin);
}

void wire_put_parse(struct buffer *buf, const char *name, const char *sql, const uint32_t *types,
                    int ntypes)
{
    size_t name_size = strlen(name) + 1, sql_size = strlen(sql) + 1;
    size_t length = 4 + name_size + sql_size + 2 + 4 * (size_t)ntypes;
    char *at = put_header(buf, 'P', length);
    memcpy(at, name, name_size);
    memcpy(at + name_size, sql, sql_size);
    at += name_size + sql_size;
    at[0] = (char)((unsigned)ntypes >> 8);
    at[1] = (char)ntypes;
    for (int i = 0; i < ntypes; i++)
        wire_set32(at + 2 + 4 * (size_t)i, types[i]);
}

void wire_drop_rows(struct buffer *messages, size_t from)
{
    size_t left = buffer_length(messages) - from;
    if (!left)
        return;
    char *at = buffer_head(messages) + from, *to = at;
    for (size_t size; left; at += size, left -= size) {
        size = 1 + (size_t)wire_get32(at + 1);
        if (at[0] == 'T' || at[0] == 'D')
            continue;
        memmove(to, at, size);
        to += size;
    }
    messages->end -= (size_t)(at - to);
}

void wire_put_simple(struct buffer *buf, char type)
{
    put_header(buf, type, 4);
}

static void put_named(struct buffer *buf, char type, char kind, const char *name)
{
    size_t begin = wire_begin(buf, type);
    wire_put8(buf, kind);
    wire_put_cstring(buf, name);
    wire_end(buf, begin);
}

void wire_put_close(struct buffer *buf, char kind, const char *name)
{
    put_named(buf, 'C', kind, name);
}

void wire_put_describe(struct buffer *buf, char kind, const char *name)
{
    put_named(buf, 'D', kind, name);
}

void wire_put_ready(struct buffer *buf, char status)
{
    size_t begin = wire_begin(buf, 'Z');
    wire_put8(buf, status);
    wire_end(buf, begin);
}

void wire_put_complete(struct buffer *buf, const char *tag)
{
    size_t begin = wire_begin(buf, 'C');
    wire_put_cstring(buf, tag);
    wire_end(buf, begin);
}

void wire_put_parameter_status(struct buffer *buf, const char *name, const char *value)
{
    size_t begin = wire_begin(buf, 'S');
    wire_put_cstring(buf, name);
    wire_put_cstring(buf, value);
    wire_end(buf, begin);
}

static void put_error_field(struct buffer *buf, char field, const char *text)
{
    if (!text)
        return;
    wire_put8(buf, field);
    wire_put_cstring(buf, text);
}

/* Fields in the order Postgres sends them; S is V because we do not translate. */
static void put_report(struct buffer *buf, char type, const struct pg_error *error,
                       const char *severity, const char *sqlstate)
{
    size_t begin = wire_begin(buf, type);
    severity = error->severity ? error->severity : severity;
    put_error_field(buf, 'S', severity);
    put_error_field(buf, 'V', severity);
    put_error_field(buf, 'C', error->sqlstate ? error->sqlstate : sqlstate);
    put_error_field(buf, 'M', error->message ? error->message : "");
    put_error_field(buf, 'D', error->detail);
    put_error_field(buf, 'H', error->hint);
    if (error->position > 0) {
        char position[16];
        snprintf(position, sizeof(position), "%d", error->position);
        put_error_field(buf, 'P', position);
    }
    put_error_field(buf, 'W', error->where);
    put_error_field(buf, 's', error->schema);
    put_error_field(buf, 't', error->table);
    put_error_field(buf, 'c', error->column);
    put_error_field(buf, 'd', error->datatype);
    put_error_field(buf, 'n', error->constraint);
    wire_put8(buf, 0);
    wire_end(buf, begin);
}

void wire_put_error(struct buffer *buf, const struct pg_error *error)
{
    put_report(buf, 'E', error, "ERROR", "XX000");
}

void wire_put_notice(struct buffer *buf, const struct pg_error *notice)
{
    put_report(buf, 'N', notice, "NOTICE", "00000");
}

/* pg_type.typlen of the types our own results use. */
static int type_size(uint32_t type_oid)
{
    switch (type_oid) {
    case 16: /* bool */
        return 1;
    case 21: /* smallint */
        return 2;
    case 23:  /* integer */
    case 26:  /* oid */
    case 700: /* real */
        return 4;
    case 20:   /* bigint */
    case 701:  /* double precision */
    case 1114: /* timestamp */
    case 1184: /* timestamptz */
        return 8;
    default:
        return -1;
    }
}

void wire_put_row_description(struct buffer *buf, const struct wire_column *columns, int count)
{
    size_t begin = wire_begin(buf, 'T');
    wire_put16(buf, count);
    for (int i = 0; i < count; i++) {
        wire_put_cstring(buf, columns[i].name);
        wire_put32(buf, 0); /* no table */
        wire_put16(buf, 0); /* no column of a table */
        wire_put32(buf, columns[i].type_oid);
        wire_put16(buf, type_size(columns[i].type_oid));
        wire_put32(buf, -1); /* no type modifier */
        wire_put16(buf, 0);  /* text */
    }
    wire_end(buf, begin);
}

void wire_put_text_row(struct buffer *buf, const char *const *values, int count)
{
    size_t begin = wire_begin(buf, 'D');
    wire_put16(buf, count);
    for (int i = 0; i < count; i++) {
        if (!values[i]) {
            wire_put32(buf, NULL_VALUE);
            continue;
        }
        size_t len = strlen(values[i]);
        wire_put32(buf, (int64_t)len);
        wire_put_bytes(buf, values[i], len);
    }
    wire_end(buf, begin);
}

/* ---- reading ---- */

const char *wire_read_bytes(struct wire_reader *reader, size_t len)
{
    if (reader->bad || len > wire_left(reader)) {
        reader->bad = true;
        return NULL;
    }
    const char *bytes = reader->at;
    reader->at += len;
    return bytes;
}

int wire_read8(struct wire_reader *reader)
{
    const char *p = wire_read_bytes(reader, 1);
    return p ? (unsigned char)*p : 0;
}

int wire_read16(struct wire_reader *reader)
{
    const char *p = wire_read_bytes(reader, 2);
    return p ? (int16_t)wire_get16(p) : 0;
}

int32_t wire_read32(struct wire_reader *reader)
{
    const char *p = wire_read_bytes(reader, 4);
    return p ? (int32_t)wire_get32(p) : 0;
}

int64_t wire_read64(struct wire_reader *reader)
{
    const char *p = wire_read_bytes(reader, 8);
    return p ? (int64_t)((uint64_t)wire_get32(p) << 32 | wire_get32(p + 4)) : 0;
}

const char *wire_read_cstring(struct wire_reader *reader)
{
    size_t left = reader->bad ? 0 : wire_left(reader);
    const char *zero = NULL;
    if (left) /* most names are empty: that costs no call */
        zero = *reader->at ? memchr(reader->at, 0, left) : reader->at;
    if (!zero) {
        reader->bad = true;
        return "";
    }
    const char *text = reader->at;
    reader->at = zero + 1;
    return text;
}

/* Counts are unsigned on the wire: Postgres takes up to 65535 parameters. */
static int read_count(struct wire_reader *reader)
{
    return (uint16_t)wire_read16(reader);
}

/* A count of format codes and the codes; returns where the codes are. */
static const char *read_formats(struct wire_reader *reader, int *count)
{
    *count = read_count(reader);
    return wire_read_bytes(reader, 2 * (size_t)*count);
}

static int error_position(const char *digits)
{
    long value = strtol(digits, NULL, 10);
    return value > 0 && value <= INT32_MAX ? (int)value : 0;
}

static void store_error_field(struct pg_error *error, int field, const char *text, bool *have_v)
{
    switch (field) {
    case 'V': /* like S, never translated, since 9.6 */
        error->severity = text;
        *have_v = true;
        break;
    case 'S':
        if (!*have_v)
            error->severity = text;
        break;
    case 'C':
        if (strlen(text) == SQLSTATE_LENGTH)
            error->sqlstate = text;
        break;
    case 'M':
        error->message = text;
        break;
    case 'D':
        error->detail = text;
        break;
    case 'H':
        error->hint = text;
        break;
    case 'R':
        error->routine = text;
        break;
    case 'P':
        error->position = error_position(text);
        break;
    case 'W':
        error->where = text;
        break;
    case 's':
        error->schema = text;
        break;
    case 't':
        error->table = text;
        break;
    case 'c':
        error->column = text;
        break;
    case 'd':
        error->datatype = text;
        break;
    case 'n':
        error->constraint = text;
        break;
    default: /* the protocol asks to ignore what one does not know */
        break;
    }
}

void wire_read_error(const char *body, size_t len, struct pg_error *error)
{
    *error = (struct pg_error){.severity = "ERROR", .sqlstate = "XX000", .message = ""};
    struct wire_reader reader = wire_reader(body, len);
    bool have_v = false;
    for (;;) {
        int field = wire_read8(&reader);
        const char *text = field ? wire_read_cstring(&reader) : "";
        if (!field || reader.bad)
            return;
        store_error_field(error, field, text, &have_v);
    }
}

int64_t wire_tag_rows(const char *tag)
{
    const char *word = strrchr(tag, ' ');
    if (!word || !word[1])
        return -1;
    int64_t rows = 0;
    for (const char *p = word + 1; *p; p++) {
        if (*p < '0' || *p > '9' || __builtin_mul_overflow(rows, 10, &rows) ||
            __builtin_add_overflow(rows, *p - '0', &rows))
            return -1;
    }
    return rows;
}

/* More fields than fit are as bad as a broken body: the caller's array is never overrun and what it
 * loops over is always filled. */
int wire_read_row_description(const char *body, size_t len, struct wire_field *fields, int max)
{
    struct wire_reader reader = wire_reader(body, len);
    int count = read_count(&reader);
    if (count > max)
        return -1;
    for (int i = 0; i < count && !reader.bad; i++) {
        fields[i].name = wire_read_cstring(&reader);
        fields[i].table_oid = (uint32_t)wire_read32(&reader);
        fields[i].column_number = wire_read16(&reader);
        fields[i].type_oid = (uint32_t)wire_read32(&reader);
        fields[i].type_size = wire_read16(&reader);
        fields[i].type_modifier = wire_read32(&reader);
        fields[i].format = wire_read16(&reader);
    }
    return reader.bad || wire_left(&reader) ? -1 : count;
}

static void skip_params(struct wire_reader *reader, int count)
{
    for (int i = 0; i < count && !reader->bad; i++) {
        int32_t len = wire_read32(reader);
        if (len < NULL_VALUE)
            reader->bad = true;
        else if (len > 0)
            (void)wire_read_bytes(reader, (size_t)len);
    }
}

/* A number of parameter formats that does not fit the parameters passes: the server refuses it in its
 * own words, and wire_bind_format stays within bounds. */
bool wire_read_bind(const char *body, size_t len, struct wire_bind *bind)
{
    struct wire_reader reader = wire_reader(body, len);
    bind->portal = wire_read_cstring(&reader);
    bind->statement = wire_read_cstring(&reader);
    bind->formats = read_formats(&reader, &bind->nformats);
    bind->nparams = read_count(&reader);
    bind->params = reader.at;
    skip_params(&reader, bind->nparams);
    bind->results = reader.at;
    bind->results_len = wire_left(&reader);
    int nresults;
    (void)read_formats(&reader, &nresults);
    return !reader.bad && !wire_left(&reader);
}

int wire_bind_format(const struct wire_bind *bind, int index)
{
    if (bind->nformats == 1)
        index = 0;
    if (index < 0 || index >= bind->nformats)
        return 0;
    return (int16_t)wire_get16(bind->formats + 2 * (size_t)index);
}
