/* pgoutput.c: takes messages of logical replication apart. */
#include "resharder/pgoutput.h"

#include <stdlib.h>
#include <string.h>

#include "pgshunt/arena.h"
#include "pgshunt/wire.h"

/* ---- frames ---- */

bool replication_read_frame(const char *bytes, size_t length, struct replication_frame *frame)
{
    struct wire_reader reader = wire_reader(bytes, length);
    *frame = (struct replication_frame){.kind = (char)wire_read8(&reader)};
    if (frame->kind == 'w') {
        frame->start = (uint64_t)wire_read64(&reader);
        frame->end = (uint64_t)wire_read64(&reader);
        (void)wire_read64(&reader);
        frame->length = wire_left(&reader);
        frame->data = wire_read_bytes(&reader, frame->length);
        return !reader.bad;
    }
    if (frame->kind != 'k')
        return false;
    frame->end = (uint64_t)wire_read64(&reader);
    (void)wire_read64(&reader);
    frame->wants_reply = wire_read8(&reader) != 0;
    return !reader.bad && !wire_left(&reader);
}

void replication_put_status(struct buffer *out, uint64_t received, uint64_t flushed, int64_t time,
                            bool wants_reply)
{
    wire_put8(out, 'r');
    wire_put64(out, (int64_t)received);
    wire_put64(out, (int64_t)flushed);
    wire_put64(out, (int64_t)flushed); /* applied */
    wire_put64(out, time);
    wire_put8(out, wants_reply);
}

/* ---- parts of messages ---- */

/* Room for `count` more values behind those of this message; their places may change. */
static void reserve_values(struct pgoutput_parser *parser, size_t count)
{
    if (count <= parser->nvalues)
        return;
    parser->nvalues = count;
    parser->values = mem_realloc(parser->values, count * sizeof *parser->values);
}

static bool read_value(struct wire_reader *reader, struct pgoutput_value *value)
{
    int kind = wire_read8(reader);
    *value = (struct pgoutput_value){.kind = PGOUTPUT_NULL};
    if (kind == PGOUTPUT_NULL || kind == PGOUTPUT_UNCHANGED) {
        value->kind = (enum pgoutput_value_kind)kind;
        return !reader->bad;
    }
    if (kind != PGOUTPUT_TEXT && kind != PGOUTPUT_BINARY)
        return false;
    int32_t length = wire_read32(reader);
    if (length < 0)
        return false;
    value->kind = (enum pgoutput_value_kind)kind;
    value->length = (uint32_t)length;
    value->bytes = wire_read_bytes(reader, (size_t)length);
    return value->bytes != NULL;
}

/* Values go behind the `before` ones that the message has already. */
static bool read_tuple(struct pgoutput_parser *parser, struct wire_reader *reader, size_t before,
                       int *count)
{
    *count = wire_read16(reader);
    if (reader->bad || *count < 0 || (size_t)*count > wire_left(reader))
        return false;
    reserve_values(parser, before + (size_t)*count);
    for (int i = 0; i < *count; i++)
        if (!read_value(reader, &parser->values[before + (size_t)i]))
            return false;
    return true;
}

static bool read_old(struct pgoutput_parser *parser, struct wire_reader *reader, int kind,
                     struct pgoutput_message *message)
{
    message->old_kind = (char)kind;
    return (kind == 'K' || kind == 'O') && read_tuple(parser, reader, 0, &message->old.count);
}

static bool read_new(struct pgoutput_parser *parser, struct wire_reader *reader,
                     struct pgoutput_message *message)
{
    return read_tuple(parser, reader, (size_t)message->old.count, &message->new.count);
}

/* Only now do the values stay where they are. */
static void place_values(const struct pgoutput_parser *parser, struct pgoutput_message *message)
{
    message->old.values = parser->values;
    message->new.values = parser->values ? parser->values + message->old.count : NULL;
}

static bool read_row(struct pgoutput_parser *parser, struct wire_reader *reader,
                     struct pgoutput_message *message)
{
    message->oid = (uint32_t)wire_read32(reader);
    int kind = wire_read8(reader);
    bool good = true;
    if (message->kind != PGOUTPUT_INSERT && kind != 'N') {
        good = read_old(parser, reader, kind, message);
        kind = message->kind == PGOUTPUT_UPDATE && good ? wire_read8(reader) : 0;
    } else if (message->kind == PGOUTPUT_DELETE) {
        return false;
    }
    if (message->kind != PGOUTPUT_DELETE)
        good = good && kind == 'N' && read_new(parser, reader, message);
    place_values(parser, message);
    return good;
}

static bool read_relation(struct pgoutput_parser *parser, struct wire_reader *reader,
                          struct pgoutput_message *message)
{
    message->oid = (uint32_t)wire_read32(reader);
    message->schema = wire_read_cstring(reader);
    message->name = wire_read_cstring(reader);
    message->identity = (char)wire_read8(reader);
    int count = wire_read16(reader);
    if (reader->bad || count < 0 || (size_t)count > wire_left(reader))
        return false;
    if ((size_t)count > parser->ncolumns) {
        parser->ncolumns = (size_t)count;
        parser->columns = mem_realloc(parser->columns, parser->ncolumns * sizeof *parser->columns);
    }
    for (int i = 0; i < count; i++) {
        struct pgoutput_column *column = &parser->columns[i];
        column->identity = (wire_read8(reader) & 1) != 0;
        column->name = wire_read_cstring(reader);
        column->type = (uint32_t)wire_read32(reader);
        column->modifier = wire_read32(reader);
    }
    message->columns = parser->columns;
    message->ncolumns = count;
    return true;
}

static bool read_truncate(struct pgoutput_parser *parser, struct wire_reader *reader,
                          struct pgoutput_message *message)
{
    int32_t count = wire_read32(reader);
    message->options = wire_read8(reader);
    if (reader->bad || count < 0 || (size_t)count > wire_left(reader) / 4)
        return false;
    if ((size_t)count > parser->nrelations) {
        parser->nrelations = (size_t)count;
        parser->relations =
            mem_realloc(parser->relations, parser->nrelations * sizeof *parser->relations);
    }
    for (int32_t i = 0; i < count; i++)
        parser->relations[i] = (uint32_t)wire_read32(reader);
    message->relations = parser->relations;
    message->nrelations = count;
    return true;
}

static bool read_logical_message(struct wire_reader *reader, struct pgoutput_message *message)
{
    message->transactional = (wire_read8(reader) & 1) != 0;
    message->lsn = (uint64_t)wire_read64(reader);
    message->name = wire_read_cstring(reader);
    int32_t length = wire_read32(reader);
    if (reader->bad || length < 0)
        return false;
    message->content_length = (size_t)length;
    message->content = wire_read_bytes(reader, (size_t)length);
    return message->content != NULL;
}

static void read_commit(struct wire_reader *reader, struct pgoutput_message *message)
{
    (void)wire_read8(reader); /* flags, none of which is in use */
    message->lsn = (uint64_t)wire_read64(reader);
    message->end = (uint64_t)wire_read64(reader);
    message->time = wire_read64(reader);
}

/* ---- a message ---- */

/* Changes, which have an xid where they are streamed. */
static bool is_change(enum pgoutput_kind kind)
{
    return kind && memchr("RYIUDTM", (int)kind, 7) != NULL;
}

static bool read_change(struct pgoutput_parser *parser, struct wire_reader *reader,
                        struct pgoutput_message *message)
{
    if (message->kind == PGOUTPUT_RELATION)
        return read_relation(parser, reader, message);
    if (message->kind == PGOUTPUT_TRUNCATE)
        return read_truncate(parser, reader, message);
    if (message->kind == PGOUTPUT_MESSAGE)
        return read_logical_message(reader, message);
    if (message->kind != PGOUTPUT_TYPE)
        return read_row(parser, reader, message);
    message->oid = (uint32_t)wire_read32(reader);
    message->schema = wire_read_cstring(reader);
    message->name = wire_read_cstring(reader);
    return true;
}

static bool read_frame_of_transaction(struct wire_reader *reader, struct pgoutput_message *message)
{
    switch ((int)message->kind) {
    case PGOUTPUT_BEGIN:
        message->lsn = (uint64_t)wire_read64(reader);
        message->time = wire_read64(reader);
        message->xid = (uint32_t)wire_read32(reader);
        return true;
    case PGOUTPUT_COMMIT:
        read_commit(reader, message);
        return true;
    case PGOUTPUT_ORIGIN:
        message->lsn = (uint64_t)wire_read64(reader);
        message->name = wire_read_cstring(reader);
        return true;
    case PGOUTPUT_STREAM_START:
        message->xid = (uint32_t)wire_read32(reader);
        message->first = wire_read8(reader) == 1;
        return true;
    case PGOUTPUT_STREAM_STOP:
        return true;
    case PGOUTPUT_STREAM_COMMIT:
        message->xid = (uint32_t)wire_read32(reader);
        read_commit(reader, message);
        return true;
    case PGOUTPUT_STREAM_ABORT:
        message->xid = (uint32_t)wire_read32(reader);
        message->subxid = (uint32_t)wire_read32(reader);
        return true;
    default:
        return false;
    }
}

const char *pgoutput_read(struct pgoutput_parser *parser, const char *bytes, size_t length,
                          bool streamed, struct pgoutput_message *message)
{
    struct wire_reader reader = wire_reader(bytes, length);
    *message = (struct pgoutput_message){
        .kind = (enum pgoutput_kind)wire_read8(&reader), .schema = "", .name = ""};
    bool change = is_change(message->kind);
    if (change && streamed)
        message->xid = (uint32_t)wire_read32(&reader);
    bool good = change ? read_change(parser, &reader, message)
                       : read_frame_of_transaction(&reader, message);
    if (!good || reader.bad)
        return "the source sent a message of its change stream that is malformed, or unknown";
    if (wire_left(&reader))
        return "the source sent a message of its change stream with bytes left over";
    return NULL;
}

void pgoutput_release(struct pgoutput_parser *parser)
{
    free(parser->values);
    free(parser->columns);
    free(parser->relations);
    *parser = (struct pgoutput_parser){0};
}
